//! Why a request is not let in.

use std::sync::Arc;

/// Why a request is not let in. The texts are for its client: they do not tell what was nearly right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nothing was presented.
    #[error("a key is needed here: send it as `Authorization: Bearer <key>`, or in the field `Larder-Key`")]
    Missing,
    /// What was presented is no key that is known.
    #[error("the key is not known here")]
    Unknown,
    /// What was presented is a token that is not accepted.
    #[error("{0}")]
    Token(String),
    /// The tenant may use other routes.
    #[error("tenant `{0}` may not use this route")]
    Route(Arc<str>),
}

impl Denied {
    /// One word, for metrics, logs and `Cache-Status`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "no-key",
            Self::Unknown => "unknown-key",
            Self::Token(_) => "refused-token",
            Self::Route(_) => "other-routes",
        }
    }
}
