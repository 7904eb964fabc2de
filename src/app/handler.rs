//! Between the data listener and the proxy: what a connection knows becomes what a request needs.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

use crate::{
    listener::{BodyError, ClientBody, Handler, Peer},
    origin::{Interim, RequestBody},
    proxy::{Client, ClientFault, Proxy, Sent},
};

/// Hands requests of the data listener to the proxy.
#[derive(Clone)]
pub(super) struct ProxyHandler(pub(super) Proxy);

impl Handler for ProxyHandler {
    type Body = Sent;

    async fn handle(&self, request: Request<ClientBody>, peer: &Arc<Peer>) -> Response<Sent> {
        let interim = (request.version() == Version::HTTP_11).then(|| interim(peer));
        let client = Client { address: peer.addr.ip(), scheme: "http", interim };
        self.0.handle(request.map(content), client).await
    }
}

fn interim(peer: &Arc<Peer>) -> Interim {
    let interim = peer.interim.bind();
    Arc::new(move |status: StatusCode, fields: &HeaderMap| interim.send(status, fields))
}

fn content(body: ClientBody) -> RequestBody {
    if body.is_end_stream() {
        return RequestBody::Empty;
    }
    RequestBody::Stream(UnsyncBoxBody::new(body.map_err(|error| fault(&error).into())))
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
