//! A look afterwards at what was served: whether it had been purged longer ago than the lease allows. It never should have.
//!
//! A sample of hits is looked at, a few a second. Clocks of nodes are compared here, and only here; they may differ by
//! [`CLOCKS`].

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::Fleet;
use crate::{
    object::{scope::Scope, time::Timestamp},
    purge::Mode,
};

/// What clocks of nodes may differ by.
const CLOCKS: Duration = Duration::from_secs(1);

/// Looks that may be under way.
const AUDITS_MAX: usize = 16;

/// How long Redis may take: it is no hurry.
const WITHIN: Duration = Duration::from_secs(1);

impl Fleet {
    /// Looks, in a task, whether a response with those scopes that was stored then should have been served just now.
    pub fn audit(&self, scopes: Box<[Scope]>, stored: Timestamp) {
        let inner = self.inner();
        if inner.audits.fetch_add(1, Relaxed) >= AUDITS_MAX {
            inner.audits.fetch_sub(1, Relaxed);
            return;
        }
        let (fleet, served) = (self.clone(), inner.now());
        tokio::spawn(async move {
            if fleet.confirm(WITHIN).await {
                fleet.judge(&scopes, stored, served);
            }
            fleet.inner().audits.fetch_sub(1, Relaxed);
        });
    }

    fn judge(&self, scopes: &[Scope], stored: Timestamp, served: Timestamp) {
        let inner = self.inner();
        inner.metrics.audits.inc();
        let allowed = inner.config.lease + CLOCKS;
        let kept = inner.kept.lock();
        let broken = kept.iter().map(|one| &one.purge).find(|purge| {
            purge.mode == Mode::Hard
                && stored < purge.at
                && purge.at.plus(allowed) < served
                && purge.scopes.iter().any(|scope| scopes.contains(scope))
        });
        if let Some(purge) = broken {
            inner.metrics.stale_reads.inc();
            tracing::error!(id = %purge.id, "something was served that had been purged longer ago than the lease allows");
        }
    }
}
