//! Routes as the proxy runs them, and what a request falls on.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, uri::PathAndQuery};

use super::{
    X_CACHE,
    config::{HeaderRules, HeadersConfig, HostHeader},
    hosts::Hosts,
    metrics::{Metrics, RouteMetrics},
    routes::Matcher,
};
use crate::{
    cache,
    limit::RouteLimits,
    llm::provider::is_label,
    object::path::{has_dot_segments, normalise_authority},
    origin::{self, TargetPolicy, Upstream},
    tenants::Gate,
};

/// A route with all it needs at run time. Copies share what it has learnt.
#[derive(Clone)]
pub struct ProxyRoute {
    /// As the cache sees it.
    pub cache: Arc<cache::route::Route>,
    /// Its origin.
    pub upstream: Reached,
    /// Path prefix taken off before the request leaves.
    pub strip: Option<String>,
    /// Which `Host` the origin sees.
    pub host_header: HostHeader,
    /// Fields set on requests.
    pub request_set: Vec<(HeaderName, HeaderValue)>,
    /// Fields removed from requests.
    pub request_remove: Vec<HeaderName>,
    /// How much may be asked of it; `None`: as much as anybody likes.
    pub limits: Option<Arc<RouteLimits>>,
    /// Whom it lets in; `None`: nobody is asked.
    pub gate: Option<Gate>,
    pub(super) metrics: Arc<RouteMetrics>,
}

/// How the origin of a route is reached.
#[derive(Clone)]
pub enum Reached {
    /// One origin.
    One(Upstream),
    /// One of many, by the first segment of the path behind the route's own: a part of its host's name.
    Divided {
        /// Its base URL, with `{}` for that part.
        template: Box<str>,
        /// Those that were asked for.
        hosts: Arc<Divided>,
    },
}

/// Upstreams of a template that were asked for.
pub struct Divided(Hosts);

impl Reached {
    /// By a base URL with `{}` in its host; `max` of them are known at once.
    pub fn divided(template: &str, origin: origin::config::Config, max: usize) -> Self {
        Self::Divided {
            template: template.into(),
            hosts: Arc::new(Divided(Hosts::new(origin, TargetPolicy::Any, max))),
        }
    }

    /// Whether there is an origin for that part of a path.
    pub(super) fn has(&self, own: &str) -> bool {
        matches!(self, Self::One(_)) || is_label(own)
    }

    pub(super) fn of(&self, own: &str) -> Result<Upstream, origin::Error> {
        match self {
            Self::One(upstream) => Ok(upstream.clone()),
            // In lower case: hosts are the same in either.
            Self::Divided { template, hosts } => {
                hosts.0.upstream(template.replacen("{}", &own.to_ascii_lowercase(), 1))
            }
        }
    }

    /// The segment of a path that leads to that origin, empty where all do; `None` where none does.
    fn segment_to<'a>(&self, scheme: &str, authority: &'a str) -> Option<&'a str> {
        match self {
            Self::One(upstream) => {
                let (own_scheme, own) = upstream.whole()?;
                let leads = own_scheme == scheme && normalise_authority(scheme, own).is_ok_and(|own| own == authority);
                leads.then_some("")
            }
            Self::Divided { template, .. } => {
                let host = template.strip_prefix(scheme)?.strip_prefix("://")?;
                let (before, after) = host.split_once("{}")?;
                authority.strip_prefix(before)?.strip_suffix(after).filter(|own| is_label(own))
            }
        }
    }

    fn has_path(&self) -> bool {
        match self {
            Self::One(upstream) => upstream.has_path(),
            Self::Divided { .. } => true,
        }
    }
}

/// What a request falls on.
#[derive(Clone)]
pub enum Proxied {
    /// A configured route.
    Route(Arc<ProxyRoute>),
    /// The forward proxy.
    Forward(Arc<ForwardRoute>),
}

/// The forward proxy, as a route.
pub struct ForwardRoute {
    /// As the cache sees it.
    pub cache: Arc<cache::route::Route>,
    /// See [`ProxyRoute::limits`].
    pub limits: Option<Arc<RouteLimits>>,
    /// Whom it lets in; `None`: nobody is asked.
    pub gate: Option<Gate>,
    pub(super) metrics: Arc<RouteMetrics>,
}

impl ProxyRoute {
    /// Puts a route together.
    pub fn new(
        cache: Arc<cache::route::Route>,
        upstream: Reached,
        strip: Option<String>,
        host_header: HostHeader,
        request_set: Vec<(HeaderName, HeaderValue)>,
        request_remove: Vec<HeaderName>,
        metrics: &Metrics,
    ) -> Self {
        let metrics = metrics.route(&cache.name);
        let (gate, limits) = (None, None);
        Self { cache, upstream, strip, host_header, request_set, request_remove, gate, limits, metrics }
    }

    /// The same, behind a gate where there is one.
    #[must_use]
    pub fn behind(self, gate: Option<Gate>) -> Self {
        Self { gate, ..self }
    }

    /// The same route under these limits.
    pub fn limited(&self, limits: Option<Arc<RouteLimits>>) -> Arc<Self> {
        Arc::new(Self { limits, ..self.clone() })
    }

    /// Segments of a path that are the route's own and go no further.
    fn strip_segments(&self) -> usize {
        self.strip.as_ref().map_or(0, |prefix| prefix.matches('/').count())
    }

    /// The first segment of `path` behind them.
    pub(super) fn own_part<'a>(&self, path: &'a str) -> &'a str {
        path.split('/').nth(self.strip_segments() + 1).unwrap_or("")
    }

    /// The path by which this route is asked for `path` of that origin; `None` where it does not lead there.
    pub(super) fn path_to(&self, scheme: &str, authority: &str, path: &str) -> Option<String> {
        let segment = self.upstream.segment_to(scheme, authority).filter(|_| path.starts_with('/'))?;
        let slash = if segment.is_empty() { "" } else { "/" };
        Some([self.strip.as_deref().unwrap_or(""), slash, segment, path].concat())
    }

    /// Sets and removes the request fields the route names.
    pub(super) fn apply_request_rules(&self, headers: &mut HeaderMap) {
        for name in &self.request_remove {
            headers.remove(name);
        }
        for (name, value) in &self.request_set {
            headers.insert(name, value.clone());
        }
    }

    /// Whether `path`, as a client wrote it, may lead some origin out of where the route's requests belong: its path, the
    /// prefix it takes off, or the path of its upstream. Where there is none of these, dot segments are the origin's to
    /// resolve.
    pub(super) fn is_left_by(&self, matcher: &Matcher, path: &str) -> bool {
        (!matcher.takes_every_path() || self.upstream.has_path()) && has_dot_segments(path)
    }

    /// What the origin is asked for: the client's bytes, less the prefix where the route takes it off.
    ///
    /// The prefix goes by its number of segments, however the client spells them. A path with dot segments, of which
    /// that would not be true, does not get here.
    pub(super) fn stripped(&self, whole: &PathAndQuery) -> PathAndQuery {
        let segments = self.strip_segments() + usize::from(matches!(self.upstream, Reached::Divided { .. }));
        if segments == 0 {
            return whole.clone();
        }
        let path = whole.path();
        let end = path.match_indices('/').nth(segments).map_or(path.len(), |(place, _)| place);
        let rest = &whole.as_str()[end..];
        let rest = if rest.starts_with('/') { rest.parse() } else { format!("/{rest}").parse() };
        rest.unwrap_or_else(|_| whole.clone())
    }
}

impl Proxied {
    pub(super) fn cache_route(&self) -> &Arc<cache::route::Route> {
        match self {
            Self::Route(route) => &route.cache,
            Self::Forward(forward) => &forward.cache,
        }
    }

    /// Whom it lets in; `None`: nobody is asked.
    pub(super) fn gate(&self) -> Option<&Gate> {
        match self {
            Self::Route(route) => route.gate.as_ref(),
            Self::Forward(forward) => forward.gate.as_ref(),
        }
    }

    pub(super) fn limits(&self) -> Option<&Arc<RouteLimits>> {
        match self {
            Self::Route(route) => route.limits.as_ref(),
            Self::Forward(forward) => forward.limits.as_ref(),
        }
    }

    pub(super) fn metrics(&self) -> &Arc<RouteMetrics> {
        match self {
            Self::Route(route) => &route.metrics,
            Self::Forward(forward) => &forward.metrics,
        }
    }

    /// Whether keys hold the authority, so that the origin may be told of it.
    pub(super) fn depends_on_authority(&self) -> bool {
        self.cache_route().site.is_none()
    }
}

/// The fields that the proxy writes itself.
pub fn own_fields(config: &HeadersConfig) -> cache::route::OwnFields {
    let request_id: Option<HeaderName> = config.request_id.parse().ok();
    let answers = request_id.iter().cloned().chain(config.x_cache.then_some(X_CACHE)).collect();
    cache::route::OwnFields { request_id, answers }
}

/// Compiles rules that the configuration has validated.
pub fn compile(rules: &HeaderRules) -> (Vec<(HeaderName, HeaderValue)>, Vec<HeaderName>, cache::route::ResponseRules) {
    let names = |list: &[String]| list.iter().filter_map(|name| name.parse().ok()).collect::<Vec<HeaderName>>();
    let fields = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).collect::<Vec<_>>()
    };
    let response =
        cache::route::ResponseRules { set: fields(&rules.response_set), remove: names(&rules.response_remove) };
    (fields(&rules.request_set), names(&rules.request_remove), response)
}
