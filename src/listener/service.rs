//! From hyper's service to our handler: what is refused before anyone sees it, and the bookkeeping around a response.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, HOST, TRANSFER_ENCODING},
};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::{
    ClientBody, Handler, Peer,
    body::Limits,
    link::{HeadSeen, Link},
    metrics::Metrics,
};

/// What all requests of a connection share.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) handler: S,
    pub(super) peer: Arc<Peer>,
    pub(super) link: Arc<Link>,
    pub(super) limits: Limits,
    pub(super) fields_max: usize,
    pub(super) metrics: Arc<Metrics>,
}

impl<S: Handler> Connection<S> {
    /// Answers one request. All but the waiting happens at once, before hyper goes on reading.
    pub(super) fn serve(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ResponseBody<S>>, Infallible>> + Send + use<S> {
        let exchange = Exchange::begin(Arc::clone(self), &request);
        let refusal = self.check(&request, exchange.head);
        async move {
            if let Some(refusal) = refusal {
                return Ok(exchange.refuse(refusal));
            }
            let connection = &*exchange.connection;
            let request = request.map(|body| ClientBody::new(body, connection.limits, &connection.link));
            let response = connection.handler.handle(request, &connection.peer).await;
            Ok(exchange.respond(response))
        }
    }

    fn check(&self, request: &Request<Incoming>, head: HeadSeen) -> Option<Refusal> {
        let headers = request.headers();
        if self.link.multiplexed() {
            return (headers.len() > self.fields_max).then_some(Refusal::TooManyFields);
        }
        framing(headers, head).or_else(|| host(headers, request.version()))
    }
}

/// Why a request goes no further than the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Content-Length and Transfer-Encoding together (RFC 9112 section 6.1).
    AmbiguousLength,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// Not exactly one Host (RFC 9112 section 3.2).
    Host,
    /// More header fields than allowed.
    TooManyFields,
}

impl Refusal {
    pub(super) const ALL: [Self; 4] = [Self::AmbiguousLength, Self::TransferCoding, Self::Host, Self::TooManyFields];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::AmbiguousLength => "ambiguous-length",
            Self::TransferCoding => "transfer-coding",
            Self::Host => "host",
            Self::TooManyFields => "too-many-fields",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::AmbiguousLength | Self::Host => StatusCode::BAD_REQUEST,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }
}

/// What hyper lets through and a gateway must not: others may frame such a request differently.
fn framing(headers: &HeaderMap, head: HeadSeen) -> Option<Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next()?;
    if head == HeadSeen::ContentLength {
        return Some(Refusal::AmbiguousLength);
    }
    let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    (!chunked).then_some(Refusal::TransferCoding)
}

fn host(headers: &HeaderMap, version: Version) -> Option<Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Some(Refusal::Host),
        (None, _) if version == Version::HTTP_11 => Some(Refusal::Host),
        _ => None,
    }
}

/// From a request's head to the end of its response: whatever becomes of the two, the connection learns of the end.
#[derive(Debug)]
struct Exchange<S> {
    connection: Arc<Connection<S>>,
    head: HeadSeen,
    /// HTTP/1.0 responses without a length end where the connection does.
    ends_by_close: bool,
    /// HTTP/2: the response body has given something and was not asked for more.
    handed: bool,
}

impl<S: Handler> Exchange<S> {
    fn begin(connection: Arc<Connection<S>>, request: &Request<Incoming>) -> Self {
        let body = request.body();
        let length = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        let head = connection.link.take_head_seen();
        connection.link.begin(request.version() == Version::HTTP_11, length);
        Self { connection, head, ends_by_close: request.version() == Version::HTTP_10, handed: false }
    }

    fn refuse(self, refusal: Refusal) -> Response<ResponseBody<S>> {
        self.connection.metrics.refused(refusal);
        self.connection.link.respond();
        let mut response = Response::new(ResponseBody { body: None, exchange: self });
        *response.status_mut() = refusal.status();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    fn respond(self, mut response: Response<S::Body>) -> Response<ResponseBody<S>> {
        let link = &self.connection.link;
        link.respond();
        if link.body_outstanding() || (self.head == HeadSeen::Unknown && link.body_cut()) {
            // hyper will close; the client should know.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| ResponseBody { body: Some(body), exchange: self })
    }
}

impl<S> Exchange<S> {
    fn hand(&mut self, handed: bool) {
        self.connection.link.hand(self.handed, handed);
        self.handed = handed;
    }
}

impl<S> Drop for Exchange<S> {
    fn drop(&mut self) {
        self.connection.link.finish(self.handed);
    }
}

pin_project! {
    /// A response body that tells its connection how it goes.
    #[derive(Debug)]
    pub(super) struct ResponseBody<S: Handler> {
        #[pin]
        body: Option<S::Body>,
        exchange: Exchange<S>,
    }
}

impl<S: Handler> Body for ResponseBody<S> {
    type Data = Bytes;
    type Error = <S::Body as Body>::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.project();
        let Some(body) = this.body.as_pin_mut() else { return Poll::Ready(None) };
        this.exchange.hand(false);
        let link = &this.exchange.connection.link;
        if link.withholds() {
            return Poll::Pending;
        }
        let frame = ready!(body.poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                link.give(frame.data_ref().map_or(0, Bytes::len));
                this.exchange.hand(true);
            }
            // The client would take the close for the end of a complete response.
            Some(Err(_)) if this.exchange.ends_by_close => this.exchange.connection.link.demand_reset(),
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
