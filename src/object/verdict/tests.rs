//! The cases of the public conformance suite, group by group, and what it does not ask.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{super::directives::effective, *};

/// 2026-11-20T00:00:00.250Z
const NOW: Timestamp = Timestamp::from_millis(1_795_132_800_250);
const DAY: u64 = 86_400;

fn rules() -> Rules {
    Rules {
        mode: RuleMode::Standard,
        default_ttl: Duration::ZERO,
        ttl_max: secs(u64::MAX),
        heuristic_fraction: 0.1,
        heuristic_max: secs(7 * DAY),
        status_ttl: BTreeMap::new(),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        keep: Duration::ZERO,
    }
}

fn facts() -> Facts<'static> {
    Facts {
        method: &Method::GET,
        request_no_store: false,
        authorization: false,
        partitioned: false,
        range_requested: false,
        request_time: NOW,
        response_time: NOW,
        jitter: 0.0,
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A date so many seconds from now, in whole seconds like any.
fn date(offset: i64) -> String {
    let secs = NOW.as_secs().saturating_add_signed(offset);
    date::format(Timestamp::from_secs(secs)).to_str().unwrap().to_owned()
}

/// Lines as `name: value`.
fn headers(lines: &[&str]) -> HeaderMap {
    let line = |line: &&str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.iter().map(line) {
        headers.append(name, value);
    }
    headers
}

fn ask(facts: &Facts<'_>, status: StatusCode, headers: &HeaderMap, rules: &Rules) -> Verdict {
    verdict(facts, status, headers, &effective(headers), rules)
}

fn judge(facts: &Facts<'_>, status: u16, lines: &[&str], rules: &Rules) -> Verdict {
    ask(facts, StatusCode::from_u16(status).unwrap(), &headers(lines), rules)
}

/// Lifetime left of a 200, in milliseconds.
fn left(lines: &[&str]) -> Result<u128, Reason> {
    left_of(200, lines)
}

fn left_of(status: u16, lines: &[&str]) -> Result<u128, Reason> {
    stored(judge(&facts(), status, lines, &rules())).map(|stored| stored.ttl(NOW).as_millis())
}

fn stored(verdict: Verdict) -> Result<Freshness, Reason> {
    match verdict {
        Verdict::Store(freshness) => Ok(freshness),
        Verdict::Refuse(reason) => Err(reason),
    }
}

#[test]
fn cc_freshness() {
    let (past, future, now) = (format!("expires: {}", date(-7200)), format!("expires: {}", date(3600)), date(0));
    let now = format!("date: {now}");
    for (lines, expected) in [
        (&[][..], Err(Reason::NoFreshness)),
        (&["cache-control: foo"], Err(Reason::NoFreshness)),
        (&["cache-control: max-age=3600"], Ok(3_600_000)),
        (&["cache-control: MaX-aGe=3600"], Ok(3_600_000)),
        (&["cache-control: foobar, max-age=3600"], Ok(3_600_000)),
        (&["cache-control: max-age=0"], Err(Reason::Expired)),
        (&["cache-control: max-age=-3600"], Err(Reason::Expired)),
        (&["cache-control: max-age=2147483647"], Ok(2_147_483_647_000)),
        (&["cache-control: max-age=2147483648"], Ok(2_147_483_648_000)),
        (&["cache-control: max-age=99999999999"], Ok(2_147_483_648_000)),
        (&["cache-control: max-age=3600", "age: 7200"], Err(Reason::Expired)),
        (&["cache-control: max-age=3600", "age: 3600"], Err(Reason::Expired)),
        (&["cache-control: max-age=3600", "age: 3599"], Ok(1_000)),
        (&["cache-control: max-age=2147483648", "age: 2147483648"], Err(Reason::Expired)),
        (&["cache-control: max-age=3600", &past, &now], Ok(3_600_000)),
        (&["cache-control: max-age=3600", "expires: 0", &now], Ok(3_600_000)),
        (&["cache-control: max-age=0", &future, &now], Err(Reason::Expired)),
        (&["cache-control: s-maxage=3600"], Ok(3_600_000)),
        (&["cache-control: s-maxage=3600", &past], Ok(3_600_000)),
        (&["cache-control: max-age=3600, s-maxage=1"], Ok(1_000)),
        (&["cache-control: s-maxage=1, max-age=3600"], Ok(1_000)),
        (&["cache-control: max-age=3600", "cache-control: s-maxage=1"], Ok(1_000)),
        (&["cache-control: max-age=1, s-maxage=3600"], Ok(3_600_000)),
        (&["cache-control: s-maxage=3600", "cache-control: max-age=1"], Ok(3_600_000)),
        (&["cache-control: max-age=x, s-maxage=3600"], Ok(3_600_000)),
        (&["cache-control: s-maxage=x, max-age=3600"], Err(Reason::Expired)),
        (&["cache-control: public"], Err(Reason::NoFreshness)),
    ] {
        assert_eq!(left(lines), expected, "{lines:?}");
    }
}

#[test]
fn the_date_counts_as_age() {
    let (old, recent) = (format!("date: {}", date(-7200)), format!("date: {}", date(-100)));
    assert_eq!(left(&["cache-control: max-age=3600", &old]), Err(Reason::Expired));
    assert_eq!(left(&["cache-control: max-age=3600", &recent]), Ok(3_500_750), "100.25 s, less the second of Date");
    let born = stored(judge(&facts(), 200, &["cache-control: max-age=60", "age: 30"], &rules())).unwrap();
    assert_eq!(born.age(NOW.plus(Duration::from_millis(2_999))).as_millis(), 32_999);
    assert_eq!(born.lifetime(), secs(60));
}

#[test]
fn cc_parse() {
    for (value, expected) in [
        ("extension=\"max-age=3600\", max-age=1", Ok(1_000)),
        ("max-age=1, extension=\"max-age=3600\"", Ok(1_000)),
        ("extension=\"no-store, private\", max-age=1", Ok(1_000)),
        ("max-age=003600", Ok(3_600_000)),
        ("max-age=\"3600\"", Ok(3_600_000)),
        ("max-age='3600'", Err(Reason::Expired)),
        ("max-age=1800, max-age=1", Err(Reason::Expired)),
        ("max-age=3600.0", Err(Reason::Expired)),
        ("max-age=a3600", Err(Reason::Expired)),
        ("max-age=3600a", Err(Reason::Expired)),
        ("max-age =3600", Err(Reason::Malformed)),
        ("max-age= 3600", Err(Reason::Malformed)),
        ("max-age=3600; private", Err(Reason::Malformed)),
    ] {
        assert_eq!(left(&[&format!("cache-control: {value}")]), expected, "{value}");
    }
}

#[test]
fn age_parse() {
    for (age, expected) in [
        ("abc", Ok(3_600_000)),
        ("-7200", Ok(3_600_000)),
        ("7200.0", Ok(3_600_000)),
        ("0, 7200", Ok(3_600_000)),
        ("7200, 0", Err(Reason::Expired)),
        ("2147483647", Err(Reason::Expired)),
        ("2147483649", Err(Reason::Expired)),
        ("18446744073709551615", Err(Reason::Expired)),
    ] {
        assert_eq!(left(&["cache-control: max-age=3600", &format!("age: {age}")]), expected, "{age}");
    }
}

#[test]
fn expires() {
    for (expires, sent, age, expected) in [
        (30 * 86_400, Some(0), None, Ok(2_592_000_000)),
        (-30 * 86_400, Some(0), None, Err(Reason::Expired)),
        (0, Some(0), None, Err(Reason::Expired)),
        (300, Some(400), None, Err(Reason::Expired)),
        (10, None, None, Ok(9_750)),
        (10, Some(-10), Some("25"), Err(Reason::Expired)),
        (20, Some(10), Some("15"), Err(Reason::Expired)),
        (20, Some(10), Some("5"), Ok(5_000)),
        (90, Some(80), None, Ok(10_000)),
        (-80, Some(-90), None, Err(Reason::Expired)),
        (20, Some(-5), None, Ok(20_750)),
    ] {
        let expires = format!("expires: {}", date(expires));
        let sent = sent.map_or("date: foo".to_owned(), |sent| format!("date: {}", date(sent)));
        let age = format!("age: {}", age.unwrap_or("none"));
        assert_eq!(left(&[&expires, &sent, &age]), expected, "{expires} {sent} {age}");
    }
}

#[test]
fn expires_parse() {
    let sent = format!("date: {}", date(0));
    let fresh = |value: &str| left(&[&format!("expires: {value}"), &sent]).is_ok_and(|left| left > 0);
    for value in [
        "Tue, 19 Jan 2038 14:14:08 GMT",
        "Sun, 21 Nov 2286 04:46:39 GMT",
        "Thursday, 18-Aug-50 02:01:18 GMT",
        "Thu Aug  8 02:01:18 2050",
        "THU, 18 Aug 2050 02:01:18 GMT",
        "Thu, 18 AUG 2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 02:01:18 gMT",
    ] {
        assert!(fresh(value), "{value}");
    }
    for value in [
        "0",
        "Thu, 18 Aug 2050 02:01:18 UTC",
        "Thu, 18 Aug 2050 02:01:18 AEST",
        "Thu, 18 Aug 50 02:01:18 GMT",
        "Thu 18 Aug 2050 02:01:18 GMT",
        "Thu, 18  Aug  2050 02:01:18 GMT",
        "Thu, 18-Aug-2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 02.01.18 GMT",
        "Thu, 18 Aug 2050 2:01:18 GMT",
    ] {
        assert!(!fresh(value), "{value}");
        // An invalid date is explicit freshness all the same: no heuristic and no configured lifetime instead.
        let lines = [&format!("expires: {value}"), "last-modified: Thu, 18 Aug 2016 02:01:18 GMT"];
        assert_eq!(left(&lines), Ok(0), "{value}");
    }
    let twice = ["expires: Thu, 18 Aug 2050 02:01:18 GMT", "expires: Thu, 18 Aug 2050 02:01:18 GMT"];
    assert_eq!(left(&twice), Err(Reason::Expired));
}

#[test]
fn cc_response() {
    for (lines, expected) in [
        (&["cache-control: private, max-age=3600"][..], Err(Reason::Private)),
        (&["cache-control: No-StOrE"], Err(Reason::NoStore)),
        (&["cache-control: max-age=10000, no-store"], Err(Reason::NoStore)),
        (&["cache-control: max-age=10000, no-cache"], Err(Reason::NoCache)),
        (&["cache-control: no-cache", "etag: \"abcd\""], Ok((0, true, false))),
        (&["cache-control: max-age=10000, No-CaChE", "etag: \"abcd\""], Ok((10_000, true, false))),
        (&["cache-control: no-cache=\"a\"", "cache-control: max-age=3600"], Ok((3_600, false, false))),
        (&["cache-control: private=\"a\", max-age=3600"], Ok((3_600, false, false))),
        (&["cache-control: max-age=2, must-revalidate", "etag: \"abcd\""], Ok((2, false, true))),
        (&["cache-control: max-age=2, proxy-revalidate"], Ok((2, false, true))),
        (&["cache-control: s-maxage=2"], Ok((2, false, true))),
        (&["cache-control: max-age=3600", "pragma: no-cache"], Ok((3_600, false, false))),
        (&["cache-control: max-age=3600", "set-cookie: a=b"], Ok((3_600, false, false))),
        (&["etag: \"abcd\""], Ok((0, false, false))),
    ] {
        let verdict = stored(judge(&facts(), 200, lines, &rules())).map(|stored| {
            let flag = |flag| stored.flags.has(flag);
            (stored.ttl(NOW).as_secs(), flag(Flags::NO_CACHE), flag(Flags::MUST_REVALIDATE))
        });
        assert_eq!(verdict, expected, "{lines:?}");
    }
}

#[test]
fn requests_decide_too() {
    let fresh = ["cache-control: max-age=60"];
    let no_store = Facts { request_no_store: true, ..facts() };
    assert_eq!(judge(&no_store, 200, &fresh, &rules()), Verdict::Refuse(Reason::RequestNoStore));
    for method in ["GET", "HEAD", "QUERY", "POST", "PUT", "DELETE", "OPTIONS", "M-SEARCH"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let outcome = stored(judge(&Facts { method: &method, ..facts() }, 200, &fresh, &rules()));
        let storable = ["GET", "HEAD", "QUERY", "POST"].contains(&method.as_str());
        assert_eq!(outcome.err(), (!storable).then_some(Reason::Method), "{method}");
    }
}

#[test]
fn a_post_needs_explicit_or_configured_freshness() {
    let modified = format!("last-modified: {}", date(-86_400));
    let post = Facts { method: &Method::POST, ..facts() };
    assert_eq!(judge(&post, 200, &[&modified], &rules()), Verdict::Refuse(Reason::NoFreshness));
    assert_eq!(judge(&post, 200, &["etag: \"a\""], &rules()), Verdict::Refuse(Reason::NoFreshness));
    let expired = ["cache-control: max-age=0", "etag: \"a\""];
    assert_eq!(judge(&post, 200, &expired, &rules()), Verdict::Refuse(Reason::Expired));
    let expires = format!("expires: {}", date(60));
    assert!(stored(judge(&post, 200, &[&expires], &rules())).is_ok());
    let default = Rules { default_ttl: secs(9), ..rules() };
    let freshness = stored(judge(&post, 200, &[&modified], &default)).unwrap();
    assert_eq!((freshness.ttl(NOW), freshness.flags), (secs(9), Flags::CONFIGURED));
}

#[test]
fn heuristics() {
    let modified = format!("last-modified: {}", date(-86_400));
    let lines = [&*modified, &format!("date: {}", date(0))];
    for status in [200, 203, 204, 404, 405, 410, 414, 501] {
        let freshness = stored(judge(&facts(), status, &lines, &rules())).unwrap();
        assert_eq!((freshness.ttl(NOW), freshness.flags), (secs(8_640), Flags::HEURISTIC), "{status}");
    }
    for status in [201, 202, 302, 403, 500, 502, 503, 504, 599] {
        assert_eq!(left_of(status, &lines), Err(Reason::Status), "{status}");
        assert_eq!(left_of(status, &[&lines[..], &["cache-control: public"]].concat()), Ok(8_640_000), "{status}");
    }
    let capped = Rules { heuristic_max: secs(60), ..rules() };
    assert_eq!(stored(judge(&facts(), 200, &lines, &capped)).unwrap().ttl(NOW), secs(60));
    let off = Rules { heuristic_fraction: 0.0, ..rules() };
    assert_eq!(stored(judge(&facts(), 200, &lines, &off)).unwrap().ttl(NOW), secs(0), "kept to be validated");
    assert_eq!(left(&[&format!("last-modified: {}", date(86_400))]), Ok(0), "modified in the future");
    assert_eq!(left(&["last-modified: yesterday"]), Err(Reason::NoFreshness));
    assert_eq!(left(&[&*modified, "pragma: no-cache"]), Ok(8_640_000));
    let day_old = [&*modified, "age: 8640"];
    assert_eq!(left(&day_old), Ok(0), "age counts");
}

#[test]
fn status() {
    let modified = format!("last-modified: {}", date(-100_000));
    let past = format!("expires: {}", date(-5_000));
    for status in [
        200, 201, 202, 203, 204, 299, 301, 302, 303, 307, 308, 400, 401, 403, 404, 410, 422, 499, 500, 502, 503, 504,
        599, 999,
    ] {
        assert_eq!(left_of(status, &["cache-control: max-age=60"]), Ok(60_000), "{status}");
        assert_eq!(left_of(status, &[&past, &modified]), Ok(0), "{status}");
    }
    for status in [100, 103, 304, 412, 416, 429] {
        assert_eq!(left_of(status, &["cache-control: max-age=60"]), Err(Reason::Status), "{status}");
    }
}

#[test]
fn parts_are_stored_only_where_one_was_asked_for() {
    let fresh = ["cache-control: max-age=60"];
    assert_eq!(left_of(206, &fresh), Err(Reason::UnrequestedPart));
    assert!(stored(judge(&Facts { range_requested: true, ..facts() }, 206, &fresh, &rules())).is_ok());
}

#[test]
fn must_understand() {
    let value = ["cache-control: max-age=60, no-store, must-understand"];
    assert_eq!(left_of(200, &value), Ok(60_000));
    assert_eq!(left_of(599, &value), Err(Reason::NotUnderstood));
    assert_eq!(left_of(599, &["cache-control: max-age=60, must-understand"]), Err(Reason::NotUnderstood));
    assert_eq!(left_of(404, &["cache-control: max-age=60, must-understand"]), Ok(60_000));
}

#[test]
fn authorization() {
    let asked = Facts { authorization: true, ..facts() };
    let partitioned = Facts { partitioned: true, ..asked };
    for (value, shared) in [
        ("max-age=60", false),
        ("max-age=60, proxy-revalidate", false),
        ("max-age=60, public", true),
        ("max-age=60, must-revalidate", true),
        ("s-maxage=60", true),
    ] {
        let lines = [&*format!("cache-control: {value}")];
        let refused = stored(judge(&asked, 200, &lines, &rules())).err();
        assert_eq!(refused, (!shared).then_some(Reason::Authorization), "{value}");
        let freshness = stored(judge(&partitioned, 200, &lines, &rules())).unwrap();
        assert_eq!(freshness.flags.has(Flags::PARTITIONED), !shared, "{value}");
    }
    let private = ["cache-control: private, max-age=60"];
    let freshness = stored(judge(&partitioned, 200, &private, &rules())).unwrap();
    assert!(freshness.flags.has(Flags::PARTITIONED));
}

#[test]
fn targeted_fields() {
    let (past, future) = (format!("expires: {}", date(-10_000)), format!("expires: {}", date(10_000)));
    for (lines, expected) in [
        (&["max-age=3600", &past][..], Ok(3_600_000)),
        (&["max-age=3600", "expires: 0"], Ok(3_600_000)),
        (&["max-age=0", &future], Err(Reason::Expired)),
        (&["max-age=3600", "age: 7200"], Err(Reason::Expired)),
        (&["max-age=3600", "cache-control: max-age=1"], Ok(3_600_000)),
        (&["max-age=1", "cache-control: max-age=3600"], Ok(1_000)),
        (&["private", "cache-control: max-age=10000", &future], Err(Reason::Private)),
        (&["no-cache", "cache-control: max-age=10000", &future], Err(Reason::NoCache)),
        (&["no-store", "cache-control: max-age=10000", &future], Err(Reason::NoStore)),
        (&["max-age=10000", "cache-control: no-store"], Ok(10_000_000)),
        (&["max-age=10000, &&&&&", "cache-control: no-store"], Err(Reason::NoStore)),
        (&["max-age=\"10000\"", "cache-control: no-store"], Err(Reason::NoStore)),
        (&["foo", "cache-control: max-age=10000", &future], Err(Reason::NoFreshness)),
    ] {
        let targeted = format!("cdn-cache-control: {}", lines[0]);
        assert_eq!(left(&[&[&*targeted], &lines[1..]].concat()), expected, "{lines:?}");
    }
    assert_eq!(left(&["surrogate-control: max-age=60;larder", "cache-control: no-store"]), Ok(60_000));
    assert_eq!(left(&["surrogate-control: max-age=60;other", "cache-control: no-store"]), Err(Reason::NoStore));
}

#[test]
fn configured_lifetimes() {
    let status_ttl = [("404", 10), ("5xx", 1), ("503", 0), ("429", 5)].map(|(name, ttl)| (name.to_owned(), secs(ttl)));
    let rules = Rules { default_ttl: secs(30), status_ttl: status_ttl.into(), ttl_max: secs(3_600), ..rules() };
    let modified = format!("last-modified: {}", date(-86_400));
    let left = |status, lines: &[&str]| {
        stored(judge(&facts(), status, lines, &rules)).map(|stored| (stored.ttl(NOW).as_secs(), stored.flags))
    };
    assert_eq!(left(200, &[]), Ok((30, Flags::CONFIGURED)));
    assert_eq!(left(200, &["age: 7200"]), Ok((30, Flags::CONFIGURED)), "counts from receipt");
    assert_eq!(left(200, &[&modified]), Ok((3_600, Flags::HEURISTIC)), "heuristics come first, within the maximum");
    assert_eq!(left(200, &["cache-control: max-age=7200"]), Ok((3_600, Flags::default())));
    assert_eq!(left(404, &[&modified]), Ok((10, Flags::CONFIGURED)), "a status comes before heuristics");
    assert_eq!(left(404, &["cache-control: max-age=20"]), Ok((20, Flags::default())));
    assert_eq!(left(500, &[]), Ok((1, Flags::CONFIGURED)));
    assert_eq!(left(503, &[]), Err(Reason::Expired));
    assert_eq!(left(403, &[]), Err(Reason::Status), "the default is for cacheable statuses");
    assert_eq!(left(403, &["cache-control: public"]), Ok((30, Flags::CONFIGURED)));
    assert_eq!(left(429, &[]), Ok((5, Flags::CONFIGURED)), "named by the operator");
    assert_eq!(left(500, &["cache-control: no-store"]), Err(Reason::NoStore));
    assert_eq!(left(200, &["cache-control: max-age=0"]), Err(Reason::Expired));
}

#[test]
fn force() {
    let status_ttl = BTreeMap::from([("500".to_owned(), secs(2))]);
    let rules = Rules { mode: RuleMode::Force, default_ttl: secs(30), status_ttl, stale_if_error: secs(5), ..rules() };
    let hostile = ["cache-control: no-store, private, no-cache, max-age=0, must-revalidate", "age: 99"];
    let freshness = stored(judge(&facts(), 200, &hostile, &rules)).unwrap();
    assert_eq!((freshness.ttl(NOW), freshness.flags), (secs(30), Flags::CONFIGURED));
    assert_eq!(freshness.sie_until, NOW.plus(secs(35)));
    assert_eq!(freshness.age(NOW), secs(99));
    assert_eq!(stored(judge(&facts(), 200, &["cache-control: a b"], &rules)).unwrap().ttl(NOW), secs(30));
    assert_eq!(stored(judge(&facts(), 500, &hostile, &rules)).unwrap().ttl(NOW), secs(2));
    assert_eq!(judge(&facts(), 502, &hostile, &rules), Verdict::Refuse(Reason::Status));
    assert_eq!(judge(&facts(), 304, &hostile, &rules), Verdict::Refuse(Reason::Status));
    let asked = Facts { authorization: true, ..facts() };
    let plain = ["cache-control: no-store"];
    assert_eq!(judge(&asked, 200, &plain, &rules), Verdict::Refuse(Reason::Authorization));
    let partitioned = Facts { partitioned: true, ..asked };
    assert!(stored(judge(&partitioned, 200, &plain, &rules)).unwrap().flags.has(Flags::PARTITIONED));
    let zero = Rules { default_ttl: Duration::ZERO, ..rules };
    assert_eq!(judge(&facts(), 200, &hostile, &zero), Verdict::Refuse(Reason::NoFreshness));
}

/// Seconds from now to the ends of the windows: stale-while-revalidate, stale-if-error, keep.
fn windows(lines: &[&str], rules: &Rules) -> Result<[u64; 3], Reason> {
    let end = |time: Timestamp| time.since(NOW).as_secs();
    stored(judge(&facts(), 200, lines, rules))
        .map(|stored| [stored.swr_until, stored.sie_until, stored.keep_until].map(end))
}

#[test]
fn stale_windows() {
    let rules = Rules { stale_while_revalidate: secs(100), stale_if_error: secs(1_000), ..rules() };
    for (value, expected) in [
        ("max-age=10", [110, 1_010]),
        ("max-age=10, stale-while-revalidate=20", [30, 1_010]),
        ("max-age=10, stale-if-error=20", [110, 30]),
        ("max-age=10, stale-while-revalidate=0, stale-if-error=0", [10, 10]),
        ("max-age=10, must-revalidate", [10, 10]),
        ("max-age=10, must-revalidate, stale-while-revalidate=20, stale-if-error=20", [10, 10]),
        ("max-age=10, proxy-revalidate, stale-if-error=20", [10, 10]),
        ("s-maxage=10", [10, 10]),
        ("s-maxage=10, stale-while-revalidate=20", [30, 10]),
        ("s-maxage=10, stale-if-error=20", [10, 30]),
        ("max-age=0, stale-while-revalidate=20", [20, 0]),
        ("max-age=0, stale-if-error=20", [0, 20]),
    ] {
        let [swr, sie, keep] = windows(&[&format!("cache-control: {value}")], &rules).expect(value);
        assert_eq!([swr, sie], expected, "{value}");
        assert_eq!(keep, swr.max(sie), "{value}");
    }
    let no_cache = ["cache-control: max-age=10, no-cache, stale-if-error=20", "etag: \"a\""];
    assert_eq!(windows(&no_cache, &rules), Ok([10, 10, 10]));
}

#[test]
fn what_arrives_stale() {
    let with_windows =
        Rules { stale_while_revalidate: secs(100), stale_if_error: secs(1_000), keep: secs(9), ..rules() };
    let old = ["cache-control: max-age=1500", "age: 2000"];
    assert_eq!(windows(&old, &rules()), Err(Reason::Expired));
    assert_eq!(windows(&old, &with_windows), Ok([0, 500, 500]), "the route's windows keep what was fresh once");
    let never = ["cache-control: max-age=0"];
    assert_eq!(windows(&never, &with_windows), Err(Reason::Expired), "and not what never was");
    let validator = ["cache-control: max-age=0", "etag: \"a\""];
    assert_eq!(windows(&validator, &with_windows), Ok([0, 0, 9]), "nor stand in for an error");
    assert_eq!(windows(&["etag: \"a\""], &Rules { keep: secs(9), ..rules() }), Ok([0, 0, 9]));
    let very_old = ["cache-control: max-age=60", "age: 7200", "etag: \"a\""];
    assert_eq!(windows(&very_old, &Rules { keep: secs(9), ..rules() }), Ok([0, 0, 9]));
}

#[test]
fn jitter_shortens_what_is_left_and_no_window() {
    let rules = Rules { stale_if_error: secs(1_000), ..rules() };
    let lines = ["cache-control: max-age=100", "age: 60"];
    let at = |jitter| stored(judge(&Facts { jitter, ..facts() }, 200, &lines, &rules)).unwrap();
    assert_eq!(at(0.25).ttl(NOW), secs(30));
    assert_eq!(at(0.25).sie_until, at(0.0).sie_until);
    assert_eq!(at(0.25).swr_until, at(0.25).fresh_until);
    assert_eq!(at(7.0).ttl(NOW), secs(0));
    for nonsense in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(at(nonsense).ttl(NOW), secs(40), "{nonsense}");
    }
}

#[test]
fn the_time_a_response_took_is_age() {
    let slow = Facts { request_time: NOW.minus(Duration::from_millis(5_500)), ..facts() };
    let freshness = stored(judge(&slow, 200, &["cache-control: max-age=60"], &rules())).unwrap();
    assert_eq!(freshness.ttl(NOW).as_millis(), 54_500);
    assert_eq!(freshness.born, NOW.minus(Duration::from_millis(5_500)));
}

#[test]
fn reasons_have_distinct_names() {
    let names: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::as_str).into_iter().collect();
    assert_eq!(names.len(), Reason::ALL.len());
}

/// Values that are nearly right, and any bytes at all.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "((max-age|s-maxage|no-store|private|public|no-cache|must-understand|stale-if-error)(=[0-9]{0,20})?,? ?){0,4}"
            .prop_map(String::into_bytes),
        (0..300_000_000_000_u64).prop_map(|secs| date::format(Timestamp::from_secs(secs)).as_bytes().to_vec()),
        "[0-9]{0,25}".prop_map(String::into_bytes),
        any::<Vec<u8>>(),
    ]
}

prop_compose! {
    fn message()(lines in proptest::collection::vec((0..9_usize, value()), 0..8)) -> HeaderMap {
        const NAMES: [&str; 9] = [
            "cache-control", "expires", "date", "age", "last-modified", "etag", "cdn-cache-control",
            "surrogate-control", "larder-cache-control",
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(NAMES[name], value);
            }
        }
        headers
    }
}

proptest! {
    #[test]
    fn never_panics_and_deadlines_are_in_order(
        headers in message(),
        status in 100..1000_u16,
        times: (u64, u64),
        flags: [bool; 6],
        jitter: f64,
        ttls: [u64; 6],
    ) {
        let method = if flags[0] { Method::POST } else { Method::GET };
        let facts = Facts {
            method: &method,
            request_no_store: flags[1],
            authorization: flags[2],
            partitioned: flags[3],
            range_requested: flags[4],
            request_time: Timestamp::from_millis(times.0),
            response_time: Timestamp::from_millis(times.1),
            jitter,
        };
        let [default_ttl, ttl_max, heuristic_max, stale_while_revalidate, stale_if_error, keep] = ttls.map(secs);
        let mode = if flags[5] { RuleMode::Force } else { RuleMode::Standard };
        let rules = Rules {
            mode, default_ttl, ttl_max, heuristic_max, stale_while_revalidate, stale_if_error, keep, ..rules()
        };
        let status = StatusCode::from_u16(status).unwrap();
        if let Verdict::Store(stored) = ask(&facts, status, &headers, &rules) {
            prop_assert!(!tied_to_request(status) && !facts.request_no_store);
            prop_assert!(stored.fresh_until <= stored.swr_until && stored.fresh_until <= stored.sie_until);
            prop_assert!(stored.swr_until <= stored.keep_until && stored.sie_until <= stored.keep_until);
            prop_assert!(stored.born <= facts.response_time);
            prop_assert!(stored.ttl(facts.response_time) <= ttl_max);
        }
    }

    #[test]
    fn what_is_forbidden_is_never_stored(mut headers in message(), field in 0..2_usize, other in value()) {
        let fields = ["larder-cache-control", "cache-control"];
        headers.remove("larder-cache-control");
        if field == 1 {
            for name in ["cdn-cache-control", "surrogate-control", "cache-control"] {
                headers.remove(name);
            }
        }
        headers.append(fields[field], HeaderValue::from_static("no-store, x"));
        if let (1, Ok(other)) = (field, HeaderValue::from_bytes(&other)) {
            headers.append(fields[field], other);
        }
        let told = effective(&headers);
        prop_assume!(!told.directives.must_understand);
        let verdict = ask(&facts(), StatusCode::OK, &headers, &rules());
        prop_assert!(matches!(verdict, Verdict::Refuse(_)), "{verdict:?}");
    }

    #[test]
    fn the_older_the_less_is_left(max_age in 0..10_000_u64, age in 0..10_000_u64) {
        let lines = [&*format!("cache-control: max-age={max_age}"), &format!("age: {age}"), "etag: \"a\""];
        prop_assert_eq!(left(&lines), Ok(u128::from(max_age.saturating_sub(age)) * 1_000));
    }
}
