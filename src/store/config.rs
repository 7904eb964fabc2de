//! Settings of the tiers.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// What leaves L1 first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvictionPolicy {
    /// Small, main and ghost queues: one-hit wonders leave early (`quick_cache`).
    S3Fifo,
    /// Least recently used (moka).
    Lru,
    /// Least frequently used with an admission filter (moka's TinyLFU).
    Lfu,
}

/// `[l1]`: the memory tier.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct L1Config {
    /// Heads, bodies and bookkeeping together.
    pub max_bytes: ByteSize,
    /// See [`EvictionPolicy`].
    pub policy: EvictionPolicy,
    /// Largest object, as a share of `max_bytes` (0.0 to 1.0).
    pub object_share_max: f64,
}
