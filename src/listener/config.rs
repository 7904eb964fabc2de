//! Settings of the data listener: how much one client may ask of the gateway.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// `[client]`: limits and deadlines towards clients.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Open client connections at once; one more waits in the kernel's backlog.
    pub connections_max: usize,
    /// Size of a request head, request line included.
    pub head_bytes_max: ByteSize,
    /// Header fields in a request head.
    pub head_fields_max: usize,
    /// From the first byte of a connection, or of a kept-alive request, to the end of the head.
    #[serde(with = "humantime_serde")]
    pub head_timeout: Duration,
    /// How long a kept-alive connection may stay without a request.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Size of a request body.
    pub body_bytes_max: ByteSize,
    /// Silence allowed between two pieces of a request body.
    #[serde(with = "humantime_serde")]
    pub body_idle_timeout: Duration,
    /// Average rate a request body must keep after its first ten seconds, per second.
    pub body_rate_min: ByteSize,
    /// How long a client may accept no byte of a response before its connection is dropped.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// Concurrent streams on one HTTP/2 connection.
    pub h2_streams_max: u32,
    /// After a stop signal: how long requests under way may take to finish.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}
