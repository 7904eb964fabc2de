//! The head of a stored response: status and end-to-end fields, in the order they came, repeated lines kept.
//!
//! Values are copied into one block of their own: the ones a connection hands out are slices of its read buffer and
//! would keep all of it alive.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Bytes of one field in a map, its share of the index included: name, value, hash and links.
const FIELD_BYTES: usize = size_of::<HeaderName>() + size_of::<HeaderValue>() + 40;

/// Status and fields of a stored response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Final status.
    pub status: StatusCode,
    /// A map, because that is what an answer needs: to clone one costs half of what it takes to build it.
    fields: HeaderMap,
}

impl Head {
    /// Copies `fields`, all of them: hop-by-hop fields have been removed before.
    pub fn new(status: StatusCode, fields: &HeaderMap) -> Self {
        Self::of(status, fields, |_| true)
    }

    /// Copies those of `fields` whose name is to be kept.
    pub fn of(status: StatusCode, fields: &HeaderMap, keep: impl Fn(&HeaderName) -> bool) -> Self {
        // A clone with its values exchanged: to build a map anew would hash every name again.
        let mut copies = fields.clone();
        for name in fields.keys().filter(|name| !keep(name)) {
            copies.remove(name);
        }
        let mut block = Vec::with_capacity(copies.values().map(HeaderValue::len).sum());
        copies.values().for_each(|value| block.extend_from_slice(value.as_bytes()));
        let block = Bytes::from(block);
        let mut end = 0;
        for value in copies.values_mut() {
            let start = end;
            end += value.len();
            *value = shared(block.slice(start..end), value);
        }
        Self { status, fields: copies }
    }

    /// All lines, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.fields.iter()
    }

    /// The first line of that name.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.fields.get(name)
    }

    /// Every line of that name.
    pub fn get_all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
        self.fields.get_all(name).iter()
    }

    /// All fields.
    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// The fields as a map of their own.
    pub fn to_map(&self) -> HeaderMap {
        self.fields.clone()
    }

    /// Bytes of memory this takes, bookkeeping included.
    pub fn weight(&self) -> usize {
        let text = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        self.fields.capacity() * FIELD_BYTES + self.fields.iter().map(text).sum::<usize>()
    }
}

/// The same value over another block of memory.
fn shared(copy: Bytes, value: &HeaderValue) -> HeaderValue {
    let mut copy = HeaderValue::from_maybe_shared(copy).expect("a copy of a valid field value is valid");
    copy.set_sensitive(value.is_sensitive());
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_lines_stay_lines() {
        let mut map = HeaderMap::new();
        map.append("link", HeaderValue::from_static("a"));
        map.append("link", HeaderValue::from_static("b"));
        map.append("etag", HeaderValue::from_static("\"1\""));
        let head = Head::new(StatusCode::OK, &map);
        assert_eq!(head.get_all(&http::header::LINK).count(), 2);
        assert_eq!(head.to_map(), map);
        assert!(head.weight() > 10);
    }
}
