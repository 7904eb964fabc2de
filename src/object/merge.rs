//! Updating a stored response with fields of a newer one (RFC 9111 sections 3.2, 3.4, 4.3.4 and 4.3.5).

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG},
};

use super::{
    content_range::ContentRange,
    fields::strip_hop_by_hop,
    head::Head,
    parts::Combined,
    validators::{Validators, single},
};

/// Fields that tell how to read the stored content, which stays what it was. Section 3.2 exempts the first by name; the
/// others would make the content unreadable, or describe the content of a message that has none.
const OF_THE_CONTENT: [HeaderName; 5] = [
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
];

/// What becomes of a stored response to GET when HEAD was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshening {
    /// It is as before: the answer says nothing about it.
    Untouched,
    /// These are its fields from now on.
    Updated(HeaderMap),
    /// The answer is of another representation: it is to be considered stale.
    Stale,
}

/// The stored head after a 304 (section 3.2): every field of the 304 replaces all lines of that name, the others stay.
///
/// The stored `Age` goes in any case, for the age of what was validated just now is that of the 304. `Date` is the
/// caller's to add if the 304 has none. An entity tag once stored stays: it is the content's, which did not change.
pub fn not_modified(stored: &Head, of_304: &HeaderMap) -> HeaderMap {
    updated(stored, of_304)
}

/// The head of parts that were combined (section 3.4): that of the stored part, updated with the fields of the new one.
pub fn combined(stored: &Head, new: &HeaderMap, combined: &Combined) -> (StatusCode, HeaderMap) {
    let mut fields = updated(stored, new);
    fields.insert(CONTENT_LENGTH, HeaderValue::from(combined.body.len()));
    match &combined.part {
        Some(part) => {
            fields.insert(CONTENT_RANGE, ContentRange::value(part));
            (StatusCode::PARTIAL_CONTENT, fields)
        }
        None => {
            fields.remove(CONTENT_RANGE);
            (StatusCode::OK, fields)
        }
    }
}

/// What a response to HEAD does to a stored 200 of `complete` bytes (section 4.3.5). Only a 200 does anything.
pub fn head_response(
    stored: &Head,
    validators: &Validators,
    complete: u64,
    status: StatusCode,
    of_head: &HeaderMap,
) -> Freshening {
    if status != StatusCode::OK {
        return Freshening::Untouched;
    }
    let new = Validators::of(of_head);
    let same = stored.status == StatusCode::OK
        && (new.etag.is_none() || new.etag == validators.etag)
        && (new.last_modified.is_none() || new.last_modified == validators.last_modified)
        && same_length(of_head, complete);
    if same { Freshening::Updated(not_modified(stored, of_head)) } else { Freshening::Stale }
}

/// Whether `Content-Length` does not contradict `complete`.
fn same_length(fields: &HeaderMap, complete: u64) -> bool {
    let digits = |value: &HeaderValue| value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    !fields.contains_key(CONTENT_LENGTH)
        || single(fields, &CONTENT_LENGTH).and_then(digits).is_some_and(|length| length == complete)
}

fn updated(stored: &Head, new: &HeaderMap) -> HeaderMap {
    let mut update = new.clone();
    strip_hop_by_hop(&mut update);
    for name in &OF_THE_CONTENT {
        update.remove(name);
    }
    if stored.contains(&ETAG) {
        update.remove(ETAG);
    }
    let stored = stored.to_map();
    let kept = stored.iter().filter(|(name, _)| **name != AGE && !update.contains_key(*name));
    let mut fields = HeaderMap::with_capacity(update.keys_len() + 8);
    for (name, value) in kept.chain(&update) {
        // Two heads that each just fit may not fit together; the lines beyond the limit of a map go.
        if fields.try_append(name, value.clone()).is_err() {
            break;
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::fields::tests::{any_value, map},
        *,
    };

    type Lines<'a> = &'a [(&'static str, &'a str)];

    fn head(lines: Lines<'_>) -> Head {
        Head::new(StatusCode::OK, &map(lines))
    }

    fn merged(stored: Lines<'_>, of_304: Lines<'_>) -> HeaderMap {
        not_modified(&head(stored), &map(of_304))
    }

    #[test]
    fn fields_of_a_304_replace_stored_ones() {
        for name in [
            "test-header",
            "x-test-header",
            "content-foo",
            "x-content-foo",
            "cache-control",
            "content-location",
            "content-security-policy",
            "content-type",
            "clear-site-data",
            "expires",
            "public-key-pins",
            "set-cookie",
            "set-cookie2",
            "x-frame-options",
            "x-xss-protection",
            "last-modified",
            "vary",
            "date",
        ] {
            assert_eq!(
                merged(&[(name, "a"), (name, "b")], &[(name, "c"), (name, "d")]),
                map(&[(name, "c"), (name, "d")])
            );
            assert_eq!(merged(&[(name, "a"), (name, "b")], &[("other", "c")]).get_all(name).iter().count(), 2);
        }
    }

    #[test]
    fn fields_of_the_content_stay() {
        for name in ["content-length", "content-encoding", "content-md5", "content-digest", "content-range", "etag"] {
            assert_eq!(merged(&[(name, "a")], &[(name, "b")]), map(&[(name, "a")]));
        }
        assert_eq!(merged(&[], &[("content-length", "0"), ("content-encoding", "gzip")]), map(&[]));
        assert_eq!(merged(&[], &[("etag", "\"1\"")]), map(&[("etag", "\"1\"")]));
    }

    #[test]
    fn hop_by_hop_fields_and_an_old_age_do_not_get_in() {
        let of_304 = [
            ("connection", "a, keep-alive"),
            ("a", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("transfer-encoding", "chunked"),
        ];
        assert_eq!(merged(&[("a", "1"), ("age", "9")], &of_304), map(&[("a", "1")]));
        assert_eq!(merged(&[("age", "9")], &[("age", "1")]), map(&[("age", "1")]));
    }

    #[test]
    fn head_freshens_what_it_describes() {
        let stored = [("etag", "\"1\""), ("template-a", "1"), ("cache-control", "max-age=2"), ("content-length", "5")];
        let after = |status, lines: Lines<'_>| {
            head_response(&head(&stored), &Validators::of(&map(&stored)), 5, status, &map(lines))
        };
        let new = [("template-a", "2"), ("cache-control", "max-age=1000"), ("content-length", "5")];
        let expected =
            [("etag", "\"1\""), ("content-length", "5"), ("template-a", "2"), ("cache-control", "max-age=1000")];
        assert_eq!(after(StatusCode::OK, &new), Freshening::Updated(map(&expected)));
        assert_eq!(after(StatusCode::GONE, &new), Freshening::Untouched);
        for lines in [
            [("etag", "\"2\"")],
            [("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT")],
            [("content-length", "6")],
            [("content-length", "x")],
        ] {
            assert_eq!(after(StatusCode::OK, &lines), Freshening::Stale, "{lines:?}");
        }
    }

    #[test]
    fn the_head_of_combined_parts() {
        let stored = head(&[("content-range", "bytes 0-4/10"), ("content-length", "5"), ("a", "1"), ("b", "1")]);
        let new = map(&[("content-range", "bytes 5-9/10"), ("content-length", "5"), ("a", "2")]);
        let whole = Combined { body: Bytes::from_static(b"0123456789"), part: None };
        let (status, fields) = combined(&stored, &new, &whole);
        assert_eq!(status, StatusCode::OK);
        assert_eq!(fields, map(&[("content-length", "10"), ("b", "1"), ("a", "2")]));
        let part = ContentRange { first: 0, last: 7, complete: Some(10) };
        let (status, fields) =
            combined(&stored, &new, &Combined { part: Some(part), body: Bytes::from_static(b"01234567") });
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(fields.get(CONTENT_RANGE), Some(&part.value()));
    }

    proptest! {
        #[test]
        fn every_line_survives_or_is_replaced(
            stored in vec((0..6usize, any_value()), 0..12),
            of_304 in vec((0..6usize, any_value()), 0..12),
        ) {
            let names = ["a", "set-cookie", "link", "content-type", "etag", "content-length"];
            let build = |lines: Vec<(usize, HeaderValue)>| {
                let mut fields = HeaderMap::new();
                for (name, value) in lines {
                    fields.append(HeaderName::from_static(names[name]), value);
                }
                fields
            };
            let (stored, of_304) = (build(stored), build(of_304));
            let found = not_modified(&Head::new(StatusCode::OK, &stored), &of_304);
            let lines = |fields: &HeaderMap, name| fields.get_all(name).iter().cloned().collect::<Vec<_>>();
            for name in &names[..4] {
                let expected = if of_304.contains_key(*name) { &of_304 } else { &stored };
                prop_assert_eq!(lines(&found, *name), lines(expected, *name));
            }
            prop_assert_eq!(lines(&found, "content-length"), lines(&stored, "content-length"));
            head_response(&Head::new(StatusCode::OK, &stored), &Validators::of(&stored), 0, StatusCode::OK, &of_304);
        }
    }
}
