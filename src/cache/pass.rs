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
    hit,
    outcome::{Forward, Outcome},
    route::Route,
    target::Target,
};
use crate::{
    object::fields,
    origin::{OriginRequest, OriginResponse, RequestBody, Upstream},
};

/// Interim responses on their way to the client; more than it takes are dropped.
const INTERIMS_QUEUED: usize = 16;

impl Cache {
    /// Passes a request on, its content streamed both ways.
    pub(super) async fn pass<O: Outgoing>(&self, call: Call<O>, forward: Forward) -> Result<Answer, Arc<Failure>> {
        let Passed { posted, method, mut response } = self.sent_on(call, false).await?;
        if forward == Forward::Method && adopt::stands_for_get(&posted.route, &posted.target, &method, &response) {
            return self.adopt(posted, response).await;
        }
        self.hide_tags(&posted.route, &mut response.headers);
        Ok(self.direct(response, Outcome::forwarded(forward)))
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

    /// Sends a request on and does what its answer asks for, whoever gets it.
    async fn sent_on<O: Outgoing>(&self, call: Call<O>, upgrade: bool) -> Result<Passed<O>, Arc<Failure>> {
        let Call { route, target, method, headers, body, outgoing } = call;
        let (stamp, requested) = (self.purge_log().position(), self.now());
        let mut departure = outgoing.departure(&headers).map_err(|error| Arc::new(error.into()))?;
        if upgrade {
            let protocols = headers.get_all(header::UPGRADE).iter().cloned();
            departure.headers.extend(protocols.map(|protocol| (header::UPGRADE, protocol)));
        }
        let upstream = departure.upstream.clone();
        let unsafe_method = !method.is_safe() && method.as_str() != "QUERY";
        let mut asked = Lost { cache: self.clone(), about: Some((route, target, headers)), armed: unsafe_method };
        let sent = self.send_departure(&outgoing, &method, departure, body, upgrade).await;
        asked.armed &= !sent.as_ref().is_err_and(|failure| failure.unseen());
        let mut response = sent?;
        asked.armed = false;
        let Some((route, target, headers)) = asked.about.take() else { return Err(Arc::new(Failure::GivenUp)) };
        if response.upgrade.is_none() {
            fields::strip_hop_by_hop(&mut response.headers);
        }
        self.rewrite_response(&route, &mut response.headers);
        if unsafe_method && invalidates(response.status) {
            self.invalidate(&route, &target, &headers, &response.headers, &upstream).await;
        }
        let posted = Posted { route, target, headers, outgoing, stamp, requested };
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
        let Departure { upstream, path_and_query, host, headers } = departure;
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
                response = &mut sending => return response.map_err(|error| Arc::new(error.into())),
            }
        }
    }

    /// What a successful unsafe request makes invalid: its URL, and those in `Location` and `Content-Location` where
    /// they are of the same site (RFC 9111 section 4.4).
    async fn invalidate(
        &self,
        route: &Route,
        target: &Target,
        request: &HeaderMap,
        response: &HeaderMap,
        upstream: &Upstream,
    ) {
        self.forget(route, target, request).await;
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let location = response.get(name).and_then(|value| value.to_str().ok());
            if let Some(other) = location.and_then(|url| target.relative(url, |authority| upstream.is_named(authority)))
            {
                self.forget(route, &other, request).await;
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

/// An unsafe request whose answer may be lost, because the origin's connection breaks or the client goes away: what it
/// did nobody knows, so what is stored of its URL is forgotten.
struct Lost {
    cache: Cache,
    about: Option<(Arc<Route>, Target, HeaderMap)>,
    armed: bool,
}

impl Drop for Lost {
    fn drop(&mut self) {
        if let (true, Some((route, target, headers))) = (self.armed, self.about.take()) {
            let cache = self.cache.clone();
            // Without a runtime the process is about to end, and its memory with it.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { cache.forget(&route, &target, &headers).await });
            }
        }
    }
}

/// A success or a redirection (RFC 9111 section 4.4); 304 is neither to an unsafe request.
fn invalidates(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}
