//! `Content-Range` (RFC 9110 section 14.4).

use std::ops::RangeInclusive;

use http::{HeaderMap, HeaderValue, header::CONTENT_RANGE};

use super::{fields::trim, validators::single};

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

impl ContentRange {
    /// Reads a field value; `None` if it is malformed, of another unit, or `bytes */n`.
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        let value = trim(value.as_bytes());
        let (unit, rest) = value.split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes ") {
            return None;
        }
        let mut halves = rest.splitn(2, |&byte| byte == b'/');
        let (range, complete) = (halves.next()?, halves.next()?);
        let mut ends = range.splitn(2, |&byte| byte == b'-');
        let (first, last) = (number(trim(ends.next()?))?, number(ends.next()?)?);
        let complete = if complete == b"*" { None } else { Some(number(complete)?) };
        let valid = first <= last && last < complete.unwrap_or(u64::MAX);
        valid.then_some(Self { first, last, complete })
    }

    /// That of a response; `None` also if there are several.
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        single(fields, &CONTENT_RANGE).and_then(Self::parse)
    }

    /// `range` of a representation of `complete` bytes.
    pub fn new(range: &RangeInclusive<u64>, complete: u64) -> Self {
        Self { first: *range.start(), last: *range.end(), complete: Some(complete) }
    }

    /// Bytes in it.
    pub fn length(&self) -> u64 {
        (self.last - self.first.min(self.last)).saturating_add(1)
    }

    /// Whether it is known to end where the representation ends.
    pub fn reaches_end(&self) -> bool {
        self.complete.is_some_and(|complete| complete == self.last.saturating_add(1))
    }

    /// As a field value.
    pub fn value(&self) -> HeaderValue {
        let (first, last) = (self.first, self.last);
        match self.complete {
            Some(complete) => value(&format!("bytes {first}-{last}/{complete}")),
            None => value(&format!("bytes {first}-{last}/*")),
        }
    }

    /// The field value of a 416 (RFC 9110 section 15.5.17).
    pub fn unsatisfied(complete: u64) -> HeaderValue {
        value(&format!("bytes */{complete}"))
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits and punctuation are valid in a field")
}

/// `1*DIGIT`, if it fits.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::fields::tests::any_value, *};

    fn parse(text: &'static str) -> Option<ContentRange> {
        ContentRange::parse(&HeaderValue::from_bytes(text.as_bytes()).expect("a valid value"))
    }

    #[test]
    fn well_formed_and_not() {
        let range = |first, last, complete| Some(ContentRange { first, last, complete });
        assert_eq!(parse("bytes 4-9/10"), range(4, 9, Some(10)));
        assert_eq!(parse("BYTES 0-0/*"), range(0, 0, None));
        assert_eq!(parse("bytes 0-18446744073709551614/18446744073709551615"), range(0, u64::MAX - 1, Some(u64::MAX)));
        for text in [
            "",
            "bytes",
            "bytes ",
            "bytes */10",
            "bytes 5-4/10",
            "bytes 4-10/10",
            "bytes 4-9",
            "bytes 4-9/",
            "bytes -9/10",
            "bytes 4-/10",
            "bytes 4-9/10/11",
            "bytes=4-9/10",
            "items 4-9/10",
            "bytes +4-9/10",
            "bytes 4-9/1x",
            "bytes 0-18446744073709551615/*",
            "bytes 0-99999999999999999999/*",
            "aaé",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn lengths_and_ends() {
        let part = ContentRange { first: 4, last: 9, complete: Some(10) };
        assert_eq!((part.length(), part.reaches_end()), (6, true));
        assert!(!ContentRange { complete: None, ..part }.reaches_end());
        assert_eq!(ContentRange::unsatisfied(10), "bytes */10");
    }

    proptest! {
        #[test]
        fn there_and_back(first in any::<u64>(), more in any::<u64>(), known: bool) {
            let last = first.saturating_add(more).min(u64::MAX - 1);
            let range = ContentRange { first: first.min(last), last, complete: known.then(|| last + 1) };
            prop_assert_eq!(ContentRange::parse(&range.value()), Some(range));
        }

        #[test]
        fn any_value_is_read(value in any_value()) {
            if let Some(range) = ContentRange::parse(&value) {
                prop_assert!(range.first <= range.last && range.length() > 0);
            }
        }
    }
}
