//! Figures of the cache, for `/stats`.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Cache,
    llm::{accounts, semantic},
};

/// Figures of one cache at one moment.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Stats {
    /// The memory tier.
    pub l1: TierStats,
    /// Fills under way and their followers.
    pub fills: FillStats,
    /// The purge log.
    pub purge: PurgeStats,
    /// Calls to models.
    pub llm: accounts::Stats,
    /// Answers to similar calls, by route that looks for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub semantic: Vec<semantic::SimilarStats>,
}

/// Figures of one tier.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TierStats {
    /// Slots in use: responses, records of variants, hit-for-miss marks.
    pub entries: u64,
    /// Bytes they take, bookkeeping included.
    pub bytes: u64,
    /// Bytes they may take.
    pub max_bytes: u64,
    /// Largest body it takes.
    pub object_bytes_max: u64,
}

/// Figures of fills.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FillStats {
    /// Under way.
    pub running: u64,
    /// Requests that joined a fill of another, ever.
    pub followers: u64,
    /// Bytes of bodies in memory on their way.
    pub memory_bytes: u64,
    /// Bytes of bodies spilled to files.
    pub spilled_bytes: u64,
}

/// Figures of the purge log.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PurgeStats {
    /// Position of the last purge; survives restarts.
    pub position: u64,
}

impl Cache {
    /// Figures at this moment.
    pub fn stats(&self) -> Stats {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Stats {
            l1: TierStats {
                entries: self.l1().len(),
                bytes: self.l1().bytes(),
                max_bytes: self.l1().max_bytes(),
                object_bytes_max: self.l1().object_bytes_max(),
            },
            fills: FillStats {
                running: count(self.metrics().fills_running()),
                followers: self.metrics().followers(),
                memory_bytes: count(self.memory().held()),
                spilled_bytes: self.inner.spill.bytes(),
            },
            purge: PurgeStats { position: self.purge_log().position().number() },
            llm: self.accounts().stats(),
            semantic: self.inner.matchers.stats(),
        }
    }
}
