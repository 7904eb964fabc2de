//! What backends write into the stream of changes is purged: once, on all nodes, whichever of them dies meanwhile.

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    eventually,
    gateway::{self, Gateway},
    origin::{self, Origin, reply},
    redis,
};

const STREAM: &str = "larder:{larder.changes}:stream";
const REJECTED: &str = "larder:{larder.changes}:rejected";

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
            "[l2]\nurl = {:?}\nread_timeout = '2s'\nwrite_timeout = '2s'\n[changes]\nclaim_after = '500ms'\nstream_max = 5\n",
            server.url()
        );
        Self { secret, config }
    }

    /// One that knows of all purges; `fleet` is more of its configuration.
    async fn node(&self, origin: &Origin, fleet: &str) -> Gateway {
        let secret = self.secret.path().join("secret");
        let config = format!("secret_file = {secret:?}\n{}[fleet]\nlease = '500ms'\n{fleet}", self.config);
        gateway::new().origin(origin).config(config).run().await
    }
}

async fn up_to_date(node: &Gateway) {
    eventually("the lease", || async { (node.admin_json("/nodes").await["fenced"] == false).then_some(()) }).await;
}

/// An origin whose answer to `/a` counts up, tagged `a`.
async fn counting() -> Origin {
    let version = |n: usize| reply(n.to_string()).max_age(3600).header("surrogate-key", "a");
    origin::new().handler("/a", move |_, n| version(n)).run().await
}

async fn served(node: &Gateway, wanted: &str) {
    eventually("what the origin says now", || async { (node.get("/a").await.text() == wanted).then_some(()) }).await;
}

/// No message waits for anybody.
async fn done_with(server: &redis::Server) {
    let pending = || server.cli(&["XPENDING", STREAM, "larder"]);
    eventually("all acknowledged", || async { pending().starts_with('0').then_some(()) }).await;
}

#[tokio::test]
async fn a_change_is_purged_once_and_by_all() {
    let server = redis::server().run().await;
    let (origin, deployment) = (counting().await, Nodes::over(&server));
    let nodes = [deployment.node(&origin, "").await, deployment.node(&origin, "").await];
    for node in &nodes {
        up_to_date(node).await;
        node.get("/a").await.assert_ok("0");
    }
    server.cli(&["XADD", STREAM, "*", "tags", "other, a"]);
    for node in &nodes {
        served(node, "1").await;
    }
    done_with(&server).await;
    // The same once more, as another message and by its own name for it: the same purge.
    for _ in 0..2 {
        server.cli(&["XADD", STREAM, "*", "json", r#"{"tags":["a"],"id":"deploy-7"}"#]);
    }
    for node in &nodes {
        served(node, "2").await;
    }
    let applied = || async {
        nodes[0].metric("larder_changes_applied_total").await + nodes[1].metric("larder_changes_applied_total").await
    };
    eventually("three messages", || async { (applied().await >= 3.0).then_some(()) }).await;
    assert!((applied().await - 3.0).abs() < 0.1, "one node a message");
    for node in &nodes {
        assert_eq!(node.admin_json("/stats").await["fleet"]["seq"], json!(2));
        node.get("/a").await.assert_ok("2");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_put_aside_with_the_reason() {
    let server = redis::server().run().await;
    let (origin, deployment) = (counting().await, Nodes::over(&server));
    let node = deployment.node(&origin, "").await;
    up_to_date(&node).await;
    node.get("/a").await.assert_ok("0");
    server.cli(&["XADD", STREAM, "*", "tag", "a"]);
    server.cli(&["XADD", STREAM, "*", "urls", "/a"]);
    server.cli(&["XADD", STREAM, "*", "hosts", "127.0.0.1", "all", "1"]);
    server.cli(&["XADD", STREAM, "*", "tags", "a"]);
    served(&node, "1").await;
    done_with(&server).await;
    assert!((node.metric("larder_changes_rejected_total").await - 3.0).abs() < 0.1);
    let kept = server.cli(&["XRANGE", REJECTED, "-", "+"]);
    for reason in ["`tag` is no field of a change", "`urls`: ", "`all` purges everything and stands alone"] {
        assert!(kept.contains(reason), "{reason}: {kept}");
    }
    assert_eq!(node.output().matches("was not understood").count(), 1, "one line a minute");
}

#[tokio::test]
async fn what_a_dead_consumer_held_is_taken_over() {
    let server = redis::server().run().await;
    let (origin, deployment) = (counting().await, Nodes::over(&server));
    server.cli(&["XGROUP", "CREATE", STREAM, "larder", "0", "MKSTREAM"]);
    server.cli(&["XADD", STREAM, "*", "tags", "a"]);
    let taken = server.cli(&["XREADGROUP", "GROUP", "larder", "ghost", "STREAMS", STREAM, ">"]);
    assert!(taken.contains("tags"), "{taken}");
    let node = deployment.node(&origin, "").await;
    up_to_date(&node).await;
    done_with(&server).await;
    eventually("the count", || async { (node.metric("larder_changes_applied_total").await > 0.5).then_some(()) }).await;
    assert_eq!(node.admin_json("/stats").await["fleet"]["seq"], json!(1));
    assert!((node.metric("larder_changes_claimed_total").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_node_that_is_killed_with_changes_in_hand_loses_none() {
    let server = redis::server().run().await;
    let (origin, deployment) = (counting().await, Nodes::over(&server));
    // There is no replica, so this one never gets a purge confirmed.
    let mut first = deployment.node(&origin, "replica = 'always'\nack_timeout = '1s'\n").await;
    server.cli(&["XADD", STREAM, "*", "tags", "a"]);
    eventually("a try", || async { (first.metric("larder_changes_retried_total").await > 0.5).then_some(()) }).await;
    let held = server.cli(&["XPENDING", STREAM, "larder"]);
    assert!(held.starts_with('1'), "{held}");
    first.kill9().await;
    let second = deployment.node(&origin, "").await;
    up_to_date(&second).await;
    done_with(&server).await;
    eventually("the count", || async { (second.metric("larder_changes_applied_total").await > 0.5).then_some(()) })
        .await;
    assert_eq!(second.admin_json("/stats").await["fleet"]["seq"], json!(1), "tried twice, it is one purge");
}

#[tokio::test]
async fn messages_that_are_done_with_leave_and_others_stay() {
    let server = redis::server().run().await;
    let (origin, deployment) = (counting().await, Nodes::over(&server));
    // Written before there was any gateway.
    for number in 0..20 {
        server.cli(&["XADD", STREAM, "*", "tags", &format!("tag-{number}")]);
    }
    let node = deployment.node(&origin, "").await;
    let applied = || async { node.metric("larder_changes_applied_total").await > 19.5 };
    eventually("all of them", || async { applied().await.then_some(()) }).await;
    let length = || server.cli(&["XLEN", STREAM]).trim().parse::<u32>().expect("a number");
    eventually("a short stream", || async { (length() <= 5).then_some(()) }).await;
    done_with(&server).await;
}
