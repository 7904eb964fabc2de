//! `HTTPS_PROXY`: tunnels to the hosts of a list are opened and what is said in them is cached; all others pass untouched.

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::support::{
    client,
    client::Connection,
    command::larder,
    eventually,
    gate::Gate,
    gateway,
    gateway::{Builder, Gateway},
    origin,
    origin::{Origin, reply},
    pattern, raw,
    secure::{Front, handshake, tunnel},
    within,
};

const H1: &[&str] = &["http/1.1"];
const H2: &[&str] = &["h2", "http/1.1"];

/// What lets a gateway reach `front`, but for the list.
pub(crate) fn reaching(front: &Front) -> String {
    format!(
        "[forward]\ntargets_allowed = ['127.0.0.0/8']\nconnect_ports = [{}]\n[origin]\ntls_ca_file = '{}'",
        front.port(),
        front.authority_file().display()
    )
}

/// The list: `front` alone.
pub(crate) fn list(front: &Front) -> String {
    format!("[intercept]\nhosts = ['localhost']\nports = [{}]", front.port())
}

/// A gateway that intercepts `front`.
fn intercepting(front: &Front) -> Builder {
    gateway::new().config(reaching(front)).config(list(front)).authority()
}

async fn front(origin: &Origin) -> Front {
    Front::before(origin.authority().parse().expect("an address")).await
}

/// TLS with the gateway itself: its authority alone is trusted.
async fn inside(gateway: &Gateway, front: &Front, protocols: &[&str]) -> TlsStream<TcpStream> {
    let tunnel = tunnel(gateway.data(), &front.authority()).await.expect("a tunnel");
    handshake(tunnel, &gateway.authority_file(), protocols).await.expect("a certificate of the gateway's authority")
}

async fn connect(gateway: &Gateway, front: &Front, protocols: &[&str]) -> Connection {
    let tls = inside(gateway, front, protocols).await;
    let agreed = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    assert_eq!(agreed, protocols == H2);
    client::over(tls, agreed).await
}

async fn outcomes(gateway: &Gateway, outcome: &str, count: f64) {
    let sample = format!("larder_intercept_connections_total{{outcome=\"{outcome}\"}}");
    eventually("the count of an outcome", || async { (gateway.metric(&sample).await >= count).then_some(()) }).await;
    assert_eq!(gateway.metric(&sample).await, count, "{outcome}");
}

#[tokio::test]
async fn what_is_said_in_a_tunnel_is_cached() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let front = front(&origin).await;
    let gateway = intercepting(&front).run().await;

    let mut one = connect(&gateway, &front, H1).await;
    one.send(client::get(front.url("/a"))).await.assert_ok("hello").assert_forwarded("uri-miss");
    one.send(client::get(front.url("/a"))).await.assert_ok("hello").assert_hit();
    let mut other = connect(&gateway, &front, H2).await;
    let hit = other.send(client::get(front.url("/a"))).await;
    hit.assert_ok("hello").assert_hit();
    assert_eq!(hit.version, http::Version::HTTP_2);
    assert_eq!(origin.requests("/a"), 1);
    let seen = origin.last("/a");
    assert_eq!(seen.header("host"), Some(front.authority().as_str()));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    gateway.access_line(|line| line["host"] == front.authority() && line["route"] == "forward").await;
    outcomes(&gateway, "opened", 2.0).await;
}

#[tokio::test]
async fn a_tunnel_that_is_opened_costs_nothing_at_the_origin() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let front = front(&origin).await;
    let limit = "[[limit]]\nname = 'origin'\ncount = 'origin'\nrate = '1/day'\n";
    let gateway = intercepting(&front).config(limit).run().await;
    let mut tunnel = connect(&gateway, &front, H1).await;
    tunnel.send(client::get(front.url("/a"))).await.assert_ok("hello");
    // It has no more, and another tunnel answers what is stored.
    let mut other = connect(&gateway, &front, H1).await;
    other.send(client::get(front.url("/a"))).await.assert_hit();
    assert_eq!(other.send(client::get(front.url("/b"))).await.status, 429);
}

#[tokio::test]
async fn a_route_that_names_the_host_takes_it() {
    let origin = origin::new().route("/a", "of the host").run().await;
    let mine = origin::new().route("/a", "of the route").max_age(60).run().await;
    let front = front(&origin).await;
    let route = |host: &str| format!("[[route]]\nname = 'mine'\n{host}\nupstream = '{}'", mine.url());
    let named = intercepting(&front).config(route("host = 'localhost'")).run().await;
    for protocols in [H1, H2] {
        let mut connection = connect(&named, &front, protocols).await;
        connection.send(client::get(front.url("/a"))).await.assert_ok("of the route");
        connection.send(client::get(front.url("/a"))).await.assert_ok("of the route").assert_hit();
    }
    let any = intercepting(&front).config(route("")).run().await;
    for protocols in [H1, H2] {
        let mut connection = connect(&any, &front, protocols).await;
        for _ in 0..2 {
            connection.send(client::get(front.url("/a"))).await.assert_ok("of the host");
        }
    }
    any.get("/a").await.assert_ok("of the route");
}

#[tokio::test]
async fn a_tunnel_is_for_one_host() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let front = front(&origin).await;
    let gateway = intercepting(&front).run().await;
    let authority = front.authority();

    let mut tls = raw::Tls::new(inside(&gateway, &front, H1).await);
    let plain = format!("GET http://{authority}/a HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    let elsewhere = format!("GET https://elsewhere.example/a HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    let nested = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    let nameless = "GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_owned();
    let other_port = "GET /a HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned();
    for request in [plain, elsewhere, nested, nameless, other_port] {
        let head = tls.ask(&request).await;
        assert_eq!(raw::status(&head), 421, "{request}{head}");
        if head.to_ascii_lowercase().contains("connection: close") {
            tls = raw::Tls::new(inside(&gateway, &front, H1).await);
        }
    }
    let own = format!("GET https://{authority}/a HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    assert_eq!(raw::status(&tls.ask(&own).await), 200);

    let mut h2 = connect(&gateway, &front, H2).await;
    let response = h2.send(client::get("https://elsewhere.example/a")).await;
    assert_eq!(response.status, 421);
    h2.send(client::get(front.url("/a"))).await.assert_ok("hello").assert_hit();
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn other_hosts_pass_untouched() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let front = front(&origin).await;
    let elsewhere = format!("[intercept]\nhosts = ['elsewhere.example']\nports = [{}]", front.port());
    let other_port = "[intercept]\nhosts = ['localhost']";
    let off = format!("{}\nenabled = 'off'", list(&front));
    let gateways = [
        gateway::new().config(reaching(&front)).config(elsewhere).authority().run().await,
        gateway::new().config(reaching(&front)).config(other_port).authority().run().await,
        gateway::new().config(reaching(&front)).config(off).authority().run().await,
        // Nobody has made an authority.
        gateway::new().config(reaching(&front)).config(list(&front)).run().await,
    ];
    for (number, gateway) in gateways.iter().enumerate() {
        let tunnel = tunnel(gateway.data(), &front.authority()).await.expect("a tunnel");
        let tls = handshake(tunnel, &front.authority_file(), H1).await.expect("the origin's own certificate");
        let mut connection = client::over(tls, false).await;
        let response = connection.send(client::get(front.url("/a"))).await;
        response.assert_ok("hello");
        assert_eq!(response.header("cache-status"), None);
        assert_eq!((origin.requests("/a"), front.connections()), (number + 1, number + 1));
    }
}

#[tokio::test]
async fn an_authority_older_than_the_list_signs_for_no_newcomer() {
    let origin = origin::new().route("/a", "hello").run().await;
    let front = front(&origin).await;
    let before = format!("{}\n[intercept]\nhosts = ['elsewhere.example']", reaching(&front));
    let gateway = gateway::new().config(before).authority().run().await;
    let gateway = gateway.restart_with(&format!("{}\n{}", reaching(&front), list(&front))).await;
    let tunnel = tunnel(gateway.data(), &front.authority()).await.expect("a tunnel");
    handshake(tunnel, &front.authority_file(), H1).await.expect("the origin's own certificate");
    assert!(gateway.output().contains("larder ca init --force"), "{}", gateway.output());
}

#[tokio::test]
async fn who_may_not_use_the_proxy_gets_no_tunnel() {
    let origin = origin::new().route("/a", "hello").run().await;
    let front = front(&origin).await;
    let config = reaching(&front).replace("[forward]\n", "[forward]\nclients = ['192.0.2.0/24']\n");
    let gateway = gateway::new().config(config).config(list(&front)).authority().run().await;
    assert_eq!(tunnel(gateway.data(), &front.authority()).await.err(), Some(403));
    let config = reaching(&front).replace(&format!("connect_ports = [{}]", front.port()), "connect_ports = [443]");
    let gateway = gateway::new().config(config).config(list(&front)).authority().run().await;
    assert_eq!(tunnel(gateway.data(), &front.authority()).await.err(), Some(403));
    assert_eq!(front.connections(), 0);
}

#[tokio::test]
async fn origins_are_verified_as_ever() {
    let origin = origin::new().route("/a", "hello").run().await;
    let front = front(&origin).await;
    let config = reaching(&front).replace("tls_ca_file", "#tls_ca_file");
    let gateway = gateway::new().config(config).config(list(&front)).authority().run().await;
    let response = connect(&gateway, &front, H1).await.send(client::get(front.url("/a"))).await;
    assert_eq!(response.status, 502);
    assert!(response.header("proxy-status").is_some_and(|status| status.contains("tls_certificate_error")));
    assert_eq!(origin.requests("/a"), 0);
}

#[tokio::test]
async fn a_name_is_signed_for_once() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let front = front(&origin).await;
    let gateway = intercepting(&front).run().await;
    let all = (0..20).map(|_| inside(&gateway, &front, H1));
    let all = futures_util::future::join_all(all).await;
    let certificate = |tls: &TlsStream<TcpStream>| tls.get_ref().1.peer_certificates().expect("some")[0].clone();
    assert!(all.iter().all(|tls| certificate(tls) == certificate(&all[0])));
    assert_eq!(gateway.metric("larder_intercept_certificates_minted_total").await, 1.0);
    assert_eq!(gateway.metric("larder_intercept_certificates").await, 1.0);
    assert_eq!(gateway.metric("larder_tunnels").await, 20.0);
    outcomes(&gateway, "opened", 20.0).await;
    drop(all);
    outcomes(&gateway, "unused", 20.0).await;
    eventually("the end of all tunnels", || async { (gateway.metric("larder_tunnels").await == 0.0).then_some(()) })
        .await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let origin = origin::new().run().await;
    let front = front(&origin).await;
    let gateway = intercepting(&front).config("[client]\nhead_timeout = '300ms'").run().await;
    let mut silent = tunnel(gateway.data(), &front.authority()).await.expect("a tunnel");
    let end = within("the end of a silent tunnel", silent.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(0) | Err(_)));
    outcomes(&gateway, "timed-out", 1.0).await;
    // After the handshake, the time for a request head is that of any connection.
    let mut silent = inside(&gateway, &front, H1).await;
    let end = within("the end of a silent connection", silent.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(0) | Err(_)));
}

#[tokio::test]
async fn who_does_not_trust_the_authority_is_told_the_way_out() {
    let origin = origin::new().run().await;
    let front = front(&origin).await;
    let gateway = intercepting(&front).run().await;
    for _ in 0..3 {
        let tunnel = tunnel(gateway.data(), &front.authority()).await.expect("a tunnel");
        handshake(tunnel, &front.authority_file(), H1).await.expect_err("the gateway's certificate");
    }
    outcomes(&gateway, "distrusted", 3.0).await;
    let mut plain = tunnel(gateway.data(), &front.authority()).await.expect("a tunnel");
    plain.write_all(b"SSH-2.0-x\r\n").await.expect("open");
    outcomes(&gateway, "failed", 1.0).await;
    let output = gateway.output();
    assert_eq!(output.matches("larder ca install-hint").count(), 1, "one line a minute: {output}");
    assert_eq!(front.connections(), 0);
}

#[tokio::test]
async fn events_come_as_they_are_sent() {
    let gate = Gate::new();
    let events = reply("data: one\n\n").gate(&gate).chunk("data: two\n\n").header("content-type", "text/event-stream");
    let origin = origin::new().route("/events", events).run().await;
    let front = front(&origin).await;
    let gateway = intercepting(&front).run().await;
    for (number, protocols) in [H1, H2].into_iter().enumerate() {
        let mut connection = connect(&gateway, &front, protocols).await;
        let mut stream = connection.open(client::get(front.url("/events"))).await;
        assert_eq!(stream.read(11).await, b"data: one\n\n");
        gate.arrived(number + 1).await;
        gate.open();
        stream.finish().await.assert_ok("data: one\n\ndata: two\n\n");
    }
}

#[tokio::test]
async fn large_content_passes_both_ways() {
    let body = pattern(3 << 20);
    let sent = body.clone();
    let origin = origin::new().handler("/echo", |seen, _| reply(seen.body.clone())).run().await;
    let front = front(&origin).await;
    let gateway = intercepting(&front).run().await;
    for protocols in [H1, H2] {
        let mut connection = connect(&gateway, &front, protocols).await;
        let response = connection.send(client::request("POST", front.url("/echo")).body(sent.clone())).await;
        assert_eq!((response.status, response.body.len()), (200, body.len()));
        assert!(response.body == body);
    }
}

#[tokio::test]
async fn a_websocket_in_a_tunnel() {
    let origin = raw::serve(|mut conn| async move {
        let head = conn.head().await;
        assert_eq!(raw::field(&head, "upgrade"), Some("websocket"), "{head}");
        conn.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nready").await;
        let mut word = conn.exact(5).await;
        word.make_ascii_uppercase();
        conn.write(word).await;
        conn.rest().await;
    })
    .await;
    let front = Front::before(origin.address()).await;
    let config = reaching(&front).replace("[forward]\n", "[forward]\ntunnels_max = 1\n");
    let gateway = gateway::new().config(config).config(list(&front)).authority().run().await;

    let mut tls = raw::Tls::new(inside(&gateway, &front, H1).await);
    let authority = front.authority();
    let request = format!(
        "GET /chat HTTP/1.1\r\nhost: {authority}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    assert_eq!(raw::status(&tls.ask(&request).await), 101);
    assert_eq!(tls.exact(5).await, b"ready");
    tls.write("hello").await;
    assert_eq!(tls.exact(5).await, b"HELLO");
    // It has the place of its tunnel, which is the only one.
    assert_eq!(gateway.metric("larder_tunnels").await, 1.0);
    assert_eq!(tunnel(gateway.data(), &authority).await.err(), Some(503));
    drop(tls);
    eventually("a place among the tunnels", || async { tunnel(gateway.data(), &authority).await.ok() }).await;
}

#[tokio::test]
async fn a_tunnel_in_http_2_is_opened_too() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let front = front(&origin).await;
    let gateway = intercepting(&front).run().await;
    let stream = TcpStream::connect(gateway.data()).await.expect("the gateway listens");
    let builder = http2::Builder::new(TokioExecutor::new());
    let (mut sender, driver) = builder.handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(async move { drop(driver.await) });
    for _ in 0..2 {
        let request = Request::connect(front.authority()).body(Empty::<Bytes>::new()).expect("valid");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let tunnel = TokioIo::new(hyper::upgrade::on(response).await.expect("a tunnel"));
        let tls = handshake(tunnel, &gateway.authority_file(), H1).await.expect("the gateway's certificate");
        let mut connection = client::over(tls, false).await;
        connection.send(client::get(front.url("/a"))).await.assert_ok("hello");
    }
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn an_idle_tunnel_ends() {
    let origin = origin::new().route("/a", "hello").run().await;
    let front = front(&origin).await;
    let config = reaching(&front).replace("[forward]\n", "[forward]\ntunnel_idle_timeout = '300ms'\n");
    let gateway = gateway::new().config(config).config(list(&front)).authority().run().await;
    let mut tls = raw::Tls::new(inside(&gateway, &front, H1).await);
    let request = format!("GET /a HTTP/1.1\r\nhost: {}\r\n\r\n", front.authority());
    assert_eq!(raw::status(&tls.ask(&request).await), 200);
    tls.ended().await;
    let sample = "larder_client_timeouts_total{while=\"idle\"}";
    assert_eq!(gateway.metric(sample).await, 1.0);
}

/// What TLS holds back for it counts as what it does not read.
#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let origin = origin::new().route("/large", reply(pattern(64 << 20))).run().await;
    let front = front(&origin).await;
    let gateway = intercepting(&front).config("[client]\nwrite_timeout = '500ms'").run().await;
    let mut connection = connect(&gateway, &front, H1).await;
    let stalled = connection.open(client::get(front.url("/large"))).await;
    let sample = "larder_client_timeouts_total{while=\"write\"}";
    eventually("the end of the client's time", || async { (gateway.metric(sample).await == 1.0).then_some(()) }).await;
    assert!(stalled.finish().await.broken, "no end of a part is a clean one");
    eventually("the end of its tunnel", || async { (gateway.metric("larder_tunnels").await == 0.0).then_some(()) })
        .await;
}

#[tokio::test]
async fn a_stop_waits_for_requests_in_tunnels() {
    let gate = Gate::new();
    let origin = origin::new().route("/slow", reply("first ").gate(&gate).chunk("last")).run().await;
    let front = front(&origin).await;
    let mut gateway = intercepting(&front).run().await;
    let mut connection = connect(&gateway, &front, H1).await;
    let mut idle = raw::Tls::new(inside(&gateway, &front, H1).await);
    let mut under_way = connection.open(client::get(front.url("/slow"))).await;
    under_way.read(6).await;
    gateway.terminate();
    idle.ended().await;
    gate.open();
    under_way.finish().await.assert_ok("first last");
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn purge_in_a_tunnel() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let front = front(&origin).await;
    let gateway = intercepting(&front).config("[cache]\npurge_method = true").token("secret").run().await;
    let mut connection = connect(&gateway, &front, H1).await;
    connection.send(client::get(front.url("/a"))).await.assert_ok("hello");
    connection.send(client::get(front.url("/a"))).await.assert_hit();
    let purge = || client::request("PURGE", front.url("/a"));
    assert_eq!(connection.send(purge()).await.status, 401);
    connection.send(client::get(front.url("/a"))).await.assert_hit();
    assert_eq!(connection.send(purge().header("authorization", "Bearer secret")).await.status, 200);
    connection.send(client::get(front.url("/a"))).await.assert_forwarded("uri-miss");
}

#[tokio::test]
async fn a_key_that_others_can_read_is_not_used() {
    let origin = origin::new().run().await;
    let front = front(&origin).await;
    let mut gateway = intercepting(&front).run().await;
    gateway.stop().await;
    let key = gateway.data_dir().join("ca/ca-key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let refusal = gateway.refused_twin().await;
    assert_eq!(refusal.code, Some(69));
    assert!(refusal.output.contains("can be read by others (mode 644)"), "{}", refusal.output);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("changed");
    let gateway = gateway.start_again().await;
    drop(inside(&gateway, &front, H1).await);
}

#[tokio::test]
async fn an_authority_that_is_asked_for_has_to_be_there() {
    let refusal = gateway::new().config("[intercept]\nenabled = 'on'").refuse().await;
    assert_eq!(refusal.code, Some(69));
    assert!(refusal.output.contains("`larder ca init` makes one"), "{}", refusal.output);
}

#[tokio::test]
async fn the_commands() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("it's data");
    let ca = |arguments: &[&str]| {
        let mut all: Vec<_> = ["ca"].iter().chain(arguments).map(std::ffi::OsString::from).collect();
        all.extend(["--data-dir".into(), data.clone().into_os_string()]);
        larder(all)
    };
    ca(&["show"]).await.assert(1, "`larder ca init` makes one");
    ca(&["install-hint"]).await.assert(1, "`larder ca init` makes one");
    ca(&["init"]).await.assert(0, "larder ca install-hint");
    let shown = ca(&["show", "--json"]).await.json();
    assert_eq!(shown["certificate"], json!(data.join("ca/ca.pem")));
    assert_eq!(shown["sha256"].as_str().expect("a text").len(), 95);
    let permitted = shown["permitted"].as_array().expect("a list");
    assert!(permitted.contains(&json!("api.openai.com")) && permitted.contains(&json!("openai.azure.com")));
    ca(&["show"]).await.assert(0, shown["sha256"].as_str().expect("a text"));
    ca(&["init"]).await.assert(1, "--force");
    assert_eq!(ca(&["show", "--json"]).await.json()["sha256"], shown["sha256"]);
    ca(&["init", "--force"]).await.assert(0, "signs for");
    assert_ne!(ca(&["show", "--json"]).await.json()["sha256"], shown["sha256"]);
    ca(&["install-hint"]).await.assert(0, "update-ca-certificates");
    let exports = ca(&["install-hint", "--shell"]).await;
    let script = format!("{}\ntest -r \"$SSL_CERT_FILE\" && test -r \"$NODE_EXTRA_CA_CERTS\"", exports.stdout);
    let run = std::process::Command::new("sh").args(["-eu", "-c", &script]).status().expect("a shell");
    assert!(run.success(), "{script}");
    larder(["ca", "init", "--config", "/nowhere/larder.toml"]).await.assert(64, "cannot be read");
    std::fs::set_permissions(data.join("ca/ca-key.pem"), std::fs::Permissions::from_mode(0o644)).expect("changed");
    ca(&["show"]).await.assert(0, "of no use");
}
