//! What is left in logs, where it goes, and what happens when it cannot go there.

use std::{path::Path, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use crate::support::{
    client, eventually,
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
    assert_eq!((&about["span"]["request_id"], &about["span"]["trace_id"]), (&"mine".into(), &TRACE.into()));
}
