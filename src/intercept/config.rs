//! Settings of interception.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Hosts, Pattern, PatternError};

/// Whether tunnels are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enabled {
    /// Where there is an authority.
    Auto,
    /// Yes: without an authority, the gateway does not start.
    On,
    /// No.
    Off,
}

/// `[intercept]`: which tunnels are opened, and with what.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// See [`Enabled`].
    pub enabled: Enabled,
    /// Whose tunnels are opened: `api.example`, or `*.example` for every name below it.
    pub hosts: Vec<String>,
    /// Ports at which they are.
    pub ports: Vec<u16>,
    /// Certificates kept.
    pub certificates_max: usize,
    /// How long a certificate is valid.
    #[serde(with = "humantime_serde")]
    pub certificate_lifetime: Duration,
}

impl Config {
    /// Its hosts, read.
    ///
    /// # Errors
    /// Where one of them is no host.
    pub fn hosts(&self) -> Result<Hosts, PatternError> {
        self.hosts.iter().map(|host| host.parse::<Pattern>()).collect()
    }
}
