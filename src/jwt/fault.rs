//! Why a token is not taken.

/// Why a token is not taken, in words fit for an answer: nothing of the token is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Longer than tokens may be.
    #[error("the token is too long (jwt.token_bytes_max)")]
    TooLong,
    /// Not three parts of base64url with JSON objects in the first two.
    #[error("the token is no JWT: three parts of base64url, the first two of them JSON")]
    Malformed,
    /// `alg` is `none`.
    #[error("the token is not signed")]
    Unsigned,
    /// It has `crit`, and extensions are not known here (RFC 7515 section 4.1.11).
    #[error("the token has extensions that have to be understood (crit), and none is")]
    Critical,
    /// `iss` is none of the configured issuers.
    #[error("the token's issuer (iss) is not known here")]
    UnknownIssuer,
    /// `alg` is none that its issuer may use.
    #[error("the token is signed with an algorithm (alg) its issuer may not use")]
    Algorithm,
    /// Its issuer has no such key.
    #[error("the token's key (kid) is none of its issuer's")]
    UnknownKey,
    /// Its issuer's keys are not known at the moment.
    #[error("the keys of the token's issuer are not known at the moment")]
    Unavailable,
    /// The signature is not that of the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim is missing that has to be there.
    #[error("the token has no `{0}`")]
    Missing(&'static str),
    /// A claim is not what it has to be.
    #[error("the token's `{0}` is not of the right form")]
    Form(&'static str),
    /// The claim is missing that says who somebody is.
    #[error("the token does not say whose it is (name_claim)")]
    Nameless,
    /// It is for others.
    #[error("the token is not for this gateway (aud)")]
    Audience,
    /// `exp` is past.
    #[error("the token has expired (exp)")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet (nbf)")]
    NotYet,
    /// `iat` is to come.
    #[error("the token was issued in the future (iat)")]
    IssuedInFuture,
}

impl Fault {
    /// Whether the token may be right and nobody can tell now: 503 rather than 401.
    pub fn is_unavailable(self) -> bool {
        self == Self::Unavailable
    }

    /// One word, for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Malformed => "malformed",
            Self::Unsigned => "unsigned",
            Self::Critical => "critical",
            Self::UnknownIssuer => "unknown-issuer",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown-key",
            Self::Unavailable => "unavailable",
            Self::Signature => "signature",
            Self::Missing(_) => "missing-claim",
            Self::Form(_) => "claim-form",
            Self::Nameless => "nameless",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYet => "not-yet",
            Self::IssuedInFuture => "issued-in-future",
        }
    }
}
