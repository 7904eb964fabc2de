//! Waiting for a fill on another node: until that node says that it has ended (`wake`), and where nobody could be heard,
//! by looking again and again.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, SemaphorePermit},
    time::{Instant, timeout},
};

use super::{L2, chance, look::Looked, metrics::LeaseEnd};
use crate::object::key::Key;

/// Fills that wait for one on another node: each costs Redis a look-up now and then.
pub(super) const WAITING_MAX: usize = 1024;

/// How often is looked nevertheless where a wake-up would be heard: a node that died says nothing, and its lease ends.
const NEVERTHELESS: Duration = Duration::from_millis(250);

/// The same where it would not, at most.
const UNHEARD: Duration = Duration::from_millis(50);

/// A place among those who wait for other nodes.
pub struct Waiting<'a> {
    l2: &'a L2,
    _permit: SemaphorePermit<'a>,
    locator: [u8; 32],
    /// Rung when a fill of the URL has ended.
    bell: Arc<Notify>,
    since: Instant,
    nth: u32,
}

impl L2 {
    /// A place among those who wait for a fill of that primary key, unless as many do as may.
    pub fn wait(&self, primary: &Key) -> Option<Waiting<'_>> {
        let permit = self.inner.waiting.try_acquire();
        let Ok(permit) = permit else {
            self.inner.metrics.lease(LeaseEnd::Alone);
            return None;
        };
        self.inner.metrics.lease(LeaseEnd::Waited);
        self.inner.metrics.waiting.inc();
        let locator = self.inner.names.locator(primary);
        let bell = self.hear(locator);
        Some(Waiting { l2: self, _permit: permit, locator, bell, since: Instant::now(), nth: 0 })
    }
}

impl Waiting<'_> {
    /// Waits until it is worth another look; false when that was long enough.
    pub async fn for_change(&mut self) -> bool {
        let left = self.l2.inner.config.follow_max.saturating_sub(self.since.elapsed());
        if left.is_zero() {
            self.l2.inner.metrics.lease(LeaseEnd::Alone);
            return false;
        }
        let is_heard = self.l2.inner.wakes.is_heard();
        let most = match self.nth {
            // It may have ended before anybody listened for it here.
            0 if is_heard => Duration::ZERO,
            _ if is_heard => NEVERTHELESS,
            nth => Duration::from_millis(2 << nth.min(5)).min(UNHEARD),
        };
        // Half of it at random: nodes that began together do not ask together. The last look is at the end of the time,
        // not after it.
        let most = most.mul_f64(0.5 + 0.5 * chance()).min(left);
        let _ = timeout(most, self.bell.notified()).await;
        self.nth += 1;
        true
    }

    /// The wait is over: `looked` is what was found.
    pub fn ended(self, looked: &Looked) {
        let end = match looked {
            Looked::Found(..) | Looked::Variants(_) => LeaseEnd::Followed,
            Looked::Leased => LeaseEnd::Inherited,
            Looked::Unstorable => LeaseEnd::Unstorable,
            Looked::Busy(_) | Looked::Nothing => LeaseEnd::Alone,
        };
        self.l2.inner.metrics.lease(end);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.l2.inner.wakes.forget(&self.locator, &self.bell);
        self.l2.inner.metrics.waiting.dec();
    }
}
