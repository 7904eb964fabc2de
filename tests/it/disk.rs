//! The disk tier: what survives a restart and what does not, what is too large for memory, and what is written at all.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    client,
    client::Response,
    eventually,
    gate::Gate,
    gateway,
    gateway::Gateway,
    origin,
    origin::{Origin, Seen, reply},
    outlive, pattern,
};

/// Everything storable is written.
const ALL: &str = "[l3]\nadmission = 'all'\npreload_max = 0";

/// Memory takes no more than some hundred KiB in one piece.
const SMALL: &str = "[l3]\nadmission = 'all'\npreload_max = 0\n[l1]\nmax_bytes = '4MiB'";

const LARGE: usize = 3 << 20;

trait FromDisk {
    fn assert_from_disk(&self) -> &Self;
}

impl FromDisk for Response {
    /// It came from the disk without a request to the origin.
    #[track_caller]
    fn assert_from_disk(&self) -> &Self {
        assert_eq!(self.assert_hit().cache().detail.as_deref(), Some("L3"), "{:?}", self.headers);
        self
    }
}

/// An origin whose `/a`, `/b` and `/c` answer with the number of the request, and forget nothing on POST.
async fn numbered() -> Origin {
    let numbered = |tag: &'static str| {
        move |seen: &Seen, nth: usize| match seen.method.as_str() {
            "GET" => reply(nth.to_string()).max_age(600).header("cache-tag", tag).header("etag", &format!("\"{nth}\"")),
            _ => reply("").status(204),
        }
    };
    origin::new().handler("/a", numbered("a")).handler("/b", numbered("b")).handler("/c", numbered("c")).run().await
}

async fn post(gateway: &Gateway, path: &str) {
    assert_eq!(client::request("POST", gateway.url(path)).send().await.status, 204);
}

#[tokio::test]
async fn a_restart_keeps_what_is_stored() {
    let origin =
        origin::new().route("/a", reply("hello").max_age(600).header("age", "100").header("x-kept", "1")).run().await;
    let gateway = gateway::new().origin(&origin).config(ALL).run().await;
    gateway.get("/a").await.assert_ok("hello");
    let gateway = gateway.restart().await;
    let first = gateway.get("/a").await;
    first.assert_ok("hello").assert_from_disk();
    assert_eq!(first.header("x-kept"), Some("1"));
    assert!(first.age().is_some_and(|age| (100..200).contains(&age)), "{:?}", first.headers);
    assert!(first.cache().ttl.is_some_and(|ttl| (400..=500).contains(&ttl)), "{:?}", first.headers);
    let second = gateway.get("/a").await;
    assert_eq!(second.assert_ok("hello").assert_hit().cache().detail.as_deref(), Some("L1"), "it is back in memory");
    let line = gateway.access_line(|line| line["detail"] == "L3").await;
    assert_eq!(line["outcome"], "hit", "{line}");
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn an_acknowledged_purge_holds_after_a_restart() {
    for (purge, gone) in [
        (json!({ "tags": ["a"] }), &["/a"][..]),
        (json!({ "urls": ["http://any.example/a", "http://any.example/b"] }), &["/a", "/b"]),
        (json!({ "all": true }), &["/a", "/b", "/c"]),
    ] {
        let origin = numbered().await;
        let gateway = gateway::new().origin(&origin).config(ALL).run().await;
        for path in ["/a", "/b", "/c"] {
            gateway.get(path).await.assert_ok("0");
        }
        // Only what is on the disk by now can come back.
        let gateway = gateway.restart().await;
        gateway.purge(purge.clone()).await;
        let gateway = gateway.kill9_and_restart().await;
        for path in ["/a", "/b", "/c"] {
            let found = gateway.get(path).await;
            if gone.contains(&path) {
                found.assert_ok("1").assert_forwarded("uri-miss");
            } else {
                found.assert_ok("0").assert_from_disk();
            }
        }
    }
}

#[tokio::test]
async fn a_soft_purge_holds_after_a_restart() {
    let same = reply("").status(304).max_age(600).header("etag", "\"1\"");
    let origin = origin::new().route("/a", [reply("hello").max_age(600).header("etag", "\"1\""), same]).run().await;
    let gateway = gateway::new().origin(&origin).config(ALL).run().await;
    gateway.get("/a").await.assert_ok("hello");
    let gateway = gateway.restart().await;
    gateway.purge(json!({ "all": true, "soft": true })).await;
    let gateway = gateway.kill9_and_restart().await;
    let validated = gateway.get("/a").await;
    validated.assert_ok("hello").assert_forwarded("stale");
    assert_eq!(origin.last("/a").header("if-none-match"), Some("\"1\""));
    let gateway = gateway.restart().await;
    gateway.get("/a").await.assert_ok("hello").assert_from_disk();
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn what_another_purge_log_was_beside_is_not_used() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).config(ALL).run().await;
    gateway.purge(json!({ "tags": ["other"] })).await;
    gateway.get("/a").await.assert_ok("0");
    let gateway = gateway.restart_without("purge").await;
    gateway.get("/a").await.assert_ok("1").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn an_unsafe_request_reaches_the_disk() {
    let origin = numbered().await;
    let mut gateway = gateway::new().origin(&origin).config(ALL).run().await;
    for memory in [true, false] {
        gateway.get("/a").await;
        if !memory {
            gateway = gateway.restart().await;
            // Read by now is all that the index has: the request need not purge to be sure.
            loaded(&gateway).await;
        }
        let before = gateway.metric("larder_purge_position").await;
        post(&gateway, "/a").await;
        assert_eq!(gateway.metric("larder_purge_position").await, before);
        gateway = gateway.kill9_and_restart().await;
        gateway.get("/a").await.assert_forwarded("uri-miss");
    }
}

/// Returns when the gateway has read all of its index.
async fn loaded(gateway: &Gateway) {
    eventually("the index to be read", || async {
        // What it lacks is not looked for on the disk once it knows all that is there.
        let before = gateway.metric("larder_l3_misses_total").await;
        gateway.get("/unheard-of").await;
        let after = gateway.metric("larder_l3_misses_total").await;
        (before == after).then_some(())
    })
    .await;
}

#[tokio::test]
async fn variants_are_found_after_a_restart() {
    let answer = |seen: &Seen, nth: usize| match seen.header("x-color") {
        _ if seen.method != "GET" => reply("").status(204),
        Some(color) => reply(format!("{color} {nth}")).max_age(600).header("vary", "x-color"),
        None => reply("none").max_age(600).header("vary", "x-color"),
    };
    let origin = origin::new().handler("/a", answer).run().await;
    let gateway = gateway::new().origin(&origin).config(ALL).run().await;
    let get =
        async |gateway: &Gateway, color: &str| client::get(gateway.url("/a")).header("x-color", color).send().await;
    get(&gateway, "red").await.assert_ok("red 0");
    get(&gateway, "blue").await.assert_ok("blue 1");
    let gateway = gateway.restart().await;
    get(&gateway, "blue").await.assert_ok("blue 1").assert_from_disk();
    get(&gateway, "red").await.assert_ok("red 0").assert_from_disk();
    get(&gateway, "green").await.assert_ok("green 2").assert_forwarded("vary-miss");
    let gateway = gateway.restart().await;
    post(&gateway, "/a").await;
    let gateway = gateway.kill9_and_restart().await;
    get(&gateway, "red").await.assert_ok("red 4");
    get(&gateway, "blue").await.assert_ok("blue 5");
    get(&gateway, "green").await.assert_ok("green 6");
    get(&gateway, "red").await.assert_ok("red 4").assert_hit();
}

#[tokio::test]
async fn what_lies_under_keys_that_a_url_does_not_tell_is_invalidated_all_the_same() {
    for policy in ["partition = 'authorization'", "key_cookies = ['user']", "key_headers = ['x-user']"] {
        let answer = |seen: &Seen, nth: usize| match seen.method.as_str() {
            "GET" => reply(nth.to_string()).cache_control("max-age=600, public"),
            _ => reply("").status(204),
        };
        let origin = origin::new().handler("/a", answer).run().await;
        let gateway = gateway::new().origin(&origin).config(format!("[cache]\n{policy}\n{ALL}")).run().await;
        let get = async |gateway: &Gateway, user: &str| {
            let request = client::get(gateway.url("/a")).header("authorization", user).header("x-user", user);
            request.header("cookie", &format!("user={user}")).send().await
        };
        get(&gateway, "one").await.assert_ok("0");
        get(&gateway, "two").await.assert_ok("1");
        let gateway = gateway.restart().await;
        loaded(&gateway).await;
        get(&gateway, "two").await.assert_ok("1").assert_from_disk();
        // From somebody else.
        post(&gateway, "/a").await;
        let gateway = gateway.kill9_and_restart().await;
        get(&gateway, "one").await.assert_ok("3").assert_forwarded("uri-miss");
        get(&gateway, "two").await.assert_ok("4").assert_forwarded("uri-miss");
    }
}

#[tokio::test]
async fn two_keys_of_one_body() {
    let same = |seen: &Seen, _| match seen.method.as_str() {
        "GET" => reply(pattern(5000)).max_age(600),
        _ => reply("").status(204),
    };
    let origin = origin::new().handler("/a", same).handler("/b", same).run().await;
    let gateway = gateway::new().origin(&origin).config(ALL).run().await;
    gateway.get("/a").await;
    gateway.get("/b").await;
    let gateway = gateway.restart().await;
    assert_eq!(gateway.metric("larder_l3_contents").await, 1.0);
    post(&gateway, "/a").await;
    let gateway = gateway.restart().await;
    gateway.get("/a").await.assert_forwarded("uri-miss");
    let kept = gateway.get("/b").await;
    kept.assert_from_disk();
    assert!(kept.body == pattern(5000));
}

#[tokio::test]
async fn what_is_asked_for_twice_is_written() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).config("[l3]\npreload_max = 0").run().await;
    gateway.get("/a").await.assert_ok("0");
    gateway.get("/b").await.assert_ok("0");
    gateway.get("/b").await.assert_hit();
    let gateway = gateway.restart().await;
    gateway.get("/a").await.assert_ok("1").assert_forwarded("uri-miss");
    gateway.get("/b").await.assert_ok("0").assert_from_disk();
}

#[tokio::test]
async fn a_response_that_takes_the_place_of_another_does_so_on_the_disk() {
    let replies = [reply("old").max_age(600), reply("new").max_age(600), reply("newest").cache_control("no-store")];
    let origin = origin::new().route("/a", replies).run().await;
    let gateway = gateway::new().origin(&origin).config("[l3]\npreload_max = 0").run().await;
    gateway.get("/a").await.assert_ok("old");
    gateway.get("/a").await.assert_ok("old").assert_hit();
    let gateway = gateway.restart().await;
    client::get(gateway.url("/a")).header("cache-control", "no-cache").send().await.assert_ok("new");
    let gateway = gateway.restart().await;
    gateway.get("/a").await.assert_ok("new").assert_from_disk();
    assert_eq!(origin.requests("/a"), 2);
    gateway.purge(json!({ "all": true, "soft": true })).await;
    let gateway = gateway.restart().await;
    gateway.get("/a").await.assert_ok("newest");
    let gateway = gateway.restart().await;
    gateway.get("/a").await.assert_ok("newest").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn written_through_is_written_before_the_client_has_it() {
    let through = "[cache]\nl3 = 'write-through'\n[l3]\npreload_max = 0";
    let answer = |seen: &Seen, nth: usize| {
        let body = reply(nth.to_string()).max_age(600);
        if seen.target == "/varies" { body.header("vary", "x-color") } else { body }
    };
    let origin = origin::new().handler("/a", answer).handler("/varies", answer).run().await;
    let gateway = gateway::new().origin(&origin).config(through).run().await;
    for path in ["/a", "/varies"] {
        gateway.get(path).await.assert_ok("0");
    }
    let gateway = gateway.kill9_and_restart().await;
    for path in ["/a", "/varies"] {
        gateway.get(path).await.assert_ok("0").assert_from_disk();
    }
}

#[tokio::test]
async fn a_route_may_keep_off_the_disk() {
    let origin = numbered().await;
    let route = |name: &str, path: &str, l3: &str| {
        let url = origin.url();
        format!("[[route]]\nname = '{name}'\npath = '{path}'\nupstream = '{url}'\ncache = {{ l3 = '{l3}' }}\n")
    };
    let routes = |l3| format!("{}{}{ALL}", route("one", "/a", l3), route("rest", "/", "write-behind"));
    let gateway = gateway::new().config(routes("off")).run().await;
    for path in ["/a", "/b"] {
        gateway.get(path).await.assert_ok("0");
    }
    let gateway = gateway.restart_with(&routes("write-behind")).await;
    gateway.get("/a").await.assert_ok("1").assert_forwarded("uri-miss");
    gateway.get("/b").await.assert_ok("0").assert_from_disk();
    let gateway = gateway.restart_with(&routes("off")).await;
    gateway.get("/a").await.assert_ok("2").assert_forwarded("uri-miss");
    let gateway = gateway.restart_with(&routes("write-behind")).await;
    gateway.get("/a").await.assert_ok("3").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn what_is_stale_on_the_disk_is_confirmed() {
    let stale = reply("old").max_age(1).header("etag", "\"1\"");
    let same = reply("").status(304).max_age(600).header("etag", "\"1\"").header("x-version", "2");
    let origin = origin::new().route("/a", [stale, same]).run().await;
    let gateway = gateway::new().origin(&origin).config(ALL).run().await;
    let first = gateway.get("/a").await;
    outlive(first.end_at, Duration::from_secs(1)).await;
    let gateway = gateway.restart().await;
    gateway.get("/a").await.assert_ok("old").assert_forwarded("stale");
    assert_eq!(origin.last("/a").header("if-none-match"), Some("\"1\""));
    let gateway = gateway.restart().await;
    let renewed = gateway.get("/a").await;
    renewed.assert_ok("old").assert_from_disk();
    assert_eq!(renewed.header("x-version"), Some("2"));
}

#[tokio::test]
async fn what_is_stale_on_the_disk_stands_in_for_an_origin_that_fails() {
    let mut origin = origin::new().route("/a", reply("old").cache_control("max-age=1, stale-if-error=600")).run().await;
    let gateway = gateway::new().origin(&origin).config(ALL).run().await;
    let first = gateway.get("/a").await;
    outlive(first.end_at, Duration::from_secs(1)).await;
    let gateway = gateway.restart().await;
    origin.stop().await;
    let stands_in = gateway.get("/a").await;
    stands_in.assert_ok("old");
    assert!(stands_in.age().is_some_and(|age| age >= 1));
}

#[tokio::test]
async fn many_at_once_read_the_disk_once() {
    let origin = origin::new().route("/a", reply(pattern(100_000)).max_age(600)).run().await;
    let gateway = gateway::new().origin(&origin).config(ALL).run().await;
    gateway.get("/a").await;
    let gateway = gateway.restart().await;
    for response in join_all((0..1000).map(|_| gateway.get("/a"))).await {
        response.assert_hit();
        assert!(response.body == pattern(100_000));
    }
    assert_eq!(origin.requests("/a"), 1);
    assert!(gateway.metric("larder_l3_hits_total").await < 10.0);
}

#[tokio::test]
async fn a_head_and_a_condition_are_answered_from_the_disk() {
    let origin = origin::new().route("/a", reply("hello").max_age(600).header("etag", "\"1\"")).run().await;
    let mut gateway = gateway::new().origin(&origin).config(ALL).run().await;
    gateway.get("/a").await;
    for (method, field, status) in [("HEAD", "x-none", 200), ("GET", "if-none-match", 304), ("GET", "range", 206)] {
        gateway = gateway.restart().await;
        let value = if field == "range" { "bytes=1-2" } else { "\"1\"" };
        let response = client::request(method, gateway.url("/a")).header(field, value).send().await;
        assert_eq!(response.assert_from_disk().status, status);
        assert_eq!(response.text(), if status == 206 { "el" } else { "" });
    }
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn a_part_survives_a_restart() {
    let part = |seen: &Seen, _| match seen.header("range") {
        Some(_) => {
            reply("01234").status(206).max_age(600).header("content-range", "bytes 0-4/10").header("etag", "\"1\"")
        }
        None => reply("0123456789").max_age(600).header("etag", "\"1\""),
    };
    let origin = origin::new().handler("/a", part).run().await;
    let gateway = gateway::new().origin(&origin).config(ALL).run().await;
    let get = async |gateway: &Gateway| client::get(gateway.url("/a")).header("range", "bytes=0-4").send().await;
    assert_eq!(get(&gateway).await.text(), "01234");
    let gateway = gateway.restart().await;
    for _ in 0..2 {
        let found = get(&gateway).await;
        assert_eq!((found.status, found.assert_hit().text()), (206, "01234"));
    }
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn fields_of_another_configuration_do_not_come_back() {
    let origin = origin::new().route("/a", reply("hello").max_age(600).header("cache-tag", "secret")).run().await;
    let shown = format!("[cache]\ntag_fields_hidden = false\n{ALL}");
    let gateway = gateway::new().origin(&origin).config(&shown).run().await;
    gateway.get("/a").await;
    let gateway = gateway.restart().await;
    assert_eq!(gateway.get("/a").await.assert_from_disk().header("cache-tag"), Some("secret"));
    let gateway = gateway.restart_with(ALL).await;
    for _ in 0..2 {
        let found = gateway.get("/a").await;
        assert_eq!(found.assert_ok("hello").assert_hit().header("cache-tag"), None);
    }
    gateway.purge(json!({ "tags": ["secret"] })).await;
    gateway.get("/a").await.assert_forwarded("uri-miss");
}

#[tokio::test]
async fn the_most_used_return_to_memory() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).config("[l3]\nadmission = 'all'").run().await;
    for path in ["/a", "/b"] {
        for _ in 0..3 {
            gateway.get(path).await.assert_ok("0");
        }
    }
    let gateway = gateway.restart().await;
    gateway.purge(json!({ "tags": ["b"] })).await;
    eventually("entries in memory", || async { (gateway.metric("larder_l1_entries").await >= 1.0).then_some(()) })
        .await;
    assert_eq!(gateway.get("/a").await.assert_ok("0").assert_hit().cache().detail.as_deref(), Some("L1"));
    gateway.get("/b").await.assert_ok("1").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn an_explanation_tells_of_the_disk() {
    let origin = numbered().await;
    let gateway = gateway::new().origin(&origin).config(ALL).run().await;
    gateway.get("/a").await;
    let gateway = gateway.restart().await;
    let explained = gateway.admin_json(&format!("/explain?url={}", gateway.url("/a"))).await;
    assert!(explained["l1"].is_null(), "{explained}");
    assert_eq!((&explained["l3"]["kind"], &explained["l3"]["tier"]), (&json!("entry"), &json!("L3")), "{explained}");
    assert!(explained["verdict"].as_str().is_some_and(|verdict| verdict.starts_with("hit")), "{explained}");
    gateway.get("/a").await.assert_from_disk();
}

// === Larger than memory takes ===

fn large(seen: &Seen, nth: usize) -> origin::Reply {
    match seen.method.as_str() {
        "GET" => reply(pattern(LARGE)).max_age(600).header("etag", &format!("\"{nth}\"")).header("content-type", "x/y"),
        _ => reply("").status(204),
    }
}

#[tokio::test]
async fn what_is_too_large_for_memory_is_served_from_the_disk() {
    let chunked = |_: &Seen, _| {
        pattern(LARGE).chunks(100_000).fold(reply("").max_age(600), |reply, chunk| reply.chunk(chunk.to_vec()))
    };
    let origin = origin::new().handler("/known", large).handler("/unknown", chunked).run().await;
    let gateway = gateway::new().origin(&origin).config(SMALL).run().await;
    for path in ["/known", "/unknown"] {
        let first = gateway.get(path).await;
        assert!(first.body == pattern(LARGE) && first.cache().stored, "{:?}", first.headers);
        let second = gateway.get(path).await;
        assert!(second.body == pattern(LARGE), "as soon as the first has it to its end");
        from_disk(&gateway, path).await;
        assert_eq!(origin.requests(path), 1);
    }
    let gateway = gateway.kill9_and_restart().await;
    let again = gateway.get("/known").await;
    assert!(again.assert_from_disk().body == pattern(LARGE));
    assert_eq!(again.header("content-length"), Some(LARGE.to_string().as_str()));
}

/// Returns when `path` is served from the disk: a moment after the last byte went to who asked first.
async fn from_disk(gateway: &Gateway, path: &str) {
    eventually("an answer from the disk", || async {
        (gateway.get(path).await.cache().detail.as_deref() == Some("L3")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn ranges_of_what_is_on_the_disk() {
    let origin = origin::new().handler("/a", large).run().await;
    let gateway = gateway::new().origin(&origin).config(SMALL).run().await;
    gateway.get("/a").await;
    from_disk(&gateway, "/a").await;
    let body = pattern(LARGE);
    for (first, last) in [(0, 0), (130_000, 140_000), (LARGE - 5, LARGE - 1), (0, LARGE - 1)] {
        let part = client::get(gateway.url("/a")).header("range", &format!("bytes={first}-{last}")).send().await;
        assert_eq!(part.assert_from_disk().status, 206);
        assert!(part.body == body[first..=last], "{first} to {last}");
    }
    let several = client::get(gateway.url("/a")).header("range", "bytes=0-9, 262140-262150, -3").send().await;
    assert_eq!((several.status, several.broken), (206, false));
    let text = several.text();
    for piece in [&body[..10], &body[262_140..=262_150], &body[LARGE - 3..]] {
        assert!(text.contains(std::str::from_utf8(piece).expect("letters")));
    }
    assert_eq!(several.header("content-length"), Some(several.body.len().to_string().as_str()));
    let head = client::request("HEAD", gateway.url("/a")).send().await;
    assert_eq!(head.assert_from_disk().header("content-length"), Some(LARGE.to_string().as_str()));
    let held = client::get(gateway.url("/a")).header("if-none-match", "\"0\"").send().await;
    assert_eq!((held.assert_from_disk().status, held.body.len()), (304, 0));
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn what_is_on_the_disk_is_confirmed_and_removed_there() {
    let answer = |seen: &Seen, nth: usize| match (seen.method.as_str(), seen.header("if-none-match")) {
        ("GET", Some("\"0\"")) => reply("").status(304).max_age(600).header("etag", "\"0\"").header("x-version", "2"),
        ("GET", _) => large(seen, nth),
        _ => reply("").status(204),
    };
    let origin = origin::new().handler("/a", answer).run().await;
    let gateway = gateway::new().origin(&origin).config(SMALL).run().await;
    gateway.get("/a").await;
    from_disk(&gateway, "/a").await;
    let anew = || client::get(gateway.url("/a")).header("cache-control", "no-cache").send();
    let confirmed = anew().await;
    assert_eq!(confirmed.cache().fwd_status, Some(304));
    assert!(confirmed.body == pattern(LARGE));
    assert_eq!(gateway.get("/a").await.assert_from_disk().header("x-version"), Some("2"));
    let gateway = gateway.restart().await;
    assert_eq!(gateway.get("/a").await.assert_from_disk().header("x-version"), Some("2"));
    // Who reads it reads it to its end.
    let mut reading = client::get(gateway.url("/a")).open().await;
    reading.read(1000).await;
    post(&gateway, "/a").await;
    gateway.get("/a").await.assert_forwarded("uri-miss");
    assert!(reading.finish().await.body == pattern(LARGE));
}

#[tokio::test]
async fn many_at_once_make_one_large_fill() {
    let gate = Gate::new();
    let origin = origin::new().route("/a", reply(pattern(LARGE)).max_age(600).hold(&gate)).run().await;
    // That many ask at once is as good as that it was asked for before.
    let config = SMALL.replace("admission = 'all'", "");
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    let clients: Vec<_> = (0..50).map(|_| tokio::spawn(client::get(gateway.url("/a")).send())).collect();
    gateway.followers(49).await;
    gate.open();
    for client in clients {
        assert!(client.await.expect("no panic").body == pattern(LARGE));
    }
    from_disk(&gateway, "/a").await;
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn a_large_body_that_breaks_off_is_not_stored() {
    let broken = reply(pattern(LARGE / 2)).max_age(600).chunk("more").break_here();
    let origin = origin::new().route("/a", [broken, reply(pattern(LARGE)).max_age(600)]).run().await;
    let gateway = gateway::new().origin(&origin).config(SMALL).run().await;
    assert!(gateway.get("/a").await.broken);
    let second = gateway.get("/a").await;
    assert!(second.body == pattern(LARGE) && !second.cache().hit);
    from_disk(&gateway, "/a").await;
}

#[tokio::test]
async fn a_large_body_that_is_purged_on_its_way_is_not_stored() {
    let gate = Gate::new();
    let held = gate.clone();
    let answer = move |seen: &Seen, nth: usize| match (seen.method.as_str(), nth) {
        ("GET", 0) => reply(pattern(LARGE)).max_age(600).gate(&held).chunk("end"),
        ("GET", _) => reply("new").max_age(600),
        _ => reply("").status(204),
    };
    for purge in [true, false] {
        let origin = origin::new().handler("/a", answer.clone()).run().await;
        let gateway = gateway::new().origin(&origin).config(SMALL).run().await;
        let before = tokio::spawn(client::get(gateway.url("/a")).send());
        origin.arrived("/a", 1).await;
        if purge {
            gateway.purge_path("/a").await;
        } else {
            post(&gateway, "/a").await;
        }
        gate.open();
        assert_eq!(before.await.expect("no panic").body.len(), LARGE + 3);
        gateway.get("/a").await.assert_ok("new");
        gateway.get("/a").await.assert_ok("new").assert_hit();
        let gateway = gateway.restart().await;
        gateway.get("/a").await.assert_ok("new").assert_from_disk();
    }
}
