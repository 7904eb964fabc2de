//! An entry as it lies in Redis, and the record of one variant.
//!
//! ```text
//! entry    magic | version u8 | flags u8 | life u64 | position u64 | begun u64 | stored u64 | length u32 | checksum u64
//!          | what `object::codec` makes of it, as the flags say compressed (zstd), and then enciphered
//! variant  stored u64 | flags u8 | what `object::variants_codec` makes of it, as the flags say enciphered
//! ```
//!
//! Numbers of this module are big-endian: scripts read them. Life and position are where the fleet's purge log was before
//! the request left, `begun` when that was, `length` is that of the content before it was compressed. Local stamps mean
//! nothing elsewhere and are left out. What is read is what was written or an error, whatever lies there, and nothing is
//! decompressed that says of itself that it is too long.
//!
//! One that is long lies in pieces (`pieces.rs`), and is put together before it comes here.

use std::borrow::Cow;

use xxhash_rust::xxh3::Xxh3;

use super::seal::Seal;
use crate::{
    object::{
        codec::{self, DecodeError},
        entry::Entry,
        key::Key,
        scope::{FleetPosition, Position},
        time::Timestamp,
        variants_codec,
        vary::{Variant, Variants},
    },
    store::compress,
};

/// Raised whenever the layout changes: other versions are not read.
pub(super) const VERSION: u8 = 2;

const MAGIC: [u8; 4] = *b"LRD2";
const ZSTD: u8 = 1;
const SEALED: u8 = 1 << 1;
/// The payload is elsewhere (`pieces.rs`).
pub(super) const PIECED: u8 = 1 << 2;

/// Bytes before the checksum.
const FACTS: usize = 42;

/// Bytes before the content.
pub(super) const HEAD: usize = FACTS + 8;

/// What an entry takes beside its content: a head of the longest that origins may send would be refused.
const BESIDE_MAX: u64 = 1 << 20;

/// What sealing adds: a nonce and a tag.
const SEALING: u64 = 28;

/// When and where in the fleet's purge log the fill of an entry began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Where the log of the fleet was.
    pub position: FleetPosition,
    /// When.
    pub at: Timestamp,
}

/// Why what lies in Redis is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    /// Of something else, or of another release.
    #[error("not an entry of this release")]
    Foreign,
    /// A piece of it is gone.
    #[error("a piece is missing")]
    Missing,
    /// It is not as it was written.
    #[error("damaged")]
    Damaged,
    /// Longer than it may be.
    #[error("too long")]
    TooLong,
    /// It cannot be opened, or is not sealed where it has to be.
    #[error("sealed otherwise")]
    Sealed,
    /// Undamaged, and no entry.
    #[error("{0}")]
    Entry(#[from] DecodeError),
    /// Of another key.
    #[error("the entry of another key")]
    OtherKey,
}

/// Writes and reads values.
pub(super) struct Form {
    pub(super) compression: bool,
    pub(super) seal: Option<Seal>,
    /// Content of one entry.
    pub(super) object_bytes_max: u64,
}

/// What was written, and what compression made of it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    /// Lengths before and after.
    pub(super) compressed: Option<(usize, usize)>,
}

impl Form {
    /// As it is written; `None` where it is too long, or there is no randomness to seal it with.
    pub(super) fn encode(&self, entry: &Entry, begun: Begun) -> Option<Written> {
        let plain = codec::encode(entry);
        let length = u32::try_from(plain.len()).ok().filter(|length| u64::from(*length) <= self.longest())?;
        let pays = self.compression && compress::may_pay(&entry.head, entry.content().len() as u64);
        let packed = pays.then(|| compress::compress(&plain)).flatten();
        let compressed = packed.as_ref().map(|packed| (plain.len(), packed.len()));
        let mut flags = if packed.is_some() { ZSTD } else { 0 };
        if self.seal.is_some() {
            flags |= SEALED;
        }
        let payload = packed.unwrap_or(plain);
        let mut bytes = Vec::with_capacity(HEAD + payload.len() + 32);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, flags]);
        bytes.extend_from_slice(&place(begun.position));
        for time in [begun.at, entry.stored()] {
            bytes.extend_from_slice(&time.as_millis().to_be_bytes());
        }
        bytes.extend_from_slice(&length.to_be_bytes());
        let payload = match &self.seal {
            None => payload,
            Some(seal) => seal.seal(&entry.key, &bytes, &payload)?,
        };
        let sum = checksum(&bytes, &payload);
        bytes.extend_from_slice(&sum.to_be_bytes());
        bytes.extend_from_slice(&payload);
        Some(Written { bytes, compressed })
    }

    /// The entry of `key` that was written, its stamp that of nothing, and when its fill began.
    pub(super) fn decode(&self, key: &Key, bytes: &[u8]) -> Result<(Entry, Begun), ValueError> {
        let (facts, rest) = bytes.split_at_checked(FACTS).ok_or(ValueError::Foreign)?;
        let (sum, payload) = rest.split_first_chunk::<8>().ok_or(ValueError::Damaged)?;
        let (begun, flags, length) = Self::facts(facts)?;
        if u64::from_be_bytes(*sum) != checksum(facts, payload) {
            return Err(ValueError::Damaged);
        }
        if length > self.longest() {
            return Err(ValueError::TooLong);
        }
        let payload = match (&self.seal, flags & SEALED != 0) {
            (None, false) => Cow::Borrowed(payload),
            (Some(seal), true) => Cow::Owned(seal.open(key, facts, payload).ok_or(ValueError::Sealed)?),
            _ => return Err(ValueError::Sealed),
        };
        let length = usize::try_from(length).map_err(|_| ValueError::TooLong)?;
        let plain = match flags & ZSTD {
            0 if payload.len() == length => payload,
            0 => return Err(ValueError::Damaged),
            _ => Cow::Owned(compress::decompress(&payload, length).ok_or(ValueError::Damaged)?),
        };
        let mut entry = codec::decode(&plain)?;
        if entry.key != *key {
            return Err(ValueError::OtherKey);
        }
        entry.stamp = Position::START;
        Ok((entry, begun))
    }

    fn facts(facts: &[u8]) -> Result<(Begun, u8, u64), ValueError> {
        let number = |at: usize| facts[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let length = facts[38..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let [flags, ..] = facts[5..] else { return Err(ValueError::Foreign) };
        if facts[..4] != MAGIC || facts[4] != VERSION || flags & !(ZSTD | SEALED) != 0 {
            return Err(ValueError::Foreign);
        }
        let position = placed(&facts[6..]).unwrap_or_default();
        Ok((Begun { position, at: Timestamp::from_millis(number(22)) }, flags, u64::from(length)))
    }

    /// Longest entry before it is compressed.
    fn longest(&self) -> u64 {
        self.object_bytes_max.saturating_add(BESIDE_MAX)
    }

    /// Longest payload of a value.
    pub(super) fn longest_payload(&self) -> u64 {
        self.longest().saturating_add(SEALING)
    }

    /// The record of one variant of `primary`; `None` without randomness.
    pub(super) fn encode_variant(&self, primary: &Key, variant: &Variant) -> Option<Vec<u8>> {
        let record = variants_codec::encode(&Variants::default().with(variant.clone(), 1));
        let stored = variant.stored().as_millis().to_be_bytes();
        let (flags, record) = match &self.seal {
            None => (0, record),
            Some(seal) => (SEALED, seal.seal(primary, &stored, &record)?),
        };
        Some([&stored[..], &[flags], &record].concat())
    }

    /// The variants of `primary` that these are the records of, the one stored last first; what is none is left out.
    pub(super) fn decode_variants(&self, primary: &Key, records: &[Vec<u8>]) -> Variants {
        let mut variants: Vec<_> = records.iter().filter_map(|record| self.decode_variant(primary, record)).collect();
        variants.sort_by_key(Variant::stored);
        variants.into_iter().fold(Variants::default(), |all, one| all.with(one, records.len()))
    }

    fn decode_variant(&self, primary: &Key, record: &[u8]) -> Option<Variant> {
        let (stored, rest) = record.split_first_chunk::<8>()?;
        let (flags, record) = rest.split_first()?;
        let variants = match (&self.seal, *flags) {
            (None, 0) => variants_codec::decode(record),
            (Some(seal), SEALED) => variants_codec::decode(&seal.open(primary, stored, record)?),
            _ => return None,
        };
        variants.ok()?.iter().next().cloned()
    }
}

/// A position as values and leases have it.
pub(super) fn place(position: FleetPosition) -> [u8; 16] {
    let FleetPosition { life, position } = position;
    (u128::from(life) << 64 | u128::from(position.number())).to_be_bytes()
}

/// What [`place`] wrote, and whatever follows; `None` where that is too short.
pub(super) fn placed(bytes: &[u8]) -> Option<FleetPosition> {
    let (life, rest) = bytes.split_first_chunk()?;
    let position = Position::from_number(u64::from_be_bytes(*rest.first_chunk()?));
    Some(FleetPosition { life: u64::from_be_bytes(*life), position })
}

/// Against damage, not against forgery.
fn checksum(facts: &[u8], payload: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(facts);
    hasher.update(payload);
    hasher.digest()
}

/// Values for tests.
#[cfg(test)]
pub(super) mod testing {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, StatusCode, header};

    use super::*;
    use crate::object::{entry::Unpacked, head::Head, key::KeyBuilder, testing};

    pub(in crate::store::l2) fn key(name: &str) -> Key {
        KeyBuilder::new(name).finish()
    }

    pub(in crate::store::l2) fn form(sealed: bool) -> Form {
        let seal = sealed.then(|| Seal::new(&[1; 32]).0);
        Form { compression: true, seal, object_bytes_max: 100_000 }
    }

    pub(in crate::store::l2) fn entry(body: Vec<u8>, stored: u64) -> Arc<Entry> {
        let fields = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        let unpacked = Unpacked {
            head: Head::new(StatusCode::OK, &fields),
            body: Bytes::from(body),
            stored: Timestamp::from_millis(stored),
            ..testing::unpacked(key("one"), Position::START, &[])
        };
        Arc::new(unpacked.pack())
    }

    pub(in crate::store::l2) fn begun(life: u64, position: u64, at: u64) -> Begun {
        let position = FleetPosition { life, position: Position::from_number(position) };
        Begun { position, at: Timestamp::from_millis(at) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, HeaderValue, StatusCode, header};
    use proptest::{collection::vec, prelude::*};

    use super::{
        testing::{begun, entry, form, key},
        *,
    };
    use crate::object::{
        entry::Unpacked,
        head::Head,
        vary::{Comparing, Vary},
    };

    fn facts(entry: &Arc<Entry>) -> Unpacked {
        entry.under(entry.head.clone())
    }

    proptest! {
        #[test]
        fn there_and_back(
            body in vec(any::<u8>(), 0..3000),
            again in 1..20_usize,
            numbers: [u64; 3],
            stored in 0..1_u64 << 47,
            sealed: bool,
        ) {
            let (entry, form) = (entry(body.repeat(again), stored), form(sealed));
            let begun = begun(numbers[0], numbers[1], numbers[2]);
            let written = form.encode(&entry, begun).expect("not too long");
            let (read, when) = form.decode(&entry.key, &written.bytes).expect("written by encode");
            prop_assert_eq!(when, begun);
            prop_assert_eq!(facts(&Arc::new(read)), facts(&entry));
        }

        #[test]
        fn any_damage_is_found(
            body in vec(0..4_u8, 0..3000),
            at: prop::sample::Index,
            bit in 0..8_u8,
            sealed: bool,
        ) {
            let (entry, form) = (entry(body, 1), form(sealed));
            let mut bytes = form.encode(&entry, begun(1, 2, 3)).expect("not too long").bytes;
            let at = at.index(bytes.len());
            prop_assert!(form.decode(&entry.key, &bytes[..at]).is_err());
            bytes[at] ^= 1 << bit;
            prop_assert!(form.decode(&entry.key, &bytes).is_err());
        }

        #[test]
        fn garbage_is_an_error(bytes in vec(any::<u8>(), 0..200), sealed: bool) {
            prop_assert!(form(sealed).decode(&key("one"), &bytes).is_err());
            prop_assert!(form(sealed).decode_variants(&key("one"), &[bytes]).is_empty());
        }

        /// Behind a right checksum, where only the checks of each field are left.
        #[test]
        fn garbage_behind_a_right_checksum(payload in vec(any::<u8>(), 0..200), flags in 0..4_u8, length: u32) {
            let mut bytes = [&MAGIC[..], &[VERSION, flags], &[0; 32], &length.to_be_bytes()].concat();
            let sum = checksum(&bytes, &payload);
            bytes.extend_from_slice(&sum.to_be_bytes());
            bytes.extend_from_slice(&payload);
            prop_assert!(form(false).decode(&key("one"), &bytes).is_err());
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (entry, form) = (entry(vec![b'x'; 10], 1), form(false));
        let good = form.encode(&entry, begun(1, 2, 3)).expect("not too long").bytes;
        let error = |form: &Form, key: &Key, bytes: &[u8]| form.decode(key, bytes).map(|_| ()).expect_err("wrong");
        assert_eq!(error(&form, &entry.key, b"HTTP/1.1 200 OK"), ValueError::Foreign);
        assert_eq!(error(&form, &entry.key, &good[..HEAD - 1]), ValueError::Damaged);
        assert_eq!(error(&form, &key("other"), &good), ValueError::OtherKey);
        assert_eq!(error(&self::form(true), &entry.key, &good), ValueError::Sealed);
        let narrow = Form { object_bytes_max: 0, ..self::form(false) };
        let mut longer = good.clone();
        longer[38..42].copy_from_slice(&u32::MAX.to_be_bytes());
        let sum = checksum(&longer[..FACTS], &longer[HEAD..]);
        longer[FACTS..HEAD].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(error(&narrow, &entry.key, &longer), ValueError::TooLong);
        let sealed = self::form(true).encode(&entry, begun(1, 2, 3)).expect("not too long").bytes;
        assert_eq!(error(&form, &entry.key, &sealed), ValueError::Sealed);
    }

    #[test]
    fn compressed_where_that_pays() {
        let text = entry(b"the same again ".repeat(300), 1);
        let written = form(false).encode(&text, begun(1, 2, 3)).expect("not too long");
        let (before, after) = written.compressed.expect("repeats itself");
        assert!(after < before / 10 && written.bytes.len() == HEAD + after);
        let short = entry(b"the same again ".repeat(3), 1);
        assert!(form(false).encode(&short, begun(1, 2, 3)).expect("not too long").compressed.is_none());
        let never = Form { compression: false, ..form(false) };
        assert!(never.encode(&text, begun(1, 2, 3)).expect("not too long").compressed.is_none());
        let too_long = entry(vec![0; 100_001 + (1 << 20)], 1);
        assert!(form(false).encode(&too_long, begun(1, 2, 3)).is_none());
    }

    fn variant(language: &str, stored: u64) -> Variant {
        let response = HeaderMap::from_iter([(header::VARY, HeaderValue::from_static("accept-encoding"))]);
        let mut request = HeaderMap::new();
        request.insert(header::ACCEPT_ENCODING, language.parse().expect("a field value"));
        let by = Comparing { secret: &[9; 32], normalise: true };
        let (head, vary) = (Head::new(StatusCode::OK, &response), Vary::of(&response));
        Variant::new(&key("one"), vary.fields(), &request, &head, by, Timestamp::from_millis(stored))
    }

    #[test]
    fn variants_are_put_together_in_order_of_time() {
        for form in [form(false), form(true)] {
            let all = [variant("gzip", 5), variant("br", 9), variant("zstd", 7)];
            let mut records: Vec<_> =
                all.iter().map(|one| form.encode_variant(&key("one"), one).expect("randomness")).collect();
            records.push(b"garbage".to_vec());
            let read = form.decode_variants(&key("one"), &records);
            assert_eq!(read.iter().map(|one| one.stored().as_millis()).collect::<Vec<_>>(), [9, 7, 5]);
            assert_eq!(read.iter().next(), Some(&all[1]));
            let sealed = form.seal.is_some();
            assert_eq!(form.decode_variants(&key("other"), &records).is_empty(), sealed);
        }
    }
}
