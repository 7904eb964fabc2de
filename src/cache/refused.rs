//! Why a response is not stored.

use http::StatusCode;

use crate::object::verdict::Reason;

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The storing rules forbid it.
    Verdict(Reason),
    /// `Vary` says that it answers no other request.
    VaryAny,
    /// It confirms a stored response and selects it by other fields than before.
    VaryChanged,
    /// Larger than any tier takes, or than the route allows.
    TooLarge,
    /// Too large for memory, and not asked for often enough for the disk.
    NotAdmitted,
    /// More tags than an entry may have.
    TooManyTags,
    /// Purged while it was on its way (rule F2).
    Purged,
    /// A 206 that does not say which part it is.
    NoContentRange,
    /// A 206 whose content is not the part it says it is.
    ContentRangeMismatch,
    /// An answer of a model in a coding, in which nobody can see whether it is whole.
    Coded,
    /// An answer of a model in another form than was asked for.
    OtherForm,
    /// A response to POST without explicit freshness, which is what would let it stand for GET.
    NoExplicitFreshness,
}

impl Refused {
    /// Its name in `Cache-Status` and explanations.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Verdict(reason) => reason.as_str(),
            Self::VaryAny => "vary-any",
            Self::VaryChanged => "vary-changed",
            Self::TooLarge => "too-large",
            Self::NotAdmitted => "not-admitted",
            Self::TooManyTags => "too-many-tags",
            Self::Purged => "purged",
            Self::NoContentRange => "no-content-range",
            Self::ContentRangeMismatch => "content-range-mismatch",
            Self::Coded => "content-encoding",
            Self::OtherForm => "content-type",
            Self::NoExplicitFreshness => "no-freshness",
        }
    }

    /// Whether it is for what this one request was, so that the next response may well be stored.
    pub(super) fn is_of_the_request(self) -> bool {
        matches!(self, Self::Purged | Self::Verdict(Reason::RequestNoStore | Reason::Authorization))
    }

    /// Whether the next requests for the same had better not wait for each other. Not after server errors: a herd side
    /// by side is the last thing a failing origin needs. Not after a 304: it says nothing about storing. Not where it is
    /// the next one that is stored.
    pub(super) fn lasts(self, status: StatusCode) -> bool {
        let by_request = matches!(self, Self::Purged | Self::NotAdmitted | Self::Verdict(Reason::RequestNoStore));
        !by_request && !status.is_server_error() && status != StatusCode::NOT_MODIFIED
    }

    /// Whether a response of `status` takes the place of an older one that is still of some use, although it is not
    /// stored itself: it is then the origin's word on the resource, not on this one request.
    pub(super) fn supersedes(self, status: StatusCode) -> bool {
        let word = status.is_success() || status.is_redirection();
        (word || matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)) && !self.is_of_the_request()
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::Verdict(reason)
    }
}
