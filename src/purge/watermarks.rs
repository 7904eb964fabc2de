//! The table of watermarks: per scope, the last position that purged it.
//!
//! Bounded without scans: scopes are kept in two generations of half the limit each. When the young one is full, the
//! old one is folded into the floor, a watermark for all scopes there are, and the young one takes its place. Folding
//! purges more than was asked for, never less.

use std::{collections::HashMap, time::Duration};

use super::{
    record::Record,
    types::{Mode, Standing},
};
use crate::object::{
    scope::{Position, Scope},
    time::Timestamp,
};

/// The last purges of one scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Watermark {
    pub(super) hard: Position,
    pub(super) soft: Position,
    pub(super) hold_until: Timestamp,
}

impl Watermark {
    fn of(record: &Record) -> Self {
        let hold_until = if record.hold.is_zero() { Timestamp::EPOCH } else { record.at.plus(record.hold) };
        match record.mode {
            Mode::Hard => Self { hard: record.position, hold_until, ..Self::default() },
            Mode::Soft => Self { soft: record.position, hold_until, ..Self::default() },
        }
    }

    fn raise(&mut self, other: Self) {
        self.hard = self.hard.max(other.hard);
        self.soft = self.soft.max(other.soft);
        self.hold_until = self.hold_until.max(other.hold_until);
    }

    fn standing(&self, stamp: Position) -> Standing {
        if self.hard > stamp {
            Standing::Hard
        } else if self.soft > stamp {
            Standing::Soft
        } else {
            Standing::Untouched
        }
    }

    fn latest(&self) -> Position {
        self.hard.max(self.soft)
    }
}

#[derive(Debug, Default)]
struct Generation {
    scopes: HashMap<Scope, Watermark>,
    /// The highest of them all, so that whoever is above it needs no look-up.
    peak: Watermark,
}

impl Generation {
    fn raise(&mut self, scope: Scope, watermark: Watermark) {
        self.scopes.entry(scope).or_default().raise(watermark);
        self.peak.raise(watermark);
    }

    fn of<'a>(&'a self, scopes: &'a [Scope]) -> impl Iterator<Item = &'a Watermark> {
        scopes.iter().filter_map(|scope| self.scopes.get(scope))
    }
}

/// Watermarks of at most so many scopes.
#[derive(Debug)]
pub(super) struct Watermarks {
    young: Generation,
    old: Generation,
    floor: Watermark,
    generation_max: usize,
}

impl Watermarks {
    pub(super) fn new(scopes_max: usize) -> Self {
        let generation_max = (scopes_max / 2).max(1);
        Self { young: Generation::default(), old: Generation::default(), floor: Watermark::default(), generation_max }
    }

    /// Applies a purge. Returns how often it had to fold.
    pub(super) fn apply(&mut self, record: &Record) -> u64 {
        let watermark = Watermark::of(record);
        record.scopes.iter().map(|&scope| u64::from(self.raise(scope, watermark))).sum()
    }

    /// Raises the watermark of one scope. Returns whether something was folded.
    pub(super) fn raise(&mut self, scope: Scope, watermark: Watermark) -> bool {
        let full = self.young.scopes.len() >= self.generation_max && !self.young.scopes.contains_key(&scope);
        let folded = full && self.fold();
        self.young.raise(scope, watermark);
        folded
    }

    /// Raises the watermark of all scopes there are.
    pub(super) fn raise_floor(&mut self, watermark: Watermark) {
        self.floor.raise(watermark);
    }

    fn fold(&mut self) -> bool {
        let young = std::mem::take(&mut self.young);
        let old = std::mem::replace(&mut self.old, young);
        self.floor.raise(old.peak);
        !old.scopes.is_empty()
    }

    /// The worst that happened to any of `scopes` after `stamp`.
    pub(super) fn standing(&self, stamp: Position, scopes: &[Scope]) -> Standing {
        let within = |generation: &Generation| {
            // Nothing can be worse than the peak, and most stamps are above it.
            if generation.peak.latest() <= stamp {
                return Standing::Untouched;
            }
            generation.of(scopes).map(|watermark| watermark.standing(stamp)).max().unwrap_or(Standing::Untouched)
        };
        self.floor.standing(stamp).max(within(&self.young)).max(within(&self.old))
    }

    /// How long fills of any of `scopes` are still held.
    pub(super) fn hold(&self, scopes: &[Scope], now: Timestamp) -> Option<Duration> {
        let within = |generation: &Generation| {
            if generation.peak.hold_until <= now {
                return Timestamp::EPOCH;
            }
            generation.of(scopes).map(|watermark| watermark.hold_until).max().unwrap_or_default()
        };
        let until = self.floor.hold_until.max(within(&self.young)).max(within(&self.old));
        (until > now).then(|| until.since(now))
    }

    /// The last purge of any of `scopes`.
    pub(super) fn latest(&self, scopes: &[Scope]) -> Position {
        let generations = [&self.old, &self.young].into_iter();
        let watermarks = generations.flat_map(|generation| generation.of(scopes));
        watermarks.map(Watermark::latest).fold(self.floor.latest(), Position::max)
    }

    /// Scopes held one by one; one purged in both generations counts twice.
    pub(super) fn len(&self) -> usize {
        self.young.scopes.len() + self.old.scopes.len()
    }

    pub(super) fn floor(&self) -> Watermark {
        self.floor
    }

    /// All of them, the older generation first: raised in this order they make the same table again.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Scope, Watermark)> + '_ {
        [&self.old, &self.young]
            .into_iter()
            .flat_map(|generation| generation.scopes.iter().map(|(scope, watermark)| (*scope, *watermark)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(n: u64) -> Scope {
        Scope::from_bits(n)
    }

    fn at(n: u64) -> Position {
        Position::from_number(n)
    }

    fn hard(n: u64) -> Watermark {
        Watermark { hard: at(n), ..Watermark::default() }
    }

    fn soft(n: u64) -> Watermark {
        Watermark { soft: at(n), ..Watermark::default() }
    }

    #[test]
    fn the_worst_of_the_scopes_counts() {
        let mut table = Watermarks::new(100);
        table.raise(scope(1), hard(5));
        table.raise(scope(2), soft(9));
        let standing =
            |stamp, scopes: &[u64]| table.standing(at(stamp), &scopes.iter().copied().map(scope).collect::<Vec<_>>());
        assert_eq!(standing(4, &[1, 2]), Standing::Hard);
        assert_eq!(standing(5, &[1, 2]), Standing::Soft);
        assert_eq!(standing(5, &[1]), Standing::Untouched);
        assert_eq!(standing(9, &[1, 2]), Standing::Untouched);
        assert_eq!(standing(0, &[3]), Standing::Untouched);
        assert_eq!(table.latest(&[scope(1), scope(2)]), at(9));
        assert_eq!(table.latest(&[scope(3)]), Position::START);
    }

    #[test]
    fn soft_after_hard_hides_nothing() {
        let mut table = Watermarks::new(100);
        table.raise(scope(1), hard(5));
        table.raise(scope(1), soft(6));
        assert_eq!(table.standing(at(4), &[scope(1)]), Standing::Hard);
        assert_eq!(table.standing(at(5), &[scope(1)]), Standing::Soft);
    }

    #[test]
    fn the_oldest_half_becomes_the_floor() {
        let mut table = Watermarks::new(4);
        for n in 1..=4 {
            assert!(!table.raise(scope(n), hard(n)));
        }
        assert!(table.raise(scope(5), soft(5)));
        assert_eq!(table.len(), 3);
        assert_eq!(table.standing(at(1), &[scope(99)]), Standing::Hard, "below the floor nothing is trusted");
        assert_eq!(table.standing(at(2), &[scope(99)]), Standing::Untouched);
        assert_eq!(table.standing(at(3), &[scope(4)]), Standing::Hard, "the younger half is kept");
    }

    #[test]
    fn a_soft_floor_is_soft() {
        let mut table = Watermarks::new(2);
        (1..=3).for_each(|n| {
            table.raise(scope(n), soft(n));
        });
        assert_eq!(table.standing(at(0), &[scope(99)]), Standing::Soft);
    }

    #[test]
    fn holds_end_and_survive_folding() {
        let mut table = Watermarks::new(2);
        let now = Timestamp::from_secs(100);
        let held = Watermark { hold_until: Timestamp::from_secs(130), ..hard(1) };
        table.raise(scope(1), held);
        assert_eq!(table.hold(&[scope(1)], now), Some(Duration::from_secs(30)));
        assert_eq!(table.hold(&[scope(2)], now), None);
        assert_eq!(table.hold(&[scope(1)], Timestamp::from_secs(130)), None);
        (2..=3).for_each(|n| {
            table.raise(scope(n), hard(n));
        });
        assert_eq!(table.hold(&[scope(1)], now), Some(Duration::from_secs(30)));
    }

    #[test]
    fn its_list_makes_the_same_table() {
        let mut table = Watermarks::new(10);
        (1..=13).for_each(|n| {
            table.raise(scope(n % 9), if n % 2 == 0 { hard(n) } else { soft(n) });
        });
        let mut again = Watermarks::new(10);
        again.raise_floor(table.floor());
        for (scope, watermark) in table.iter() {
            again.raise(scope, watermark);
        }
        for stamp in 0..14 {
            for n in 0..10 {
                assert_eq!(table.standing(at(stamp), &[scope(n)]), again.standing(at(stamp), &[scope(n)]));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn never_less_than_asked_for(purges in proptest::collection::vec((0u64..20, proptest::bool::ANY), 1..80), max in 1usize..30) {
            let mut table = Watermarks::new(max);
            for (n, (name, is_hard)) in (1..).zip(&purges) {
                table.raise(scope(*name), if *is_hard { hard(n) } else { soft(n) });
                proptest::prop_assert!(table.len() <= max.max(2));
            }
            for (n, (name, is_hard)) in (1..).zip(&purges) {
                let least = if *is_hard { Standing::Hard } else { Standing::Soft };
                proptest::prop_assert!(table.standing(at(n - 1), &[scope(*name)]) >= least);
            }
            proptest::prop_assert_eq!(table.standing(at(purges.len() as u64), &[scope(0)]), Standing::Untouched);
        }
    }
}
