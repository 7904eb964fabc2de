//! What is stored goes into a file, and from there into another gateway, or back: with its variants, its age and its large
//! entries, and without what was purged.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, sync::LazyLock, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    client,
    client::Response,
    command::{Ran, larder},
    eventually, gateway,
    gateway::Gateway,
    origin,
    origin::{Origin, Seen, reply},
    pattern,
    raw::Conn,
    redis,
};

/// Everything storable is written to the disk; memory takes no more than some hundred KiB in one piece.
pub(crate) const SMALL: &str = "[l3]\nadmission = 'all'\npreload_max = 0\n[l1]\nmax_bytes = '4MiB'";

const LARGE: usize = 3 << 20;

/// The secret that gateways share here.
static SECRET: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("secret");
    std::fs::write(&file, [7; 32]).expect("writable");
    (directory, file)
});

pub(crate) fn describe(origin: &Origin, config: &str) -> gateway::Builder {
    gateway::new().origin(origin).config(format!("secret_file = {:?}\n{config}", SECRET.1))
}

/// Where archives go, and the commands that write and read them.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    pub(crate) async fn export(&self, gateway: &Gateway, name: &str, more: &[&str]) -> Ran {
        let (path, admin) = (self.path(name), gateway.admin_base());
        larder(["export", &path, "--admin", &admin].into_iter().chain(more.iter().copied())).await
    }

    pub(crate) async fn import(&self, gateway: &Gateway, name: &str, more: &[&str]) -> Ran {
        let (path, admin) = (self.path(name), gateway.admin_base());
        larder(["import", &path, "--admin", &admin].into_iter().chain(more.iter().copied())).await
    }

    /// The entries in a file.
    pub(crate) async fn list(&self, name: &str) -> Vec<Value> {
        let listed = larder(["export", "--list", &self.path(name)]).await;
        listed.assert(0, "");
        listed.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("a file")
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("writable");
    }
}

/// An origin whose `/a`, `/b` and `/c` answer with the number of the request and carry their name as a tag.
pub(crate) async fn numbered() -> Origin {
    let numbered = |tag: &'static str| {
        move |_: &Seen, nth: usize| {
            reply(nth.to_string()).max_age(600).header("cache-tag", tag).header("etag", &format!("\"{nth}\""))
        }
    };
    origin::new().handler("/a", numbered("a")).handler("/b", numbered("b")).handler("/c", numbered("c")).run().await
}

async fn fill(gateway: &Gateway) {
    for path in ["/a", "/b", "/c"] {
        gateway.get(path).await.assert_ok("0");
    }
}

async fn speaking(gateway: &Gateway, language: &str) -> Response {
    client::get(gateway.url("/v")).header("x-language", language).send().await
}

#[tokio::test]
async fn what_one_has_stored_another_answers_with() {
    let large = pattern(LARGE);
    let origin = origin::new()
        .route("/a", reply("hello").max_age(600).header("age", "100").header("x-kept", "1"))
        .handler("/v", |seen, _| {
            let language = seen.header("x-language").unwrap_or("none").to_owned();
            reply(language).max_age(600).header("vary", "x-language")
        })
        .route("/large", reply(large.clone()).max_age(600))
        .route(
            "/part",
            reply("cdef").status(206).max_age(600).header("content-range", "bytes 2-5/10").header("etag", "\"p\""),
        )
        .run()
        .await;
    let one = describe(&origin, SMALL).run().await;
    one.get("/a").await.assert_ok("hello");
    for language in ["de", "fr"] {
        speaking(&one, language).await.assert_ok(language);
    }
    // Its client has it before the disk has.
    eventually("the large one on the disk", || async {
        (one.get("/large").await.cache().detail.as_deref() == Some("L3")).then_some(())
    })
    .await;
    let part = |gateway: &Gateway| client::get(gateway.url("/part")).header("range", "bytes=2-5").send();
    assert_eq!(part(&one).await.status, 206);
    let requests = ["/a", "/v", "/large", "/part"].map(|path| origin.requests(path));

    let files = Files::new();
    files.export(&one, "all", &[]).await.assert(0, "5 entries");
    let mode = std::fs::metadata(files.path("all")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(files.list("all").await.len(), 5);

    let other = describe(&origin, SMALL).run().await;
    files.import(&other, "all", &["--foreign"]).await.assert(0, "imported: 5 entries");
    let hit = other.get("/a").await;
    hit.assert_ok("hello").assert_hit();
    assert_eq!(hit.header("x-kept"), Some("1"));
    assert!(hit.age().is_some_and(|age| (100..200).contains(&age)), "{:?}", hit.headers);
    for language in ["fr", "de"] {
        speaking(&other, language).await.assert_ok(language).assert_hit();
    }
    let whole = other.get("/large").await;
    assert_eq!(whole.assert_hit().cache().detail.as_deref(), Some("L3"));
    assert_eq!(whole.body, large);
    let range = client::get(other.url("/large")).header("range", "bytes=1000000-1000009").send().await;
    assert_eq!((range.status, &range.body[..]), (206, &large[1_000_000..1_000_010]));
    let found = part(&other).await;
    assert_eq!((found.status, found.assert_hit().text()), (206, "cdef"));
    assert_eq!(["/a", "/v", "/large", "/part"].map(|path| origin.requests(path)), requests, "nobody asked the origin");
    speaking(&other, "it").await.assert_ok("it").assert_forwarded("vary-miss");

    let other = other.restart().await;
    assert_eq!(other.get("/a").await.assert_ok("hello").assert_hit().cache().detail.as_deref(), Some("L3"));
    speaking(&other, "de").await.assert_ok("de").assert_hit();
}

#[tokio::test]
async fn answers_of_models_come_along() {
    const CALL: &str = r#"{"model":"gpt-4o","temperature":0,"messages":[{"role":"user","content":"hi"}]}"#;
    let answer = json!({
        "id": "chatcmpl-1",
        "choices": [{ "message": { "content": "hello" }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 10, "completion_tokens": 1 },
    });
    let answer = reply(answer.to_string()).header("content-type", "application/json");
    let origin = origin::new().route("/v1/chat/completions", answer).run().await;
    let config = format!(
        "secret_file = {:?}\n[[route]]\nname = 'openai'\npath = '/openai'\nstrip_path = true\nupstream = {:?}\n\
         protocol = 'openai'\n",
        SECRET.1,
        origin.url()
    );
    let ask = async |gateway: &Gateway| {
        let call = client::request("POST", gateway.url("/openai/v1/chat/completions")).body(CALL);
        call.header("content-type", "application/json").header("authorization", "Bearer sk-1").send().await
    };
    let one = gateway::new().config(&config).run().await;
    assert_eq!(ask(&one).await.status, 200);
    let files = Files::new();
    files.export(&one, "answers", &["--route", "openai"]).await.assert(0, "1 entries");
    let other = gateway::new().config(&config).run().await;
    files.import(&other, "answers", &["--foreign"]).await.assert(0, "imported: 1 entries");
    assert_eq!(ask(&other).await.assert_hit().json()["id"], "chatcmpl-1");
    assert_eq!(origin.requests("/v1/chat/completions"), 1);
}

#[tokio::test]
async fn what_was_purged_since_stays_out() {
    let origin = numbered().await;
    let gateway = describe(&origin, SMALL).run().await;
    fill(&gateway).await;
    let files = Files::new();
    gateway.purge(json!({ "tags": ["c"] })).await;
    files.export(&gateway, "two", &[]).await.assert(0, "2 entries");
    files.export(&gateway, "two", &[]).await.assert(0, "left out: 1 purged");
    // Through a restart: it is the same log, in its next run.
    let gateway = gateway.restart().await;
    gateway.purge(json!({ "tags": ["a"] })).await;
    gateway.admin("POST", "/disk/clear?wait=true").send().await;
    files.import(&gateway, "two", &[]).await.assert(0, "imported: 1 entries").assert(0, "1 purged since");
    gateway.get("/a").await.assert_ok("1").assert_forwarded("uri-miss");
    gateway.get("/b").await.assert_ok("0").assert_hit();
    // What came in can be purged like anything else.
    gateway.purge(json!({ "tags": ["b"] })).await;
    gateway.get("/b").await.assert_ok("1").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn a_soft_purge_leaves_an_entry_out() {
    let origin = numbered().await;
    let gateway = describe(&origin, "").run().await;
    fill(&gateway).await;
    let files = Files::new();
    files.export(&gateway, "all", &[]).await.assert(0, "3 entries");
    gateway.purge(json!({ "tags": ["a"], "soft": true })).await;
    files.export(&gateway, "less", &[]).await.assert(0, "2 entries");
    files.import(&gateway, "all", &["--dry-run"]).await.assert(0, "1 purged since").assert(0, "2 as new or newer");
}

#[tokio::test]
async fn without_a_common_log_the_caller_answers_for_purges() {
    let origin = numbered().await;
    let (one, other) = (describe(&origin, "").run().await, describe(&origin, "").run().await);
    fill(&one).await;
    let files = Files::new();
    files.export(&one, "all", &[]).await.assert(0, "3 entries");
    files.import(&other, "all", &[]).await.assert(1, "--foreign");
    other.get("/a").await.assert_ok("1").assert_forwarded("uri-miss");
    files.import(&other, "all", &["--foreign"]).await.assert(0, "imported: 2 entries").assert(0, "1 as new or newer");
    other.get("/a").await.assert_ok("1").assert_hit();
    other.get("/b").await.assert_ok("0").assert_hit();
    other.purge(json!({ "tags": ["b"] })).await;
    other.get("/b").await.assert_ok("1").assert_forwarded("uri-miss");
}

/// A log that begins anew is another one, whatever numbers it counts with.
#[tokio::test]
async fn a_log_that_was_lost_is_another_one() {
    let origin = numbered().await;
    let gateway = describe(&origin, "").run().await;
    fill(&gateway).await;
    let files = Files::new();
    files.export(&gateway, "all", &[]).await.assert(0, "3 entries");
    let gateway = gateway.restart_without("purge").await;
    files.import(&gateway, "all", &[]).await.assert(1, "what was purged there after the export is not known here");
}

#[tokio::test]
async fn nodes_of_a_fleet_have_their_purges_in_common() {
    let server = redis::server().run().await;
    let origin = numbered().await;
    let config = format!(
        "[cache]\nl2 = 'off'\n[l2]\nurl = {:?}\nread_timeout = '2s'\nwrite_timeout = '2s'\n[fleet]\nlease = '2s'\n\
         ack_timeout = '10s'\n",
        server.url()
    );
    let [one, other] = [describe(&origin, &config).run().await, describe(&origin, &config).run().await];
    for node in [&one, &other] {
        eventually("all nodes", || async {
            let fleet = node.admin_json("/nodes").await;
            (fleet["nodes"].as_array().map(Vec::len) == Some(2) && fleet["fenced"] == false).then_some(())
        })
        .await;
    }
    fill(&one).await;
    let files = Files::new();
    files.export(&one, "all", &[]).await.assert(0, "3 entries");
    one.purge(json!({ "tags": ["a"], "ack": "fleet" })).await;
    files.import(&other, "all", &[]).await.assert(0, "imported: 2 entries").assert(0, "1 purged since");
    other.get("/a").await.assert_ok("1").assert_forwarded("uri-miss");
    other.get("/b").await.assert_ok("0").assert_hit();
    one.purge(json!({ "tags": ["b"], "ack": "fleet" })).await;
    other.get("/b").await.assert_ok("1").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn another_secret_is_refused() {
    let origin = numbered().await;
    let (one, other) = (describe(&origin, "").run().await, gateway::new().origin(&origin).run().await);
    fill(&one).await;
    let files = Files::new();
    files.export(&one, "all", &[]).await.assert(0, "3 entries");
    files.import(&other, "all", &["--foreign"]).await.assert(1, "another secret").assert(1, "secret_file");
    // Who is refused early reads why, however much he still has to send.
    let mut long = files.read("all");
    long.resize(64 << 20, 0);
    files.write("long", &long);
    files.import(&other, "long", &["--foreign"]).await.assert(1, "another secret");
    files.write("page", b"<html>no archive at all</html>");
    files.import(&other, "page", &[]).await.assert(1, "no archive");
}

#[tokio::test]
async fn what_was_changed_or_cut_off_is_told() {
    let origin = numbered().await;
    let gateway = describe(&origin, "").run().await;
    fill(&gateway).await;
    let files = Files::new();
    files.export(&gateway, "all", &["--plain"]).await.assert(0, "3 entries");
    let whole = files.read("all");
    gateway.purge(json!({ "all": true })).await;
    let other = describe(&origin, "").run().await;
    // Into the last record, and into the last entry.
    files.write("cut", &whole[..whole.len() - 10]);
    files.import(&other, "cut", &["--foreign"]).await.assert(65, "imported: 3 entries").assert(65, "incomplete");
    larder(["export", "--list", &files.path("cut")]).await.assert(65, "incomplete");
    let other = describe(&origin, "").run().await;
    let mut changed = whole.clone();
    let at = whole.len() - 200;
    changed[at] ^= 1;
    files.write("changed", &changed);
    files.import(&other, "changed", &["--foreign"]).await.assert(65, "damaged after");
    for path in ["/a", "/b", "/c"] {
        let found = other.get(path).await;
        assert!(!found.cache().hit || found.text() == "0", "what is there is as it was");
    }
}

#[tokio::test]
async fn a_gateway_that_is_killed_has_whole_entries_or_none() {
    const ENTRIES: usize = 40;
    let body = |n: usize| pattern(LARGE / 2 + n);
    let origin = (0..ENTRIES).fold(origin::new(), |origin, n| {
        origin.route(&format!("/{n}"), reply(body(n)).max_age(600).header("x-number", &n.to_string()))
    });
    let origin = origin.run().await;
    let one = describe(&origin, SMALL).run().await;
    for n in 0..ENTRIES {
        assert_eq!(one.get(&format!("/{n}")).await.body.len(), body(n).len());
    }
    eventually("all on the disk", || async { (one.metric("larder_l3_entries").await >= ENTRIES as f64).then_some(()) })
        .await;
    let files = Files::new();
    files.export(&one, "all", &["--plain"]).await.assert(0, &format!("{ENTRIES} entries"));
    let bytes = files.read("all");

    let other = describe(&origin, SMALL).run().await;
    let mut call = Conn::connect(other.admin_base().trim_start_matches("http://").parse().expect("an address")).await;
    let head =
        format!("POST /import?foreign=true HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", bytes.len());
    call.write(head).await;
    call.write(&bytes[..bytes.len() * 2 / 3]).await;
    eventually("entries on the disk", || async { (other.metric("larder_l3_entries").await > 5.0).then_some(()) }).await;
    let other = other.kill9_and_restart().await;
    let before: usize = (0..ENTRIES).map(|n| origin.requests(&format!("/{n}"))).sum();
    for n in 0..ENTRIES {
        assert_eq!(other.get(&format!("/{n}")).await.body, body(n), "{n}");
    }
    let asked = (0..ENTRIES).map(|n| origin.requests(&format!("/{n}"))).sum::<usize>() - before;
    assert!((1..ENTRIES).contains(&asked), "some were there, and some were not: {asked}");
    let verified = other.admin("POST", "/disk/verify?wait=true").send().await.json();
    assert_eq!(verified["state"], "done", "{verified}");
    assert!(!verified.to_string().contains("\"damaged\":1"), "{verified}");
}

#[tokio::test]
async fn traffic_goes_on_during_an_export() {
    let origin =
        (0..200).fold(origin::new(), |origin, n| origin.route(&format!("/{n}"), reply(pattern(5000)).max_age(600)));
    let origin = origin.run().await;
    // Half of it on the disk as well, as it was asked for twice.
    let gateway = describe(&origin, "").run().await;
    for n in (0..100).chain(0..50) {
        gateway.get(&format!("/{n}")).await;
    }
    let traffic = async {
        for n in 0..200 {
            assert_eq!(gateway.get(&format!("/{n}")).await.body.len(), 5000);
        }
    };
    let files = Files::new();
    let (exported, ()) = tokio::join!(files.export(&gateway, "all", &[]), traffic);
    exported.assert(0, "exported");
    let listed = files.list("all").await;
    let urls: std::collections::HashSet<String> = listed.iter().map(|line| line["url"].to_string()).collect();
    assert!(urls.len() >= 100 && urls.len() == listed.len(), "each once: {} of {}", urls.len(), listed.len());
}

#[tokio::test]
async fn an_export_is_no_use_of_what_it_reads() {
    let origin = numbered().await;
    let gateway = describe(&origin, SMALL).run().await;
    fill(&gateway).await;
    let gateway = gateway.restart().await;
    let before = [gateway.metric("larder_l3_hits_total").await, gateway.metric("larder_l1_entries").await];
    let files = Files::new();
    files.export(&gateway, "all", &[]).await.assert(0, "3 entries");
    let after = [gateway.metric("larder_l3_hits_total").await, gateway.metric("larder_l1_entries").await];
    assert_eq!(after, before);
}

#[tokio::test]
async fn what_is_wanted_is_named_as_in_a_purge() {
    let origin = numbered().await;
    let gateway = describe(&origin, "").run().await;
    fill(&gateway).await;
    let files = Files::new();
    files.export(&gateway, "some", &["--tag", "a", "--url", &gateway.url("/b")]).await.assert(0, "2 entries");
    let listed = files.list("some").await;
    assert!(
        listed.iter().all(|line| line["status"] == 200 && line["bytes"] == 1 && line["route"].is_string()),
        "{listed:?}"
    );
    assert!(!listed.iter().any(|line| line["tags"] == "c"), "{listed:?}");
    files.export(&gateway, "none", &["--route", "nothing"]).await.assert(1, "there is no route");
    files.export(&gateway, "none", &["--prefix", "://"]).await.assert(1, "prefix");
    assert!(!std::path::Path::new(&files.path("none")).exists());
}

#[tokio::test]
async fn stale_entries_are_asked_about_before_they_are_used() {
    let same = reply("").status(304).max_age(600).header("etag", "\"1\"");
    let origin = origin::new().route("/a", [reply("hello").max_age(600).header("etag", "\"1\""), same]).run().await;
    let (one, other) = (describe(&origin, "").run().await, describe(&origin, "").run().await);
    one.get("/a").await.assert_ok("hello");
    let files = Files::new();
    files.export(&one, "all", &["--fresh-only"]).await.assert(0, "1 entries");
    files.import(&other, "all", &["--foreign", "--stale"]).await.assert(0, "imported: 1 entries");
    other.get("/a").await.assert_ok("hello").assert_forwarded("stale");
    assert_eq!(origin.last("/a").header("if-none-match"), Some("\"1\""));
    other.get("/a").await.assert_ok("hello").assert_hit();
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let origin = numbered().await;
    let (one, other) = (describe(&origin, "").run().await, describe(&origin, "").run().await);
    fill(&one).await;
    let files = Files::new();
    files.export(&one, "all", &[]).await.assert(0, "3 entries");
    files.import(&other, "all", &["--foreign", "--dry-run"]).await.assert(0, "would import: 3 entries, 3 B");
    other.get("/a").await.assert_ok("1").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn only_so_many_at_once_and_none_that_says_nothing() {
    let origin = numbered().await;
    let config = "[archive]\njobs_max = 1\nidle_timeout = '1s'";
    let gateway = describe(&origin, config).run().await;
    fill(&gateway).await;
    let files = Files::new();
    files.export(&gateway, "all", &["--plain"]).await.assert(0, "3 entries");
    let bytes = files.read("all");
    let address = gateway.admin_base().trim_start_matches("http://").parse().expect("an address");
    let mut call = Conn::connect(address).await;
    call.write(format!("POST /import HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", bytes.len())).await;
    call.write(&bytes[..bytes.len() / 2]).await;
    eventually("one import too many", || async {
        (gateway.admin("POST", "/import").body("x").send().await.status == 429).then_some(())
    })
    .await;
    let (head, body) = call.message().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let imported: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(imported["complete"], false);
    assert!(imported["problem"].to_string().contains("archive.idle_timeout"), "{imported}");
}

#[tokio::test]
async fn who_takes_everything_along_is_noted() {
    let origin = numbered().await;
    let tokens = "[admin]\ntokens = [{ name = 'viewer', token = 'see', scope = 'read' }, \
                  { name = 'oncall', token = 'all', scope = 'operate' }]";
    let gateway = describe(&origin, tokens).run().await;
    let files = Files::new();
    files.export(&gateway, "all", &["--admin-token", "see"]).await.assert(1, "operate");
    files.export(&gateway, "all", &["--admin-token", "all"]).await.assert(0, "0 entries");
    let line = gateway.access_line(|line| line["action"] == "GET /export" && line["result"] == 200).await;
    assert_eq!(line["who"], "oncall", "{line}");
    files.import(&gateway, "all", &["--dry-run", "--admin-token", "all"]).await.assert(0, "would import: 0 entries");
    let line = gateway.access_line(|line| line["action"] == "POST /import").await;
    assert_eq!((&line["who"], &line["asked"]), (&json!("oncall"), &json!("dry_run=true")), "nothing of what is in it");
}

#[tokio::test]
async fn of_an_enciphered_disk_only_memory_is_exported() {
    let origin = numbered().await;
    let gateway = describe(&origin, &format!("{SMALL}\n").replace("[l3]\n", "[l3]\nencrypt = true\n")).run().await;
    fill(&gateway).await;
    let files = Files::new();
    files.export(&gateway, "all", &[]).await.assert(0, "3 entries").assert(0, "l3.encrypt");
    let gateway = gateway.restart().await;
    gateway.get("/a").await.assert_ok("0").assert_hit();
    files.export(&gateway, "all", &[]).await.assert(0, "1 entries");
}

#[tokio::test]
async fn requests_are_answered_while_much_is_imported() {
    let origin =
        (0..300).fold(origin::new(), |origin, n| origin.route(&format!("/{n}"), reply(pattern(20_000)).max_age(600)));
    let origin = origin.route("/x", reply("x").max_age(600)).run().await;
    let one = describe(&origin, "").run().await;
    for n in 0..300 {
        one.get(&format!("/{n}")).await;
    }
    let files = Files::new();
    files.export(&one, "all", &[]).await.assert(0, "300 entries");
    let other = describe(&origin, "[archive]\nconcurrency = 2\nbytes_max = '40KiB'").run().await;
    let traffic = async {
        for _ in 0..50 {
            other.get("/x").await.assert_ok("x");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (imported, ()) = tokio::join!(files.import(&other, "all", &["--foreign"]), traffic);
    imported.assert(0, "imported: 300 entries");
    for n in 0..300 {
        other.get(&format!("/{n}")).await.assert_hit();
    }
}
