//! Purges by every kind of scope, hard and soft, and that what was acknowledged is not forgotten.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use serde_json::{Value, json};

use crate::support::{client, gate::Gate, gateway, gateway::Gateway, origin, origin::Origin, origin::reply};

/// An origin whose `/shop/a`, `/shop/b`, `/shopping` and `/` answer with the number of the request.
async fn numbered() -> Origin {
    let numbered = |tag: &'static str| {
        move |_: &origin::Seen, nth: usize| {
            let tags = format!("{tag}, all");
            reply(nth.to_string()).max_age(60).header("cache-tag", &tags).header("etag", &format!("\"{nth}\""))
        }
    };
    origin::new()
        .handler("/shop/a", numbered("a"))
        .handler("/shop/b", numbered("b"))
        .handler("/shopping", numbered("c"))
        .handler("/", numbered("d"))
        .run()
        .await
}

const PATHS: [&str; 4] = ["/shop/a", "/shop/b", "/shopping", "/"];

/// Stores every path, purges with `call`, and returns the paths that then came from the origin again.
async fn purged_by(gateway: &Gateway, call: Value) -> Vec<&'static str> {
    for path in PATHS {
        gateway.get(path).await;
        gateway.get(path).await.assert_hit();
    }
    gateway.purge(call).await;
    let mut purged = Vec::new();
    for path in PATHS {
        if !gateway.get(path).await.cache().hit {
            purged.push(path);
        }
    }
    purged
}

#[tokio::test]
async fn by_url() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).run().await;
    assert_eq!(purged_by(&gateway, json!({ "urls": [gateway.url("/shop/a")] })).await, ["/shop/a"]);
    gateway.get("/shop/a").await.assert_ok("1").assert_hit();
}

#[tokio::test]
async fn by_several_urls() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let urls = [gateway.url("/shop/a"), gateway.url("/")];
    assert_eq!(purged_by(&gateway, json!({ "urls": urls })).await, ["/shop/a", "/"]);
}

#[tokio::test]
async fn by_url_where_keys_do_not_hold_the_query_as_sent() {
    for (query, other) in [("'sorted'\nquery_without = ['utm_*']", "/a?c=2&utm_x=y&b='1'"), ("'ignore'", "/a?d")] {
        let origin = origin::new().handler("/a", |_, count| reply(count.to_string()).max_age(60)).run().await;
        let gateway = gateway::new().origin(&origin).config(format!("[cache]\nquery = {query}")).run().await;

        gateway.get("/a?b='1'&c=2").await.assert_ok("0");
        gateway.get("/a?c=2&b='1'").await.assert_hit();
        gateway.purge(json!({ "urls": [gateway.url(other)] })).await;
        gateway.get("/a?b='1'&c=2").await.assert_ok("1");
        let unsafely = client::request("DELETE", gateway.url(other)).send().await;
        assert_eq!(unsafely.status, 200);
        let after = gateway.get("/a?b='1'&c=2").await;
        assert!(!after.cache().hit, "{query}");
    }
}

#[tokio::test]
async fn by_url_as_clients_write_it() {
    let origin = origin::new().handler("/a", |_, count| reply(count.to_string()).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    for target in ["/a?b='c'", "/a?b=%27", "/a?b=%2e|c"] {
        let get = async || {
            let mut connection = gateway.raw().await;
            connection.write(format!("GET {target} HTTP/1.1\r\nhost: {}\r\n\r\n", gateway.data())).await;
            connection.message().await.1
        };
        let first = get().await;
        assert_eq!(get().await, first);
        gateway.purge(json!({ "urls": [gateway.url(target)] })).await;
        assert_ne!(get().await, first, "{target}");
    }
}

#[tokio::test]
async fn by_key() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/shop/a").await;
    let explained = gateway.admin_json(&format!("/explain?url={}", gateway.url("/shop/a"))).await;
    let key = explained["key"].as_str().expect("a key").to_owned();
    assert_eq!(purged_by(&gateway, json!({ "keys": [key] })).await, ["/shop/a"]);
}

#[tokio::test]
async fn keys_tell_nothing_to_who_has_not_the_secret() {
    let origin = numbered().await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let gateway = gateway::new().origin(&origin).config("[cache]\nkey_cookies = ['session']").run().await;
        let request = json!({ "url": "http://shop.example/shop/a", "headers": { "cookie": "session=1" } });
        let explained = gateway.admin("POST", "/explain").json(&request).send().await.json();
        keys.push(explained["key"].as_str().expect("a key").to_owned());
    }
    assert_ne!(keys[0], keys[1], "each node has a secret of its own");
}

#[tokio::test]
async fn by_the_key_of_what_a_trusted_proxy_asked_for() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).config("[headers]\ntrusted = ['127.0.0.0/8']").run().await;
    let get = || client::get(gateway.url("/shop/a")).header("x-forwarded-proto", "https").send();
    get().await.assert_ok("0");
    gateway.get("/shop/a").await.assert_ok("1");

    let request = json!({ "url": gateway.url("/shop/a"), "headers": { "x-forwarded-proto": "https" } });
    let explained = gateway.admin("POST", "/explain").json(&request).send().await.json();
    assert!(explained["key_parts"].to_string().contains("x-forwarded-proto"), "{explained}");
    gateway.purge(json!({ "keys": [explained["key"]] })).await;
    get().await.assert_ok("2");
    gateway.get("/shop/a").await.assert_ok("1").assert_hit();
}

#[tokio::test]
async fn by_tag() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).run().await;
    assert_eq!(purged_by(&gateway, json!({ "tags": ["b", "unknown"] })).await, ["/shop/b"]);
    assert_eq!(purged_by(&gateway, json!({ "tags": ["all"] })).await, PATHS);
}

#[tokio::test]
async fn by_prefix_at_a_segment() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).run().await;
    assert_eq!(purged_by(&gateway, json!({ "prefixes": [gateway.url("/shop")] })).await, ["/shop/a", "/shop/b"]);
    assert_eq!(purged_by(&gateway, json!({ "prefixes": [gateway.url("/shop/")] })).await, ["/shop/a", "/shop/b"]);
}

#[tokio::test]
async fn by_host() {
    let origin = origin::new().handler("/a", |_, nth| reply(nth.to_string()).max_age(60)).run().await;
    let config = format!("[[route]]\nname = 'all'\nhost_header = 'client'\nupstream = '{}'", origin.url());
    let gateway = gateway::new().config(config).run().await;
    let get = |host: &str| client::get(gateway.url("/a")).header("host", host).send();

    get("one.example").await.assert_ok("0");
    get("two.example").await.assert_ok("1");
    gateway.purge(json!({ "hosts": ["one.example"] })).await;
    get("one.example").await.assert_ok("2");
    get("two.example").await.assert_ok("1").assert_hit();
}

#[tokio::test]
async fn of_everything() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).run().await;
    assert_eq!(purged_by(&gateway, json!({ "all": true })).await, PATHS);
}

#[tokio::test]
async fn all_variants_go_with_their_url() {
    let origin =
        origin::new().handler("/a", |_, nth| reply(nth.to_string()).max_age(60).header("vary", "accept")).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let get = |accept: &str| client::get(gateway.url("/a")).header("accept", accept).send();

    get("text/html").await.assert_ok("0");
    get("image/png").await.assert_ok("1");
    gateway.purge_path("/a").await;
    get("text/html").await.assert_ok("2");
    get("image/png").await.assert_ok("3");
}

#[tokio::test]
async fn tags_of_every_field_count_and_are_hidden() {
    for (field, value) in [("surrogate-key", "x product-7 y"), ("cache-tag", "x, product-7"), ("xkey", "product-7")] {
        let origin = origin::new()
            .handler("/a", move |_, nth| reply(nth.to_string()).max_age(60).header(field, value))
            .run()
            .await;
        let config = "[cache]\ntag_fields = ['surrogate-key', 'cache-tag', 'xkey']\ntag_fields_hidden = true";
        let gateway = gateway::new().origin(&origin).config(config).run().await;
        for _ in 0..2 {
            let response = gateway.get("/a").await;
            response.assert_ok("0");
            assert_eq!(response.header(field), None, "{field} is between the origin and the gateway");
        }
        gateway.purge(json!({ "tags": ["product-7"] })).await;
        gateway.get("/a").await.assert_ok("1");
    }
}

#[tokio::test]
async fn a_soft_purge_makes_stale() {
    let origin = origin::new()
        .route(
            "/a",
            [
                reply("hello").max_age(60).header("etag", "\"1\""),
                reply("").status(304).max_age(60).header("etag", "\"1\""),
            ],
        )
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;

    gateway.get("/a").await.assert_ok("hello");
    let receipt = gateway.purge(json!({ "urls": [gateway.url("/a")], "soft": true })).await;
    assert_eq!(receipt["mode"], "soft");
    let validated = gateway.get("/a").await;
    validated.assert_ok("hello").assert_forwarded("stale");
    assert_eq!(validated.cache().fwd_status, Some(304));
    assert_eq!(origin.last("/a").header("if-none-match"), Some("\"1\""));
    gateway.get("/a").await.assert_ok("hello").assert_hit();
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn a_validation_under_way_does_not_outlive_a_hard_purge() {
    let gate = Gate::new();
    let origin = origin::new()
        .route(
            "/a",
            [
                reply("old").cache_control("max-age=60, no-cache").header("etag", "\"1\""),
                reply("").status(304).cache_control("max-age=60").header("etag", "\"1\"").hold(&gate),
                reply("new").max_age(60),
            ],
        )
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;

    gateway.get("/a").await.assert_ok("old");
    let before = tokio::spawn(client::get(gateway.url("/a")).send());
    origin.arrived("/a", 2).await;
    gateway.purge_path("/a").await;
    gate.open();
    before.await.expect("no client panics");
    gateway.get("/a").await.assert_ok("new");
}

#[tokio::test]
async fn refresh_fetches_again() {
    let origin = origin::new().handler("/a", |_, nth| reply(nth.to_string()).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    gateway.get("/a").await.assert_ok("0");
    gateway.purge(json!({ "urls": [gateway.url("/a")], "refresh": true })).await;
    origin.arrived("/a", 2).await;
    gateway.get("/a").await.assert_ok("1");
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn hold_keeps_what_follows_from_being_stored_for_long() {
    let origin = origin::new().handler("/a", |_, nth| reply(nth.to_string()).max_age(600)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    gateway.get("/a").await.assert_ok("0");
    gateway.purge(json!({ "urls": [gateway.url("/a")], "hold": "30s" })).await;
    gateway.get("/a").await.assert_ok("1");
    let cache = gateway.get("/a").await.cache();
    assert!(!cache.hit || cache.ttl.is_some_and(|ttl| ttl <= 30), "{cache:?}");
}

#[tokio::test]
async fn the_receipt() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let first = gateway.purge(json!({ "tags": ["a", "b"], "hosts": ["example.org"] })).await;
    assert!(first["id"].as_str().is_some_and(|id| !id.is_empty()), "{first}");
    assert_eq!((&first["scopes"], &first["mode"]), (&json!(3), &json!("hard")));
    assert!(first["duration_ms"].is_number(), "{first}");
    let second = gateway.purge(json!({ "all": true })).await;
    assert!(second["seq"].as_u64() > first["seq"].as_u64(), "{first} {second}");
    assert_ne!(first["id"], second["id"]);
}

#[tokio::test]
async fn acknowledged_purges_survive_a_kill() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut last = 0;
    for path in PATHS {
        last = gateway.purge_path(path).await["seq"].as_u64().expect("a number");
    }
    let gateway = gateway.kill9_and_restart().await;
    let next = gateway.purge(json!({ "all": true })).await["seq"].as_u64().expect("a number");
    assert!(next > last, "{next} after {last}: the log was forgotten");
    gateway.get("/").await.assert_ok("0");
}

#[tokio::test]
async fn two_processes_do_not_share_a_log() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let refusal = gateway.refused_twin().await;
    assert_ne!(refusal.code, Some(0));
    assert!(refusal.output.contains("another"), "{}", refusal.output);
}

#[tokio::test]
async fn calls_that_are_refused() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/").await;

    for call in [
        json!({}),
        json!({ "urls": [] }),
        json!({ "url": ["typo"] }),
        json!({ "urls": ["not a url"] }),
        json!({ "keys": ["too short"] }),
        json!({ "urls": "not a list" }),
        json!({ "all": true, "hold": "soon" }),
        json!([]),
    ] {
        let response = gateway.admin("POST", "/purge").json(&call).send().await;
        assert!((400..500).contains(&response.status), "{call}: {} {}", response.status, response.text());
    }
    let response = gateway.admin("POST", "/purge").header("content-type", "application/json").body("{").send().await;
    assert_eq!(response.status, 400);
    gateway.get("/").await.assert_hit();
}

#[tokio::test]
async fn the_number_of_scopes_in_a_call_is_bounded() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).config("[purge]\ncall_scopes_max = 3").run().await;
    let tags = |count: usize| json!({ "tags": (0..count).map(|tag| tag.to_string()).collect::<Vec<_>>() });

    gateway.purge(tags(3)).await;
    let response = gateway.admin("POST", "/purge").json(&tags(4)).send().await;
    assert!((400..500).contains(&response.status), "{}", response.status);
}

#[tokio::test]
async fn the_purge_method_asks_for_a_token() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\npurge_method = true").token("secret").run().await;
    let purge = || client::request("PURGE", gateway.url("/shop/a"));

    gateway.get("/shop/a").await.assert_ok("0");
    for refused in [purge(), purge().header("authorization", "Bearer wrong")] {
        let response = refused.send().await;
        assert!([401, 403].contains(&response.status), "{}", response.status);
    }
    gateway.get("/shop/a").await.assert_hit();
    let done = purge().header("authorization", "Bearer secret").send().await;
    assert_eq!(done.status, 200, "{}", done.text());
    gateway.get("/shop/a").await.assert_ok("1");
    assert!(origin.seen("/shop/a").iter().all(|request| request.method == "GET"), "a purge is not forwarded");
}

#[tokio::test]
async fn the_purge_method_is_an_ordinary_method_by_default() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).run().await;
    client::request("PURGE", gateway.url("/shop/a")).send().await;
    assert_eq!(origin.last("/shop/a").method, "PURGE");
}

#[tokio::test]
async fn purges_under_load_are_never_outrun() {
    let version = Arc::new(AtomicUsize::new(0));
    let served = Arc::clone(&version);
    let origin = origin::new()
        .handler("/a", move |_, _| reply(served.load(SeqCst).to_string()).max_age(60).header("cache-tag", "t"))
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;

    let load = futures_util::future::join_all((0..4).map(|_| async {
        loop {
            gateway.get("/a").await;
        }
    }));
    let purges = async {
        for round in 1..=200 {
            version.store(round, SeqCst);
            gateway.purge(if round % 2 == 0 { json!({ "tags": ["t"] }) } else { json!({ "all": true }) }).await;
            let seen: usize = gateway.get("/a").await.text().parse().expect("a number");
            assert!(seen >= round, "version {seen} was served after version {round} was purged for");
        }
    };
    tokio::select! {
        never = load => panic!("endless: {never:?}"),
        () = purges => {}
    }
}
