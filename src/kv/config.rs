//! What is needed to reach Redis, and what can be wrong with it.

use std::{fmt, time::Duration};

/// How Redis is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// `redis://[user[:password]@]host[:port][/database]`, `rediss://...` over TLS; several are seeds of one cluster.
    /// `redis+sentinel://[user:password@]host[:port],host[:port]/master[/database]` asks Sentinels for the master.
    pub urls: Vec<String>,
    /// For where the URL names none; empty: the default user.
    pub username: String,
    /// For where the URL has none; empty: no password.
    pub password: String,
    /// PEM file of certificate authorities that replace those of the system; empty: those of the system.
    pub tls_ca: String,
    /// PEM file with the certificate that is shown; empty: none.
    pub tls_cert: String,
    /// PEM file with its key.
    pub tls_key: String,
    /// Whether certificates of servers are verified. `false` is for laboratories.
    pub tls_verify: bool,
    /// From the start of name resolution to the first answer.
    pub connect_timeout: Duration,
    /// Time-outs in a row after which a connection is given up, and calls fail at once.
    pub breaker_failures: u32,
    /// How long calls fail at once before the node is tried again, the first time; later ones take longer, up to 1 s.
    pub breaker_pause: Duration,
    /// Calls under way to one node, in one class.
    pub in_flight_max: usize,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> = self.urls.iter().map(|url| super::url::masked(url)).collect();
        f.debug_struct("Config").field("urls", &urls).field("username", &self.username).finish_non_exhaustive()
    }
}

/// What is wrong with a [`Config`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is none.
    #[error("no URL of Redis")]
    NoUrl,
    /// One cannot be used.
    #[error("Redis URL {url:?}: {reason}")]
    Url {
        /// As it was given, its password masked.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A file of certificates or of a key cannot be used.
    #[error("{path:?}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A certificate and its key come together or not at all.
    #[error("a client certificate needs both a certificate and a key")]
    HalfIdentity,
}
