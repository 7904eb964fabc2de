//! What surrounds every request: target, route, loop check, the cache, and what the answer carries.
//!
//! ```text
//!  request ─▶ arriving ─▶ request_target ─▶ routes ─┬─▶ tunnel (CONNECT, Upgrade)
//!                                                   └─▶ cache ─▶ leaving ─▶ origin
//!                                                         │
//!  answer ◀─ finish (line, counters) ◀────────────────────┴─ rescue (problem+json, Proxy-Status)
//! ```

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, header};
use tokio::time::Instant;

mod admission;
mod arriving;
mod behind;
mod client;
pub mod config;
mod express;
mod finish;
mod forward;
mod forwarded;
mod hosts;
mod internal;
mod leaving;
mod limited;
mod live;
mod metrics;
mod place;
mod proxied;
pub mod purge;
pub mod purge_method;
mod purging;
mod request_id;
mod request_target;
mod rescue;
mod resolve;
pub mod routes;
pub mod stats;
mod traced;
mod tunnel;
mod upgrade;

use self::{
    admission::Known,
    behind::Behind,
    config::{ForwardConfig, HeadersConfig},
    finish::{Listeners, Record, Told},
    forward::Forward,
    leaving::Leaving,
    limited::Who,
    metrics::RouteMetrics,
    place::Placed,
    purging::Hooks,
    request_id::RequestIds,
    rescue::Refusal,
    routes::RouteTable,
    traced::{Traced, trace_id, traceparent},
};
pub use self::{
    client::{Client, ClientFault, Interceptor, InterimSink, Opening},
    express::Came,
    finish::Sent,
    live::Live,
    metrics::Metrics,
    proxied::{ForwardRoute, Proxied, ProxyRoute, Reached, compile, own_fields},
    purging::{PurgeAnswerer, PurgeListener},
    resolve::{Explained, ResolveError, Resolved},
    tunnel::Guards,
};
use crate::{
    cache::{Answer, Cache, Call, Failure, Kind, Outcome, target::Target},
    limit::{Passed, RouteLimits},
    origin::{self, RequestBody, Upstream},
    telemetry::{
        AccessLog, Recent,
        trace::{self, Tracer, Work},
    },
    tenants::{Gate, Tenants},
};

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// The proxy. Copies share everything.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Cache,
    routes: RouteTable<Arc<ProxyRoute>>,
    behind: Behind,
    forward_route: Arc<ForwardRoute>,
    forward: Arc<Forward>,
    headers: HeadersConfig,
    via: [HeaderValue; 3],
    loop_mark: HeaderValue,
    ids: RequestIds,
    tenants: Tenants,
    access: Option<AccessLog>,
    tracer: Option<Tracer>,
    recent: Recent,
    metrics: Metrics,
    body_bytes_max: u64,
    hooks: Arc<Hooks>,
}

/// What a proxy is made of.
pub struct Parts {
    /// The cache behind it.
    pub cache: Cache,
    /// Routes, in order.
    pub routes: RouteTable<Arc<ProxyRoute>>,
    /// Routes that those before leave no requests to but what comes through the forward proxy.
    pub unreached: RouteTable<Arc<ProxyRoute>>,
    /// The forward proxy as the cache sees it.
    pub forward_route: Arc<crate::cache::route::Route>,
    /// How much may be asked of it.
    pub forward_limits: Option<Arc<RouteLimits>>,
    /// Whom the forward proxy lets in; `None`: nobody is asked.
    pub forward_gate: Option<Gate>,
    /// `[forward]`.
    pub forward: ForwardConfig,
    /// `[origin]`, for the forward proxy.
    pub origin: origin::config::Config,
    /// `[headers]`.
    pub headers: HeadersConfig,
    /// Whom requests can be of.
    pub tenants: Tenants,
    /// Where request lines go.
    pub access: Option<AccessLog>,
    /// What makes spans of requests, where they are traced.
    pub tracer: Option<Tracer>,
    /// Where requests are kept to be looked at.
    pub recent: Recent,
    /// Largest request content.
    pub body_bytes_max: u64,
}

impl Proxy {
    /// Puts a proxy together. Where it is to take the place of an `earlier` one, it goes on with what that has: tunnels
    /// and hosts of the forward proxy where its settings are the same, and who hears of purges.
    pub fn new(parts: Parts, metrics: Metrics, earlier: Option<&Self>) -> Self {
        let Parts {
            cache,
            routes,
            unreached,
            forward_route,
            forward_limits,
            forward_gate,
            forward,
            origin,
            headers,
            tenants,
            access,
            recent,
            tracer,
            body_bytes_max,
        } = parts;
        let pseudonym = &headers.pseudonym;
        let via = ["1.0", "1.1", "2.0"].map(|version| field(&format!("{version} {pseudonym}")));
        let forward_route = Arc::new(ForwardRoute {
            metrics: metrics.route(&forward_route.name),
            cache: forward_route,
            gate: forward_gate,
            limits: forward_limits,
        });
        let inner = Inner {
            via,
            loop_mark: field(pseudonym),
            ids: RequestIds::new(&headers.request_id),
            forward: earlier
                .and_then(|earlier| earlier.inner.forward.of(&forward, &origin))
                .unwrap_or_else(|| Arc::new(Forward::new(forward, origin))),
            cache,
            behind: Behind::new(&routes, &unreached),
            routes,
            forward_route,
            headers,
            tenants,
            access,
            tracer,
            recent,
            metrics,
            body_bytes_max,
            hooks: earlier.map(|earlier| Arc::clone(&earlier.inner.hooks)).unwrap_or_default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The cache behind it.
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// Its routes, in order.
    pub fn routes(&self) -> &RouteTable<Arc<ProxyRoute>> {
        &self.inner.routes
    }

    /// The last requests.
    pub fn recent(&self) -> &Recent {
        &self.inner.recent
    }

    pub(self) fn headers_config(&self) -> &HeadersConfig {
        &self.inner.headers
    }

    pub(self) fn request_ids(&self) -> &RequestIds {
        &self.inner.ids
    }

    pub(self) fn forward(&self) -> &Forward {
        &self.inner.forward
    }

    fn name(&self) -> &str {
        &self.inner.headers.pseudonym
    }

    fn via(&self, version: Version) -> HeaderValue {
        let place = match version {
            Version::HTTP_10 => 0,
            Version::HTTP_2 => 2,
            _ => 1,
        };
        self.inner.via[place].clone()
    }

    fn loop_mark(&self) -> HeaderValue {
        self.inner.loop_mark.clone()
    }

    fn upstream(
        &self,
        proxied: &Proxied,
        scheme: &str,
        authority: &str,
        path: &str,
    ) -> Result<Upstream, origin::Error> {
        match proxied {
            Proxied::Route(route) => route.upstream.of(route.own_part(path)),
            Proxied::Forward(_) => self.forward().upstream(scheme, authority),
        }
    }

    fn record(&self, metrics: &Arc<RouteMetrics>, begun: Instant, told: impl FnOnce() -> Option<Box<Told>>) -> Record {
        metrics.begun();
        Record {
            metrics: Arc::clone(metrics),
            begun,
            tenant: None,
            outcome: Outcome::of(Kind::Synthesised),
            sent: 0,
            status: None,
            told: told(),
            span: None,
        }
    }

    /// Who is told of a request, if anybody is: of a `plain` hit, which a note would cost the most, only who looks.
    fn listeners(&self, begun: Instant, plain: bool) -> Option<Listeners> {
        let Inner { access, recent, .. } = &*self.inner;
        let noted = recent.is_on() && (!plain || recent.is_watched(begun));
        let to = Listeners { log: access.clone(), recent: noted.then(|| recent.clone()) };
        (to.log.is_some() || noted).then_some(to)
    }

    /// What is told of a request.
    #[expect(clippy::too_many_arguments, reason = "what a line of the log tells, put together here once")]
    fn told<B>(
        to: Listeners,
        cache: &Cache,
        request: &Request<B>,
        client: IpAddr,
        authority: &str,
        route: &Arc<str>,
        begun: Instant,
        request_id: Option<HeaderValue>,
    ) -> Box<Told> {
        Box::new(Told {
            to,
            time: cache.clock().wall(begun),
            client,
            method: request.method().clone(),
            uri: request.uri().clone(),
            authority: authority.into(),
            version: request.version(),
            route: Arc::clone(route),
            request_id,
            trace_id: trace_id(traceparent(request.headers())),
            user_agent: request.headers().get(header::USER_AGENT).cloned(),
            // What is told of a client that goes away before its answer.
            status: 499,
            head_after: Duration::ZERO,
            broken: false,
            receipt: None,
        })
    }

    /// Answers a request, whatever it takes.
    pub async fn handle(&self, mut request: Request<RequestBody>, client: Client) -> Response<Sent> {
        let begun = Instant::now();
        let forwarded = self.settle(request.headers_mut(), client.address);
        let request_id = self.inner.ids.of(request.headers());
        let placed = self.place(&request, &client);
        let (proxied, scheme, authority) = match &placed {
            Ok(Placed { proxied, target, .. }) => (proxied.clone(), target.scheme, Arc::clone(&target.authority)),
            Err(_) => (self.forward_itself(), client.scheme, Arc::from("")),
        };
        let aliased = placed.as_ref().ok().and_then(|placed| placed.aliased.clone());
        let mut record = self.record(proxied.metrics(), begun, || {
            let route = &proxied.cache_route().name;
            let to = self.listeners(begun, false)?;
            Some(Self::told(to, self.cache(), &request, client.address, &authority, route, begun, request_id.clone()))
        });
        let span = self.span(&Traced {
            traceparent: traceparent(request.headers()),
            begun,
            method: request.method(),
            path: request.uri().path(),
            scheme,
            authority: &authority,
            route: &proxied.cache_route().name,
        });
        let context = span.as_ref().map(|span| span.context().clone());
        let trace = context.as_ref().map(|context| context.own().trace);
        let trace = trace.or_else(|| trace_id(traceparent(request.headers())));
        let work = Work::new(context, trace::Request { id: request_id.clone(), trace });
        record.traced(span);
        let counts = placed.is_ok() && !client.itself && !self.takes_purge(request.method(), &proxied);
        let limited = proxied.limits().filter(|_| counts).cloned();
        let (mut head, body) = request.into_parts();
        // A limit by a field counts it as it came, also where it is taken off in a moment.
        let whole =
            proxied.gate().and(limited.as_ref()).filter(|limits| limits.by_field()).map(|_| head.headers.clone());
        let is_asked = proxied.gate().is_some() || placed.as_ref().is_ok_and(|placed| placed.forwarded);
        let asked = limited.as_ref().filter(|_| is_asked);
        let begun = self.begun(asked, client.address, &head.headers).await;
        let placed = match placed {
            // Who asks too much is told so whoever he is.
            placed if begun.is_err() => placed,
            // Who purges shows a token of the admin plane.
            Ok(placed) if !self.takes_purge(&head.method, &proxied) => {
                let known = Known { speaks_for: client.tenant.as_deref(), forwarded: placed.forwarded };
                let admitted = self.admitted(&proxied, known, &mut head.headers).await;
                record.admitted(&admitted);
                admitted.map(|tenant| placed.of(tenant))
            }
            placed => placed,
        };
        let limited = limited.filter(|_| placed.is_ok());
        let (peer, tenant) = (client.address, placed.as_ref().ok().and_then(|placed| placed.target.tenant.clone()));
        let tenant = tenant.as_deref().map(|tenant| &*tenant.name);
        let to_origin = limited.as_ref().and_then(|limits| {
            self.to_origin(limits, Who { peer, tenant, fields: whole.as_ref().unwrap_or(&head.headers) })
        });
        let (uri, version) = (aliased.unwrap_or_else(|| head.uri.clone()), head.version);
        let proxy = self.clone();
        let leaving = Leaving {
            proxy,
            proxied,
            client,
            scheme,
            authority,
            uri,
            version,
            request_id: request_id.clone(),
            to_origin: to_origin.clone(),
        };
        let mut passed = Passed::default();
        let answering = async {
            let begun = match begun {
                Ok(begun) => begun,
                Err(refused) => return Ok(self.limited(&refused)),
            };
            if let Some(limits) = &limited {
                let who = Who { peer, tenant, fields: whole.as_ref().unwrap_or(&head.headers) };
                match self.within(limits, who, begun).await {
                    Ok(left) => passed = left,
                    Err(refused) => return Ok(self.limited(&refused)),
                }
            }
            match placed {
                Err(refusal) => Err(rescue::refusal(&refusal, self.name())),
                Ok(_) if self.takes_purge(&head.method, &leaving.proxied) => {
                    // Who has tried tokens, and whom the audit log tells of.
                    let address = self.client_behind(&head.headers, leaving.client.address);
                    head.extensions.insert(address);
                    Err(self.purged(head).await)
                }
                Ok(Placed { target, .. }) if head.method == Method::CONNECT => {
                    let tenant = target.tenant.map(|tenant| Arc::clone(&tenant.name));
                    Box::pin(self.connect(&mut head, tenant, &leaving)).await
                }
                Ok(Placed { target, .. }) if upgrade::wanted(&head) => {
                    Box::pin(self.upgrade(head, body, Target { forwarded, ..target }, leaving)).await
                }
                Ok(Placed { target, .. }) => self.answer(head, body, Target { forwarded, ..target }, leaving).await,
            }
        };
        let answered = trace::within(work, answering).await;
        let (mut response, outcome) = match answered {
            Ok(Answer { response, outcome }) => (response, outcome),
            Err(response) => {
                let Answer { response, outcome } = self.synthesised(response, record.outcome);
                (response, outcome)
            }
        };
        if let Some(limits) = limited.filter(|_| outcome.kind != Kind::Limited) {
            to_origin.iter().for_each(|to_origin| passed.add(&to_origin.passed()));
            limits.tell(&passed, response.headers_mut());
        }
        self.finish_head(response.headers_mut(), &outcome, request_id);
        record.answered(outcome, response.status());
        if let Some(told) = &mut record.told {
            told.receipt = response.extensions_mut().remove();
        }
        response.map(|body| Sent::new(body, record))
    }

    async fn answer(
        &self,
        head: http::request::Parts,
        body: RequestBody,
        target: Target,
        leaving: Leaving,
    ) -> Result<Answer, Response<crate::cache::Body>> {
        if content_length(&body).is_some_and(|length| length > self.inner.body_bytes_max) {
            return Err(rescue::refusal(&Refusal::Content(ClientFault::TooLarge), self.name()));
        }
        let route = Arc::clone(leaving.proxied.cache_route());
        let fault = Arc::clone(&leaving.client.fault);
        let call = Call { route, target, method: head.method, headers: head.headers, body, outgoing: leaving };
        let answered = self.inner.cache.call(call).await;
        Ok(answered.unwrap_or_else(|failure| self.failed(&failure, fault.get())))
    }

    /// A failure as the client sees it; its own fault where there is one.
    fn failed(&self, failure: &Failure, fault: Option<&ClientFault>) -> Answer {
        let response = match (fault, failure) {
            (Some(fault), _) => rescue::refusal(&Refusal::Content(*fault), self.name()),
            (None, Failure::Limited(refused)) => return self.limited(refused),
            (None, _) => rescue::failure(failure, self.name()),
        };
        self.synthesised(response, Outcome::of(Kind::Synthesised))
    }

    /// An answer of the gateway's own.
    fn synthesised(&self, mut response: Response<crate::cache::Body>, outcome: Outcome) -> Answer {
        response.headers_mut().append("cache-status", outcome.cache_status(self.name()));
        Answer { response, outcome }
    }

    /// What every answer carries.
    fn finish_head(&self, headers: &mut HeaderMap, outcome: &Outcome, request_id: Option<HeaderValue>) {
        if let (Some(name), Some(id)) = (self.inner.ids.field(), request_id) {
            headers.insert(name, id);
        }
        if self.inner.headers.x_cache {
            headers.insert(X_CACHE, HeaderValue::from_static(if outcome.is_hit() { "HIT" } else { "MISS" }));
        }
    }
}

fn content_length(body: &RequestBody) -> Option<u64> {
    match body {
        RequestBody::Empty => Some(0),
        RequestBody::Bytes(bytes) => Some(bytes.len() as u64),
        RequestBody::Stream(stream) => http_body::Body::size_hint(stream).exact(),
    }
}

fn field(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("larder"))
}
