//! Which field decides: targeted cache control (RFC 9213), `Surrogate-Control` (W3C "Edge Architecture", 2001).
//!
//! `Larder-Cache-Control`, then `CDN-Cache-Control`, then `Surrogate-Control`; the first that is present and valid
//! replaces `Cache-Control` and `Expires` altogether. The first two are dictionaries of Structured Fields, and one
//! flaw makes such a field as good as absent. `Surrogate-Control` is older than that syntax and read like
//! `Cache-Control`; it counts only if it says something about caching to this cache, because often it only announces
//! a template language beside a `Cache-Control` that forbids caching.

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::{
    directives::{DELTA_SECONDS_MAX, ResponseDirectives, delta_seconds},
    members::{Member, members, split},
};

/// Directives for this cache alone.
pub const LARDER_CACHE_CONTROL: HeaderName = HeaderName::from_static("larder-cache-control");
/// Directives for caches that work for the origin.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// Directives for surrogates.
pub const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// What this cache is called by those who target it.
const PSEUDONYM: &[u8] = b"larder";

/// The field that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `Larder-Cache-Control`
    Larder,
    /// `CDN-Cache-Control`
    Cdn,
    /// `Surrogate-Control`
    Surrogate,
    /// `Cache-Control`, with `Expires` beside it; also where there is neither.
    CacheControl,
}

impl Source {
    /// The field, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Larder => "larder-cache-control",
            Self::Cdn => "cdn-cache-control",
            Self::Surrogate => "surrogate-control",
            Self::CacheControl => "cache-control",
        }
    }
}

/// The directives that count for this cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// What they say.
    pub directives: ResponseDirectives,
    /// Where they stood. Only beside [`Source::CacheControl`] does `Expires` count.
    pub source: Source,
}

/// The directives of a response that count for this cache.
pub fn effective(headers: &HeaderMap) -> Effective {
    let targeted = structured(headers, &LARDER_CACHE_CONTROL)
        .map(|directives| Effective { directives, source: Source::Larder })
        .or_else(|| {
            structured(headers, &CDN_CACHE_CONTROL).map(|directives| Effective { directives, source: Source::Cdn })
        })
        .or_else(|| surrogate(headers).map(|directives| Effective { directives, source: Source::Surrogate }));
    targeted.unwrap_or_else(|| Effective { directives: ResponseDirectives::of(headers), source: Source::CacheControl })
}

/// A targeted field, if it is present, valid and not empty (RFC 9213 section 2.2).
fn structured(headers: &HeaderMap, name: &HeaderName) -> Option<ResponseDirectives> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return None;
    }
    let dictionary: Dictionary = Parser::new(&lines.join(&b", "[..])).parse().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut directives = ResponseDirectives::default();
    for (name, value) in &dictionary {
        take(&mut directives, name.as_str(), value)?;
    }
    Some(directives)
}

/// Takes one member; `None` if its value is of another type than the directive's.
fn take(directives: &mut ResponseDirectives, name: &str, value: &ListEntry) -> Option<()> {
    match name {
        "max-age" => directives.max_age = Some(seconds(value)?),
        "s-maxage" => directives.s_maxage = Some(seconds(value)?),
        "stale-while-revalidate" => directives.stale_while_revalidate = Some(seconds(value)?),
        "stale-if-error" => directives.stale_if_error = Some(seconds(value)?),
        "public" => directives.public = boolean(value)?,
        "no-store" => directives.no_store = boolean(value)?,
        "must-revalidate" => directives.must_revalidate = boolean(value)?,
        "proxy-revalidate" => directives.proxy_revalidate = boolean(value)?,
        "must-understand" => directives.must_understand = boolean(value)?,
        "no-transform" => directives.no_transform = boolean(value)?,
        "immutable" => directives.immutable = boolean(value)?,
        "private" => directives.private = qualified(directives, value)?,
        "no-cache" => directives.no_cache = qualified(directives, value)?,
        _ => {}
    }
    Some(())
}

/// A number of seconds; a negative one makes no sense and counts as zero.
fn seconds(value: &ListEntry) -> Option<u64> {
    match bare(value)? {
        BareItem::Integer(number) => Some(u64::try_from(i64::from(*number)).unwrap_or(0).min(DELTA_SECONDS_MAX)),
        _ => None,
    }
}

fn boolean(value: &ListEntry) -> Option<bool> {
    match bare(value)? {
        BareItem::Boolean(value) => Some(*value),
        _ => None,
    }
}

/// `private` or `no-cache`: whether it is about the whole response. Field names may be a string or a single token.
fn qualified(directives: &mut ResponseDirectives, value: &ListEntry) -> Option<bool> {
    match bare(value)? {
        BareItem::Boolean(value) => Some(*value),
        BareItem::String(names) => Some(!directives.withhold(Some(names.as_str().as_bytes()))),
        BareItem::Token(name) => Some(!directives.withhold(Some(name.as_str().as_bytes()))),
        _ => None,
    }
}

fn bare(value: &ListEntry) -> Option<&BareItem> {
    match value {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

/// `Surrogate-Control`, if it says anything about caching to this cache. What is targeted at it beats what is not.
fn surrogate(headers: &HeaderMap) -> Option<ResponseDirectives> {
    let lines = headers.get_all(SURROGATE_CONTROL);
    let (mut general, mut own) = (Surrogate::default(), Surrogate::default());
    for member in lines.iter().flat_map(|line| members(line.as_bytes())) {
        match member {
            Ok(member) if member.parameters.is_none() => general.take(&member),
            Ok(member) if is_own(&member) => own.take(&member),
            Ok(_) => {}
            Err(_) => general.malformed = true,
        }
    }
    let speaks = |it: &Surrogate| it.no_store || it.lifetime.is_some();
    let chosen = if speaks(&own) { &own } else { &general };
    speaks(chosen).then(|| chosen.directives(general.malformed))
}

/// Whether one of its parameters names this cache.
fn is_own(member: &Member<'_>) -> bool {
    let mut devices = split(member.parameters.unwrap_or_default(), b';').map(<[u8]>::trim_ascii);
    devices.any(|device| device.eq_ignore_ascii_case(PSEUDONYM))
}

/// The directives of `Surrogate-Control` that matter here.
#[derive(Default)]
struct Surrogate {
    no_store: bool,
    /// `max-age=30+600`: fresh for 30 seconds, usable for 600 more.
    lifetime: Option<(u64, Option<u64>)>,
    malformed: bool,
}

impl Surrogate {
    fn take(&mut self, member: &Member<'_>) {
        if member.is("no-store") {
            self.no_store = true;
        } else if member.is("max-age") {
            let value = member.argument.and_then(extended_seconds).unwrap_or((0, None));
            self.lifetime = Some(if self.lifetime.is_none_or(|earlier| earlier == value) { value } else { (0, None) });
        }
    }

    fn directives(&self, malformed: bool) -> ResponseDirectives {
        let extension = self.lifetime.and_then(|(_, extension)| extension);
        ResponseDirectives {
            max_age: self.lifetime.map(|(lifetime, _)| lifetime),
            stale_while_revalidate: extension,
            stale_if_error: extension,
            no_store: self.no_store,
            malformed,
            ..ResponseDirectives::default()
        }
    }
}

fn extended_seconds(text: &[u8]) -> Option<(u64, Option<u64>)> {
    match memchr::memchr(b'+', text) {
        Some(plus) => Some((delta_seconds(&text[..plus])?, Some(delta_seconds(&text[plus + 1..])?))),
        None => Some((delta_seconds(text)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(lines: &[(&'static str, &str)]) -> Effective {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        effective(&headers)
    }

    /// What `CDN-Cache-Control` says beside `Cache-Control: max-age=1, no-store`: its lifetime, if it is heard at all.
    fn cdn(value: &str) -> Option<Option<u64>> {
        let told = told(&[("cache-control", "max-age=1, no-store"), ("cdn-cache-control", value)]);
        (told.source == Source::Cdn).then(|| told.directives.lifetime())
    }

    #[test]
    fn the_most_specific_field_decides() {
        let all = [
            ("larder-cache-control", "max-age=4"),
            ("cdn-cache-control", "max-age=3"),
            ("surrogate-control", "max-age=2"),
            ("cache-control", "max-age=1"),
        ];
        let sources = [Source::Larder, Source::Cdn, Source::Surrogate, Source::CacheControl];
        for (from, source) in sources.into_iter().enumerate() {
            let told = told(&all[from..]);
            assert_eq!(told.source, source);
            assert_eq!(told.source.as_str(), all[from].0);
            assert_eq!(told.directives.max_age, Some(4 - from as u64));
        }
        assert_eq!(told(&[]), Effective { directives: ResponseDirectives::default(), source: Source::CacheControl });
    }

    #[test]
    fn structured_fields() {
        assert_eq!(cdn("max-age=3600"), Some(Some(3600)));
        assert_eq!(cdn("foobar, max-age=3600"), Some(Some(3600)));
        assert_eq!(cdn("max-age=2147483648"), Some(Some(2_147_483_648)));
        assert_eq!(cdn("max-age=99999999999"), Some(Some(2_147_483_648)));
        assert_eq!(cdn("max-age=3600;x=1"), Some(Some(3600)));
        assert_eq!(cdn("max-age=0"), Some(Some(0)));
        assert_eq!(cdn("max-age=-5"), Some(Some(0)));
        assert_eq!(cdn("max-age=1, max-age=3600"), Some(Some(3600)), "the last one, as Structured Fields have it");
        assert_eq!(cdn("private"), Some(None));
        assert_eq!(cdn("foo"), Some(None));
    }

    #[test]
    fn an_invalid_field_is_absent() {
        for value in [
            "",
            " ",
            "max-age=10000, &&&&&",
            "max-age=\"10000\"",
            "max-age=10.5",
            "max-age",
            "max-age =100",
            "max-age= 100",
            "MaX-aGe=3600",
            "max-age=(1 2)",
            "max-age=9999999999999999",
            "no-store=1",
            "private=1",
            "\u{e4}",
        ] {
            assert_eq!(cdn(value), None, "{value}");
        }
    }

    #[test]
    fn booleans_and_field_names() {
        let directives = |value| told(&[("cdn-cache-control", value)]).directives;
        assert!(directives("no-store").no_store && directives("private").private && directives("no-cache").no_cache);
        assert!(!directives("no-store=?0, max-age=1").no_store);
        let qualified = directives("private=\"set-cookie\", no-cache=foo");
        assert!(!qualified.private && !qualified.no_cache);
        assert_eq!(qualified.withheld, ["set-cookie", "foo"]);
        assert!(directives("private=\"a b\"").private);
        let windows = directives("s-maxage=1, stale-while-revalidate=2, stale-if-error=3");
        let seconds = (windows.s_maxage, windows.stale_while_revalidate, windows.stale_if_error);
        assert_eq!(seconds, (Some(1), Some(2), Some(3)));
    }

    #[test]
    fn several_lines_are_one_dictionary() {
        let told = told(&[("cdn-cache-control", "max-age=60"), ("cdn-cache-control", "no-cache")]);
        assert_eq!(told.directives.max_age, Some(60));
        assert!(told.directives.no_cache);
    }

    #[test]
    fn surrogate_control() {
        let lifetime = |value| {
            let told = told(&[("cache-control", "max-age=1"), ("surrogate-control", value)]);
            (told.source == Source::Surrogate).then(|| told.directives.lifetime())
        };
        assert_eq!(lifetime("max-age=3600"), Some(Some(3600)));
        assert_eq!(lifetime("MaX-aGe=3600"), Some(Some(3600)));
        assert_eq!(lifetime("foobar, max-age=3600"), Some(Some(3600)));
        assert_eq!(lifetime("max-age=99999999999"), Some(Some(2_147_483_648)));
        assert_eq!(lifetime("max-age=3600;larder"), Some(Some(3600)));
        assert_eq!(lifetime("max-age=3600;foo;Larder"), Some(Some(3600)));
        assert_eq!(lifetime("max-age=1;larder, max-age=3600"), Some(Some(1)));
        assert_eq!(lifetime("max-age=3600, no-store;other"), Some(Some(3600)));
        assert_eq!(lifetime("max-age=0"), Some(Some(0)));
        assert_eq!(lifetime("max-age=x"), Some(Some(0)));
        assert_eq!(lifetime("no-store"), Some(None));
        assert_eq!(lifetime("max-age=3600;not-for-you"), None);
        assert_eq!(lifetime("max-age =100"), None);
        assert_eq!(lifetime("max-age= 100"), None);
        assert_eq!(lifetime("content=\"ESI/1.0\""), None);
        assert_eq!(lifetime("foo"), None);
    }

    #[test]
    fn surrogate_control_beyond_freshness() {
        let directives = told(&[("surrogate-control", "max-age=30+600, content=\"ESI/1.0\"")]).directives;
        let seconds = (directives.max_age, directives.stale_while_revalidate, directives.stale_if_error);
        assert_eq!(seconds, (Some(30), Some(600), Some(600)));
        assert!(told(&[("surrogate-control", "max-age=30, no store")]).directives.malformed);
    }

    proptest! {
        #[test]
        fn never_panics(larder: Vec<u8>, cdn: Vec<u8>, surrogate: Vec<u8>) {
            let mut headers = HeaderMap::new();
            for (name, value) in [(LARDER_CACHE_CONTROL, larder), (CDN_CACHE_CONTROL, cdn), (SURROGATE_CONTROL, surrogate)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            effective(&headers);
        }

        #[test]
        fn never_panics_on_nearly_directives(value in "[a-z=0-9\";,+?() -]{0,40}") {
            told(&[("cdn-cache-control", &value)]);
            told(&[("surrogate-control", &value)]);
        }
    }
}
