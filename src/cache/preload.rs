//! The most used entries of L3 return to L1 after a start, in the background: one after the other, until there are enough.
//!
//! Nothing takes the place of what is in L1 by then, and nothing a purge forbids returns. What is large stays on the disk.

use std::{sync::Arc, time::Duration};

use super::{Cache, config::Use, disk::Disk, promote::as_kept_now, route::Route};
use crate::{
    object::{entry::Entry, key::Key},
    store::{Slot, l3},
};

/// How often to see whether all is known that there is.
const LOOK_AROUND: Duration = Duration::from_millis(100);

impl Cache {
    /// Brings back up to `max` entries, of no more than half of L1's weight. `route_of` finds the route of a URL.
    pub async fn preload(&self, max: usize, route_of: impl Fn(&str) -> Option<Arc<Route>>) {
        let Some(disk) = self.disk().filter(|_| max > 0) else { return };
        while !disk.l3.is_loaded() {
            tokio::time::sleep(LOOK_AROUND).await;
        }
        let l3 = disk.l3.clone();
        let hottest = tokio::task::spawn_blocking(move || l3.hottest(max)).await.unwrap_or_default();
        let (mut room, mut returned) = (self.l1().max_bytes() / 2, 0_usize);
        for key in &hottest {
            let changes = disk.changes.of(key);
            let Some(slot) = self.preloaded(disk, key, &route_of).await else { continue };
            let Some(left) = room.checked_sub(slot.weight()) else { break };
            self.l1().replace(key, |there| match there {
                None if disk.changes.of(key) == changes => {
                    (room, returned) = (left, returned + 1);
                    Some(slot)
                }
                there => there,
            });
            tokio::task::yield_now().await;
        }
        tracing::info!(entries = returned, "the most used entries of the disk tier are in memory");
    }

    /// What L3 has under `key`, as it may be put into L1.
    async fn preloaded(&self, disk: &Disk, key: &Key, route_of: &impl Fn(&str) -> Option<Arc<Route>>) -> Option<Slot> {
        if self.l1().inspect(key, |slot| slot.is_some()) {
            return None;
        }
        match disk.l3.look(key).await? {
            l3::Found::Entry(entry) => {
                let route = route_of(entry.url()).filter(|route| route.policy.l3 != Use::Off)?;
                self.is_worth_memory(&entry).then(|| Slot::Entry(as_kept_now(&route, entry)))
            }
            l3::Found::Variants(variants) => Some(Slot::Variants(variants)),
            l3::Found::Large(_) => None,
        }
    }

    fn is_worth_memory(&self, entry: &Entry) -> bool {
        self.now() < entry.freshness().keep_until && self.is_of_use(entry)
    }
}
