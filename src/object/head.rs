//! The head of a stored response: status and end-to-end fields, in the order they came, repeated lines kept.
//!
//! Values are copied into one block of their own: the ones a connection hands out are slices of its read buffer and
//! would keep all of it alive.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Status and fields of a stored response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Final status.
    pub status: StatusCode,
    fields: Box<[(HeaderName, HeaderValue)]>,
}

impl Head {
    /// Copies `fields`, all of them: hop-by-hop fields have been removed before.
    pub fn new(status: StatusCode, fields: &HeaderMap) -> Self {
        let mut block = BytesMut::with_capacity(fields.values().map(HeaderValue::len).sum());
        let fields = fields.iter().map(|(name, value)| {
            block.put_slice(value.as_bytes());
            let copy = block.split().freeze();
            (name.clone(), shared(copy, value))
        });
        Self { status, fields: fields.collect() }
    }

    /// All lines, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.fields.iter().map(|(name, value)| (name, value))
    }

    /// The first line of that name.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// Every line of that name.
    pub fn get_all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value)
    }

    /// The fields as a map, with room for a few more.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.fields.len() + 6);
        for (name, value) in &self.fields {
            map.append(name.clone(), value.clone());
        }
        map
    }

    /// Bytes of memory this takes, bookkeeping included.
    pub fn weight(&self) -> usize {
        let field = |(name, value): &(HeaderName, HeaderValue)| name.as_str().len() + value.len();
        self.fields.len() * size_of::<(HeaderName, HeaderValue)>() + self.fields.iter().map(field).sum::<usize>()
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
