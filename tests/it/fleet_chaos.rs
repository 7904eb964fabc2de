//! Three nodes and a cluster of six under load, while servers are killed, stopped and taken over and nodes put to sleep: after
//! a purge was acknowledged by the fleet, no older version is read anywhere; after one was acknowledged by the log, none that
//! is older than the lease.
//!
//! `LARDER_READS` says how many reads there are at least; `make chaos` reads a million times, and goes through all
//! disturbances several times.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::support::{
    client, eventually,
    gateway::{self, Gateway},
    origin::{self, Origin, Seen, reply},
    redis,
};

const KEYS: usize = 40;
const LEASE: Duration = Duration::from_secs(1);

/// For answers on their way, on a busy machine.
const ALLOWANCE: Duration = Duration::from_millis(250);

/// What is true of each key, and what was promised.
struct World {
    /// The origin's version.
    versions: Vec<AtomicU64>,
    /// The version below which nothing may be read.
    acknowledged: Vec<AtomicU64>,
    /// The same, from that time on.
    logged: Vec<Mutex<(Instant, u64)>>,
    reads: AtomicU64,
    errors: AtomicU64,
    purges: [AtomicU64; 2],
    refused: AtomicU64,
    done: AtomicBool,
    wrong: Mutex<Option<String>>,
}

impl World {
    fn new() -> Arc<Self> {
        let numbers = || (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        let now = Instant::now();
        Arc::new(Self {
            versions: numbers(),
            acknowledged: numbers(),
            logged: (0..KEYS).map(|_| Mutex::new((now, 0))).collect(),
            reads: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            purges: Default::default(),
            refused: AtomicU64::new(0),
            done: AtomicBool::new(false),
            wrong: Mutex::default(),
        })
    }

    fn is_over(&self) -> bool {
        self.done.load(SeqCst) || self.wrong.lock().is_some()
    }

    /// What is read from now on may not be older.
    fn floor(&self, key: usize) -> u64 {
        let acknowledged = self.acknowledged[key].load(SeqCst);
        let (since, version) = *self.logged[key].lock();
        if since.elapsed() > LEASE + ALLOWANCE { acknowledged.max(version) } else { acknowledged }
    }
}

async fn origin_of(world: &Arc<World>) -> Origin {
    let mut origin = origin::new().forgetful();
    for key in 0..KEYS {
        let world = Arc::clone(world);
        origin = origin.handler(&format!("/{key}"), move |_: &Seen, _| {
            let version = world.versions[key].load(SeqCst);
            reply(version.to_string()).max_age(3600).header("surrogate-key", &format!("k{key}"))
        });
    }
    origin.run().await
}

async fn nodes(cluster: &redis::Cluster, origin: &Origin, secret: &TempDir) -> Vec<Gateway> {
    let secret = secret.path().join("secret");
    std::fs::write(&secret, [7; 32]).expect("writable");
    let mut nodes = Vec::new();
    for number in 0..3 {
        let config = format!(
            "secret_file = {secret:?}\n[l2]\nurl = {:?}\n[fleet]\nnode = 'node-{number}'\nlease = '{}ms'\nack_timeout = '20s'\n",
            cluster.urls(),
            LEASE.as_millis()
        );
        nodes.push(gateway::new().origin(origin).config(config).config("[l3]\nadmission = 'all'").run().await);
    }
    for node in &nodes {
        eventually("all nodes", || async {
            let fleet = node.admin_json("/nodes").await;
            (fleet["nodes"].as_array().map(Vec::len) == Some(3) && fleet["fenced"] == false).then_some(())
        })
        .await;
    }
    nodes
}

/// Numbers that are as good as random.
fn scattered(n: u64) -> usize {
    let hash = blake3::hash(&n.to_le_bytes());
    usize::from(u16::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes")))
}

/// Reads keys of one node on one connection.
async fn read(world: Arc<World>, url: String, address: std::net::SocketAddr, seed: u64) {
    let mut connection = client::connect(address).await;
    let mut n = seed;
    while !world.is_over() {
        n += 1;
        let key = scattered(n) % KEYS;
        let floor = world.floor(key);
        let response = connection.send(client::get(format!("{url}/{key}"))).await;
        world.reads.fetch_add(1, SeqCst);
        match response.text().parse::<u64>() {
            Ok(version) if response.status == 200 && version >= floor => {}
            Ok(version) if response.status == 200 => {
                let fields = &response.headers;
                *world.wrong.lock() =
                    Some(format!("{url}/{key}: version {version} where {floor} was promised: {fields:?}"));
            }
            _ => {
                world.errors.fetch_add(1, SeqCst);
            }
        }
    }
}

/// Changes keys and has them purged, here and there.
async fn write(world: Arc<World>, admins: Vec<String>, number: u64) {
    let mut n = number << 32;
    while !world.is_over() {
        n += 1;
        // Each writer has keys of its own: what it is told is about its own change.
        let key = scattered(n) % (KEYS / 2) * 2 + usize::from(number % 2 == 1);
        let version = world.versions[key].fetch_add(1, SeqCst) + 1;
        let ack = if scattered(n + (1 << 31)).is_multiple_of(4) { "log" } else { "fleet" };
        let call = json!({"tags": [format!("k{key}")], "ack": ack, "id": format!("change {n}")});
        loop {
            let admin = &admins[scattered(n + (1 << 30)) % admins.len()];
            let answer = client::request("POST", format!("{admin}/purge")).json(&call).attempt().await;
            if world.is_over() {
                return;
            }
            match answer.map(|answer| answer.status) {
                Some(200) if ack == "fleet" => {
                    world.acknowledged[key].fetch_max(version, SeqCst);
                    world.purges[1].fetch_add(1, SeqCst);
                }
                Some(200) => {
                    *world.logged[key].lock() = (Instant::now(), version);
                    world.purges[0].fetch_add(1, SeqCst);
                }
                _ => {
                    world.refused.fetch_add(1, SeqCst);
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
            }
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// One disturbance, and the way back to order.
async fn disturb(number: usize, cluster: &redis::Cluster, nodes: &[Gateway]) -> &'static str {
    let control = cluster.master_of(b"{larder.fleet}:log");
    let other = (0..6).map(|index| cluster.master_of(cluster.id(index).as_bytes())).find(|index| *index != control);
    let replica = cluster.replica_of(control);
    match number % 8 {
        0 => {
            assert!(cluster.node(replica).cli(&["cluster", "failover"]).contains("OK"));
            "fail-over of the log's master"
        }
        1 => {
            nodes[0].signal("STOP");
            sleep(2 * LEASE).await;
            nodes[0].signal("CONT");
            "a node asleep"
        }
        2 => {
            cluster.node(control).kill9();
            eventually("a new master", || async {
                cluster.node(replica).cli(&["role"]).starts_with("master").then_some(())
            })
            .await;
            cluster.node(control).start_again().await;
            "kill -9 of the log's master"
        }
        3 => {
            assert!(cluster.node(replica).cli(&["cluster", "failover", "takeover"]).contains("OK"));
            "take-over of the log's master"
        }
        4 => {
            // The deposed master wakes up and believes for a moment that it is one still.
            cluster.node(control).pause();
            sleep(Duration::from_millis(200)).await;
            assert!(cluster.node(replica).cli(&["cluster", "failover", "takeover"]).contains("OK"));
            sleep(LEASE).await;
            cluster.node(control).resume();
            "take-over of the log's master while it sleeps"
        }
        5 => {
            if let Some(other) = other {
                cluster.node(other).kill9();
                sleep(Duration::from_secs(3)).await;
                cluster.node(other).start_again().await;
            }
            "kill -9 of another master"
        }
        6 => {
            cluster.node(control).pause();
            sleep(Duration::from_millis(700)).await;
            cluster.node(control).resume();
            "the log's master hangs"
        }
        _ => {
            nodes[1].signal("STOP");
            nodes[2].signal("STOP");
            sleep(LEASE).await;
            assert!(cluster.node(replica).cli(&["cluster", "failover", "takeover"]).contains("OK"));
            sleep(LEASE).await;
            nodes[1].signal("CONT");
            nodes[2].signal("CONT");
            "two nodes asleep during a take-over"
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_older_than_what_was_promised_is_read() {
    let wanted: u64 = std::env::var("LARDER_READS").ok().and_then(|reads| reads.parse().ok()).unwrap_or(20_000);
    let long = wanted > 100_000;
    let cluster = redis::cluster().run().await;
    let world = World::new();
    let origin = origin_of(&world).await;
    let secret = tempfile::tempdir().expect("a temporary directory");
    let nodes = nodes(&cluster, &origin, &secret).await;
    let mut tasks = JoinSet::new();
    for (number, node) in nodes.iter().enumerate() {
        for reader in 0..4 {
            let seed = (number * 4 + reader) as u64 * 1_000_000_007;
            tasks.spawn(read(Arc::clone(&world), node.url(""), node.data(), seed));
        }
    }
    let admins: Vec<String> = nodes.iter().map(Gateway::admin_base).collect();
    for writer in 0..2 {
        tasks.spawn(write(Arc::clone(&world), admins.clone(), writer));
    }
    let (start, mut number) = (Instant::now(), 0);
    let least = if long { 24 } else { 4 };
    while !world.is_over() && (world.reads.load(SeqCst) < wanted || number < least) {
        sleep(Duration::from_millis(if long { 3000 } else { 500 })).await;
        let what = disturb(number, &cluster, &nodes).await;
        cluster.wait_ok().await;
        println!("{:6.1} s  {:>8} reads  {what}", start.elapsed().as_secs_f64(), world.reads.load(SeqCst));
        number += 1;
    }
    // All is in order again, and purges are acknowledged.
    let before = world.purges[1].load(SeqCst);
    eventually("purges go on", || async {
        (world.is_over() || world.purges[1].load(SeqCst) > before + 10).then_some(())
    })
    .await;
    world.done.store(true, SeqCst);
    tasks.join_all().await;
    for node in &nodes {
        let fleet = node.admin_json("/nodes").await;
        assert!(fleet["audits"].as_u64() > Some(0) && fleet["stale_reads"] == 0, "{fleet}");
    }
    let count = |number: &AtomicU64| number.load(SeqCst);
    println!(
        "{} reads, {} purges by the fleet and {} by the log acknowledged, {} tries refused, {number} disturbances, {:.0} s",
        count(&world.reads),
        count(&world.purges[1]),
        count(&world.purges[0]),
        count(&world.refused),
        start.elapsed().as_secs_f64()
    );
    assert_eq!(*world.wrong.lock(), None);
    assert_eq!(count(&world.errors), 0, "what happens to Redis is no client's error");
}
