//! Request ids: taken from the client where it brings one, made otherwise; passed to the origin and back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Longest id taken from a client.
const LENGTH_MAX: usize = 128;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Makes ids that are unique in this process, and between processes for all practical purposes.
pub(super) struct RequestIds {
    field: Option<HeaderName>,
    /// Random at start: keeps the ids of two processes apart.
    process: u64,
    count: AtomicU64,
}

impl RequestIds {
    /// `field` is the configured name; empty: no ids.
    pub(super) fn new(field: &str) -> Self {
        let mut bytes = [0; 8];
        // Without randomness ids are still unique in this process.
        let _ = getrandom::fill(&mut bytes);
        Self { field: field.parse().ok(), process: u64::from_le_bytes(bytes), count: AtomicU64::new(0) }
    }

    /// Name of the field, where ids are in use.
    pub(super) fn field(&self) -> Option<&HeaderName> {
        self.field.as_ref()
    }

    /// The id of a request.
    pub(super) fn of(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let brought = headers.get(self.field.as_ref()?).filter(|id| is_taken(id.as_bytes()));
        Some(
            brought.cloned().unwrap_or_else(|| {
                HeaderValue::from_bytes(&self.make()).expect("hexadecimal digits make a field value")
            }),
        )
    }

    /// Writes the id of a request that `brought` this one.
    pub(super) fn write(&self, brought: Option<&[u8]>, out: &mut Vec<u8>) {
        match brought.filter(|id| is_taken(id)) {
            Some(id) => out.extend_from_slice(id),
            None => out.extend_from_slice(&self.make()),
        }
    }

    fn make(&self) -> [u8; 32] {
        let mut number = [0; 16];
        number[..8].copy_from_slice(&self.process.to_be_bytes());
        number[8..].copy_from_slice(&self.count.fetch_add(1, Relaxed).to_be_bytes());
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(number) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        text
    }
}

/// Whether an id that a client brought is taken for its own.
fn is_taken(id: &[u8]) -> bool {
    let visible = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    !id.is_empty() && id.len() <= LENGTH_MAX && id.iter().all(visible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_or_made() {
        let ids = RequestIds::new("x-request-id");
        let mut headers = HeaderMap::new();
        let (first, second) = (ids.of(&headers), ids.of(&headers));
        assert_ne!(first, second);
        assert_eq!(first.expect("made").len(), 32);
        headers.insert("x-request-id", HeaderValue::from_static("mine"));
        assert_eq!(ids.of(&headers).expect("taken"), "mine");
        headers.insert("x-request-id", "x".repeat(LENGTH_MAX + 1).parse().expect("valid"));
        assert_eq!(ids.of(&headers).expect("made").len(), 32);
        assert_eq!(RequestIds::new("").of(&headers), None);
    }
}
