//! Looking into L3 where L1 has nothing, and what is found there going back into L1.
//!
//! Nothing is put back that was replaced or removed while the disk was read, and nothing that a purge forbids. What has
//! its content on the disk stays there and answers from there.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::{
    Cache,
    disk::Disk,
    lookup::Found,
    outcome::Tier,
    reads::{Promoted, Reading},
    route::Route,
    tiers::is_misplaced,
};
use crate::{
    object::{entry::Entry, head::Head, key::Key, scope::Scope, time::Timestamp},
    purge::Standing,
    store::{Slot, l3},
};

/// Steps of one look-up: a record, its variant, and again what was changed meanwhile.
const STEPS_MAX: u8 = 4;

/// What one step led to.
enum Step {
    Found(Promoted),
    Nothing,
    /// Something newer came while the disk was read.
    Overtaken,
}

/// A look-up for one request.
pub(super) struct Wanted<'a> {
    pub(super) route: &'a Route,
    /// Scope of the URL.
    pub(super) url: Scope,
    /// The primary key.
    pub(super) key: &'a Key,
    pub(super) headers: &'a HeaderMap,
    pub(super) now: Timestamp,
}

impl Cache {
    /// Goes on from what was `found` in L1. Beside what is found, what was known of changes under its key before it was
    /// looked for.
    pub(super) async fn find_on_disk(&self, disk: &Disk, wanted: &Wanted<'_>, mut found: Found) -> (Found, u32) {
        let Wanted { route, url, key, headers, now } = *wanted;
        let mut changes = 0;
        for _ in 0..STEPS_MAX {
            changes = disk.changes.of(&found.expected(key));
            let Some(missing) = found.missing(key) else { return (found, changes) };
            found = match self.read(route, url, &missing).await {
                Step::Nothing => return (found, changes),
                Step::Overtaken => self.find(route, key, &headers, now),
                Step::Found(Promoted::Variants(variants)) => self.find_variant(route, key, &variants, headers, now),
                Step::Found(Promoted::Entry(entry)) => return (self.standing(entry, Tier::L3, || found), changes),
            };
        }
        (found, changes)
    }

    /// The entry that L3 has under `key`.
    pub(super) async fn entry_on_disk(&self, route: &Route, url: Scope, key: &Key) -> Option<Arc<Entry>> {
        match self.read(route, url, key).await {
            Step::Found(Promoted::Entry(entry)) => Some(entry),
            _ => None,
        }
    }

    async fn read(&self, route: &Route, url: Scope, key: &Key) -> Step {
        let Some(disk) = self.disk_for(route).filter(|disk| !disk.l3.lacks(key)) else { return Step::Nothing };
        let ticket = disk.reads.join(*key, &disk.changes, || self.invalidations().watch(url));
        let reading = &*ticket.reading;
        let promoted = reading.result.get_or_init(|| self.promoted(disk, route, key, reading)).await.clone();
        match promoted {
            _ if !reading.is_current(key, &disk.changes) => Step::Overtaken,
            Some(promoted) => Step::Found(promoted),
            None => Step::Nothing,
        }
    }

    /// Looks it up, and puts it into L1.
    async fn promoted(&self, disk: &Disk, route: &Route, key: &Key, reading: &Reading) -> Option<Promoted> {
        let promoted = match disk.l3.lookup(key).await? {
            l3::Found::Entry(entry) => Promoted::Entry(as_kept_now(route, entry)),
            l3::Found::Large(large) => Promoted::Entry(as_kept_now(route, Arc::clone(large.entry()))),
            l3::Found::Variants(variants) => Promoted::Variants(variants),
        };
        let slot = match &promoted {
            Promoted::Entry(entry) if !self.is_of_use(entry) => {
                self.l1().inspect(key, |_| {
                    if reading.is_current(key, &disk.changes) {
                        disk.remove(key);
                    }
                });
                return None;
            }
            Promoted::Entry(entry) if entry.elsewhere().is_some() => return Some(promoted),
            Promoted::Entry(entry) => Slot::Entry(Arc::clone(entry)),
            Promoted::Variants(variants) => Slot::Variants(Arc::clone(variants)),
        };
        self.l1().replace(key, |there| match there {
            None if reading.is_current(key, &disk.changes) => Some(slot),
            there => there,
        });
        Some(promoted)
    }

    /// Whether an entry of the disk may be used at all (rule I1). One whose stamp the log has not come to was stored
    /// beside another log, and this one could not purge it.
    pub(super) fn is_of_use(&self, entry: &Entry) -> bool {
        let log = self.purge_log();
        entry.stamp <= log.position() && log.standing(entry) != Standing::Hard && !is_misplaced(entry)
    }
}

/// The entry without fields that the gateway keeps from clients or writes itself by now: it may have been stored under
/// another configuration.
pub(super) fn as_kept_now(route: &Route, entry: Arc<Entry>) -> Arc<Entry> {
    let fields = entry.head.to_map();
    let keeps = |name: &HeaderName| route.keeps(name);
    if fields.keys().all(keeps) {
        return entry;
    }
    Arc::new(entry.under(Head::of(entry.head.status, &fields, keeps)).pack())
}
