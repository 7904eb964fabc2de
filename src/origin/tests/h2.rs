//! HTTP/2 origins.

use std::convert::Infallible;

use http::{Response, Version};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Barrier;

use super::*;

/// A server of HTTP/2 in the clear that answers when `together` requests are there.
pub(super) struct H2Server {
    pub(super) url: String,
    connections: Arc<AtomicUsize>,
}

impl H2Server {
    async fn run(streams_max: u32, together: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("h2c://{}", listener.local_addr().unwrap());
        let connections = Arc::<AtomicUsize>::default();
        let (counter, barrier) = (Arc::clone(&connections), Arc::new(Barrier::new(together)));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let barrier = Arc::clone(&barrier);
                let service = service_fn(move |request| respond(request, Arc::clone(&barrier)));
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder.max_concurrent_streams(streams_max);
                tokio::spawn(builder.serve_connection(TokioIo::new(tcp), service));
            }
        });
        Self { url, connections }
    }
}

async fn respond(request: http::Request<Incoming>, barrier: Arc<Barrier>) -> Result<Response<Full<Bytes>>, Infallible> {
    assert!(!request.headers().contains_key("host"));
    let uri = request.uri().to_string();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    barrier.wait().await;
    Ok(Response::new(Full::from([uri.as_bytes(), b" ", &body].concat())))
}

/// How many connections `requests` at once take.
async fn connections_for(streams_max: u32, requests: usize, config: Config) -> usize {
    let server = H2Server::run(streams_max, requests).await;
    let client = Arc::new(Client::new(&server.url, config));
    let tasks = (0..requests).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.text().await })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert!(within(task).await.unwrap().contains("/a?b"));
    }
    assert_eq!(client.origins.metrics.in_flight.get(), 0);
    server.connections.load(Ordering::SeqCst)
}

#[tokio::test]
async fn requests_share_a_connection() {
    let server = H2Server::run(100, 1).await;
    let client = Client::new(&server.url, config());
    let response = client.send(post(Bytes::from_static(b"body"))).await.unwrap();
    assert_eq!(response.version, Version::HTTP_2);
    let authority = server.url.trim_start_matches("h2c://");
    assert_eq!(text(response).await, format!("http://{authority}/a?b body"));
    let host = Some(HeaderValue::from_static("example.com"));
    let response = client.send(OriginRequest { host, ..get() }).await.unwrap();
    assert_eq!(text(response).await, "http://example.com/a?b ");
    let (pieces, body) = stream();
    pieces.send(Ok(Bytes::from_static(b"streamed"))).await.unwrap();
    drop(pieces);
    let response = client.send(OriginRequest { body, ..post(Bytes::new()) }).await.unwrap();
    assert!(text(response).await.ends_with(" streamed"));
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    assert_eq!(client.origins.metrics.reused.get(), 2);
}

#[tokio::test]
async fn a_burst_at_the_start_shares_one_connection() {
    assert_eq!(connections_for(100, 40, config()).await, 1);
}

#[tokio::test]
async fn more_streams_than_the_origin_allows_open_more_connections() {
    assert_eq!(connections_for(4, 10, config()).await, 3);
}

#[tokio::test]
async fn more_streams_than_configured_open_more_connections() {
    assert_eq!(connections_for(100, 10, Config { h2_streams_max: 5, ..config() }).await, 2);
}

#[tokio::test]
async fn an_origin_that_does_not_speak_http_2_is_an_error() {
    let script = Script::run(|_, mut peer| async move {
        peer.say("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        peer.closed().await;
    });
    let url = script.await.url.replace("http:", "h2c:");
    let error = Client::new(&url, config()).failure().await;
    assert_eq!((error.proxy_status(), error.unseen()), ("http_protocol_error", true));
}

#[tokio::test]
async fn those_who_wait_for_an_attempt_share_its_failure() {
    // Accepts, and never says its settings.
    let script = Script::run(|_, mut peer| async move { peer.closed().await }).await;
    let url = script.url.replace("http:", "h2c:");
    let config = Config { connect_timeout: SHORT, breaker_failures: 2, ..config() };
    let client = Client::new(&url, config);
    let failures = futures_util::future::join_all((0..10).map(|_| client.failure())).await;
    assert!(failures.iter().all(|error| error.kind() == Kind::ConnectTimeout), "{failures:?}");
    assert_eq!(script.connections(), 1);
    assert_eq!(client.failure().await.kind(), Kind::ConnectTimeout, "one attempt is one failure");
    assert_eq!(client.failure().await.kind(), Kind::Unavailable);
}

#[tokio::test]
async fn a_connection_that_went_away_is_replaced() {
    let server = H2Server::run(100, 1).await;
    let client = Client::new(&server.url, config());
    let relay = Relay::run(&server.url).await;
    let upstream = Upstream::new(std::slice::from_ref(&relay.url), config(), TargetPolicy::Any).unwrap();
    let send = || async { text(client.origins.send(&upstream, get()).await.expect("a response")).await };
    send().await;
    relay.cut();
    send().await;
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

/// Passes bytes on until it is cut.
struct Relay {
    url: String,
    cut: Arc<tokio::sync::Notify>,
}

impl Relay {
    async fn run(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("h2c://{}", listener.local_addr().unwrap());
        let (cut, target) = (Arc::<tokio::sync::Notify>::default(), target.replace("h2c://", ""));
        let wire = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (target, wire) = (target.clone(), Arc::clone(&wire));
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        () = wire.notified() => {}
                    }
                });
            }
        });
        Self { url, cut }
    }

    fn cut(&self) {
        self.cut.notify_waiters();
    }
}

/// A server that does with each stream, by its number, what `script` says.
async fn streams<F, Fut>(script: F) -> Client
where
    F: Fn(usize, http::Request<::h2::RecvStream>, ::h2::server::SendResponse<Bytes>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let script = Arc::new(script);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("h2c://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let number = Arc::<AtomicUsize>::default();
        while let Ok((tcp, _)) = listener.accept().await {
            let (script, number) = (Arc::clone(&script), Arc::clone(&number));
            tokio::spawn(async move {
                let mut connection = ::h2::server::handshake(tcp).await.unwrap();
                while let Some(Ok((request, answer))) = connection.accept().await {
                    tokio::spawn(script(number.fetch_add(1, Ordering::SeqCst), request, answer));
                }
            });
        }
    });
    Client::new(&url, config())
}

#[tokio::test]
async fn a_refused_request_is_sent_again_a_failed_one_is_not() {
    let client = streams(|number, _, mut answer| async move {
        match number {
            0 => answer.send_reset(::h2::Reason::REFUSED_STREAM),
            2 => answer.send_reset(::h2::Reason::INTERNAL_ERROR),
            _ => drop(answer.send_response(Response::new(()), true).unwrap()),
        }
    })
    .await;
    let answered = client.send(post(Bytes::from_static(b"x"))).await.expect("the second try");
    assert_eq!((answered.status.as_u16(), client.origins.metrics.retries.get()), (200, 1));
    let error = client.failure().await;
    assert_eq!((error.proxy_status(), error.unseen()), ("connection_terminated", false));
    client.get().await.expect("the connection is still good");
    assert_eq!(client.origins.metrics.open.get(), 1);
}

#[tokio::test]
async fn a_body_that_is_reset_is_not_complete() {
    for reason in [::h2::Reason::NO_ERROR, ::h2::Reason::CANCEL] {
        let client = streams(move |_, _, mut answer| async move {
            let mut body = answer.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"half"), false).unwrap();
            // The data leaves before the reset.
            tokio::time::sleep(SHORT).await;
            body.send_reset(reason);
        })
        .await;
        let error = body(client.get().await.unwrap()).await.expect_err("cut short");
        assert_eq!(error.kind(), Kind::Incomplete, "{reason}");
    }
}
