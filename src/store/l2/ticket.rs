//! What is known of the look-ups of one fill: what its write may count on, and the lease it holds.

use tokio::task::AbortHandle;

use super::{L2, millis, scripts};
use crate::{
    kv::Class,
    object::{key::Key, scope::FleetPosition},
};

/// See above. Dropped, it gives the lease back: the fill came to nothing, and somebody else may try.
pub struct Ticket {
    l2: L2,
    pub(super) primary: Key,
    /// Where the fleet's purge log was when the fill began.
    pub(super) position: FleetPosition,
    token: Option<[u8; scripts::TOKEN]>,
    /// What lay under the name of removals; `None`: nobody knows.
    pub(super) seen: Option<Vec<u8>>,
    held: Option<Held>,
}

/// A lease.
struct Held {
    /// The key it was taken for.
    key: Key,
    /// Keeps it; `None` where the look-up had no answer, so that it may have been taken.
    renewal: Option<AbortHandle>,
}

impl Ticket {
    pub(super) fn new(l2: L2, primary: Key, position: FleetPosition) -> Self {
        Self { l2, primary, position, token: None, seen: None, held: None }
    }

    /// What stands for this fill in Redis.
    pub(super) fn token(&mut self) -> &[u8; scripts::TOKEN] {
        self.token.get_or_insert_with(|| {
            let mut token = [0; scripts::TOKEN];
            // Without randomness two nodes may take each other's lease for their own, and fill twice.
            let _ = getrandom::fill(&mut token);
            token
        })
    }

    /// The lease that is held, or may be, and the token it was taken with.
    pub(super) fn held(&self) -> Option<(Key, [u8; scripts::TOKEN])> {
        Some((self.held.as_ref()?.key, self.token?))
    }

    /// Largest content that may be written with it.
    pub fn object_bytes_max(&self) -> u64 {
        self.l2.object_bytes_max()
    }

    /// Whether other nodes wait for this fill.
    pub fn is_leased(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.renewal.is_some())
    }

    /// The lease was taken; it is kept from now on.
    pub(super) fn holds(&mut self, key: Key) {
        self.given_back();
        let (Some(token), l2, primary) = (self.token, self.l2.clone(), self.primary) else { return };
        let renewal = self.l2.inner.runtime.spawn(async move { l2.renew(primary, key, token).await });
        self.held = Some(Held { key, renewal: Some(renewal.abort_handle()) });
    }

    /// The lease may have been taken.
    pub(super) fn may_hold(&mut self, key: Key) {
        if self.held.is_none() {
            self.held = Some(Held { key, renewal: None });
        }
    }

    /// There is nothing to give back any more.
    pub(super) fn given_back(&mut self) {
        if let Some(Held { renewal: Some(renewal), .. }) = self.held.take() {
            renewal.abort();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(Held { key, renewal }) = self.held.take() else { return };
        if let Some(renewal) = renewal {
            renewal.abort();
        }
        if let Some(token) = self.token {
            self.l2.release(self.primary, key, token);
        }
    }
}

impl L2 {
    /// Keeps a lease until it is lost.
    async fn renew(self, primary: Key, key: Key, token: [u8; scripts::TOKEN]) {
        let lease = self.inner.config.fill_lease;
        let name = self.inner.names.of(&primary, &key).lease;
        loop {
            tokio::time::sleep(lease / 3).await;
            let kept = self.run(Class::Control, &scripts::RENEW, &[&name], &[&token, millis(lease).as_bytes()]).await;
            if kept.is_ok_and(|reply| reply == [redis::Value::Int(0)]) {
                return;
            }
        }
    }

    fn release(&self, primary: Key, key: Key, token: [u8; scripts::TOKEN]) {
        let l2 = self.clone();
        self.behind(async move {
            let named = l2.inner.names.of(&primary, &key);
            let keys = [&named.lease[..], &named.entry];
            // Where it fails, the lease ends by itself.
            let Ok(reply) = l2.run(Class::Control, &scripts::SETTLE, &keys, &[&token, b"", b""]).await else { return };
            l2.wake_if(reply.first(), &primary);
        });
    }
}
