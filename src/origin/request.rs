//! A request to an origin, and the forms it takes on a connection.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING},
    uri::{Authority, PathAndQuery},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::Instant;

use super::{error::BoxError, upstream::Base};

/// Called with each interim response (1xx, neither 100 nor 101), in the order they come, before the final head.
pub type Interim = Arc<dyn Fn(StatusCode, &HeaderMap) + Send + Sync>;

/// A request to an origin. `headers` holds end-to-end fields only.
pub struct OriginRequest {
    /// Method.
    pub method: Method,
    /// Path and query; a prefix of the base URL comes before it.
    pub path_and_query: PathAndQuery,
    /// Host to name; the base URL's own if there is none.
    pub host: Option<HeaderValue>,
    /// Fields, without hop-by-hop ones (`Upgrade` excepted where `upgrade` is set).
    pub headers: HeaderMap,
    /// Body.
    pub body: RequestBody,
    /// Who wants interim responses. HTTP/2 origins' are not reported: the protocol library drops them.
    pub interim: Option<Interim>,
    /// Whether `headers` has an `Upgrade` to be offered; such a request goes over HTTP/1.
    pub upgrade: bool,
}

/// The body of a request.
pub enum RequestBody {
    /// None.
    Empty,
    /// Whole in memory: can be sent again.
    Bytes(Bytes),
    /// Comes as it is sent; can be sent once.
    Stream(UnsyncBoxBody<Bytes, BoxError>),
}

/// What an attempt consumes, and gets back where it was not sent.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: RequestBody,
}

/// What stays the same in all attempts.
pub(super) struct Template {
    pub(super) path_and_query: PathAndQuery,
    pub(super) host: Option<HeaderValue>,
    pub(super) interim: Option<Interim>,
    pub(super) upgrade: bool,
}

/// A body on its way into a connection.
pub(super) struct SendBody {
    body: RequestBody,
    progress: Option<Arc<Progress>>,
}

/// How far a streamed body has come; a response's deadline begins when its request is complete.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    /// Milliseconds from `start` to the last piece taken.
    last: AtomicU64,
    state: AtomicU64,
}

const SENDING: u64 = 0;
const SENT: u64 = 1;
const FAILED: u64 = 2;

// === impl OriginRequest ===

impl OriginRequest {
    /// A request without fields and body.
    pub fn new(method: Method, path_and_query: PathAndQuery) -> Self {
        Self {
            method,
            path_and_query,
            host: None,
            headers: HeaderMap::new(),
            body: RequestBody::Empty,
            interim: None,
            upgrade: false,
        }
    }

    pub(super) fn split(self) -> (Template, Load) {
        let Self { method, path_and_query, host, headers, body, interim, upgrade } = self;
        (Template { path_and_query, host, interim, upgrade }, Load { method, headers, body })
    }
}

impl fmt::Debug for OriginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginRequest")
            .field("method", &self.method)
            .field("path_and_query", &self.path_and_query)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

// === impl RequestBody ===

impl RequestBody {
    fn replica(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Self::Stream(_) => None,
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

// === impl Load ===

impl Load {
    /// A copy to send again, where the body allows it.
    pub(super) fn replica(&self) -> Option<Self> {
        let body = self.body.replica()?;
        Some(Self { method: self.method.clone(), headers: self.headers.clone(), body })
    }

    /// What a request that never left was made of.
    pub(super) fn recover(request: Request<SendBody>) -> Self {
        let (parts, body) = request.into_parts();
        Self { method: parts.method, headers: parts.headers, body: body.body }
    }

    /// The request as HTTP/1 writes it: origin-form, `Host`, explicit framing.
    pub(super) fn into_h1(mut self, template: &Template, base: &Base) -> (Request<SendBody>, Option<Arc<Progress>>) {
        let host = template.host.as_ref().unwrap_or(&base.host);
        self.headers.insert(HOST, host.clone());
        if self.headers.contains_key(TE) {
            self.headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        if template.upgrade {
            self.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        self.frame();
        let uri = Uri::from(base.target(&template.path_and_query));
        self.into_request(uri, Version::HTTP_11, template)
    }

    /// The request as HTTP/2 wants it: absolute, the authority in the URI, no connection-specific fields.
    pub(super) fn into_h2(mut self, template: &Template, base: &Base) -> (Request<SendBody>, Option<Arc<Progress>>) {
        let named = template.host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
        for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
            self.headers.remove(name);
        }
        if !matches!(self.body, RequestBody::Stream(_)) {
            // The library sets what the body says.
            self.headers.remove(CONTENT_LENGTH);
        }
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(base.scheme.clone());
        parts.authority = Some(named.unwrap_or_else(|| base.authority.clone()));
        let target = base.target(&template.path_and_query);
        parts.path_and_query = Some(target);
        let uri = Uri::from_parts(parts).expect("scheme, authority and path make a URI");
        self.into_request(uri, Version::HTTP_2, template)
    }

    /// Makes the framing fields say what the body is: a length that lies would end in request smuggling.
    fn frame(&mut self) {
        self.headers.remove(TRANSFER_ENCODING);
        match &self.body {
            RequestBody::Empty => {
                self.headers.remove(CONTENT_LENGTH);
                if matches!(self.method, Method::POST | Method::PUT | Method::PATCH) {
                    self.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                }
            }
            RequestBody::Bytes(bytes) => {
                self.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            }
            RequestBody::Stream(body) => {
                // The library sends no body at all with a GET whose length is unknown, unless told how.
                if body.size_hint().exact().is_none() && !self.headers.contains_key(CONTENT_LENGTH) {
                    self.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
            }
        }
    }

    fn into_request(
        self,
        uri: Uri,
        version: Version,
        template: &Template,
    ) -> (Request<SendBody>, Option<Arc<Progress>>) {
        let progress = matches!(self.body, RequestBody::Stream(_)).then(|| Arc::new(Progress::new()));
        let mut request = Request::new(SendBody { body: self.body, progress: progress.clone() });
        *request.method_mut() = self.method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = self.headers;
        if let Some(interim) = template.interim.clone() {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() != StatusCode::CONTINUE && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    interim(response.status(), response.headers());
                }
            });
        }
        (request, progress)
    }
}

// === impl SendBody ===

impl Body for SendBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        match &mut this.body {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            RequestBody::Stream(body) => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                if let Some(progress) = &this.progress {
                    progress.note(&frame, body.is_end_stream());
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            RequestBody::Empty => true,
            RequestBody::Bytes(bytes) => bytes.is_empty(),
            RequestBody::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            RequestBody::Stream(body) => body.size_hint(),
        }
    }
}

// === impl Progress ===

impl Progress {
    fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0), state: AtomicU64::new(SENDING) }
    }

    fn note<E>(&self, frame: &Option<Result<Frame<Bytes>, E>>, end: bool) {
        let state = match frame {
            Some(Err(_)) => FAILED,
            None => SENT,
            Some(Ok(_)) if end => SENT,
            Some(Ok(_)) => SENDING,
        };
        self.last.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.state.store(state, Ordering::Release);
    }

    /// When the last piece was taken.
    pub(super) fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Whether all of the body was taken.
    pub(super) fn is_sent(&self) -> bool {
        self.state.load(Ordering::Acquire) == SENT
    }

    /// Whether the body failed: not the origin's fault.
    pub(super) fn has_failed(&self) -> bool {
        self.state.load(Ordering::Acquire) == FAILED
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Bytes(bytes) }
    }
}
