//! From a URL, as a client of the gateway would name it, to what the cache knows of it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use http::{HeaderMap, Method};
use url::Url;

use super::{Proxied, Proxy, admission::Known, place::Found};
use crate::{
    cache::{explain::Explanation, route::Route, target::Target},
    object::{
        entry::Entry,
        path::{normalise_authority, normalise_path},
    },
};

/// A URL's route and target.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The route a request for it falls on.
    pub route: Arc<Route>,
    /// What it asks for.
    pub target: Target,
    /// Whether a key is needed for it.
    pub gated: bool,
}

/// A request to be explained.
#[derive(Debug, Clone)]
pub struct Explained<'a> {
    /// Absolute.
    pub url: &'a str,
    /// Its method.
    pub method: &'a Method,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its content.
    pub body: &'a [u8],
    /// The tenant it is of. It goes before a key in its fields.
    pub tenant: Option<&'a str>,
}

/// A text that is no URL a client could ask for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Not absolute, or no URL at all.
    #[error("{url:?} is not an absolute URL: {reason}")]
    NotAbsolute {
        /// The text.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another scheme.
    #[error("{url:?} is neither http nor https")]
    Scheme {
        /// The text.
        url: String,
    },
}

impl Proxy {
    /// What a request for `url` falls on. A host that no route answers for is the forward proxy's.
    ///
    /// # Errors
    /// Where `url` is not an absolute http or https URL.
    pub fn resolve(&self, url: &str) -> Result<Resolved, ResolveError> {
        self.resolve_as(url, false)
    }

    /// The same, for a request that came in an opened tunnel if it is `verified`.
    pub(super) fn resolve_as(&self, url: &str, verified: bool) -> Result<Resolved, ResolveError> {
        let (proxied, target) = self.resolve_whole(url, verified)?;
        Ok(Resolved { route: Arc::clone(proxied.cache_route()), target, gated: proxied.gate().is_some() })
    }

    fn resolve_whole(&self, url: &str, verified: bool) -> Result<(Proxied, Target), ResolveError> {
        let parsed = Url::parse(url)
            .map_err(|error| ResolveError::NotAbsolute { url: url.to_owned(), reason: error.to_string() })?;
        let scheme = match parsed.scheme() {
            "http" => "http",
            "https" => "https",
            _ => return Err(ResolveError::Scheme { url: url.to_owned() }),
        };
        let authority = parsed.authority();
        let authority = normalise_authority(scheme, authority)
            .map_err(|error| ResolveError::NotAbsolute { url: url.to_owned(), reason: error.to_string() })?;
        // Path and query as they stand in the text: `Url` resolves dot segments and encodes what a client need not, and
        // keys hold what a client sends.
        let (path, query) = raw_target(url).unwrap_or((parsed.path(), parsed.query()));
        let normal = normalise_path(path);
        let Found { proxied, aliased, .. } = self.find(verified, scheme, &authority, (path, &normal, query));
        let route = proxied.cache_route();
        let target = match aliased {
            None => Target::new(route, scheme, &authority, path, &normal, query),
            Some(aliased) => {
                let (path, query) = (aliased.path(), aliased.query());
                Target::new(route, scheme, &authority, path, &normalise_path(path), query)
            }
        };
        Ok((proxied, target))
    }

    /// What a request would meet now. It is taken to come from a trusted proxy, where there is one.
    ///
    /// # Errors
    /// Where `url` is not an absolute http or https URL.
    pub async fn explain(&self, asked: Explained<'_>) -> Result<Explanation, ResolveError> {
        let Explained { url, method, mut headers, body, tenant } = asked;
        let (proxied, target) = self.resolve_whole(url, false)?;
        let route = proxied.cache_route();
        let proxy = self.headers_config().trusted.first().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), ipnet::IpNet::addr);
        let forwarded = self.settle(&mut headers, proxy);
        let refused = self.inner.routes.find_entry(&target.authority, &target.normal_path);
        let refused = refused.is_some_and(|(matcher, route)| route.is_left_by(matcher, &target.path));
        let known = Known { speaks_for: tenant, forwarded: matches!(proxied, Proxied::Forward(_)) };
        let (tenant, denied) = match self.admitted(&proxied, known, &mut headers).await {
            Ok(tenant) => (tenant, None),
            Err(denied) => (None, Some(denied)),
        };
        let target = Target { forwarded, tenant, ..target };
        let mut explanation = self.cache().explain(route, &target, method, &headers, body).await;
        if let Some(denied) = denied {
            explanation.verdict = format!("refused: {denied}");
        }
        if refused {
            "refused: its dot segments could lead out of the path of its route or upstream"
                .clone_into(&mut explanation.verdict);
        }
        Ok(explanation)
    }

    /// The route that `entry` is of: of those its URL may fall on, in a tunnel or out of it, the one that gives it the scope
    /// it has.
    pub fn route_of(&self, entry: &Entry) -> Option<Arc<Route>> {
        let url = entry.scopes().first().copied();
        let [plain, verified] = [false, true].map(|verified| self.resolve_as(entry.url(), verified).ok());
        let is_its = |resolved: &Resolved| Some(resolved.target.url_scope(&resolved.route)) == url;
        let found = verified.filter(|verified| is_its(verified) && !plain.as_ref().is_some_and(is_its)).or(plain);
        found.map(|resolved| resolved.route)
    }

    /// Names of all routes, that of the forward proxy last.
    pub fn route_names(&self) -> Vec<String> {
        let routes = self.routes().iter().map(|(_, route)| &route.cache).chain([&self.inner.forward_route.cache]);
        routes.map(|route| route.name.to_string()).collect()
    }

    /// Brings the most used entries of the disk tier back into memory: up to `max` of them.
    pub async fn preload(&self, max: usize) {
        self.cache().preload(max, |url| self.resolve(url).ok().map(|resolved| resolved.route)).await;
    }

    /// The sites that a purge of all of `authority` has to cover: its own, for either scheme, and those of routes that
    /// answer for it without regard to the authority.
    pub fn sites_of_host(&self, authority: &str) -> Vec<Arc<str>> {
        let authority = authority.to_ascii_lowercase();
        let mut sites: Vec<Arc<str>> =
            ["http", "https"].map(|scheme| Target::site_of(scheme, &authority).into()).into();
        let routes = self.inner.routes.all_matching_host(&authority);
        sites.extend(routes.filter_map(|(_, route)| route.cache.site.clone()));
        sites
    }
}

/// Path and query of an absolute URL, as written; `None` if no client could send them so.
fn raw_target(url: &str) -> Option<(&str, Option<&str>)> {
    let after_scheme = url.split_once("://")?.1;
    let authority = after_scheme.find(['/', '\\', '?', '#']).unwrap_or(after_scheme.len());
    let target = after_scheme[authority..].split('#').next().unwrap_or_default();
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    match path {
        "" => Some(("/", query)),
        path => path.starts_with('/').then_some((path, query)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_as_written() {
        for (url, target) in [
            ("http://a", Some(("/", None))),
            ("http://a?b=/c", Some(("/", Some("b=/c")))),
            ("http://a/b/../%7e?c='d'&e=\"f\"#g?h", Some(("/b/../%7e", Some("c='d'&e=\"f\"")))),
            ("http://a/b?", Some(("/b", Some("")))),
            ("http://a/b#c?d/e", Some(("/b", None))),
            ("http://a#b/c", Some(("/", None))),
            ("http://a\\b/c", None),
            ("http://a/\u{e9}", None),
            ("http://a/b c", None),
            ("/a", None),
        ] {
            assert_eq!(raw_target(url), target, "{url}");
        }
    }
}
