//! Settings of the stream of changes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[changes]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether the stream is read, where there is a Redis.
    pub stream: bool,
    /// Messages a node handles at once.
    pub batch_max: usize,
    /// After so long without acknowledgement, another node handles a message.
    #[serde(with = "humantime_serde")]
    pub claim_after: Duration,
    /// Messages in the stream beyond which those are removed that are done with.
    pub stream_max: usize,
    /// Rejected messages that are kept.
    pub rejected_max: usize,
}
