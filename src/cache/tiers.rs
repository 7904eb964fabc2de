//! What is put into the tiers, and taken out of them for any reason but want of room.
//!
//! L1 and L3 are changed in one step: see `disk.rs`.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::{StatusCode, header};

use super::{Cache, disk::Written, fill::Fill, part_key, refused::Refused, route::Route};
use crate::{
    object::{
        entry::Entry,
        freshness::Flags,
        key::Key,
        time::Timestamp,
        vary::{Variant, Variants, Vary},
    },
    purge::Standing,
    store::Slot,
};

impl Cache {
    /// Stores what a fill brought. What is given back is to be awaited before its clients have it to the end.
    pub(super) fn insert(&self, entry: &Arc<Entry>, fill: &Fill, route: &Route) -> Option<Written> {
        if !self.announce(route, entry) {
            return None;
        }
        let slot = Slot::Entry(Arc::clone(entry));
        let mut written = None;
        if self.disk().is_some() {
            self.l1().replace(&entry.key, |_| {
                written = self.to_disk(route, entry);
                Some(slot)
            });
        } else {
            self.l1().insert(entry.key, slot);
        }
        self.recall(&entry.key, fill);
        written
    }

    /// Sees to it that what is about to be stored will be found by everybody who has to find it. `false`: it must not be
    /// stored.
    pub(super) fn announce(&self, route: &Route, entry: &Entry) -> bool {
        if is_misplaced(entry) {
            tracing::error!(url = %entry.url(), "a variant was about to be stored for everybody");
            return false;
        }
        if entry.part().is_some() {
            // From now on it is worth looking for parts.
            self.inner.parts.fetch_add(1, Relaxed);
        }
        self.note_scattered(entry);
        self.variants_to_disk(route, entry);
        true
    }

    /// Unsafe requests to its URL cannot tell its key: they are to know that it is there.
    fn note_scattered(&self, entry: &Entry) {
        if entry.freshness().flags.has(Flags::SCATTERED) {
            self.invalidations().scatter(entry.scopes()[0], entry.stamp);
        }
    }

    /// Puts `new` in the place of `old`, which it confirms; not where something newer lies there by now.
    pub(super) fn renew(&self, old: &Arc<Entry>, new: &Arc<Entry>, fill: Option<&Fill>, route: &Route) {
        self.note_scattered(new);
        let lies_elsewhere = new.elsewhere().is_some();
        self.l1().replace(&old.key, |slot| match slot {
            Some(Slot::Entry(entry)) if !Arc::ptr_eq(&entry, old) => Some(Slot::Entry(entry)),
            slot if lies_elsewhere => {
                // Of the same content only: L3 knows whether that is still there.
                self.head_to_disk(route, new);
                slot
            }
            // Without a fill, nothing tells whether it was invalidated rather than evicted.
            None if fill.is_none() => None,
            _ => {
                self.head_to_disk(route, new);
                Some(Slot::Entry(Arc::clone(new)))
            }
        });
        if let Some(fill) = fill {
            self.recall(&old.key, fill);
        }
    }

    /// Removes what was stored if its URL was invalidated meanwhile. An unsafe request notes the URL first and removes
    /// entries second: whichever way it races with a fill, one of them sees the other.
    pub(super) fn recall(&self, key: &Key, fill: &Fill) {
        if fill.is_invalidated() {
            self.drop_key(key);
        }
    }

    /// Removes an entry; not what has taken its place.
    pub(super) fn remove(&self, entry: &Arc<Entry>) {
        self.l1().replace(&entry.key, |slot| match slot {
            Some(Slot::Entry(stored)) if !Arc::ptr_eq(&stored, entry) => Some(Slot::Entry(stored)),
            None | Some(Slot::Entry(_)) => {
                if let Some(disk) = self.disk() {
                    disk.remove(&entry.key);
                }
                None
            }
            other => other,
        });
    }

    /// Whether a part of anything may be stored.
    pub(super) fn has_parts(&self) -> bool {
        self.inner.parts.load(Relaxed) > 0 || self.disk().is_some_and(|disk| disk.l3.may_hold_parts())
    }

    /// Makes the variant findable under the primary key.
    ///
    /// What lies under the key of a variant that the record does not hold was out of reach of unsafe requests: the
    /// record was evicted, or the variant made room for others in it. It goes before it can be found again.
    pub(super) fn remember_variant(&self, primary: &Key, route: &Route, variant: &Variant) {
        let max = route.policy.variants_max;
        if !self.record_variant(primary, variant, max, false) {
            self.drop_key(variant.key());
            self.drop_key(&part_key(variant.key()));
            self.record_variant(primary, variant, max, true);
        }
    }

    /// Takes variants that other nodes have stored into the record, each in its place by time.
    pub(super) fn learn_variants(&self, primary: &Key, route: &Route, told: &Variants) {
        // As above: what lies under a key that the record did not hold was out of reach.
        for variant in told.iter().filter(|variant| self.variant_here(primary, variant.key()).is_none()) {
            self.drop_key(variant.key());
            self.drop_key(&part_key(variant.key()));
        }
        self.l1().replace(primary, |slot| {
            let known = match &slot {
                Some(Slot::Variants(variants)) => Arc::clone(variants),
                _ => Arc::new(Variants::default()),
            };
            // The one stored last comes last, and with it stays what it takes the place of.
            let mut all: Vec<&Variant> = known.iter().chain(told.iter()).collect();
            all.sort_by_key(|variant| variant.stored());
            let max = route.policy.variants_max;
            let record = all.into_iter().fold(Variants::default(), |record, one| record.with(one.clone(), max));
            let record = Arc::new(record);
            self.record_to_disk(primary, &record);
            Some(Slot::Variants(record))
        });
    }

    /// Writes the variant into the record; one that it does not hold only if it is `cleared`. Says whether it did.
    fn record_variant(&self, primary: &Key, variant: &Variant, max: usize, cleared: bool) -> bool {
        let mut written = true;
        self.l1().replace(primary, |slot| {
            let known = match &slot {
                Some(Slot::Variants(variants)) => Arc::clone(variants),
                _ => Arc::new(Variants::default()),
            };
            written = cleared || known.iter().any(|one| one.key() == variant.key());
            if !written {
                return slot;
            }
            let record = Arc::new(known.with(variant.clone(), max));
            self.record_to_disk(primary, &record);
            Some(Slot::Variants(record))
        });
        written
    }

    /// Remembers that `key` was not storable, with a response of `status`; unless a response that is still of use is
    /// stored there.
    pub(super) fn mark_hit_for_miss(&self, key: &Key, until: Timestamp, refused: Refused, status: StatusCode) {
        let (now, supersedes) = (self.now(), refused.supersedes(status));
        let of_use = |entry: &Entry| match self.purge_log().standing(entry) {
            Standing::Untouched if entry.freshness().is_fresh(now) => true,
            Standing::Untouched | Standing::Soft => now < entry.freshness().keep_until && !supersedes,
            Standing::Hard => false,
        };
        self.l1().replace(key, |slot| match slot {
            Some(Slot::Entry(entry)) if of_use(&entry) => Some(Slot::Entry(entry)),
            Some(Slot::Variants(variants)) => Some(Slot::Variants(variants)),
            // On the disk alone: nobody knows how fresh it is.
            None if !supersedes && self.disk().is_some_and(|disk| !disk.l3.lacks(key)) => None,
            _ => {
                if let Some(disk) = self.disk() {
                    disk.remove(key);
                }
                Some(Slot::hit_for_miss(until, refused.as_str()))
            }
        });
    }
}

/// Whether it varies and yet lies where no `Vary` is looked at: there it would answer everybody. Nothing should bring
/// that about, and nothing would be worse.
pub(super) fn is_misplaced(entry: &Entry) -> bool {
    let primary = entry.key == entry.primary() || (entry.part().is_some() && entry.key == part_key(&entry.primary()));
    primary && entry.head.contains(&header::VARY) && Vary::of(&entry.head.to_map()) != Vary::None
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::object::{entry::Unpacked, head::Head, key::KeyBuilder, scope::Position, testing};

    #[test]
    fn a_variant_has_no_place_under_the_primary_key() {
        let primary = KeyBuilder::new("test").finish();
        let variant = KeyBuilder::new("test").field(b"gzip").finish();
        let lies = |key, vary: &'static str| {
            let fields = HeaderMap::from_iter([(header::VARY, HeaderValue::from_static(vary))]);
            let entry = testing::unpacked(primary, Position::START, &[]);
            is_misplaced(&Unpacked { key, head: Head::new(StatusCode::OK, &fields), ..entry }.pack())
        };
        assert!(lies(primary, "accept-encoding") && lies(primary, "*"));
        assert!(!lies(variant, "accept-encoding") && !lies(primary, ""));
    }
}
