//! The disk tier as its operator handles it: over the admin plane, and on a directory that no gateway has.

use std::{fs, path::Path};

use serde_json::json;

use crate::support::{
    client,
    command::{Ran, larder},
    eventually,
    gateway::{self, Gateway},
    origin::{self, Origin, reply},
};

/// Everything is written to the disk.
const ALL: &str = "[l3]\nadmission = 'all'\nfree_bytes_min = '0B'";

/// Bodies of 2000 bytes, each different from all others.
async fn numbered() -> Origin {
    let handler = |seen: &origin::Seen, _| reply(format!("{:>2000}", seen.target)).max_age(600);
    origin::new().handler("/n", handler).run().await
}

/// A gateway with so many entries on its disk.
async fn filled(origin: &Origin, entries: usize) -> Gateway {
    let gateway = gateway::new().origin(origin).config(ALL).run().await;
    for n in 0..entries {
        assert_eq!(gateway.get(&format!("/n?{n}")).await.status, 200);
    }
    settled(&gateway, entries as u64).await;
    gateway
}

/// Returns when so many entries are on the disk.
async fn settled(gateway: &Gateway, entries: u64) {
    eventually("entries on the disk", || async {
        let disk = gateway.admin_json("/disk").await;
        (disk["entries"] == entries && disk["queued"] == 0).then_some(())
    })
    .await;
}

/// `larder disk ...` on a data directory.
async fn disk(words: &[&str], data_dir: &Path) -> Ran {
    let words = words.iter().map(|word| (*word).to_owned());
    let place = ["--data-dir".to_owned(), data_dir.to_str().expect("text").to_owned()];
    larder(["disk".to_owned()].into_iter().chain(words).chain(place)).await
}

/// `larder disk ...` of a gateway.
async fn disk_of(words: &[&str], gateway: &Gateway) -> Ran {
    let words = words.iter().map(|word| (*word).to_owned());
    larder(["disk".to_owned()].into_iter().chain(words).chain(["--admin".to_owned(), gateway.admin_base()])).await
}

/// Files of content below a data directory.
fn content_files(data_dir: &Path) -> Vec<std::path::PathBuf> {
    let (mut open, mut files) = (vec![data_dir.join("l3/content-v2")], Vec::new());
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.expect("readable").path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

#[tokio::test]
async fn a_running_gateway_is_looked_after() {
    let origin = numbered().await;
    let gateway = filled(&origin, 10).await;
    let files = content_files(&gateway.data_dir());
    assert_eq!(files.len(), 10);

    let stats = disk_of(&["stats"], &gateway).await;
    stats.assert(0, "entries");
    let stats = disk_of(&["stats", "--json"], &gateway).await.json();
    assert_eq!((&stats["on"], &stats["entries"], &stats["contents"]), (&json!(true), &json!(10), &json!(10)));
    assert_eq!(gateway.admin_json("/stats").await["l3"]["entries"], 10);
    let printed = larder(["stats", "--admin", &gateway.admin_base()]).await;
    printed.assert(0, "l3.physical_bytes");

    disk_of(&["verify"], &gateway).await.assert(0, "all as it was written");
    fs::write(&files[0], "not what was written").expect("written");
    fs::remove_file(&files[1]).expect("removed");
    let verified = disk_of(&["verify", "--json"], &gateway).await;
    let found = verified.assert(65, "").json();
    assert_eq!((&found["contents"], &found["corrupt"], &found["missing"]), (&json!(10), &json!(1), &json!(1)));
    disk_of(&["verify"], &gateway).await.assert(0, "all as it was written");

    fs::write(files[2].with_file_name("stranger"), "").expect("written");
    disk_of(&["gc"], &gateway).await.assert(0, "removed 1 files that nothing named, 2 entries without their file");
    let found = disk_of(&["gc", "--json"], &gateway).await.json();
    assert_eq!((&found["contents"], &found["orphans"], &found["lost"]), (&json!(8), &json!(0), &json!(0)));

    disk_of(&["clear", "--yes"], &gateway).await.assert(0, "cleared: ");
    assert_eq!(gateway.admin_json("/disk").await["entries"], 0);
    assert!(content_files(&gateway.data_dir()).is_empty());
    gateway.get("/n?100").await;
    settled(&gateway, 1).await;
}

#[tokio::test]
async fn a_directory_without_a_gateway_is_looked_after() {
    let origin = numbered().await;
    let mut gateway = filled(&origin, 10).await;
    let data = gateway.data_dir();
    assert!(gateway.stop().await.success());

    let stats = disk(&["stats", "--json"], &data).await.json();
    assert_eq!((&stats["on"], &stats["entries"]), (&json!(true), &json!(10)));
    assert_eq!(stats["directory"], data.join("l3").to_str().expect("text"));
    let files = content_files(&data);
    fs::write(&files[0], "not what was written").expect("written");
    disk(&["verify"], &data).await.assert(65, "1 files corrupt; removed");
    disk(&["verify"], &data).await.assert(0, "9 files");
    fs::write(files[2].with_file_name("stranger"), "").expect("written");
    disk(&["gc"], &data).await.assert(0, "removed 1 files that nothing named, 1 entries without their file");
    disk(&["gc"], &data).await.assert(0, "nothing to remove");
    assert_eq!(disk(&["stats", "--json"], &data).await.json()["entries"], 9);

    let gateway = gateway.start_again().await;
    assert_eq!(gateway.admin_json("/disk").await["entries"], 9);
    let data = gateway.data_dir();
    // The one that has the directory is not where commands look for it by themselves.
    let taken = disk(&["stats"], &data).await;
    taken.assert(1, &gateway.pid().to_string());
    assert!(taken.stderr.contains("is in use") && taken.stderr.contains("--admin"), "{taken:?}");
    disk(&["stats", "--admin", &gateway.admin_base()], &data).await.assert(0, "entries");
    disk(&["clear", "--yes", "--json", "--admin", &gateway.admin_base()], &data).await.assert(0, "\"cleared\": true");
}

#[tokio::test]
async fn a_gateway_is_not_taken_for_another() {
    let origin = origin::new().run().await;
    let one = gateway::new().origin(&origin).run().await;
    let other = gateway::new().origin(&origin).run().await;
    let data = one.data_dir();
    let taken = disk(&["clear", "--yes", "--admin", &other.admin_base()], &data).await;
    taken.assert(1, "another");
    let without = gateway::new().origin(&origin).config("[l3]\nmax_bytes = '0B'").run().await;
    disk(&["clear", "--yes", "--admin", &without.admin_base()], &data).await.assert(1, "no disk tier");
    disk_of(&["stats"], &without).await.assert(1, "no disk tier");
    assert_eq!(without.admin("POST", "/disk/verify").send().await.status, 404);
    assert!(without.admin_json("/stats").await.get("l3").is_none());
}

#[tokio::test]
async fn where_there_is_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    for action in ["stats", "verify", "gc"] {
        disk(&[action], directory.path()).await.assert(1, "no gateway has run there");
    }
    disk(&["clear"], directory.path()).await.assert(0, "nothing there");
    assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 0, "nothing was made");
    disk(&["stats", "--admin", "http://127.0.0.1:9"], directory.path()).await.assert(1, "no gateway has run there");
    larder(["disk", "stats", "--admin", "http://127.0.0.1:9"]).await.assert(1, "no gateway answers at 127.0.0.1:9");
    let file = directory.path().join("larder.toml");
    fs::write(&file, "[l3]\nmax_byte = 1\n").expect("written");
    larder(["disk", "stats", "--config", file.to_str().expect("text")]).await.assert(64, "did you mean `max_bytes`");
    fs::write(&file, format!("data_dir = {:?}\n", directory.path().join("data"))).expect("written");
    larder(["disk", "gc", "--config", file.to_str().expect("text")]).await.assert(1, "data/l3");
    let completions = larder(["completions", "bash"]).await;
    completions.assert(0, "larder__subcmd__disk__subcmd__verify");
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let origin = origin::new().run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let refusal = gateway.refused_twin().await;
    assert_eq!(refusal.code, Some(69), "{}", refusal.output);
    let pid = gateway.pid().to_string();
    assert!(refusal.output.contains(&pid) && refusal.output.contains("is in use"), "{}", refusal.output);
    assert_eq!(refusal.output.lines().count(), 1, "{}", refusal.output);
}

#[tokio::test]
async fn another_releases_directory_is_refused_until_it_is_cleared() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let mut gateway = gateway::new().origin(&origin).run().await;
    let data = gateway.data_dir();
    assert!(gateway.stop().await.success());
    fs::write(data.join("l3/version"), "99\n").expect("written");

    let refusal = gateway.refused_twin().await;
    assert_eq!(refusal.code, Some(69), "{}", refusal.output);
    assert!(refusal.output.contains("\"99\"") && refusal.output.contains("larder disk clear"), "{}", refusal.output);
    disk(&["stats"], &data).await.assert(1, "larder disk clear");
    assert_eq!(fs::read_to_string(data.join("l3/version")).expect("readable"), "99\n");
    disk(&["clear"], &data).await.assert(0, "cleared: ");
    let gateway = gateway.start_again().await;
    gateway.get("/a").await.assert_ok("hello");
    assert_eq!(gateway.admin_json("/disk").await["on"], true);
}

#[tokio::test]
async fn a_damaged_index_is_no_reason_not_to_serve() {
    let origin = numbered().await;
    let mut gateway = filled(&origin, 10).await;
    let data = gateway.data_dir();
    assert!(gateway.stop().await.success());
    let index = data.join("l3/index");
    let mut damaged = fs::read(&index).expect("readable");
    damaged[0..].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&index, &damaged).expect("written");

    let gateway = gateway.start_again().await;
    gateway.get("/n?1").await.assert_forwarded("uri-miss");
    assert_eq!(gateway.admin_json("/disk").await["damaged_indexes"], 1);
    assert_eq!(gateway.metric("larder_l3_errors_total{kind=\"damaged\"}").await, 1.0);
    settled(&gateway, 1).await;
    eventually("what was lost to be removed", || async {
        (content_files(&gateway.data_dir()).len() == 1).then_some(())
    })
    .await;

    let mut gateway = gateway;
    assert!(gateway.stop().await.success());
    fs::write(&index, &damaged).expect("written");
    let verified = disk(&["verify"], &data).await;
    verified.assert(65, "the index damaged");
    disk(&["verify"], &data).await.assert(0, "0 entries");
}

#[tokio::test]
async fn the_admin_plane_has_it_done() {
    let origin = origin::new().run().await;
    let gateway = gateway::new().origin(&origin).token("secret").run().await;
    for (method, path) in [("GET", "/disk"), ("GET", "/disk/gc"), ("POST", "/disk/gc"), ("DELETE", "/disk/verify")] {
        let anonymous = client::request(method, gateway.admin_url(path)).send().await;
        assert_eq!(anonymous.status, 401, "{method} {path}");
    }
    let unknown = gateway.admin("POST", "/disk/verfy").send().await;
    assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("application/problem+json")));
    assert!(unknown.text().contains("did you mean `verify`?"), "{}", unknown.text());
    assert_eq!(gateway.admin("GET", "/disk/gc").send().await.status, 404, "never asked for");
    let started = gateway.admin("POST", "/disk/gc").send().await;
    assert_eq!((started.status, started.header("location")), (202, Some("/disk/gc")));
    let waited = gateway.admin("POST", "/disk/verify?wait=true").send().await;
    // Where gc is still under way it is in the way.
    if waited.status != 409 {
        assert_eq!((waited.status, &waited.json()["state"]), (200, &json!("done")), "{}", waited.text());
        assert_eq!(waited.json()["verified"]["corrupt"], 0);
    }
    let done = eventually("gc to end", || async {
        let task = gateway.admin_json("/disk/gc").await;
        (task["state"] == "done").then_some(task)
    })
    .await;
    assert_eq!(done["collected"]["orphans"], 0);
    let wrong = gateway.admin("POST", "/disk/gc?wait=maybe").send().await;
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    let cleared = gateway.admin("POST", "/disk/clear?wait=true").send().await;
    assert_eq!((cleared.status, &cleared.json()["cleared"]["entries"]), (200, &json!(0)), "{}", cleared.text());

    let refused = disk_of(&["stats"], &gateway).await;
    refused.assert(1, "token");
    let allowed = larder(["disk", "stats", "--admin", &gateway.admin_base(), "--admin-token", "secret"]).await;
    allowed.assert(0, "physical_bytes");
}
