//! Settings of the admin plane.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::{jwt::Role, limit::config::Speed, tls};

/// What a token may do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Look: stats, explain, metrics, jobs.
    Read,
    /// Also purge.
    Purge,
    /// Also warm, and everything else.
    Operate,
}

impl From<Role> for Scope {
    fn from(role: Role) -> Self {
        match role {
            Role::Read => Self::Read,
            Role::Purge => Self::Purge,
            Role::Operate => Self::Operate,
        }
    }
}

/// One named token.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Who holds it, for logs.
    pub name: String,
    /// The secret itself.
    pub token: String,
    /// What it may do.
    pub scope: Scope,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// `[admin]`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// One token for everything; empty: none. Required, or one of `tokens`, unless the listener is on loopback.
    pub token: String,
    /// Named tokens with scopes.
    pub tokens: Vec<Token>,
    /// Size of a request body.
    pub body_bytes_max: ByteSize,
    /// Connections open at once.
    pub connections_max: usize,
    /// How long a connection may go without a call, and a client without taking anything of an answer.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Calls of one caller: of a token, or of an address without one.
    pub rate: Speed,
    /// Calls of one address with a token that is none.
    pub failures_rate: Speed,
    /// TLS on `listen.admin`.
    pub tls: tls::Config,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = if self.token.is_empty() { "" } else { "***" };
        f.debug_struct("Config").field("token", &token).field("tokens", &self.tokens).finish_non_exhaustive()
    }
}
