//! Settings of exports and imports.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// `[archive]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Exports and imports at once.
    pub jobs_max: usize,
    /// Entries of one import on their way to the disk.
    pub concurrency: usize,
    /// Bytes of the content of these.
    pub bytes_max: ByteSize,
    /// How long the other end may send or take nothing.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
}
