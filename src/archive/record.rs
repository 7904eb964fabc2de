//! Records, and the digest that goes over all of them.

use super::{EntryHead, RECORD_MAX, VERSION};

/// What a file begins with.
pub(super) const MAGIC: [u8; 8] = *b"LARDERAR";

/// Bytes of magic and version.
pub(super) const PREAMBLE: usize = MAGIC.len() + 2;

/// Bytes before the payload of a record, and behind it.
pub(super) const BEFORE: usize = 1 + 4;
pub(super) const CHECK: usize = 8;
pub(super) const SEAL: usize = 16;
pub(super) const BEHIND: usize = CHECK + SEAL;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Header = 1,
    Entry = 2,
    Content = 3,
    Dropped = 4,
    End = 5,
}

impl Kind {
    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::Header, Self::Entry, Self::Content, Self::Dropped, Self::End]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Magic and version.
pub(super) fn preamble() -> [u8; PREAMBLE] {
    let mut preamble = [0; PREAMBLE];
    preamble[..MAGIC.len()].copy_from_slice(&MAGIC);
    preamble[MAGIC.len()..].copy_from_slice(&VERSION.to_le_bytes());
    preamble
}

/// The digest of all records up to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain([u8; 32]);

impl Chain {
    pub(super) fn begin() -> Self {
        Self(*blake3::hash(&preamble()).as_bytes())
    }

    /// With one record more.
    pub(super) fn with(self, kind: u8, payload: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(&[kind]).update(&length(payload)).update(payload);
        Self(*hasher.finalize().as_bytes())
    }

    /// What shows damage.
    pub(super) fn check(self) -> [u8; CHECK] {
        let mut check = [0; CHECK];
        check.copy_from_slice(&self.0[..CHECK]);
        check
    }

    /// What shows who wrote it.
    pub(super) fn seal(self, key: &[u8; 32]) -> [u8; SEAL] {
        let mut seal = [0; SEAL];
        seal.copy_from_slice(&blake3::keyed_hash(key, &self.0).as_bytes()[..SEAL]);
        seal
    }
}

/// The length of a payload, as it is written.
pub(super) fn length(payload: &[u8]) -> [u8; 4] {
    u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes()
}

impl EntryHead {
    /// The payload of its record; `None` where it is too long for one.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let Self { route, variant, head, length } = self;
        let bytes = 18 + route.len() + variant.len() + head.len();
        if bytes > RECORD_MAX {
            return None;
        }
        let mut out = Vec::with_capacity(bytes);
        out.extend_from_slice(&u16::try_from(route.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&u32::try_from(variant.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&u32::try_from(head.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(route.as_bytes());
        out.extend_from_slice(variant);
        out.extend_from_slice(head);
        Some(out)
    }

    /// What [`EntryHead::encode`] wrote.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let (route, rest) = payload.split_first_chunk::<2>()?;
        let (variant, rest) = rest.split_first_chunk::<4>()?;
        let (head, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let bytes = |number: &[u8; 4]| usize::try_from(u32::from_le_bytes(*number)).ok();
        let (route, rest) = rest.split_at_checked(u16::from_le_bytes(*route).into())?;
        let (variant, rest) = rest.split_at_checked(bytes(variant)?)?;
        let (head, rest) = rest.split_at_checked(bytes(head)?)?;
        let route = String::from_utf8(route.to_vec()).ok()?;
        let entry = Self { route, variant: variant.to_vec(), head: head.to_vec(), length: u64::from_le_bytes(*length) };
        rest.is_empty().then_some(entry)
    }
}
