//! Several nodes over a real server, which is stopped, emptied and set back.

use std::time::Duration;

use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::time::Instant;

use larder::{
    files::Lock,
    kv::{self, Kv},
    object::{
        scope::{Position, Scope},
        time::Timestamp,
    },
    purge::{
        Ack, Config, Fleet, FleetConfig, Log, Mode, Purge, PurgeError, PurgeId, Standing,
        fleet::{
            Identity,
            config::{Gone, Replica},
        },
    },
};

use crate::support::{self, redis::Server};

/// Long enough for a busy machine to keep it.
const LEASE: Duration = Duration::from_millis(1200);

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);

/// The value of a key as the server itself writes it.
async fn dump(server: &Server, key: &str) -> Vec<u8> {
    match command(server, &[b"DUMP", key.as_bytes()]).await {
        ::redis::Value::BulkString(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

async fn command(server: &Server, args: &[&[u8]]) -> ::redis::Value {
    let client = ::redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("it runs");
    let mut command = ::redis::Cmd::new();
    args.iter().for_each(|arg| {
        command.arg(*arg);
    });
    command.query_async(&mut connection).await.expect("a command")
}

struct Node {
    fleet: Fleet,
    log: Log,
    directory: TempDir,
}

fn config(log_max: usize) -> FleetConfig {
    FleetConfig {
        node: String::new(),
        lease: LEASE,
        ack_timeout: Duration::from_secs(5),
        confirm_timeout: Duration::from_secs(1),
        replica: Replica::Auto,
        redis_gone: Gone::Serve,
        queue_max: 10,
        log_max,
    }
}

fn node_in(server: &Server, name: &str, log_max: usize, directory: TempDir) -> Node {
    node_of(server, "test", name, log_max, directory)
}

fn fleet_of(server: &Server, namespace: &str, name: &str) -> Node {
    node_of(server, namespace, name, 1000, tempfile::tempdir().expect("a directory"))
}

fn node_of(server: &Server, namespace: &str, name: &str, log_max: usize, directory: TempDir) -> Node {
    let registry = &mut Registry::default();
    let own = Config { fsync: false, scopes_max: 1000, call_scopes_max: 100, refresh_max: 0, refresh_rate: 1 };
    let log = Log::open(&own, directory.path(), registry).expect("free and writable");
    let redis = kv::Config {
        urls: vec![server.url()],
        username: String::new(),
        password: String::new(),
        tls_ca: String::new(),
        tls_cert: String::new(),
        tls_key: String::new(),
        tls_verify: true,
        connect_timeout: Duration::from_secs(1),
        breaker_failures: 5,
        breaker_pause: Duration::from_millis(50),
        in_flight_max: 100,
    };
    let kv = Kv::start(&redis, registry).expect("a URL");
    let identity = Identity { name: name.into(), namespace: namespace.into(), secret: [7; 32] };
    let clock = || std::time::SystemTime::now().into();
    let fleet = Fleet::join(&config(log_max), identity, kv, log.clone(), 1000, clock, registry).expect("randomness");
    Node { fleet, log, directory }
}

fn node(server: &Server, name: &str) -> Node {
    fleet_of(server, "test", name)
}

fn scope(n: u64) -> Scope {
    Scope::tag(b"", &n.to_string())
}

fn purge(n: u64) -> Purge {
    Purge {
        id: PurgeId::random().expect("randomness"),
        at: Timestamp::from(std::time::SystemTime::now()),
        mode: Mode::Hard,
        scopes: vec![scope(n)],
        hold: Duration::ZERO,
        note: "a test".into(),
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Node {
    async fn up_to_date(&self) {
        eventually("up to date", || !self.fleet.is_fenced(Instant::now())).await;
    }

    /// Whether what was stored before any purge counts as purged here.
    fn has_purged(&self, n: u64) -> bool {
        self.log.verdict(Position::START, &[Scope::everything(), scope(n)]) == Standing::Hard
    }

    async fn restarted(self, server: &Server) -> Self {
        let Self { fleet, log, directory } = self;
        drop((fleet, log));
        // Its directory is free once its tasks have gone.
        let start = Instant::now();
        while Lock::take(directory.path()).is_err() {
            assert!(start.elapsed() < PATIENCE, "the directory is not let go");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        node_in(server, "again", 1000, directory)
    }
}

#[tokio::test]
async fn acknowledged_by_all_is_applied_by_all() {
    let server = support::redis::server().run().await;
    let (a, b, c) = (node(&server, "a"), node(&server, "b"), node(&server, "c"));
    for one in [&a, &b, &c] {
        one.up_to_date().await;
    }
    // All have to be in each other's lists.
    eventually("three nodes", || a.fleet.stats().nodes.len() == 3).await;
    for n in 1..20 {
        let stamp = b.fleet.position();
        let (_, spread) = a.fleet.purge(purge(n), Ack::Fleet).await.expect("acknowledged");
        assert_eq!((spread.nodes, spread.gone, spread.seq), (2, 0, n));
        for one in [&a, &b, &c] {
            assert!(one.has_purged(n));
            assert_eq!(one.fleet.standing(stamp, &[scope(n)]), Standing::Hard);
            assert_eq!(one.fleet.standing(one.fleet.position(), &[scope(n)]), Standing::Untouched);
        }
    }
}

#[tokio::test]
async fn the_same_purge_again_is_the_same_purge() {
    let server = support::redis::server().run().await;
    let (a, b) = (node(&server, "a"), node(&server, "b"));
    a.up_to_date().await;
    b.up_to_date().await;
    let one = purge(1);
    let (_, first) = a.fleet.purge(one.clone(), Ack::Log).await.expect("acknowledged");
    let (_, second) = b.fleet.purge(one, Ack::Log).await.expect("acknowledged");
    assert_eq!(first.seq, second.seq);
    assert_eq!(a.fleet.purge(purge(2), Ack::Log).await.expect("acknowledged").1.seq, first.seq + 1);
}

#[tokio::test]
async fn who_was_away_catches_up_before_it_serves() {
    let server = support::redis::server().run().await;
    let (a, b) = (node(&server, "a"), node(&server, "b"));
    a.up_to_date().await;
    b.up_to_date().await;
    a.fleet.purge(purge(1), Ack::Fleet).await.expect("acknowledged");
    let Node { fleet, log, directory } = b;
    drop((fleet, log));
    a.fleet.purge(purge(2), Ack::Log).await.expect("acknowledged");
    while Lock::take(directory.path()).is_err() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let b = node_in(&server, "b", 1000, directory);
    assert!(b.fleet.is_fenced(Instant::now()) && b.has_purged(1) && !b.has_purged(2));
    b.up_to_date().await;
    assert!(b.has_purged(2));
    let before = b.log.position();
    let b = b.restarted(&server).await;
    b.up_to_date().await;
    assert_eq!(b.log.position(), before, "nothing is applied twice");
}

#[tokio::test]
async fn a_node_that_has_gone_is_waited_for_as_long_as_its_lease_lasts() {
    let server = support::redis::server().run().await;
    let (a, b) = (node(&server, "a"), node(&server, "b"));
    a.up_to_date().await;
    b.up_to_date().await;
    eventually("two nodes", || a.fleet.stats().nodes.len() == 2).await;
    drop(b);
    let (_, spread) = a.fleet.purge(purge(1), Ack::Fleet).await.expect("acknowledged");
    assert_eq!((spread.nodes, spread.gone), (0, 1));
    // One that leaves is not waited for at all.
    let c = node(&server, "c");
    c.up_to_date().await;
    eventually("three nodes", || a.fleet.stats().nodes.len() == 3).await;
    c.fleet.leave().await;
    let (_, spread) = a.fleet.purge(purge(2), Ack::Fleet).await.expect("acknowledged");
    assert_eq!(spread.nodes, 0);
}

#[tokio::test]
async fn a_snapshot_takes_the_place_of_a_long_log() {
    let server = support::redis::server().run().await;
    let a = node_in(&server, "a", 100, tempfile::tempdir().expect("a directory"));
    a.up_to_date().await;
    for n in 0..200 {
        a.fleet.purge(purge(n), Ack::Log).await.expect("acknowledged");
    }
    // It is written after a purge, once a beat has told how long the log is.
    let start = Instant::now();
    while server.cli(&["EXISTS", "test:{test.fleet}:snapshot"]).trim() != "1" {
        assert!(start.elapsed() < PATIENCE, "no snapshot");
        tokio::time::sleep(LEASE / 4).await;
        a.fleet.purge(purge(1), Ack::Log).await.expect("acknowledged");
    }
    // The records that nodes remember stay; without them the snapshot alone has to do.
    server.cli(&["XTRIM", "test:{test.fleet}:log", "MAXLEN", "1"]);
    a.fleet.purge(purge(300), Ack::Log).await.expect("acknowledged");
    let b = node(&server, "b");
    b.up_to_date().await;
    for n in (0..200).chain([300]) {
        assert!(b.has_purged(n), "{n}");
    }
}

#[tokio::test]
async fn a_lost_tail_is_found_and_given_back() {
    let server = support::redis::server().run().await;
    let (a, b) = (node(&server, "a"), node(&server, "b"));
    a.up_to_date().await;
    b.up_to_date().await;
    a.fleet.purge(purge(1), Ack::Fleet).await.expect("acknowledged");
    let stamp = a.fleet.position();
    let keys = ["test:{test.fleet}:meta", "test:{test.fleet}:log"];
    let dumps = [dump(&server, keys[0]).await, dump(&server, keys[1]).await];
    let lost = purge(2);
    let id = format!("test:{{test.fleet}}:id:{}", lost.id);
    a.fleet.purge(lost, Ack::Fleet).await.expect("acknowledged");
    let ambiguous = a.fleet.position();
    // As a replica that was a moment behind.
    server.cli(&["DEL", &id]);
    for (key, dump) in keys.iter().zip(&dumps) {
        command(&server, &[b"RESTORE", key.as_bytes(), b"0", dump, b"REPLACE"]).await;
    }
    eventually("a new epoch", || a.fleet.stats().epoch == 2 && b.fleet.stats().epoch == 2).await;
    let c = node(&server, "c");
    c.up_to_date().await;
    eventually("given back", || c.has_purged(2)).await;
    assert!(c.has_purged(1));
    a.up_to_date().await;
    b.up_to_date().await;
    for one in [&a, &b, &c] {
        let standing = |at, n| one.fleet.standing(at, &[scope(n)]);
        assert_eq!(standing(stamp, 2), Standing::Hard);
        assert_eq!(standing(ambiguous, 9), Standing::Hard, "a position that was given twice");
        assert_eq!(standing(stamp, 9), Standing::Untouched, "what is common to both stays");
    }
    let (_, spread) = b.fleet.purge(purge(3), Ack::Fleet).await.expect("acknowledged");
    assert_eq!(spread.epoch, 2);
}

#[tokio::test]
async fn another_record_in_the_place_of_a_lost_one_is_not_passed_over() {
    let server = support::redis::server().run().await;
    let a = node(&server, "a");
    a.up_to_date().await;
    a.fleet.purge(purge(1), Ack::Log).await.expect("acknowledged");
    let keys = ["test:{test.fleet}:meta", "test:{test.fleet}:log"];
    let dumps = [dump(&server, keys[0]).await, dump(&server, keys[1]).await];
    let b = node(&server, "b");
    b.up_to_date().await;
    let lost = purge(2);
    let id = format!("test:{{test.fleet}}:id:{}", lost.id);
    a.fleet.purge(lost, Ack::Fleet).await.expect("acknowledged");
    // Set back and written to at once, in one step: nobody can look in between. What is written is a purge of 3, as
    // another fleet has it.
    let other = fleet_of(&server, "other", "other");
    other.up_to_date().await;
    other.fleet.purge(purge(3), Ack::Log).await.expect("acknowledged");
    let code = r"
        redis.call('DEL', KEYS[3])
        redis.call('RESTORE', KEYS[1], 0, ARGV[1], 'REPLACE')
        redis.call('RESTORE', KEYS[2], 0, ARGV[2], 'REPLACE')
        local record = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1][2][6]
        local m = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'digest')
        local digest = redis.sha1hex(m[3] .. record)
        redis.call('XADD', KEYS[2], m[1] .. '-' .. (m[2] + 1), 'p', m[3], 'h', digest, 'd', record)
        redis.call('HSET', KEYS[1], 'seq', m[2] + 1, 'digest', digest)";
    let [meta, log] = keys.map(str::as_bytes);
    let source: &[u8] = b"other:{other.fleet}:log";
    let eval: [&[u8]; 9] = [b"EVAL", code.as_bytes(), b"4", meta, log, id.as_bytes(), source, &dumps[0], &dumps[1]];
    command(&server, &eval).await;
    eventually("the one in its place", || a.has_purged(3) && b.has_purged(3)).await;
    let c = node(&server, "c");
    c.up_to_date().await;
    eventually("both", || c.has_purged(2) && c.has_purged(3)).await;
}

#[tokio::test]
async fn an_emptied_redis_is_a_new_life() {
    let server = support::redis::server().run().await;
    let (a, b) = (node(&server, "a"), node(&server, "b"));
    a.up_to_date().await;
    b.up_to_date().await;
    a.fleet.purge(purge(1), Ack::Fleet).await.expect("acknowledged");
    let (stamp, life, position) = (a.fleet.position(), a.fleet.stats().life, a.log.position());
    server.cli(&["FLUSHALL"]);
    eventually("a new life", || [&a, &b].iter().all(|one| ![0, life].contains(&one.fleet.stats().life))).await;
    a.up_to_date().await;
    b.up_to_date().await;
    assert_eq!(a.fleet.standing(stamp, &[scope(9)]), Standing::Hard, "stamps of the old life are worth nothing");
    assert_eq!(a.log.verdict(position, &[Scope::everything()]), Standing::Soft, "all is to be confirmed");
    let c = node(&server, "c");
    c.up_to_date().await;
    eventually("what was purged lately is in the new log", || c.has_purged(1)).await;
    // At once: who has not come to the new log yet may still serve for as long as the old lease lasts.
    let (_, spread) = b.fleet.purge(purge(2), Ack::Fleet).await.expect("acknowledged");
    assert_eq!((spread.nodes, spread.gone), (2, 0));
}

#[tokio::test]
async fn cut_off_for_longer_than_the_lease_is_fenced() {
    let server = support::redis::server().run().await;
    let a = node(&server, "a");
    a.up_to_date().await;
    server.pause();
    eventually("fenced", || a.fleet.is_fenced(Instant::now())).await;
    assert!(!a.fleet.confirm(Duration::from_millis(50)).await);
    let error = a.fleet.purge(purge(1), Ack::Log).await.expect_err("nothing is claimed");
    assert!(matches!(error, PurgeError::Unlogged(_)), "{error}");
    server.resume();
    a.up_to_date().await;
    assert!(a.fleet.confirm(PATIENCE).await);
}

#[tokio::test]
async fn while_nobody_can_reach_redis_nobody_can_purge() {
    let server = support::redis::server().run().await;
    let a = node(&server, "a");
    a.up_to_date().await;
    server.kill9();
    // Several leases long.
    let start = Instant::now();
    while start.elapsed() < 4 * LEASE {
        assert!(!a.fleet.is_fenced(Instant::now()), "after {:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Who starts now has nothing from before that could be trusted.
    let b = node(&server, "b");
    b.up_to_date().await;
    let now = Timestamp::from(std::time::SystemTime::now());
    assert!(b.fleet.may_serve(now.plus(Duration::from_secs(1)), Instant::now()));
    assert!(!b.fleet.may_serve(Timestamp::from_secs(1), Instant::now()));
    server.start_again().await;
    eventually("seen again", || b.fleet.may_serve(Timestamp::from_secs(1), Instant::now())).await;
}

#[tokio::test]
async fn acknowledged_here_reaches_the_others_when_redis_is_back() {
    let server = support::redis::server().run().await;
    let (a, b) = (node(&server, "a"), node(&server, "b"));
    a.up_to_date().await;
    b.up_to_date().await;
    server.kill9();
    let (_, spread) = a.fleet.purge(purge(1), Ack::Local).await.expect("here");
    assert!(spread.queued && a.has_purged(1) && !b.has_purged(1));
    server.start_again().await;
    eventually("the others", || b.has_purged(1)).await;
    eventually("nothing waits", || a.fleet.stats().queued == 0).await;
}

#[tokio::test]
async fn too_many_purges_that_wait_are_refused() {
    let server = support::redis::server().run().await;
    let a = node(&server, "a");
    a.up_to_date().await;
    server.kill9();
    for n in 0..10 {
        a.fleet.purge(purge(n), Ack::Local).await.expect("there is room");
    }
    let error = a.fleet.purge(purge(10), Ack::Local).await.expect_err("there is none");
    assert!(matches!(error, PurgeError::QueueFull { max: 10 }), "{error}");
    assert!(!a.has_purged(10), "nothing of it is done");
}

#[tokio::test]
async fn what_should_not_have_been_served_is_counted() {
    let server = support::redis::server().run().await;
    let a = node(&server, "a");
    a.up_to_date().await;
    let now = Timestamp::from(std::time::SystemTime::now());
    let ago = |seconds: u64| Timestamp::from_millis(now.as_millis() - seconds * 1000);
    a.fleet.purge(Purge { at: ago(10), ..purge(1) }, Ack::Log).await.expect("acknowledged");
    let audited = async |scopes: &[Scope], stored, audits| {
        a.fleet.audit(scopes.into(), stored);
        eventually("a look", || a.fleet.stats().audits == audits).await;
        a.fleet.stats().stale_reads
    };
    assert_eq!(audited(&[scope(1)], ago(5), 1).await, 0, "fetched since");
    assert_eq!(audited(&[scope(2)], ago(20), 2).await, 0, "another one");
    assert_eq!(audited(&[scope(2), scope(1)], ago(20), 3).await, 1);
    a.fleet.purge(purge(2), Ack::Log).await.expect("acknowledged");
    assert_eq!(audited(&[scope(2)], ago(20), 4).await, 1, "within the lease");
}

#[tokio::test]
async fn a_strict_look_sees_what_was_purged_a_moment_ago() {
    let server = support::redis::server().run().await;
    let (a, b) = (node(&server, "a"), node(&server, "b"));
    a.up_to_date().await;
    b.up_to_date().await;
    for n in 0..50 {
        a.fleet.purge(purge(n), Ack::Log).await.expect("acknowledged");
        assert!(b.fleet.confirm(PATIENCE).await);
        assert!(b.has_purged(n));
    }
}
