//! What is needed of an entry to choose what leaves, and to let its content go.
//!
//! It lies apart from the record, so that all briefs can be read at start and rewritten when hits are noted without
//! touching heads. It names nothing but the content, and has a checksum bound to the key. Of the URL it has sixteen bits,
//! where an unsafe request to that could not tell the key: too few to find out which it is, and keyed where content is
//! enciphered, for they would tell whether a guess may be right.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    content::{ContentId, blocks},
    locator::Locator,
    policy::Worth,
    record::{Coding, Stored},
    seal::Seal,
};
use crate::object::{
    entry::Entry,
    freshness::Flags,
    scope::{Position, Scope},
    time::Timestamp,
};

/// See above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Brief {
    pub(super) stored: Stored,
    /// Of no use from then on, in seconds; `u32::MAX`: never.
    pub(super) keep: u32,
    /// When it was last used, in seconds.
    pub(super) used: u32,
    /// How often.
    pub(super) hits: u32,
    /// Milliseconds the origin took.
    pub(super) cost: u32,
    pub(super) kin: Kin,
}

/// What makes an entry one of a kind that has to be looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kin {
    /// Whether it is a part of a representation.
    pub(super) part: bool,
    /// Where its key holds more than its URL: the place of that, and its stamp.
    pub(super) scattered: Option<(u16, Position)>,
}

impl Kin {
    /// That of an entry, as `seal` has it written.
    pub(super) fn of(entry: &Entry, seal: &Seal) -> Self {
        let scattered = entry.freshness().flags.has(Flags::SCATTERED);
        let url = entry.scopes().first().copied().filter(|_| scattered);
        Self { part: entry.part().is_some(), scattered: url.map(|url| (seal.place(url), entry.stamp)) }
    }
}

/// The place of a URL in tables of what is known by URL.
pub(super) fn place(url: Scope) -> u16 {
    // The scope is a hash already.
    (url.bits() & u64::from(u16::MAX)) as u16
}

const ZSTD: u8 = 1;
const PART: u8 = 1 << 1;
const SCATTERED: u8 = 1 << 2;

impl Brief {
    pub(super) const BYTES: usize = 32 + 1 + 8 + 8 + 4 * 4 + 2 + 8 + 4;

    const CHECKED: usize = Self::BYTES - 4;

    pub(super) fn encode(&self, key: &Locator) -> [u8; Self::BYTES] {
        let Self { stored: Stored { id, bytes, coding, length }, keep, used, hits, cost, kin } = *self;
        let mut out = [0; Self::BYTES];
        out[..32].copy_from_slice(id.as_bytes());
        let flags = [(ZSTD, coding == Coding::Zstd), (PART, kin.part), (SCATTERED, kin.scattered.is_some())];
        out[32] = flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum();
        out[33..41].copy_from_slice(&bytes.to_le_bytes());
        out[41..49].copy_from_slice(&length.to_le_bytes());
        for (at, number) in [keep, used, hits, cost].into_iter().enumerate() {
            out[49 + 4 * at..53 + 4 * at].copy_from_slice(&number.to_le_bytes());
        }
        let (place, stamp) = kin.scattered.unwrap_or((0, Position::START));
        out[65..67].copy_from_slice(&place.to_le_bytes());
        out[67..75].copy_from_slice(&stamp.number().to_le_bytes());
        let sum = sum(key, &out);
        out[Self::CHECKED..].copy_from_slice(&sum);
        out
    }

    /// `None` where it is damaged, or of another key.
    pub(super) fn decode(key: &Locator, bytes: &[u8; Self::BYTES]) -> Option<Self> {
        if bytes[Self::CHECKED..] != sum(key, bytes) {
            return None;
        }
        let long = |at: usize| bytes[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let short = |at: usize| bytes[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let has = |flag: u8| bytes[32] & flag != 0;
        let coding = if has(ZSTD) { Coding::Zstd } else { Coding::Plain };
        let place = bytes[65..].first_chunk().map(|bytes| u16::from_le_bytes(*bytes))?;
        let scattered = has(SCATTERED).then_some((place, Position::from_number(long(67)?)));
        let kin = Kin { part: has(PART), scattered };
        let id = ContentId::from_bytes(*bytes.first_chunk()?);
        let stored = Stored { id, bytes: long(33)?, coding, length: long(41)? };
        Some(Self { stored, keep: short(49)?, used: short(53)?, hits: short(57)?, cost: short(61)?, kin })
    }

    /// What its loss is judged by.
    pub(super) fn worth(&self) -> Worth {
        let Self { keep, used, hits, cost, .. } = *self;
        Worth { used, hits, cost, blocks: blocks(self.stored.bytes), keep }
    }
}

/// The second after which nothing is of use any more, if a deadline is at `time`.
pub(super) fn expiry(time: Timestamp) -> u32 {
    u32::try_from(time.as_secs().saturating_add(1)).unwrap_or(u32::MAX)
}

/// Seconds of a time, as briefs have them: until the year 2106.
pub(super) fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn sum(key: &Locator, bytes: &[u8; Brief::BYTES]) -> [u8; 4] {
    // It spreads as a seed: it is a hash.
    let sum = xxh3_64_with_seed(&bytes[..Brief::CHECKED], key.prefix());
    (sum as u32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_and_damage_is_found() {
        let key = Locator::from_bytes([5; 32]);
        let stored = Stored { id: ContentId::of(b"x"), bytes: 100, coding: Coding::Zstd, length: 1000 };
        let kin = Kin { part: true, scattered: Some((5, Position::from_number(6))) };
        let brief = Brief { stored, keep: 1, used: 2, hits: 3, cost: 4, kin };
        let plain = Brief { stored: Stored { coding: Coding::Plain, ..stored }, kin: Kin::default(), ..brief };
        assert_eq!(Brief::decode(&key, &plain.encode(&key)), Some(plain));
        let bytes = brief.encode(&key);
        assert_eq!(Brief::decode(&key, &bytes), Some(brief));
        assert_eq!(Brief::decode(&Locator::from_bytes([6; 32]), &bytes), None);
        for bit in 0..8 * Brief::BYTES {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Brief::decode(&key, &damaged), None, "{bit}");
        }
    }

    #[test]
    fn deadlines_round_up() {
        assert_eq!(expiry(Timestamp::from_millis(1500)), 2);
        assert_eq!(expiry(Timestamp::NEVER), u32::MAX);
    }
}
