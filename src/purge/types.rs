//! What is asked of the log and what it answers.

use std::{fmt, io, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use crate::object::{
    scope::{Position, Scope},
    time::Timestamp,
};

/// Identity of a purge: the same one again is the same purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PurgeId([u8; 16]);

impl PurgeId {
    /// One that nobody else has.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }

    /// The one that stands for a client's own name of its call.
    pub fn named(name: &str) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
        Self(bytes)
    }

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for PurgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a purge id is 32 hexadecimal digits")]
pub struct InvalidPurgeId;

impl FromStr for PurgeId {
    type Err = InvalidPurgeId;

    fn from_str(text: &str) -> Result<Self, InvalidPurgeId> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(|number| Self(number.to_be_bytes())).ok_or(InvalidPurgeId)
    }
}

/// What happens to an entry that is purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is never used again.
    Hard,
    /// It is stale: to be validated, and to be used when the origin fails.
    Soft,
}

impl Mode {
    /// As the API, the metrics and the log call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}

/// A purge to be done.
#[derive(Debug, Clone)]
pub struct Purge {
    /// See [`PurgeId`].
    pub id: PurgeId,
    /// When it was asked for; the hold counts from here.
    pub at: Timestamp,
    /// See [`Mode`].
    pub mode: Mode,
    /// What it names, at least one.
    pub scopes: Vec<Scope>,
    /// For so long, fills of these scopes are not to be stored for longer than it lasts: the origin's replicas may
    /// still be behind.
    pub hold: Duration,
    /// Who asked and what was named, for people who read the file; no secrets. Cut after 512 bytes.
    pub note: String,
}

/// A purge that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// As asked for.
    pub id: PurgeId,
    /// Number of the purge in its epoch: the lower 48 bits of the position.
    pub seq: u64,
    /// Entries whose stamp is below this were purged.
    pub position: Position,
    /// How many different scopes it named.
    pub scopes: usize,
    /// From call to done; zero when the log was reopened since.
    pub duration: Duration,
}

/// How an entry stands to the log. Greater is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// No purge since it was filled.
    Untouched,
    /// Purged softly: stale.
    Soft,
    /// Purged: not to be used.
    Hard,
}

/// A purge that was not done; nothing of it was applied.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PurgeError {
    /// It named nothing.
    #[error("a purge names at least one scope")]
    NoScopes,
    /// It named more than one call may.
    #[error("a purge names at most {max} scopes, not {named}")]
    TooManyScopes {
        /// How many it named.
        named: usize,
        /// `call_scopes_max`.
        max: usize,
    },
    /// Its id belongs to a purge of other scopes, mode or hold.
    #[error("purge id {0} was used for another purge")]
    IdReused(PurgeId),
    /// It could not be made durable. The log goes on as soon as the file can be written again.
    #[error("purge log: cannot write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// It is not in the log of the fleet, or it is not known whether it is.
    #[error("Redis has not taken it for sure ({0}); said again with the same id, it is the same purge")]
    Unlogged(Arc<str>),
    /// It is in the log of the fleet, and this node has not applied it in time.
    #[error("it is in the fleet's log, and this node has not applied it yet")]
    Unapplied,
    /// It is in the log of the fleet, and others have not applied it in time.
    #[error("it is in the fleet's log, and these nodes have not applied it yet: {nodes}")]
    Behind {
        /// Their names.
        nodes: String,
    },
    /// As many purges wait for Redis as may.
    #[error("{max} purges wait for Redis already (fleet.queue_max)")]
    QueueFull {
        /// `fleet.queue_max`.
        max: usize,
    },
    /// The log is shutting down.
    #[error("purge log: closed")]
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_as_text_and_back() {
        let id = PurgeId::named("deploy 17");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_ne!(id, PurgeId::named("deploy 18"));
        for text in ["", "+0000000000000000000000000000000", &"g".repeat(32), &"0".repeat(33)] {
            assert_eq!(text.parse::<PurgeId>(), Err(InvalidPurgeId), "{text}");
        }
    }
}
