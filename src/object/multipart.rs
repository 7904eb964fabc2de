//! `multipart/byteranges` (RFC 9110 section 14.6), put together from slices of the stored content.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::HeaderValue;

use super::{content_range::ContentRange, key::KeyBuilder};

/// Content of a 206 with several ranges.
#[derive(Debug, Clone)]
pub struct Multipart {
    /// The content in order; what comes from the stored content is not copied.
    pub segments: Vec<Bytes>,
    /// Bytes of all segments.
    pub length: u64,
    /// The `Content-Type` that goes with it.
    pub content_type: HeaderValue,
}

/// The `ranges` of `body`, which is the complete representation, each under the `content_type` of the whole. `seed`
/// makes the boundary; one that whoever wrote the content cannot know keeps it from forging parts.
pub fn multipart(
    body: &Bytes,
    ranges: &[RangeInclusive<u64>],
    content_type: Option<&HeaderValue>,
    seed: u64,
) -> Multipart {
    let boundary = boundary(seed);
    let mut segments = Vec::with_capacity(2 * ranges.len() + 1);
    for range in ranges {
        let lead = if segments.is_empty() { "--" } else { "\r\n--" };
        segments.push(part_head(lead, &boundary, content_type, &ContentRange::new(range, body.len() as u64)));
        segments.push(slice(body, range));
    }
    segments.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
    let length = segments.iter().map(|segment| segment.len() as u64).sum();
    let content_type = HeaderValue::from_str(&format!("multipart/byteranges; boundary={boundary}"))
        .expect("a boundary of hexadecimal digits is valid in a field");
    Multipart { segments, length, content_type }
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
        let found = multipart(&body, &[0..=1, 8..=9], Some(&content_type), 7);
        let boundary = boundary(7);
        assert_eq!(found.content_type, format!("multipart/byteranges; boundary={boundary}"));
        let expected = format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n\
             --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n--{boundary}--\r\n"
        );
        assert_eq!(found.segments.concat(), expected.as_bytes());
        assert_eq!(found.length, expected.len() as u64);
        assert_eq!(found.segments[1].as_ptr(), body.as_ptr());
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
