//! Validators of a stored response (RFC 9110 section 8.8).

use http::HeaderValue;

use super::time::Timestamp;

/// Entity tag and modification date.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`, as sent.
    pub etag: Option<HeaderValue>,
    /// `Last-Modified`, parsed.
    pub last_modified: Option<Timestamp>,
    /// `Date`, parsed.
    pub date: Option<Timestamp>,
}
