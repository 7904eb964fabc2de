//! What a request is as a span, and how the trace it belongs to goes on to its origin.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use super::{Proxy, finish::Record, leaving::Leaving};
use crate::{
    origin::Upstream,
    telemetry::trace::{self, Kind, Parent, Span, TraceId, Tracer},
};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request, as its span tells of it.
pub(super) struct Traced<'a> {
    pub(super) traceparent: Option<&'a [u8]>,
    pub(super) begun: Instant,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) scheme: &'static str,
    pub(super) authority: &'a str,
    pub(super) route: &'a str,
}

impl Proxy {
    /// What makes spans, where requests are traced.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.inner.tracer.as_ref()
    }

    /// The span of a request, where requests are traced; one that is not recorded tells the trace all the same.
    pub(super) fn span(&self, request: &Traced<'_>) -> Option<Box<Span>> {
        let parent = request.traceparent.and_then(Parent::parse);
        let name = name_of(request.method);
        let mut span = self.tracer()?.span(parent, name, Kind::Server, request.begun)?;
        if span.is_recorded() {
            span.set("http.request.method", name);
            span.set("url.path", request.path.to_owned());
            span.set("url.scheme", request.scheme);
            span.set("server.address", request.authority.to_owned());
            span.set("larder.route", request.route.to_owned());
        }
        Some(Box::new(span))
    }

    /// As [`Proxy::span`], for one that has been found in memory by now. Where nothing is traced, it is not asked.
    pub(super) fn hit_span<'r>(&self, request: impl FnOnce() -> Traced<'r>) -> Option<Box<Span>> {
        self.inner.tracer.as_ref()?;
        let request = &request();
        let span = self.span(request)?;
        let lookup = span.context().child_since("lookup", Kind::Internal, request.begun);
        if let Some(mut lookup) = lookup {
            lookup.set("larder.tier", "l1");
            lookup.set("larder.found", true);
        }
        Some(span)
    }
}

impl Record {
    /// It is traced by that span, which ends with it.
    pub(super) fn traced(&mut self, span: Option<Box<Span>>) {
        if let (Some(told), Some(span)) = (&mut self.told, &span) {
            told.trace_id = Some(span.context().own().trace);
        }
        self.span = span;
    }
}

impl Leaving {
    /// The exchange with the origin as a span, which is the parent of what the origin does.
    pub(super) fn span(
        &self,
        headers: &mut HeaderMap,
        path: &str,
        host: Option<&HeaderValue>,
        upstream: &Upstream,
    ) -> Option<Span> {
        let mut span = trace::child("origin", Kind::Client)?;
        if let Ok(parent) = HeaderValue::try_from(span.context().own().to_string()) {
            headers.insert(TRACEPARENT, parent);
        }
        let own = upstream.whole().map(|(_, authority)| authority);
        if let Some(address) = own.or_else(|| host.and_then(|host| host.to_str().ok())) {
            span.set("server.address", address.to_owned());
        }
        span.set("url.path", path.to_owned());
        span.set("larder.route", self.proxied.cache_route().name.to_string());
        Some(span)
    }
}

/// The trace a request says it belongs to.
pub(super) fn trace_id(traceparent: Option<&[u8]>) -> Option<TraceId> {
    traceparent.and_then(Parent::parse).map(|parent| parent.trace)
}

/// The field that tells of it.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(TRACEPARENT).map(HeaderValue::as_bytes)
}

/// The method, where it is one of those that are known: names of spans are few.
fn name_of(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        "QUERY" => "QUERY",
        "CONNECT" => "CONNECT",
        _ => "HTTP",
    }
}
