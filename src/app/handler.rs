//! Between the data listener and the proxy: what a connection knows becomes what a request needs.

use std::sync::{Arc, OnceLock, atomic::Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

use super::intercept::Interception;
use crate::{
    cache::NotPlain,
    listener::{BodyError, ClientBody, Handler, Interim, Peer},
    object::plain::Plain,
    origin::RequestBody,
    proxy::{Came, Client, ClientFault, InterimSink, Live, Sent},
};

/// Hands requests of the data listener to the proxy.
#[derive(Clone)]
pub(super) struct ProxyHandler {
    pub(super) proxy: Live,
    /// What opens tunnels, where some are to be opened.
    pub(super) interception: Option<Arc<Interception>>,
    /// The tenant whose tunnel all requests come in.
    pub(super) tenant: Option<Arc<str>>,
}

impl Handler for ProxyHandler {
    type Body = Sent;

    fn express(&self, request: &Plain<'_>, peer: &Peer, head: &mut Vec<u8>) -> Option<Sent> {
        let answer = self.proxy.now().express(request, self.came(peer), head);
        if let Err(NotPlain::Nothing) = answer {
            peer.looked_up.store(true, Relaxed);
        }
        answer.ok()
    }

    async fn handle(&self, request: Request<ClientBody>, peer: &Arc<Peer>) -> Response<Sent> {
        // What was looked for a moment ago is not looked for again.
        let looked_up = peer.looked_up.load(Relaxed) && peer.looked_up.swap(false, Relaxed);
        if !looked_up
            && request.body().is_end_stream()
            && let Some(response) = self.proxy.now().at_once(&request, self.came(peer))
        {
            return response;
        }
        // Boxed: a hit should not pay for the size of what it does not do.
        Box::pin(self.slowly(request, peer)).await
    }
}

impl ProxyHandler {
    fn came<'a>(&'a self, peer: &'a Peer) -> Came<'a> {
        let (address, within) = (peer.addr.ip(), peer.within.as_deref());
        Came { address, scheme: peer.scheme(), within, tenant: self.tenant.as_deref() }
    }

    async fn slowly(&self, request: Request<ClientBody>, peer: &Arc<Peer>) -> Response<Sent> {
        let interim = (request.version() == Version::HTTP_11).then(|| Arc::new(Bound(peer.interim.bind())) as _);
        let fault = Arc::new(OnceLock::new());
        let connects = request.method() == Method::CONNECT;
        let hold = if connects { peer.hold() } else { None };
        let interception = self.interception.as_ref().filter(|_| connects);
        let interceptor = interception.map(|interception| interception.of(self, peer));
        let client = Client {
            address: peer.addr.ip(),
            scheme: peer.scheme(),
            within: peer.within.clone(),
            tenant: self.tenant.clone(),
            interceptor,
            interim,
            hold: hold.map(|hold| Arc::new(hold) as _),
            itself: false,
            fault: Arc::clone(&fault),
        };
        self.proxy.current().handle(request.map(|body| content(body, fault)), client).await
    }
}

/// The way to the client of one request, for interim responses.
struct Bound(Interim);

impl InterimSink for Bound {
    fn send(&self, status: StatusCode, fields: &HeaderMap) {
        self.0.send(status, fields);
    }
}

fn content(body: ClientBody, noted: Arc<OnceLock<ClientFault>>) -> RequestBody {
    if body.is_end_stream() {
        return RequestBody::Empty;
    }
    RequestBody::Stream(UnsyncBoxBody::new(body.map_err(move |error| (*noted.get_or_init(|| fault(&error))).into())))
}

/// A small answer of the admin plane, whole.
pub(super) async fn collected(response: Response<axum::body::Body>) -> Response<Bytes> {
    let (head, body) = response.into_parts();
    // Made in memory by this process: reading it cannot fail.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Response::from_parts(head, body)
}

fn fault(error: &BodyError) -> ClientFault {
    match error {
        BodyError::TooLarge => ClientFault::TooLarge,
        BodyError::TooSlow => ClientFault::TooSlow,
        BodyError::Broken(_) => ClientFault::Broken,
    }
}
