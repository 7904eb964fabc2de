//! Byte ranges (RFC 9110 section 14).

/// A `Content-Range` of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte, from 0.
    pub first: u64,
    /// Last byte, inclusive.
    pub last: u64,
    /// Length of the complete representation, where known.
    pub complete: Option<u64>,
}
