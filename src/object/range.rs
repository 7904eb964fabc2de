//! Byte ranges (RFC 9110 section 14): what a request wants of a stored response.
//!
//! A cache may ignore `Range`, and does so wherever it is malformed, of another unit, or asks for more pieces than
//! anyone needs.

use std::ops::RangeInclusive;

use http::{
    HeaderMap, Method,
    header::{IF_RANGE, RANGE},
};

pub use super::{
    content_range::ContentRange,
    multipart::{Multipart, Segment, multipart, slice},
    parts::{Combined, Cut, Part, combine, from_part, missing, part_of},
};
use super::{
    content_range::number,
    date,
    fields::{members, trim},
    validators::{Tag, Validators, single},
};

/// Ranges in one request; with more, all of the representation is sent.
pub const RANGES_MAX: usize = 16;

/// What a request wants of a complete representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: 200.
    All,
    /// One range: 206.
    One(RangeInclusive<u64>),
    /// Several, apart from each other, in the order they were asked for: 206 with `multipart/byteranges`.
    Many(Vec<RangeInclusive<u64>>),
    /// None of what it has: 416.
    Unsatisfiable,
}

/// One range as a request names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spec {
    /// From the first to the last, inclusive.
    Between(u64, u64),
    /// From there to the end.
    From(u64),
    /// That many at the end.
    Suffix(u64),
}

/// What `request` wants of a stored 200 whose content has `complete` bytes. Only GET has ranges; `If-Range` is obeyed.
pub fn wanted(request: &HeaderMap, method: &Method, stored: &Validators, complete: u64) -> Wanted {
    let Some(specs) = requested(request, method, stored) else { return Wanted::All };
    // No range of nothing is satisfiable, but to say so helps nobody.
    if complete == 0 {
        return Wanted::All;
    }
    let mut ranges = Vec::with_capacity(specs.len());
    for range in specs.iter().filter_map(|spec| spec.within(complete)) {
        coalesce(&mut ranges, range);
    }
    match ranges.len() {
        0 => Wanted::Unsatisfiable,
        1 => Wanted::One(ranges.remove(0)),
        _ => Wanted::Many(ranges),
    }
}

/// The ranges `request` asks for, unless it is to be answered as if it had asked for none.
pub(super) fn requested(request: &HeaderMap, method: &Method, stored: &Validators) -> Option<Vec<Spec>> {
    if *method != Method::GET || !request.contains_key(RANGE) {
        return None;
    }
    let specs = parse(single(request, &RANGE)?.as_bytes())?;
    unchanged(request, stored).then_some(specs)
}

/// `If-Range` (RFC 9110 section 13.1.5): whether what the client holds a part of is this very representation. Only a
/// strong validator can tell, and a date only if it is the same one.
fn unchanged(request: &HeaderMap, stored: &Validators) -> bool {
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    let Some(condition) = single(request, &IF_RANGE) else { return false };
    let condition = trim(condition.as_bytes());
    match &stored.etag {
        Some(etag) if etag.tag().matches_strong(Tag::whole(condition)) => true,
        _ => stored.strong_last_modified().is_some_and(|modified| date::parse(condition) == Some(modified)),
    }
}

/// `bytes=` and its list; `None` if anything in it is malformed, or there is too much of it.
fn parse(value: &[u8]) -> Option<Vec<Spec>> {
    let (unit, list) = trim(value).split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut specs = Vec::new();
    for member in members(list) {
        if specs.len() == RANGES_MAX {
            return None;
        }
        specs.push(Spec::parse(member)?);
    }
    (!specs.is_empty()).then_some(specs)
}

/// Adds a range to those before it; what overlaps or touches becomes one, at the place of the first of them.
fn coalesce(ranges: &mut Vec<RangeInclusive<u64>>, mut range: RangeInclusive<u64>) {
    let mut place = ranges.len();
    // From behind, so that taking one out does not move those yet to be compared; the union may reach ones already
    // passed, hence again until none is left.
    while let Some(index) = ranges.iter().rposition(|other| touches(other, &range)) {
        let other = ranges.remove(index);
        range = *other.start().min(range.start())..=*other.end().max(range.end());
        place = index;
    }
    ranges.insert(place, range);
}

fn touches(one: &RangeInclusive<u64>, other: &RangeInclusive<u64>) -> bool {
    *one.start() <= other.end().saturating_add(1) && *other.start() <= one.end().saturating_add(1)
}

impl Spec {
    fn parse(member: &[u8]) -> Option<Self> {
        let dash = member.iter().position(|&byte| byte == b'-')?;
        match (&member[..dash], &member[dash + 1..]) {
            (b"", suffix) => position(suffix).map(Self::Suffix),
            (first, b"") => position(first).map(Self::From),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// The bytes it names of `complete`; `None` if there are none.
    fn within(self, complete: u64) -> Option<RangeInclusive<u64>> {
        let end = complete.checked_sub(1)?;
        match self {
            Self::Between(first, last) => (first <= end).then(|| first..=last.min(end)),
            Self::From(first) => (first <= end).then_some(first..=end),
            Self::Suffix(0) => None,
            Self::Suffix(length) => Some(complete.saturating_sub(length)..=end),
        }
    }
}

/// A number of any size; beyond 64 bits it is past every end.
fn position(digits: &[u8]) -> Option<u64> {
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| number(digits).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use http::header::ETAG;
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::fields::tests::{any_value, map},
        *,
    };

    const COMPLETE: u64 = 11;

    fn want(range: &str) -> Wanted {
        wanted(&map(&[("range", range)]), &Method::GET, &Validators::default(), COMPLETE)
    }

    #[test]
    fn single_ranges() {
        let table = [
            ("bytes=0-1", Wanted::One(0..=1)),
            ("bytes=1-", Wanted::One(1..=10)),
            ("bytes=-1", Wanted::One(10..=10)),
            ("bytes=-99", Wanted::One(0..=10)),
            ("bytes=5-99999999999999999999999", Wanted::One(5..=10)),
            ("Bytes= 0-1 ", Wanted::One(0..=1)),
            ("bytes=0-", Wanted::One(0..=10)),
            ("bytes=11-", Wanted::Unsatisfiable),
            ("bytes=11-12", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
        ];
        for (range, expected) in table {
            assert_eq!(want(range), expected, "{range}");
        }
    }

    #[test]
    fn several_ranges() {
        let table = [
            ("bytes=0-0, 2-2", Wanted::Many(vec![0..=0, 2..=2])),
            ("bytes=5-6,,0-1", Wanted::Many(vec![5..=6, 0..=1])),
            ("bytes=0-1,99-", Wanted::One(0..=1)),
            ("bytes=0-1,2-3", Wanted::One(0..=3)),
            ("bytes=0-5,3-4,-1", Wanted::Many(vec![0..=5, 10..=10])),
            ("bytes=8-9,0-0,4-4,0-5", Wanted::Many(vec![8..=9, 0..=5])),
            ("bytes=0-0,4-4,8-8,1-7", Wanted::One(0..=8)),
            ("bytes=12-,13-", Wanted::Unsatisfiable),
        ];
        for (range, expected) in table {
            assert_eq!(want(range), expected, "{range}");
        }
        let list =
            |count: u64| format!("bytes={}", (0..count).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(","));
        assert_eq!(want(&list(RANGES_MAX as u64)), Wanted::One(0..=10));
        assert_eq!(want(&list(RANGES_MAX as u64 + 1)), Wanted::All);
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        for range in [
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=2-1",
            "bytes=a-b",
            "bytes=0-1,x",
            "bytes 0-1",
            "items=0-1",
            "bytes=0-1-2",
            "bytes=+1-2",
            "bytes=--1",
            "aaaaé",
        ] {
            assert_eq!(want(range), Wanted::All, "{range}");
        }
        let twice = map(&[("range", "bytes=0-1"), ("range", "bytes=2-3")]);
        assert_eq!(wanted(&twice, &Method::GET, &Validators::default(), COMPLETE), Wanted::All);
    }

    #[test]
    fn only_get_has_ranges_and_nothing_has_none() {
        let request = map(&[("range", "bytes=0-1")]);
        assert_eq!(wanted(&request, &Method::HEAD, &Validators::default(), COMPLETE), Wanted::All);
        assert_eq!(wanted(&request, &Method::GET, &Validators::default(), 0), Wanted::All);
        assert_eq!(wanted(&HeaderMap::new(), &Method::GET, &Validators::default(), COMPLETE), Wanted::All);
    }

    #[test]
    fn if_range() {
        const EARLY: &str = "Wed, 01 Jan 2020 00:00:00 GMT";
        const LATE: &str = "Wed, 01 Jan 2020 00:00:01 GMT";
        let tag: &[(&str, &str)] = &[("etag", "\"1\"")];
        let weak: &[(&str, &str)] = &[("etag", "W/\"1\"")];
        let dated: &[(&str, &str)] = &[("last-modified", EARLY), ("date", LATE)];
        let table = [
            (tag, "\"1\"", true),
            (tag, "\"2\"", false),
            (tag, "W/\"1\"", false),
            (weak, "W/\"1\"", false),
            (dated, EARLY, true),
            (dated, "Wednesday, 01-Jan-20 00:00:00 GMT", true),
            (dated, LATE, false),
            (&[("last-modified", EARLY), ("date", EARLY)], EARLY, false),
            (&[("last-modified", EARLY)], EARLY, false),
            (&[], "\"1\"", false),
            (tag, "", false),
        ];
        for (stored, condition, holds) in table {
            let fields: Vec<_> = stored.iter().map(|(name, value)| (*name, *value)).collect();
            let request = map(&[("range", "bytes=0-1"), ("if-range", condition)]);
            let expected = if holds { Wanted::One(0..=1) } else { Wanted::All };
            assert_eq!(
                wanted(&request, &Method::GET, &Validators::of(&map(&fields)), COMPLETE),
                expected,
                "{stored:?} {condition}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_range_stays_within(value in any_value(), if_range in any_value(), complete in 0..100u64) {
            let request = HeaderMap::from_iter([(RANGE, value), (IF_RANGE, if_range.clone())]);
            let stored = Validators::of(&HeaderMap::from_iter([(ETAG, if_range)]));
            check(&wanted(&request, &Method::GET, &stored, complete), complete)?;
        }

        #[test]
        fn ranges_stay_apart_and_cover_what_was_asked(specs in vec((0..40u64, 0..10u64), 1..RANGES_MAX)) {
            let list: Vec<_> = specs.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let found = want(&format!("bytes={}", list.join(",")));
            check(&found, COMPLETE)?;
            let ranges = match found {
                Wanted::One(range) => vec![range],
                Wanted::Many(ranges) => ranges,
                Wanted::Unsatisfiable => vec![],
                Wanted::All => return Err(TestCaseError::fail("a valid list")),
            };
            for byte in 0..COMPLETE {
                let asked = specs.iter().any(|(first, more)| (*first..=first + more).contains(&byte));
                prop_assert_eq!(ranges.iter().filter(|range| range.contains(&byte)).count(), usize::from(asked));
            }
        }
    }

    fn check(wanted: &Wanted, complete: u64) -> Result<(), TestCaseError> {
        let ranges = match wanted {
            Wanted::One(range) => std::slice::from_ref(range),
            Wanted::Many(ranges) => ranges,
            Wanted::All | Wanted::Unsatisfiable => &[],
        };
        prop_assert!(ranges.iter().all(|range| range.start() <= range.end() && *range.end() < complete));
        prop_assert!(ranges.iter().map(|range| range.end() - range.start() + 1).sum::<u64>() <= complete);
        Ok(())
    }
}
