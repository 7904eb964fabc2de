//! Long content that is asked for again and again is moved to a file, from which the kernel sends it without a copy.
//!
//! Not when it is stored: memory for a file costs more than what the allocator has at hand, and most of what is stored is
//! never asked for again.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::Cache;
use crate::object::entry::Entry;

/// The hit with which content is moved: what that takes, some four more earn.
const FIRST_HIT: u32 = 4;

impl Cache {
    /// Moves the content of `entry`, which has been served so often, to a file, if that pays. In the background, for
    /// the hits to come.
    #[inline]
    pub(super) fn consider_file(&self, entry: &Arc<Entry>, hits: u32) {
        // Where it could not be done, it is tried again, ever more rarely.
        if hits.is_power_of_two() && hits >= FIRST_HIT {
            self.move_soon(entry);
        }
    }

    #[cold]
    fn move_soon(&self, entry: &Arc<Entry>) {
        if entry.is_filed() || !self.l1().files().takes(entry.content().len()) {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let (cache, entry) = (self.clone(), Arc::clone(entry));
            runtime.spawn_blocking(move || cache.move_to_file(&entry));
        }
    }

    fn move_to_file(&self, entry: &Arc<Entry>) {
        let Some(content) = self.l1().files().filed(entry.content()) else { return };
        let filed = Arc::new(entry.in_file(content));
        // It weighs a little more than before: better without a file than not stored.
        if self.l1().admits(filed.weight() as u64) {
            self.renew(entry, &filed, None, false);
        }
    }
}
