//! Ranges and conditions answered from the cache: parts, multipart, If-Range, If-None-Match, If-Modified-Since.

use crate::support::{client, gate::Gate, gateway, origin, origin::reply, pattern};

#[tokio::test]
async fn ranges_are_cut_from_a_stored_response() {
    let origin = origin::new().route("/a", reply("0123456789").max_age(60).header("etag", "\"1\"")).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await.assert_ok("0123456789");

    for (range, body, content_range) in [
        ("bytes=0-1", "01", "bytes 0-1/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=5-99", "56789", "bytes 5-9/10"),
    ] {
        let part = client::get(gateway.url("/a")).header("range", range).send().await;
        part.assert_hit();
        assert_eq!((part.status, part.text(), part.header("content-range")), (206, body, Some(content_range)));
        assert_eq!(part.header("etag"), Some("\"1\""));
    }
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn ranges_that_cannot_be() {
    let origin = origin::new().route("/a", reply("0123456789").max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await;

    let beyond = client::get(gateway.url("/a")).header("range", "bytes=10-").send().await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    for nonsense in ["bytes=5-1", "bytes", "lines=1-2", "bytes=a-b"] {
        let whole = client::get(gateway.url("/a")).header("range", nonsense).send().await;
        whole.assert_ok("0123456789").assert_hit();
    }
}

#[tokio::test]
async fn several_ranges_in_one_response() {
    let origin = origin::new().route("/a", reply("0123456789").max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await;

    let parts = client::get(gateway.url("/a")).header("range", "bytes=0-1, 8-9").send().await;
    assert_eq!(parts.status, 206);
    let content_type = parts.header("content-type").expect("a type").to_owned();
    let boundary = content_type.split_once("boundary=").expect("a boundary").1.trim_matches('"');
    assert!(content_type.starts_with("multipart/byteranges"), "{content_type}");
    let pieces: Vec<_> = parts.text().split(&format!("--{boundary}")).collect();
    assert!(pieces[1].contains("bytes 0-1/10") && pieces[1].trim_end().ends_with("01"), "{:?}", parts.text());
    assert!(pieces[2].contains("bytes 8-9/10") && pieces[2].trim_end().ends_with("89"), "{:?}", parts.text());
    assert_eq!(pieces[3].trim_end(), "--");
}

#[tokio::test]
async fn many_ranges_do_not_multiply_the_work() {
    let origin = origin::new().route("/a", reply(pattern(10_000)).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await;

    let ranges = format!("bytes={}", vec!["0-"; 1000].join(","));
    let response = client::get(gateway.url("/a")).header("range", &ranges).send().await;
    assert!(response.body.len() <= 20_000, "{} bytes for a body of 10,000", response.body.len());
}

#[tokio::test]
async fn if_range_decides_between_part_and_whole() {
    let date = "Sat, 01 Nov 2025 10:00:00 GMT";
    let stored = reply("0123456789").max_age(60).header("etag", "\"1\"").header("last-modified", date);
    let origin = origin::new().route("/a", stored).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await;

    for (if_range, status) in [("\"1\"", 206), ("\"2\"", 200), ("W/\"1\"", 200), (date, 206)] {
        let request = client::get(gateway.url("/a")).header("range", "bytes=0-1").header("if-range", if_range);
        assert_eq!(request.send().await.status, status, "{if_range}");
    }
}

#[tokio::test]
async fn conditions_are_answered_from_a_stored_response() {
    let date = "Sat, 01 Nov 2025 10:00:00 GMT";
    let stored = reply("hello").max_age(60).header("etag", "\"1\"").header("last-modified", date);
    let origin = origin::new().route("/a", stored).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await;

    for (name, value, status) in [
        ("if-none-match", "\"1\"", 304),
        ("if-none-match", "W/\"1\"", 304),
        ("if-none-match", "\"0\", \"1\"", 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"2\"", 200),
        ("if-modified-since", date, 304),
        ("if-modified-since", "Sun, 02 Nov 2025 10:00:00 GMT", 304),
        ("if-modified-since", "Fri, 31 Oct 2025 10:00:00 GMT", 200),
        ("if-modified-since", "yesterday", 200),
    ] {
        let response = client::get(gateway.url("/a")).header(name, value).send().await;
        response.assert_hit();
        assert_eq!(response.status, status, "{name}: {value}");
        assert_eq!(response.header("etag"), Some("\"1\""));
        assert_eq!(response.text(), if status == 304 { "" } else { "hello" });
    }
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn if_none_match_wins_over_if_modified_since() {
    let date = "Sat, 01 Nov 2025 10:00:00 GMT";
    let stored = reply("hello").max_age(60).header("etag", "\"1\"").header("last-modified", date);
    let origin = origin::new().route("/a", stored).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await;

    let get = |etag: &str| client::get(gateway.url("/a")).header("if-none-match", etag);
    assert_eq!(get("\"2\"").header("if-modified-since", date).send().await.status, 200);
    let earlier = "Fri, 31 Oct 2025 10:00:00 GMT";
    assert_eq!(get("\"1\"").header("if-modified-since", earlier).send().await.status, 304);
}

#[tokio::test]
async fn a_variant_that_is_completed_is_no_answer_to_others() {
    for coalesce in [true, false] {
        let origin = origin::new()
            .handler("/a", |seen, _| {
                let (body, etag) = if seen.header("accept-encoding") == Some("gzip") {
                    ("zippedzipp", "\"g\"")
                } else {
                    ("plain", "\"p\"")
                };
                let page =
                    |body: &'static str| reply(body).max_age(60).header("vary", "accept-encoding").header("etag", etag);
                match seen.header("range") {
                    Some("bytes=0-3") => page(&body[..4]).status(206).header("content-range", "bytes 0-3/10"),
                    Some("bytes=4-") => page(&body[4..]).status(206).header("content-range", "bytes 4-9/10"),
                    _ => page(body),
                }
            })
            .run()
            .await;
        let gateway = gateway::new().origin(&origin).config(format!("[cache]\ncoalesce = {coalesce}")).run().await;
        let zipped = || client::get(gateway.url("/a")).header("accept-encoding", "gzip");

        assert_eq!(zipped().header("range", "bytes=0-3").send().await.status, 206);
        zipped().send().await.assert_ok("zippedzipp");
        assert_eq!(origin.last("/a").header("range"), Some("bytes=4-"));
        gateway.get("/a").await.assert_ok("plain");
        zipped().send().await.assert_ok("zippedzipp").assert_hit();
    }
}

#[tokio::test]
async fn a_large_rest_is_not_waited_for() {
    let gate = Gate::new();
    let (held, body) = (gate.clone(), pattern(100_000));
    let whole = body.clone();
    let origin = origin::new()
        .handler("/a", move |seen, _| {
            let page = |body: &[u8]| reply(body.to_vec()).max_age(60).header("etag", "\"1\"");
            match seen.header("range") {
                Some("bytes=0-9") => page(&body[..10]).status(206).header("content-range", "bytes 0-9/100000"),
                Some(_) => reply("").status(500),
                None => page(&body[..1000]).gate(&held).chunk(body[1000..].to_vec()),
            }
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).config("[fill]\nmemory_bytes_max = '64KiB'").run().await;
    assert_eq!(client::get(gateway.url("/a")).header("range", "bytes=0-9").send().await.status, 206);

    let mut response = client::get(gateway.url("/a")).open().await;
    assert_eq!(response.read(1000).await, &whole[..1000]);
    gate.open();
    assert_eq!(response.finish().await.body, whole);
    assert_eq!(origin.requests("/a"), 2);
}
