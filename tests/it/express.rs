//! Plain hits, answered before the HTTP library sees the request: nobody can tell, whatever is stored and however the
//! bytes come.

use serde_json::json;

use crate::support::{client, eventually, gateway, gateway::Gateway, origin, origin::reply, pattern, raw};

/// Requests that took the express lane.
async fn taken(gateway: &Gateway) -> u64 {
    let metrics = gateway.admin("GET", "/metrics").send().await;
    let line = metrics.text().lines().find_map(|line| line.strip_prefix("larder_client_express_total "));
    line.expect("the counter is there").parse().expect("a number")
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n")
}

/// The lines of a head that two answers to equal requests share.
fn lines(head: &str) -> Vec<String> {
    let varies = |line: &&str| ["x-request-id: ", "age: ", "connection: "].iter().any(|name| line.starts_with(name));
    let same = |line: &str| line.replace("ttl=59", "ttl=60");
    let mut lines: Vec<_> = head.lines().filter(|line| !varies(line)).map(same).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn both_ways_give_the_same_answer() {
    let many = reply("many").max_age(60).header("link", "<a>").header("link", "<b>").header("set-cookie", "a=b");
    let tagged = reply("tagged").max_age(60).header("surrogate-key", "a b").header("x-request-id", "the-origins");
    let chunked = reply("").max_age(60).chunk("in ").chunk("pieces");
    let origin = origin::new()
        .route("/plain", reply("plain").max_age(60).header("etag", "\"1\""))
        .route("/many", many)
        .route("/tagged", tagged)
        .route("/chunked", chunked)
        .route("/empty", reply("").max_age(60))
        .route("/gone", reply("gone").max_age(60).status(410))
        .route("/moved", reply("").max_age(60).status(301).header("location", "/plain"))
        .route("/odd", reply("odd").max_age(60).status(299))
        .route("/nothing", reply("").max_age(60).status(204))
        .route("/vary", reply("vary").max_age(60).header("vary", "accept-encoding"))
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).config("[headers]\nx_cache = true").run().await;

    for path in [
        "/plain",
        "/many",
        "/tagged",
        "/chunked",
        "/empty",
        "/gone",
        "/moved",
        "/odd",
        "/nothing",
        "/vary",
        "/plain?q=1",
    ] {
        let mut connection = gateway.raw().await;
        connection.write(get(path, "")).await;
        if path == "/chunked" {
            // The first answer may come in the origin's own pieces.
            client::get(gateway.url(path)).header("host", "shop.example").send().await;
            connection = gateway.raw().await;
        } else {
            connection.message().await;
        }
        let before = taken(&gateway).await;
        connection.write(get(path, "Accept: */*\r\nConnection: keep-alive\r\n")).await;
        let (express, content) = connection.message().await;
        let took_it = taken(&gateway).await - before;
        assert_eq!(took_it, u64::from(!matches!(path, "/odd" | "/nothing")), "{path}");
        connection.write(get(path, "Accept: */*\r\nConnection: close\r\n")).await;
        let (usual, same_content) = connection.message().await;
        assert_eq!(taken(&gateway).await - before, took_it, "{path}: the last answer is not for the lane");
        assert_eq!(lines(&express), lines(&usual), "{path}");
        assert_eq!(content, same_content, "{path}");
        if path == "/plain" {
            for (fields, status) in [("If-None-Match: \"1\"\r\n", 304), ("If-None-Match: \"2\"\r\n", 200)] {
                let mut connection = gateway.raw().await;
                connection.write(get(path, fields)).await;
                let express = connection.head().await;
                connection.exact(if status == 200 { 5 } else { 0 }).await;
                connection.write(get(path, &format!("{fields}Connection: close\r\n"))).await;
                let usual = connection.head().await;
                assert_eq!((raw::status(&express), lines(&express)), (status, lines(&usual)));
            }
            assert_eq!(taken(&gateway).await - before, took_it + 2);
        }
        assert!(express.contains("cache-status: larder; hit; ttl="), "{express}");
        assert_eq!(express.matches("x-request-id: ").count(), 1, "{express}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = origin::new().route("/a", reply("aa").max_age(60)).route("/b", reply("bbb").cache_control("no-store"));
    let origin = origin.run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let mut connection = gateway.raw().await;
    connection.write(get("/a", "")).await;
    connection.message().await;

    connection.write(["/a", "/a", "/b", "/a", "/b", "/a"].map(|path| get(path, "")).concat()).await;
    for content in ["aa", "aa", "bbb", "aa", "bbb", "aa"] {
        assert_eq!(connection.message().await.1, content.as_bytes());
    }
    assert_eq!(taken(&gateway).await, 2, "what stands behind a miss waits in the library's buffer");
    // A head in pieces, then whole ones again.
    let request = get("/a", "");
    let (first, rest) = request.split_at(25);
    connection.write(first).await;
    gateway.admin_json("/stats").await;
    connection.write(rest).await;
    assert_eq!(connection.message().await.1, b"aa");
    connection.write(get("/a", "")).await;
    assert_eq!(connection.message().await.1, b"aa");
}

#[tokio::test]
async fn the_first_request_of_a_connection_counts() {
    let origin = origin::new().route("/a", reply("aa").max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    for round in 0..3 {
        let mut connection = gateway.raw().await;
        connection.write(get("/a", "")).await;
        assert_eq!(connection.message().await.1, b"aa");
        assert_eq!(taken(&gateway).await, round);
        connection.finish().await;
        assert_eq!(connection.rest().await, (Vec::new(), raw::Ending::Closed));
    }
}

/// The socket takes part of it; the rest goes when the client reads, and the next request is answered behind it.
#[tokio::test]
async fn a_large_hit_for_a_client_that_reads_late() {
    let body = pattern(16 << 20);
    let origin = origin::new().route("/large", reply(body.clone()).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    // A response that has just arrived is stored a moment later.
    eventually("a hit", async || {
        let response = gateway.get("/large").await;
        assert!(response.body == body);
        (response.cache().detail.as_deref() == Some("L1")).then_some(())
    })
    .await;
    let before = taken(&gateway).await;

    let mut connection = gateway.raw().await;
    connection.write([get("/large", ""), get("/missing", ""), get("/large", "")].concat()).await;
    assert_eq!(gateway.get("/missing").await.status, 404, "others are served meanwhile");
    for expected in [Some(200), Some(404), Some(200)] {
        let (head, content) = connection.message().await;
        assert_eq!(Some(raw::status(&head)), expected);
        assert!(raw::status(&head) == 404 || content == body);
    }
    assert_eq!(taken(&gateway).await - before, 1);
}

#[tokio::test]
async fn limits_hold_in_the_lane() {
    let origin = origin::new().route("/a", reply("aa").max_age(60)).run().await;
    let config = "[client]\nhead_bytes_max = '8 KiB'\nhead_fields_max = 10";
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    for (fields, status) in [
        ("", 200),
        ("", 200),
        (&*"a: b\r\n".repeat(9), 200),
        (&*"a: b\r\n".repeat(10), 431),
        (&*format!("a: {}\r\n", "b".repeat(9 * 1024)), 431),
    ] {
        let mut connection = gateway.raw().await;
        connection.write(get("/a", fields)).await;
        assert_eq!(raw::status(&connection.head().await), status, "{} bytes of fields", fields.len());
    }
}

#[tokio::test]
async fn purges_reach_the_lane() {
    let origin = origin::new().route("/a", reply("aa").max_age(60).header("cache-tag", "t")).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let mut connection = client::connect(gateway.data()).await;
    for calls in 1..=3 {
        connection.send(client::get(gateway.url("/a"))).await.assert_forwarded("uri-miss");
        connection.send(client::get(gateway.url("/a"))).await.assert_hit();
        assert_eq!(origin.requests("/a"), calls);
        gateway.purge(json!({ "tags": ["t"] })).await;
    }
}

/// What a request says of itself that the answer may depend on.
#[tokio::test]
async fn fields_count_in_the_lane() {
    let by_language = |request: &origin::Seen, _| {
        let language = request.header("accept-language").unwrap_or("none").to_owned();
        reply(language).max_age(60).header("vary", "accept-language")
    };
    let origin = origin::new().handler("/a", by_language).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let mut connection = gateway.raw().await;
    for fields in ["", "Accept-Language: de\r\n", "ACCEPT-LANGUAGE: fr\r\n"] {
        let expected = fields.trim_end().rsplit(": ").next().filter(|text| !text.is_empty()).unwrap_or("none");
        for _ in 0..3 {
            connection.write(get("/a", fields)).await;
            assert_eq!(connection.message().await.1, expected.as_bytes());
        }
    }
    assert_eq!(origin.requests("/a"), 3);
    assert_eq!(taken(&gateway).await, 6);
    connection.write(get("/a", "Cache-Control: no-cache\r\n")).await;
    connection.message().await;
    assert_eq!(origin.requests("/a"), 4, "a client's word is heard");
}

#[tokio::test]
async fn a_stop_is_heard_between_two_hits() {
    let origin = origin::new().route("/a", reply("aa").max_age(60)).run().await;
    let mut gateway = gateway::new().origin(&origin).run().await;
    let mut connection = gateway.raw().await;
    for _ in 0..3 {
        connection.write(get("/a", "")).await;
        connection.message().await;
    }
    assert!(gateway.stop().await.success());
    assert_eq!(connection.rest().await, (Vec::new(), raw::Ending::Closed));
}
