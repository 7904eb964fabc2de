//! What is left in logs, where it goes, and what happens when it cannot go there.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    client,
    command::larder,
    eventually,
    gateway::{self, Gateway},
    origin::{self, Origin, reply},
    outlive,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

async fn origin() -> Origin {
    origin::new().route("/a", reply("a").max_age(600)).route("/b", reply("b")).run().await
}

/// The lines of a file that are whole.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

async fn line_in(path: &Path, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually("a line", || async { lines(path).into_iter().find(|line| wanted(line)) }).await
}

async fn ask(gateway: &Gateway, path: &str, id: &str) {
    let request = client::get(gateway.url(path)).header("x-request-id", id);
    assert_eq!(request.send().await.status, 200);
}

#[tokio::test]
async fn all_lines_go_to_one_file_which_makes_room_for_itself() {
    let (directory, origin) = (tempfile::tempdir().expect("a directory"), origin().await);
    let file = directory.path().join("larder.log");
    let config = format!("[log]\nfile = {file:?}\nrotate_bytes = '2KiB'\nkeep = 2\nlevel = 'debug'");
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    line_in(&file, |line| line["level"].is_string()).await;
    for number in 0..30 {
        let id = format!("the-{number}th");
        ask(&gateway, "/a", &id).await;
        // One batch each: what is written at once stays together.
        let newest = || lines(&file).iter().any(|line| line["request_id"] == id.as_str());
        eventually("its line", || async { newest().then_some(()) }).await;
    }
    let mut names: Vec<_> = std::fs::read_dir(directory.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(names, ["larder.log", "larder.log.1", "larder.log.2"]);
    let length = |name: &String| std::fs::metadata(directory.path().join(name)).expect("a file").len();
    assert!(names.iter().all(|name| length(name) <= 2048), "{names:?}");
    assert!(!gateway.output().contains("request_id"), "{}", gateway.output());
}

#[tokio::test]
async fn a_full_disk_costs_lines_and_no_request() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let origin = origin().await;
    let gateway = gateway::new().origin(&origin).config("[log]\nfile = '/dev/full'\nrotate_bytes = '0B'").run().await;
    gateway.get("/a").await.assert_ok("a");
    gateway.get("/a").await.assert_ok("a").assert_hit();
    let lost = || async { (gateway.metric("larder_access_log_dropped_total").await >= 2.0).then_some(()) };
    eventually("lines lost and counted", lost).await;
}

#[tokio::test]
async fn of_hits_a_share_is_written_and_of_all_else_everything() {
    let origin = origin().await;
    let gateway = gateway::new().origin(&origin).config("[log]\nsample = 0.0").run().await;
    for (path, id) in [("/a", "a-miss"), ("/a", "a-hit"), ("/b", "another-miss"), ("/b", "the-last")] {
        ask(&gateway, path, id).await;
    }
    gateway.access_line(|line| line["request_id"] == "the-last").await;
    let output = gateway.output();
    assert!(output.contains("a-miss") && output.contains("another-miss"), "{output}");
    assert!(!output.contains("a-hit"), "{output}");
}

#[tokio::test]
async fn the_trace_of_a_request_is_in_its_lines() {
    let gateway = gateway::new().upstream("http://127.0.0.1:9").config("[log]\nlevel = 'debug'").run().await;
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let request = client::get(gateway.url("/a")).header("x-request-id", "mine").header("traceparent", &traceparent);
    assert_eq!(request.send().await.status, 502);
    let access = gateway.access_line(|line| line["request_id"] == "mine").await;
    assert_eq!(access["trace_id"], TRACE);
    let request = client::get(gateway.url("/b")).header("x-request-id", "other").header("traceparent", "none");
    request.send().await;
    let access = gateway.access_line(|line| line["request_id"] == "other").await;
    assert_eq!(access["trace_id"], Value::Null);
}

#[tokio::test]
async fn a_diagnostic_line_tells_the_request_it_is_about() {
    let broken = origin::new().route("/a", [reply("a").max_age(1)]).run().await;
    let gateway = gateway::new().origin(&broken).config("[log]\nlevel = 'debug'").run().await;
    gateway.get("/a").await.assert_ok("a");
    outlive(Instant::now(), Duration::from_secs(1)).await;
    drop(broken);
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let request = client::get(gateway.url("/a")).header("x-request-id", "mine").header("traceparent", &traceparent);
    request.send().await.assert_ok("a");
    let about = gateway.access_line(|line| line["message"] == "a stale response stands in").await;
    assert_eq!((&about["request_id"], &about["trace_id"]), (&"mine".into(), &TRACE.into()));
}

#[tokio::test]
async fn who_changes_something_is_told_and_who_was_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("audit.log");
    let tokens = "[[admin.tokens]]\nname = 'viewer'\ntoken = 'see-what-there-is'\nscope = 'read'\n\
                  [[admin.tokens]]\nname = 'deploy'\ntoken = 'purge-what-there-is'\nscope = 'purge'\n";
    let config = format!("[log]\naudit_file = {file:?}\nlevel = 'off'\n{tokens}\n[cache]\npurge_method = true");
    let gateway = gateway::new().origin(&origin().await).config(config).run().await;
    let call = |token: &str, id: &str| {
        let request = client::request("POST", gateway.admin_url("/purge")).header("x-request-id", id);
        let request = request.header("authorization", &format!("Bearer {token}"));
        request.json(&json!({"urls": ["http://shop.example/a?token=hush&b=1"]}))
    };
    for (token, id, status) in
        [("purge-what-there-is", "done", 200), ("see-what-there-is", "not-allowed", 403), ("x", "unknown", 401)]
    {
        assert_eq!(call(token, id).send().await.status, status, "{id}");
    }
    let line = line_in(&file, |line| line["request_id"] == "done").await;
    let told = |name: &str| line[name].clone();
    assert_eq!(
        (told("target"), told("who"), told("from"), told("action"), told("result")),
        ("larder::audit".into(), "deploy".into(), "127.0.0.1".into(), "POST /purge".into(), 200.into())
    );
    assert_eq!(line["asked"], r#"{"urls":["http://shop.example/a?token=***&b=1"]}"#);
    let line = line_in(&file, |line| line["request_id"] == "not-allowed").await;
    assert_eq!((&line["who"], &line["result"]), (&"viewer".into(), &403.into()));
    let line = line_in(&file, |line| line["request_id"] == "unknown").await;
    assert_eq!((&line["who"], &line["result"]), (&"".into(), &401.into()));
    let purge = client::request("PURGE", gateway.url("/a")).header("authorization", "Bearer purge-what-there-is");
    assert_eq!(purge.send().await.status, 200);
    let line = line_in(&file, |line| line["action"] == "PURGE /a").await;
    assert_eq!((&line["who"], &line["from"], &line["result"]), (&"deploy".into(), &"127.0.0.1".into(), &200.into()));
    assert_eq!(lines(&file).len(), 4, "what only looks leaves none");
}

#[tokio::test]
async fn without_a_file_it_is_told_among_the_diagnostic_lines_at_every_level() {
    let gateway = gateway::new().origin(&origin().await).config("[log]\nlevel = 'error'").run().await;
    gateway.purge(json!({"tags": ["x"]})).await;
    let line = gateway.access_line(|line| line["target"] == "larder::audit").await;
    assert_eq!((&line["who"], &line["result"]), (&"local".into(), &200.into()));
}

#[tokio::test]
async fn the_level_is_changed_for_good_or_for_a_while() {
    let gateway = gateway::new().upstream("http://127.0.0.1:9").config("[log]\nlevel = 'warn'").run().await;
    let admin = gateway.admin_base();
    let command = async |arguments: &[&str]| larder([&["log-level", "--admin", &admin], arguments].concat()).await;
    command(&[]).await.assert(0, "warn\n");
    gateway.purge(json!({"tags": ["silent"]})).await;
    command(&["info", "--for", "1h"]).await.assert(0, "info (goes back to warn)");
    let put = async |query: &str, level: &str| {
        let path = format!("/log/level{query}");
        let answer = gateway.admin("PUT", &path).json(&json!({ "level": level })).send().await;
        (answer.status, answer.json())
    };
    assert_eq!(put("?for=1ms", "debug").await.0, 200);
    let back = || async { (gateway.admin_json("/log/level").await == json!({"level": "warn"})).then_some(()) };
    eventually("the level to go back", back).await;
    assert_eq!(put("", "info").await, (200, json!({"level": "info"})));
    gateway.purge(json!({"tags": ["loud"]})).await;
    gateway.access_line(|line| line["message"] == "purged").await;
    let purges = gateway.output().matches("\"purged\"").count();
    assert_eq!(purges, 1, "what came at the level `warn` is not there: {}", gateway.output());
    for (query, level) in [("", "loud"), ("?for=0s", "info"), ("?for=8days", "info"), ("?fro=1m", "info")] {
        let (status, answer) = put(query, level).await;
        assert_eq!(status, 400, "{query} {level}: {answer}");
    }
    command(&["loud"]).await.assert(1, "no level");
}
