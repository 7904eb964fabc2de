//! An entry of an archive on its way into the tiers: L1 and L3 in one step, as for a fill (rule D1), and not over what is as
//! new or newer.

use std::sync::Arc;

use bytes::Bytes;

use super::Left;
use crate::{
    cache::{Cache, config::Use, disk::Written, invalidations::Watch, part_key, route::Route},
    object::{
        entry::{Entry, Unpacked},
        key::Key,
        time::Timestamp,
        vary::{Variant, Variants},
    },
    store::{
        Slot,
        l3::{self, Writer},
    },
};

/// An entry that is to be stored, without its content.
pub(super) struct Destined {
    pub(super) route: Arc<Route>,
    pub(super) entry: Unpacked,
    /// Its place among the variants of its URL.
    pub(super) place: Option<Variant>,
    /// Its URL, since it was looked at.
    pub(super) watch: Watch,
}

/// An entry that was stored.
pub(super) struct Committed {
    /// Whether it has come to the disk, where it is to.
    pub(super) written: Option<Written>,
}

impl Cache {
    /// Whether something as new is stored in the entry's place.
    pub(super) async fn has_newer(&self, destined: &Destined) -> bool {
        let (key, stored) = (&destined.entry.key, destined.entry.stored);
        if let Some(place) = &destined.place
            && self.has_newer_instead(&destined.entry.primary, place.stored()).await
        {
            return true;
        }
        match self.l1().inspect(key, |slot| slot.map(|slot| is_as_new(slot, stored))) {
            Some(newer) => newer,
            None => self.is_newer_on_disk(key, stored).await,
        }
    }

    /// Whether what is stored under a primary key is as new and has no variants: an entry, which one may not hide.
    async fn has_newer_instead(&self, primary: &Key, stored: Timestamp) -> bool {
        let is_newer = |slot: &Slot| !matches!(slot, Slot::Variants(_)) && is_as_new(slot, stored);
        if let Some(newer) = self.l1().inspect(primary, |slot| slot.map(is_newer)) {
            return newer;
        }
        let Some(disk) = self.disk().filter(|disk| !disk.l3.lacks(primary)) else { return false };
        match disk.l3.look(primary).await {
            Some(l3::Found::Entry(entry)) => self.is_as_new_entry(&entry, stored),
            Some(l3::Found::Large(large)) => self.is_as_new_entry(large.entry(), stored),
            Some(l3::Found::Variants(_)) | None => false,
        }
    }

    async fn is_newer_on_disk(&self, key: &Key, stored: Timestamp) -> bool {
        let Some(disk) = self.disk() else { return false };
        match disk.l3.look(key).await {
            None => false,
            Some(l3::Found::Entry(entry)) => self.is_as_new_entry(&entry, stored),
            Some(l3::Found::Large(large)) => self.is_as_new_entry(large.entry(), stored),
            Some(l3::Found::Variants(variants)) => is_as_new(&Slot::Variants(variants), stored),
        }
    }

    fn is_as_new_entry(&self, entry: &Entry, stored: Timestamp) -> bool {
        self.is_of_use(entry) && entry.stored() >= stored
    }

    /// Stores an entry with its content.
    pub(super) async fn commit(&self, destined: Destined, content: Bytes) -> Result<Committed, Left> {
        let Destined { route, entry, place, watch } = destined;
        self.settle_place(&route, &entry, place).await?;
        let changes = self.changes_of(&entry.key);
        if self.is_newer_on_disk(&entry.key, entry.stored).await {
            return Err(Left::Newer);
        }
        let entry = Arc::new(Unpacked { body: content, ..entry }.pack());
        if !self.announce(&route, &entry) {
            return Err(Left::Refused);
        }
        let mut outcome = Err(Left::Newer);
        self.l1().replace(&entry.key, |slot| {
            let is_newer = match &slot {
                Some(slot) => is_as_new(slot, entry.stored()),
                None => self.changes_of(&entry.key) != changes,
            };
            if is_newer {
                return slot;
            }
            outcome = Ok(Committed { written: self.through_to_disk(&route, &entry) });
            Some(Slot::Entry(Arc::clone(&entry)))
        });
        self.unless_invalidated(&entry.key, &watch, outcome)
    }

    /// Stores an entry whose content the disk has already.
    pub(super) async fn commit_written(&self, destined: Destined, writer: Writer) -> Result<(), Left> {
        let Destined { route, entry, place, watch } = destined;
        let disk = self.disk().ok_or(Left::Refused)?;
        self.settle_place(&route, &entry, place).await?;
        let (key, stored, changes) = (entry.key, entry.stored, self.changes_of(&entry.key));
        if self.is_newer_on_disk(&key, stored).await {
            return Err(Left::Newer);
        }
        let head = entry.clone().pack();
        let finished = writer.finish(entry).await.ok_or(Left::Refused)?;
        if !self.announce(&route, &head) {
            return Err(Left::Refused);
        }
        let mut outcome = Err(Left::Newer);
        self.l1().replace(&key, |slot| {
            let is_newer = match &slot {
                Some(slot) => is_as_new(slot, stored),
                None => disk.changes.of(&key) != changes,
            };
            if is_newer {
                return slot;
            }
            disk.changes.note(&key);
            outcome = if finished.store() { Ok(()) } else { Err(Left::Refused) };
            if outcome.is_err() {
                disk.l3.remove(&key);
            }
            None
        });
        self.unless_invalidated(&key, &watch, outcome)
    }

    fn changes_of(&self, key: &Key) -> u32 {
        self.disk().map_or(0, |disk| disk.changes.of(key))
    }

    /// Hands it to L3, whether it has been asked for twice or not: whoever imports it wants it.
    fn through_to_disk(&self, route: &Route, entry: &Arc<Entry>) -> Option<Written> {
        let disk = self.disk()?;
        disk.changes.note(&entry.key);
        if route.policy.l3 == Use::Off {
            disk.l3.remove(&entry.key);
            return None;
        }
        Some(Box::pin(disk.l3.store_through(entry)))
    }

    /// Takes back what an unsafe request has invalidated since it was looked at. It notes the URL first and removes entries
    /// second: whichever way it races with this, one of both sees the other.
    fn unless_invalidated<T>(&self, key: &Key, watch: &Watch, outcome: Result<T, Left>) -> Result<T, Left> {
        if outcome.is_ok() && watch.is_invalidated() {
            self.drop_key(key);
            return Err(Left::Purged);
        }
        outcome
    }

    /// Makes a variant findable under its primary key, in its place by time.
    async fn settle_place(&self, route: &Route, entry: &Unpacked, place: Option<Variant>) -> Result<(), Left> {
        let Some(place) = place else { return Ok(()) };
        let primary = &entry.primary;
        self.bring_back_record(primary).await;
        if self.variant_here(primary, place.key()).is_none() {
            // What lies under a key that the record does not hold was out of reach of unsafe requests.
            self.drop_key(place.key());
            self.drop_key(&part_key(place.key()));
        }
        let changes = self.changes_of(primary);
        if self.has_newer_instead(primary, place.stored()).await {
            return Err(Left::Newer);
        }
        let mut settled = Err(Left::Newer);
        self.l1().replace(primary, |slot| {
            let known = match &slot {
                Some(Slot::Variants(known)) => Arc::clone(known),
                Some(other) if is_as_new(other, place.stored()) => return slot,
                // Something came and went to the disk while that was looked at.
                None if self.changes_of(primary) != changes => return slot,
                _ => Arc::new(Variants::default()),
            };
            let Some(record) = with_place(&known, &place, route.policy.variants_max) else { return slot };
            settled = Ok(());
            if record == *known {
                return slot;
            }
            let record = Arc::new(record);
            self.record_to_disk(primary, &record);
            Some(Slot::Variants(record))
        });
        settled
    }

    /// Brings the record that L3 has back into L1, where it is changed.
    async fn bring_back_record(&self, primary: &Key) {
        let Some(disk) = self.disk().filter(|disk| !disk.l3.lacks(primary)) else { return };
        if self.l1().inspect(primary, |slot| slot.is_some()) {
            return;
        }
        let changes = disk.changes.of(primary);
        let Some(l3::Found::Variants(variants)) = disk.l3.look(primary).await else { return };
        self.l1().replace(primary, |slot| match slot {
            None if disk.changes.of(primary) == changes => Some(Slot::Variants(variants)),
            slot => slot,
        });
    }
}

/// Whether what is stored takes precedence over a response of that time: one as new, or the knowledge that it is not to be
/// stored.
fn is_as_new(slot: &Slot, stored: Timestamp) -> bool {
    match slot {
        Slot::Entry(entry) => entry.stored() >= stored,
        Slot::Variants(variants) => variants.iter().any(|variant| variant.stored() >= stored),
        Slot::HitForMiss(_) => true,
    }
}

/// The record with that place, the one stored last first; `None`: there are as many as may be, and all of them newer.
fn with_place(known: &Variants, place: &Variant, max: usize) -> Option<Variants> {
    if known.iter().any(|one| one.key() == place.key() && one.stored() >= place.stored()) {
        return Some(known.clone());
    }
    let mut all: Vec<&Variant> = known.iter().chain([place]).collect();
    all.sort_by_key(|variant| variant.stored());
    let record = all.into_iter().fold(Variants::default(), |record, one| record.with(one.clone(), max));
    let is_in = record.iter().any(|one| one.key() == place.key());
    is_in.then_some(record)
}
