//! Conditional requests answered from a stored response (RFC 9111 section 4.3.2, RFC 9110 section 13).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
        IF_UNMODIFIED_SINCE, LAST_MODIFIED, VARY,
    },
};

use super::{
    date,
    head::{Head, Line},
    validators::{Tag, Validators, single},
};

/// What a request's conditions make of a stored response that may be used for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// It is sent, in whole or in part.
    Send,
    /// The client holds it already: 304.
    NotModified,
    /// `If-Match`, `If-Unmodified-Since`, or a condition on another method than GET, HEAD and QUERY: a cache has no say
    /// in these, the origin does.
    Origin,
}

/// Evaluates the conditions of `request` in the order of RFC 9110 section 13.2.2; `If-Range` belongs to
/// [`range`](super::range).
///
/// A stored response that is no success is sent whatever the conditions are (section 13.2.1).
pub fn evaluate(request: &HeaderMap, method: &Method, stored: &Head, validators: &Validators) -> Precondition {
    let conditional = |name| request.contains_key(name);
    if conditional(IF_MATCH) || conditional(IF_UNMODIFIED_SINCE) {
        return Precondition::Origin;
    }
    if !matches!(*method, Method::GET | Method::HEAD | Method::QUERY) {
        return if conditional(IF_NONE_MATCH) { Precondition::Origin } else { Precondition::Send };
    }
    let not_modified = stored.status.is_success()
        && if conditional(IF_NONE_MATCH) { some_match(request, validators) } else { unmodified(request, validators) };
    if not_modified { Precondition::NotModified } else { Precondition::Send }
}

/// `If-None-Match`: whether the client named this response, by weak comparison.
fn some_match(request: &HeaderMap, stored: &Validators) -> bool {
    let mut tags = request.get_all(IF_NONE_MATCH).iter().flat_map(|line| Tag::list(line.as_bytes()));
    match &stored.etag {
        Some(etag) => tags.any(|tag| tag.is_any() || tag.matches_weak(etag.tag())),
        None => tags.any(Tag::is_any),
    }
}

/// `If-Modified-Since`: whether the response is no younger than that. `Date` stands in for a missing `Last-Modified`
/// (RFC 9111 section 4.3.2): what the origin sent at that time is at least as old.
fn unmodified(request: &HeaderMap, stored: &Validators) -> bool {
    let since = single(request, &IF_MODIFIED_SINCE).and_then(|value| date::parse(value.as_bytes()));
    match (since, stored.last_modified.or(stored.date)) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// Fields of a 304 made from a stored response (RFC 9110 section 15.4.5): what guides the caches downstream, and no
/// other description of content that is not sent. `Age` is left to the caller, as in any answer.
pub fn not_modified_lines(stored: &Head) -> impl Iterator<Item = Line<'_>> {
    const KEPT: [HeaderName; 7] =
        [CACHE_CONTROL, HeaderName::from_static("cdn-cache-control"), CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY];
    let tagged = stored.contains(&ETAG);
    let is = |line: &Line<'_>, name: &HeaderName| line.0 == name.as_str().as_bytes();
    stored.iter().filter(move |line| KEPT.iter().any(|name| is(line, name)) || (!tagged && is(line, &LAST_MODIFIED)))
}

/// The same as a map.
pub fn not_modified_fields(stored: &Head) -> HeaderMap {
    let field =
        |(name, value): Line<'_>| Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?));
    let mut fields = HeaderMap::with_capacity(16);
    for (name, value) in not_modified_lines(stored).filter_map(field) {
        fields.append(name, value);
    }
    fields
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::{
        super::fields::tests::{any_value, map},
        Precondition::{NotModified, Origin, Send},
        *,
    };

    const EARLY: &str = "Wed, 01 Jan 2020 00:00:00 GMT";
    const LATE: &str = "Wed, 01 Jan 2020 00:50:00 GMT";
    const LATER: &str = "Wed, 01 Jan 2020 01:00:00 GMT";

    type Lines<'a> = &'a [(&'static str, &'a str)];

    fn outcome(method: Method, status: StatusCode, stored: Lines<'_>, request: Lines<'_>) -> Precondition {
        let fields = map(stored);
        evaluate(&map(request), &method, &Head::new(status, &fields), &Validators::of(&fields))
    }

    #[test]
    fn if_modified_since() {
        let table: [(Lines<'_>, &str, Precondition); 9] = [
            (&[("last-modified", EARLY), ("date", LATE)], EARLY, NotModified),
            (&[("last-modified", EARLY), ("date", LATE)], LATE, NotModified),
            (&[("last-modified", LATE)], EARLY, Send),
            (&[("last-modified", EARLY)], "Wednesday, 01-Jan-20 00:00:00 GMT", NotModified),
            (&[("last-modified", EARLY)], "Wed Jan  1 00:00:00 2020", NotModified),
            (&[("last-modified", EARLY)], "now", Send),
            (&[("date", LATE)], LATER, NotModified),
            (&[("date", LATE)], EARLY, Send),
            (&[], LATER, Send),
        ];
        for (stored, since, expected) in table {
            let found = outcome(Method::GET, StatusCode::OK, stored, &[("if-modified-since", since)]);
            assert_eq!(found, expected, "{stored:?} {since}");
        }
    }

    #[test]
    fn if_none_match() {
        let table = [
            (r#""abcdef""#, r#""abcdef""#, NotModified),
            (r#""abcdef""#, r#"W/"abcdef""#, NotModified),
            (r#"W/"abcdef""#, r#"W/"abcdef""#, NotModified),
            (r#""abcdef""#, r#""abcdef", "1234", "5678""#, NotModified),
            (r#""abcdef""#, r#""1234", "abcdef", "5678""#, NotModified),
            (r#""abcdef""#, r#""1234","5678","abcdef""#, NotModified),
            ("\"abcdefü\"", "\"abcdefü\"", NotModified),
            (r#""abcdef""#, "*", NotModified),
            (r#""abcdef""#, r#""1234""#, Send),
            (r#""abcdef""#, "abcdef", Send),
            ("abcdef", "abcdef", NotModified),
            (r#"w/"abcdef""#, r#"w/"abcdef""#, NotModified),
            (r#"W\"abcdef""#, r#"W\"abcdef""#, NotModified),
        ];
        for (etag, condition, expected) in table {
            let found = outcome(Method::GET, StatusCode::OK, &[("etag", etag)], &[("if-none-match", condition)]);
            assert_eq!(found, expected, "{etag} {condition}");
        }
    }

    #[test]
    fn if_none_match_goes_before_if_modified_since() {
        let stored = [("etag", "\"1\""), ("last-modified", LATE)];
        let with = |etag, since| {
            outcome(Method::GET, StatusCode::OK, &stored, &[("if-none-match", etag), ("if-modified-since", since)])
        };
        assert_eq!(with("\"1\"", EARLY), NotModified);
        assert_eq!(with("\"2\"", LATER), Send);
    }

    #[test]
    fn conditions_for_the_origin_alone() {
        let get = |request| outcome(Method::GET, StatusCode::OK, &[("etag", "\"1\"")], request);
        assert_eq!(get(&[("if-match", "\"1\"")]), Origin);
        assert_eq!(get(&[("if-unmodified-since", EARLY), ("if-none-match", "\"1\"")]), Origin);
        let post = |request| outcome(Method::POST, StatusCode::OK, &[("last-modified", EARLY)], request);
        assert_eq!(post(&[("if-none-match", "*")]), Origin);
        assert_eq!(post(&[("if-modified-since", LATE)]), Send);
    }

    #[test]
    fn only_a_success_is_not_modified() {
        let found = outcome(Method::HEAD, StatusCode::NOT_FOUND, &[("etag", "\"1\"")], &[("if-none-match", "*")]);
        assert_eq!(found, Send);
    }

    #[test]
    fn fields_of_a_304() {
        let stored = map(&[
            ("cache-control", "max-age=5"),
            ("cache-control", "public"),
            ("date", EARLY),
            ("vary", "a"),
            ("content-type", "text/plain"),
            ("content-length", "5"),
            ("set-cookie", "a=b"),
            ("last-modified", EARLY),
        ]);
        let fields = not_modified_fields(&Head::new(StatusCode::OK, &stored));
        let expected = [
            ("cache-control", "max-age=5"),
            ("cache-control", "public"),
            ("date", EARLY),
            ("vary", "a"),
            ("last-modified", EARLY),
        ];
        assert_eq!(fields, map(&expected));
        let tagged = map(&[("etag", "\"1\""), ("last-modified", EARLY)]);
        assert_eq!(not_modified_fields(&Head::new(StatusCode::OK, &tagged)), map(&[("etag", "\"1\"")]));
    }

    proptest! {
        #[test]
        fn any_condition_is_evaluated(name in 0..4usize, value in any_value(), etag in any_value()) {
            let names = [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE];
            let request = HeaderMap::from_iter([(names[name].clone(), value)]);
            let fields = HeaderMap::from_iter([(ETAG, etag)]);
            let stored = Head::new(StatusCode::OK, &fields);
            let found = evaluate(&request, &Method::GET, &stored, &Validators::of(&fields));
            prop_assert_eq!(found == Origin, name >= 2);
        }
    }
}
