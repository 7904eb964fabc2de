//! TLS at the gateway's own listeners: what clients are shown, what of them origins see, and certificates that change.

use std::{fs, process::Command};

use crate::support::{
    client, command,
    command::Ran,
    eventually,
    gate::Gate,
    gateway::{self, Builder, Gateway},
    origin::{self, Origin, reply},
    pki::{Files, Pki},
    within,
};

const H1: &[&str] = &["http/1.1"];
const H2: &[&str] = &["h2", "http/1.1"];

/// Long before its end.
const LATER: i32 = 2040;

fn listening(certificates: &[&Files]) -> Builder {
    let all: Vec<_> = certificates.iter().map(|files| files.toml()).collect();
    gateway::new().config(format!("[listen.tls]\ncertificates = [{}]", all.join(", ")))
}

fn administered(files: &Files, more: &str) -> Builder {
    gateway::new().config(format!("[admin.tls]\ncertificates = [{}]\n{more}", files.toml()))
}

async fn cached(text: &'static str) -> Origin {
    origin::new().route("/a", text).max_age(600).run().await
}

fn url(gateway: &Gateway, path: &str) -> String {
    format!("https://localhost:{}{path}", gateway.data().port())
}

/// `curl` with these arguments, to its end.
async fn curl(arguments: Vec<String>) -> Ran {
    let run = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20"]).args(arguments);
        command.env_remove("HTTPS_PROXY").env_remove("https_proxy").env_remove("ALL_PROXY").env_remove("all_proxy");
        command.output().expect("curl")
    });
    let output = within("curl", run).await.expect("no panic");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn arguments(list: &[&str]) -> Vec<String> {
    list.iter().map(|&one| one.to_owned()).collect()
}

#[tokio::test]
async fn hits_over_both_protocols_by_what_is_agreed_on() {
    let pki = Pki::new();
    let origin = cached("hello").await;
    let gateway = listening(&[&pki.sign("one", &["localhost"], LATER)]).origin(&origin).run().await;
    let mut first = pki.client(H1, None).connect(gateway.data(), "localhost").await;
    first.send(client::get(url(&gateway, "/a"))).await.assert_ok("hello").assert_forwarded("uri-miss");
    let hit = first.send(client::get(url(&gateway, "/a"))).await;
    hit.assert_ok("hello").assert_hit();
    assert_eq!(hit.version, http::Version::HTTP_11);
    let mut other = pki.client(H2, None).connect(gateway.data(), "localhost").await;
    let hit = other.send(client::get(url(&gateway, "/a"))).await;
    hit.assert_ok("hello").assert_hit();
    assert_eq!(hit.version, http::Version::HTTP_2);
    assert_eq!(origin.requests("/a"), 1);
    assert_eq!(origin.last("/a").header("x-forwarded-proto"), Some("https"));
    assert_eq!(gateway.metric("larder_tls_handshakes_total{listener=\"data\",outcome=\"done\"}").await, 2.0);
}

#[tokio::test]
async fn curl_and_the_command_line() {
    let pki = Pki::new();
    let origin = cached("hello").await;
    let files = pki.sign("one", &["localhost"], LATER);
    let flags =
        ["--tls-cert".into(), files.cert.display().to_string(), "--tls-key".into(), files.key.display().to_string()];
    let gateway = flags.into_iter().fold(gateway::new(), Builder::argument).origin(&origin).run().await;
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let authority = pki.file().display().to_string();
        let asked = [flag, "--cacert", &authority, "--write-out", " %{http_version}", &url(&gateway, "/a")];
        let ran = curl(arguments(&asked)).await;
        ran.assert(0, &format!("hello {version}"));
    }
    assert_eq!(origin.requests("/a"), 1);
    let old = ["--tlsv1.1", "--tls-max", "1.1", "--cacert", &pki.file().display().to_string(), &url(&gateway, "/a")];
    assert_ne!(curl(arguments(&old)).await.code, Some(0), "TLS 1.1");
}

#[tokio::test]
async fn the_name_that_is_asked_for_picks_the_certificate() {
    let pki = Pki::new();
    let first = pki.sign("first", &["first.example"], LATER);
    let other = pki.sign("other", &["other.example", "*.other.example"], 2041);
    let gateway = listening(&[&first, &other]).run().await;
    let client = pki.client(H2, None);
    assert_eq!(client.shown(gateway.data(), "first.example").await, first.certificate());
    assert_eq!(client.shown(gateway.data(), "other.example").await, other.certificate());
    assert_eq!(client.shown(gateway.data(), "a.other.example").await, other.certificate());
    client.handshake(gateway.data(), "unknown.example").await.expect_err("the first is not for that name");
    let ends =
        |name: &str| format!("larder_tls_certificate_expiry_timestamp_seconds{{listener=\"data\",name=\"{name}\"}}");
    assert_eq!(gateway.metric(&ends("first.example")).await, 2_240_524_800.0);
    assert_eq!(gateway.metric(&ends("other.example")).await, 2_272_060_800.0);
}

#[tokio::test]
async fn changed_files_are_taken_over_and_no_connection_ends() {
    let pki = Pki::new();
    let origin = cached("hello").await;
    let old = pki.sign("one", &["localhost"], LATER).certificate();
    let files = pki.sign("one", &["localhost"], LATER);
    assert_ne!(old, files.certificate());
    let gateway = listening(&[&files]).origin(&origin).run().await;
    let client = pki.client(H2, None);
    let mut connection = client.connect(gateway.data(), "localhost").await;
    connection.send(client::get(url(&gateway, "/a"))).await.assert_ok("hello");
    let renewed = pki.sign("one", &["localhost"], 2041).certificate();
    eventually("the look at the files", || async { gateway.output().contains("certificates reloaded").then_some(()) })
        .await;
    assert_eq!(client.shown(gateway.data(), "localhost").await, renewed);
    connection.send(client::get(url(&gateway, "/a"))).await.assert_ok("hello").assert_hit();
    // A call does not wait for the next look.
    let again = pki.sign("one", &["localhost"], 2042).certificate();
    assert_eq!(gateway.admin("POST", "/reload").send().await.status, 200);
    assert_eq!(client.shown(gateway.data(), "localhost").await, again);
    connection.send(client::get(url(&gateway, "/a"))).await.assert_ok("hello").assert_hit();
}

#[tokio::test]
async fn broken_files_leave_the_old_ones_in_place() {
    let pki = Pki::new();
    let first = pki.sign("first", &["first.example"], LATER);
    let other = pki.sign("other", &["other.example"], LATER);
    let kept = first.certificate();
    let gateway = listening(&[&first, &other]).run().await;
    let client = pki.client(H2, None);
    // One is renewed, the other gets a key that is not its own.
    pki.sign("first", &["first.example"], 2041);
    fs::copy(&first.key, &other.key).expect("copied");
    let answer = gateway.admin("POST", "/reload").send().await;
    assert_eq!(answer.status, 422);
    let detail = answer.json()["detail"].as_str().expect("a text").to_owned();
    assert!(detail.contains("listen.tls.certificates[1].key") && detail.contains("other.key"), "{detail}");
    eventually("word of it", || async { gateway.output().contains("certificates not reloaded").then_some(()) }).await;
    assert_eq!(client.shown(gateway.data(), "first.example").await, kept, "all or nothing");
    pki.sign("other", &["other.example"], LATER);
    eventually("the look at the files", || async { gateway.output().contains("certificates reloaded").then_some(()) })
        .await;
    assert_eq!(client.shown(gateway.data(), "first.example").await, first.certificate());
}

#[tokio::test]
async fn files_that_cannot_be_used_keep_it_from_starting() {
    let pki = Pki::new();
    let (one, other) = (pki.sign("one", &["localhost"], LATER), pki.sign("other", &["localhost"], LATER));
    let refused = listening(&[&Files { cert: one.cert.clone(), key: other.key.clone() }]).refuse().await;
    assert_eq!(refused.code, Some(69), "{}", refused.output);
    assert!(refused.output.contains("listen.tls.certificates[0].key"), "{}", refused.output);
    assert!(refused.output.contains("does not belong to the certificate"), "{}", refused.output);
    let refused = gateway::new().config("[listen.tls]\nclient_ca = 'x'").refuse().await;
    assert_eq!(refused.code, Some(64), "{}", refused.output);
}

#[tokio::test]
async fn an_expired_certificate_is_warned_of() {
    let pki = Pki::new();
    let gateway = listening(&[&pki.sign("one", &["localhost"], 2020)]).run().await;
    assert!(gateway.output().contains("the certificate has expired"), "{}", gateway.output());
}

#[tokio::test]
async fn a_stream_comes_piece_by_piece_over_h2() {
    let pki = Pki::new();
    let gate = Gate::new();
    let origin = origin::new().route("/s", reply("first,").max_age(600).gate(&gate).chunk(" second")).run().await;
    let gateway = listening(&[&pki.sign("one", &["localhost"], LATER)]).origin(&origin).run().await;
    let mut connection = pki.client(H2, None).connect(gateway.data(), "localhost").await;
    let mut stream = connection.open(client::get(url(&gateway, "/s"))).await;
    assert_eq!(stream.read(6).await, b"first,");
    gate.open();
    stream.finish().await.assert_ok("first, second");
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_no_connection_cleanly() {
    let pki = Pki::new();
    for protocols in [H1, H2] {
        let gate = Gate::new();
        let broken = reply("not all").chunk(" of it").gate(&gate).break_here();
        let origin = origin::new().route("/b", broken).run().await;
        let gateway = listening(&[&pki.sign("one", &["localhost"], LATER)]).origin(&origin).run().await;
        let mut connection = pki.client(protocols, None).connect(gateway.data(), "localhost").await;
        let mut answer = connection.open(client::get(url(&gateway, "/b"))).await;
        assert_eq!(answer.read(13).await, b"not all of it");
        gate.open();
        assert!(answer.finish().await.broken, "{protocols:?}");
    }
}

#[tokio::test]
async fn who_speaks_http_without_tls_is_told() {
    let pki = Pki::new();
    let gateway = listening(&[&pki.sign("one", &["localhost"], LATER)]).run().await;
    let answer = gateway.get("/a").await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("https://")), "{}", answer.text());
    let sample = "larder_tls_handshakes_total{listener=\"data\",outcome=\"plain-http\"}";
    eventually("the count", || async { (gateway.metric(sample).await == 1.0).then_some(()) }).await;
}

#[tokio::test]
async fn the_forward_proxy_over_tls() {
    let pki = Pki::new();
    let origin = cached("through it").await;
    let port = origin.authority().rsplit_once(':').expect("a port").1.to_owned();
    let gateway = listening(&[&pki.sign("one", &["localhost"], LATER)])
        .config(format!("[forward]\ntargets_allowed = ['127.0.0.0/8']\nconnect_ports = [{port}]"))
        .run()
        .await;
    let (proxy, authority) = (url(&gateway, ""), pki.file().display().to_string());
    let asked = ["--proxy", &proxy, "--proxy-cacert", &authority, &format!("{}/a", origin.url())];
    curl(arguments(&asked)).await.assert(0, "through it");
    let tunnelled = [&["--proxytunnel"], &asked[..]].concat();
    curl(arguments(&tunnelled)).await.assert(0, "through it");
    assert_eq!(origin.requests("/a"), 2, "the tunnel is not looked into");
}

#[tokio::test]
async fn an_operator_has_to_show_a_certificate() {
    let pki = Pki::new();
    let strangers = Pki::new();
    let authority = pki.file().display().to_string();
    let files = pki.sign("admin", &["localhost"], LATER);
    let operator = pki.sign("operator", &["operator"], LATER);
    let stranger = strangers.sign("stranger", &["stranger"], LATER);
    let gateway = administered(&files, &format!("client_ca = '{authority}'")).run().await;
    let address: std::net::SocketAddr = gateway.admin_base()["http://".len()..].parse().expect("an address");
    let url = format!("https://localhost:{}", address.port());
    let mut known = pki.client(H1, Some(&operator)).connect(address, "localhost").await;
    assert_eq!(known.send(client::get(format!("{url}/stats"))).await.status, 200);

    let larder = |more: Vec<String>| {
        let mut all = arguments(&["stats", "--admin", &url, "--admin-ca", &authority]);
        all.extend(more);
        command::larder(all)
    };
    let showing = |files: &Files| {
        arguments(&["--admin-cert", &files.cert.display().to_string(), "--admin-key", &files.key.display().to_string()])
    };
    assert_eq!(larder(showing(&operator)).await.code, Some(0));
    larder(Vec::new()).await.assert(1, "--admin-cert says what to show");
    larder(showing(&stranger)).await.assert(1, "--admin-cert says what to show");
    let untrusting = ["stats", "--admin", &url, "--admin-ca", &strangers.file().display().to_string()];
    command::larder(untrusting).await.assert(1, "--admin-ca says whom to trust");
    let plain = ["stats", "--admin", &url.replace("https", "http")];
    command::larder(plain).await.assert(1, "https://");
}
