//! What those get who share one origin call, or one stored response, each by its own request.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::support::{
    client,
    client::Response,
    eventually,
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

fn old() -> Reply {
    reply("old").cache_control("max-age=1, stale-if-error=60").header("etag", "\"1\"")
}

/// A leader and, once the origin has its request, a follower; both answers when `gate` is open.
async fn both(
    gateway: &Gateway,
    origin: &origin::Origin,
    gate: &Gate,
    calls: usize,
    [leader, follower]: [client::Request; 2],
) -> (Response, Response) {
    let leader = tokio::spawn(leader.send());
    origin.arrived("/a", calls).await;
    let follower = tokio::spawn(follower.send());
    gateway.followers(1).await;
    gate.open();
    (leader.await.expect("no panic"), follower.await.expect("no panic"))
}

#[tokio::test]
async fn fields_for_one_are_not_for_those_who_follow() {
    let gate = Gate::new();
    let personal = reply("shared")
        .cache_control("max-age=60, private=\"x-account\", no-cache=\"x-token\"")
        .header("x-account", "7")
        .header("x-token", "t")
        .hold(&gate);
    let origin = origin::new().route("/a", personal).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let get = || client::get(gateway.url("/a"));
    let (leader, follower) = both(&gateway, &origin, &gate, 1, [get(), get()]).await;
    assert_eq!((leader.header("x-account"), leader.header("x-token")), (Some("7"), Some("t")));
    for response in [follower, gateway.get("/a").await] {
        response.assert_ok("shared");
        assert_eq!((response.header("x-account"), response.header("x-token")), (None, None));
        assert!(response.age().is_some());
    }
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn fields_for_one_on_a_304_are_not_stored() {
    let same = reply("").status(304).cache_control("max-age=60, private=\"x-account\"").header("x-account", "7");
    let origin = origin::new().route("/a", [old(), same]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;

    let validated = gateway.get("/a").await;
    validated.assert_ok("old");
    assert_eq!(validated.header("x-account"), Some("7"));
    let hit = gateway.get("/a").await;
    hit.assert_ok("old").assert_hit();
    assert_eq!(hit.header("x-account"), None);
}

#[tokio::test]
async fn tags_of_a_304_count_beside_the_old_ones() {
    let numbered = |_: &origin::Seen, nth: usize| match nth % 2 {
        0 => old().header("cache-tag", "old"),
        _ => reply("").status(304).max_age(60).header("cache-tag", "new"),
    };
    for tag in ["old", "new"] {
        let origin = origin::new().handler("/a", numbered).run().await;
        let gateway = gateway::new().origin(&origin).run().await;
        stored_and_stale(&gateway).await;
        let validated = gateway.get("/a").await;
        validated.assert_ok("old");
        assert_eq!(validated.header("cache-tag"), None, "tags are hidden");
        gateway.get("/a").await.assert_hit();
        gateway.purge(json!({ "tags": [tag] })).await;
        gateway.get("/a").await.assert_forwarded("uri-miss");
    }
}

#[tokio::test]
async fn a_304_that_forbids_storing_is_for_who_asked_alone() {
    let gate = Gate::new();
    let private = reply("").status(304).cache_control("private").hold(&gate);
    let origin = origin::new().route("/a", [old(), private, reply("new").cache_control("private")]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;

    let get = || client::get(gateway.url("/a"));
    let (leader, follower) = both(&gateway, &origin, &gate, 2, [get(), get()]).await;
    leader.assert_ok("old");
    follower.assert_ok("new");
    assert_eq!(origin.requests("/a"), 3);
}

#[tokio::test]
async fn a_304_that_is_used_once_is_as_old_as_it_says() {
    let aged = reply("").status(304).cache_control("private").header("age", "100");
    let origin = origin::new().route("/a", [old(), aged]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;
    let response = gateway.get("/a").await;
    response.assert_ok("old");
    assert!(response.age().is_some_and(|age| age >= 100), "{:?}", response.headers);
}

#[tokio::test]
async fn a_304_to_a_request_with_credentials_changes_nothing_for_others() {
    let same = reply("").status(304).max_age(60).header("x-version", "2");
    let origin = origin::new().route("/a", [old().header("x-version", "1"), same]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;

    let own = client::get(gateway.url("/a")).header("authorization", "Bearer a").send().await;
    own.assert_ok("old");
    assert_eq!(own.header("x-version"), Some("2"));
    // Still stale, still there.
    let other = gateway.get("/a").await;
    other.assert_ok("old").assert_forwarded("stale");
    assert_eq!(other.cache().fwd_status, Some(304));
    gateway.get("/a").await.assert_hit();
}

#[tokio::test]
async fn a_304_with_another_vary_is_not_stored_under_the_old_key() {
    let same = reply("").status(304).max_age(60).header("vary", "x-color");
    let origin = origin::new().route("/a", [old(), same, reply("new").max_age(60)]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;
    gateway.get("/a").await.assert_ok("old");
    gateway.get("/a").await.assert_ok("new");
}

#[tokio::test]
async fn who_may_have_stale_on_an_error_status_is_up_to_each() {
    let gate = Gate::new();
    let failing = reply("failing").status(503).cache_control("no-store");
    let old = reply("old").max_age(1).header("etag", "\"1\"");
    let origin = origin::new().route("/a", [old, failing.clone().hold(&gate), failing]).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nstale_if_error = '0s'").run().await;
    stored_and_stale(&gateway).await;

    let (lenient, strict) =
        (client::get(gateway.url("/a")).header("cache-control", "stale-if-error=60"), client::get(gateway.url("/a")));
    let (lenient, strict) = both(&gateway, &origin, &gate, 2, [lenient, strict]).await;
    lenient.assert_ok("old");
    assert_eq!((strict.status, strict.text()), (503, "failing"));
}

#[tokio::test]
async fn who_may_have_stale_on_a_failure_is_up_to_each() {
    let gate = Gate::new();
    let closed = gate.clone();
    let origin = raw::serve(move |mut conn| {
        let gate = closed.clone();
        async move {
            if conn.try_head().await.is_none() {
                return;
            }
            if conn.nth > 0 {
                gate.pass().await;
                return conn.reset();
            }
            let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=1, stale-if-error=60\r\ncontent-length: 3\r\n";
            conn.write(format!("{head}connection: close\r\n\r\nold")).await;
        }
    })
    .await;
    let gateway = gateway::new().raw_origin(&origin).run().await;
    stored_and_stale(&gateway).await;

    let strict = client::get(gateway.url("/a")).header("cache-control", "no-cache");
    let strict = tokio::spawn(strict.send());
    gate.arrived(1).await;
    let any = tokio::spawn(client::get(gateway.url("/a")).send());
    gateway.followers(1).await;
    gate.open();
    assert_eq!(strict.await.expect("no panic").status, 502);
    any.await.expect("no panic").assert_ok("old");
    // For a second nobody is sent to the failing origin again.
    let tries = origin.connections();
    gateway.get("/a").await.assert_ok("old");
    assert_eq!(origin.connections(), tries);
}

/// GETs at `/a` answer with the number of unsafe requests before them; GETs are held by `gate` while it is closed.
fn versioned(gate: &Gate, change: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> origin::Builder {
    let gate = gate.clone();
    let version = std::sync::atomic::AtomicUsize::new(0);
    origin::new().handler("/a", move |seen, _| {
        use std::sync::atomic::Ordering::SeqCst;
        if seen.method == Method::PUT {
            version.fetch_add(1, SeqCst);
            return reply("").status(204);
        }
        change(reply(format!("version {}", version.load(SeqCst)))).hold(&gate)
    })
}

/// A request held at the origin while an unsafe one succeeds: what it brings is not found afterwards.
async fn invalidated_under_way(
    gateway: &Gateway,
    origin: &origin::Origin,
    gate: &Gate,
    request: impl Fn() -> client::Request,
) {
    let before = origin.requests("/a");
    let under_way = tokio::spawn(request().send());
    origin.arrived("/a", before + 1).await;
    assert_eq!(client::request("PUT", gateway.url("/a")).send().await.status, 204);
    gate.open();
    assert!(under_way.await.expect("no panic").text().contains("version 0"));
    let after = request().send().await;
    assert!(after.text().contains("version 1"), "{}", after.text());
    request().send().await.assert_hit();
}

#[tokio::test]
async fn an_unsafe_request_reaches_fills_of_every_kind() {
    let plain = |reply: Reply| reply.max_age(60);
    let range =
        |reply: Reply| reply.max_age(60).status(206).header("content-range", "bytes 0-8/100").header("etag", "\"1\"");
    let varying = |reply: Reply| reply.max_age(60).header("vary", "x-color");

    let gate = Gate::new();
    let origin = versioned(&gate, plain).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    invalidated_under_way(&gateway, &origin, &gate, || client::get(gateway.url("/a"))).await;

    let gate = Gate::new();
    let origin = versioned(&gate, range).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let part = || client::get(gateway.url("/a")).header("range", "bytes=0-8");
    invalidated_under_way(&gateway, &origin, &gate, part).await;

    let gate = Gate::new();
    let origin = versioned(&gate, varying).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let red = || client::get(gateway.url("/a")).header("x-color", "red");
    invalidated_under_way(&gateway, &origin, &gate, red).await;

    let gate = Gate::new();
    let origin = versioned(&gate, plain).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\ncoalesce = false").run().await;
    invalidated_under_way(&gateway, &origin, &gate, || client::get(gateway.url("/a"))).await;

    let gate = Gate::new();
    let origin = versioned(&gate, plain).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let query = || client::request("QUERY", gateway.url("/a")).header("content-type", "text/plain").body("q");
    invalidated_under_way(&gateway, &origin, &gate, query).await;
}

#[tokio::test]
async fn an_unsafe_request_forgets_stored_queries() {
    let gate = Gate::new();
    gate.open();
    let origin = versioned(&gate, |reply| reply.max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let query = || client::request("QUERY", gateway.url("/a")).header("content-type", "text/plain").body("q");
    query().send().await.assert_ok("version 0");
    query().send().await.assert_hit();
    client::request("PUT", gateway.url("/a")).send().await;
    query().send().await.assert_ok("version 1");
}

#[tokio::test]
async fn an_unsafe_request_whose_answer_is_lost_invalidates() {
    let origin = raw::serve(|mut conn| async move {
        while let Some(head) = conn.try_head().await {
            if head.starts_with("PUT") {
                return conn.reset();
            }
            let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 1\r\n\r\n";
            conn.write(format!("{head}{}", conn.nth)).await;
        }
    })
    .await;
    let gateway = gateway::new().raw_origin(&origin).run().await;
    gateway.get("/a").await.assert_ok("0");
    gateway.get("/a").await.assert_hit();
    assert_eq!(client::request("PUT", gateway.url("/a")).send().await.status, 502);
    eventually("the stored response to be forgotten", || async {
        (!gateway.get("/a").await.cache().hit).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_page_that_is_not_storable_can_still_be_validated_by_its_reader() {
    let origin = origin::new()
        .handler("/a", |seen, _| {
            let page = reply("mine").cache_control("private").header("etag", "\"1\"");
            if seen.header("if-none-match") == Some("\"1\"") { page.status(304) } else { page }
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await.assert_ok("mine");
    for _ in 0..2 {
        let validated = client::get(gateway.url("/a")).header("if-none-match", "\"1\"").send().await;
        assert_eq!((validated.status, validated.text()), (304, ""));
    }
    gateway.get("/a").await.assert_ok("mine");
}

#[tokio::test]
async fn what_one_request_may_not_share_leaves_the_stale_response_to_others() {
    let origin = origin::new()
        .handler("/a", |seen, nth| match (seen.header("authorization"), nth) {
            (Some(_), _) => reply("mine").max_age(60),
            (None, 0) => old(),
            (None, _) => reply("failing").status(503),
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    stored_and_stale(&gateway).await;
    client::get(gateway.url("/a")).header("authorization", "Bearer a").send().await.assert_ok("mine");
    gateway.get("/a").await.assert_ok("old");
}

#[tokio::test]
async fn a_rest_that_cannot_be_had_is_fetched_whole() {
    let part = |body: &'static str, range: &str| {
        reply(body).status(206).max_age(60).header("content-range", range).header("etag", "\"1\"")
    };
    let origin = origin::new()
        .handler("/a", move |seen, _| match seen.header("range") {
            Some("bytes=0-4") => part("01234", "bytes 0-4/10"),
            Some(_) => reply("").status(416).header("content-range", "bytes */5"),
            None => reply("short").max_age(60).header("etag", "\"2\""),
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    let first = client::get(gateway.url("/a")).header("range", "bytes=0-4").send().await;
    assert_eq!((first.status, first.text()), (206, "01234"));
    gateway.get("/a").await.assert_ok("short");
    gateway.get("/a").await.assert_ok("short").assert_hit();
}

#[tokio::test]
async fn head_does_not_outlast_the_hold_of_a_purge() {
    let origin = origin::new()
        .handler("/a", |seen, _| {
            let page = reply(if seen.method == Method::HEAD { "" } else { "old" }).header("etag", "\"1\"");
            if seen.method == Method::HEAD { page.max_age(3600).header("content-length", "3") } else { page.max_age(1) }
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.purge(json!({ "urls": [gateway.url("/a")], "hold": "100s" })).await;
    stored_and_stale(&gateway).await;
    assert_eq!(client::request("HEAD", gateway.url("/a")).send().await.status, 200);
    let hit = gateway.get("/a").await;
    hit.assert_ok("old").assert_hit();
    assert!(hit.cache().ttl.is_some_and(|ttl| ttl <= 100), "{:?}", hit.cache());
}

#[tokio::test]
async fn explain_says_why_nothing_is_stored() {
    let origin = origin::new().route("/a", reply("mine").cache_control("private")).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await;
    let told = gateway.admin_json(&format!("/explain?url={}", gateway.url("/a"))).await;
    assert_eq!(told["l1"]["not_stored"], "private", "{told}");
    assert!(told["verdict"].as_str().is_some_and(|verdict| verdict.contains("private")), "{told}");
}
