//! What operators see of all that is stored: what is used most, what is largest, what a purge would name. Nothing here
//! counts as a use, and no lock is held for long.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
};

use super::{
    L3,
    record::{Kind, Record},
    seal::Inspected,
};
use crate::object::{
    codec,
    key::Key,
    scope::{Position, Scope},
};

/// Entries of the catalogue that are looked at under its lock at once: less than a millisecond.
const STEP: usize = 10_000;
/// Entries of the catalogue that are looked at, at most: a tenth of a second.
const LOOKED_AT_MAX: usize = 1 << 20;
/// Records read at once.
const RECORDS: usize = 128;

/// What entries are put in order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// Times they were used.
    Hits,
    /// The room they take.
    Size,
}

impl L3 {
    /// Keys of the `max` entries that come first by `rank`, as far as they are known by now: none where what is stored is
    /// enciphered. Blocks for the time of so many reads of the index.
    pub fn first(&self, rank: Rank, max: usize) -> Vec<Key> {
        if self.tier().home.is_enciphered() || max == 0 {
            return Vec::new();
        }
        let prefixes = self.first_prefixes(rank, max);
        let Some(index) = self.tier().index() else { return Vec::new() };
        let found = prefixes.iter().filter_map(|prefix| index.brief(*prefix).ok().flatten());
        found.filter_map(|(locator, _)| self.tier().seal.key(&locator)).collect()
    }

    /// Keys of up to `max` slots, variants records among them, in the order of keys and behind that one; none where what is
    /// stored is enciphered, for then they are not on the disk. `None`: the tier is off. Blocks for one read of the index.
    pub fn keys_after(&self, after: Option<Key>, max: usize) -> Option<Vec<Key>> {
        let tier = self.tier();
        if tier.home.is_enciphered() {
            return Some(Vec::new());
        }
        let after = after.map(|key| tier.seal.locator(&key));
        let briefs = tier.ask(|index| index.briefs(after, max))?;
        Some(briefs.iter().filter_map(|(locator, _)| tier.seal.key(locator)).collect())
    }

    /// Whether nobody can tell by the disk alone which entries there are.
    pub fn is_enciphered(&self) -> bool {
        self.tier().home.is_enciphered()
    }

    fn first_prefixes(&self, rank: Rank, max: usize) -> Vec<u64> {
        let mut first = BinaryHeap::with_capacity(max + 1);
        for at in (0..LOOKED_AT_MAX).step_by(STEP) {
            let more = self.tier().catalogue.read().visit(at, STEP, |prefix, worth| {
                let rank = match rank {
                    Rank::Hits => worth.hits,
                    Rank::Size => worth.blocks,
                };
                first.push(Reverse((rank, prefix)));
                if first.len() > max {
                    first.pop();
                }
            });
            if !more {
                break;
            }
        }
        let first: Vec<_> = first.into_sorted_vec().into_iter().map(|Reverse((_, prefix))| prefix).collect();
        // An entry that has moved between two steps was seen twice.
        let mut seen = HashSet::new();
        first.into_iter().filter(|prefix| seen.insert(*prefix)).collect()
    }

    /// Shows `visit` key, stamp and scopes of up to `max` entries, as they are written by now; whether these were all.
    /// Where what is stored is enciphered there are none to show. Blocks for the time it takes to read them.
    pub fn look_through(&self, max: usize, mut visit: impl FnMut(&Key, Position, &[Scope])) -> bool {
        let tier = self.tier();
        if tier.home.is_enciphered() {
            return tier.catalogue.read().len() == 0;
        }
        let (mut after, mut seen) = (None, 0);
        while seen < max {
            let Some(rows) = tier.ask(|index| index.records(after, RECORDS)) else { return false };
            let Some((last, _)) = rows.last() else { return tier.pending.size().0 == 0 };
            after = Some(*last);
            seen += rows.len();
            for (locator, sealed) in rows {
                let Inspected::Open(record) = tier.seal.inspect(&locator, &sealed) else { continue };
                let Some(record) = Record::decode(&record).filter(|record| record.kind != Kind::Variants) else {
                    continue;
                };
                if let Ok((key, stamp, scopes)) = codec::decode_scopes(&record.head) {
                    visit(&key, stamp, &scopes);
                }
            }
        }
        false
    }
}
