//! Settings of logs.

use serde::{Deserialize, Serialize};

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
    /// Lines waiting to be written; beyond that they are dropped and counted.
    pub queue_max: usize,
    /// Requests that are kept in memory to be looked at, by each thread that serves clients; 0: none.
    pub recent_max: usize,
    /// Who may follow requests at once.
    pub streams_max: usize,
    /// Requests that wait for one of them; beyond that they are dropped, and it is told.
    pub stream_queue_max: usize,
}
