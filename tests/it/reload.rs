//! A configuration that changes while the gateway runs: all of it or nothing, and no client notices.

use serde_json::{Value, json};

use crate::support::{
    client, command, eventually,
    gate::Gate,
    gateway::{self, Gateway},
    origin::{self, Origin, reply},
};

async fn origin_saying(text: &str) -> Origin {
    let body = text.to_owned();
    origin::new().route("/a", reply(body.clone()).max_age(600)).route("/b", reply(body).max_age(600)).run().await
}

/// A route that takes everything.
fn to(origin: &Origin, more: &str) -> String {
    format!("[[route]]\nname = 'all'\nupstream = '{}'\n{more}", origin.url())
}

async fn reload(gateway: &Gateway, query: &str) -> (u16, Value) {
    let answer = gateway.admin("POST", &format!("/reload{query}")).send().await;
    (answer.status, answer.json())
}

fn settings(answer: &Value) -> Vec<&str> {
    answer["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|change| change["setting"].as_str().expect("text"))
        .collect()
}

#[tokio::test]
async fn a_signal_has_it_taken_over_and_connections_and_entries_stay() {
    let (old, new) = (origin_saying("old").await, origin_saying("new").await);
    let gateway = gateway::new().config(to(&old, "")).run().await;
    let mut connection = client::connect(gateway.data()).await;
    connection.send(client::get(gateway.url("/a"))).await.assert_ok("old");
    gateway.configure(&to(&new, ""));
    gateway.signal("HUP");
    eventually("the reload", || async { gateway.output().contains("configuration reloaded").then_some(()) }).await;
    connection.send(client::get(gateway.url("/a"))).await.assert_ok("old").assert_hit();
    connection.send(client::get(gateway.url("/b"))).await.assert_ok("new").assert_forwarded("uri-miss");
    assert_eq!((old.requests("/a"), old.requests("/b")), (1, 0));
    assert_eq!(gateway.admin_json("/stats").await["requests"]["hit"], 1, "figures go on");
}

#[tokio::test]
async fn a_call_tells_what_has_changed_and_a_dry_run_what_would() {
    let origin = origin_saying("a").await;
    let gateway = gateway::new().config(to(&origin, "")).run().await;
    let (status, answer) = reload(&gateway, "").await;
    assert_eq!((status, settings(&answer).len()), (200, 0), "{answer}");
    let after = format!("[log]\nlevel = 'debug'\n{}", to(&origin, "[route.cache]\ndefault_ttl = '7s'\n"));
    gateway.configure(&after);
    for (query, dry_run) in [("?dry_run=true", true), ("", false)] {
        let (status, answer) = reload(&gateway, query).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(settings(&answer), ["log.level", "route.all.cache.default_ttl"]);
        assert_eq!(answer["changes"][0]["before"], "\"info\"");
        assert_eq!(answer["changes"][0]["after"], "\"debug\"");
        assert_eq!(answer["dry_run"], dry_run);
    }
    let (_, answer) = reload(&gateway, "").await;
    assert_eq!(settings(&answer).len(), 0, "it was taken over");
}

#[tokio::test]
async fn what_is_wrong_is_told_and_nothing_is_taken_over() {
    let (old, new) = (origin_saying("old").await, origin_saying("new").await);
    let gateway = gateway::new().config(to(&old, "")).run().await;
    gateway.configure(&format!("[cache]\nkeeep = '1h'\n{}", to(&new, "")));
    let (status, answer) = reload(&gateway, "").await;
    assert_eq!(status, 422);
    let detail = answer["detail"].as_str().expect("a text");
    assert!(detail.contains("larder.toml:2") && detail.contains("keeep") && detail.contains("keep"), "{detail}");
    gateway.get("/a").await.assert_ok("old");
    gateway.signal("HUP");
    eventually("word of it", || async { gateway.output().contains("configuration not reloaded").then_some(()) }).await;
    gateway.get("/b").await.assert_ok("old");
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_nothing_is_taken_over() {
    let (old, new) = (origin_saying("old").await, origin_saying("new").await);
    let gateway = gateway::new().config(to(&old, "")).run().await;
    gateway.configure(&format!("[l1]\nmax_bytes = '1MiB'\n{}", to(&new, "")));
    let (status, answer) = reload(&gateway, "").await;
    assert_eq!(status, 409);
    let detail = answer["detail"].as_str().expect("a text");
    assert!(detail.contains("`l1.max_bytes`") && !detail.contains("route"), "{detail}");
    gateway.get("/a").await.assert_ok("old");
}

#[tokio::test]
async fn a_stream_under_way_ends_by_the_rules_it_began_with() {
    let gate = Gate::new();
    let slow = origin::new().route("/a", reply("all of it").max_age(600).gate(&gate)).run().await;
    let other = origin_saying("new").await;
    let gateway = gateway::new().config(to(&slow, "")).run().await;
    let reading = gateway.get("/a");
    let director = async {
        gate.arrived(1).await;
        gateway.configure(&to(&other, ""));
        assert_eq!(reload(&gateway, "").await.0, 200);
        gateway.get("/b").await.assert_ok("new");
        gate.open();
    };
    let (read, ()) = tokio::join!(reading, director);
    read.assert_ok("all of it");
    gateway.get("/a").await.assert_ok("all of it").assert_hit();
}

#[tokio::test]
async fn tokens_change_with_it() {
    const FIRST: &str = "the-first-token-of-this-gateway";
    const SECOND: &str = "the-second-token-of-this-gateway";
    let origin = origin_saying("a").await;
    let tokens = |token: &str| format!("[[admin.tokens]]\nname = 'ci'\ntoken = '{token}'\nscope = 'operate'\n");
    let gateway = gateway::new().config(format!("{}{}", tokens(FIRST), to(&origin, ""))).run().await;
    let call = |method: &str, path: &str, token: &str| {
        client::request(method, gateway.admin_url(path)).header("authorization", &format!("Bearer {token}")).send()
    };
    gateway.configure(&format!("{}{}", tokens(SECOND), to(&origin, "")));
    let answer = call("POST", "/reload", FIRST).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.text().contains(FIRST) && !answer.text().contains(SECOND), "{}", answer.text());
    assert_eq!(call("GET", "/stats", FIRST).await.status, 401);
    assert_eq!(call("GET", "/stats", SECOND).await.status, 200);
}

#[tokio::test]
async fn from_the_command_line() {
    let origin = origin_saying("a").await;
    let gateway = gateway::new().config(to(&origin, "")).run().await;
    gateway.configure(&to(&origin, "[route.cache]\nkeep = '2h'\n"));
    let larder = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|&one| one.to_owned()).collect();
        let admin = gateway.admin_base();
        async move {
            let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
            all.extend(["--admin", &admin]);
            command::larder(&all).await
        }
    };
    let tried = larder(&["reload", "--dry-run"]).await;
    assert!(tried.stdout.contains("route.all.cache.keep: nothing -> \"2h\"\n1 settings would change"), "{tried:?}");
    assert_eq!(larder(&["reload"]).await.code, Some(0));
    gateway.configure("[listen]\nworkers = 7\n");
    let refused = larder(&["reload"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("`listen.workers`"), "{refused:?}");
    let shown = json!(gateway.admin_json("/stats").await);
    assert!(shown["uptime_seconds"].is_u64());
}
