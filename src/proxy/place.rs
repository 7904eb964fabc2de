//! Where a request belongs: a route, or the forward proxy.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Uri, uri::PathAndQuery};

use super::{
    Client, Proxied, Proxy, ProxyRoute, behind::Aliased, leaving::CDN_LOOP, request_target::RequestTarget,
    rescue::Refusal, routes::Matcher,
};
use crate::{cache::target::Target, object::path::normalise_path, tenants::Tenant};

/// Where a request belongs.
pub(super) struct Placed {
    pub(super) proxied: Proxied,
    pub(super) target: Target,
    /// What it would ask for if it came by the route's own path.
    pub(super) aliased: Option<Uri>,
    /// Whether it came to the forward proxy, outside of tunnels.
    pub(super) forwarded: bool,
}

/// What a request falls on.
pub(super) struct Found<'a> {
    pub(super) proxied: Proxied,
    /// That of the route.
    pub(super) matcher: Option<&'a Matcher>,
    /// What it would ask for if it came by the route's own path.
    pub(super) aliased: Option<PathAndQuery>,
}

impl Placed {
    /// The same of a tenant.
    pub(super) fn of(self, tenant: Option<Arc<Tenant>>) -> Self {
        Self { target: Target { tenant, ..self.target }, ..self }
    }
}

impl Found<'_> {
    /// Whether only the forward proxy goes there.
    pub(super) fn is_forwarded(&self) -> bool {
        self.aliased.is_some() || matches!(self.proxied, Proxied::Forward(_))
    }
}

impl Proxy {
    /// Where a request belongs: a route, or the forward proxy.
    pub(super) fn place<B>(&self, request: &Request<B>, client: &Client) -> Result<Placed, Refusal> {
        if self.looped(request.headers()) {
            return Err(Refusal::Loop);
        }
        let uri = request.uri();
        let target = RequestTarget::of(uri, request.version(), request.headers(), client.scheme)?;
        if let Some(within) = &client.within {
            // What a client was shown a certificate for, and nothing else; no tunnel in a tunnel either.
            let meant = target.scheme == "https" && *target.authority == **within;
            if !meant || request.method() == Method::CONNECT {
                return Err(Refusal::Misdirected(Arc::clone(within)));
            }
        }
        if request.method() == Method::CONNECT {
            self.forward().admits(client)?;
            let target = Target::of_authority(&target.authority);
            return Ok(Placed { proxied: self.forward_itself(), target, aliased: None, forwarded: true });
        }
        let RequestTarget { scheme, authority, absolute } = target;
        let (verified, path) = (client.within.is_some(), uri.path());
        let normal = normalise_path(path);
        let found = self.find(verified, scheme, &authority, (path, &normal, uri.query()));
        let forwarded = !verified && found.is_forwarded();
        if forwarded {
            if !absolute {
                return Err(Refusal::NoRoute(format!("{authority}{normal}")));
            }
            self.forward().admits(client)?;
        }
        let Found { proxied, matcher, aliased } = found;
        let (path, query) = aliased.as_ref().map_or((path, uri.query()), |aliased| (aliased.path(), aliased.query()));
        let normal = if aliased.is_some() { normalise_path(path) } else { normal };
        if let (Proxied::Route(route), Some(matcher)) = (&proxied, matcher) {
            if route.is_left_by(matcher, path) {
                return Err(Refusal::BadTarget("its dot segments could lead out of the path of its route or upstream"));
            }
            if !route.upstream.has(route.own_part(path)) {
                return Err(Refusal::NoRoute(format!("{authority}{normal}")));
            }
        }
        let target = Target::new(proxied.cache_route(), scheme, &authority, path, &normal, query);
        Ok(Placed { proxied, target, aliased: aliased.map(Uri::from), forwarded })
    }

    /// The route of a request. One that was sent to its host, as its client has `verified`, is not for routes that take
    /// those of any.
    pub(super) fn entry(&self, verified: bool, authority: &str, path: &str) -> Option<(&Matcher, &Arc<ProxyRoute>)> {
        let routes = &self.inner.routes;
        if verified { routes.find_named(authority, path) } else { routes.find_entry(authority, path) }
    }

    /// What a request for that path (as it came, normalised, and its query) of an authority falls on.
    pub(super) fn find(
        &self,
        verified: bool,
        scheme: &str,
        authority: &str,
        (path, normal, query): (&str, &str, Option<&str>),
    ) -> Found<'_> {
        if let Some((matcher, route)) = self.entry(verified, authority, normal) {
            return Found { proxied: Proxied::Route(Arc::clone(route)), matcher: Some(matcher), aliased: None };
        }
        match self.inner.behind.find(scheme, authority, path, query) {
            Some(Aliased { route, matcher, target }) => {
                Found { proxied: Proxied::Route(Arc::clone(route)), matcher: Some(matcher), aliased: Some(target) }
            }
            None => Found { proxied: self.forward_itself(), matcher: None, aliased: None },
        }
    }

    pub(super) fn forward_itself(&self) -> Proxied {
        Proxied::Forward(Arc::clone(&self.inner.forward_route))
    }

    /// Whether the request has been here before (RFC 8586).
    pub(super) fn looped(&self, headers: &HeaderMap) -> bool {
        let names = |line: &HeaderValue| {
            let mut members = line.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
            members.any(|member| {
                let id = member.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
                id == self.name().as_bytes()
            })
        };
        headers.get_all(CDN_LOOP).iter().any(names)
    }
}
