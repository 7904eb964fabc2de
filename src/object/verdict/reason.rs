//! Why a response was not stored.

/// Why a response is not storable; the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The method has no storable responses.
    Method,
    /// The status is not storable, or not without explicit freshness.
    Status,
    /// Part of a representation that nobody asked for in parts.
    UnrequestedPart,
    /// The request said `no-store`.
    RequestNoStore,
    /// The directives could not be read.
    Malformed,
    /// `must-understand` with a status that is not understood.
    NotUnderstood,
    /// `no-store`
    NoStore,
    /// `private`, and the route has no partitions.
    Private,
    /// The request carried `Authorization`, nothing allows sharing, and the route has no partitions.
    Authorization,
    /// `no-cache`, and nothing to validate it with.
    NoCache,
    /// Already stale, no stale window, and nothing to validate it with.
    Expired,
    /// No freshness of any kind, and nothing to validate it with.
    NoFreshness,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Method,
        Self::Status,
        Self::UnrequestedPart,
        Self::RequestNoStore,
        Self::Malformed,
        Self::NotUnderstood,
        Self::NoStore,
        Self::Private,
        Self::Authorization,
        Self::NoCache,
        Self::Expired,
        Self::NoFreshness,
    ];

    /// Its name in logs, metrics and explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::UnrequestedPart => "unrequested-part",
            Self::RequestNoStore => "request-no-store",
            Self::Malformed => "malformed",
            Self::NotUnderstood => "not-understood",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::NoCache => "no-cache",
            Self::Expired => "expired",
            Self::NoFreshness => "no-freshness",
        }
    }
}
