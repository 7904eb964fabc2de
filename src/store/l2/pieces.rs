//! Long values in pieces, so that none of them holds up Redis and those who wait behind it.
//!
//! ```text
//! under e      the head of the value, its flag `PIECED` set | token 16 bytes | each u32 | bytes u32
//! under p: n   of the value's payload, which has so many bytes: each of them from the nth times each
//! ```
//!
//! Pieces are written first and the head last, in one step with all that a write checks: who finds the head finds what
//! it names, or nothing of use where some of it has gone meanwhile. The token is drawn for each write: no piece ever
//! takes the place of another's. The checksum in the head is that of the whole, and so is the seal.

use super::value::{HEAD, PIECED, ValueError};

/// Bytes under `e` where the payload is elsewhere.
pub(super) const PIECED_HEAD: usize = HEAD + TOKEN + 8;

/// Pieces of one value, as `scripts.rs` removes them: more than the settings allow.
const PIECES_MAX: usize = 4096;

/// Bytes of one piece, as far as settings allow.
const EACH_MAX: u32 = 16 << 20;

const TOKEN: usize = 16;

/// How a value is in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pieces {
    token: [u8; TOKEN],
    each: u32,
    bytes: u32,
}

impl Pieces {
    /// Of `value`, whole as it was written, in pieces of `each` bytes; `None` where they are too many or there is no
    /// randomness.
    pub(super) fn cut(value: &[u8], each: u64) -> Option<Self> {
        let mut token = [0; TOKEN];
        getrandom::fill(&mut token).ok()?;
        let bytes = u32::try_from(value.len().checked_sub(HEAD)?).ok()?;
        let pieces = Self { token, each: u32::try_from(each).ok()?, bytes };
        pieces.is_bounded().then_some(pieces)
    }

    /// What the value that was found says of itself; `None` where it is whole. Nothing longer than `longest` is read.
    pub(super) fn of(value: &[u8], longest: u64) -> Result<Option<Self>, ValueError> {
        if value.get(FLAGS).is_none_or(|flags| flags & PIECED == 0) {
            return Ok(None);
        }
        let rest = value.get(HEAD..PIECED_HEAD).filter(|_| value.len() == PIECED_HEAD);
        let (token, rest) = rest.and_then(<[u8]>::split_first_chunk).ok_or(ValueError::Damaged)?;
        let number = |at: usize| rest[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let pieces = Self { token: *token, each: number(0), bytes: number(4) };
        if !pieces.is_bounded() || u64::from(pieces.bytes) > longest {
            return Err(ValueError::TooLong);
        }
        Ok(Some(pieces))
    }

    fn is_bounded(&self) -> bool {
        (1..=EACH_MAX).contains(&self.each) && self.bytes > 0 && self.count() <= PIECES_MAX
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.bytes.div_ceil(self.each) as usize
    }

    /// What lies under `e` in place of `value`.
    pub(super) fn head(&self, value: &[u8]) -> Vec<u8> {
        let mut head = [&value[..HEAD], &self.token, &self.each.to_be_bytes(), &self.bytes.to_be_bytes()].concat();
        head[FLAGS] |= PIECED;
        head
    }

    /// The pieces of `value`.
    pub(super) fn parts<'a>(&self, value: &'a [u8]) -> impl ExactSizeIterator<Item = &'a [u8]> {
        value[HEAD..].chunks(self.each as usize)
    }

    /// What the pieces of the entry are called, in their order; `prefix` is what all names of its pieces begin with.
    pub(super) fn names(self, prefix: &[u8]) -> impl ExactSizeIterator<Item = Vec<u8>> {
        let token = format!("{:032x}", u128::from_be_bytes(self.token));
        (0..self.count()).map(move |nth| [prefix, format!(":{token}:{nth}").as_bytes()].concat())
    }

    /// How long the nth of them is.
    fn length(&self, nth: usize) -> usize {
        let (each, bytes) = (self.each as usize, self.bytes as usize);
        bytes.saturating_sub(nth.saturating_mul(each)).min(each)
    }
}

/// A value that is put together.
pub(super) struct Joining {
    pieces: Pieces,
    nth: usize,
    whole: Vec<u8>,
}

impl Joining {
    /// Of what lay under `e`, which `pieces` was read from: as much room as that says, which has been found bounded.
    pub(super) fn new(pieces: Pieces, head: &[u8]) -> Self {
        let mut whole = Vec::with_capacity(HEAD + pieces.bytes as usize);
        whole.extend_from_slice(&head[..HEAD]);
        whole[FLAGS] &= !PIECED;
        Self { pieces, nth: 0, whole }
    }

    /// How long the next piece is; 0 where all are here.
    pub(super) fn wants(&self) -> usize {
        self.pieces.length(self.nth)
    }

    /// Adds the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), ValueError> {
        match self.wants() {
            0 => Err(ValueError::TooLong),
            _ if piece.is_empty() => Err(ValueError::Missing),
            wanted if piece.len() != wanted => Err(ValueError::Damaged),
            _ => {
                self.whole.extend_from_slice(piece);
                self.nth += 1;
                Ok(())
            }
        }
    }

    /// The value as it was before it was cut.
    pub(super) fn whole(self) -> Result<Vec<u8>, ValueError> {
        if self.wants() == 0 { Ok(self.whole) } else { Err(ValueError::Missing) }
    }
}

/// Where the flags of a value are.
const FLAGS: usize = 5;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::{collection::vec, prelude::*};

    use super::{
        super::value::testing::{begun, entry, form},
        *,
    };

    /// What Redis has, by name.
    type Lying = HashMap<Vec<u8>, Vec<u8>>;

    fn written(value: &[u8], pieces: Pieces) -> Lying {
        let parts = pieces.names(b"p").zip(pieces.parts(value).map(<[u8]>::to_vec));
        parts.chain([(b"e".to_vec(), pieces.head(value))]).collect()
    }

    fn read(lying: &Lying, longest: u64) -> Result<Vec<u8>, ValueError> {
        let head = &lying[&b"e"[..]];
        let Some(pieces) = Pieces::of(head, longest)? else { return Ok(head.clone()) };
        let mut joining = Joining::new(pieces, head);
        for name in pieces.names(b"p") {
            joining.push(lying.get(&name).map_or(&[][..], |piece| piece))?;
        }
        joining.whole()
    }

    proptest! {
        #[test]
        fn there_and_back(body in vec(any::<u8>(), 0..3000), each in 1..4000_u64, sealed: bool) {
            let (entry, form) = (entry(body, 1), form(sealed));
            let value = form.encode(&entry, begun(1, 2, 3)).expect("not too long").bytes;
            let pieces = Pieces::cut(&value, each).expect("not too many");
            let lying = written(&value, pieces);
            prop_assert_eq!(lying.len(), 1 + (value.len() - HEAD).div_ceil(usize::try_from(each).expect("short")));
            prop_assert!(pieces.parts(&value).all(|part| part.len() as u64 <= each));
            prop_assert_eq!(pieces.parts(&value).len(), pieces.count());
            let whole = read(&lying, form.longest_payload()).expect("as it was written");
            prop_assert_eq!(&whole, &value);
            prop_assert!(form.decode(&entry.key, &whole).is_ok());
            // A release that knew of no pieces would take it for what it cannot read.
            prop_assert!(form.decode(&entry.key, &lying[&b"e"[..]]).is_err());
        }

        #[test]
        fn any_damage_is_found(
            body in vec(any::<u8>(), 100..3000),
            each in 20..100_u64,
            which: prop::sample::Index,
            at: prop::sample::Index,
            bit in 0..8_u8,
            sealed: bool,
        ) {
            let (entry, form) = (entry(body, 1), form(sealed));
            let value = form.encode(&entry, begun(1, 2, 3)).expect("not too long").bytes;
            let lying = written(&value, Pieces::cut(&value, each).expect("not too many"));
            let mut names: Vec<_> = lying.keys().cloned().collect();
            names.sort();
            let name = &names[which.index(names.len())];
            let is_found = |changed: Lying| {
                read(&changed, form.longest_payload()).and_then(|whole| form.decode(&entry.key, &whole)).is_err()
            };
            let changed = |change: &dyn Fn(&mut Vec<u8>)| {
                let mut changed = lying.clone();
                change(changed.get_mut(name).expect("one of them"));
                changed
            };
            let flip = |value: &mut Vec<u8>| {
                let at = at.index(value.len());
                value[at] ^= 1 << bit;
            };
            prop_assert!(is_found(changed(&flip)));
            prop_assert!(is_found(changed(&|value| value.truncate(at.index(value.len())))));
            prop_assert!(is_found(changed(&|value| value.push(bit))));
            if name != b"e" {
                let mut lacking = lying.clone();
                lacking.remove(name);
                prop_assert!(is_found(lacking));
            }
        }

        #[test]
        fn another_order_is_found(body in vec(any::<u8>(), 500..3000), each in 50..100_u64, at: prop::sample::Index) {
            let (entry, form) = (entry(body, 1), form(false));
            let value = form.encode(&entry, begun(1, 2, 3)).expect("not too long").bytes;
            let pieces = Pieces::cut(&value, each).expect("not too many");
            let mut parts: Vec<_> = pieces.parts(&value).collect();
            // Of one length: only a checksum tells.
            let at = at.index(parts.len() - 2);
            prop_assume!(parts[at] != parts[at + 1]);
            parts.swap(at, at + 1);
            let mut joining = Joining::new(pieces, &pieces.head(&value));
            let joined = parts.into_iter().try_for_each(|part| joining.push(part)).and_then(|()| joining.whole());
            prop_assert!(joined.and_then(|whole| form.decode(&entry.key, &whole)).is_err());
        }

        #[test]
        fn garbage_is_bounded(
            start in vec(any::<u8>(), HEAD + TOKEN),
            each in prop_oneof![0..100_u32, any::<u32>()],
            bytes in prop_oneof![0..200_000_u32, any::<u32>()],
            longest in 0..100_000_u64,
        ) {
            let mut head = [&start[..], &each.to_be_bytes(), &bytes.to_be_bytes()].concat();
            head[FLAGS] |= PIECED;
            let is_fine = each > 0 && each <= EACH_MAX && bytes > 0 && u64::from(bytes) <= longest;
            let is_fine = is_fine && bytes.div_ceil(each) as usize <= PIECES_MAX;
            prop_assert_eq!(matches!(Pieces::of(&head, longest), Ok(Some(_))), is_fine);
            prop_assert!(Pieces::of(&head[..head.len() - 1], longest).is_err());
        }
    }

    #[test]
    fn what_claims_too_much_is_refused_before_any_room_is_made() {
        let claims = |each: u32, bytes: u32| {
            let value = vec![0; HEAD + 1];
            let head = Pieces { token: [7; TOKEN], each, bytes }.head(&value);
            Pieces::of(&head, 1 << 20).map(|pieces| pieces.map(|pieces| pieces.count()))
        };
        assert_eq!(claims(1 << 18, 1 << 20), Ok(Some(4)));
        assert_eq!(claims(1 << 18, (1 << 20) + 1), Err(ValueError::TooLong));
        assert_eq!(claims(1 << 18, u32::MAX), Err(ValueError::TooLong));
        assert_eq!(claims(1, 5000), Err(ValueError::TooLong), "too many");
        for (each, bytes) in [(0, 1), (0, 0), (1, 0), (u32::MAX, 1)] {
            assert_eq!(claims(each, bytes), Err(ValueError::TooLong), "{each} {bytes}");
        }
    }

    #[test]
    fn names_are_of_one_write() {
        let pieces = Pieces { token: [0xab; TOKEN], each: 10, bytes: 11 };
        let names: Vec<_> = pieces.names(b"larder:{x}:p").map(String::from_utf8).collect();
        let token = "ab".repeat(16);
        assert_eq!(names, [Ok(format!("larder:{{x}}:p:{token}:0")), Ok(format!("larder:{{x}}:p:{token}:1"))]);
        let value = vec![0; HEAD + 11];
        assert_ne!(Pieces::cut(&value, 10), Pieces::cut(&value, 10));
    }
}
