//! Settings of the purge log.

use serde::{Deserialize, Serialize};

/// `[purge]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether a purge is on the disk (fsync) before it is acknowledged.
    pub fsync: bool,
    /// Scopes remembered one by one; the oldest are folded into a floor that makes everything older stale.
    pub scopes_max: usize,
    /// Scopes named by one call.
    pub call_scopes_max: usize,
    /// Purged entries fetched again by one `refresh`.
    pub refresh_max: usize,
    /// Fetches a second of all refreshes together.
    pub refresh_rate: u32,
}
