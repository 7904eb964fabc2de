//! The head of a stored response: status and end-to-end fields, in the order they came, repeated lines kept.
//!
//! The fields are one block of text in the form HTTP/1.1 sends them, so that a plain hit copies them to the socket and
//! builds nothing, and an entry has one piece of memory for all of them. A map is made where one is needed: for HTTP/2,
//! for conditions and ranges, for what a newer head changes.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_LENGTH};
use memchr::{memchr, memmem};

/// Between a name and its value, as this block has it.
const COLON: &[u8] = b": ";
const END: &[u8] = b"\r\n";

/// Name, in lower case, and value.
pub type Line<'a> = (&'a [u8], &'a [u8]);

/// Status and fields of a stored response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Final status.
    pub status: StatusCode,
    /// Whether one of the lines is `Content-Length`.
    has_length: bool,
    /// Lines of `name: value CR LF`, names in lower case.
    lines: Box<[u8]>,
}

/// Why a text is not one of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLines {
    /// Without its end, or without a colon.
    #[error("not a line")]
    Line,
    /// Not the name of a field, in lower case.
    #[error("not a field name")]
    Name,
    /// Not the value of a field.
    #[error("not a field value")]
    Value,
}

impl Head {
    /// Copies `fields`, all of them: hop-by-hop fields have been removed before.
    pub fn new(status: StatusCode, fields: &HeaderMap) -> Self {
        Self::of(status, fields, |_| true)
    }

    /// Copies those of `fields` whose name is to be kept.
    pub fn of(status: StatusCode, fields: &HeaderMap, keep: impl Fn(&HeaderName) -> bool) -> Self {
        let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
        let bytes = fields.iter().map(line).sum();
        let mut lines = Vec::with_capacity(bytes);
        let mut has_length = false;
        for (name, value) in fields.iter().filter(|(name, _)| keep(name)) {
            has_length |= *name == CONTENT_LENGTH;
            put_line(&mut lines, (name.as_str().as_bytes(), value.as_bytes()));
        }
        if lines.len() < bytes {
            // Copied: allocators do not move what shrinks a little.
            lines = lines.as_slice().to_vec();
        }
        Self { status, has_length, lines: lines.into() }
    }

    /// From the text that [`Head::lines`] gave.
    ///
    /// # Errors
    /// Where it is not one that could have come from there.
    pub fn from_lines(status: StatusCode, text: &[u8]) -> Result<Self, InvalidLines> {
        let mut fields = HeaderMap::new();
        let mut rest = text;
        while !rest.is_empty() {
            let ((name, value), after) = first_line(rest).ok_or(InvalidLines::Line)?;
            let parsed = HeaderName::from_bytes(name).map_err(|_| InvalidLines::Name)?;
            if parsed.as_str().as_bytes() != name {
                return Err(InvalidLines::Name);
            }
            let value = HeaderValue::from_bytes(value).map_err(|_| InvalidLines::Value)?;
            fields.try_append(parsed, value).map_err(|_| InvalidLines::Line)?;
            rest = after;
        }
        Ok(Self::new(status, &fields))
    }

    /// The same with one more line.
    #[must_use]
    pub fn with(self, name: &HeaderName, value: &HeaderValue) -> Self {
        let mut lines = self.lines.into_vec();
        put_line(&mut lines, (name.as_str().as_bytes(), value.as_bytes()));
        Self { lines: lines.into(), has_length: self.has_length || *name == CONTENT_LENGTH, ..self }
    }

    /// All fields as HTTP/1.1 sends them, without the empty line that ends a head.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// All lines, in order: name, value.
    pub fn iter(&self) -> impl Iterator<Item = Line<'_>> {
        let mut rest = &*self.lines;
        std::iter::from_fn(move || {
            let (line, after) = first_line(rest)?;
            rest = after;
            Some(line)
        })
    }

    /// The value of the first line of that name.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// The values of all lines of that name.
    pub fn get_all<'a, 'n>(&'a self, name: &'n HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter().filter(|(known, _)| *known == name.as_str().as_bytes()).map(|(_, value)| value)
    }

    /// Whether there is a line of that name.
    pub fn contains(&self, name: &HeaderName) -> bool {
        // Most fields that are asked for are not there: then nor is their name anywhere.
        memmem::find(&self.lines, name.as_str().as_bytes()).is_some() && self.get(name).is_some()
    }

    /// Whether it tells the length of the content.
    pub fn has_length(&self) -> bool {
        self.has_length
    }

    /// The fields as a map. Its values share one copy of the text.
    pub fn to_map(&self) -> HeaderMap {
        let text = Bytes::copy_from_slice(&self.lines);
        // What a hit adds finds its place without the map growing.
        let mut fields = HeaderMap::with_capacity(self.iter().count() + 4);
        for (name, value) in self.iter() {
            let name = HeaderName::from_bytes(name).expect("names come from a map of fields");
            let value = HeaderValue::from_maybe_shared(text.slice_ref(within(&text, &self.lines, value)));
            fields.append(name, value.expect("values come from a map of fields"));
        }
        fields
    }

    /// Bytes of memory this takes beside itself.
    pub fn weight(&self) -> usize {
        self.lines.len()
    }
}

/// Writes a line as HTTP/1.1 sends it.
pub fn put_line(out: &mut Vec<u8>, (name, value): Line<'_>) {
    for piece in [name, COLON, value, END] {
        out.extend_from_slice(piece);
    }
}

/// Name and value of the first line, and the lines after it.
fn first_line(lines: &[u8]) -> Option<(Line<'_>, &[u8])> {
    // No value has a line feed in it, and no name a colon.
    let (line, rest) = lines.split_at(memchr(b'\n', lines)? + 1);
    let line = line.strip_suffix(END)?;
    let (name, value) = line.split_at(memchr(b':', line)?);
    Some(((name, value.strip_prefix(COLON)?), rest))
}

/// The piece of `copy` that lies as `piece` does in `text`.
fn within<'a>(copy: &'a [u8], text: &[u8], piece: &[u8]) -> &'a [u8] {
    let start = piece.as_ptr() as usize - text.as_ptr() as usize;
    &copy[start..start + piece.len()]
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::fields::tests::{any_value, map},
        *,
    };

    #[test]
    fn repeated_lines_stay_lines() {
        let fields = map(&[("link", "a"), ("link", "b"), ("etag", "\"1\"")]);
        let head = Head::new(StatusCode::OK, &fields);
        assert_eq!(head.lines(), b"link: a\r\nlink: b\r\netag: \"1\"\r\n");
        assert_eq!(head.to_map(), fields);
        assert_eq!(head.get(&http::header::LINK), Some(&b"a"[..]));
        assert!(head.contains(&http::header::ETAG) && !head.contains(&http::header::AGE));
    }

    #[test]
    fn only_what_is_to_be_kept() {
        let fields = map(&[("age", "1"), ("content-length", "5"), ("x", "")]);
        let head = Head::of(StatusCode::OK, &fields, |name| name != "age");
        assert_eq!(head.to_map(), map(&[("content-length", "5"), ("x", "")]));
        assert!(head.has_length());
        assert!(!Head::of(StatusCode::OK, &fields, |name| name == "x").has_length());
    }

    #[test]
    fn not_lines() {
        let error = |text: &[u8]| Head::from_lines(StatusCode::OK, text).expect_err("not lines");
        assert_eq!(error(b"a: 1"), InvalidLines::Line);
        assert_eq!(error(b"a:1\r\n"), InvalidLines::Line);
        assert_eq!(error(b"\r\n"), InvalidLines::Line);
        assert_eq!(error(b"A: 1\r\n"), InvalidLines::Name);
        assert_eq!(error(b"a b: 1\r\n"), InvalidLines::Name);
        assert_eq!(error(b"a: \n\r\n"), InvalidLines::Line);
        assert_eq!(error(b"a: \0\r\n"), InvalidLines::Value);
    }

    proptest! {
        #[test]
        fn prop_a_map_and_its_lines_say_the_same(lines in vec((0..4usize, any_value()), 0..12)) {
            let names = ["a", "set-cookie", "content-length", "x-colon"];
            let mut fields = HeaderMap::new();
            for (name, value) in lines {
                fields.append(HeaderName::from_static(names[name]), value);
            }
            let head = Head::new(StatusCode::OK, &fields);
            prop_assert_eq!(head.to_map(), fields);
            prop_assert_eq!(Head::from_lines(StatusCode::OK, head.lines()), Ok(head));
        }

        #[test]
        fn prop_garbage_is_an_error_or_a_head(text in vec(any::<u8>(), 0..200)) {
            if let Ok(head) = Head::from_lines(StatusCode::OK, &text) {
                prop_assert_eq!(head.iter().count(), head.to_map().len());
            }
        }
    }
}
