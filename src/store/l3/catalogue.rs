//! What is known of every entry in memory: that it is there, and what losing it would cost. Some fifty bytes each.
//!
//! A key is known by its first eight bytes. Should two ever share them, they share a place here: what is stored of the
//! one may then not be found, and nothing wrong is.
//!
//! Entries that have expired leave first, in order. After them, of [`SAMPLE`] entries taken at random, the one leaves
//! that is least worth keeping: as good as in order, within a few per cent of hits, and nothing has to be moved on use.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use hashbrown::HashTable;

use super::{config::L3Policy, policy::Worth};

/// Entries compared before one leaves.
const SAMPLE: usize = 32;

/// Set in the hits of an entry that was used since they were last noted on the disk.
const TOUCHED: u32 = 1 << 31;

#[derive(Debug)]
struct Place {
    prefix: u64,
    used: AtomicU32,
    /// Of which the highest bit is [`TOUCHED`].
    hits: AtomicU32,
    cost: u32,
    blocks: u32,
    keep: u32,
}

/// All entries.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    places: Vec<Place>,
    by_prefix: HashTable<u32>,
    by_expiry: BTreeSet<(u32, u32)>,
    /// Whether all there are have been read from the index.
    complete: bool,
}

/// What the catalogue says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Present,
    Absent,
    /// Not all has been read yet.
    Unknown,
}

impl Catalogue {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// All there are have been put.
    pub(super) fn completed(&mut self) {
        self.complete = true;
    }

    pub(super) fn presence(&self, prefix: u64) -> Presence {
        match self.find(prefix) {
            Some(_) => Presence::Present,
            None if self.complete => Presence::Absent,
            None => Presence::Unknown,
        }
    }

    /// Notes a use.
    pub(super) fn touch(&self, prefix: u64, now: u32) {
        if let Some(place) = self.find(prefix).map(|at| &self.places[at as usize]) {
            place.used.store(now, Relaxed);
            let hits = place.hits.load(Relaxed) & !TOUCHED;
            // Racing uses may count once.
            place.hits.store((hits + 1).min(TOUCHED - 1) | TOUCHED, Relaxed);
        }
    }

    /// Notes that the entry has been used so often by now.
    pub(super) fn served(&self, prefix: u64, now: u32, hits: u32) {
        if let Some(place) = self.find(prefix).map(|at| &self.places[at as usize]) {
            place.used.store(now, Relaxed);
            let known = place.hits.load(Relaxed) & !TOUCHED;
            place.hits.store(known.max(hits).min(TOUCHED - 1) | TOUCHED, Relaxed);
        }
    }

    pub(super) fn put(&mut self, prefix: u64, worth: Worth) {
        let Worth { used, hits, cost, blocks, keep } = worth;
        let place = Place { prefix, used: used.into(), hits: hits.min(TOUCHED - 1).into(), cost, blocks, keep };
        match self.find(prefix) {
            Some(at) => {
                let old = std::mem::replace(&mut self.places[at as usize], place);
                self.by_expiry.remove(&(old.keep, at));
                self.by_expiry.insert((keep, at));
            }
            None => {
                let at = u32::try_from(self.places.len()).expect("entries are bounded by the configuration");
                self.places.push(place);
                let places = &self.places;
                self.by_prefix.insert_unique(prefix, at, |at| places[*at as usize].prefix);
                self.by_expiry.insert((keep, at));
            }
        }
    }

    /// What is known of an entry.
    pub(super) fn worth(&self, prefix: u64) -> Option<Worth> {
        self.find(prefix).map(|at| self.places[at as usize].worth())
    }

    pub(super) fn remove(&mut self, prefix: u64) {
        let Some(at) = self.find(prefix) else { return };
        let last = u32::try_from(self.places.len() - 1).expect("entries are bounded by the configuration");
        self.forget(prefix, at);
        if at != last {
            // The last one takes the free place.
            let moved = self.places[last as usize].prefix;
            self.forget(moved, last);
            let keep = self.places[last as usize].keep;
            self.places.swap(at as usize, last as usize);
            let places = &self.places;
            self.by_prefix.insert_unique(moved, at, |at| places[*at as usize].prefix);
            self.by_expiry.insert((keep, at));
        }
        self.places.pop();
    }

    fn forget(&mut self, prefix: u64, at: u32) {
        if let Ok(entry) = self.by_prefix.find_entry(prefix, |it| *it == at) {
            entry.remove();
        }
        self.by_expiry.remove(&(self.places[at as usize].keep, at));
    }

    /// An entry that has expired, the one that did so first.
    pub(super) fn expired(&self, now: u32) -> Option<u64> {
        let (keep, at) = *self.by_expiry.first()?;
        (keep <= now).then(|| self.places[at as usize].prefix)
    }

    /// An entry that may leave; `random` gives numbers.
    pub(super) fn victim(&self, policy: L3Policy, now: u32, mut random: impl FnMut() -> usize) -> Option<u64> {
        let number = self.places.len();
        let all = number <= SAMPLE;
        let sample = (0..number.min(SAMPLE)).map(|nth| &self.places[if all { nth } else { random() % number }]);
        let loss = |place: &Place| policy.loss(&place.worth(), now);
        sample.min_by(|one, other| loss(one).total_cmp(&loss(other))).map(|place| place.prefix)
    }

    /// Which of the next `look` entries were used since they were last given out here; `at` is where this goes on.
    pub(super) fn touched(&self, at: &mut usize, look: usize) -> Vec<(u64, Worth)> {
        let mut found = Vec::new();
        for _ in 0..look.min(self.places.len()) {
            *at = (*at + 1) % self.places.len();
            let place = &self.places[*at];
            if place.hits.load(Relaxed) & TOUCHED != 0 {
                let worth = place.worth();
                place.hits.store(worth.hits, Relaxed);
                found.push((place.prefix, worth));
            }
        }
        found
    }

    /// Shows `visit` up to `look` entries from place `at` on, with what is known of them; whether there are more.
    pub(super) fn visit(&self, at: usize, look: usize, mut visit: impl FnMut(u64, Worth)) -> bool {
        self.places.iter().skip(at).take(look).for_each(|place| visit(place.prefix, place.worth()));
        at.saturating_add(look) < self.places.len()
    }

    /// The `max` entries with the most hits, the hottest first.
    pub(super) fn hottest(&self, max: usize) -> Vec<u64> {
        let mut ranked: Vec<_> = self.places.iter().map(|place| (place.worth(), place.prefix)).collect();
        let rank = |(worth, _): &(Worth, u64)| std::cmp::Reverse((worth.hits, worth.used));
        if ranked.len() > max {
            ranked.select_nth_unstable_by_key(max, rank);
            ranked.truncate(max);
        }
        ranked.sort_unstable_by_key(rank);
        ranked.into_iter().map(|(_, prefix)| prefix).collect()
    }

    fn find(&self, prefix: u64) -> Option<u32> {
        // Prefixes of keyed hashes: as good as any hash of them.
        self.by_prefix.find(prefix, |at| self.places[*at as usize].prefix == prefix).copied()
    }
}

impl Place {
    fn worth(&self) -> Worth {
        let Self { cost, blocks, keep, .. } = *self;
        Worth { used: self.used.load(Relaxed), hits: self.hits.load(Relaxed) & !TOUCHED, cost, blocks, keep }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    const PLAIN: Worth = Worth { used: 0, hits: 0, cost: 1, blocks: 1, keep: u32::MAX };

    fn spread(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn absent_once_it_is_complete() {
        let mut catalogue = Catalogue::default();
        catalogue.put(1, PLAIN);
        assert_eq!((catalogue.presence(1), catalogue.presence(2)), (Presence::Present, Presence::Unknown));
        catalogue.completed();
        assert_eq!(catalogue.presence(2), Presence::Absent);
    }

    #[test]
    fn uses_are_noted_once() {
        let mut catalogue = Catalogue::default();
        (0..10).for_each(|n| catalogue.put(n, PLAIN));
        catalogue.touch(3, 5);
        catalogue.touch(3, 6);
        catalogue.touch(7, 6);
        let mut at = 0;
        let mut touched = catalogue.touched(&mut at, 10);
        touched.sort_by_key(|(prefix, _)| *prefix);
        assert_eq!(touched, [(3, Worth { used: 6, hits: 2, ..PLAIN }), (7, Worth { used: 6, hits: 1, ..PLAIN })]);
        assert!(catalogue.touched(&mut at, 10).is_empty());
        catalogue.served(3, 9, 8);
        catalogue.served(3, 9, 4);
        assert_eq!(catalogue.touched(&mut at, 10), [(3, Worth { used: 9, hits: 8, ..PLAIN })]);
        assert_eq!(catalogue.hottest(3)[..2], [3, 7]);
        assert_eq!(catalogue.hottest(99).len(), 10);
    }

    #[test]
    fn the_expired_first_and_in_order() {
        let mut catalogue = Catalogue::default();
        (0..100).for_each(|n| catalogue.put(spread(n), Worth { keep: 1000 - n as u32, ..PLAIN }));
        assert_eq!(catalogue.expired(900), None);
        assert_eq!(catalogue.expired(901), Some(spread(99)));
        catalogue.remove(spread(99));
        assert_eq!(catalogue.expired(902), Some(spread(98)));
    }

    /// The share of victims among the worst tenth, of a catalogue too large to be looked through.
    #[test]
    fn a_sample_is_nearly_as_good_as_an_order() {
        let mut catalogue = Catalogue::default();
        (0..10_000).for_each(|n| catalogue.put(spread(n), Worth { used: n as u32, ..PLAIN }));
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        let among_the_worst = (0..1000)
            .filter_map(|_| catalogue.victim(L3Policy::Lru, 0, &mut random))
            .filter(|victim| catalogue.worth(*victim).is_some_and(|worth| worth.used < 1000))
            .count();
        assert!(among_the_worst > 940, "{among_the_worst} of 1000");
    }

    proptest! {
        #[test]
        fn as_a_map_would_be(steps in vec((0..40_u64, any::<bool>(), 0..50_u32), 0..300)) {
            let mut catalogue = Catalogue::default();
            let mut model = BTreeMap::new();
            for (n, put, keep) in steps {
                let prefix = spread(n);
                if put {
                    catalogue.put(prefix, Worth { keep, ..PLAIN });
                    model.insert(prefix, keep);
                } else {
                    catalogue.remove(prefix);
                    model.remove(&prefix);
                }
                prop_assert_eq!(catalogue.len(), model.len());
                let first = model.values().min().copied();
                prop_assert_eq!(catalogue.expired(u32::MAX).and_then(|it| catalogue.worth(it)).map(|it| it.keep), first);
            }
            for n in 0..40 {
                let known = catalogue.worth(spread(n)).map(|worth| worth.keep);
                prop_assert_eq!(known, model.get(&spread(n)).copied());
            }
        }
    }
}
