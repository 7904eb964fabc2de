//! Why a purge did not take place.

use std::io;

use http::HeaderName;

use super::super::ResolveError;
use crate::{object::key::InvalidKey, purge};

/// A purge that did not take place.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// Nothing was named.
    #[error("the purge names nothing: give `urls`, `keys`, `tags`, `prefixes`, `hosts`, or `\"all\": true`")]
    Empty,
    /// `all` beside something else.
    #[error("`all` purges everything and stands alone: leave out the other selectors, or `all`")]
    AllAndMore,
    /// More scopes than one call may name.
    #[error("the purge names {given} scopes, one call may name {max}: split it, or use a tag, prefix or host")]
    TooMany {
        /// Scopes named.
        given: usize,
        /// Scopes allowed.
        max: usize,
    },
    /// Not a tag.
    #[error("`tags`: {0}")]
    Tag(&'static str),
    /// Not a key.
    #[error("`keys`: {key:?} is not a key")]
    Key {
        /// As given.
        key: String,
        /// Why.
        source: InvalidKey,
    },
    /// Not a URL a client could ask for.
    #[error("`urls`: {0}; write it as in \"http://shop.example/products/7\"")]
    Url(ResolveError),
    /// Not a prefix.
    #[error("`prefixes`: {0:?} is not a host with a path such as \"shop.example/products\"")]
    Prefix(String),
    /// Not a host.
    #[error("`hosts`: {0:?} is not a host such as \"shop.example\" or \"shop.example:8080\"")]
    Host(String),
    /// A dry run where there is none.
    #[error("`dry_run`: only `POST /purge` counts")]
    DryRun,
    /// A hold nobody can mean.
    #[error("`hold`: at most 24 hours")]
    HoldTooLong,
    /// An id nobody can mean.
    #[error("`id`: one to 256 bytes")]
    Id,
    /// `PURGE` with a path alone.
    #[error("PURGE without a host: give an absolute URL, or `Host`")]
    NoHost,
    /// A header field with bytes that are no text.
    #[error("`{0}` has bytes no tag can have")]
    FieldBytes(HeaderName),
    /// The log did not take it; nothing of it was applied.
    #[error(transparent)]
    Log(#[from] purge::PurgeError),
    /// No identity could be made for it.
    #[error("no random bytes for the id of the purge: {0}")]
    Random(#[from] io::Error),
}

impl PurgeError {
    /// The field of the request that was wrong; `None`: the request was fine.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Log(purge::PurgeError::IdReused(_)) | Self::Id => Some("id"),
            Self::Empty | Self::TooMany { .. } | Self::NoHost | Self::Log(_) | Self::Random(_) => None,
            Self::AllAndMore => Some("all"),
            Self::Tag(_) | Self::FieldBytes(_) => Some("tags"),
            Self::Key { .. } => Some("keys"),
            Self::Url(_) => Some("urls"),
            Self::Prefix(_) => Some("prefixes"),
            Self::Host(_) => Some("hosts"),
            Self::HoldTooLong => Some("hold"),
            Self::DryRun => Some("dry_run"),
        }
    }

    /// Whether asking otherwise would help; else the gateway failed.
    pub fn is_callers(&self) -> bool {
        use purge::PurgeError as Log;
        let failed = |error: &Log| {
            matches!(
                error,
                Log::Write { .. }
                    | Log::Closed
                    | Log::Unlogged(_)
                    | Log::Unapplied
                    | Log::Behind { .. }
                    | Log::QueueFull { .. }
            )
        };
        match self {
            Self::Random(_) => false,
            Self::Log(error) => !failed(error),
            _ => true,
        }
    }
}
