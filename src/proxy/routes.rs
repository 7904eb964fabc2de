//! Which route a request belongs to: the first in the configuration whose host and path match.
//!
//! Looking a route up allocates nothing. Paths are compared in the form of [`normalise_path`], so that no dot segment
//! and no percent-encoding leads a request into a route it does not belong to, or out of the one it does.

use std::str::FromStr;

use crate::object::path::{normalise_authority, normalise_path};

/// Why a pattern of a route is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not `host`, `host:port`, `*.host` or `*.host:port`.
    #[error("not a host pattern: `shop.example`, `*.example`, either with a port or without")]
    Host,
    /// `*`.
    #[error("a route for any host has no `host` at all")]
    AnyHost,
    /// A path that does not begin with a slash.
    #[error("a path begins with `/`")]
    PathRelative,
    /// A path with a query, a fragment or a character no path has.
    #[error("a path has no `?`, no `#`, no blanks and no control characters")]
    PathCharacter,
}

/// `shop.example`, or `*.example` for every name below it (not `example` itself); with a port or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    name: Name,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Exact(Box<str>),
    /// With its leading dot.
    Below(Box<str>),
}

/// A path and all below it, at a segment boundary: `/a/b` covers `/a/b`, `/a/b/` and `/a/b/c`, not `/a/bc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPrefix(Box<str>);

/// What a route answers for. Where a part is absent, anything matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matcher {
    /// The hosts.
    pub host: Option<HostPattern>,
    /// The paths.
    pub path: Option<PathPrefix>,
}

/// Routes in order, each with what belongs to it.
#[derive(Debug, Clone)]
pub struct RouteTable<T> {
    routes: Vec<(Matcher, T)>,
}

impl<T> RouteTable<T> {
    /// From routes in the order of the configuration.
    pub fn new(routes: Vec<(Matcher, T)>) -> Self {
        Self { routes }
    }

    /// The first route that matches. `path` is one of [`normalise_path`], without its query.
    pub fn find(&self, authority: &str, path: &str) -> Option<&T> {
        self.find_entry(authority, path).map(|(_, route)| route)
    }

    /// As [`RouteTable::find`], with what made it match.
    pub fn find_entry(&self, authority: &str, path: &str) -> Option<(&Matcher, &T)> {
        self.iter().find(|(matcher, _)| matcher.matches(authority, path))
    }

    /// As [`RouteTable::find_entry`], among the routes that name a host.
    pub fn find_named(&self, authority: &str, path: &str) -> Option<(&Matcher, &T)> {
        self.iter().find(|(matcher, _)| matcher.host.is_some() && matcher.matches(authority, path))
    }

    /// Every route that can answer for some path of this host, up to the first one that takes all the rest.
    pub fn all_matching_host(&self, authority: &str) -> impl Iterator<Item = (&Matcher, &T)> {
        let mut taken = false;
        self.iter().filter(move |(matcher, _)| matcher.matches_host(authority)).take_while(move |(matcher, _)| {
            let before = taken;
            taken = matcher.takes_every_path();
            !before
        })
    }

    /// All routes, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Matcher, &T)> {
        self.routes.iter().map(|(matcher, route)| (matcher, route))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

impl Matcher {
    /// From the texts of the configuration.
    pub fn parse(host: Option<&str>, path: Option<&str>) -> Result<Self, PatternError> {
        Ok(Self { host: host.map(str::parse).transpose()?, path: path.map(str::parse).transpose()? })
    }

    /// Whether a request belongs here. `path` is one of [`normalise_path`], without its query.
    pub fn matches(&self, authority: &str, path: &str) -> bool {
        self.matches_host(authority) && self.path.as_ref().is_none_or(|prefix| prefix.matches(path))
    }

    /// Whether requests to this host can belong here.
    pub fn matches_host(&self, authority: &str) -> bool {
        self.host.as_ref().is_none_or(|pattern| pattern.matches(authority))
    }

    /// Whether requests to any host can belong here.
    pub fn takes_every_host(&self) -> bool {
        self.host.is_none()
    }

    /// Whether no path of a host it matches is left to later routes.
    pub fn takes_every_path(&self) -> bool {
        self.path.as_ref().is_none_or(|prefix| prefix.0.is_empty())
    }

    /// Whether everything that `other` matches is matched here too.
    pub fn covers(&self, other: &Self) -> bool {
        let host = match (&self.host, &other.host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(others)) => mine.covers(others),
        };
        let path = match (&self.path, &other.path) {
            _ if self.takes_every_path() => true,
            (Some(mine), Some(others)) => mine.matches(&others.0),
            _ => false,
        };
        host && path
    }

    /// `path` without the prefix of this route, `/` at least. A path that is not below it stays whole.
    pub fn strip<'a>(&self, path: &'a str) -> &'a str {
        self.path.as_ref().map_or(path, |prefix| prefix.strip(path))
    }
}

impl HostPattern {
    /// Whether `authority` is one of these hosts. A pattern without a port matches any; one with a port matches that
    /// port, and for 80 and 443 also an authority that leaves the default port of its scheme out.
    pub fn matches(&self, authority: &str) -> bool {
        let (host, port) = split_port(authority);
        self.matches_name(host) && self.matches_port(port)
    }

    fn matches_name(&self, host: &str) -> bool {
        match &self.name {
            Name::Exact(name) => host.eq_ignore_ascii_case(name),
            Name::Below(suffix) => is_below(host, suffix),
        }
    }

    fn matches_port(&self, port: Option<&str>) -> bool {
        match (self.port, port) {
            (None, _) => true,
            (Some(wanted), Some(port)) => port.parse() == Ok(wanted),
            (Some(wanted), None) => matches!(wanted, 80 | 443),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        let port = self.port.is_none() || self.port == other.port;
        let name = match (&self.name, &other.name) {
            (Name::Exact(mine), Name::Exact(others)) => mine == others,
            (Name::Below(mine), Name::Exact(others)) => is_below(others, mine),
            (Name::Below(mine), Name::Below(others)) => others.ends_with(&**mine),
            (Name::Exact(_), Name::Below(_)) => false,
        };
        port && name
    }
}

/// Whether `host` is a label or several before `suffix`, which begins with a dot.
fn is_below(host: &str, suffix: &str) -> bool {
    let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
    host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
}

/// The host, with the brackets of an IPv6 address, and what stands behind the colon.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port).filter(|port| !port.is_empty())),
        _ => (authority, None),
    }
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Err(PatternError::AnyHost);
        }
        let (below, host) = match text.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, text),
        };
        // No scheme, so that a port stays whatever it is.
        let authority = normalise_authority("", host).map_err(|_| PatternError::Host)?;
        if authority.contains('*') || (below && authority.starts_with(['[', '.'])) {
            return Err(PatternError::Host);
        }
        let (host, port) = split_port(&authority);
        let port = port.map(|port| port.parse().map_err(|_| PatternError::Host)).transpose()?;
        let name = if below { Name::Below(format!(".{host}").into()) } else { Name::Exact(host.into()) };
        Ok(Self { name, port })
    }
}

impl PathPrefix {
    /// Whether `path` is this path or below it. `path` is one of [`normalise_path`].
    pub fn matches(&self, path: &str) -> bool {
        path.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// `path` without this prefix, `/` at least. A path that is not below it stays whole.
    pub fn strip<'a>(&self, path: &'a str) -> &'a str {
        match path.strip_prefix(&*self.0) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }

    /// The path, without a slash at its end; empty for `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathPrefix {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if !text.starts_with('/') {
            return Err(PatternError::PathRelative);
        }
        if text.chars().any(|character| matches!(character, '?' | '#' | ' ') || character.is_control()) {
            return Err(PatternError::PathCharacter);
        }
        Ok(Self(normalise_path(text).trim_end_matches('/').into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(pattern: &str, authority: &str) -> bool {
        pattern.parse::<HostPattern>().expect("a pattern").matches(authority)
    }

    fn path(prefix: &str) -> PathPrefix {
        prefix.parse().expect("a path")
    }

    fn table(routes: &[(Option<&str>, Option<&str>)]) -> RouteTable<usize> {
        let matcher = |(host, path): &(Option<&str>, Option<&str>)| Matcher::parse(*host, *path).expect("patterns");
        RouteTable::new(routes.iter().map(matcher).zip(0..).collect())
    }

    #[test]
    fn hosts() {
        assert!(host("shop.example", "shop.example"));
        assert!(host("Shop.Example", "SHOP.example:8080"));
        assert!(!host("shop.example", "www.shop.example"));
        assert!(!host("shop.example", "shop.example.evil"));
        assert!(host("*.example", "shop.example"));
        assert!(host("*.example", "a.shop.Example:81"));
        assert!(!host("*.example", "example"));
        assert!(!host("*.example", ".example"));
        assert!(!host("*.example", "shopexample"));
        assert!(host("[::1]", "[::1]:8080"));
        assert!(host("[::1]:8080", "[::1]:8080"));
        assert!(!host("[::1]:8080", "[::1]"));
    }

    #[test]
    fn ports() {
        assert!(host("shop.example:8080", "shop.example:8080"));
        assert!(!host("shop.example:8080", "shop.example:8081"));
        assert!(!host("shop.example:8080", "shop.example"));
        assert!(host("shop.example:80", "shop.example"));
        assert!(host("*.example:443", "shop.example"));
        assert!(!host("shop.example:80", "shop.example:443"));
    }

    #[test]
    fn refused_patterns() {
        for pattern in ["", "*.", "a*.example", "*.*.example", "shop.example/", "a b", "u@h", "h:x", "*.[::1]", "*..x"]
        {
            assert_eq!(pattern.parse::<HostPattern>(), Err(PatternError::Host), "{pattern}");
        }
        assert_eq!("*".parse::<HostPattern>(), Err(PatternError::AnyHost));
        assert_eq!("a".parse::<PathPrefix>(), Err(PatternError::PathRelative));
        assert_eq!("/a?b".parse::<PathPrefix>(), Err(PatternError::PathCharacter));
    }

    #[test]
    fn paths_match_at_segments() {
        assert!(path("/a/b").matches("/a/b"));
        assert!(path("/a/b").matches("/a/b/"));
        assert!(path("/a/b/").matches("/a/b"));
        assert!(path("/a/b").matches("/a/b/c"));
        assert!(!path("/a/b").matches("/a/bc"));
        assert!(path("/").matches("/x"));
        assert!(path("/%61/./b").matches("/a/b"));
        assert!(!path("/a").matches("*"));
    }

    #[test]
    fn stripping_leaves_a_path() {
        assert_eq!(path("/a").strip("/a"), "/");
        assert_eq!(path("/a").strip("/a/"), "/");
        assert_eq!(path("/a").strip("/a/b"), "/b");
        assert_eq!(path("/a").strip("/ab"), "/ab");
        assert_eq!(path("/").strip("/ab"), "/ab");
        assert_eq!(Matcher::default().strip("/a"), "/a");
    }

    #[test]
    fn routes_of_a_host_end_with_the_one_that_takes_the_rest() {
        let table = table(&[
            (Some("shop.example"), Some("/img")),
            (Some("other.example"), None),
            (None, Some("/api")),
            (Some("*.example"), Some("/")),
            (None, None),
        ]);
        let found = |authority| table.all_matching_host(authority).map(|(_, route)| *route).collect::<Vec<_>>();
        assert_eq!(found("shop.example"), [0, 2, 3]);
        assert_eq!(found("other.example"), [1]);
        assert_eq!(found("elsewhere"), [2, 4]);
    }

    #[test]
    fn a_route_for_any_host_is_found_by_no_name() {
        let table = table(&[(None, Some("/a")), (Some("*.example"), Some("/a")), (None, None)]);
        let found = |authority, path| table.find_named(authority, path).map(|(_, route)| *route);
        assert_eq!(found("shop.example", "/a/b"), Some(1));
        assert_eq!(found("shop.example", "/b"), None);
        assert_eq!(found("elsewhere", "/a"), None);
    }

    #[test]
    fn covering() {
        let covers = |one: (Option<&str>, Option<&str>), other: (Option<&str>, Option<&str>)| {
            let matcher = |(host, path)| Matcher::parse(host, path).expect("patterns");
            matcher(one).covers(&matcher(other))
        };
        assert!(covers((None, None), (Some("a.example"), Some("/x"))));
        assert!(covers((None, Some("/")), (None, None)));
        assert!(covers((Some("*.example"), None), (Some("a.example:80"), None)));
        assert!(covers((Some("*.example"), None), (Some("*.a.example"), None)));
        assert!(!covers((Some("*.a.example"), None), (Some("*.example"), None)));
        assert!(!covers((Some("a.example:80"), None), (Some("a.example"), None)));
        assert!(!covers((Some("a.example"), None), (None, None)));
        assert!(covers((None, Some("/a")), (None, Some("/a/b"))));
        assert!(!covers((None, Some("/a")), (None, Some("/ab"))));
        assert!(!covers((None, Some("/a")), (None, None)));
    }

    /// First match, written the slow way: labels and segments in lists.
    fn slow(routes: &[(Option<String>, Option<String>)], authority: &str, path: &str) -> Option<usize> {
        let labels = |host: &str| host.split('.').map(str::to_lowercase).collect::<Vec<_>>();
        let segments = |path: &str| path.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
        routes.iter().position(|(host, prefix)| {
            let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
            let host = host.as_deref().is_none_or(|pattern| {
                let (pattern, wanted) = pattern.split_once(':').unwrap_or((pattern, port));
                let (pattern, name) = (labels(pattern), labels(name));
                let named = match pattern.split_first() {
                    Some((star, rest)) if star == "*" => name.len() > rest.len() && name.ends_with(rest),
                    _ => name == pattern,
                };
                named && wanted == port
            });
            let prefix = prefix.as_deref().is_none_or(|prefix| {
                let mut prefix = segments(prefix);
                while prefix.last().is_some_and(String::is_empty) {
                    prefix.pop();
                }
                segments(path).starts_with(&prefix)
            });
            host && prefix
        })
    }

    proptest! {
        #[test]
        fn the_first_match_wins(
            routes in proptest::collection::vec((
                proptest::option::of("(\\*\\.)?[ab](\\.[abA]){0,2}(:81)?"),
                proptest::option::of("(/[ab]{0,2}){1,3}"),
            ), 0..6),
            authority in "[abB](\\.[ab]){0,3}(:8[12])?",
            path in "(/[ab]{0,2}){1,4}",
        ) {
            let borrowed: Vec<_> = routes.iter().map(|(host, path)| (host.as_deref(), path.as_deref())).collect();
            prop_assert_eq!(table(&borrowed).find(&authority, &path).copied(), slow(&routes, &authority, &path));
        }

        #[test]
        fn no_spelling_escapes_a_prefix(
            segments in proptest::collection::vec("(a|b|%61|\\.|%2e|\\.\\.|%2e%2E|\\.%2e|%2F|)", 0..8),
        ) {
            let raw = format!("/a/{}", segments.join("/"));
            let normal = normalise_path(&raw);
            // Where a server ends up that resolves the path itself.
            let mut stack = vec!["a".to_owned()];
            for segment in &segments {
                match &segment.replace("%2e", ".").replace("%2E", ".").replace("%61", "a")[..] {
                    "." => {}
                    ".." => drop(stack.pop()),
                    segment => stack.push(segment.to_owned()),
                }
            }
            let inside = stack.first().is_some_and(|first| first == "a");
            prop_assert_eq!(path("/a").matches(&normal), inside, "{} is {}", raw, normal);
        }

        #[test]
        fn what_covers_matches(
            one in (proptest::option::of("(\\*\\.)?a(\\.[ab]){0,1}"), proptest::option::of("(/[ab]){0,2}/")),
            other in (proptest::option::of("(\\*\\.)?a(\\.[ab]){0,1}"), proptest::option::of("(/[ab]){0,2}/")),
            authority in "[ab](\\.[ab]){0,2}",
            path in "(/[ab]){1,3}",
        ) {
            let matcher = |(host, path): &(Option<String>, Option<String>)| {
                Matcher::parse(host.as_deref(), path.as_deref()).expect("patterns")
            };
            let (one, other) = (matcher(&one), matcher(&other));
            if one.covers(&other) && other.matches(&authority, &path) {
                prop_assert!(one.matches(&authority, &path));
            }
        }
    }
}
