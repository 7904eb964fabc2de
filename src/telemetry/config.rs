//! Settings of logs.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::rotate::Rotation;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// See [`Format`].
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `larder::origin=debug,info`.
    pub level: String,
    /// Whether each request leaves a line at its end.
    pub access: bool,
    /// Share of requests answered from the cache, with a status below 400, that leave one: 0.0 to 1.0. All others do.
    pub sample: f64,
    /// Lines waiting to be written; beyond that they are dropped and counted.
    pub queue_max: usize,
    /// File of all lines; empty: standard output and standard error.
    pub file: String,
    /// File of the lines about calls of the admin plane; empty: they are among the diagnostic lines.
    pub audit_file: String,
    /// Size at which another file is begun; 0: none is because of its size.
    pub rotate_bytes: ByteSize,
    /// Age at which another file is begun; 0: none is because of its age.
    #[serde(with = "humantime_serde")]
    pub rotate_age: Duration,
    /// Files kept beside the one that is written.
    pub keep: usize,
    /// Requests that are kept in memory to be looked at, by each thread that serves clients; 0: none.
    pub recent_max: usize,
    /// Who may follow requests at once.
    pub streams_max: usize,
    /// Requests that wait for one of them; beyond that they are dropped, and it is told.
    pub stream_queue_max: usize,
}

impl Config {
    /// When files are rotated.
    pub(super) fn rotation(&self) -> Rotation {
        Rotation { bytes: self.rotate_bytes.as_u64(), age: self.rotate_age, keep: self.keep }
    }
}
