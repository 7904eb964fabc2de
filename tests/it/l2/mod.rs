//! The tier in Redis: what one node has fetched all have, one of them fetches, and Redis may fail at any time.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{
    client,
    client::Response,
    eventually,
    gate::Gate,
    gateway,
    gateway::Gateway,
    origin,
    origin::{Origin, Seen, reply},
    outlive, pattern, redis,
};

mod pieces;

/// Nodes of one deployment: they share a secret and Redis, and keep nothing on their disks.
struct Fleet {
    secret: TempDir,
    urls: Vec<String>,
    l2: String,
    rest: String,
}

impl Fleet {
    fn over(urls: Vec<String>) -> Self {
        let secret = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(secret.path().join("secret"), [7; 32]).expect("a temporary directory");
        // A machine that is busy with other scenarios may be slow, and that is not what these are about.
        let l2 = "read_timeout = '5s'\nwrite_timeout = '5s'\n".to_owned();
        Self { secret, urls, l2, rest: String::new() }
    }

    fn of(server: &redis::Server) -> Self {
        Self::over(vec![server.url()])
    }

    /// More settings of `[l2]`.
    fn l2(mut self, settings: &str) -> Self {
        self.l2.push_str(settings);
        self.l2.push('\n');
        self
    }

    /// More tables.
    fn config(mut self, tables: &str) -> Self {
        self.rest.push_str(tables);
        self.rest.push('\n');
        self
    }

    fn describe(&self) -> gateway::Builder {
        let secret = self.secret.path().join("secret");
        gateway::new().config(format!(
            "secret_file = {secret:?}\n[l2]\nurl = {:?}\n{}[l3]\nmax_bytes = 0\n{}",
            self.urls, self.l2, self.rest
        ))
    }

    /// A node that has found Redis.
    async fn node(&self, origin: &Origin) -> Gateway {
        let node = self.describe().origin(origin).run().await;
        is_up(&node).await;
        node
    }

    async fn nodes<const N: usize>(&self, origin: &Origin) -> [Gateway; N] {
        let nodes = join_all((0..N).map(|_| self.node(origin))).await;
        nodes.try_into().unwrap_or_else(|_| panic!("as many as were asked for"))
    }
}

/// What lies in Redis, logs aside.
fn names(redis: &redis::Server) -> Vec<String> {
    let names = redis.cli(&["keys", "*"]);
    names.lines().filter(|name| !name.contains(".fleet}") && !name.contains(".changes}")).map(str::to_owned).collect()
}

async fn is_up(node: &Gateway) {
    eventually("Redis", || async { (node.admin_json("/stats").await["l2"]["up"] == true).then_some(()) }).await;
    // What is fetched before has no place in the fleet's log, and is nobody else's.
    eventually("the log", || async {
        let fleet = node.admin_json("/nodes").await;
        (fleet["epoch"] != 0 && fleet["fenced"] == false).then_some(())
    })
    .await;
}

/// Returns when the node has written so many entries to Redis.
async fn wrote(node: &Gateway, entries: u64) {
    let stored = || async { node.admin_json("/stats").await["l2"]["stored"].as_u64() };
    eventually("entries in Redis", || async { (stored().await? >= entries).then_some(()) }).await;
}

async fn l2_metric(node: &Gateway, name: &str, result: &str) -> f64 {
    node.metric(&format!("larder_l2_{name}_total{{result=\"{result}\"}}")).await
}

/// Returns when so many fills of the node wait for another node.
async fn waits(node: &Gateway) {
    eventually("a fill that waits", || async { (node.metric("larder_l2_waiting").await >= 1.0).then_some(()) }).await;
}

trait FromRedis {
    fn assert_from_redis(&self) -> &Self;
}

impl FromRedis for Response {
    /// It came from Redis without a request to the origin.
    #[track_caller]
    fn assert_from_redis(&self) -> &Self {
        assert_eq!(self.assert_hit().cache().detail.as_deref(), Some("L2"), "{:?}", self.headers);
        self
    }
}

/// An origin whose `/a`, `/b` and `/c` answer with the number of the request.
async fn numbered() -> Origin {
    let numbered = |seen: &Seen, nth: usize| match seen.method.as_str() {
        "GET" => reply(nth.to_string()).max_age(600).header("etag", &format!("\"{nth}\"")),
        _ => reply("").status(204),
    };
    origin::new().handler("/a", numbered).handler("/b", numbered).handler("/c", numbered).run().await
}

async fn post(gateway: &Gateway, path: &str) {
    assert_eq!(client::request("POST", gateway.url(path)).send().await.status, 204);
}

async fn get_with(node: &Gateway, path: &str, name: &str, value: &str) -> Response {
    client::get(node.url(path)).header(name, value).send().await
}

#[tokio::test]
async fn what_one_node_has_fetched_the_others_have() {
    let redis = redis::server().run().await;
    let origin =
        origin::new().route("/a", reply("hello").max_age(600).header("age", "100").header("x-kept", "1")).run().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    one.get("/a").await.assert_ok("hello").assert_forwarded("uri-miss");
    wrote(&one, 1).await;
    let found = other.get("/a").await;
    found.assert_ok("hello").assert_from_redis();
    assert_eq!(found.header("x-kept"), Some("1"));
    assert!(found.age().is_some_and(|age| (100..200).contains(&age)), "{:?}", found.headers);
    assert!(found.cache().ttl.is_some_and(|ttl| (400..=500).contains(&ttl)), "{:?}", found.headers);
    let again = other.get("/a").await;
    assert_eq!(again.assert_ok("hello").assert_hit().cache().detail.as_deref(), Some("L1"), "it is in memory");
    assert_eq!(origin.requests("/a"), 1);
    let line = other.access_line(|line| line["detail"] == "L2").await;
    assert_eq!(line["outcome"], "hit", "{line}");
    let stats = &other.admin_json("/stats").await["l2"];
    assert_eq!((stats["hits"].as_u64(), stats["up"].as_bool()), (Some(1), Some(true)), "{stats}");
    assert!(other.metric("larder_l2_lookup_seconds_count").await >= 1.0);
    assert!(other.metric("larder_tier_hits_total{route=\"default\",tier=\"l2\"}").await >= 1.0);
}

#[tokio::test]
async fn it_outlives_all_nodes() {
    let redis = redis::server().run().await;
    let origin = numbered().await;
    let fleet = Fleet::of(&redis);
    let [one, other] = fleet.nodes(&origin).await;
    // Not even a moment after the answer: what waits to be written is written before the node has ended.
    one.get("/a").await.assert_ok("0");
    let (one, other) = (one.restart().await, other.restart().await);
    for node in [&one, &other] {
        is_up(node).await;
        node.get("/a").await.assert_ok("0").assert_from_redis();
    }
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn heads_conditions_and_ranges_are_answered_from_it() {
    let redis = redis::server().run().await;
    let origin = origin::new().route("/a", reply("hello").max_age(600).header("etag", "\"1\"")).run().await;
    let fleet = Fleet::of(&redis);
    let one = fleet.node(&origin).await;
    one.get("/a").await.assert_ok("hello");
    wrote(&one, 1).await;
    let mut other = fleet.node(&origin).await;
    let table = [
        ("HEAD", "x-none", "", 200, ""),
        ("GET", "if-none-match", "\"1\"", 304, ""),
        ("GET", "range", "bytes=1-2", 206, "el"),
        ("GET", "cache-control", "only-if-cached", 200, "hello"),
        ("GET", "cache-control", "max-stale", 200, "hello"),
    ];
    for (method, field, value, status, body) in table {
        let response = client::request(method, other.url("/a")).header(field, value).send().await;
        assert_eq!((response.assert_from_redis().status, response.text()), (status, body), "{field}");
        other = other.restart().await;
        is_up(&other).await;
    }
    assert_eq!(origin.requests("/a"), 1);
    get_with(&other, "/a", "cache-control", "no-cache").await.assert_ok("hello").assert_forwarded("uri-miss");
    get_with(&other, "/b", "cache-control", "only-if-cached").await;
    assert_eq!((origin.requests("/a"), origin.requests("/b")), (2, 0));
}

#[tokio::test]
async fn variants_of_all_nodes_are_found_by_all() {
    let redis = redis::server().run().await;
    let coded = |seen: &Seen, _| {
        let coding = seen.header("accept-encoding").unwrap_or("identity").to_owned();
        reply(coding).max_age(600).header("vary", "accept-encoding")
    };
    let origin = origin::new().handler("/a", coded).run().await;
    let fleet = Fleet::of(&redis);
    let [one, other] = fleet.nodes(&origin).await;
    let get = async |node: &Gateway, coding: &str| get_with(node, "/a", "accept-encoding", coding).await;
    get(&one, "gzip").await.assert_ok("gzip");
    wrote(&one, 1).await;
    get(&other, "br").await.assert_ok("br");
    wrote(&other, 1).await;
    get(&one, "br").await.assert_ok("br").assert_from_redis();
    get(&other, "gzip").await.assert_ok("gzip").assert_from_redis();
    // One that knows nothing of the URL, and one that is asked for both at once.
    let [third, fourth] = fleet.nodes(&origin).await;
    for coding in ["gzip", "br"] {
        get(&third, coding).await.assert_ok(coding).assert_from_redis();
        assert_eq!(get(&third, coding).await.assert_ok(coding).assert_hit().cache().detail.as_deref(), Some("L1"));
    }
    let codings = (0..40).map(|nth| ["gzip", "br"][nth % 2]);
    for (coding, response) in join_all(codings.map(async |coding| (coding, get(&fourth, coding).await))).await {
        response.assert_ok(coding).assert_hit();
    }
    assert_eq!(origin.requests("/a"), 2);
    get(&fourth, "zstd").await.assert_ok("zstd").assert_forwarded("vary-miss");
}

#[tokio::test]
async fn a_language_that_is_preferred_is_as_good_as_a_match() {
    let redis = redis::server().run().await;
    let spoken = |seen: &Seen, _| {
        let language = if seen.header("accept-language").unwrap_or_default().contains("de") { "de" } else { "en" };
        reply(language).max_age(600).header("vary", "accept-language").header("content-language", language)
    };
    let origin = origin::new().handler("/a", spoken).run().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    get_with(&one, "/a", "accept-language", "en, de").await.assert_ok("de");
    wrote(&one, 1).await;
    // It has a record of its own already, in which that language is not.
    get_with(&other, "/a", "accept-language", "en").await.assert_ok("en");
    wrote(&other, 1).await;
    let preferred = get_with(&other, "/a", "accept-language", "fr;q=0.5, de;q=0.9").await;
    preferred.assert_ok("de").assert_from_redis();
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn of_many_variants_the_oldest_makes_room() {
    let redis = redis::server().run().await;
    let coloured = |seen: &Seen, _| {
        let colour = seen.header("x-color").unwrap_or_default().to_owned();
        reply(colour).max_age(600).header("vary", "x-color")
    };
    let origin = origin::new().handler("/a", coloured).run().await;
    let fleet = Fleet::of(&redis).config("[cache]\nvariants_max = 2");
    let one = fleet.node(&origin).await;
    for (nth, colour) in ["red", "green", "blue"].into_iter().enumerate() {
        get_with(&one, "/a", "x-color", colour).await.assert_ok(colour);
        wrote(&one, nth as u64 + 1).await;
    }
    let other = fleet.node(&origin).await;
    for colour in ["green", "blue"] {
        get_with(&other, "/a", "x-color", colour).await.assert_ok(colour).assert_from_redis();
    }
    get_with(&other, "/a", "x-color", "red").await.assert_ok("red").assert_forwarded("vary-miss");
    // The record of them, and two entries; the third is gone with its place.
    eventually("no more than there may be", async || (names(&redis).len() == 3).then_some(())).await;
}

#[tokio::test]
async fn one_for_everybody_takes_the_place_of_variants() {
    let redis = redis::server().run().await;
    let changed = |seen: &Seen, nth: usize| {
        let reply = reply(format!("{nth}{}", seen.header("x-color").unwrap_or_default())).max_age(600);
        if nth == 0 { reply.header("vary", "x-color") } else { reply }
    };
    let origin = origin::new().handler("/a", changed).run().await;
    let fleet = Fleet::of(&redis);
    let [one, other] = fleet.nodes(&origin).await;
    get_with(&one, "/a", "x-color", "red").await.assert_ok("0red");
    wrote(&one, 1).await;
    get_with(&one, "/a", "x-color", "blue").await.assert_ok("1blue");
    wrote(&one, 2).await;
    get_with(&other, "/a", "x-color", "red").await.assert_ok("1blue").assert_from_redis();
    assert_eq!(names(&redis).len(), 1);
}

#[tokio::test]
async fn what_another_node_has_confirmed_need_not_be_confirmed() {
    let redis = redis::server().run().await;
    let stale = reply("old").max_age(1).header("etag", "\"1\"");
    let same = reply("").status(304).max_age(600).header("etag", "\"1\"").header("x-version", "2");
    let origin = origin::new().route("/a", [stale, same]).run().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    one.get("/a").await.assert_ok("old");
    wrote(&one, 1).await;
    let found = other.get("/a").await;
    found.assert_ok("old");
    outlive(found.end_at, Duration::from_secs(1)).await;
    one.get("/a").await.assert_ok("old").assert_forwarded("stale");
    wrote(&one, 2).await;
    let renewed = other.get("/a").await;
    assert_eq!(renewed.assert_ok("old").assert_from_redis().header("x-version"), Some("2"));
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn what_is_stale_there_is_confirmed_by_one_node_for_all() {
    let redis = redis::server().run().await;
    let stale = reply("old").max_age(1).header("etag", "\"1\"");
    let same = reply("").status(304).max_age(600).header("etag", "\"1\"");
    let origin = origin::new().route("/a", [stale, same]).run().await;
    let fleet = Fleet::of(&redis);
    let [one, other, third] = fleet.nodes(&origin).await;
    let first = one.get("/a").await;
    wrote(&one, 1).await;
    outlive(first.end_at, Duration::from_secs(1)).await;
    // It has never seen the response, and asks whether it is still right.
    other.get("/a").await.assert_ok("old");
    assert_eq!(origin.last("/a").header("if-none-match"), Some("\"1\""));
    wrote(&other, 1).await;
    for node in [&one, &third] {
        node.get("/a").await.assert_ok("old").assert_from_redis();
    }
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn what_may_be_served_stale_is_and_is_refreshed_behind() {
    let redis = redis::server().run().await;
    let stale = reply("old").cache_control("max-age=1, stale-while-revalidate=600");
    let origin = origin::new().route("/a", [stale, reply("new").max_age(600)]).run().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    let first = one.get("/a").await;
    wrote(&one, 1).await;
    outlive(first.end_at, Duration::from_secs(1)).await;
    other.get("/a").await.assert_ok("old").assert_hit();
    origin.arrived("/a", 2).await;
    wrote(&other, 1).await;
    // Its own is stale by now; what the other has refreshed is taken in behind.
    one.get("/a").await.assert_ok("old").assert_hit();
    eventually("the newer one", || async { (one.get("/a").await.text() == "new").then_some(()) }).await;
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn what_is_stale_there_stands_in_for_an_origin_that_fails() {
    let redis = redis::server().run().await;
    let mut origin = origin::new().route("/a", reply("old").cache_control("max-age=1, stale-if-error=600")).run().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    let first = one.get("/a").await;
    wrote(&one, 1).await;
    outlive(first.end_at, Duration::from_secs(1)).await;
    origin.stop().await;
    other.get("/a").await.assert_ok("old");
}

#[tokio::test]
async fn a_herd_on_three_nodes_is_one_origin_call() {
    const HERD: usize = 500;
    let redis = redis::server().run().await;
    let gate = Gate::new();
    let origin = origin::new().route("/a", reply(pattern(50_000)).max_age(600).hold(&gate)).run().await;
    let nodes: [Gateway; 3] = Fleet::of(&redis).nodes(&origin).await;
    let herd = join_all(nodes.iter().flat_map(|node| (0..HERD).map(|_| node.get("/a"))));
    let director = async {
        for node in &nodes {
            node.followers(HERD - 1).await;
        }
        let waiting = async || {
            let mut all = 0.0;
            for node in &nodes {
                all += node.metric("larder_l2_waiting").await;
            }
            (all >= 2.0).then_some(())
        };
        eventually("two nodes that wait for the third", waiting).await;
        gate.open();
    };
    let (responses, ()) = tokio::join!(herd, director);
    assert_eq!(responses.len(), 3 * HERD);
    for response in responses {
        assert!(response.status == 200 && response.body == pattern(50_000));
    }
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn who_waits_for_another_node_is_told_when_it_is_done() {
    const FILLS: usize = 8;
    let redis = redis::server().run().await;
    let gate = Gate::new();
    let mut origin = origin::new();
    for number in 0..FILLS {
        origin = origin.route(&format!("/{number}"), reply(number.to_string()).max_age(600).hold(&gate));
    }
    let origin = origin.run().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    let all = async |node: &Gateway| {
        let paths: Vec<String> = (0..FILLS).map(|number| format!("/{number}")).collect();
        join_all(paths.iter().map(|path| node.get(path))).await
    };
    let others = async {
        for number in 0..FILLS {
            origin.arrived(&format!("/{number}"), 1).await;
        }
        all(&other).await
    };
    let director = async {
        let waiting = async || (other.metric("larder_l2_waiting").await == FILLS as f64).then_some(());
        eventually("fills that wait", waiting).await;
        // They listen, and have looked once more since.
        let looked =
            async || (other.metric("larder_l2_lookup_seconds_count").await >= 2.0 * FILLS as f64).then_some(());
        eventually("another look of all", looked).await;
        gate.open();
    };
    let (first, second, ()) = tokio::join!(all(&one), others, director);
    for (number, (first, second)) in first.iter().zip(&second).enumerate() {
        first.assert_ok(&number.to_string());
        second.assert_ok(&number.to_string()).assert_from_redis();
    }
    // One that looks by itself at that moment is not woken any more.
    assert!(other.metric("larder_l2_wakes_total").await >= 1.0);
    for number in 0..FILLS {
        assert_eq!(origin.requests(&format!("/{number}")), 1);
    }
}

#[tokio::test]
async fn when_the_node_that_fetches_dies_another_takes_over() {
    let redis = redis::server().run().await;
    let gate = Gate::new();
    let origin = origin::new().route("/a", [reply("lost").hold(&gate), reply("hello").max_age(600)]).run().await;
    let fleet = Fleet::of(&redis).l2("fill_lease = '1s'");
    let [mut one, other] = fleet.nodes(&origin).await;
    let asking = tokio::spawn(client::get(one.url("/a")).attempt());
    origin.arrived("/a", 1).await;
    let waiting = async {
        let response = other.get("/a").await;
        (response, Instant::now())
    };
    let director = async {
        waits(&other).await;
        one.kill9().await;
        Instant::now()
    };
    let ((response, ended), killed) = tokio::join!(waiting, director);
    response.assert_ok("hello");
    assert!(ended.duration_since(killed) < Duration::from_secs(5), "{:?}", ended.duration_since(killed));
    assert_eq!(origin.requests("/a"), 2);
    assert_eq!(l2_metric(&other, "leases", "inherited").await, 1.0);
    drop(asking);
}

#[tokio::test]
async fn nobody_waits_longer_than_follow_max() {
    let redis = redis::server().run().await;
    let gate = Gate::new();
    let origin = origin::new().route("/a", [reply("late").hold(&gate), reply("hello").max_age(600)]).run().await;
    let [one, other] = Fleet::of(&redis).l2("follow_max = '300ms'").nodes(&origin).await;
    let slow = one.get("/a");
    let director = async {
        origin.arrived("/a", 1).await;
        other.get("/a").await.assert_ok("hello").assert_forwarded("uri-miss");
        gate.open();
    };
    let (slow, ()) = tokio::join!(slow, director);
    slow.assert_ok("late");
    assert_eq!(origin.requests("/a"), 2);
    assert_eq!(l2_metric(&other, "leases", "alone").await, 1.0);
}

#[tokio::test]
async fn what_proves_not_storable_keeps_nobody_waiting() {
    let redis = redis::server().run().await;
    let (first, rest) = (Gate::new(), Gate::new());
    let private = {
        let (first, rest) = (first.clone(), rest.clone());
        move |_: &Seen, nth: usize| reply("mine").cache_control("private").hold(if nth == 0 { &first } else { &rest })
    };
    let origin = origin::new().handler("/a", private).run().await;
    let nodes: [Gateway; 3] = Fleet::of(&redis).nodes(&origin).await;
    let all = join_all(nodes.iter().map(|node| node.get("/a")));
    let director = async {
        origin.arrived("/a", 1).await;
        let waiting = async || {
            let mut all = 0.0;
            for node in &nodes {
                all += node.metric("larder_l2_waiting").await;
            }
            (all >= 2.0).then_some(())
        };
        eventually("two nodes that wait", waiting).await;
        first.open();
        // Both of the others are at the origin at the same time.
        rest.arrived(2).await;
        rest.open();
    };
    let (responses, ()) = tokio::join!(all, director);
    for response in &responses {
        response.assert_ok("mine");
    }
    assert_eq!(origin.requests("/a"), 3);
    assert_eq!(redis.cli(&["keys", "*:e"]), "");
}

#[tokio::test]
async fn a_node_whose_fill_fails_lets_another_try() {
    let redis = redis::server().run().await;
    let gate = Gate::new();
    let broken = reply("half").max_age(600).gate(&gate).break_here();
    let origin = origin::new().route("/a", [broken, reply("hello").max_age(600)]).run().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    let failing = one.get("/a");
    let director = async {
        origin.arrived("/a", 1).await;
        let waiting = other.get("/a");
        let opening = async {
            waits(&other).await;
            gate.open();
        };
        let (response, ()) = tokio::join!(waiting, opening);
        response.assert_ok("hello");
    };
    let (failed, ()) = tokio::join!(failing, director);
    assert!(failed.broken);
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn an_unsafe_request_on_one_node_removes_it_for_those_that_have_not_got_it() {
    let redis = redis::server().run().await;
    let origin = numbered().await;
    let fleet = Fleet::of(&redis);
    let [one, other] = fleet.nodes(&origin).await;
    for path in ["/a", "/b"] {
        one.get(path).await.assert_ok("0");
    }
    wrote(&one, 2).await;
    // The node that is asked has never seen the URL itself.
    post(&other, "/a").await;
    other.get("/a").await.assert_ok("2").assert_forwarded("uri-miss");
    wrote(&other, 1).await;
    let third = fleet.node(&origin).await;
    third.get("/a").await.assert_ok("2").assert_from_redis();
    third.get("/b").await.assert_ok("0").assert_from_redis();
}

#[tokio::test]
async fn an_unsafe_request_removes_variants_that_others_have_stored() {
    let redis = redis::server().run().await;
    let coloured = |seen: &Seen, nth: usize| match (seen.method.as_str(), seen.header("x-color")) {
        ("GET", Some(colour)) => reply(format!("{colour} {nth}")).max_age(600).header("vary", "x-color"),
        _ => reply("").status(204),
    };
    let origin = origin::new().handler("/a", coloured).run().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    for (nth, colour) in ["red", "blue"].into_iter().enumerate() {
        get_with(&one, "/a", "x-color", colour).await.assert_ok(&format!("{colour} {nth}"));
        wrote(&one, nth as u64 + 1).await;
    }
    post(&other, "/a").await;
    for (nth, colour) in ["red", "blue"].into_iter().enumerate() {
        get_with(&other, "/a", "x-color", colour).await.assert_ok(&format!("{colour} {}", nth + 3));
    }
}

#[tokio::test]
async fn a_fill_that_began_before_an_unsafe_request_brings_nothing_back() {
    let redis = redis::server().run().await;
    let gate = Gate::new();
    let slow = {
        let gate = gate.clone();
        move |seen: &Seen, nth: usize| match (seen.method.as_str(), nth) {
            ("GET", 0) => reply("old").max_age(600).gate(&gate),
            ("GET", _) => reply("new").max_age(600),
            _ => reply("").status(204),
        }
    };
    let origin = origin::new().handler("/a", slow).run().await;
    // What the fleet's log tells it would have the fill come to nothing earlier.
    let fleet = Fleet::of(&redis).config("[cache]\nunsafe_invalidates = 'node'");
    let [one, other] = fleet.nodes(&origin).await;
    let filling = one.get("/a");
    let director = async {
        gate.arrived(1).await;
        // On a node that knows nothing of the fill.
        post(&other, "/a").await;
        gate.open();
    };
    let (old, ()) = tokio::join!(filling, director);
    old.assert_ok("old");
    eventually("a write that is refused", || async {
        (l2_metric(&one, "writes", "fenced").await >= 1.0).then_some(())
    })
    .await;
    other.get("/a").await.assert_ok("new").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn what_is_not_storable_any_more_leaves() {
    let redis = redis::server().run().await;
    let stale = reply("old").max_age(1).header("etag", "\"1\"");
    let origin = origin::new().route("/a", [stale, reply("mine").cache_control("no-store")]).run().await;
    let fleet = Fleet::of(&redis);
    let one = fleet.node(&origin).await;
    let first = one.get("/a").await;
    wrote(&one, 1).await;
    outlive(first.end_at, Duration::from_secs(1)).await;
    one.get("/a").await.assert_ok("mine");
    eventually("nothing stored", async || redis.cli(&["keys", "*:e"]).is_empty().then_some(())).await;
    fleet.node(&origin).await.get("/a").await.assert_ok("mine").assert_forwarded("uri-miss");
    assert_eq!(origin.last("/a").header("if-none-match"), None);
}

#[tokio::test]
async fn written_through_is_there_before_the_client_has_it() {
    let redis = redis::server().run().await;
    let origin = numbered().await;
    let [mut one, other] = Fleet::of(&redis).config("[cache]\nl2 = 'write-through'").nodes(&origin).await;
    one.get("/a").await.assert_ok("0");
    one.kill9().await;
    other.get("/a").await.assert_ok("0").assert_from_redis();
}

#[tokio::test]
async fn a_route_may_keep_off_it() {
    let redis = redis::server().run().await;
    let origin = numbered().await;
    let route = |name: &str, path: &str, l2: &str| {
        let url = origin.url();
        format!("[[route]]\nname = '{name}'\npath = '{path}'\nupstream = '{url}'\ncache = {{ l2 = '{l2}' }}\n")
    };
    let routes = format!("{}{}", route("one", "/a", "off"), route("rest", "/", "write-through"));
    let fleet = Fleet::of(&redis).config(&routes);
    let (one, other) = (fleet.describe().run().await, fleet.describe().run().await);
    is_up(&one).await;
    is_up(&other).await;
    for path in ["/a", "/b"] {
        one.get(path).await.assert_ok("0");
    }
    other.get("/a").await.assert_ok("1").assert_forwarded("uri-miss");
    other.get("/b").await.assert_ok("0").assert_from_redis();
}

#[tokio::test]
async fn what_is_too_large_is_not_stored_and_keeps_nobody_waiting() {
    let redis = redis::server().run().await;
    let gate = Gate::new();
    let large = reply(pattern(200_000)).max_age(600);
    let growing = reply(pattern(100_000)).max_age(600).chunk(pattern(100_000)).gate(&gate).chunk("end");
    let origin = origin::new().route("/a", large).route("/growing", growing).run().await;
    let [one, other] = Fleet::of(&redis).l2("object_bytes_max = '100KB'").nodes(&origin).await;
    for node in [&one, &other] {
        let response = node.get("/a").await;
        assert!(response.assert_forwarded("uri-miss").body == pattern(200_000));
    }
    // It is too large before it has come to its end: who waits learns that at once.
    let both = async { tokio::join!(one.get("/growing"), other.get("/growing")) };
    let director = async {
        origin.arrived("/growing", 2).await;
        gate.open();
    };
    let ((first, second), ()) = tokio::join!(both, director);
    assert!(first.body.len() == 200_003 && second.body.len() == 200_003);
    assert_eq!(redis.cli(&["keys", "*:e"]), "");
}

#[tokio::test]
async fn values_of_every_size_come_back() {
    let redis = redis::server().run().await;
    let mut origin = origin::new();
    let sizes = [0, 1, 1000, 60_000, 70_000, 1 << 20];
    for size in sizes {
        let text = reply(pattern(size)).max_age(600).header("content-type", "text/plain");
        origin = origin.route(&format!("/text/{size}"), text);
        origin = origin.route(&format!("/{size}"), reply(pattern(size)).max_age(600));
    }
    let origin = origin.run().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    let paths: Vec<_> = sizes.iter().flat_map(|size| [format!("/text/{size}"), format!("/{size}")]).collect();
    for path in &paths {
        one.get(path).await.assert_forwarded("uri-miss");
    }
    wrote(&one, paths.len() as u64).await;
    for (nth, path) in paths.iter().enumerate() {
        let response = other.get(path).await;
        assert!(response.assert_from_redis().body == pattern(sizes[nth / 2]), "{path}");
    }
    let saved = one.metric("larder_l2_compressed_in_bytes_total").await;
    assert!(saved > one.metric("larder_l2_compressed_out_bytes_total").await && saved > 1_000_000.0);
}

#[tokio::test]
async fn without_redis_it_serves_and_picks_it_up_when_it_comes() {
    let redis = redis::server().run().await;
    redis.kill9();
    let origin = numbered().await;
    let fleet = Fleet::of(&redis);
    let (one, other) = (fleet.describe().origin(&origin).run().await, fleet.describe().origin(&origin).run().await);
    one.get("/a").await.assert_ok("0").assert_forwarded("uri-miss");
    one.get("/a").await.assert_ok("0").assert_hit();
    post(&one, "/a").await;
    one.get("/a").await.assert_ok("2").assert_forwarded("uri-miss");
    assert_eq!(one.admin_json("/stats").await["l2"]["up"], false);
    redis.start_again().await;
    is_up(&one).await;
    is_up(&other).await;
    one.get("/b").await.assert_ok("0");
    wrote(&one, 1).await;
    other.get("/b").await.assert_ok("0").assert_from_redis();
    let complaints = one.output().lines().filter(|line| line.contains("unreachable")).count();
    assert_eq!(complaints, 1, "{}", one.output());
}

#[tokio::test]
async fn when_redis_ends_no_client_notices() {
    let redis = redis::server().run().await;
    let origin = numbered().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    one.get("/a").await.assert_ok("0");
    wrote(&one, 1).await;
    redis.kill9();
    for node in [&one, &other] {
        for _ in 0..50 {
            assert_eq!(node.get("/a").await.status, 200);
            assert_eq!(get_with(node, "/b", "cache-control", "no-cache").await.status, 200);
            assert_eq!(node.get("/c").await.status, 200);
        }
        post(node, "/b").await;
        node.get("/b").await.assert_forwarded("uri-miss");
    }
    assert!(one.output().lines().count() < 500, "a storm of lines");
    // It has forgotten everything meanwhile.
    redis.start_again().await;
    for node in [&one, &other] {
        is_up(node).await;
    }
    post(&one, "/c").await;
    let newest = one.get("/c").await;
    wrote(&one, 2).await;
    post(&other, "/a").await;
    assert_eq!(newest.status, 200);
}

#[tokio::test]
async fn a_redis_that_hangs_costs_its_deadline_and_then_nothing() {
    let redis = redis::server().run().await;
    let mut origin = origin::new();
    for nth in 0..60 {
        origin = origin.route(&format!("/{nth}"), reply("hello").max_age(600));
    }
    let origin = origin.run().await;
    let fleet = Fleet { l2: "read_timeout = '100ms'\n".to_owned(), ..Fleet::of(&redis) };
    let node = fleet.node(&origin).await;
    redis.pause();
    let mut slow = 0;
    for nth in 0..60 {
        let response = node.get(&format!("/{nth}")).await;
        let took = response.end_at.duration_since(response.sent);
        response.assert_ok("hello");
        slow += usize::from(took >= Duration::from_millis(100));
    }
    // Five until the breaker opens; a probe now and then, for which no request waits.
    assert!((1..20).contains(&slow), "{slow} requests waited");
    assert!(node.metric("larder_l2_errors_total{kind=\"timeout\"}").await >= 1.0);
    assert!(node.metric("larder_l2_errors_total{kind=\"open\"}").await >= 1.0);
    redis.resume();
    is_up(&node).await;
}

#[tokio::test]
async fn the_same_over_a_cluster() {
    let redis = redis::cluster().run().await;
    let mut origin = origin::new();
    let coloured = |seen: &Seen, nth: usize| match seen.method.as_str() {
        "GET" => {
            reply(format!("{} {nth}", seen.header("x-color").unwrap_or("none"))).max_age(600).header("vary", "x-color")
        }
        _ => reply("").status(204),
    };
    let paths: Vec<_> = (0..30).map(|nth| format!("/{nth}")).collect();
    for path in &paths {
        origin = origin.route(path, reply(path.clone()).max_age(600));
    }
    let origin = origin.handler("/varies", coloured).run().await;
    let [one, other] = Fleet::over(redis.urls()).nodes(&origin).await;
    for path in &paths {
        one.get(path).await.assert_ok(path);
    }
    wrote(&one, paths.len() as u64).await;
    for path in &paths {
        other.get(path).await.assert_ok(path).assert_from_redis();
    }
    get_with(&one, "/varies", "x-color", "red").await.assert_ok("red 0");
    wrote(&one, paths.len() as u64 + 1).await;
    get_with(&other, "/varies", "x-color", "blue").await.assert_ok("blue 1");
    wrote(&other, 1).await;
    get_with(&one, "/varies", "x-color", "blue").await.assert_ok("blue 1").assert_from_redis();
    get_with(&other, "/varies", "x-color", "red").await.assert_ok("red 0").assert_from_redis();
    post(&one, "/varies").await;
    get_with(&one, "/varies", "x-color", "red").await.assert_ok("red 3");
    for node in [&one, &other] {
        assert_eq!(node.metric("larder_l2_errors_total{kind=\"server\"}").await, 0.0);
    }
}

#[tokio::test]
async fn who_has_redis_alone_reads_nothing_that_is_enciphered() {
    let redis = redis::server().run().await;
    let body = "confidential ".repeat(500);
    let plain = reply(body.clone()).max_age(600).header("content-type", "text/plain");
    let coloured = reply("confidential").max_age(600).header("vary", "x-color");
    let origin = origin::new().route("/hidden/place", plain).route("/hidden/varies", coloured).run().await;
    let [one, other] = Fleet::of(&redis).l2("encrypt = true").nodes(&origin).await;
    one.get("/hidden/place").await.assert_ok(&body);
    get_with(&one, "/hidden/varies", "x-color", "red").await.assert_ok("confidential");
    wrote(&one, 2).await;
    other.get("/hidden/place").await.assert_ok(&body).assert_from_redis();
    get_with(&other, "/hidden/varies", "x-color", "red").await.assert_ok("confidential").assert_from_redis();
    let explained = other.admin("GET", &format!("/explain?url={}", one.url("/hidden/place"))).send().await.json();
    let key = explained["key"].as_str().expect("a key").to_owned();
    let names = names(&redis);
    assert_eq!(names.len(), 3, "{names:?}");
    for name in &names {
        let value = if name.ends_with(":v") { redis.cli(&["hgetall", name]) } else { redis.cli(&["get", name]) };
        assert!(value.len() > 50, "{name}");
        for word in ["confidential", "hidden", "text/plain", "x-color", &key] {
            assert!(!value.contains(word) && !name.contains(word), "{word} in {name}");
        }
    }
    // Another deployment, with another secret, finds nothing and harms nothing.
    let stranger = Fleet::of(&redis).l2("encrypt = true");
    std::fs::write(stranger.secret.path().join("secret"), [8; 32]).expect("a temporary directory");
    let stranger = stranger.node(&origin).await;
    stranger.get("/hidden/place").await.assert_ok(&body).assert_forwarded("uri-miss");
}

#[tokio::test]
async fn namespaces_share_nothing() {
    let redis = redis::server().run().await;
    let origin = numbered().await;
    let fleet = Fleet::of(&redis);
    let one = fleet.node(&origin).await;
    one.get("/a").await.assert_ok("0");
    wrote(&one, 1).await;
    let elsewhere = Fleet { secret: fleet.secret, ..Fleet::of(&redis) }.l2("namespace = 'elsewhere'");
    elsewhere.node(&origin).await.get("/a").await.assert_ok("1").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn an_explanation_tells_of_it() {
    let redis = redis::server().run().await;
    let origin = numbered().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    let explain = async || {
        let response = other.admin("GET", &format!("/explain?url={}", other.url("/a"))).send().await;
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    };
    assert_eq!(explain().await["l2"], serde_json::Value::Null);
    one.get("/a").await.assert_ok("0");
    wrote(&one, 1).await;
    let explained = explain().await;
    assert_eq!((&explained["l1"], &explained["l2"]["tier"]), (&serde_json::Value::Null, &"L2".into()), "{explained}");
    assert_eq!(explained["verdict"], "hit: a fresh response is stored in L2");
    // To ask is not to take it.
    other.get("/a").await.assert_ok("0").assert_from_redis();
}

#[tokio::test]
async fn damage_in_redis_is_a_miss_and_goes() {
    let redis = redis::server().run().await;
    let origin = numbered().await;
    let fleet = Fleet::of(&redis);
    let one = fleet.node(&origin).await;
    one.get("/a").await.assert_ok("0");
    wrote(&one, 1).await;
    let name = redis.cli(&["keys", "*:e"]);
    for (at, damage) in [("60", "damage"), ("4", "\\x09"), ("0", "another thing altogether")] {
        redis.cli(&["setrange", &name, at, damage]);
        let node = fleet.node(&origin).await;
        let response = node.get("/a").await;
        response.assert_forwarded("uri-miss");
        wrote(&node, 1).await;
        fleet.node(&origin).await.get("/a").await.assert_ok(response.text()).assert_from_redis();
    }
}

#[tokio::test]
async fn with_a_password_from_a_file_by_flag() {
    let redis = redis::server().argument("--requirepass geheim").run().await;
    let origin = numbered().await;
    let fleet = Fleet { urls: Vec::new(), ..Fleet::of(&redis) };
    let file = fleet.secret.path().join("password");
    std::fs::write(&file, "geheim\n").expect("a temporary directory");
    let fleet = fleet.l2(&format!("password_file = {file:?}"));
    let node = async || {
        let node = fleet.describe().origin(&origin).argument("--redis").argument(redis.url()).run().await;
        is_up(&node).await;
        node
    };
    let (one, other) = (node().await, node().await);
    one.get("/a").await.assert_ok("0");
    wrote(&one, 1).await;
    other.get("/a").await.assert_ok("0").assert_from_redis();
}

#[tokio::test]
async fn as_a_user_who_may_do_little() {
    let users =
        "user default on nopass ~* &* +@all\nuser larder on >geheim ~larder:* +@all -@admin -@dangerous +info +role";
    let redis = redis::server().aclfile(users).run().await;
    let origin = numbered().await;
    let [one, other] = Fleet::over(vec![redis.url_as("larder", "geheim")]).nodes(&origin).await;
    one.get("/a").await.assert_ok("0");
    wrote(&one, 1).await;
    other.get("/a").await.assert_ok("0").assert_from_redis();
    post(&other, "/a").await;
    other.get("/a").await.assert_ok("2").assert_forwarded("uri-miss");
    for node in [&one, &other] {
        assert_eq!(node.metric("larder_l2_errors_total{kind=\"server\"}").await, 0.0);
    }
}

#[tokio::test]
async fn passwords_are_not_shown() {
    let origin = numbered().await;
    let node = gateway::new()
        .origin(&origin)
        .config("[l2]\nurl = 'redis://me:geheim@127.0.0.1:1'\npassword = 'geheim too'")
        .run()
        .await;
    node.get("/a").await.assert_ok("0");
    assert!(!node.output().contains("geheim"), "{}", node.output());
    let refused = gateway::new().config("[l2]\nurl = 'http://me:geheim@127.0.0.1'").refuse().await;
    assert!(refused.output.contains("l2.url") && !refused.output.contains("geheim"), "{}", refused.output);
}

#[tokio::test]
async fn what_a_node_has_purged_it_does_not_take_from_there() {
    let redis = redis::server().run().await;
    let origin = numbered().await;
    let [one, other] = Fleet::of(&redis).nodes(&origin).await;
    one.get("/a").await.assert_ok("0");
    wrote(&one, 1).await;
    one.purge_path("/a").await;
    one.get("/a").await.assert_ok("1").assert_forwarded("uri-miss");
    wrote(&one, 2).await;
    other.get("/a").await.assert_ok("1").assert_from_redis();
}

#[tokio::test]
async fn nobody_waits_for_a_fill_that_a_purge_has_overtaken() {
    let redis = redis::server().run().await;
    let gate = Gate::new();
    let origin = origin::new().route("/a", [reply("old").max_age(600).hold(&gate), reply("new").max_age(600)]).run();
    let origin = origin.await;
    let one = Fleet::of(&redis).l2("follow_max = '1h'").node(&origin).await;
    let old = one.get("/a");
    let director = async {
        gate.arrived(1).await;
        one.purge_path("/a").await;
        one.get("/a").await.assert_ok("new").assert_forwarded("uri-miss");
        gate.open();
    };
    let (old, ()) = tokio::join!(old, director);
    old.assert_ok("old");
    one.get("/a").await.assert_ok("new").assert_hit();
}

#[tokio::test]
async fn an_unsafe_request_knows_of_keys_that_other_nodes_have_made() {
    let redis = redis::server().run().await;
    let origin = numbered().await;
    let [one, other] = Fleet::of(&redis).config("[cache]\nkey_headers = ['x-tenant']").nodes(&origin).await;
    get_with(&one, "/a", "x-tenant", "somebody").await.assert_ok("0");
    wrote(&one, 1).await;
    let position = async || other.admin_json("/stats").await["purge"]["position"].as_u64().expect("a number");
    let before = position().await;
    post(&other, "/b").await;
    assert_eq!(position().await, before, "of this URL nothing is stored anywhere");
    post(&other, "/a").await;
    assert_eq!(position().await, before + 1, "its URL is purged, since its keys cannot be told");
}

fn models(origin: &Origin) -> String {
    let url = origin.url();
    format!("[[route]]\nname = 'models'\npath = '/models'\nstrip_path = true\nupstream = '{url}'\nprotocol = 'openai'")
}

async fn ask_model(node: &Gateway, path: &str, question: serde_json::Value) -> Response {
    let request = client::request("POST", node.url(&format!("/models/v1{path}"))).json(&question);
    request.header("authorization", "Bearer sk-1").send().await
}

#[tokio::test]
async fn calls_to_models_are_shared_as_well() {
    let redis = redis::server().run().await;
    let embedded = |seen: &Seen, _| {
        let asked: serde_json::Value = serde_json::from_slice(&seen.body).expect("JSON");
        let inputs = asked["input"].as_array().expect("a list").iter().enumerate();
        let length = |input: &serde_json::Value| input.as_str().map_or(0, str::len);
        let data: Vec<_> = inputs
            .map(|(nth, input)| json!({ "object": "embedding", "index": nth, "embedding": [length(input)] }))
            .collect();
        let usage = json!({ "prompt_tokens": 2, "total_tokens": 2 });
        let answer = json!({ "object": "list", "data": data, "model": "e", "usage": usage });
        reply(answer.to_string()).header("content-type", "application/json")
    };
    let answer = json!({
        "id": "chatcmpl-1",
        "model": "gpt-4o",
        "choices": [{ "message": { "content": "yes" }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 10, "completion_tokens": 1 },
    });
    let chat = reply(answer.to_string()).header("content-type", "application/json");
    let origin = origin::new().route("/v1/chat/completions", chat).handler("/v1/embeddings", embedded).run().await;
    let fleet = Fleet::of(&redis).config(&models(&origin));
    let (one, other) = (fleet.describe().run().await, fleet.describe().run().await);
    is_up(&one).await;
    is_up(&other).await;
    let question = json!({ "model": "gpt-4o", "temperature": 0, "messages": [{ "role": "user", "content": "well?" }] });
    assert_eq!(ask_model(&one, "/chat/completions", question.clone()).await.status, 200);
    wrote(&one, 1).await;
    let found = ask_model(&other, "/chat/completions", question).await;
    assert_eq!(found.assert_from_redis().json()["choices"][0]["message"]["content"], "yes");
    let inputs = |texts: &[&str]| json!({ "model": "e", "input": texts });
    ask_model(&one, "/embeddings", inputs(&["a", "bb"])).await.assert_forwarded("uri-miss");
    wrote(&one, 3).await;
    let joined = ask_model(&other, "/embeddings", inputs(&["bb", "ccc", "a"])).await.json();
    let lengths: Vec<_> = joined["data"].as_array().expect("a list").iter().map(|one| &one["embedding"][0]).collect();
    assert_eq!(lengths, [&json!(2), &json!(3), &json!(1)]);
    let sent: serde_json::Value = serde_json::from_slice(&origin.last("/v1/embeddings").body).expect("JSON");
    assert_eq!(sent["input"], json!(["ccc"]));
    assert_eq!((origin.requests("/v1/chat/completions"), origin.requests("/v1/embeddings")), (1, 2));
}
