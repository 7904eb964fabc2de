//! Cache directives of responses and requests (RFC 9111 section 5.2, RFC 5861, RFC 8246).
//!
//! Names in any case, arguments as token or quoted string, any number of lines. Freshness that makes no sense (a word
//! for a number, two different values) counts as zero seconds, as section 4.2.1 encourages; a response line that does
//! not follow the grammar at all makes the response not storable, because of what it may have forbidden.

use http::{
    HeaderMap, HeaderName,
    header::{CACHE_CONTROL, PRAGMA},
};

use super::members::{Member, members};
pub use super::targeted::{Effective, Source, effective};

/// Where every number of seconds saturates (section 1.2.2): 68 years.
pub const DELTA_SECONDS_MAX: u64 = 1 << 31;

/// What the response directives say, to a shared cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// `max-age`; zero if it made no sense.
    pub max_age: Option<u64>,
    /// `s-maxage`; zero if it made no sense.
    pub s_maxage: Option<u64>,
    /// `stale-while-revalidate`, where it made sense.
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error`, where it made sense.
    pub stale_if_error: Option<u64>,
    /// `public`
    pub public: bool,
    /// `private` for the whole response.
    pub private: bool,
    /// `no-store`
    pub no_store: bool,
    /// `no-cache` for the whole response.
    pub no_cache: bool,
    /// `must-revalidate`
    pub must_revalidate: bool,
    /// `proxy-revalidate`
    pub proxy_revalidate: bool,
    /// `must-understand`
    pub must_understand: bool,
    /// `no-transform`
    pub no_transform: bool,
    /// `immutable`
    pub immutable: bool,
    /// Fields of `no-cache="..."` and `private="..."`: not to be reused with the rest of the response, so not stored.
    pub withheld: Vec<HeaderName>,
    /// A part of it could not be read.
    pub malformed: bool,
}

impl ResponseDirectives {
    /// What `Cache-Control` says.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            for member in members(line.as_bytes()) {
                match member {
                    Ok(member) if member.parameters.is_none() => directives.take(&member),
                    _ => directives.malformed = true,
                }
            }
        }
        directives
    }

    /// Explicit lifetime in seconds, for a shared cache.
    pub fn lifetime(&self) -> Option<u64> {
        self.s_maxage.or(self.max_age)
    }

    /// Whether it allows a response to a request with `Authorization` to be shared (section 3.5).
    pub fn shares_authorized(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    /// Whether it forbids every use without validation once stale, whatever else it says.
    pub fn forbids_stale(&self) -> bool {
        self.no_cache || self.must_revalidate || self.proxy_revalidate
    }

    fn take(&mut self, member: &Member<'_>) {
        member.lowercase(|name| match name {
            b"max-age" => lifetime(&mut self.max_age, member),
            b"s-maxage" => lifetime(&mut self.s_maxage, member),
            b"stale-while-revalidate" => shorter(&mut self.stale_while_revalidate, member),
            b"stale-if-error" => shorter(&mut self.stale_if_error, member),
            b"public" => self.public = true,
            b"no-store" => self.no_store = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"no-transform" => self.no_transform = true,
            b"immutable" => self.immutable = true,
            b"private" => self.private |= !self.withhold(member.argument),
            b"no-cache" => self.no_cache |= !self.withhold(member.argument),
            _ => {}
        });
    }

    /// Notes the fields of a qualified directive. `false` if it is not a list of field names: then the directive is
    /// about the whole response.
    pub(super) fn withhold(&mut self, argument: Option<&[u8]>) -> bool {
        let members = argument.unwrap_or_default().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        let names: Result<Vec<_>, _> = members.filter(|name| !name.is_empty()).map(HeaderName::from_bytes).collect();
        match names {
            Ok(names) if !names.is_empty() => {
                self.withheld.extend(names);
                true
            }
            _ => false,
        }
    }
}

/// What the request directives say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-cache`, or `Pragma: no-cache` where there is no `Cache-Control`.
    pub no_cache: bool,
    /// `no-store`
    pub no_store: bool,
    /// `only-if-cached`
    pub only_if_cached: bool,
    /// `no-transform`
    pub no_transform: bool,
    /// `max-age`; zero if it made no sense.
    pub max_age: Option<u64>,
    /// `min-fresh`, where it made sense.
    pub min_fresh: Option<u64>,
    /// `max-stale`, where it made sense; without a number, `u64::MAX`.
    pub max_stale: Option<u64>,
    /// `stale-if-error`, where it made sense.
    pub stale_if_error: Option<u64>,
}

impl RequestDirectives {
    /// Whether whatever is stored is to be validated. (All but `immutable`, which shows too late.)
    pub fn wants_validation(&self) -> bool {
        self.no_cache || self.max_age == Some(0)
    }

    /// What `Cache-Control` or, failing that, `Pragma` says. Members that cannot be read are skipped: directives of
    /// requests are wishes.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            directives.no_cache = pragma_no_cache(headers);
            return directives;
        }
        for line in headers.get_all(CACHE_CONTROL) {
            members(line.as_bytes()).flatten().for_each(|member| directives.take(&member));
        }
        directives
    }

    fn take(&mut self, member: &Member<'_>) {
        member.lowercase(|name| match name {
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"no-transform" => self.no_transform = true,
            b"max-age" => {
                let value = argument(member).unwrap_or(0);
                self.max_age = Some(self.max_age.map_or(value, |other| other.min(value)));
            }
            b"min-fresh" => self.min_fresh = self.min_fresh.max(argument(member)),
            b"max-stale" if member.argument.is_none() => self.max_stale = self.max_stale.or(Some(u64::MAX)),
            b"max-stale" => shorter(&mut self.max_stale, member),
            b"stale-if-error" => shorter(&mut self.stale_if_error, member),
            _ => {}
        });
    }
}

/// A non-negative whole number of seconds, saturating (section 1.2.2).
pub fn delta_seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| (sum * 10 + u64::from(digit - b'0')).min(DELTA_SECONDS_MAX);
    Some(text.iter().fold(0, add))
}

fn argument(member: &Member<'_>) -> Option<u64> {
    member.argument.and_then(delta_seconds)
}

/// Takes a freshness lifetime: zero if it is none, or differs from the one already there.
fn lifetime(slot: &mut Option<u64>, member: &Member<'_>) {
    let value = argument(member).unwrap_or(0);
    *slot = Some(if slot.is_none_or(|earlier| earlier == value) { value } else { 0 });
}

/// Takes a number of seconds, the smaller one of several; ignores what is none.
fn shorter(slot: &mut Option<u64>, member: &Member<'_>) {
    if let Some(value) = argument(member) {
        *slot = Some(slot.map_or(value, |other| other.min(value)));
    }
}

fn pragma_no_cache(headers: &HeaderMap) -> bool {
    headers.get_all(PRAGMA).iter().flat_map(|line| members(line.as_bytes())).flatten().any(|it| it.is("no-cache"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    fn response(lines: &[&str]) -> ResponseDirectives {
        ResponseDirectives::of(&headers("cache-control", lines))
    }

    fn request(lines: &[&str]) -> RequestDirectives {
        RequestDirectives::of(&headers("cache-control", lines))
    }

    #[test]
    fn lifetimes() {
        for (lines, max_age) in [
            (&["max-age=3600"][..], Some(3600)),
            (&["MaX-aGe=3600"], Some(3600)),
            (&["foobar, max-age=3600"], Some(3600)),
            (&["foobar", "max-age=3600"], Some(3600)),
            (&["max-age=\"3600\""], Some(3600)),
            (&["max-age=003600"], Some(3600)),
            (&["max-age=3600, max-age=3600"], Some(3600)),
            (&["extension=\"max-age=3600\", max-age=1"], Some(1)),
            (&["max-age=1, extension=\"max-age=3600\""], Some(1)),
            (&["extension=\"a, max-age=3600, b\""], None),
            (&["max-age=2147483647"], Some(2_147_483_647)),
            (&["max-age=2147483648"], Some(2_147_483_648)),
            (&["max-age=2147483649"], Some(2_147_483_648)),
            (&["max-age=99999999999"], Some(2_147_483_648)),
            (&["max-age=99999999999999999999999999"], Some(2_147_483_648)),
            (&["max-age=0"], Some(0)),
            (&["max-age"], Some(0)),
            (&["max-age=-3600"], Some(0)),
            (&["max-age='3600'"], Some(0)),
            (&["max-age=3600.0"], Some(0)),
            (&["max-age=3600.5"], Some(0)),
            (&["max-age=a3600"], Some(0)),
            (&["max-age=3600a"], Some(0)),
            (&["max-age=+3600"], Some(0)),
            (&["max-age=1800, max-age=1"], Some(0)),
            (&["max-age=1", "max-age=1800"], Some(0)),
            (&["max-age=5, max-age=5, max-age=6"], Some(0)),
        ] {
            let directives = response(lines);
            assert_eq!(directives.max_age, max_age, "{lines:?}");
            assert!(!directives.malformed, "{lines:?}");
        }
        assert_eq!(response(&["max-age=3600", "s-maxage=1"]).lifetime(), Some(1));
        assert_eq!(response(&["s-maxage=3600, max-age=1"]).lifetime(), Some(3600));
    }

    #[test]
    fn restrictions_in_any_case() {
        assert!(response(&["No-StOrE"]).no_store);
        assert!(response(&["max-age=1, PRIVATE"]).private);
        assert!(response(&["max-age=1", "No-CaChE"]).no_cache);
        assert!(response(&["no-store=\"x\""]).no_store);
        assert!(!response(&["x=\"no-store\", y=\", no-store\""]).no_store);
        let all = response(&["public, must-revalidate, proxy-revalidate, must-understand, immutable, no-transform"]);
        assert!(all.public && all.must_revalidate && all.proxy_revalidate && all.must_understand);
        assert!(all.immutable && all.no_transform && !all.malformed);
    }

    #[test]
    fn qualified_directives_name_fields() {
        let names = |line: &str| {
            let directives = response(&[line]);
            let whole = directives.no_cache || directives.private;
            (whole, directives.withheld.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names("no-cache=\"a, B\""), (false, "a b".to_owned()));
        assert_eq!(names("private=Set-Cookie"), (false, "set-cookie".to_owned()));
        assert_eq!(names("no-cache=\"a, b c\""), (true, String::new()));
        assert_eq!(names("no-cache=\"\""), (true, String::new()));
        assert_eq!(names("private=\",\""), (true, String::new()));
        assert_eq!(names("no-cache=\"a\", no-cache"), (true, "a".to_owned()));
    }

    #[test]
    fn lines_off_the_grammar() {
        for line in ["max-age =3600", "max-age= 3600", "max-age=60; no-store", "no-store private", "a=\"b, no-store"] {
            assert!(response(&[line]).malformed, "{line}");
        }
        assert!(!response(&["foo, bar=x/y:z, baz=\"q\""]).malformed);
    }

    #[test]
    fn stale_windows() {
        let directives = response(&["stale-while-revalidate=30, stale-if-error=\"60\""]);
        assert_eq!((directives.stale_while_revalidate, directives.stale_if_error), (Some(30), Some(60)));
        assert_eq!(response(&["stale-while-revalidate"]).stale_while_revalidate, None);
        assert_eq!(response(&["stale-if-error=9, stale-if-error=5"]).stale_if_error, Some(5));
    }

    #[test]
    fn requests() {
        let wishes = request(&["No-Cache, no-store", "only-if-cached, max-age=5, min-fresh=6, max-stale=7"]);
        assert!(wishes.no_cache && wishes.no_store && wishes.only_if_cached);
        assert_eq!((wishes.max_age, wishes.min_fresh, wishes.max_stale), (Some(5), Some(6), Some(7)));
        assert_eq!(request(&["max-stale"]).max_stale, Some(u64::MAX));
        assert_eq!(request(&["max-stale, max-stale=5"]).max_stale, Some(5));
        assert_eq!(request(&["max-stale=5, max-stale"]).max_stale, Some(5));
        assert_eq!(request(&["max-stale=x, min-fresh=x"]), RequestDirectives::default());
        assert_eq!(request(&["max-age=x"]).max_age, Some(0));
        assert_eq!(request(&["max-age=9, max-age=5"]).max_age, Some(5));
        assert!(request(&["a=\"b, no-cache", "no-cache"]).no_cache);
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        assert!(RequestDirectives::of(&headers("pragma", &["No-Cache"])).no_cache);
        assert!(RequestDirectives::of(&headers("pragma", &["foo, no-cache"])).no_cache);
        assert!(!RequestDirectives::of(&headers("pragma", &["unrecognised-extension"])).no_cache);
        let mut both = headers("pragma", &["no-cache"]);
        both.append(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        assert!(!RequestDirectives::of(&both).no_cache);
    }

    proptest! {
        #[test]
        fn never_panics(lines: Vec<Vec<u8>>) {
            let mut headers = HeaderMap::new();
            for line in lines {
                if let Ok(line) = HeaderValue::from_bytes(&line) {
                    headers.append(CACHE_CONTROL, line);
                }
            }
            ResponseDirectives::of(&headers);
            RequestDirectives::of(&headers);
        }

        #[test]
        fn seconds_saturate(digits in "[0-9]{1,40}") {
            let exact = digits.trim_start_matches('0');
            let expected = if exact.len() > 11 { DELTA_SECONDS_MAX } else { exact.parse().unwrap_or(0) };
            prop_assert_eq!(delta_seconds(digits.as_bytes()), Some(expected.min(DELTA_SECONDS_MAX)));
        }
    }
}
