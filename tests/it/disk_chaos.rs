//! The disk tier under everything that can happen to it: killed, damaged, full, gone. No client gets a wrong, short or
//! mixed body, and afterwards nothing is left over.
//!
//! `LARDER_KILLS` says how often it is killed; `make chaos` does so a hundred times.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{
    client,
    command::larder,
    eventually,
    gateway::{self, Gateway},
    origin::{self, Origin, Reply, Seen, reply},
    within,
};

/// Keys in use.
const KEYS: u64 = 150;

/// The smallest tier of use, next to no memory beside it, everything written, as fast as may be.
const SMALL: &str = "[l1]\nmax_bytes = '1MiB'\n[l3]\nmax_bytes = '8MiB'\nadmission = 'all'\nwrite_rate = '0B'\n\
                     free_bytes_min = '0B'";

/// The same, with room for everything.
const ROOMY: &str = "[l1]\nmax_bytes = '1MiB'\n[l3]\nmax_bytes = '1GiB'\nadmission = 'all'\nwrite_rate = '0B'\n\
                     free_bytes_min = '0B'";

/// Lengths of bodies: small, as a whole, in pieces, in many pieces.
const LENGTHS: [usize; 5] = [400, 5000, 70_000, 300_000, 1_200_000];

/// Numbers that are as good as random, the same each time.
fn scattered(n: u64) -> u64 {
    u64::from_le_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes().first_chunk().expect("32 bytes"))
}

/// A body that names its URL and version, and ends with a hash of all before.
fn body(target: &str, version: u64) -> Vec<u8> {
    let mut content = format!("{target} {version}\n").into_bytes();
    let mut noise = vec![0; LENGTHS[usize::try_from(scattered(version) % 5).expect("below 5")]];
    blake3::Hasher::new().update(&content).finalize_xof().fill(&mut noise);
    content.extend(noise);
    let hash = blake3::hash(&content);
    content.extend(hash.as_bytes());
    content
}

/// The version of a body for `target`; a panic if it is no whole body for that.
fn version(target: &str, content: &[u8]) -> u64 {
    let (content, hash) = content.split_last_chunk::<32>().unwrap_or_else(|| panic!("{target}: {content:?}"));
    assert!(blake3::hash(content) == *hash, "{target}: a body of {} bytes that no origin sent", content.len());
    let line = content.split(|byte| *byte == b'\n').next().expect("at least one");
    let line = std::str::from_utf8(line).expect("text");
    let (named, version) = line.split_once(' ').expect("two words");
    assert_eq!(named, target, "the body of another URL");
    version.parse().expect("a number")
}

/// What the origin has answered, and what has been purged.
struct World {
    /// Versions given out, of all URLs.
    versions: AtomicU64,
    /// By key: what is older must not be served any more.
    floors: Vec<AtomicU64>,
}

impl World {
    fn new() -> Arc<Self> {
        let floors = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { versions: AtomicU64::new(0), floors })
    }

    /// An origin each of whose answers is another version.
    async fn origin(self: &Arc<Self>) -> Origin {
        let world = Arc::clone(self);
        let handler = move |seen: &Seen, _: usize| -> Reply {
            let version = world.versions.fetch_add(1, SeqCst) + 1;
            reply(body(&seen.target, version)).max_age(3600).header("x-version", &version.to_string())
        };
        origin::new().handler("/c", handler).forgetful().run().await
    }

    /// Asks for a key and judges the answer. Whether there was a whole one, and whether it came from the cache.
    async fn ask(&self, url: &str, key: u64) -> Option<bool> {
        let target = format!("/c?{key}");
        let floor = self.floors[usize::try_from(key).expect("few")].load(SeqCst);
        let asked = client::get(format!("{url}{target}"));
        let response = asked.attempt().await.filter(|response| !response.broken)?;
        assert_eq!(response.status, 200, "{target}: {}", String::from_utf8_lossy(&response.body));
        let found = version(&target, &response.body);
        assert_eq!(response.header("x-version"), Some(&*found.to_string()), "{target}: the head of another version");
        assert!(found > floor, "{target}: version {found} was purged, with all up to {floor}");
        Some(response.cache().hit)
    }

    /// Purges a key. Once that is acknowledged, nothing from before is to be served.
    async fn purge(&self, admin: &str, url: &str, key: u64) {
        let before = self.versions.load(SeqCst);
        let call = json!({ "urls": [format!("{url}/c?{key}")] });
        let purging = client::request("POST", format!("{admin}/purge")).json(&call);
        if purging.attempt().await.is_some_and(|receipt| receipt.status == 200) {
            self.floors[usize::try_from(key).expect("few")].fetch_max(before, SeqCst);
        }
    }
}

/// Clients that ask and purge until told to stop, or until nobody answers. How many answers were none.
fn traffic(world: &Arc<World>, gateway: &Gateway, clients: u64, seed: u64, stop: &Arc<AtomicBool>) -> JoinSet<u64> {
    let mut running = JoinSet::new();
    for nth in 0..clients {
        let (world, stop) = (Arc::clone(world), Arc::clone(stop));
        let (url, admin) = (gateway.url(""), gateway.admin_base());
        running.spawn(async move {
            let mut without = 0;
            for step in 0.. {
                if stop.load(SeqCst) {
                    break;
                }
                let number = scattered(seed << 32 | nth << 24 | step);
                let key = number / 64 % KEYS;
                if number.is_multiple_of(64) {
                    world.purge(&admin, &url, key).await;
                } else if world.ask(&url, key).await.is_none() {
                    without += 1;
                    if without > 100 {
                        break;
                    }
                }
            }
            without
        });
    }
    running
}

/// Waits for all clients. How many answers were none.
async fn joined(mut running: JoinSet<u64>) -> u64 {
    let mut without = 0;
    while let Some(ended) = within("clients to end", running.join_next()).await {
        without += ended.expect("every body was right");
    }
    without
}

/// What `POST /disk/...` found.
async fn disk(gateway: &Gateway, task: &str) -> Value {
    let path = format!("/disk/{task}?wait=true");
    let answer = gateway.admin("POST", &path).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut answer = answer.json();
    assert_eq!(answer["state"], "done", "{answer}");
    answer[if task == "gc" { "collected" } else { "verified" }].take()
}

/// Returns when nothing is on its way to the disk: neither a large body, whose fill ends after its clients have it, nor
/// what waits to be written.
async fn written(gateway: &Gateway) {
    eventually("everything to be written", || async {
        if gateway.metric("larder_fills_running").await > 0.0 {
            return None;
        }
        let disk = gateway.admin_json("/disk").await;
        (disk["on"] == true && disk["queued"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again() {
    let kills: u64 = std::env::var("LARDER_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10);
    let world = World::new();
    let origin = world.origin().await;
    let mut gateway = gateway::new().origin(&origin).config(SMALL).run().await;
    let (mut hits, mut evicted) = (0, 0.0);
    for round in 0..kills {
        let stop = Arc::default();
        let running = traffic(&world, &gateway, 12, round, &stop);
        sleep(Duration::from_millis(300 + scattered(round) % 500)).await;
        evicted += gateway.metric("larder_l3_evictions_total{reason=\"bytes\"}").await;
        gateway.kill9().await;
        stop.store(true, SeqCst);
        joined(running).await;

        gateway = gateway.start_again().await;
        for key in 0..KEYS {
            let hit = world.ask(&gateway.url(""), key).await;
            hits += u64::from(hit.expect("an answer: nobody has been killed since"));
        }
    }
    assert!(hits > kills, "{hits} answers came from the disk: far too few to prove anything");
    assert!(evicted > 0.0, "nothing had to leave: that proves nothing");
    assert!(world.floors.iter().any(|floor| floor.load(SeqCst) > 0), "nothing was purged: that proves nothing");

    gateway = gateway.kill9_and_restart().await;
    written(&gateway).await;
    disk(&gateway, "gc").await;
    let again = disk(&gateway, "gc").await;
    assert_eq!((&again["orphans"], &again["lost"], &again["leaked"]), (&json!(0), &json!(0), &json!(0)), "{again}");
    let verified = disk(&gateway, "verify").await;
    assert_eq!((&verified["corrupt"], &verified["missing"]), (&json!(0), &json!(0)), "{verified}");
    assert_eq!(verified["unreadable"], 0);
    println!("{kills} kills, {hits} answers from the disk, {evicted} entries had left for others");
}

/// Asks for every key once. How many came from the cache, and how many were broken off.
async fn read_back(world: &World, gateway: &Gateway, keys: u64) -> (u64, u64) {
    let (mut hits, mut broken) = (0, 0);
    for key in 0..keys {
        match world.ask(&gateway.url(""), key).await {
            Some(hit) => hits += u64::from(hit),
            None => broken += 1,
        }
    }
    (hits, broken)
}

fn content_files(data_dir: &Path) -> Vec<PathBuf> {
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

fn flip(path: &Path, seed: u64) {
    let mut content = fs::read(path).expect("readable");
    let at = usize::try_from(scattered(seed)).expect("64 bits") % (8 * content.len());
    content[at / 8] ^= 1 << (at % 8);
    fs::write(path, content).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_content_is_never_served() {
    const ENTRIES: u64 = 60;
    let world = World::new();
    let origin = world.origin().await;
    let mut gateway = gateway::new().origin(&origin).config(ROOMY).run().await;
    assert_eq!(read_back(&world, &gateway, ENTRIES).await, (0, 0));
    written(&gateway).await;
    assert!(gateway.stop().await.success());

    let files = content_files(&gateway.data_dir());
    assert_eq!(files.len() as u64, ENTRIES);
    for (path, nth) in files.iter().zip(0_u64..).take(40) {
        let length = fs::metadata(path).expect("there").len();
        let cut =
            |length| fs::File::options().write(true).open(path).and_then(|file| file.set_len(length)).expect("cut");
        match nth % 4 {
            0 | 1 => flip(path, nth),
            2 => cut(scattered(nth) % length),
            _ => fs::remove_file(path).expect("removed"),
        }
    }
    let gateway = gateway.start_again().await;
    // Each answer is judged; one whose damage lies behind its first pieces breaks off, and is another miss then.
    let (hits, broken) = read_back(&world, &gateway, ENTRIES).await;
    assert!(hits + broken >= ENTRIES - 40 && hits <= ENTRIES - 40 + broken, "{hits} hits, {broken} broken off");
    let (_, broken) = read_back(&world, &gateway, ENTRIES).await;
    assert_eq!(broken, 0, "what proved damaged is not tried again");
    let mut counted = 0.0;
    for kind in ["corrupt", "missing"] {
        counted += gateway.metric(&format!("larder_l3_errors_total{{kind=\"{kind}\"}}")).await;
    }
    assert!(counted >= 40.0, "{counted} were counted");
    let verified = disk(&gateway, "verify").await;
    assert_eq!((&verified["corrupt"], &verified["missing"]), (&json!(0), &json!(0)), "{verified}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_index_serves_nothing_wrong() {
    const ENTRIES: u64 = 40;
    let world = World::new();
    let origin = world.origin().await;
    let mut gateway = gateway::new().origin(&origin).config(ROOMY).run().await;
    let mut counted = 0.0;
    for seed in 0..6_u64 {
        read_back(&world, &gateway, ENTRIES).await;
        written(&gateway).await;
        assert!(gateway.stop().await.success());
        let index = gateway.data_dir().join("l3/index");
        // From one bit to many; at last some of it is cut off.
        for nth in 0..1 << (2 * seed) {
            flip(&index, seed << 32 | nth);
        }
        if seed == 5 {
            let length = fs::metadata(&index).expect("there").len();
            fs::File::options().write(true).open(&index).and_then(|file| file.set_len(length / 2)).expect("cut");
        }
        gateway = gateway.start_again().await;
        let (_, broken) = read_back(&world, &gateway, ENTRIES).await;
        assert_eq!(broken, 0);
        for kind in ["damaged", "record"] {
            counted += gateway.metric(&format!("larder_l3_errors_total{{kind=\"{kind}\"}}")).await;
        }
    }
    assert!(counted >= 2.0, "{counted} damages were counted");
}

/// A file system of its own, for who may mount one.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "larder-test"]).arg(path);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Takes all room there is, as long as `stop` is not set.
async fn take_all_room(path: PathBuf, stop: Arc<AtomicBool>) {
    while !stop.load(SeqCst) {
        for piece in [1 << 20, 4096] {
            let chunk = vec![7; piece];
            let taking = fs::File::options().create(true).append(true).open(&path);
            if let Ok(mut file) = taking {
                while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_filled_to_the_brim() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let Some(_mount) = Mount::tmpfs(&data, "64m") else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    let world = World::new();
    let origin = world.origin().await;
    let small = SMALL.replace("8MiB", "48MiB");
    let gateway =
        gateway::new().origin(&origin).config(small).argument("--data-dir").argument(data.to_str().expect("text"));
    let gateway = gateway.run().await;
    let stop = Arc::default();
    let running = traffic(&world, &gateway, 6, 1, &stop);
    eventually("something on the disk", || async {
        (gateway.admin_json("/disk").await["physical_bytes"].as_u64() > Some(8 << 20)).then_some(())
    })
    .await;

    let have_room = Arc::default();
    let taking = tokio::spawn(take_all_room(data.join("ballast"), Arc::clone(&have_room)));
    eventually("the tier to go off", || async { (gateway.metric("larder_l3_on").await == 0.0).then_some(()) }).await;
    assert!(gateway.metric("larder_l3_errors_total{kind=\"full\"}").await >= 1.0);
    // It stays so for as long as there is none.
    sleep(Duration::from_secs(4)).await;
    let off = gateway.output().lines().filter(|line| line.contains("disk tier: off")).count();
    assert_eq!(off, 1, "one line:\n{}", gateway.output());

    have_room.store(true, SeqCst);
    within("the other file", taking).await.expect("no panic");
    fs::remove_file(data.join("ballast")).expect("removed");
    eventually("the tier to come back", || async { (gateway.metric("larder_l3_on").await == 1.0).then_some(()) }).await;
    let stored = gateway.metric("larder_l3_written_bytes_total").await;
    eventually("something to be written", || async {
        (gateway.metric("larder_l3_written_bytes_total").await > stored).then_some(())
    })
    .await;
    stop.store(true, SeqCst);
    assert_eq!(joined(running).await, 0, "no client noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_goes_away() {
    let world = World::new();
    let origin = world.origin().await;
    let gateway = gateway::new().origin(&origin).config(SMALL).run().await;
    let stop = Arc::default();
    let running = traffic(&world, &gateway, 6, 1, &stop);
    eventually("something on the disk", || async {
        (gateway.admin_json("/disk").await["entries"].as_u64() > Some(20)).then_some(())
    })
    .await;
    // While the gateway writes into it; a file that has just been made may be in the way.
    eventually("the directory to be removed", || async {
        let path = gateway.data_dir().join("l3");
        let _ = fs::remove_dir_all(&path);
        (!path.exists()).then_some(())
    })
    .await;
    eventually("the tier to go off", || async { (gateway.metric("larder_l3_on").await == 0.0).then_some(()) }).await;
    sleep(Duration::from_millis(500)).await;
    fs::create_dir_all(gateway.data_dir().join("l3")).expect("made again");
    eventually("the tier to come back", || async { (gateway.metric("larder_l3_on").await == 1.0).then_some(()) }).await;
    eventually("something on the disk", || async {
        (gateway.admin_json("/disk").await["entries"].as_u64() > Some(0)).then_some(())
    })
    .await;
    stop.store(true, SeqCst);
    // What was being streamed from there may break off: its end is nowhere any more.
    joined(running).await;
    let data = gateway.data_dir();
    let clear = larder(["disk", "clear", "--data-dir", data.to_str().expect("text")]);
    clear.await.assert(1, "is in use");
}
