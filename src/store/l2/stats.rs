//! Figures of the tier in Redis, for `/stats`.

use serde::Serialize;
use utoipa::ToSchema;

use super::L2;
use crate::kv;

/// What the tier has done since the start, and how Redis is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Stats {
    /// Whether Redis can be asked.
    pub up: bool,
    /// Fills that it answered.
    pub hits: u64,
    /// Fills for which it had something to be confirmed.
    pub stale: u64,
    /// Fills for which it had nothing of use.
    pub misses: u64,
    /// Entries written.
    pub stored: u64,
    /// Entries that were not, because there was no room among those that wait.
    pub dropped: u64,
    /// Entries whose writing failed.
    pub failed: u64,
    /// Bytes of entries that wait to be written.
    pub queued_bytes: u64,
    /// Fills that wait for one on another node.
    pub waiting: u64,
    /// Bytes of values read.
    pub read_bytes: u64,
    /// Bytes of values written.
    pub written_bytes: u64,
    /// The servers.
    pub redis: kv::Stats,
}

impl L2 {
    /// Figures at this moment.
    pub fn stats(&self) -> Stats {
        let (metrics, kv) = (&self.inner.metrics, &self.inner.kv);
        Stats {
            up: kv.is_up(),
            hits: metrics.hits.get(),
            stale: metrics.stale.get(),
            misses: metrics.misses.get(),
            stored: metrics.writes("stored"),
            dropped: metrics.writes("dropped"),
            failed: metrics.writes("failed"),
            queued_bytes: metrics.queue_bytes.get(),
            waiting: metrics.waiting.get(),
            read_bytes: metrics.read.get(),
            written_bytes: metrics.written.get(),
            redis: kv.stats(),
        }
    }
}
