//! Long content that is asked for often lies in files of memory, from which the kernel sends it: nobody can tell, whatever
//! becomes of the response or of its reader meanwhile.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{
    client, eventually, gateway, gateway::Gateway, origin, origin::Seen, origin::reply, pattern, raw, within,
};

const LARGE: usize = 16 << 20;

/// Files of memory that hold content.
async fn files(gateway: &Gateway) -> u64 {
    metric(gateway, "larder_l1_files ").await
}

/// Requests answered from a file.
async fn from_files(gateway: &Gateway) -> u64 {
    metric(gateway, "larder_client_files_sent_total ").await
}

async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let metrics = gateway.admin("GET", "/metrics").send().await;
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
    line.expect("it is there").parse().expect("a number")
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n\r\n")
}

/// A connection that is between two requests.
async fn connection(gateway: &Gateway) -> raw::Conn {
    let mut connection = gateway.raw().await;
    connection.write(get("/missing")).await;
    connection.message().await;
    connection
}

/// Asks for `path` until it is sent from a file.
async fn moved(gateway: &Gateway, path: &str, body: &[u8]) {
    let mut connection = connection(gateway).await;
    let before = from_files(gateway).await;
    within("content in a file", async {
        while from_files(gateway).await == before {
            connection.write(get(path)).await;
            assert!(connection.message().await.1 == body);
        }
    })
    .await;
}

/// A connection on which `path` is being answered from a file and nobody reads.
async fn begun(gateway: &Gateway, path: &str) -> raw::Conn {
    let mut connection = connection(gateway).await;
    let before = from_files(gateway).await;
    connection.write(get(path)).await;
    eventually("an answer begun", async || (from_files(gateway).await == before + 1).then_some(())).await;
    connection
}

/// A gateway with one large response in a file.
async fn one_in_a_file(body: &[u8], config: &str) -> (origin::Origin, Gateway) {
    let origin = origin::new().route("/large", reply(body.to_vec()).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    moved(&gateway, "/large", body).await;
    (origin, gateway)
}

/// Has it purged, and replaced by what the origin sends now.
async fn purge(gateway: &Gateway) {
    gateway.purge(json!({ "urls": [gateway.url("/large")] })).await;
    gateway.get("/large").await;
}

/// It is sent from there by the lane, one answer behind the other, and counted.
#[tokio::test]
async fn the_lane_sends_from_a_file() {
    let body = pattern(3_000_001);
    let (origin, gateway) = one_in_a_file(&body, "").await;
    let mut connection = connection(&gateway).await;
    let sent = "larder_response_bytes_total{route=\"default\"} ";
    let (before, bytes) = (from_files(&gateway).await, metric(&gateway, sent).await);
    connection.write([get("/large"), get("/missing"), get("/large"), get("/large")].concat()).await;
    for status in [200, 404, 200, 200] {
        let (head, content) = connection.message().await;
        assert_eq!(raw::status(&head), status);
        assert!(status == 404 || content == body);
    }
    let missing = gateway.get("/missing").await.body.len() as u64;
    eventually("all are counted", async || {
        (metric(&gateway, sent).await == bytes + 3 * 3_000_001 + 2 * missing).then_some(())
    })
    .await;
    // The first at least: what comes while hyper is at work is for hyper.
    assert!(from_files(&gateway).await > before);
    gateway.access_line(|line| line["bytes_sent"] == 3_000_001 && line["outcome"] == "hit").await;
    assert_eq!(origin.requests("/large"), 1);
    assert_eq!(files(&gateway).await, 1);
}

/// Everybody else reads it from there: other versions of HTTP, in part, in parts.
#[tokio::test]
async fn others_read_the_same_bytes() {
    let body = pattern(3_000_001);
    let (origin, gateway) = one_in_a_file(&body, "").await;
    let mut h2 = client::connect_h2(gateway.data()).await;
    for _ in 0..2 {
        let response = h2.send(client::get(gateway.url("/large"))).await;
        assert!(response.body == body);
        response.assert_hit();
    }
    let head = client::request("HEAD", gateway.url("/large")).send().await;
    assert_eq!((head.header("content-length"), head.body.len()), (Some("3000001"), 0));
    for (range, expected) in [
        ("bytes=0-9", &body[..10]),
        ("bytes=1048575-2097152", &body[1_048_575..=2_097_152]),
        ("bytes=-1", &body[3_000_000..]),
        ("bytes=1-", &body[1..]),
    ] {
        let part = client::get(gateway.url("/large")).header("range", range).send().await;
        assert_eq!(part.status, 206, "{range}");
        assert!(part.body == expected, "{range}");
    }
    let parts = client::get(gateway.url("/large")).header("range", "bytes=5-6,2999999-").send().await;
    assert!(parts.text().contains(std::str::from_utf8(&body[2_999_999..]).expect("letters")), "{}", parts.text());
    assert_eq!(origin.requests("/large"), 1);
    assert_eq!(files(&gateway).await, 1);
}

/// What a 304 renews keeps its content, and with it the file.
#[tokio::test]
async fn renewed_content_stays_in_its_file() {
    let body = pattern(1 << 20);
    let whole = body.clone();
    let validated = move |request: &Seen, _| match request.header("if-none-match") {
        Some(_) => reply("").status(304).max_age(60).header("etag", "\"1\""),
        None => reply(whole.clone()).max_age(60).header("etag", "\"1\""),
    };
    let origin = origin::new().handler("/large", validated).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    moved(&gateway, "/large", &body).await;
    let renewed = client::get(gateway.url("/large")).header("cache-control", "no-cache").send().await;
    assert!(renewed.body == body);
    assert_eq!((origin.requests("/large"), files(&gateway).await), (2, 1));
    let mut connection = connection(&gateway).await;
    let before = from_files(&gateway).await;
    connection.write(get("/large")).await;
    assert!(connection.message().await.1 == body);
    assert_eq!(from_files(&gateway).await, before + 1);
    purge(&gateway).await;
    eventually("no file is left", async || (files(&gateway).await == 0).then_some(())).await;
}

/// What is asked for once, and what is short, takes no file; nor does anything where there may be none or no more.
#[tokio::test]
async fn files_are_bounded() {
    let (short, long) = (pattern((1 << 20) - 1), pattern(1 << 20));
    for max in [0, 1] {
        let origin = origin::new()
            .route("/short", reply(short.clone()).max_age(60))
            .route("/first", reply(long.clone()).max_age(60))
            .route("/second", reply(long.clone()).max_age(60))
            .run()
            .await;
        let gateway = gateway::new().origin(&origin).config(format!("[l1]\nfiles_max = {max}")).run().await;
        gateway.get("/second").await;
        assert_eq!(files(&gateway).await, 0);
        if max > 0 {
            moved(&gateway, "/first", &long).await;
        }
        let mut connection = connection(&gateway).await;
        for (path, body) in [("/short", &short), ("/second", &long), ("/first", &long)].repeat(20) {
            connection.write(get(path)).await;
            assert!(connection.message().await.1 == *body, "{path}");
        }
        assert_eq!(files(&gateway).await, max);
    }
}

/// Who has begun to read gets all of what he began to read, whatever becomes of the response.
#[tokio::test]
async fn content_outlives_its_response_while_it_is_sent() {
    let (old, other) = (pattern(LARGE), pattern(LARGE + 7));
    let versions = [old.clone(), b"new".to_vec()];
    let changing = move |_: &Seen, nth: usize| reply(versions[nth.min(1)].clone()).max_age(60);
    let origin = origin::new()
        .handler("/large", changing)
        .route("/other", reply(other.clone()).max_age(60))
        .route("/third", reply(pattern(2 * LARGE)).max_age(60))
        .run()
        .await;
    // The third does not fit beside the other.
    let config = "[l1]\nmax_bytes = '40 MiB'\nobject_share_max = 1.0\npolicy = 'lru'";
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    moved(&gateway, "/large", &old).await;

    let mut purged = begun(&gateway, "/large").await;
    purge(&gateway).await;
    assert_eq!(gateway.get("/large").await.text(), "new");
    moved(&gateway, "/other", &other).await;
    assert!(purged.message().await.1 == old);
    eventually("the old file is gone", async || (files(&gateway).await == 1).then_some(())).await;

    let mut evicted = begun(&gateway, "/other").await;
    gateway.get("/third").await.assert_forwarded("uri-miss");
    gateway.get("/third").await.assert_hit();
    assert_eq!(files(&gateway).await, 1);
    assert!(evicted.message().await.1 == other);
    eventually("no file is left", async || {
        // The engine tidies up when it is used.
        gateway.get("/missing").await;
        (files(&gateway).await == 0).then_some(())
    })
    .await;
}

/// A file goes when the last who was sent it has gone, however he went.
#[tokio::test]
async fn who_reads_no_more_keeps_no_file() {
    let body = pattern(LARGE);
    let (_origin, gateway) = one_in_a_file(&body, "[client]\nwrite_timeout = '1s'").await;
    let (gone, mut stuck) = (begun(&gateway, "/large").await, begun(&gateway, "/large").await);
    purge(&gateway).await;
    assert_eq!(files(&gateway).await, 1);
    gone.reset();
    eventually("no file is left", async || (files(&gateway).await == 0).then_some(())).await;
    let (rest, _) = stuck.rest().await;
    assert!(rest.len() < LARGE, "{} bytes for who did not read", rest.len());
}

/// A gateway that stops sends what it has begun to send, and what it sends after that is nothing.
#[tokio::test]
async fn a_stop_waits_for_a_file_on_its_way() {
    let body = pattern(LARGE);
    let (_origin, mut gateway) = one_in_a_file(&body, "").await;
    let mut connection = begun(&gateway, "/large").await;
    gateway.terminate();
    eventually("no new connections", async || TcpStream::connect(gateway.data()).await.is_err().then_some(())).await;
    assert!(connection.message().await.1 == body);
    assert_eq!(connection.rest().await, (Vec::new(), raw::Ending::Closed));
    assert!(gateway.ended().await.success());
}

/// And not for ever.
#[tokio::test]
async fn the_drain_ends_for_a_file_too() {
    let (_origin, mut gateway) = one_in_a_file(&pattern(LARGE), "[client]\ndrain_timeout = '500ms'").await;
    let mut connection = begun(&gateway, "/large").await;
    let began = tokio::time::Instant::now();
    gateway.stop().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(connection.rest().await.0.len() < LARGE);
}
