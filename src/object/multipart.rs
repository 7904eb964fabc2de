//! `multipart/byteranges` (RFC 9110 section 14.6), put together from pieces of the stored content.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::HeaderValue;

use super::{content_range::ContentRange, key::KeyBuilder};

/// Content of a 206 with several ranges.
#[derive(Debug, Clone)]
pub struct Multipart {
    /// The content in order.
    pub segments: Vec<Segment>,
    /// Bytes of all segments.
    pub length: u64,
    /// The `Content-Type` that goes with it.
    pub content_type: HeaderValue,
}

/// A piece of a [`Multipart`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Before, between and behind what was asked for.
    Text(Bytes),
    /// That much of the stored content.
    Content(RangeInclusive<u64>),
}

/// The `ranges` of a complete representation of `complete` bytes, each under the `content_type` of the whole. `seed` makes
/// the boundary; one that whoever wrote the content cannot know keeps it from forging parts.
pub fn multipart(
    complete: u64,
    ranges: &[RangeInclusive<u64>],
    content_type: Option<&HeaderValue>,
    seed: u64,
) -> Multipart {
    let boundary = boundary(seed);
    let mut segments = Vec::with_capacity(2 * ranges.len() + 1);
    for range in ranges {
        let lead = if segments.is_empty() { "--" } else { "\r\n--" };
        let head = part_head(lead, &boundary, content_type, &ContentRange::new(range, complete));
        segments.extend([Segment::Text(head), Segment::Content(range.clone())]);
    }
    segments.push(Segment::Text(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    let length = segments.iter().map(Segment::length).sum();
    let content_type = HeaderValue::from_str(&format!("multipart/byteranges; boundary={boundary}"))
        .expect("a boundary of hexadecimal digits is valid in a field");
    Multipart { segments, length, content_type }
}

impl Segment {
    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Content(range) => (range.end() - range.start()).saturating_add(1),
        }
    }
}

/// `range` of `body`, or what there is of it; not copied.
pub fn slice(body: &Bytes, range: &RangeInclusive<u64>) -> Bytes {
    let length = body.len();
    let first = usize::try_from(*range.start()).map_or(length, |first| first.min(length));
    let end = usize::try_from(range.end().saturating_add(1)).map_or(length, |end| end.min(length));
    body.slice(first..end.max(first))
}

fn part_head(lead: &str, boundary: &str, content_type: Option<&HeaderValue>, range: &ContentRange) -> Bytes {
    let mut head = Vec::with_capacity(160);
    head.extend_from_slice(lead.as_bytes());
    head.extend_from_slice(boundary.as_bytes());
    if let Some(content_type) = content_type {
        head.extend_from_slice(b"\r\nContent-Type: ");
        head.extend_from_slice(content_type.as_bytes());
    }
    head.extend_from_slice(b"\r\nContent-Range: ");
    head.extend_from_slice(range.value().as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    head.into()
}

fn boundary(seed: u64) -> String {
    let mut text = KeyBuilder::new("boundary").field(&seed.to_le_bytes()).finish().to_string();
    text.truncate(32);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_order() {
        let body = Bytes::from_static(b"0123456789");
        let content_type = HeaderValue::from_static("text/plain");
        let found = multipart(body.len() as u64, &[0..=1, 8..=9], Some(&content_type), 7);
        let boundary = boundary(7);
        assert_eq!(found.content_type, format!("multipart/byteranges; boundary={boundary}"));
        let expected = format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n\
             --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n--{boundary}--\r\n"
        );
        let piece = |segment: &Segment| match segment {
            Segment::Text(text) => text.clone(),
            Segment::Content(range) => slice(&body, range),
        };
        assert_eq!(found.segments.iter().map(piece).collect::<Vec<_>>().concat(), expected.as_bytes());
        assert_eq!(found.length, expected.len() as u64);
    }

    #[test]
    fn slices_never_leave_the_body() {
        let body = Bytes::from_static(b"0123");
        assert_eq!(slice(&body, &(1..=2)), "12");
        assert_eq!(slice(&body, &(1..=u64::MAX)), "123");
        assert_eq!(slice(&body, &(9..=10)), "");
        #[expect(clippy::reversed_empty_ranges, reason = "the point of the test")]
        let reversed = 3..=1;
        assert_eq!(slice(&body, &reversed), "");
    }

    #[test]
    fn boundaries_differ() {
        assert_ne!(boundary(1), boundary(2));
        assert_eq!(boundary(1).len(), 32);
    }
}
