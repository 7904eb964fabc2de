//! What is stored with `l3.encrypt`: found again after a restart, and not to be read by who steals the disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    client,
    client::Response,
    command::larder,
    eventually, gateway,
    gateway::Gateway,
    origin::{self, Origin, Seen, reply},
};

const LINE: &str = "nobody but who asked for it is to read this line. ";
const FIELD: &str = "a-value-of-a-field";
const CREDENTIAL: &str = "Bearer of-good-news";

const SHORT: &str = "/under/the/counter/short";
const TEXT: &str = "/under/the/counter/text";
const LARGE: &str = "/under/the/counter/large";
const MINE: &str = "/under/the/counter/mine";
const LONG: usize = 3 << 20;

fn lines(bytes: usize) -> Vec<u8> {
    LINE.bytes().cycle().take(bytes).collect()
}

/// The secret, beside the data directory.
struct Vault(TempDir);

impl Vault {
    fn new() -> Self {
        let vault = Self(tempfile::tempdir().expect("a directory"));
        fs::write(vault.0.path().join("secret"), [7; 32]).expect("written");
        fs::write(vault.0.path().join("other"), format!("{}\n", "08".repeat(32))).expect("written");
        vault
    }

    /// Memory takes no more than some hundred KiB in one piece; all that is storable is written.
    fn config(&self, secret: &str, encrypt: bool) -> String {
        let secret = self.0.path().join(secret);
        format!(
            "secret_file = {secret:?}\n[l3]\nadmission = 'all'\nfree_bytes_min = '0B'\nencrypt = {encrypt}\n\
             [l1]\nmax_bytes = '4MiB'\n[cache]\npartition = 'authorization'\n"
        )
    }

    async fn gateway(&self, origin: &Origin, encrypt: bool) -> Gateway {
        gateway::new().origin(origin).config(self.config("secret", encrypt)).run().await
    }
}

/// It answers with what is not to be found on the disk; `/number` with the number of the request.
async fn telling() -> Origin {
    let telling = |kind: &'static str, bytes: usize| {
        move |_: &Seen, _| {
            let told = reply(lines(bytes)).cache_control("public, max-age=600").header("content-type", kind);
            told.header("x-told", FIELD).header("cache-tag", "midnight-blue").header("vary", "x-secretive")
        }
    };
    let number = |_: &Seen, nth: usize| reply(nth.to_string()).max_age(600).header("cache-tag", "number");
    origin::new()
        .handler(SHORT, telling("image/png", 9000))
        .handler(TEXT, telling("text/plain", 200_000))
        .handler(LARGE, telling("image/png", LONG))
        .handler(MINE, telling("text/plain", 30_000))
        .handler("/number", number)
        .run()
        .await
}

/// Asks for everything. What there was to be had of it came whole.
async fn ask_for_all(gateway: &Gateway) -> Vec<Response> {
    let mut responses = Vec::new();
    for (path, bytes) in [(SHORT, 9000), (TEXT, 200_000), (LARGE, LONG), (MINE, 30_000)] {
        let request = client::get(gateway.url(path)).header("x-secretive", FIELD);
        let request = if path == MINE { request.header("authorization", CREDENTIAL) } else { request };
        let response = request.send().await;
        assert!(response.status == 200 && response.body == lines(bytes), "{path}: {}", response.status);
        assert_eq!(response.header("x-told"), Some(FIELD));
        responses.push(response);
    }
    responses
}

fn assert_from_disk(response: &Response) {
    assert_eq!(response.assert_hit().cache().detail.as_deref(), Some("L3"), "{:?}", response.headers);
}

/// Returns when so many entries are on the disk, records of variants included.
async fn settled(gateway: &Gateway, entries: u64) {
    eventually("entries on the disk", || async {
        let disk = gateway.admin_json("/disk").await;
        (disk["entries"] == entries && disk["queued"] == 0).then_some(())
    })
    .await;
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Which of these are in some file below the directory.
fn shown(directory: &Path, needles: &[Vec<u8>]) -> Vec<String> {
    let contents: Vec<_> = files(directory).iter().map(|path| fs::read(path).expect("readable")).collect();
    let is_shown = |needle: &&Vec<u8>| {
        contents.iter().any(|content| content.windows(needle.len()).any(|window| window == needle.as_slice()))
    };
    needles.iter().filter(is_shown).map(|needle| String::from_utf8_lossy(needle).into_owned()).collect()
}

/// The bytes of the key of what is stored for a URL.
async fn key_of(gateway: &Gateway, path: &str) -> Vec<u8> {
    let explained = gateway.admin_json(&format!("/explain?url={}", gateway.url(path))).await;
    let digits = explained["key"].as_str().expect("a key").to_owned();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits")).collect()
}

async fn needles(gateway: &Gateway) -> Vec<Vec<u8>> {
    let texts = [&LINE[..20], "under/the/counter", FIELD, "x-told", "x-secretive", "midnight-blue", "good-news"];
    let mut needles: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    for path in [SHORT, TEXT, LARGE] {
        let key = key_of(gateway, path).await;
        needles.extend(key.chunks(8).map(<[u8]>::to_vec));
    }
    needles
}

#[tokio::test]
async fn a_stolen_disk_shows_nothing() {
    let (vault, origin) = (Vault::new(), telling().await);
    let gateway = vault.gateway(&origin, true).await;
    ask_for_all(&gateway).await;
    settled(&gateway, 8).await;
    let gateway = gateway.restart().await;
    for response in ask_for_all(&gateway).await {
        assert_from_disk(&response);
    }
    let range = client::get(gateway.url(LARGE)).header("x-secretive", FIELD).header("range", "bytes=1000000-2000000");
    let part = range.send().await;
    assert_from_disk(&part);
    assert!(part.status == 206 && part.body == lines(LONG)[1_000_000..=2_000_000]);
    assert_eq!(origin.requests(LARGE), 1);

    let needles = needles(&gateway).await;
    assert_eq!(shown(&gateway.data_dir(), &needles), [] as [&str; 0], "while it runs");
    let gateway = gateway.restart().await;
    assert_eq!(shown(&gateway.data_dir(), &needles), [] as [&str; 0], "and after");
    assert!(!gateway.data_dir().join("secret").exists());
    assert!(!gateway.output().contains("whoever takes"), "{}", gateway.output());

    // What is looked for is what there would be.
    let gateway = gateway.restart_with(&vault.config("secret", false)).await;
    ask_for_all(&gateway).await;
    settled(&gateway, 8).await;
    assert!(!shown(&gateway.data_dir(), &needles).is_empty());
}

#[tokio::test]
async fn with_another_secret_nothing_is_found() {
    let (vault, origin) = (Vault::new(), telling().await);
    let gateway = vault.gateway(&origin, true).await;
    ask_for_all(&gateway).await;
    settled(&gateway, 8).await;
    let gateway = gateway.restart_with(&vault.config("other", true)).await;
    for response in ask_for_all(&gateway).await {
        response.assert_forwarded("uri-miss");
    }
    settled(&gateway, 8).await;
    let gateway = gateway.restart().await;
    for response in ask_for_all(&gateway).await {
        assert_from_disk(&response);
    }
}

#[tokio::test]
async fn a_purge_reaches_what_is_enciphered() {
    for purge in [json!({ "tags": ["number"] }), json!({ "urls": ["http://any.example/number"] })] {
        let (vault, origin) = (Vault::new(), telling().await);
        let gateway = vault.gateway(&origin, true).await;
        gateway.get("/number").await.assert_ok("0");
        settled(&gateway, 1).await;
        let gateway = gateway.restart().await;
        assert_from_disk(gateway.get("/number").await.assert_ok("0"));
        let gateway = gateway.restart().await;
        gateway.purge(purge).await;
        let gateway = gateway.kill9_and_restart().await;
        gateway.get("/number").await.assert_ok("1").assert_forwarded("uri-miss");
    }
}

#[tokio::test]
async fn an_unsafe_request_reaches_what_is_enciphered() {
    let number = |seen: &Seen, nth: usize| match seen.method.as_str() {
        "GET" => reply(nth.to_string()).max_age(600),
        _ => reply("").status(204),
    };
    let (vault, origin) = (Vault::new(), origin::new().handler("/a", number).run().await);
    let gateway = vault.gateway(&origin, true).await;
    gateway.get("/a").await.assert_ok("0");
    settled(&gateway, 1).await;
    let gateway = gateway.restart().await;
    assert_eq!(client::request("POST", gateway.url("/a")).send().await.status, 204);
    let gateway = gateway.kill9_and_restart().await;
    gateway.get("/a").await.assert_ok("2").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn switched_on_or_off_the_tier_begins_empty() {
    let (vault, origin) = (Vault::new(), telling().await);
    let mut gateway = vault.gateway(&origin, false).await;
    for (requests, encrypt) in [(1, true), (2, false)] {
        ask_for_all(&gateway).await;
        settled(&gateway, 8).await;
        assert_eq!(origin.requests(TEXT), requests);
        gateway = gateway.restart_with(&vault.config("secret", encrypt)).await;
        let said = || async { gateway.output().contains("l3.encrypt has been switched").then_some(()) };
        eventually("the line that says so", said).await;
        if encrypt {
            let needles = [LINE.as_bytes()[..20].to_vec(), FIELD.as_bytes().to_vec()];
            assert_eq!(shown(&gateway.data_dir(), &needles), [] as [&str; 0]);
        }
    }
    for response in ask_for_all(&gateway).await {
        response.assert_forwarded("uri-miss");
    }
}

#[tokio::test]
async fn operators_need_no_key() {
    let (vault, origin) = (Vault::new(), telling().await);
    let mut gateway = vault.gateway(&origin, true).await;
    ask_for_all(&gateway).await;
    settled(&gateway, 8).await;
    assert!(gateway.stop().await.success());
    let data_dir = gateway.data_dir();
    let config = vault.0.path().join("larder.toml");
    fs::write(&config, vault.config("secret", true)).expect("written");
    let disk = |word: &'static str| {
        let place = ["--config".into(), config.clone(), "--data-dir".into(), data_dir.clone()];
        larder([PathBuf::from("disk"), word.into()].into_iter().chain(place))
    };
    disk("stats").await.assert(0, "entries");
    disk("verify").await.assert(0, "all as it was written");
    disk("gc").await.assert(0, "nothing to remove");

    let damaged = files(&data_dir.join("l3/content-v2")).remove(0);
    let mut content = fs::read(&damaged).expect("readable");
    content[0] ^= 1;
    fs::write(&damaged, content).expect("written");
    disk("verify").await.assert(65, "1 files corrupt");
    fs::remove_file(vault.0.path().join("secret")).expect("there");
    disk("stats").await.assert(1, "cannot be opened without it");
}

#[tokio::test]
async fn a_secret_beside_what_it_protects_is_told() {
    let origin = telling().await;
    let gateway = gateway::new().origin(&origin).config("[l3]\nencrypt = true").run().await;
    assert!(gateway.output().contains("whoever takes that has both"), "{}", gateway.output());
    let missing = gateway::new().origin(&origin).config("secret_file = '/nowhere/secret'").refuse().await;
    assert!(missing.code != Some(0) && missing.output.contains("/nowhere/secret"), "{}", missing.output);
    let both = gateway::new().origin(&origin).config("[l3]\nencrypt = true\nreadable_index = true").refuse().await;
    assert!(both.code == Some(64) && both.output.contains("l3.encrypt"), "{}", both.output);
}
