//! Settings of what nodes share beside entries: the purge log, and the proof of being up to date with it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a write counts as safe from a fail-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replica {
    /// When a replica has it, where one is known.
    Auto,
    /// When a replica has it.
    Always,
    /// When the master has it.
    Never,
}

/// What a node does when all of Redis refuses connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gone {
    /// It serves on: nobody else can write the log either.
    Serve,
    /// It counts as cut off.
    Fence,
}

/// `[fleet]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FleetConfig {
    /// Name of this node in lists; empty: of the host and the port clients come in by.
    pub node: String,
    /// For so long a node may serve after the last proof that it is up to date.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// How long a purge waits for what it asks to wait for.
    #[serde(with = "humantime_serde")]
    pub ack_timeout: Duration,
    /// How long a strict request waits for Redis.
    #[serde(with = "humantime_serde")]
    pub confirm_timeout: Duration,
    /// See [`Replica`].
    pub replica: Replica,
    /// See [`Gone`].
    pub redis_gone: Gone,
    /// Purges acknowledged here that wait for Redis; one more is refused.
    pub queue_max: usize,
    /// Records of the log in Redis; beyond that a snapshot takes the place of the older ones.
    pub log_max: usize,
}
