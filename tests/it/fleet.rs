//! Several nodes over one Redis: what one purges, none serves, through pauses, partitions and the loss of Redis.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{
    client,
    command::larder,
    eventually,
    gate::Gate,
    gateway::{self, Gateway},
    origin::{self, Origin, Seen, reply},
    redis,
};

/// Long enough for a busy machine to keep it.
const LEASE: Duration = Duration::from_millis(1500);

/// Nodes of one deployment: they share a secret and Redis.
struct Nodes {
    secret: TempDir,
    config: String,
}

impl Nodes {
    fn over(server: &redis::Server) -> Self {
        let secret = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(secret.path().join("secret"), [7; 32]).expect("writable");
        // A busy machine may be slow, and that is not what these are about.
        let config = format!(
            "[l2]\nurl = {:?}\nread_timeout = '2s'\nwrite_timeout = '2s'\n[fleet]\nlease = '{}ms'\nack_timeout = '10s'\nconfirm_timeout = '5s'\n",
            server.url(),
            LEASE.as_millis()
        );
        Self { secret, config }
    }

    fn describe(&self, origin: &Origin) -> gateway::Builder {
        let secret = self.secret.path().join("secret");
        gateway::new().origin(origin).config(format!("secret_file = {secret:?}\n{}", self.config))
    }

    /// One that knows of all purges.
    async fn node(&self, origin: &Origin) -> Gateway {
        let node = self.describe(origin).run().await;
        up_to_date(&node).await;
        node
    }

    /// Some that know each other.
    async fn nodes<const N: usize>(&self, origin: &Origin) -> [Gateway; N] {
        let nodes = join_all((0..N).map(|_| self.node(origin))).await;
        for node in &nodes {
            eventually("all nodes", || async {
                let fleet = node.admin_json("/nodes").await;
                (fleet["nodes"].as_array().map(Vec::len) == Some(N)).then_some(())
            })
            .await;
        }
        nodes.try_into().unwrap_or_else(|_| panic!("as many as were asked for"))
    }
}

async fn fenced(node: &Gateway, fenced: bool) {
    eventually("the lease", || async { (node.admin_json("/nodes").await["fenced"] == fenced).then_some(()) }).await;
}

async fn up_to_date(node: &Gateway) {
    fenced(node, false).await;
}

/// An origin whose answer to `/a` counts up, tagged `a`, with a validator.
async fn counting() -> Origin {
    origin::new().handler("/a", |_, n| version(n)).run().await
}

fn version(n: usize) -> origin::Reply {
    reply(n.to_string()).max_age(3600).header("surrogate-key", "a").header("etag", &format!("\"{n}\""))
}

#[tokio::test]
async fn what_one_purges_none_serves() {
    let server = redis::server().run().await;
    let origin = counting().await;
    let nodes: [Gateway; 3] = Nodes::over(&server).nodes(&origin).await;
    for round in 0..10 {
        for node in &nodes {
            node.get("/a").await.assert_ok(&round.to_string());
        }
        let receipt = nodes[round % 3].purge(json!({"tags": ["a"], "ack": "fleet"})).await;
        assert_eq!((&receipt["fleet"]["nodes"], &receipt["fleet"]["gone"]), (&json!(2), &json!(0)), "{receipt}");
        assert_eq!(origin.requests("/a"), round + 1, "what one fetched all have");
    }
    let fleet = nodes[0].admin_json("/stats").await["fleet"].clone();
    assert_eq!((&fleet["epoch"], &fleet["seq"], &fleet["lag"]), (&json!(1), &json!(10), &json!(0)), "{fleet}");
}

#[tokio::test]
async fn a_purge_in_the_log_reaches_the_others_by_itself() {
    let server = redis::server().run().await;
    let origin = counting().await;
    let [a, b] = Nodes::over(&server).nodes(&origin).await;
    a.get("/a").await.assert_ok("0");
    b.get("/a").await.assert_ok("0");
    let receipt = a.purge(json!({"tags": ["a"], "soft": true})).await;
    assert_eq!((&receipt["ack"], &receipt["seq"]), (&json!("log"), &json!(1)));
    eventually("the other node", || async {
        let response = b.get("/a").await;
        (response.cache().fwd.as_deref() == Some("stale")).then_some(())
    })
    .await;
    // Said again, it is the same purge; on any node.
    let named = json!({"tags": ["a"], "id": "deploy-7"});
    assert_eq!(a.purge(named.clone()).await["seq"], b.purge(named).await["seq"]);
}

#[tokio::test]
async fn a_fill_that_began_before_a_purge_is_nobodys() {
    let (server, gate) = (redis::server().run().await, Gate::new());
    let held = gate.clone();
    let answer = move |_: &Seen, n: usize| if n == 0 { version(n).hold(&held) } else { version(n) };
    let origin = origin::new().handler("/a", answer).run().await;
    let [a, b] = Nodes::over(&server).nodes(&origin).await;
    let early = tokio::spawn(client::get(a.url("/a")).send());
    gate.arrived(1).await;
    b.purge(json!({"tags": ["a"], "ack": "fleet"})).await;
    gate.open();
    early.await.expect("no panic").assert_ok("0");
    for node in [&a, &b] {
        let response = node.get("/a").await;
        assert_ne!(response.text(), "0", "{response:?}");
    }
}

#[tokio::test]
async fn what_is_fetched_while_others_are_told_of_a_change_is_no_stale_read() {
    let server = redis::server().run().await;
    let origin = counting().await;
    let [a, _b] = Nodes::over(&server).nodes(&origin).await;
    let paths: Vec<_> = (0..40).map(|n| format!("/a?{n}")).collect();
    let ask = async |path: &str, times: usize| {
        for _ in 0..times {
            assert_eq!(a.get(path).await.status, 200);
        }
    };
    // Some come between what a change removes here and what it tells the others.
    join_all(paths.iter().map(|path| async {
        tokio::join!(client::request("POST", a.url(path)).send(), ask(path, 20));
    }))
    .await;
    let looked_at = async || a.admin_json("/stats").await["fleet"]["audits"].as_u64().expect("a number");
    let before = looked_at().await;
    // Nothing is said against what is served earlier than that, by clocks that may differ by a second.
    tokio::time::sleep(LEASE + Duration::from_millis(1200)).await;
    join_all(paths.iter().map(|path| ask(path, 40))).await;
    eventually("hits that were looked at", || async { (looked_at().await > before + 10).then_some(()) }).await;
    assert_eq!(a.admin_json("/stats").await["fleet"]["stale_reads"], 0);
}

#[tokio::test]
async fn what_redis_holds_from_before_a_purge_is_not_taken() {
    let server = redis::server().run().await;
    let origin = counting().await;
    let deployment = Nodes::over(&server);
    let [a, b] = deployment.nodes(&origin).await;
    a.get("/a").await.assert_ok("0");
    eventually("the entry in Redis", || async { server.cli(&["KEYS", "*:e"]).contains(":e").then_some(()) }).await;
    b.purge(json!({"tags": ["a"]})).await;
    assert!(server.cli(&["KEYS", "*:e"]).contains(":e"), "it lies there still");
    // One that comes later has heard of the purge before it looks.
    deployment.node(&origin).await.get("/a").await.assert_ok("1");
    b.get("/a").await.assert_ok("1");
}

#[tokio::test]
async fn a_node_that_slept_serves_nothing_purged_meanwhile() {
    let server = redis::server().run().await;
    let origin = counting().await;
    let [a, b] = Nodes::over(&server).nodes(&origin).await;
    a.get("/a").await.assert_ok("0");
    b.get("/a").await.assert_ok("0");
    signal(&b, "STOP");
    let receipt = a.purge(json!({"tags": ["a"], "ack": "fleet"})).await;
    assert_eq!(receipt["fleet"]["gone"], 1, "waited for until its lease had run out: {receipt}");
    // Its clients have connected and sent while it slept: the kernel has taken that for it.
    let waiting: Vec<_> = (0..20).map(|_| tokio::spawn(client::get(b.url("/a")).send())).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    signal(&b, "CONT");
    for response in waiting {
        let response = response.await.expect("no panic");
        assert_ne!(response.text(), "0", "{response:?}");
    }
    up_to_date(&b).await;
    // What it fetched before it had heard of the purge counts as purged, too.
    assert_ne!(b.get("/a").await.text(), "0");
    b.get("/a").await.assert_hit();
}

fn signal(node: &Gateway, signal: &str) {
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -{signal} {}", node.pid())]).status();
    assert!(sent.expect("a shell").success());
}

#[tokio::test]
async fn cut_off_it_has_everything_confirmed() {
    let server = redis::server().run().await;
    let confirming = |seen: &Seen, n: usize| match seen.header("if-none-match") {
        Some("\"0\"") => reply("").status(304).header("etag", "\"0\""),
        _ => version(n),
    };
    let origin = origin::new().handler("/a", confirming).handler("/b", |_, n| version(n)).run().await;
    let node = Nodes::over(&server)
        .describe(&origin)
        .config("[[route]]\nname = 'feed'\npath = '/b'\ncache.coherence = 'ttl'")
        .config(format!("upstream = '{}'", origin.url()))
        .run()
        .await;
    up_to_date(&node).await;
    node.get("/a").await.assert_ok("0");
    node.get("/a").await.assert_hit();
    node.get("/b").await.assert_ok("0");
    server.pause();
    fenced(&node, true).await;
    let response = node.get("/a").await;
    assert_eq!((response.text(), origin.requests("/a")), ("0", 2), "confirmed, not used blindly: {response:?}");
    node.get("/b").await.assert_hit();
    let refused = node.admin("POST", "/purge").json(&json!({"tags": ["a"]})).send().await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("not acknowledged"), "{}", refused.text());
    server.resume();
    up_to_date(&node).await;
    // What was refused may hold all the same.
    eventually("a hit", || async { node.get("/a").await.cache().hit.then_some(()) }).await;
}

#[tokio::test]
async fn what_is_done_when_cut_off_is_the_routes_to_say() {
    let server = redis::server().run().await;
    let origin = origin::new().handler("/serve", |_, n| version(n)).handler("/bypass", |_, n| version(n)).run().await;
    let route = |name: &str| {
        let url = origin.url();
        format!(
            "[[route]]\nname = '{name}'\npath = '/{name}'\nupstream = '{url}'\ncache.fenced = '{name}'\ncache.fenced_max = '1h'\n"
        )
    };
    let node = Nodes::over(&server).describe(&origin).config(route("serve") + &route("bypass")).run().await;
    up_to_date(&node).await;
    for path in ["/serve", "/bypass"] {
        node.get(path).await.assert_ok("0");
        node.get(path).await.assert_hit();
    }
    server.pause();
    fenced(&node, true).await;
    node.get("/serve").await.assert_hit();
    node.get("/bypass").await.assert_ok("1").assert_forwarded("bypass");
    server.resume();
    up_to_date(&node).await;
    node.get("/bypass").await.assert_ok("0").assert_hit();
}

#[tokio::test]
async fn a_redis_that_is_gone_for_all_costs_no_hit() {
    let server = redis::server().run().await;
    let origin = counting().await;
    let [a, b] = Nodes::over(&server).nodes(&origin).await;
    a.get("/a").await.assert_ok("0");
    b.get("/a").await.assert_ok("0");
    server.kill9();
    let start = Instant::now();
    while start.elapsed() < 4 * LEASE {
        a.get("/a").await.assert_hit();
        b.get("/a").await.assert_hit();
    }
    assert_eq!(origin.requests("/a"), 1);
    let refused = a.admin("POST", "/purge").json(&json!({"tags": ["a"], "ack": "local"})).send().await;
    assert_eq!(refused.status, 202, "{}", refused.text());
    assert_eq!(refused.json()["fleet"]["queued"], true);
    a.get("/a").await.assert_ok("1");
    let complaints = |node: &Gateway| node.output().lines().filter(|line| line.contains("unreachable")).count();
    assert!(complaints(&a) <= 2 && complaints(&b) <= 2, "no storm:\n{}", a.output());
    server.start_again().await;
    eventually("the other node", || async { (b.get("/a").await.text() != "0").then_some(()) }).await;
}

#[tokio::test]
async fn started_without_redis_it_serves_and_joins_later() {
    let server = redis::server().run().await;
    let origin = counting().await;
    let deployment = Nodes::over(&server);
    server.kill9();
    let a = deployment.describe(&origin).run().await;
    a.get("/a").await.assert_ok("0");
    let hit = || async { Some(a.get("/a").await).filter(|response| response.cache().hit) };
    let before = eventually("a hit", hit).await;
    server.start_again().await;
    eventually("the log", || async { (a.admin_json("/nodes").await["epoch"] == 1).then_some(()) }).await;
    up_to_date(&a).await;
    let b = deployment.node(&origin).await;
    b.purge(json!({"tags": ["a"], "ack": "fleet"})).await;
    assert_ne!(a.get("/a").await.text(), before.text());
}

#[tokio::test]
async fn what_lies_on_the_disk_is_used_once_the_log_is_caught_up_with() {
    let server = redis::server().run().await;
    let origin = counting().await;
    let deployment = Nodes::over(&server);
    let describe = || deployment.describe(&origin).config("[l3]\nadmission = 'all'");
    let (mut a, b) = (describe().run().await, describe().run().await);
    up_to_date(&a).await;
    up_to_date(&b).await;
    a.get("/a").await.assert_ok("0");
    eventually("the disk", || async { (a.admin_json("/stats").await["l3"]["entries"] == 1).then_some(()) }).await;
    a.kill9().await;
    b.purge(json!({"tags": ["a"]})).await;
    server.cli(&["DEL", "nothing"]);
    let a = a.start_again().await;
    let response = a.get("/a").await;
    assert_eq!(response.text(), "1", "{response:?}");
}

#[tokio::test]
async fn a_strict_route_asks_first() {
    let server = redis::server().run().await;
    let origin = counting().await;
    let deployment = Nodes::over(&server);
    let describe = || deployment.describe(&origin).config("[cache]\ncoherence = 'strict'");
    let (a, b) = (describe().run().await, describe().run().await);
    up_to_date(&a).await;
    up_to_date(&b).await;
    for round in 0..20 {
        b.get("/a").await.assert_ok(&round.to_string());
        b.get("/a").await.assert_ok(&round.to_string()).assert_hit();
        a.purge(json!({"tags": ["a"], "ack": "log"})).await;
    }
    b.get("/a").await.assert_ok("20");
    server.pause();
    // Nobody can say whether it was purged: the origin is asked.
    b.get("/a").await.assert_ok("21");
    server.resume();
}

#[tokio::test]
async fn an_unsafe_request_is_obeyed_by_all() {
    let server = redis::server().run().await;
    let origin = origin::new()
        .handler("/a", |seen, n| if seen.method == "POST" { reply("done") } else { version(n) })
        .run()
        .await;
    let [a, b] = Nodes::over(&server).nodes(&origin).await;
    a.get("/a").await.assert_ok("0");
    b.get("/a").await.assert_ok("0");
    client::request("POST", a.url("/a")).body("new").send().await.assert_ok("done");
    eventually("the other node", || async { (b.get("/a").await.text() != "0").then_some(()) }).await;
    assert_ne!(a.get("/a").await.text(), "0");
    // Nothing of it comes back, from wherever.
    b.get("/a").await.assert_hit();
}

#[tokio::test]
async fn the_nodes_are_listed() {
    let server = redis::server().run().await;
    let origin = counting().await;
    let deployment = Nodes::over(&server);
    let alone = gateway::new().origin(&origin).run().await;
    assert_eq!(alone.admin("GET", "/nodes").send().await.status, 404);
    let a = deployment.describe(&origin).argument("--redis").argument(server.url()).run().await;
    let mut b = deployment.node(&origin).await;
    up_to_date(&a).await;
    b.purge(json!({"tags": ["x"], "ack": "fleet"})).await;
    let listed = || async { larder(["nodes", "--admin", &a.admin_base()]).await };
    let ran =
        eventually("both", || async { Some(listed().await).filter(|ran| ran.stdout.matches("live").count() == 2) });
    let ran = ran.await;
    ran.assert(0, "log 1-1, 0 behind");
    assert_eq!(ran.stdout.lines().filter(|line| line.starts_with("* ")).count(), 1, "{}", ran.stdout);
    b.stop().await;
    eventually("one has left", || async { (listed().await.stdout.matches("live").count() == 1).then_some(()) }).await;
    let purged = larder(["purge", "--tag", "a", "--ack", "fleet", "--admin", &a.admin_base()]).await;
    purged.assert(0, "applied on 0 other nodes, 0 gone");
}
