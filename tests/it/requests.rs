//! The requests of a gateway, looked at and followed; what it has stored, listed and counted; the console's page.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{client, command::larder, eventually, gateway, origin, raw, within};

#[tokio::test]
async fn the_last_requests_are_told_newest_first() {
    let origin = origin::new().route("/a", "hello").max_age(60).route("/b", "there").run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a?token=S3CR3T").await;
    let told = |query: &'static str| {
        let gateway = &gateway;
        async move { targets(&gateway.admin_json(&format!("/requests{query}")).await) }
    };
    // From here on, plain hits count as well.
    assert_eq!(told("").await, ["/a?token=***"]);
    gateway.get("/a?token=S3CR3T").await;
    gateway.get("/b").await;
    eventually("three requests", || async { (told("").await.len() == 3).then_some(()) }).await;

    assert_eq!(told("?limit=1").await, ["/b"]);
    assert_eq!(told("?outcome=hit").await, ["/a?token=***"]);
    assert_eq!(told("?path=/a").await.len(), 2);
    assert_eq!(told("?path=/*&outcome=miss").await, ["/b", "/a?token=***"]);
    assert_eq!(told("?status=4xx").await, [""; 0]);
    let all = gateway.admin_json("/requests").await;
    assert_eq!(all["requests"][1]["detail"], "L1", "{all}");
    assert!(!all.to_string().contains("S3CR3T"));
    for wrong in ["?outcome=hits", "?status=6xx", "?limit=x", "?paths=/"] {
        let refused = gateway.admin("GET", &format!("/requests{wrong}")).send().await;
        assert_eq!(refused.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn requests_are_kept_without_an_access_log_and_not_at_all_where_none_are_wanted() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let quiet = gateway::new().origin(&origin).config("[log]\naccess = false").run().await;
    quiet.get("/a").await;
    assert_eq!(targets(&quiet.admin_json("/requests").await), ["/a"]);

    let none = gateway::new().origin(&origin).config("[log]\nrecent_max = 0").run().await;
    none.get("/a").await;
    assert_eq!(none.admin_json("/requests").await, json!({ "requests": [] }));
    assert_eq!(none.admin("GET", "/requests/stream").send().await.status, 429);
}

fn targets(told: &Value) -> Vec<String> {
    let requests = told["requests"].as_array().expect("a list");
    requests.iter().map(|one| one["target"].as_str().expect("a target").to_owned()).collect()
}

/// `larder tail`, under way.
struct Tail {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Tail {
    fn start(admin: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.arg("tail").args(arguments).args(["--admin", admin]).env_remove("LARDER_ADMIN_TOKEN");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary");
        let (output, (sender, lines)) = (child.stdout.take().expect("piped"), mpsc::unbounded_channel());
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        within("a line of `larder tail`", self.lines.recv()).await.expect("not the end")
    }

    /// As Ctrl-C ends it: its code, and what it said beside.
    async fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
        while within("`larder tail` to end", self.lines.recv()).await.is_some() {}
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        (self.child.wait().expect("a child").code(), said)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // Either fails only if the process has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends requests, no two alike, until `tail` shows one: there is no telling when it has begun to follow.
async fn first_line(tail: &mut Tail, gateway: &gateway::Gateway, path: &str) -> String {
    let asking = async {
        for turn in 0.. {
            gateway.get(&format!("{path}?{turn}")).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        line = tail.line() => line,
        () = asking => unreachable!("it asks for ever"),
    }
}

#[tokio::test]
async fn tail_shows_requests_as_they_end() {
    let origin = origin::new().route("/a", "hello").max_age(60).route("/b", "there").run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let mut json = Tail::start(&gateway.admin_base(), &["--json", "--path", "/a*"]);
    let mut misses = Tail::start(&gateway.admin_base(), &["--outcome", "miss", "--path", "/b"]);
    first_line(&mut json, &gateway, "/a").await;
    let line = first_line(&mut misses, &gateway, "/b").await;
    assert!(line.contains("miss") && line.contains("/b?"), "{line}");

    gateway.get("/a?marked").await;
    let marked = loop {
        let line: Value = serde_json::from_str(&json.line().await).expect("JSON");
        if line["target"] == "/a?marked" {
            break line;
        }
    };
    assert_eq!((&marked["outcome"], &marked["method"]), (&json!("miss"), &json!("GET")));
    assert_eq!(json.interrupt().await, (Some(0), String::new()));
    assert_eq!(misses.interrupt().await.0, Some(0));
}

#[tokio::test]
async fn tail_waits_for_a_gateway_that_has_gone() {
    let origin = origin::new().route("/a", "hello").run().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let builder = gateway::new().origin(&origin).argument("--admin").argument(free.to_string());
    let first = builder.clone().run().await;
    let mut tail = Tail::start(&first.admin_base(), &[]);
    first_line(&mut tail, &first, "/a").await;
    drop(first);
    let second = builder.run().await;
    // What the first one has answered may still come before.
    while !first_line(&mut tail, &second, "/again").await.contains("/again") {}
    let (code, said) = tail.interrupt().await;
    assert_eq!(code, Some(0));
    assert!(said.contains("has gone") && said.contains("is back"), "{said}");
}

const FOLLOW: &str = "GET /requests/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer secret\r\n\r\n";

/// Follows by a connection of its own; the head of the answer.
async fn follow(gateway: &gateway::Gateway) -> (raw::Conn, String) {
    let address = gateway.admin_base().trim_start_matches("http://").parse().expect("an address");
    let mut connection = raw::Conn::connect(address).await;
    connection.write(FOLLOW).await;
    let head = connection.head().await;
    (connection, head)
}

#[tokio::test]
async fn only_so_many_may_follow() {
    let origin = origin::new().run().await;
    let gateway = gateway::new().origin(&origin).token("secret").config("[log]\nstreams_max = 1").run().await;
    let refused = larder(["tail", "--admin", &gateway.admin_base()]).await;
    refused.assert(1, "token");
    let (following, head) = follow(&gateway).await;
    assert_eq!(raw::status(&head), 200, "{head}");
    larder(["tail", "--admin", &gateway.admin_base(), "--admin-token", "secret"]).await.assert(1, "log.streams_max");
    drop(following);
    eventually("room for another", || async { (raw::status(&follow(&gateway).await.1) == 200).then_some(()) }).await;
}

#[tokio::test]
async fn a_stream_ends_when_the_gateway_stops() {
    let origin = origin::new().run().await;
    let mut gateway = gateway::new().origin(&origin).run().await;
    let (mut following, head) = follow(&gateway).await;
    assert_eq!(raw::field(&head, "content-type"), Some("text/event-stream"), "{head}");
    gateway.terminate();
    let (events, _) = following.rest().await;
    let events = String::from_utf8(events).expect("text");
    assert!(events.contains(": requests from now on") && events.contains("event: end"), "{events}");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn entries_are_listed_by_hits_and_by_size() {
    let origin = origin::new()
        .route("/small", "x")
        .max_age(60)
        .route("/large", origin::reply("y".repeat(5000)))
        .max_age(60)
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/large?key=S3CR3T").await;
    for _ in 0..4 {
        gateway.get("/small").await;
    }
    let hits = gateway.admin_json("/entries").await;
    let first = &hits["entries"][0];
    assert!(first["url"].as_str().is_some_and(|url| url.ends_with("/small")), "{hits}");
    assert_eq!((&first["hits"], &first["bytes"], &first["tiers"]), (&json!(3), &json!(1), &json!(["L1"])));
    assert_eq!(hits["complete"], true);
    let sizes = gateway.admin_json("/entries?by=size&limit=1").await;
    assert_eq!(sizes["entries"].as_array().map(Vec::len), Some(1));
    let largest = &sizes["entries"][0];
    assert!(largest["url"].as_str().is_some_and(|url| url.ends_with("/large?key=***")), "{sizes}");
    gateway.purge(json!({ "keys": [largest["key"]] })).await;
    let left = gateway.admin_json("/entries?by=size").await;
    assert_eq!(left["entries"].as_array().map(Vec::len), Some(1), "what is purged is not shown: {left}");
    assert_eq!(gateway.admin("GET", "/entries?by=age").send().await.status, 400);
}

#[tokio::test]
async fn entries_of_the_disk_are_listed_and_counted() {
    let origin = origin::new().route("/a", origin::reply("x".repeat(3000))).max_age(600).run().await;
    let gateway = gateway::new().origin(&origin).config("[l3]\nadmission = 'all'\npreload_max = 0").run().await;
    gateway.get("/a").await;
    let listed = eventually("an entry in both tiers", || async {
        let entries = gateway.admin_json("/entries").await;
        (entries["entries"][0]["tiers"] == json!(["L1", "L3"])).then_some(entries)
    })
    .await;
    assert_eq!(listed["entries"].as_array().map(Vec::len), Some(1));
    let counted = eventually("the count to be exact", || async {
        let counted = gateway.purge(json!({ "all": true, "dry_run": true })).await;
        (counted["at_least"] == false).then_some(counted)
    })
    .await;
    assert_eq!((&counted["entries"], &counted["l1"], &counted["l3"]), (&json!(1), &json!(1), &json!(1)), "{counted}");
}

#[tokio::test]
async fn a_dry_run_counts_and_purges_nothing() {
    let origin = origin::new().route("/a/1", "x").max_age(60).route("/a/2", "y").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a/1").await;
    gateway.get("/a/2").await;
    let dry = |mut call: Value| {
        call["dry_run"] = json!(true);
        gateway.purge(call)
    };
    let exact = |entries: u64| json!({ "dry_run": true, "scopes": 1, "entries": entries, "l1": entries, "l3": 0, "at_least": false });
    let counted = eventually("both to be stored", || async {
        let counted = dry(json!({ "prefixes": [gateway.url("/a")] })).await;
        (counted["entries"] == 2 && counted["at_least"] == false).then_some(counted)
    })
    .await;
    assert_eq!(counted, exact(2));
    assert_eq!(dry(json!({ "urls": [gateway.url("/a/1")] })).await, exact(1));
    assert_eq!(dry(json!({ "tags": ["none"] })).await, exact(0));
    larder(["purge", "--admin", &gateway.admin_base(), "--dry-run", "--all"]).await.assert(0, "would purge 2 entries");
    gateway.get("/a/1").await;
    gateway.get("/a/2").await;
    assert_eq!((origin.requests("/a/1"), origin.requests("/a/2")), (1, 1), "nothing was purged");
    gateway.purge(json!({ "all": true })).await;
    eventually("what is purged to be counted no more", || async {
        (dry(json!({ "all": true })).await == exact(0)).then_some(())
    })
    .await;
    let position = gateway.admin_json("/stats").await["purge"]["position"].clone();
    dry(json!({ "all": true })).await;
    assert_eq!(gateway.admin_json("/stats").await["purge"]["position"], position);
}

#[tokio::test]
async fn top_shows_an_interval() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await;
    gateway.get("/a").await;
    let admin = gateway.admin_base();
    let ran = larder(["top", "--once", "--interval", "50ms", "--admin", &admin]).await;
    ran.assert(0, "50.0 % since the start");
    assert!(ran.stdout.contains("ROUTE") && !ran.stdout.contains('\x1b'), "{ran:?}");
    let stats = larder(["stats", "--json", "--admin", &admin]).await.json();
    assert_eq!((&stats["tier_hits"]["l1"], &stats["routes"][0]["requests"]["hit"]), (&json!(1), &json!(1)), "{stats}");
}

#[tokio::test]
async fn the_console_is_one_page_that_may_do_little() {
    let origin = origin::new().run().await;
    let gateway = gateway::new().origin(&origin).token("a-token-of-some-length").run().await;
    let page = client::get(gateway.admin_url("/console")).send().await;
    assert_eq!(page.status, 200, "the page itself needs no token");
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    assert!(!page.text().contains("a-token-of-some-length"));
    assert!(client::get(gateway.admin_url("/")).send().await.text().contains("/console"));
}
