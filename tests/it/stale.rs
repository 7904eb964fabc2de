//! What happens to stored responses that are no longer fresh: validation, stale-while-revalidate, stale-if-error.

use std::time::Duration;

use futures_util::future::join_all;

use crate::support::{
    client, eventually,
    gate::Gate,
    gateway,
    gateway::Gateway,
    origin,
    origin::{Reply, reply},
    outlive, raw,
};

const SECOND: Duration = Duration::from_secs(1);

/// GETs `/a` and waits until that response, fresh for a second, is stale.
async fn stored_and_stale(gateway: &Gateway) {
    let first = gateway.get("/a").await;
    first.assert_ok("old");
    outlive(first.end_at, SECOND).await;
}

fn old(directives: &str) -> Reply {
    reply("old").cache_control(&format!("max-age=1{directives}"))
}

#[tokio::test]
async fn an_entity_tag_is_validated() {
    for etag in ["\"1\"", "W/\"1\""] {
        let same = reply("").status(304).max_age(60).header("etag", etag).header("x-version", "2");
        let origin = origin::new()
            .route("/a", [old("").header("etag", etag).header("x-version", "1").header("x-kept", "yes"), same])
            .run()
            .await;
        let gateway = gateway::new().origin(&origin).run().await;
        stored_and_stale(&gateway).await;

        let validated = gateway.get("/a").await;
        validated.assert_ok("old").assert_forwarded("stale");
        assert_eq!(validated.cache().fwd_status, Some(304));
        assert_eq!(origin.last("/a").header("if-none-match"), Some(etag));
        let hit = gateway.get("/a").await;
        hit.assert_ok("old").assert_hit();
        for response in [validated, hit] {
            assert_eq!((response.header("x-version"), response.header("x-kept")), (Some("2"), Some("yes")));
            assert_eq!(response.header("cache-control"), Some("max-age=60"));
        }
        assert_eq!(origin.requests("/a"), 2);
    }
}

#[tokio::test]
async fn a_modification_date_is_validated() {
    let date = "Sat, 01 Nov 2025 10:00:00 GMT";
    let origin = origin::new()
        .route("/a", [old("").header("last-modified", date), reply("").status(304).max_age(60)])
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;

    gateway.get("/a").await.assert_ok("old").assert_forwarded("stale");
    assert_eq!(origin.last("/a").header("if-modified-since"), Some(date));
    gateway.get("/a").await.assert_hit();
}

#[tokio::test]
async fn a_new_representation_replaces_the_old() {
    let new = reply("new").max_age(60).header("etag", "\"2\"");
    let origin = origin::new().route("/a", [old("").header("etag", "\"1\""), new]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;

    let changed = gateway.get("/a").await;
    changed.assert_ok("new").assert_forwarded("stale");
    assert_eq!(changed.cache().fwd_status, Some(200));
    gateway.get("/a").await.assert_ok("new").assert_hit();
}

#[tokio::test]
async fn validations_coalesce() {
    let gate = Gate::new();
    let same = reply("").status(304).max_age(60).hold(&gate);
    let origin = origin::new().route("/a", [old("").header("etag", "\"1\""), same]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;

    let all = tokio::spawn(join_all((0..50).map(|_| client::get(gateway.url("/a")).send()).collect::<Vec<_>>()));
    origin.arrived("/a", 2).await;
    gate.open();
    for response in all.await.expect("no client panics") {
        response.assert_ok("old");
    }
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn the_clients_own_condition_is_answered_after_validation() {
    let same = reply("").status(304).max_age(60).header("etag", "\"1\"");
    let origin = origin::new().route("/a", [old("").header("etag", "\"1\""), same]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;

    let response = client::get(gateway.url("/a")).header("if-none-match", "\"1\"").send().await;
    assert_eq!((response.status, response.text()), (304, ""));
    gateway.get("/a").await.assert_ok("old").assert_hit();
}

#[tokio::test]
async fn no_cache_is_stored_and_always_validated() {
    let stored = reply("old").cache_control("no-cache").header("etag", "\"1\"");
    let same = reply("").status(304).cache_control("no-cache").header("etag", "\"1\"");
    let origin = origin::new().route("/a", [stored, same]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    for requests in 1..=3 {
        gateway.get("/a").await.assert_ok("old");
        assert_eq!(origin.requests("/a"), requests);
    }
    assert_eq!(origin.last("/a").header("if-none-match"), Some("\"1\""));
}

#[tokio::test]
async fn stale_while_revalidate_does_not_wait() {
    let gate = Gate::new();
    let origin = origin::new()
        .route("/a", [old(", stale-while-revalidate=60"), reply("new").max_age(60).hold(&gate)])
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;

    // The origin withholds its answer, so whatever comes now comes from the cache; twenty times, one refresh.
    for _ in 0..20 {
        let stale = gateway.get("/a").await;
        stale.assert_ok("old").assert_hit();
        assert!(stale.cache().ttl.is_some_and(|ttl| ttl <= 0), "{:?}", stale.cache());
    }
    origin.arrived("/a", 2).await;
    gate.open();
    eventually("the refreshed response", || async {
        let response = gateway.get("/a").await;
        (response.text() == "new").then_some(response)
    })
    .await
    .assert_hit();
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_the_stale_response() {
    let origin = origin::new()
        .route(
            "/a",
            [
                old(", stale-while-revalidate=60").header("etag", "\"1\""),
                reply("broken").status(500),
                reply("new").max_age(60),
            ],
        )
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nstale_if_error_status = [500]").run().await;
    stored_and_stale(&gateway).await;

    gateway.get("/a").await.assert_ok("old");
    origin.arrived("/a", 2).await;
    // The next ones are the old response or the new one, never the failure in between.
    eventually("the refreshed response", || async {
        let response = gateway.get("/a").await;
        assert_eq!(response.status, 200, "{:?}", response.headers);
        (response.text() == "new").then_some(())
    })
    .await;
}

#[tokio::test]
async fn after_the_stale_window_the_origin_is_asked_first() {
    let origin = origin::new().route("/a", [old(", stale-while-revalidate=1"), reply("new").max_age(60)]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let first = gateway.get("/a").await;
    outlive(first.end_at, 2 * SECOND).await;
    gateway.get("/a").await.assert_ok("new");
}

#[tokio::test]
async fn stale_while_revalidate_by_configuration() {
    let gate = Gate::new();
    let origin = origin::new().route("/a", [old(""), reply("new").max_age(60).hold(&gate)]).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nstale_while_revalidate = '1m'").run().await;
    stored_and_stale(&gateway).await;
    gateway.get("/a").await.assert_ok("old").assert_hit();
    gate.open();
}

#[tokio::test]
async fn stale_if_error_when_the_origin_is_gone() {
    let mut origin = origin::new().route("/a", old(", stale-if-error=60")).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;
    origin.stop().await;
    for _ in 0..3 {
        gateway.get("/a").await.assert_ok("old");
    }
}

#[tokio::test]
async fn stale_if_error_when_the_origin_fails() {
    for status in [500, 502, 503, 504] {
        let failing = reply("failing").status(status).cache_control("no-store");
        let origin = origin::new().route("/a", [old(", stale-if-error=60"), failing]).run().await;
        let gateway = gateway::new().origin(&origin).run().await;
        stored_and_stale(&gateway).await;
        gateway.get("/a").await.assert_ok("old");
        assert_eq!(origin.requests("/a"), 2, "the origin was asked");
    }
}

#[tokio::test]
async fn stale_if_error_when_the_origin_hangs() {
    let origin = raw::serve(|mut conn| async move {
        conn.try_head().await;
        if conn.nth == 0 {
            let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=1, stale-if-error=60\r\ncontent-length: 3\r\n";
            conn.write(format!("{head}connection: close\r\n\r\nold")).await;
        } else {
            conn.rest().await;
        }
    })
    .await;
    let gateway = gateway::new().raw_origin(&origin).config("[origin]\nhead_timeout = '500ms'").run().await;
    stored_and_stale(&gateway).await;
    gateway.get("/a").await.assert_ok("old");
}

#[tokio::test]
async fn stale_if_error_when_the_client_allows_it() {
    let failing = reply("failing").status(503).cache_control("no-store");
    let origin = origin::new().route("/a", [old("").header("etag", "\"1\""), failing]).run().await;
    let config = "[cache]\nstale_if_error = '0s'\nkeep = '1m'";
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    stored_and_stale(&gateway).await;
    assert_eq!(gateway.get("/a").await.status, 503);
    client::get(gateway.url("/a")).header("cache-control", "stale-if-error=60").send().await.assert_ok("old");
}

#[tokio::test]
async fn nothing_stale_where_it_is_forbidden() {
    for forbidden in [", must-revalidate", ", proxy-revalidate", ", no-cache", ", s-maxage=1"] {
        let mut origin = origin::new().route("/a", old(forbidden)).run().await;
        let gateway = gateway::new().origin(&origin).config("[cache]\nstale_if_error = '1m'").run().await;
        stored_and_stale(&gateway).await;
        origin.stop().await;
        let response = gateway.get("/a").await;
        assert!([502, 504].contains(&response.status), "{forbidden}: {}", response.status);
    }
}

#[tokio::test]
async fn a_stored_failure_is_not_what_to_fall_back_on() {
    let mut origin = origin::new().route("/a", old(", stale-if-error=60").status(503)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let first = gateway.get("/a").await;
    assert_eq!(first.status, 503);
    outlive(first.end_at, SECOND).await;
    origin.stop().await;
    assert_eq!(gateway.get("/a").await.status, 502);
}

#[tokio::test]
async fn clients_may_ask_for_more_or_less() {
    let fresh = |body: &'static str| reply(body).max_age(60).header("etag", &format!("\"{body}\""));
    let origin = origin::new().route("/a", [fresh("1"), fresh("2"), fresh("3")]).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nrequest_directives = true").run().await;
    let get = |directive: &str| client::get(gateway.url("/a")).header("cache-control", directive).send();

    gateway.get("/a").await.assert_ok("1");
    get("max-age=60").await.assert_ok("1").assert_hit();
    get("min-fresh=30").await.assert_ok("1").assert_hit();
    get("no-cache").await.assert_ok("2").assert_forwarded("request");
    gateway.get("/a").await.assert_ok("2").assert_hit();
    get("min-fresh=100").await.assert_ok("3").assert_forwarded("request");
    get("only-if-cached").await.assert_ok("3").assert_hit();
    assert_eq!(client::get(gateway.url("/b")).header("cache-control", "only-if-cached").send().await.status, 504);
    assert_eq!(origin.requests("/b"), 0);
    // What is not answered from the cache, whatever is stored, is not forwarded either.
    assert_eq!(get("only-if-cached, no-store").await.status, 504);
    let conditional = client::get(gateway.url("/a")).header("if-match", "\"3\"");
    assert_eq!(conditional.header("cache-control", "only-if-cached").send().await.status, 504);
    assert_eq!(origin.requests("/a"), 3);
}

#[tokio::test]
async fn a_client_may_take_stale() {
    let origin = origin::new().route("/a", [old("").header("etag", "\"1\""), reply("new").max_age(60)]).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nkeep = '1m'").run().await;
    stored_and_stale(&gateway).await;
    client::get(gateway.url("/a")).header("cache-control", "max-stale=60").send().await.assert_ok("old");
    assert_eq!(origin.requests("/a"), 1);
    gateway.get("/a").await.assert_ok("new");
}

#[tokio::test]
async fn no_store_of_a_request_stores_nothing() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    client::get(gateway.url("/a")).header("cache-control", "no-store").send().await.assert_ok("hello");
    gateway.get("/a").await.assert_ok("hello").assert_forwarded("uri-miss");
    gateway.get("/a").await.assert_hit();
}

#[tokio::test]
async fn request_directives_can_be_ignored() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nrequest_directives = false").run().await;
    gateway.get("/a").await;
    client::get(gateway.url("/a")).header("cache-control", "no-cache").send().await.assert_hit();
}
