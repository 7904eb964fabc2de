//! A body that memory does not take, on its way to the disk: one more reader of the fill, at the pace of the disk.
//!
//! Neither clients nor the origin wait for it. Where the body is not kept for it any more (there is no room in the spill
//! files, or it proves too large), it breaks off, and nothing is stored. Until what it wrote can be found, the fill keeps
//! its place in the table and its body from the first byte: who asks meanwhile joins it.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{
    Cache,
    call::Outgoing,
    config::Use,
    fetch::Fetch,
    fill::Fill,
    growing::{Growing, Reader},
    plan::Plan,
    route::Route,
};
use crate::{
    object::{entry::Unpacked, key::Key, time::Timestamp},
    store::{Slot, l3::Writer},
};

/// A body on its way to the disk.
pub(super) struct Pour {
    task: JoinHandle<Option<Writer>>,
    _from_the_first_byte: Reader,
}

impl Cache {
    /// Largest body that may be stored for `route`, in whichever tier.
    pub(super) fn object_bytes_max(&self, route: &Route) -> u64 {
        let disk = self.disk_for(route).filter(|disk| disk.l3.is_on());
        let largest = disk.map_or(0, |disk| disk.l3.object_bytes_max()).max(self.l1().object_bytes_max());
        route.object_bytes_max().min(largest)
    }

    /// Whether what is to lie under `key` and is too large for memory is worth writing; `asked`: how often it was asked
    /// for beside this once.
    fn admits_to_disk(&self, route: &Route, key: &Key, asked: usize) -> bool {
        let asked = u32::try_from(asked).unwrap_or(u32::MAX);
        self.disk_for(route).is_some_and(|disk| {
            let stored = !disk.l3.lacks(key) || route.policy.l3 == Use::WriteThrough;
            disk.l3.is_on() && (stored || disk.l3.admits(key, asked))
        })
    }

    fn pour(&self, key: &Key, growing: &Arc<Growing>) -> Option<Pour> {
        let writer = self.disk()?.l3.writer(key)?;
        let (reader, anchor) = (growing.reader_for_tier()?, growing.reader_for_tier()?);
        Some(Pour { task: tokio::spawn(poured(reader, writer)), _from_the_first_byte: anchor })
    }

    /// Stores what was poured, unless something newer came meanwhile: since `requested`.
    async fn keep_poured(&self, route: &Route, writer: Writer, entry: Unpacked, requested: Timestamp, fill: &Fill) {
        let Some(disk) = self.disk() else { return };
        let head = entry.clone().pack();
        let Some(finished) = writer.finish(entry).await else { return };
        if !self.announce(route, &head) {
            return;
        }
        self.l1().replace(&head.key, |slot| match slot {
            Some(Slot::Entry(newer)) if newer.stored() > requested => Some(Slot::Entry(newer)),
            _ => {
                disk.changes.note(&head.key);
                if !finished.store() {
                    disk.l3.remove(&head.key);
                }
                None
            }
        });
        self.recall(&head.key, fill);
    }
}

impl<O: Outgoing> Fetch<O> {
    /// Whether a body that is too large for memory is worth writing to the disk.
    pub(super) fn is_worth_pouring(&self, key: &Key) -> bool {
        let others = self.fill.growing.readers().saturating_sub(1) + usize::from(self.start.candidate.is_some());
        self.exchange.cache.admits_to_disk(&self.exchange.route, key, others)
    }

    /// Starts writing the body to the disk, from its first byte.
    pub(super) fn pour(&self, plan: &Plan) -> Option<Pour> {
        self.exchange.cache.pour(&plan.key, &self.fill.growing)
    }

    /// The body has come to its end for those who read it: waits until the disk has it, and stores it.
    pub(super) async fn settle_poured(&self, pour: Pour, plan: Plan) {
        let Pour { task, _from_the_first_byte } = pour;
        let Ok(Some(writer)) = task.await else { return };
        let requested = plan.requested;
        let Some(entry) = self.stored_form(Bytes::new(), writer.length(), plan) else { return };
        let exchange = &*self.exchange;
        exchange.cache.keep_poured(&exchange.route, writer, entry, requested, &self.fill).await;
    }
}

/// Writes all that is read; `None` where either side breaks off.
async fn poured(mut reader: Reader, mut writer: Writer) -> Option<Writer> {
    while let Some(frame) = poll_fn(|cx| reader.poll_frame(cx)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            writer.push(data).await.ok()?;
        }
    }
    Some(writer)
}
