//! Why a request is not let in.

use std::sync::Arc;

use crate::jwt::Fault;

/// Why a request is not let in. The texts are for its client: they do not tell what was nearly right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nothing was presented.
    #[error("a key is needed here: send it as `Authorization: Bearer <key>`, or in the field `Larder-Key`")]
    Missing,
    /// What was presented is no key that is known.
    #[error("the key is not known here")]
    Unknown,
    /// Nobody is called as the tenant that is spoken for.
    #[error("there is no tenant of that name")]
    Nobody,
    /// What was presented is a token that is not accepted.
    #[error("{0}")]
    Token(Fault),
    /// What was presented is a token of an issuer whose tokens this route does not take.
    #[error("tokens of this issuer are not taken here")]
    Issuer,
    /// What was presented is a token with a name too long to be a tenant's.
    #[error("the name in the token is too long")]
    Name,
    /// Whether the token that was presented is right, nobody can tell now.
    #[error("{0}")]
    Unavailable(Fault),
    /// The tenant may use other routes.
    #[error("tenant `{0}` may not use this route")]
    Route(Arc<str>),
}

impl From<Fault> for Denied {
    fn from(fault: Fault) -> Self {
        if fault.is_unavailable() { Self::Unavailable(fault) } else { Self::Token(fault) }
    }
}

impl Denied {
    /// One word, for metrics, logs and `Cache-Status`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "no-key",
            Self::Unknown => "unknown-key",
            Self::Token(_) | Self::Issuer | Self::Name => "refused-token",
            Self::Nobody => "no-tenant",
            Self::Unavailable(_) => "issuer-unavailable",
            Self::Route(_) => "other-routes",
        }
    }
}
