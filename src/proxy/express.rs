//! What needs nothing but memory is answered at once: no task, no copy of the request, nothing waited for.
//!
//! For a request that the HTTP library has parsed, and for one that has only been looked at where it lies.

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use tokio::time::Instant;

use super::{
    Proxy, ProxyRoute, X_CACHE,
    admission::NotAtOnce,
    arriving::Noted,
    finish::{Sent, Told},
    limited::Who,
    request_target::RequestTarget,
    traced::{TRACEPARENT, Traced, trace_id, traceparent},
};
use crate::{
    cache::{
        Answer, Body, NotPlain, PlainHit,
        target::{Target, View},
    },
    object::{
        path::{normalise_authority, normalise_path},
        plain::Plain,
    },
    tenants::Lines,
};

/// Longest content that is written behind the head of an answer.
const COPIED_MAX: usize = 4096;

/// How a request came.
#[derive(Debug, Clone, Copy)]
pub struct Came<'a> {
    /// From where.
    pub address: IpAddr,
    /// By which scheme.
    pub scheme: &'static str,
    /// See [`super::Client::within`].
    pub within: Option<&'a str>,
    /// See [`super::Client::tenant`].
    pub tenant: Option<&'a str>,
}

impl Proxy {
    /// Answers at once what can be: a fresh response in memory, to a request without content. Nothing of the request is
    /// kept or copied.
    pub fn at_once<B>(&self, request: &Request<B>, came: Came<'_>) -> Option<Response<Sent>> {
        let Came { address, scheme, within, tenant } = came;
        let (method, headers) = (request.method(), request.headers());
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let noted = Noted::of(headers);
        let settled = self.is_settled(headers, noted, address);
        if noted.upgrade || !settled || (noted.cdn_loop && self.looped(headers)) {
            return None;
        }
        let begun = Instant::now();
        let target = RequestTarget::of(request.uri(), request.version(), headers, scheme).ok()?;
        // In a tunnel, whatever else it may be is for [`Proxy::handle`] to say.
        if within.is_some_and(|within| target.scheme != "https" || *within != *target.authority) {
            return None;
        }
        let path = request.uri().path();
        let route = self.route(within.is_some(), &target.authority, path)?;
        let site = site(route, target.scheme, &target.authority);
        let (query, forwarded) = (request.uri().query(), self.believes(noted, address));
        let tenant = self.admitted_at_once(route, tenant, |name| Lines::of(headers, name)).ok()?;
        let whose = tenant.as_deref().map(|tenant| &*tenant.name);
        let view = View { scheme: target.scheme, path, query, site: &site, forwarded, tenant: whose };
        let Answer { mut response, outcome } = self.inner.cache.hit(&route.cache, view, method, headers, begun)?;
        let passed = self.within_at_once(route, Who { peer: address, tenant: whose, fields: headers }, begun)?;
        let request_id = self.inner.ids.of(headers);
        let mut record = self.record(&route.metrics, begun, || {
            let (to, route) = (self.listeners(begun, true)?, &route.cache.name);
            Some(Self::told(to, self.cache(), request, address, &target.authority, route, begun, request_id.clone()))
        });
        record.tenant = tenant;
        record.traced(self.hit_span(|| Traced {
            traceparent: traceparent(headers),
            begun,
            method,
            path,
            scheme: target.scheme,
            authority: &target.authority,
            route: &route.cache.name,
        }));
        if let Some(limits) = &route.limits {
            limits.tell(&passed, response.headers_mut());
        }
        self.finish_head(response.headers_mut(), &outcome, request_id);
        record.answered(outcome, response.status());
        Some(response.map(|body| Sent::new(body, record)))
    }

    /// As [`Proxy::at_once`], for a plain request: writes the head of its answer to `head`, with it the content where that
    /// is short, and returns the rest.
    ///
    /// # Errors
    /// Where there is no such answer; nothing has been written then.
    pub fn express(&self, request: &Plain<'_>, came: Came<'_>, head: &mut Vec<u8>) -> Result<Sent, NotPlain> {
        let Came { address, scheme, within, tenant } = came;
        let noted = Noted::of_plain(request);
        if noted.cdn_loop || self.is_forged(noted, address) || request.host.is_empty() {
            return Err(NotPlain::Request);
        }
        let begun = Instant::now();
        let authority = normalise_authority(scheme, request.host).map_err(|_| NotPlain::Request)?;
        if within.is_some_and(|within| *within != *authority) {
            return Err(NotPlain::Request);
        }
        let (path, query) = (request.path(), request.query());
        let route = self.route(within.is_some(), &authority, path).ok_or(NotPlain::Request)?;
        let site = site(route, scheme, &authority);
        let tenant = self.admitted_at_once(route, tenant, |name| Lines::of_plain(request, name));
        let tenant = tenant.map_err(|NotAtOnce| NotPlain::Request)?;
        let (forwarded, whose) = (self.believes(noted, address), tenant.as_deref().map(|tenant| &*tenant.name));
        let view = View { scheme, path, query, site: &site, forwarded, tenant: whose };
        let start = head.len();
        let PlainHit { status, content, outcome } =
            self.inner.cache.plain_hit(&route.cache, view, request, begun, head)?;
        if let Some(limits) = &route.limits {
            let who = Who { peer: address, tenant: whose, fields: request };
            let Some(passed) = self.within_at_once(route, who, begun) else {
                head.truncate(start);
                // What is stored is not the answer: it need not be looked for again.
                return Err(NotPlain::Nothing);
            };
            limits.write(&passed, head);
        }
        let request_id = self.write_request_id(request, head);
        if self.inner.headers.x_cache {
            for piece in [X_CACHE.as_str(), ": HIT\r\n"] {
                head.extend_from_slice(piece.as_bytes());
            }
        }
        head.extend_from_slice(b"\r\n");
        let mut record = self.record(&route.metrics, begun, || {
            self.told_plain(request, status, &authority, route, request_id.map(|range| &head[range]), address, begun)
        });
        record.tenant = tenant;
        record.traced(self.hit_span(|| Traced {
            traceparent: request.get(TRACEPARENT.as_str()),
            begun,
            method: &Method::GET,
            path,
            scheme,
            authority: &authority,
            route: &route.cache.name,
        }));
        record.answered(outcome, status);
        let body = match content {
            // To copy a little costs less than to share it and to have the socket gather two pieces.
            Some(entry) if entry.content().len() <= COPIED_MAX => {
                head.extend_from_slice(entry.content());
                record.sent = entry.content().len() as u64;
                Body::Empty
            }
            Some(entry) => Body::Full(entry.body()),
            None => Body::Empty,
        };
        Ok(Sent::new(body, record))
    }

    fn route(&self, verified: bool, authority: &str, path: &str) -> Option<&Arc<ProxyRoute>> {
        self.entry(verified, authority, &normalise_path(path)).map(|(_, route)| route)
    }

    /// Writes the line that tells the request's id; the place of the id in `head`.
    fn write_request_id(&self, request: &Plain<'_>, head: &mut Vec<u8>) -> Option<std::ops::Range<usize>> {
        let field = self.inner.ids.field()?.as_str();
        head.extend_from_slice(field.as_bytes());
        head.extend_from_slice(b": ");
        let start = head.len();
        self.inner.ids.write(request.get(field), head);
        let end = head.len();
        head.extend_from_slice(b"\r\n");
        Some(start..end)
    }

    #[expect(clippy::too_many_arguments, reason = "what a line of the log tells, put together here once")]
    fn told_plain(
        &self,
        request: &Plain<'_>,
        status: StatusCode,
        authority: &str,
        route: &ProxyRoute,
        request_id: Option<&[u8]>,
        client: IpAddr,
        begun: Instant,
    ) -> Option<Box<Told>> {
        let to = self.listeners(begun, true)?;
        let field = |value: &[u8]| HeaderValue::from_bytes(value).ok();
        Some(Box::new(Told {
            to,
            time: self.inner.cache.clock().wall(begun),
            client,
            method: Method::GET,
            uri: request.target.parse().unwrap_or_default(),
            authority: authority.into(),
            version: Version::HTTP_11,
            route: Arc::clone(&route.cache.name),
            request_id: request_id.and_then(field),
            trace_id: trace_id(request.get(TRACEPARENT.as_str())),
            user_agent: request.get(header::USER_AGENT.as_str()).and_then(field),
            status: status.as_u16(),
            head_after: Duration::ZERO,
            broken: false,
            receipt: None,
        }))
    }
}

fn site<'a>(route: &'a ProxyRoute, scheme: &str, authority: &str) -> Cow<'a, str> {
    match &route.cache.site {
        Some(site) => Cow::Borrowed(site),
        None => Cow::Owned(Target::site_of(scheme, authority)),
    }
}
