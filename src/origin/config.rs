//! Settings towards origins; `[origin]` gives the defaults, a route's `origin` table overrides them.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// `[origin]`: deadlines, limits and trust towards origins.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// From the start of name resolution to a usable connection, TLS included.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// From the request sent to the final response head received.
    #[serde(with = "humantime_serde")]
    pub head_timeout: Duration,
    /// Silence allowed between two pieces of a response body.
    #[serde(with = "humantime_serde")]
    pub body_idle_timeout: Duration,
    /// Open connections to one origin (scheme, host and port).
    pub connections_max: usize,
    /// Requests that may wait for a connection to one origin; one more is answered 503.
    pub queue_max: usize,
    /// How long a request may wait for a connection.
    #[serde(with = "humantime_serde")]
    pub queue_timeout: Duration,
    /// How long an unused connection is kept; a shorter `Keep-Alive: timeout` of the origin wins.
    #[serde(with = "humantime_serde")]
    pub pool_idle_timeout: Duration,
    /// Unused connections kept to one origin.
    pub pool_idle_max: usize,
    /// Further tries on another connection where the origin cannot have seen the request.
    pub retries: u32,
    /// Size of a response head.
    pub head_bytes_max: ByteSize,
    /// Header fields in a response head.
    pub head_fields_max: usize,
    /// Concurrent streams on one HTTP/2 connection before another one is opened.
    pub h2_streams_max: usize,
    /// Whether `https` origins may agree on HTTP/2 (ALPN).
    pub h2: bool,
    /// Whether certificates of `https` origins are verified. `false` is for laboratories.
    pub tls_verify: bool,
    /// PEM file with certificate authorities to trust beside those of the system.
    pub tls_ca_file: Option<PathBuf>,
    /// Failures in a row (connect errors, time-outs) after which an upstream rests.
    pub breaker_failures: u32,
    /// How long it rests before one request may try it again.
    #[serde(with = "humantime_serde")]
    pub breaker_rest: Duration,
}
