//! Which fields of a request matter to the cache, found in one pass: most requests carry none of them, and their
//! decision then looks nothing up.

use http::{HeaderMap, header};

/// What a request carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// `Cache-Control` or `Pragma`.
    pub(super) directives: bool,
    /// `If-None-Match` or `If-Modified-Since`.
    pub(super) conditions: bool,
    /// `If-Match` or `If-Unmodified-Since`: for the origin alone (RFC 9111 section 4.3.2).
    pub(super) for_origin: bool,
    /// `Range`.
    pub(super) range: bool,
}

impl Asked {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut asked = Self::default();
        for name in headers.keys() {
            match *name {
                header::CACHE_CONTROL | header::PRAGMA => asked.directives = true,
                header::IF_NONE_MATCH | header::IF_MODIFIED_SINCE => asked.conditions = true,
                header::IF_MATCH | header::IF_UNMODIFIED_SINCE => asked.for_origin = true,
                header::RANGE => asked.range = true,
                _ => {}
            }
        }
        asked
    }
}
