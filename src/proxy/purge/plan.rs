//! From what a request names to scopes, and how long they are held.

use std::{sync::Arc, time::Duration};

use super::{
    super::{Proxy, ResolveError, Resolved},
    error::PurgeError,
    request::{Hold, PurgeRequest},
};
use crate::object::{key::Key, scope::Scope};

/// Bytes of one tag.
pub const TAG_BYTES_MAX: usize = 1024;

/// Longest hold a call may ask for.
pub const HOLD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Scopes and hold of a request.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// Things the caller named.
    pub(super) named: usize,
    pub(super) scopes: Vec<Scope>,
    pub(super) hold: Duration,
}

/// Where what a request names leads.
pub(super) trait Directory {
    /// By a request to the gateway, and by one in a tunnel that it has opened.
    fn places(&self, url: &str) -> Result<Vec<Place>, ResolveError>;
    fn sites(&self, authority: &str) -> Vec<Arc<str>>;
    fn hold_max(&self) -> Duration;
}

pub(super) struct Place {
    authority: Arc<str>,
    site: Arc<str>,
    path: Arc<str>,
    url: Scope,
    hold: Duration,
}

impl Directory for Proxy {
    fn places(&self, url: &str) -> Result<Vec<Place>, ResolveError> {
        let place = |Resolved { target, route, .. }| {
            let (url, hold) = (target.url_scope(&route), route.policy.purge_hold);
            Place { authority: target.authority, site: target.site, path: target.normal_path, url, hold }
        };
        [false, true].into_iter().map(|verified| self.resolve_as(url, verified).map(place)).collect()
    }

    fn sites(&self, authority: &str) -> Vec<Arc<str>> {
        self.sites_of_host(authority)
    }

    fn hold_max(&self) -> Duration {
        let routes = self.routes().iter().map(|(_, route)| &route.cache).chain([&self.inner.forward_route.cache]);
        routes.map(|route| route.policy.purge_hold).max().unwrap_or_default()
    }
}

pub(super) fn plan(request: &PurgeRequest, directory: &impl Directory, scopes_max: usize) -> Result<Plan, PurgeError> {
    let named = [&request.urls, &request.keys, &request.tags, &request.prefixes, &request.hosts];
    let given: usize = named.iter().map(|list| list.len()).sum();
    match (request.all, given) {
        (false, 0) => return Err(PurgeError::Empty),
        (true, 1..) => return Err(PurgeError::AllAndMore),
        (_, given) if given > scopes_max => return Err(PurgeError::TooMany { given, max: scopes_max }),
        _ => {}
    }
    let mut planner = Planner { directory, scopes: Vec::with_capacity(given), hold: Duration::ZERO };
    if request.all {
        planner.scopes.push(Scope::everything());
    }
    request.urls.iter().try_for_each(|url| planner.url(url))?;
    request.keys.iter().try_for_each(|key| planner.key(key))?;
    request.tags.iter().try_for_each(|tag| planner.tag(tag))?;
    request.prefixes.iter().try_for_each(|prefix| planner.prefix(prefix))?;
    request.hosts.iter().try_for_each(|host| planner.host(host))?;
    let everywhere = request.all || !(request.keys.is_empty() && request.tags.is_empty() && request.hosts.is_empty());
    let configured = if everywhere { directory.hold_max() } else { planner.hold };
    let mut scopes = planner.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.len() > scopes_max {
        return Err(PurgeError::TooMany { given: scopes.len(), max: scopes_max });
    }
    let named = given.max(1);
    Ok(Plan { named, scopes, hold: hold(request.hold, configured)? })
}

fn hold(asked: Option<Hold>, configured: Duration) -> Result<Duration, PurgeError> {
    match asked {
        Some(Hold(hold)) if hold > HOLD_MAX => Err(PurgeError::HoldTooLong),
        Some(Hold(hold)) => Ok(hold),
        None => Ok(configured),
    }
}

struct Planner<'a, D> {
    directory: &'a D,
    scopes: Vec<Scope>,
    /// The longest hold of the routes of the URLs and prefixes.
    hold: Duration,
}

impl<D: Directory> Planner<'_, D> {
    fn url(&mut self, url: &str) -> Result<(), PurgeError> {
        for place in self.directory.places(url).map_err(PurgeError::Url)? {
            self.hold = self.hold.max(place.hold);
            self.scopes.push(place.url);
        }
        Ok(())
    }

    fn key(&mut self, text: &str) -> Result<(), PurgeError> {
        let key: Key = text.parse().map_err(|source| PurgeError::Key { key: text.to_owned(), source })?;
        self.scopes.push(Scope::key(&key));
        Ok(())
    }

    fn tag(&mut self, tag: &str) -> Result<(), PurgeError> {
        match tag {
            "" => return Err(PurgeError::Tag("an empty tag names nothing")),
            tag if tag.len() > TAG_BYTES_MAX => return Err(PurgeError::Tag("a tag has at most 1024 bytes")),
            tag if tag.trim() != tag => return Err(PurgeError::Tag("a tag has no blanks round it")),
            tag if tag.chars().any(char::is_control) => {
                return Err(PurgeError::Tag("a tag has no control characters"));
            }
            tag => self.scopes.push(Scope::tag(b"", tag)),
        }
        Ok(())
    }

    /// Of every site its host has: whatever scheme clients come by, and whichever of the host's routes answers.
    fn prefix(&mut self, text: &str) -> Result<(), PurgeError> {
        let refused = || PurgeError::Prefix(text.to_owned());
        let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (authority, path) = after_scheme.split_at(after_scheme.find('/').unwrap_or(after_scheme.len()));
        if !is_authority(authority) || path.contains(['?', '#']) {
            return Err(refused());
        }
        for place in self.places(authority, path).ok_or_else(refused)? {
            let sites = self.directory.sites(&place.authority).into_iter().chain([place.site]);
            self.scopes.extend(sites.map(|site| Scope::prefix(&site, &place.path)));
            self.hold = self.hold.max(place.hold);
        }
        Ok(())
    }

    fn host(&mut self, host: &str) -> Result<(), PurgeError> {
        let refused = || PurgeError::Host(host.to_owned());
        if !is_authority(host) {
            return Err(refused());
        }
        for place in self.places(host, "/").ok_or_else(refused)? {
            self.scopes.extend(self.directory.sites(&place.authority).iter().map(|site| Scope::site(site)));
            if &*place.path != "/" {
                // A route that leads to the host.
                self.scopes.push(Scope::prefix(&place.site, &place.path));
            }
        }
        Ok(())
    }

    /// By either scheme, as the two have different default ports.
    fn places(&self, authority: &str, path: &str) -> Option<Vec<Place>> {
        let places = |scheme: &str| self.directory.places(&format!("{scheme}://{authority}{path}")).ok();
        Some([places("http")?, places("https")?].into_iter().flatten().collect())
    }
}

fn is_authority(text: &str) -> bool {
    !text.contains('@') && text.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.host().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers for every host, with the site of its scheme; paths are taken as they are.
    struct AnyHost;

    impl Directory for AnyHost {
        fn places(&self, url: &str) -> Result<Vec<Place>, ResolveError> {
            let absolute = || ResolveError::NotAbsolute { url: url.to_owned(), reason: String::new() };
            let (scheme, rest) = url.split_once("://").ok_or_else(absolute)?;
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
            let authority = authority.trim_end_matches(if scheme == "http" { ":80" } else { ":443" });
            let site: Arc<str> = format!("{scheme}://{authority}").into();
            Ok(vec![Place {
                authority: authority.into(),
                url: Scope::url(&site, path, query),
                site,
                path: path.into(),
                hold: Duration::from_secs(2),
            }])
        }

        fn sites(&self, authority: &str) -> Vec<Arc<str>> {
            vec![format!("http://{authority}").into(), format!("https://{authority}").into()]
        }

        fn hold_max(&self) -> Duration {
            Duration::from_secs(9)
        }
    }

    fn planned(json: &str) -> Result<Plan, PurgeError> {
        let request: PurgeRequest = serde_json::from_str(json).expect("a purge request");
        plan(&request, &AnyHost, 10)
    }

    fn scopes(json: &str) -> Vec<Scope> {
        planned(json).expect("a plan").scopes
    }

    fn sorted(mut scopes: Vec<Scope>) -> Vec<Scope> {
        scopes.sort_unstable();
        scopes
    }

    #[test]
    fn each_selector_names_its_scopes() {
        assert_eq!(scopes(r#"{"all":true}"#), [Scope::everything()]);
        assert_eq!(scopes(r#"{"tags":["a b"]}"#), [Scope::tag(b"", "a b")]);
        assert_eq!(
            scopes(r#"{"urls":["http://shop.example/a?b=1"]}"#),
            [Scope::url("http://shop.example", "/a", Some("b=1"))]
        );
        let both = |scope: fn(&str) -> Scope| sorted(vec![scope("http://shop.example"), scope("https://shop.example")]);
        assert_eq!(scopes(r#"{"hosts":["shop.example"]}"#), both(Scope::site));
        let prefix = both(|site| Scope::prefix(site, "/a"));
        assert_eq!(scopes(r#"{"prefixes":["shop.example/a"]}"#), prefix);
        assert_eq!(scopes(r#"{"prefixes":["https://shop.example/a/"]}"#), prefix);
        let default_port = scopes(r#"{"hosts":["shop.example:80"]}"#);
        assert!(default_port.contains(&Scope::site("http://shop.example")), "port 80 is no port for http");
        assert!(default_port.contains(&Scope::site("http://shop.example:80")), "and one for https");
        let key = Key::from_bytes([7; 32]);
        assert_eq!(scopes(&format!(r#"{{"keys":["{key}"]}}"#)), [Scope::key(&key)]);
        assert_eq!(scopes(r#"{"tags":["a","a"]}"#).len(), 1);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let field = |json: &str| planned(json).expect_err("a refusal").field();
        assert!(matches!(planned("{}"), Err(PurgeError::Empty)));
        assert!(matches!(planned(r#"{"soft":true,"tags":[]}"#), Err(PurgeError::Empty)));
        assert_eq!(field(r#"{"all":true,"tags":["a"]}"#), Some("all"));
        for tag in ["", " a", "a\\n", "a\\u0000b"] {
            assert_eq!(field(&format!(r#"{{"tags":["ok","{tag}"]}}"#)), Some("tags"), "{tag:?}");
        }
        assert_eq!(field(&format!(r#"{{"tags":["{}"]}}"#, "x".repeat(1025))), Some("tags"));
        assert_eq!(field(r#"{"urls":["/a"]}"#), Some("urls"));
        assert_eq!(field(r#"{"keys":["12"]}"#), Some("keys"));
        for prefix in ["", "/a", "http:///a", "shop.example/a?b", "user@shop.example/a"] {
            assert_eq!(field(&format!(r#"{{"prefixes":["{prefix}"]}}"#)), Some("prefixes"), "{prefix:?}");
        }
        for host in ["", "a/b", "http://a", "user@a", ":80"] {
            assert_eq!(field(&format!(r#"{{"hosts":["{host}"]}}"#)), Some("hosts"), "{host:?}");
        }
        assert_eq!(field(r#"{"all":true,"hold":"25h"}"#), Some("hold"));
    }

    #[test]
    fn a_call_names_only_so_many_scopes() {
        let tags: Vec<String> = (0..11).map(|n| format!("t{n}")).collect();
        let request = PurgeRequest { tags, ..PurgeRequest::default() };
        assert!(matches!(plan(&request, &AnyHost, 10), Err(PurgeError::TooMany { given: 11, max: 10 })));
        assert!(plan(&request, &AnyHost, 11).is_ok());
    }

    #[test]
    fn the_hold_is_the_calls_or_the_routes() {
        let hold = |json: &str| planned(json).expect("a plan").hold.as_millis();
        assert_eq!(hold(r#"{"urls":["http://a/"]}"#), 2000);
        assert_eq!(hold(r#"{"tags":["a"]}"#), 9000);
        assert_eq!(hold(r#"{"tags":["a"],"hold":"1m 30s"}"#), 90_000);
        assert_eq!(hold(r#"{"tags":["a"],"hold":0}"#), 0);
        assert_eq!(hold(r#"{"tags":["a"],"hold":1.5}"#), 1500);
        for bad in ["-1", "-1.5", "\"soon\"", "true", "1e300"] {
            let json = format!(r#"{{"tags":["a"],"hold":{bad}}}"#);
            assert!(serde_json::from_str::<PurgeRequest>(&json).is_err(), "{bad}");
        }
    }
}
