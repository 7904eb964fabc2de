//! Origins against real sockets: a scripted server says exactly these bytes.

mod h2;
mod pooling;
mod responses;
mod secure;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use bytesize::ByteSize;
use http::{HeaderValue, Method, header::HeaderName, uri::PathAndQuery};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

/// Long enough for anything that happens at once, even on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// A deadline that a test waits for.
const SHORT: Duration = Duration::from_millis(100);

pub(super) fn config() -> Config {
    Config {
        connect_timeout: SOON,
        head_timeout: SOON,
        body_idle_timeout: SOON,
        connections_max: 16,
        queue_max: 64,
        queue_timeout: SOON,
        pool_idle_timeout: SOON,
        pool_idle_max: 16,
        retries: 2,
        head_bytes_max: ByteSize::kib(16),
        head_fields_max: 100,
        h2_streams_max: 100,
        h2: true,
        tls_verify: true,
        tls_ca_file: None,
        breaker_failures: 5,
        breaker_rest: SOON,
    }
}

/// Origins, and an upstream to send to.
struct Client {
    origins: Origins,
    upstream: Upstream,
}

/// A server that runs a script on each connection.
struct Script {
    url: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

/// The server's side of a connection.
struct Peer {
    tcp: TcpStream,
    requests: Arc<AtomicUsize>,
}

impl Script {
    /// Runs `script` on each connection, with the connection's number.
    async fn run<F, Fut>(script: F) -> Self
    where
        F: Fn(usize, Peer) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counter, served) = (Arc::clone(&connections), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(script(number, Peer { tcp, requests: Arc::clone(&served) }));
            }
        });
        Self { url, connections, requests }
    }

    /// Answers each request with `answer`, and keeps the connection.
    async fn always(answer: &'static str) -> Self {
        Self::run(move |_, mut peer| async move {
            while peer.request().await.is_some() {
                peer.say(answer).await;
            }
        })
        .await
    }

    /// Answers one request with `answer`, and closes the connection.
    async fn once(answer: &'static str) -> Self {
        Self::run(move |_, mut peer| async move {
            peer.request().await;
            peer.say(answer).await;
        })
        .await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn client(&self) -> Client {
        Client::new(&self.url, config())
    }

    fn client_with(&self, change: impl FnOnce(&mut Config)) -> Client {
        let mut config = config();
        change(&mut config);
        Client::new(&self.url, config)
    }
}

impl Peer {
    /// The next request's head, unless the connection ends.
    async fn request(&mut self) -> Option<String> {
        let head = self.until("\r\n\r\n").await?;
        self.requests.fetch_add(1, Ordering::SeqCst);
        Some(head)
    }

    /// What comes up to `end`, unless the connection ends.
    async fn until(&mut self, end: &str) -> Option<String> {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            read.push(self.tcp.read_u8().await.ok()?);
        }
        Some(String::from_utf8(read).unwrap())
    }

    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        // The client may have gone: then the test fails on its own side.
        let _ = self.tcp.write_all(bytes.as_ref()).await;
    }

    /// Waits until the client closes the connection.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ = self.tcp.read_to_end(&mut rest).await;
    }
}

impl Client {
    fn new(url: &str, config: Config) -> Self {
        Self::many(&[url], config)
    }

    fn many(urls: &[&str], config: Config) -> Self {
        let urls = urls.iter().map(ToString::to_string).collect::<Vec<_>>();
        let upstream = Upstream::new(&urls, config, TargetPolicy::Any).unwrap();
        Self { origins: Origins::new(&mut Registry::default()), upstream }
    }

    async fn send(&self, request: OriginRequest) -> Result<OriginResponse, Error> {
        tokio::time::timeout(SOON, self.origins.send(&self.upstream, request)).await.expect("an outcome soon")
    }

    async fn get(&self) -> Result<OriginResponse, Error> {
        self.send(get()).await
    }

    /// The body of a GET.
    async fn text(&self) -> String {
        text(self.get().await.expect("a response")).await
    }

    /// How a GET fails.
    async fn failure(&self) -> Error {
        self.get().await.expect_err("a failure")
    }
}

fn get() -> OriginRequest {
    OriginRequest::new(Method::GET, PathAndQuery::from_static("/a?b"))
}

fn post(body: impl Into<RequestBody>) -> OriginRequest {
    OriginRequest { method: Method::POST, body: body.into(), ..get() }
}

/// A body whose pieces come through a channel.
fn stream() -> (tokio::sync::mpsc::Sender<Result<Bytes, BoxError>>, RequestBody) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Result<Bytes, BoxError>>(8);
    let pieces = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let frames = futures_util::StreamExt::map(pieces, |piece| piece.map(http_body::Frame::data));
    (sender, RequestBody::Stream(http_body_util::StreamBody::new(frames).boxed_unsync()))
}

async fn body(response: OriginResponse) -> Result<Bytes, Error> {
    let collected = tokio::time::timeout(SOON, response.body.collect()).await.expect("an end soon");
    collected.map(http_body_util::Collected::to_bytes)
}

async fn text(response: OriginResponse) -> String {
    String::from_utf8(body(response).await.expect("a whole body").to_vec()).unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it happens soon")
}
