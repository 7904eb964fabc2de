//! Settings of warm-up jobs.

use serde::{Deserialize, Serialize};

/// `[warm]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// URLs of one job.
    pub urls_max: usize,
    /// Fetches of one job at once, where the call does not say.
    pub concurrency: usize,
    /// Most fetches at once that a call may ask for.
    pub concurrency_max: usize,
    /// Jobs running at once.
    pub jobs_max: usize,
    /// Finished jobs that can still be asked about.
    pub jobs_kept: usize,
    /// Errors kept of one job, with their URLs.
    pub errors_kept: usize,
}
