//! What is answered from the cache, and how it looks: hits, Age, HEAD, connections, what is never stored.

use std::time::Duration;

use crate::support::{client, eventually, gateway, origin, origin::reply, outlive, pattern, raw};

#[tokio::test]
async fn a_miss_then_hits() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let miss = gateway.get("/a").await;
    miss.assert_ok("hello").assert_forwarded("uri-miss");
    assert!(miss.cache().stored);

    let hit = gateway.get("/a").await;
    hit.assert_ok("hello").assert_hit();
    assert_eq!(hit.cache().detail.as_deref(), Some("L1"));
    assert!((55..=60).contains(&hit.cache().ttl.expect("a hit has a ttl")), "{:?}", hit.cache());
    assert_eq!(hit.header("content-length"), Some("5"));
    assert_eq!(hit.header("cache-control"), Some("max-age=60"));
    assert_eq!(hit.header("date"), miss.header("date"), "a stored date is not replaced");
    assert!(hit.age().is_some(), "a hit has an Age");
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn the_age_on_arrival_counts() {
    let origin = origin::new().route("/a", reply("hello").max_age(60).header("age", "20")).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let miss = gateway.get("/a").await;
    assert_eq!(miss.header("age"), Some("20"), "an Age that is passed on stays as it was");
    let hit = gateway.get("/a").await;
    hit.assert_hit();
    assert!((20..=25).contains(&hit.age().expect("a hit has an Age")), "{:?}", hit.age());
    assert!((35..=40).contains(&hit.cache().ttl.expect("a hit has a ttl")), "{:?}", hit.cache());
}

#[tokio::test]
async fn age_grows_and_ttl_falls() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let received = gateway.get("/a").await.end_at;
    let first = gateway.get("/a").await;
    outlive(received, Duration::from_secs(1)).await;
    let second = gateway.get("/a").await;
    assert!(second.age() > first.age(), "{:?} then {:?}", first.age(), second.age());
    assert!(second.cache().ttl < first.cache().ttl);
}

#[tokio::test]
async fn head_is_answered_from_get() {
    let origin = origin::new().route("/a", "hello").max_age(60).header("etag", "\"1\"").run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    gateway.get("/a").await;
    let head = client::request("HEAD", gateway.url("/a")).send().await;
    head.assert_ok("").assert_hit();
    assert_eq!((head.header("content-length"), head.header("etag")), (Some("5"), Some("\"1\"")));
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn a_head_first_does_not_leave_an_empty_get() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let head = client::request("HEAD", gateway.url("/a")).send().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    gateway.get("/a").await.assert_ok("hello");
    gateway.get("/a").await.assert_ok("hello").assert_hit();
}

#[tokio::test]
async fn hits_over_http_1_and_http_2_share_the_entry() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut h2 = client::connect_h2(gateway.data()).await;
    let miss = h2.send(client::get(gateway.url("/a"))).await;
    miss.assert_ok("hello").assert_forwarded("uri-miss");
    assert_eq!(miss.version, http::Version::HTTP_2);
    gateway.get("/a").await.assert_ok("hello").assert_hit();
    h2.send(client::get(gateway.url("/a"))).await.assert_ok("hello").assert_hit();
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn an_origin_that_speaks_http_2() {
    let origin = origin::new().h2().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    gateway.get("/a").await.assert_ok("hello").assert_forwarded("uri-miss");
    gateway.get("/a").await.assert_ok("hello").assert_hit();
    gateway.get("/missing").await;
    assert_eq!(origin.connections(), 1, "requests share a connection");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let origin = origin::new().route("/a", "a").cache_control("no-store").run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut connection = client::connect(gateway.data()).await;
    for _ in 0..20 {
        connection.send(client::get(gateway.url("/a"))).await.assert_ok("a");
    }
    assert_eq!((origin.requests("/a"), origin.connections()), (20, 1));
}

#[tokio::test]
async fn a_large_body_is_whole() {
    let body = pattern(8 << 20);
    let origin = origin::new().route("/a", reply(body.clone()).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    for _ in 0..2 {
        let response = gateway.get("/a").await;
        assert!(!response.broken && response.body == body, "{} bytes", response.body.len());
    }
    // A client that counts knows the end before the body is stored, and may still meet the fill.
    eventually("a hit", || async { gateway.get("/a").await.cache().hit.then_some(()) }).await;
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn what_is_larger_than_allowed_is_passed_on_and_not_stored() {
    let origin = origin::new().route("/a", reply(pattern(100_000)).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nobject_bytes_max = '50 kB'").run().await;

    for _ in 0..2 {
        let response = gateway.get("/a").await;
        assert!(!response.broken && response.body == pattern(100_000));
        assert!(!response.cache().hit);
    }
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn what_must_not_be_stored_is_not() {
    let origin = origin::new()
        .route("/none", "a")
        .route("/no-store", "a")
        .cache_control("no-store")
        .route("/private", "a")
        .cache_control("private, max-age=60")
        .route("/vary", reply("a").max_age(60).header("vary", "*"))
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;

    for path in ["/none", "/no-store", "/private", "/vary"] {
        for _ in 0..2 {
            let response = gateway.get(path).await;
            response.assert_ok("a");
            assert!(!response.cache().hit && !response.cache().stored, "{path}: {:?}", response.cache());
        }
        assert_eq!(origin.requests(path), 2, "{path}");
    }
}

#[tokio::test]
async fn a_hit_leaves_no_request_body_in_the_connection() {
    let origin = origin::new().route("/a", "hello").max_age(60).route("/smuggled", "no").run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await.assert_ok("hello");

    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut connection = gateway.raw().await;
    let request = format!("GET /a HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{smuggled}", smuggled.len());
    connection.write(request).await;
    assert!(connection.head().await.starts_with("HTTP/1.1 "));
    let (rest, _) = {
        // Whether the gateway drains the body or closes, nothing may answer what stood in it.
        connection.try_write("GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.ok();
        connection.rest().await
    };
    let rest = String::from_utf8(rest).expect("text");
    assert!(rest.matches("HTTP/1.1 ").count() <= 1, "{rest}");
    assert_eq!(origin.requests("/smuggled"), 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = origin::new().route("/a", "first").max_age(60).route("/b", "second").run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await;

    let mut connection = gateway.raw().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.write(get("/b") + &get("/a") + &get("/b")).await;
    for expected in ["second", "first", "second"] {
        let (head, body) = connection.message().await;
        assert_eq!((raw::status(&head), body.as_slice()), (200, expected.as_bytes()));
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_length_or_an_end() {
    let origin = origin::new().route("/a", reply("hel").chunk("lo").max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    for _ in 0..2 {
        let mut connection = gateway.raw().await;
        connection.write("GET /a HTTP/1.0\r\nhost: x\r\n\r\n").await;
        let head = connection.head().await;
        assert!(raw::field(&head, "transfer-encoding").is_none(), "{head}");
        assert_eq!(connection.rest().await.0, b"hello");
    }
}

#[tokio::test]
async fn requests_that_bypass_by_configuration() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nmode = 'bypass'").run().await;

    for _ in 0..2 {
        gateway.get("/a").await.assert_ok("hello").assert_forwarded("bypass");
    }
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn force_stores_what_says_nothing() {
    let origin = origin::new().route("/a", "hello").cache_control("no-store").run().await;
    let config = "[cache]\nmode = 'force'\ndefault_ttl = '1m'";
    let gateway = gateway::new().origin(&origin).config(config).run().await;

    gateway.get("/a").await.assert_ok("hello");
    gateway.get("/a").await.assert_ok("hello").assert_hit();
}
