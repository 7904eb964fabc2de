//! Parts: storing, reusing and joining them (RFC 9111 sections 3.3 and 3.4).

use super::stored;
use crate::support::{
    client,
    client::Response,
    gateway,
    gateway::Gateway,
    origin,
    origin::{Reply, reply},
};

async fn range(gateway: &Gateway, range: &str) -> Response {
    client::get(gateway.url("/a")).header("range", range).send().await
}

fn part(body: &'static str, content_range: &str) -> Reply {
    reply(body).status(206).max_age(3600).header("content-range", content_range).header("etag", "\"1\"")
}

#[tokio::test]
async fn a_stored_part_answers_ranges_within_it() {
    let (origin, gateway) = stored(part("56789", "bytes 5-9/10"), reply("never")).await;
    let first = range(&gateway, "bytes=-5").await;
    assert_eq!((first.status, first.text()), (206, "56789"));
    for (asked, body, content_range) in [
        ("bytes=-5", "56789", "bytes 5-9/10"),
        ("bytes=6-8", "678", "bytes 6-8/10"),
        ("bytes=6-", "6789", "bytes 6-9/10"),
        ("bytes=-1", "9", "bytes 9-9/10"),
    ] {
        let hit = range(&gateway, asked).await;
        hit.assert_hit();
        assert_eq!((hit.status, hit.text(), hit.header("content-range")), (206, body, Some(content_range)), "{asked}");
    }
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn a_stored_part_does_not_answer_for_the_whole() {
    let whole = reply("0123456789").max_age(3600).header("etag", "\"1\"");
    let (_origin, gateway) = stored(part("01234", "bytes 0-4/10"), whole).await;
    range(&gateway, "bytes=0-4").await;
    let response = gateway.get("/a").await;
    response.assert_ok("0123456789");
}

#[tokio::test]
async fn a_stored_part_is_completed() {
    let origin = origin::new()
        .handler("/a", |seen, _| match seen.header("range") {
            Some("bytes=0-4") => part("01234", "bytes 0-4/10"),
            Some("bytes=5-") => part("56789", "bytes 5-9/10"),
            _ => reply("0123456789").max_age(3600).header("etag", "\"1\""),
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    range(&gateway, "bytes=0-4").await;
    gateway.get("/a").await.assert_ok("0123456789");
    assert_eq!(origin.last("/a").header("range"), Some("bytes=5-"));
    gateway.get("/a").await.assert_ok("0123456789").assert_hit();
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn parts_of_different_representations_are_not_joined() {
    let origin = origin::new()
        .handler("/a", |seen, _| match seen.header("range") {
            Some("bytes=0-4") => part("01234", "bytes 0-4/10"),
            Some(_) => reply("fghij").status(206).header("content-range", "bytes 5-9/10").header("etag", "\"2\""),
            None => reply("abcdefghij").max_age(3600).header("etag", "\"2\""),
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    range(&gateway, "bytes=0-4").await;
    let response = gateway.get("/a").await;
    assert!(response.broken || response.text() == "abcdefghij", "{}", response.text());
}

#[tokio::test]
async fn a_part_has_the_fields_of_the_stored_response() {
    let (_origin, gateway) = stored(reply("01234567890").max_age(3600).header("a", "1"), reply("x")).await;
    gateway.get("/a").await;
    let hit = range(&gateway, "bytes=0-1").await;
    hit.assert_hit();
    assert_eq!((hit.status, hit.header("a")), (206, Some("1")));
}
