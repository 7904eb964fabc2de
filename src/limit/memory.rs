//! What is known of many callers, in a table that never grows: a fixed number of places, in groups of some.
//!
//! A caller's place is one of those of its group, which a keyed hash gives: nobody outside can aim at a group. Each
//! value says when it will be as good as none, and a place whose value is needs no removal: it is simply taken. Where
//! all of a group are in use, the one that would be let go soonest makes room, because it loses the least. So there is
//! no list to keep, nothing to sweep, and no step that takes longer than to look at one group.

use std::hash::{BuildHasher, Hash, RandomState};

use parking_lot::Mutex;

/// Places of a group.
const GROUP: usize = 16;
/// Places for each caller the table is made for: then a group has five in use, and hardly one in 50000 has too many.
const SPARE: usize = 3;
/// Locks, each on a share of the groups.
const SHARDS: usize = 64;

/// What can be kept. The default is what is known of somebody new.
pub(super) trait Idle: Default {
    /// From when on it is as good as [`Default`]; nanoseconds.
    fn idle_at(&self) -> u64;
}

/// What a caller is told from others by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Whose {
    /// By which limit he is counted.
    pub(super) limit: u64,
    /// See [`super::subject`].
    pub(super) subject: u128,
}

#[derive(Default)]
struct Place<V> {
    /// Two keyed hashes of whose it is.
    tag: [u64; 2],
    value: V,
}

/// See the module.
pub(super) struct Table<V> {
    /// Each holds so many whole groups once any of them is used.
    shards: Box<[Mutex<Vec<Place<V>>>]>,
    groups: usize,
    hashers: [RandomState; 2],
}

impl<V: Idle> Table<V> {
    /// For so many callers at once.
    pub(super) fn new(callers: usize) -> Self {
        let groups = callers.saturating_mul(SPARE).div_ceil(GROUP * SHARDS).max(1);
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), groups, hashers: Default::default() }
    }

    /// Lets `change` see and change what is known of somebody.
    pub(super) fn change<R>(&self, whose: Whose, now: u64, change: impl FnOnce(&mut V) -> R) -> R {
        let (tag, shard, group) = self.place(whose);
        let mut places = shard.lock();
        if places.is_empty() {
            places.resize_with(self.groups * GROUP, Place::default);
        }
        let places = &mut places[group..][..GROUP];
        let is_his = |place: &Place<V>| place.tag == tag && place.value.idle_at() > now;
        let found = places.iter().position(is_his);
        let soonest = || (0..GROUP).min_by_key(|&place| places[place].value.idle_at()).unwrap_or_default();
        let place = found.unwrap_or_else(soonest);
        let place = &mut places[place];
        if found.is_none() {
            *place = Place { tag, value: V::default() };
        }
        change(&mut place.value)
    }

    /// What is known of somebody, if anything is.
    pub(super) fn look(&self, whose: Whose, now: u64) -> Option<V>
    where
        V: Copy,
    {
        let (tag, shard, group) = self.place(whose);
        let places = shard.lock();
        let group = places.get(group..)?.iter().take(GROUP);
        let mut his = group.filter(|place| place.tag == tag && place.value.idle_at() > now);
        his.next().map(|place| place.value)
    }

    /// Somebody's tag, the share of the groups that his is among, and where it begins.
    fn place(&self, whose: Whose) -> ([u64; 2], &Mutex<Vec<Place<V>>>, usize) {
        let tag = [self.hashers[0].hash_one(whose), self.hashers[1].hash_one(whose)];
        let shard = usize::try_from(tag[0] % SHARDS as u64).unwrap_or_default();
        let group = usize::try_from(tag[1] % self.groups as u64).unwrap_or_default();
        (tag, &self.shards[shard], group * GROUP)
    }

    /// How many are known.
    pub(super) fn known(&self, now: u64) -> usize {
        let known = |places: &[Place<V>]| places.iter().filter(|place| place.value.idle_at() > now).count();
        self.shards.iter().map(|shard| known(&shard.lock())).sum()
    }
}

impl Idle for u64 {
    /// An arrival time ([`super::gcra`]) that has passed is as good as none.
    fn idle_at(&self) -> u64 {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(subject: u128) -> Whose {
        Whose { limit: 1, subject }
    }

    fn set(table: &Table<u64>, subject: u128, value: u64) {
        table.change(whose(subject), 1, |known| *known = value);
    }

    #[test]
    fn each_has_his_own_until_it_is_idle() {
        let table = Table::<u64>::new(1000);
        (0..1000).for_each(|subject| set(&table, subject, 10));
        assert_eq!((table.known(9), table.known(10)), (1000, 0));
        table.change(whose(7), 5, |known| *known += 10);
        assert_eq!(table.change(whose(7), 5, |known| *known), 20);
        assert_eq!(table.change(Whose { limit: 2, subject: 7 }, 5, |known| *known), 0, "another limit");
        assert_eq!(table.change(whose(8), 10, |known| *known), 0, "idle by now");
    }

    #[test]
    fn it_never_grows_and_lets_go_who_loses_least() {
        let table = Table::<u64>::new(1);
        let places = GROUP * SHARDS;
        for subject in 0..20 * places as u128 {
            set(&table, subject, 1000 + u64::try_from(subject).expect("small"));
        }
        assert_eq!(table.known(2), places, "every place is in use, and no more");
        let first = 1000 + 4 * places as u64;
        assert_eq!(table.known(first), places, "those who were let go are those that came to an end soonest");
    }

    #[test]
    fn a_table_has_room_for_whom_it_is_made_for() {
        let table = Table::<u64>::new(50_000);
        (0..50_000).for_each(|subject| set(&table, subject, 10));
        assert!(table.known(2) > 49_990, "{}", table.known(2));
    }
}
