//! Requests the cache does not answer: passed to the origin, and what their success invalidates.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use tokio::sync::mpsc;

use super::{
    Cache,
    adopt::{self, Posted},
    body::Body,
    call::{Answer, Call, Departure, Outgoing},
    failure::Failure,
    fill::InterimHead,
    hit, key_body,
    outcome::{Forward, Outcome},
    target::Target,
    traced,
};
use crate::{
    object::fields,
    origin::{OriginRequest, OriginResponse, RequestBody, Upstream},
    telemetry::trace,
};

/// Interim responses on their way to the client; more than it takes are dropped.
const INTERIMS_QUEUED: usize = 16;

impl Cache {
    /// Passes a request on, its content streamed both ways.
    pub(super) async fn pass<O: Outgoing>(
        &self,
        call: Call<O>,
        forward: Forward,
        detail: Option<&'static str>,
    ) -> Result<Answer, Arc<Failure>> {
        let Passed { posted, method, mut response } = self.sent_on(call, false).await?;
        if forward == Forward::Method && adopt::stands_for_get(&posted.route, &posted.target, &method, &response) {
            return self.adopt(posted, response).await;
        }
        self.hide_tags(&posted.route, &mut response.headers);
        Ok(self.direct(response, Outcome { detail, ..Outcome::forwarded(forward) }))
    }

    /// Passes a request on that asks for another protocol. Where the origin declines, it was a request like any other:
    /// what its success invalidates is invalidated.
    ///
    /// # Errors
    /// Where no answer can be had.
    pub async fn upgrade<O: Outgoing>(&self, call: Call<O>) -> Result<Upgrade, Arc<Failure>> {
        let Passed { posted, mut response, .. } = self.sent_on(call, true).await?;
        if let Some(connection) = response.upgrade.take() {
            return Ok(Upgrade::Switched { headers: response.headers, connection });
        }
        self.hide_tags(&posted.route, &mut response.headers);
        Ok(Upgrade::Declined(self.direct(response, Outcome::forwarded(Forward::Bypass))))
    }

    /// Sends a request on and does what its answer asks for, whoever gets it. An unsafe one does so in a task of its own:
    /// its client may leave, and what it does to the origin's state, and when, shows in the answer all the same.
    async fn sent_on<O: Outgoing>(&self, call: Call<O>, upgrade: bool) -> Result<Passed<O>, Arc<Failure>> {
        if !is_unsafe(&call.method) {
            return self.send_on(call, upgrade).await;
        }
        let cache = self.clone();
        let sending = async move { cache.send_on(call, upgrade).await };
        let sent = tokio::spawn(Box::pin(trace::within(trace::current(), sending)));
        sent.await.unwrap_or_else(|_| Err(Arc::new(Failure::GivenUp)))
    }

    async fn send_on<O: Outgoing>(&self, call: Call<O>, upgrade: bool) -> Result<Passed<O>, Arc<Failure>> {
        let Call { route, target, method, headers, body, outgoing } = call;
        let body = key_body::at_hand(body, &headers).await.map_err(|error| Arc::new(Failure::RequestBody(error)))?;
        outgoing.admitted().await.map_err(|refused| Arc::new(refused.into()))?;
        let (stamp, begun, requested) = (self.purge_log().position(), self.begun(), self.now());
        let mut watch = self.invalidations().watch(target.url_scope(&route));
        let mut departure = outgoing.departure(&headers).map_err(|error| Arc::new(error.into()))?;
        if upgrade {
            let protocols = headers.get_all(header::UPGRADE).iter().cloned();
            departure.headers.extend(protocols.map(|protocol| (header::UPGRADE, protocol)));
        }
        let upstream = departure.upstream.clone();
        let sent = self.send_departure(&outgoing, &method, departure, body, upgrade).await;
        // A call to a model changes nothing that is stored.
        let is_unsafe = is_unsafe(&method) && route.models.is_none();
        if is_unsafe && sent.as_ref().is_err_and(|failure| !failure.unseen()) {
            // The answer is lost: what the request did nobody knows.
            self.forget(&route, &target, &headers).await;
        }
        let mut response = sent?;
        if response.upgrade.is_none() {
            fields::strip_hop_by_hop(&mut response.headers);
        }
        self.rewrite_response(&route, &mut response.headers);
        if is_unsafe && invalidates(response.status) {
            for url in invalidated(&target, &response.headers, &upstream) {
                let notes = self.forget(&route, &url, &headers).await;
                (0..notes).for_each(|_| watch.forgive(url.url_scope(&route)));
            }
        }
        let posted = Posted { route, target, headers, outgoing, stamp, begun, requested, watch };
        Ok(Passed { posted, method, response })
    }

    /// An answer straight from the origin.
    pub fn direct(&self, response: OriginResponse, outcome: Outcome) -> Answer {
        let mut fields = response.headers;
        fields.append(super::CACHE_STATUS, outcome.cache_status(self.name()));
        let response = hit::respond(response.status, fields, Body::Origin(Box::new(response.body)));
        Answer { response, outcome }
    }

    /// Sends a request and hands interim responses on while it waits.
    pub(super) async fn send<O: Outgoing>(
        &self,
        outgoing: &O,
        method: &Method,
        client: &HeaderMap,
        body: RequestBody,
    ) -> Result<OriginResponse, Arc<Failure>> {
        outgoing.admitted().await.map_err(|refused| Arc::new(refused.into()))?;
        let departure = outgoing.departure(client).map_err(|error| Arc::new(error.into()))?;
        self.send_departure(outgoing, method, departure, body, false).await
    }

    async fn send_departure<O: Outgoing>(
        &self,
        outgoing: &O,
        method: &Method,
        departure: Departure,
        body: RequestBody,
        upgrade: bool,
    ) -> Result<OriginResponse, Arc<Failure>> {
        let Departure { upstream, path_and_query, host, headers, span } = departure;
        let (interims, mut arriving) = mpsc::channel(INTERIMS_QUEUED);
        let interim = move |status, fields: &HeaderMap| {
            // A hint: one that finds no room is not missed.
            let _ = interims.try_send(InterimHead { status, fields: fields.clone() });
        };
        let interim: Option<crate::origin::Interim> = Some(Arc::new(interim));
        let request = OriginRequest { method: method.clone(), path_and_query, host, headers, body, interim, upgrade };
        let sending = self.origins().send(&upstream, request);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                biased;
                Some(interim) = arriving.recv() => outgoing.interim(interim.status, &interim.fields),
                response = &mut sending => {
                    traced::answered(span, &response);
                    return response.map_err(|error| Arc::new(error.into()));
                }
            }
        }
    }
}

/// What a request for another protocol came to.
pub enum Upgrade {
    /// The origin speaks it from now on.
    Switched {
        /// Fields of its 101.
        headers: HeaderMap,
        /// The connection, once it is handed over.
        connection: OnUpgrade,
    },
    /// An answer as to any other request.
    Declined(Answer),
}

/// A request that was passed on, and its response.
struct Passed<O> {
    posted: Posted<O>,
    method: Method,
    response: OriginResponse,
}

/// Whether it may change the origin's state (RFC 9110 section 9.2.1; RFC 10008 for QUERY).
fn is_unsafe(method: &Method) -> bool {
    !method.is_safe() && method.as_str() != "QUERY"
}

/// What a successful unsafe request makes invalid: its URL, and those in `Location` and `Content-Location` where they are
/// of the same site (RFC 9111 section 4.4).
fn invalidated(target: &Target, response: &HeaderMap, upstream: &Upstream) -> Vec<Target> {
    let named = [header::LOCATION, header::CONTENT_LOCATION].into_iter().filter_map(|name| {
        let url = response.get(name)?.to_str().ok()?;
        target.relative(url, |authority| upstream.is_named(authority))
    });
    std::iter::once(target.clone()).chain(named).collect()
}

/// A success or a redirection (RFC 9111 section 4.4); 304 is neither to an unsafe request.
fn invalidates(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}
