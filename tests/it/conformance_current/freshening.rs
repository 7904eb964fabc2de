//! What a 304 changes (RFC 9111 section 3.2), and what a background refresh does (RFC 5861).

use std::time::Duration;

use super::stored;
use crate::support::{client, eventually, gateway, origin, origin::reply, outlive};

/// Stores `/a` with `stored` in a field, has it validated by a 304 with `sent`, and returns the field as the client
/// sees it in the validated response and in the hit after it.
async fn updated(name: &str, stored_value: &str, sent: &str) -> [Option<String>; 2] {
    let first = reply("hello").header("etag", "\"1\"").cache_control("max-age=1");
    let first = if name == "etag" { reply("hello").cache_control("max-age=1") } else { first };
    let again = reply("").status(304).cache_control("max-age=60");
    let again = if name == "etag" { again } else { again.header("etag", "\"1\"") };
    let (origin, gateway) = stored(first.header(name, stored_value), again.header(name, sent)).await;
    let first = gateway.get("/a").await;
    outlive(first.end_at, Duration::from_secs(1)).await;
    let validated = gateway.get("/a").await;
    validated.assert_ok("hello");
    let hit = gateway.get("/a").await;
    hit.assert_ok("hello").assert_hit();
    assert_eq!(origin.requests("/a"), 2);
    [&validated, &hit].map(|response| response.header(name).map(str::to_owned))
}

#[tokio::test]
async fn a_304_updates_what_it_carries() {
    let cases = [
        ("test-header", "a", "b"),
        ("x-test-header", "a", "b"),
        ("content-foo", "a", "b"),
        ("x-content-foo", "a", "b"),
        ("content-location", "/foo", "/bar"),
        ("content-security-policy", "default-src 'self'", "default-src 'none'"),
        ("clear-site-data", "cache", "cookies"),
        ("expires", "Fri, 01 Jan 2038 01:01:01 GMT", "Mon, 11 Jan 2038 11:11:11 GMT"),
        ("set-cookie", "a=b", "a=c"),
        ("x-frame-options", "deny", "sameorigin"),
        ("x-xss-protection", "1", "1; mode=block"),
        ("public-key-pins", "a", "b"),
    ];
    let updates = cases.map(|(name, stored, sent)| updated(name, stored, sent));
    for (found, (name, _, sent)) in futures_util::future::join_all(updates).await.into_iter().zip(cases) {
        assert_eq!(found, [Some(sent.to_owned()), Some(sent.to_owned())], "{name}");
    }
}

#[tokio::test]
async fn a_304_keeps_what_it_does_not_carry_and_never_touches_the_length() {
    let first = reply("hello").cache_control("max-age=1").header("etag", "\"1\"").header("test-header", "kept");
    let again = reply("").status(304).max_age(60).header("etag", "\"1\"").header("content-length", "10");
    let (_origin, gateway) = stored(first, again).await;
    let first = gateway.get("/a").await;
    outlive(first.end_at, Duration::from_secs(1)).await;
    for _ in 0..2 {
        let response = gateway.get("/a").await;
        response.assert_ok("hello");
        assert_eq!((response.header("test-header"), response.header("content-length")), (Some("kept"), Some("5")));
    }
}

#[tokio::test]
async fn a_304_for_a_variant_updates_that_variant_alone() {
    let origin = origin::new()
        .handler("/a", |seen, _| {
            let accept = seen.header("accept").expect("sent").to_owned();
            let answer = if seen.header("if-none-match").is_some() {
                reply("").status(304).max_age(60)
            } else {
                reply(accept.clone()).max_age(1)
            };
            answer.header("etag", &format!("\"{}\"", accept.len())).header("vary", "accept")
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    let get = |accept: &'static str| client::get(gateway.url("/a")).header("accept", accept).send();
    get("text/html").await.assert_ok("text/html");
    let second = get("image/x").await;
    second.assert_ok("image/x");
    outlive(second.end_at, Duration::from_secs(1)).await;
    get("text/html").await.assert_ok("text/html");
    assert_eq!(origin.last("/a").header("accept"), Some("text/html"), "selecting fields go along");
    get("text/html").await.assert_ok("text/html").assert_hit();
    get("image/x").await.assert_ok("image/x");
    assert_eq!(origin.requests("/a"), 4);
}

#[tokio::test]
async fn the_answer_of_a_background_refresh_counts() {
    let first = reply("old").cache_control("max-age=1, stale-while-revalidate=60").header("etag", "\"abc\"");
    let refreshed = reply("new").cache_control("no-cache").header("etag", "\"def\"");
    let origin = origin::new().route("/a", [first, refreshed.clone(), refreshed]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let first = gateway.get("/a").await;
    outlive(first.end_at, Duration::from_secs(1)).await;
    gateway.get("/a").await.assert_ok("old");
    origin.arrived("/a", 2).await;
    // The refresh said no-cache, so once it is in, every request is validated.
    let asked = eventually("a request that is validated", || async {
        let response = gateway.get("/a").await;
        (response.text() == "new").then(|| origin.requests("/a"))
    })
    .await;
    gateway.get("/a").await;
    assert_eq!(origin.requests("/a"), asked + 1);
}
