//! Which fields of a request matter to the cache, found in one pass: most requests carry none of them, and their
//! decision then looks nothing up.

use http::HeaderMap;

use crate::object::plain::Plain;

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
        headers.keys().for_each(|name| asked.note(name.as_str().as_bytes()));
        asked
    }

    pub(super) fn of_plain(request: &Plain<'_>) -> Self {
        let mut asked = Self::default();
        request.noted(|name| asked.note(name));
        asked
    }

    fn note(&mut self, name: &[u8]) {
        match name {
            b"cache-control" | b"pragma" => self.directives = true,
            b"if-none-match" | b"if-modified-since" => self.conditions = true,
            b"if-match" | b"if-unmodified-since" => self.for_origin = true,
            b"range" => self.range = true,
            _ => {}
        }
    }
}
