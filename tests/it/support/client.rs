//! A small HTTP client: one request on a connection of its own, or many on one; HTTP/1.1 and h2c.
//!
//! A [`Response`] keeps what a cache's client wants to know: when its head and its end came, whether the body ended
//! properly, and what `Cache-Status` says.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use sfv::{BareItem, ListEntry, Parser};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};

use super::within;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// GET `url`.
pub(crate) fn get(url: impl AsRef<str>) -> Request {
    request("GET", url)
}

/// A request for `url`.
pub(crate) fn request(method: &str, url: impl AsRef<str>) -> Request {
    Request {
        method: method.parse().expect("a method"),
        url: url.as_ref().parse().expect("a URL"),
        headers: HeaderMap::new(),
        body: Full::default().boxed_unsync(),
        proxy: None,
    }
}

/// A request that is being described.
pub(crate) struct Request {
    method: Method,
    url: Uri,
    headers: HeaderMap,
    body: Body,
    proxy: Option<SocketAddr>,
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a field name");
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a field value"));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Full::new(body.into()).boxed_unsync();
        self
    }

    /// A body of unknown length.
    pub(crate) fn chunked(mut self, chunks: &[&'static str]) -> Self {
        let frames: Vec<_> = chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes())))).collect();
        self.body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        self
    }

    pub(crate) fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }

    /// Sent in absolute form to the proxy at `address`.
    pub(crate) fn via(mut self, address: SocketAddr) -> Self {
        self.proxy = Some(address);
        self
    }

    /// Sends it on a connection of its own and reads the whole response.
    pub(crate) async fn send(self) -> Response {
        self.open().await.finish().await
    }

    /// The same, where nobody may be there, or the connection may break.
    pub(crate) async fn attempt(self) -> Option<Response> {
        let address = self.proxy.unwrap_or_else(|| address(&self.url));
        let stream = within("a connection", TcpStream::connect(address)).await.ok()?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(async move { drop(driver.await) });
        let mut connection = Connection { sender: Sender::H1(sender) };
        Some(connection.try_open(self).await.ok()?.finish().await)
    }

    /// Sends it on a connection of its own and reads the response's head.
    pub(crate) async fn open(self) -> Streaming {
        self.try_open().await.expect("a response head")
    }

    /// The same, where the connection may break before there is a head.
    pub(crate) async fn try_open(self) -> hyper::Result<Streaming> {
        let address = self.proxy.unwrap_or_else(|| address(&self.url));
        let mut connection = connect(address).await;
        connection.try_open(self).await
    }

    fn build(self, version: Version) -> http::Request<Body> {
        let origin_form = version == Version::HTTP_11 && self.proxy.is_none();
        let mut request = http::Request::new(self.body);
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        if version == Version::HTTP_11 && !request.headers().contains_key(http::header::HOST) {
            let authority = self.url.authority().expect("an absolute URL").as_str();
            let host = HeaderValue::from_str(authority).expect("an authority is a field value");
            request.headers_mut().insert(http::header::HOST, host);
        }
        *request.uri_mut() = if origin_form { origin_form_of(&self.url) } else { self.url };
        request
    }
}

fn address(url: &Uri) -> SocketAddr {
    url.authority().expect("an absolute URL").as_str().parse().expect("an IP address and a port")
}

fn origin_form_of(url: &Uri) -> Uri {
    url.path_and_query().expect("an absolute URL has a path").clone().into()
}

/// Opens a kept-alive HTTP/1.1 connection.
pub(crate) async fn connect(address: SocketAddr) -> Connection {
    let (sender, driver) = http1::handshake(stream(address).await).await.expect("a connection");
    // How a connection ends shows in the responses on it.
    tokio::spawn(async move { drop(driver.await) });
    Connection { sender: Sender::H1(sender) }
}

/// Opens an HTTP/2 connection with prior knowledge.
pub(crate) async fn connect_h2(address: SocketAddr) -> Connection {
    let builder = http2::Builder::new(TokioExecutor::new());
    let (sender, driver) = builder.handshake(stream(address).await).await.expect("a connection");
    tokio::spawn(async move { drop(driver.await) });
    Connection { sender: Sender::H2(sender) }
}

/// Speaks HTTP over a connection that is there.
pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, h2: bool) -> Connection {
    if h2 {
        let builder = http2::Builder::new(TokioExecutor::new());
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(async move { drop(driver.await) });
        Connection { sender: Sender::H2(sender) }
    } else {
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(async move { drop(driver.await) });
        Connection { sender: Sender::H1(sender) }
    }
}

async fn stream(address: SocketAddr) -> TokioIo<TcpStream> {
    let stream = within("a connection", TcpStream::connect(address)).await.expect("someone listens there");
    stream.set_nodelay(true).expect("a connected socket");
    TokioIo::new(stream)
}

/// A connection for many requests.
pub(crate) struct Connection {
    sender: Sender,
}

enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

impl Connection {
    /// Sends it and reads the whole response.
    pub(crate) async fn send(&mut self, request: Request) -> Response {
        self.open(request).await.finish().await
    }

    /// Sends it and reads the response's head.
    pub(crate) async fn open(&mut self, request: Request) -> Streaming {
        self.try_open(request).await.expect("a response head")
    }

    async fn try_open(&mut self, request: Request) -> hyper::Result<Streaming> {
        let sent = Instant::now();
        let response = match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await?;
                within("a response head", sender.send_request(request.build(Version::HTTP_11))).await?
            }
            Sender::H2(sender) => {
                sender.ready().await?;
                within("a response head", sender.send_request(request.build(Version::HTTP_2))).await?
            }
        };
        let (parts, body) = response.into_parts();
        Ok(Streaming {
            status: parts.status,
            version: parts.version,
            headers: parts.headers,
            body,
            received: Vec::new(),
            trailers: None,
            sent,
            head_at: Instant::now(),
        })
    }
}

/// A response whose body is still on its way.
pub(crate) struct Streaming {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    received: Vec<u8>,
    trailers: Option<HeaderMap>,
    sent: Instant,
    head_at: Instant,
}

impl Streaming {
    /// Reads on until `length` bytes of the body have come.
    pub(crate) async fn read(&mut self, length: usize) -> &[u8] {
        while self.received.len() < length {
            assert!(self.frame().await.expect("a body that is not broken"), "the body ended too early");
        }
        &self.received
    }

    /// Reads to the end.
    pub(crate) async fn finish(mut self) -> Response {
        let broken = loop {
            match self.frame().await {
                Ok(true) => {}
                Ok(false) => break false,
                Err(_) => break true,
            }
        };
        Response {
            status: self.status.as_u16(),
            version: self.version,
            headers: self.headers,
            body: self.received.into(),
            broken,
            trailers: self.trailers,
            sent: self.sent,
            head_at: self.head_at,
            end_at: Instant::now(),
        }
    }

    async fn frame(&mut self) -> hyper::Result<bool> {
        let Some(frame) = within("a piece of a body", self.body.frame()).await.transpose()? else {
            return Ok(false);
        };
        match frame.into_data() {
            Ok(data) => self.received.extend_from_slice(&data),
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
        Ok(true)
    }
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the connection ended before the body did.
    pub(crate) broken: bool,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) sent: Instant,
    pub(crate) head_at: Instant,
    pub(crate) end_at: Instant,
}

impl Response {
    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The first line of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a field value of visible characters"))
    }

    /// All lines of that name.
    pub(crate) fn header_lines(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.get_all(name);
        lines.iter().map(|value| value.to_str().expect("a field value of visible characters")).collect()
    }

    /// `Age` in seconds.
    pub(crate) fn age(&self) -> Option<u64> {
        self.header("age").map(|age| age.parse().expect("Age is a number"))
    }

    /// What the gateway says it did.
    pub(crate) fn cache(&self) -> CacheStatus {
        let value = self.header_lines("cache-status").join(", ");
        assert!(!value.is_empty(), "no Cache-Status: {:?}", self.headers);
        CacheStatus::parse(&value)
    }

    /// It came from the cache without a request to the origin.
    #[track_caller]
    pub(crate) fn assert_hit(&self) -> &Self {
        let cache = self.cache();
        assert!(cache.hit && cache.fwd.is_none(), "not a hit: {cache:?}");
        self
    }

    /// It came from the origin, for the reason `fwd` (RFC 9211 section 2.2).
    #[track_caller]
    pub(crate) fn assert_forwarded(&self, fwd: &str) -> &Self {
        let cache = self.cache();
        assert!(!cache.hit && cache.fwd.as_deref() == Some(fwd), "not forwarded because of {fwd}: {cache:?}");
        self
    }

    /// It is a 200 with that body, whole.
    #[track_caller]
    pub(crate) fn assert_ok(&self, body: &str) -> &Self {
        assert_eq!((self.status, self.text(), self.broken), (200, body, false), "{:?}", self.headers);
        self
    }
}

/// The gateway's member of `Cache-Status`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct CacheStatus {
    pub(crate) hit: bool,
    pub(crate) fwd: Option<String>,
    pub(crate) fwd_status: Option<i64>,
    pub(crate) ttl: Option<i64>,
    pub(crate) stored: bool,
    pub(crate) collapsed: bool,
    pub(crate) detail: Option<String>,
}

impl CacheStatus {
    fn parse(value: &str) -> Self {
        let list: sfv::List = Parser::new(value).parse().unwrap_or_else(|error| panic!("{error} in {value:?}"));
        let ours = list.iter().find_map(|member| match member {
            ListEntry::Item(item) if text(&item.bare_item).as_deref() == Some("larder") => Some(&item.params),
            _ => None,
        });
        let mut status = Self::default();
        for (name, value) in ours.unwrap_or_else(|| panic!("no member for this gateway in {value:?}")) {
            match name.as_str() {
                "hit" => status.hit = value.as_boolean() == Some(true),
                "stored" => status.stored = value.as_boolean() == Some(true),
                "collapsed" => status.collapsed = value.as_boolean() == Some(true),
                "fwd" => status.fwd = text(value),
                "fwd-status" => status.fwd_status = value.as_integer().map(i64::from),
                "ttl" => status.ttl = value.as_integer().map(i64::from),
                "detail" => status.detail = text(value),
                _ => {}
            }
        }
        status
    }
}

fn text(item: &BareItem) -> Option<String> {
    let token = item.as_token().map(|token| token.as_str().to_owned());
    token.or_else(|| item.as_string().map(|string| string.as_str().to_owned()))
}
