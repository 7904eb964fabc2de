//! What of the cache's changes goes to L3, the disk tier.
//!
//! ```text
//!  stored ────▶ L1, and in the same step L3: once it has been asked for twice, or in the place of an older one
//!  a hit ─────▶ at the 1st, 2nd, 4th, 8th … L3 is offered what it lacks, and told of the hits otherwise
//!  removed ───▶ from both, for whatever reason but want of room: what L1 evicts stays on the disk
//! ```
//!
//! Both are changed while L1 lets nobody else write the key, so that they never disagree on which response is the newest.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{Cache, changes::Changes, config::Use, reads::Reads, route::Route};
use crate::{
    object::{entry::Entry, key::Key, scope::Scope, vary::Variants},
    purge::Standing,
    store::{
        L3, Slot,
        l3::{Large, Scattered},
    },
};

/// The disk tier, and what the cache has to know beside it.
pub(super) struct Disk {
    pub(super) l3: L3,
    pub(super) changes: Changes,
    pub(super) reads: Reads,
}

/// How long a client waits for the disk where a route writes through: a disk that hangs keeps nothing from anybody.
const WRITTEN_MAX: Duration = Duration::from_secs(5);

/// Says whether an entry has come to the disk, once it is known.
pub(super) type Written = Pin<Box<dyn Future<Output = bool> + Send>>;

impl Disk {
    pub(super) fn new(l3: L3) -> Self {
        Self { l3, changes: Changes::new(), reads: Reads::new() }
    }

    /// Removes what is stored under `key`.
    pub(super) fn remove(&self, key: &Key) {
        self.changes.note(key);
        self.l3.remove(key);
    }

    /// Writes a record of variants in the place of what there was.
    fn put_variants(&self, key: &Key, variants: &Arc<Variants>) {
        if !self.l3.store_variants(key, variants) {
            self.l3.remove(key);
        }
    }
}

impl Cache {
    pub(super) fn disk(&self) -> Option<&Disk> {
        self.inner.disk.as_ref()
    }

    /// The disk tier, where the route uses it.
    pub(super) fn disk_for(&self, route: &Route) -> Option<&Disk> {
        self.disk().filter(|_| route.policy.l3 != Use::Off)
    }

    /// Hands an entry that is being put into L1 to L3 as well.
    pub(super) fn to_disk(&self, route: &Route, entry: &Arc<Entry>) -> Option<Written> {
        let disk = self.disk()?;
        disk.changes.note(&entry.key);
        match route.policy.l3 {
            // What there may be is of a time when the route was another.
            Use::Off => disk.l3.remove(&entry.key),
            Use::WriteBehind => drop(disk.l3.store(entry)),
            Use::WriteThrough => {
                let written = disk.l3.store_through(entry);
                return Some(Box::pin(async move { timeout(WRITTEN_MAX, written).await.unwrap_or(false) }));
            }
        }
        None
    }

    /// Hands a new head of an entry to L3: of one that lies there, or that may lie there from now on.
    pub(super) fn head_to_disk(&self, route: &Route, entry: &Arc<Entry>) {
        match (self.disk_for(route), Large::of(entry)) {
            (Some(disk), Some(large)) => {
                disk.changes.note(&entry.key);
                disk.l3.renew(entry, Some(&large));
            }
            _ => drop(self.to_disk(route, entry)),
        }
    }

    /// Sees to it that a variant which is about to be stored can be found on the disk.
    pub(super) fn variants_to_disk(&self, route: &Route, entry: &Entry) {
        let primary = entry.primary();
        let Some(disk) = self.disk_for(route).filter(|_| primary != entry.key) else { return };
        self.l1().inspect(&primary, |slot| {
            if let Some(Slot::Variants(variants)) = slot
                && disk.l3.lacks(&primary)
            {
                disk.put_variants(&primary, variants);
            }
        });
    }

    /// Writes a record that has changed, where L3 has an older one, or what it takes the place of.
    pub(super) fn record_to_disk(&self, primary: &Key, variants: &Arc<Variants>) {
        let Some(disk) = self.disk() else { return };
        disk.changes.note(primary);
        if !disk.l3.lacks(primary) {
            disk.put_variants(primary, variants);
        }
    }

    /// Removes what is stored under `key` from both tiers.
    pub(super) fn drop_key(&self, key: &Key) {
        match self.disk() {
            None => self.l1().remove(key),
            Some(disk) => self.l1().replace(key, |_| {
                disk.remove(key);
                None
            }),
        }
    }

    /// Notes that an entry answers.
    pub(super) fn note_served(&self, route: &Route, entry: &Arc<Entry>) {
        let hits = entry.served();
        if hits.is_power_of_two() {
            self.offer(route, entry, hits);
        }
    }

    /// Tells L3 of an entry's hits, and offers it the entry if it lacks that: the hottest were filled once, when nobody
    /// knew, and have never left memory since.
    #[cold]
    fn offer(&self, route: &Route, entry: &Arc<Entry>, hits: u32) {
        self.audit(route, entry);
        let Some(disk) = self.disk_for(route).filter(|_| entry.elsewhere().is_none()) else { return };
        if !disk.l3.lacks(&entry.key) {
            return disk.l3.served(&entry.key, hits);
        }
        if self.purge_log().standing(entry) == Standing::Hard {
            return;
        }
        self.variants_to_disk(route, entry);
        self.l1().inspect(&entry.key, |slot| {
            // What was removed meanwhile is not to come back.
            if let Some(Slot::Entry(stored)) = slot
                && Arc::ptr_eq(stored, entry)
            {
                disk.l3.store(entry);
            }
        });
    }

    /// Whether something of a URL may be stored under keys that the URL alone does not give, and not be purged.
    pub(super) fn is_scattered(&self, url: Scope) -> bool {
        let log = self.purge_log();
        self.invalidations().is_scattered(url, log)
            || self.disk().is_some_and(|disk| match disk.l3.scattered(url) {
                Scattered::No => false,
                Scattered::UpTo(stamp) => log.verdict(stamp, &[url]) != Standing::Hard,
                Scattered::Unknown => true,
            })
    }
}
