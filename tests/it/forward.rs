//! The forward proxy: absolute-form requests are cached, CONNECT is tunnelled, and neither reaches what it must not.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::support::{
    client,
    client::Response,
    gate::Gate,
    gateway,
    gateway::{Builder, Gateway},
    origin,
    origin::reply,
    outlive, raw,
    raw::Ending,
    within,
};

const OPEN: &str = "[forward]\nenabled = true\nclients = ['127.0.0.0/8']\ntargets_allowed = ['127.0.0.0/8']";
const CLOSED: &str = "[forward]\nenabled = true\nclients = ['127.0.0.0/8']\ntargets_allowed = []";

fn proxy(config: &str) -> Builder {
    gateway::new().config(config)
}

async fn get(gateway: &Gateway, url: &str) -> Response {
    client::get(url).via(gateway.data()).send().await
}

/// An echo server for tunnels.
async fn echo() -> raw::Origin {
    raw::serve(|mut conn| async move {
        let mut line = conn.exact(5).await;
        line.make_ascii_uppercase();
        conn.write(line).await;
        conn.rest().await;
    })
    .await
}

#[tokio::test]
async fn absolute_form_is_cached() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = proxy(OPEN).run().await;
    let url = format!("{}/a", origin.url());

    get(&gateway, &url).await.assert_ok("hello").assert_forwarded("uri-miss");
    get(&gateway, &url).await.assert_ok("hello").assert_hit();
    assert_eq!(origin.requests("/a"), 1);
    assert_eq!(origin.last("/a").header("host"), Some(origin.authority().as_str()));
}

#[tokio::test]
async fn hosts_are_kept_apart() {
    let one = origin::new().route("/a", "one").max_age(60).run().await;
    let two = origin::new().route("/a", "two").max_age(60).run().await;
    let gateway = proxy(OPEN).run().await;

    for _ in 0..2 {
        get(&gateway, &format!("{}/a", one.url())).await.assert_ok("one");
        get(&gateway, &format!("{}/a", two.url())).await.assert_ok("two");
    }
}

#[tokio::test]
async fn the_target_is_the_request_line_and_not_the_host_field() {
    let origin = origin::new().handler("/a", |seen, _| reply(seen.header("host").unwrap_or("").to_owned())).run().await;
    let gateway = proxy(OPEN).run().await;

    let request = client::get(format!("{}/a", origin.url())).header("host", "elsewhere.example");
    request.via(gateway.data()).send().await.assert_ok(&origin.authority());
}

#[tokio::test]
async fn connect_tunnels() {
    let echo = echo().await;
    let ports = format!("{OPEN}\nconnect_ports = [{}]", echo.address().port());
    let gateway = proxy(&ports).run().await;

    let mut connection = gateway.raw().await;
    connection.write(format!("CONNECT {0} HTTP/1.1\r\nhost: {0}\r\n\r\n", echo.address())).await;
    let head = connection.head().await;
    assert_eq!(raw::status(&head), 200, "{head}");
    assert!(
        raw::field(&head, "transfer-encoding").is_none() && raw::field(&head, "content-length").is_none(),
        "{head}"
    );
    connection.write("hello").await;
    assert_eq!(connection.exact(5).await, b"HELLO");
    connection.finish().await;
    assert_eq!(connection.rest().await, (Vec::new(), Ending::Closed));
}

/// The request that opened it is over, so nothing but the tunnel keeps the connection from being idle.
#[tokio::test]
async fn a_tunnel_in_http_2_outlives_the_idle_timeout_of_its_connection() {
    let (asked, open) = (Gate::new(), Gate::new());
    let (arrived, go) = (asked.clone(), open.clone());
    let server = raw::serve(move |mut conn| {
        let (arrived, go) = (arrived.clone(), go.clone());
        async move {
            conn.exact(5).await;
            arrived.pass().await;
            go.pass().await;
            conn.write("later").await;
            conn.rest().await;
        }
    })
    .await;
    asked.open();
    let ports = format!("{OPEN}\nconnect_ports = [{}]\n[client]\nidle_timeout = '1s'", server.address().port());
    let gateway = proxy(&ports).run().await;

    let stream = TcpStream::connect(gateway.data()).await.expect("the gateway listens");
    let builder = http2::Builder::new(TokioExecutor::new());
    let (mut sender, driver) = builder.handshake(TokioIo::new(stream)).await.expect("a connection");
    let driver = tokio::spawn(driver);
    let request = Request::connect(server.address().to_string()).body(Empty::<Bytes>::new()).expect("valid");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.expect("a tunnel"));
    tunnel.write_all(b"hello").await.expect("open");
    asked.arrived(1).await;
    let quiet = Instant::now();
    // The time-out, and what a connection that is ended is given to end.
    outlive(quiet, Duration::from_secs(4)).await;
    open.open();
    let mut got = [0; 5];
    within("the answer through the tunnel", tunnel.read_exact(&mut got)).await.expect("still open");
    assert_eq!(&got, b"later");
    drop(tunnel);
    drop(server);
    // Without the tunnel it is idle like any other.
    within("the end of the connection", driver).await.expect("no panic").ok();
}

#[tokio::test]
async fn connect_goes_to_allowed_ports_only() {
    let echo = echo().await;
    let gateway = proxy(&format!("{OPEN}\nconnect_ports = [443]")).run().await;

    let mut connection = gateway.raw().await;
    connection.write(format!("CONNECT {0} HTTP/1.1\r\nhost: {0}\r\n\r\n", echo.address())).await;
    assert_eq!(raw::status(&connection.head().await), 403);
    assert_eq!(echo.connections(), 0);
}

#[tokio::test]
async fn private_targets_are_refused() {
    let origin = origin::new().route("/a", "secret").max_age(60).run().await;
    let gateway = proxy(CLOSED).run().await;
    let port = origin.authority().split_once(':').expect("a port").1.to_owned();

    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1", "2130706433", "[::]"] {
        let mut connection = gateway.raw().await;
        let request =
            format!("GET http://{host}:{port}/a HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n");
        connection.write(request).await;
        let head = connection.head().await;
        let status = raw::status(&head);
        assert!((400..600).contains(&status), "{host}: {head}");
        if ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"].contains(&host) {
            assert_eq!(status, 403, "{host}: {head}");
            let proxy_status = raw::field(&head, "proxy-status").expect("a Proxy-Status");
            assert!(proxy_status.contains("destination_ip_prohibited"), "{host}: {proxy_status}");
        }
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn connect_to_private_targets_is_refused() {
    let echo = echo().await;
    let gateway = proxy(&format!("{CLOSED}\nconnect_ports = [{}]", echo.address().port())).run().await;

    let mut connection = gateway.raw().await;
    connection.write(format!("CONNECT {0} HTTP/1.1\r\nhost: {0}\r\n\r\n", echo.address())).await;
    let head = connection.head().await;
    assert_eq!(raw::status(&head), 403, "{head}");
    assert!(raw::field(&head, "proxy-status").is_some_and(|value| value.contains("destination_ip_prohibited")));
    assert_eq!(echo.connections(), 0);
}

#[tokio::test]
async fn other_clients_are_refused() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let strangers = "[forward]\nenabled = true\nclients = ['192.0.2.0/24']\ntargets_allowed = ['127.0.0.0/8']";
    let gateway = proxy(strangers).run().await;

    assert_eq!(get(&gateway, &format!("{}/a", origin.url())).await.status, 403);
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn there_is_no_forward_proxy_unless_asked_for() {
    let target = origin::new().route("/a", "secret").max_age(60).run().await;
    let upstream = origin::new().route("/a", "upstream").max_age(60).run().await;
    let gateway = gateway::new().origin(&upstream).config("[forward]\nenabled = false").run().await;

    get(&gateway, &format!("{}/a", target.url())).await;
    let mut connection = gateway.raw().await;
    connection.write(format!("CONNECT {0} HTTP/1.1\r\nhost: {0}\r\n\r\n", target.authority())).await;
    let refused = connection.try_head().await;
    assert!(refused.is_none_or(|head| raw::status(&head) >= 400));
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_target_that_is_not_there() {
    let gateway = proxy(OPEN).run().await;
    let response = get(&gateway, "http://127.0.0.1:1/a").await;
    assert_eq!(response.status, 502);
    assert!(response.header("proxy-status").is_some_and(|value| value.contains("connection_refused")));
}

#[tokio::test]
async fn a_proxy_to_itself_is_a_loop() {
    let gateway = proxy(OPEN).run().await;
    let response = get(&gateway, &gateway.url("/a")).await;
    assert!([403, 404, 508].contains(&response.status), "{}", response.status);
}

#[tokio::test]
async fn proxy_credentials_stay_here() {
    let origin = origin::new().route("/a", "hello").run().await;
    let gateway = proxy(OPEN).run().await;

    let request = client::get(format!("{}/a", origin.url())).header("proxy-authorization", "Basic c2VjcmV0");
    request.via(gateway.data()).send().await.assert_ok("hello");
    assert_eq!(origin.last("/a").header("proxy-authorization"), None);
}
