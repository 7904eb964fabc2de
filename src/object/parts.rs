//! Stored parts of a representation (RFC 9111 sections 3.3 and 3.4): what they can answer, what completes them, and how
//! two of them become one.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};

use super::{
    content_range::ContentRange,
    range::{Spec, requested},
    validators::Validators,
};

/// What a stored part has for a request: a 206.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// What the answer says it is.
    pub content_range: ContentRange,
    /// Where it is in the stored content.
    pub body: Range<usize>,
}

/// A stored or received part.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Which part of the representation.
    pub range: ContentRange,
    /// Whose.
    pub validators: &'a Validators,
    /// Its content.
    pub body: &'a Bytes,
}

/// Two parts as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combined {
    /// The content.
    pub body: Bytes,
    /// Which part it is; `None`: all of the representation.
    pub part: Option<ContentRange>,
}

/// Which part a 206 of these fields and `body_length` bytes is. `None` if it is several, if the fields do not say, or
/// if the content does not have the length they promise: then it is not to be stored.
pub fn part_of(response: &HeaderMap, body_length: u64) -> Option<ContentRange> {
    ContentRange::of(response).filter(|range| range.length() == body_length)
}

/// What a stored part of `body_length` bytes has for `request`; `None` if it does not have all of it, or if all of the
/// representation is asked for.
///
/// A suffix is counted from the end of the content and any other range from its start, so that even content shorter
/// than its `Content-Range` never gives bytes that are not there.
pub fn from_part(
    request: &HeaderMap,
    method: &Method,
    stored: &Validators,
    part: &ContentRange,
    body_length: usize,
) -> Option<Cut> {
    let specs = requested(request, method, stored)?;
    let [spec] = specs[..] else { return None };
    match spec {
        Spec::From(first) => part.reaches_end().then(|| from_start(part, first, part.last, body_length))?,
        Spec::Between(first, last) if last <= part.last || part.reaches_end() => {
            from_start(part, first, last.min(part.last), body_length)
        }
        Spec::Between(..) => None,
        Spec::Suffix(length) => part.reaches_end().then(|| from_end(part, length, body_length))?,
    }
}

fn from_start(part: &ContentRange, first: u64, last: u64, body_length: usize) -> Option<Cut> {
    let start = usize::try_from(first.checked_sub(part.first)?).ok()?;
    let end = usize::try_from(last.checked_sub(part.first)?.saturating_add(1)).ok()?.min(body_length);
    if start >= end {
        return None;
    }
    let last = first + (end - start) as u64 - 1;
    Some(Cut { content_range: ContentRange { first, last, complete: part.complete }, body: start..end })
}

fn from_end(part: &ContentRange, length: u64, body_length: usize) -> Option<Cut> {
    let wanted = usize::try_from(length.min(part.complete?)).ok()?;
    let start = body_length.checked_sub(wanted)?;
    let first = (part.last + 1).checked_sub(wanted as u64)?;
    let cut = Cut { content_range: ContentRange { first, ..*part }, body: start..body_length };
    (wanted > 0).then_some(cut)
}

/// The `Range` that asks for what a part lacks; `None` if it lacks nothing, or more than one piece.
pub fn missing(part: &ContentRange) -> Option<String> {
    match (part.first, part.reaches_end()) {
        (0, false) => Some(format!("bytes={}-", part.last.checked_add(1)?)),
        (first, true) if first > 0 => Some(format!("bytes=0-{}", first - 1)),
        _ => None,
    }
}

/// Joins two parts that touch or overlap and are surely of the same representation: equal strong validators, no
/// contradiction about its length. Where they overlap, `new` prevails.
pub fn combine(stored: Part<'_>, new: Part<'_>) -> Option<Combined> {
    let same = stored.validators.same_strong(new.validators) && stored.is_whole() && new.is_whole();
    if !same || !agree(stored.range.complete, new.range.complete) {
        return None;
    }
    let (one, other) = (stored.range, new.range);
    if one.first > other.last.saturating_add(1) || other.first > one.last.saturating_add(1) {
        return None;
    }
    let range = ContentRange {
        first: one.first.min(other.first),
        last: one.last.max(other.last),
        complete: one.complete.or(other.complete),
    };
    if range.complete.is_some_and(|complete| range.last >= complete) {
        return None;
    }
    let whole = range.first == 0 && range.reaches_end();
    Some(Combined { body: joined(stored, new), part: (!whole).then_some(range) })
}

impl Part<'_> {
    /// Whether it has the bytes it says.
    fn is_whole(&self) -> bool {
        self.range.length() == self.body.len() as u64 && self.range.complete.is_none_or(|end| self.range.last < end)
    }
}

fn agree(one: Option<u64>, other: Option<u64>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// The bytes of both: what `stored` has before `new`, `new`, what `stored` has after it.
fn joined(stored: Part<'_>, new: Part<'_>) -> Bytes {
    let distance = |more: u64, less: u64| usize::try_from(more.saturating_sub(less)).unwrap_or(usize::MAX);
    let before = distance(new.range.first, stored.range.first).min(stored.body.len());
    let after = distance(stored.range.last, new.range.last).min(stored.body.len());
    let mut body = BytesMut::with_capacity(before + new.body.len() + after);
    body.extend_from_slice(&stored.body[..before]);
    body.extend_from_slice(new.body);
    body.extend_from_slice(&stored.body[stored.body.len() - after..]);
    body.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::fields::tests::{any_value, map},
        *,
    };

    fn part(first: u64, last: u64, complete: Option<u64>) -> ContentRange {
        ContentRange { first, last, complete }
    }

    /// What of the stored part, and what the answer's Content-Range says.
    fn cut(range: &str, part: &ContentRange, body: &'static str) -> Option<(&'static str, String)> {
        let request = map(&[("range", range)]);
        let cut = from_part(&request, &Method::GET, &Validators::default(), part, body.len())?;
        let content_range = cut.content_range.value();
        Some((&body[cut.body], content_range.to_str().expect("ASCII").to_owned()))
    }

    #[test]
    fn ranges_a_part_covers() {
        let tail = part(4, 9, Some(10));
        let open = part(4, 9, None);
        let table = [
            ("bytes=6-8", &tail, Some(("234", "bytes 6-8/10"))),
            ("bytes=6-", &tail, Some(("2345", "bytes 6-9/10"))),
            ("bytes=-1", &tail, Some(("5", "bytes 9-9/10"))),
            ("bytes=-6", &tail, Some(("012345", "bytes 4-9/10"))),
            ("bytes=4-99", &tail, Some(("012345", "bytes 4-9/10"))),
            ("bytes=-7", &tail, None),
            ("bytes=-0", &tail, None),
            ("bytes=3-5", &tail, None),
            ("bytes=0-", &tail, None),
            ("bytes=10-", &tail, None),
            ("bytes=4-5,8-9", &tail, None),
            ("bytes=x", &tail, None),
            ("bytes=6-8", &open, Some(("234", "bytes 6-8/*"))),
            ("bytes=6-10", &open, None),
            ("bytes=6-", &open, None),
            ("bytes=-1", &open, None),
        ];
        for (range, part, expected) in table {
            let expected = expected.map(|(text, content_range)| (text, content_range.to_owned()));
            assert_eq!(cut(range, part, "012345"), expected, "{range} {part:?}");
        }
    }

    #[test]
    fn content_shorter_than_its_range_gives_what_is_there() {
        let tail = part(4, 9, Some(10));
        let table = [("bytes=-5", "01234"), ("bytes=6-8", "234"), ("bytes=6-", "234"), ("bytes=-1", "4")];
        for (range, expected) in table {
            assert_eq!(cut(range, &tail, "01234").map(|(text, _)| text), Some(expected), "{range}");
        }
        assert_eq!(cut("bytes=9-", &tail, "01234"), None);
        assert_eq!(cut("bytes=-6", &tail, "01234"), None);
    }

    #[test]
    fn only_ranges_of_get_and_only_of_the_same_representation() {
        let stored = Validators::of(&map(&[("etag", "\"1\"")]));
        let has = |method, lines: &[(&'static str, &str)]| {
            from_part(&map(lines), &method, &stored, &part(0, 4, Some(10)), 5).is_some()
        };
        assert!(has(Method::GET, &[("range", "bytes=0-1")]));
        assert!(!has(Method::HEAD, &[("range", "bytes=0-1")]));
        assert!(!has(Method::GET, &[]));
        assert!(has(Method::GET, &[("range", "bytes=0-1"), ("if-range", "\"1\"")]));
        assert!(!has(Method::GET, &[("range", "bytes=0-1"), ("if-range", "\"2\"")]));
    }

    #[test]
    fn what_a_206_is_a_part_of() {
        let of = |value, length| part_of(&map(&[("content-range", value)]), length);
        assert_eq!(of("bytes 4-9/10", 6), Some(part(4, 9, Some(10))));
        assert_eq!(of("bytes 4-9/10", 5), None);
        assert_eq!(of("bytes */10", 0), None);
        assert_eq!(part_of(&HeaderMap::new(), 0), None);
        assert_eq!(part_of(&map(&[("content-range", "bytes 0-0/9"), ("content-range", "bytes 1-1/9")]), 1), None);
    }

    #[test]
    fn what_completes_a_part() {
        assert_eq!(missing(&part(0, 4, Some(10))).as_deref(), Some("bytes=5-"));
        assert_eq!(missing(&part(0, 4, None)).as_deref(), Some("bytes=5-"));
        assert_eq!(missing(&part(5, 9, Some(10))).as_deref(), Some("bytes=0-4"));
        assert_eq!(missing(&part(2, 4, Some(10))), None);
        assert_eq!(missing(&part(5, 9, None)), None);
        assert_eq!(missing(&part(0, 9, Some(10))), None);
    }

    const ALL: &[u8] = b"0123456789";

    fn combined(one: ContentRange, other: ContentRange, tags: [&str; 2]) -> Option<Combined> {
        let [first, second] = tags.map(|tag| Validators::of(&map(&[("etag", tag)])));
        let body = |range: &ContentRange| {
            Bytes::from_static(ALL.get(range.first as usize..=range.last as usize).unwrap_or_default())
        };
        let (stored, new) = (body(&one), body(&other));
        combine(
            Part { range: one, validators: &first, body: &stored },
            Part { range: other, validators: &second, body: &new },
        )
    }

    #[test]
    fn parts_that_belong_together() {
        let same = ["\"1\""; 2];
        let whole = Some(Combined { body: Bytes::from_static(ALL), part: None });
        assert_eq!(combined(part(0, 4, Some(10)), part(5, 9, Some(10)), same), whole);
        assert_eq!(combined(part(5, 9, None), part(0, 7, Some(10)), same), whole);
        let left = Some(Combined { body: Bytes::from_static(b"0123456"), part: Some(part(0, 6, None)) });
        assert_eq!(combined(part(0, 4, None), part(3, 6, None), same), left);
        assert_eq!(combined(part(0, 3, Some(10)), part(5, 9, Some(10)), same), None);
        assert_eq!(combined(part(0, 4, Some(10)), part(5, 9, Some(11)), same), None);
        assert_eq!(combined(part(0, 4, Some(10)), part(5, 9, Some(10)), ["\"1\"", "\"2\""]), None);
        assert_eq!(combined(part(0, 4, Some(10)), part(5, 9, Some(10)), ["W/\"1\""; 2]), None);
        assert_eq!(combined(part(0, 4, Some(5)), part(5, 9, None), same), None);
        assert_eq!(combined(part(0, 4, None), part(5, 12, None), same), None);
    }

    proptest! {
        #[test]
        fn joined_parts_are_the_bytes_they_name(a in 0..10u64, b in 0..10u64, c in 0..10u64, d in 0..10u64) {
            let (one, other) = (part(a.min(b), a.max(b), Some(10)), part(c.min(d), c.max(d), Some(10)));
            if let Some(found) = combined(one, other, ["\"1\""; 2]) {
                let (first, last) = found.part.map_or((0, 9), |part| (part.first, part.last));
                prop_assert_eq!(&found.body[..], &ALL[first as usize..=last as usize]);
            }
        }

        #[test]
        fn any_range_of_any_part(value in any_value(), first in 0..20u64, more in 0..20u64, short in 0..3usize) {
            let request = HeaderMap::from_iter([(http::header::RANGE, value)]);
            let part = part(first, first + more, Some(first + more + 1));
            let length = (part.length() as usize).saturating_sub(short);
            if let Some(cut) = from_part(&request, &Method::GET, &Validators::default(), &part, length) {
                prop_assert!(cut.body.start < cut.body.end && cut.body.end <= length);
                prop_assert_eq!(cut.content_range.length(), cut.body.len() as u64);
            }
        }
    }
}
