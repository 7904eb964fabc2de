//! What a purge is acknowledged with.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::request::Ack;
use crate::{
    cache::survey::Named,
    purge::{self, fleet::Spread},
};

/// How a purge treats what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Unusable at once.
    Hard,
    /// Stale at once.
    Soft,
}

/// Proof of a purge: from the moment it was given, this node serves nothing of what was named.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Receipt {
    /// Identity of the purge.
    pub id: String,
    /// Its number in the purge log: the fleet's, where there is one.
    pub seq: u64,
    /// See [`Mode`].
    pub mode: Mode,
    /// How many things it named: a host is one, whatever sites it has.
    pub scopes: usize,
    /// What was waited for.
    pub ack: Ack,
    /// How far it has spread, where there are other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<Spread>,
    /// Milliseconds from the call until it was durable and applied.
    pub duration_ms: f64,
    /// What became of `refresh`, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
}

/// What a purge would name, where `dry_run` was asked for. Nothing was purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Counted {
    /// True.
    pub dry_run: bool,
    /// How many things were named: a host is one, whatever sites it has.
    pub scopes: usize,
    /// The stored responses of this node that it would reach.
    #[serde(flatten)]
    pub named: Named,
}

/// What became of `refresh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Refresh {
    /// URLs that wait to be fetched again.
    pub queued: usize,
}

// === impl Mode ===

impl From<Mode> for purge::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Hard => Self::Hard,
            Mode::Soft => Self::Soft,
        }
    }
}
