//! How a Redis Cluster is reached, with real ones: slots that move, masters that go, and nodes that hang.

use std::time::Duration;

use larder::kv::{Class, Error, Kind, Kv, Script, value};
use redis::Value;
use tokio::time::{Instant, sleep};

use super::support::{
    eventually,
    kv::{LONG, Log, call, config, eventually_set, get, read, set, start, started},
    redis as real, within,
};

/// How long a new master may take to be used once the cluster itself has recovered.
const FOUND: Duration = Duration::from_secs(2);

/// The address of the node that calls about `key` go to.
fn address_of(cluster: &real::Cluster, key: &str) -> String {
    format!("127.0.0.1:{}", cluster.node(cluster.master_of(key.as_bytes())).port())
}

/// Returns when `kv` knows no other masters than those of the keys.
async fn masters(kv: &Kv, cluster: &real::Cluster, keys: &[&str]) {
    eventually("the masters to be known", async || {
        let known = kv.stats().nodes;
        let has = |key: &&str| known.iter().any(|node| node.address == address_of(cluster, key) && node.up);
        keys.iter().all(has).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_slot_is_found() {
    static SCRIPT: Script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let cluster = real::cluster().run().await;
    // One seed is enough.
    let kv = started(&cluster.urls()[..1]).await;
    for number in 0..500 {
        let key = format!("key:{number}");
        call(&kv, &key, &set(&key, &number.to_string())).await.expect("an answer");
        assert_eq!(read(&kv, &key).await, Ok(Some(number.to_string())));
    }
    let held: usize = (0..3).map(|node| cluster.node(node).cli(&["dbsize"]).parse::<usize>().expect("a number")).sum();
    assert_eq!(held, 500);
    let sum = kv.run(Class::Control, LONG, &SCRIPT, &[b"key:7"], &[b"10"]).await.expect("an answer");
    assert_eq!(value::int(&sum), Ok(17));
    let across = kv.run(Class::Control, LONG, &SCRIPT, &[b"key:7", b"key:8"], &[b"10"]).await.expect_err("two slots");
    assert_eq!(across.code(), Some("CROSSSLOT"));
    let mut pipeline = redis::pipe();
    pipeline.add_command(set("{tag}a", "1")).add_command(get("{tag}a")).add_command(get("{tag}b"));
    let answers = kv.pipeline(Class::Small, LONG, b"{tag}", &pipeline).await;
    assert_eq!(answers, Ok(vec![Value::Okay, Value::BulkString(b"1".to_vec()), Value::Nil]));
    let stats = kv.stats();
    assert_eq!((stats.topology, stats.nodes.len()), (Kind::Cluster, 3));
    assert_eq!(stats.nodes.iter().map(|node| node.slots).sum::<u32>(), 16384);
    // A replica counts once it has told the cluster how far it is.
    eventually("a replica", async || {
        kv.refresh();
        (kv.replicas(b"key:7") == 1).then_some(())
    })
    .await;
    let dedicated = kv.dedicated(b"key:7", LONG).await.expect("a connection");
    assert_eq!(dedicated.address(), address_of(&cluster, "key:7"));
}

#[tokio::test]
async fn a_database_of_a_cluster_is_refused() {
    let cluster = real::cluster().run().await;
    let (log, _guard) = Log::capture();
    let kv = start(&config(&[cluster.urls()[0].clone() + "/1"]));
    eventually("a word of it in the log", async || log.count("no database but 0").checked_sub(1)).await;
    assert_eq!(read(&kv, "k").await, Err(Error::Unconnected));
    assert_eq!(kv.stats().nodes, []);
}

#[tokio::test]
async fn a_master_that_hands_over_is_followed_without_an_error() {
    let cluster = real::cluster().run().await;
    let kv = started(&cluster.urls()).await;
    let key = cluster.key_of(0, 0);
    eventually_set(&kv, &key, "v").await;
    let mut dedicated = kv.dedicated(key.as_bytes(), LONG).await.expect("a connection");
    let replica = cluster.replica_of(0);
    assert_eq!(cluster.node(replica).cli(&["cluster", "failover"]), "OK");
    let role = async || cluster.node(0).cli(&["role"]).starts_with("slave").then_some(());
    eventually("the old master to be a replica", role).await;
    // Whoever is asked says where it is now.
    assert_eq!(read(&kv, &key).await, Ok(Some("v".to_owned())));
    call(&kv, &key, &set(&key, "w")).await.expect("the new master");
    assert_eq!(cluster.node(replica).cli(&["get", &key]), "w");
    eventually("the connection to be known as outdated", async || (!dedicated.is_current()).then_some(())).await;
    assert_eq!(dedicated.call(LONG, &set(&key, "x")).await, Err(Error::Moved));
}

#[tokio::test]
async fn a_master_that_is_taken_over_is_followed() {
    let cluster = real::cluster().run().await;
    let kv = started(&cluster.urls()).await;
    let key = cluster.key_of(1, 0);
    let replica = cluster.replica_of(1);
    assert_eq!(cluster.node(replica).cli(&["cluster", "failover", "takeover"]), "OK");
    let role = async || cluster.node(1).cli(&["role"]).starts_with("slave").then_some(());
    eventually("the old master to be a replica", role).await;
    call(&kv, &key, &set(&key, "w")).await.expect("the new master");
    assert_eq!(cluster.node(replica).cli(&["get", &key]), "w");
}

#[tokio::test]
async fn a_killed_master_costs_the_others_nothing_and_its_slots_come_back() {
    let cluster = real::cluster().run().await;
    let (log, _guard) = Log::capture();
    let kv = started(&cluster.urls()).await;
    let keys = [0, 1, 2].map(|node| cluster.key_of(node, 0));
    let replica = cluster.replica_of(0);
    cluster.node(0).kill9();
    let recovered = async || {
        let node = cluster.node(replica);
        let well = node.cli(&["role"]).starts_with("master") && node.cli(&["cluster", "info"]).contains("state:ok");
        well.then_some(())
    };
    eventually("the replica to take over", async || {
        for key in &keys[1..] {
            call(&kv, key, &set(key, "v")).await.expect("a node that is not concerned");
        }
        let begun = Instant::now();
        // An error before, and an answer perhaps after the replica has taken over.
        let _ = call(&kv, &keys[0], &set(&keys[0], "v")).await;
        assert!(begun.elapsed() < LONG / 10, "{:?}", begun.elapsed());
        recovered().await
    })
    .await;
    let begun = Instant::now();
    eventually_set(&kv, &keys[0], "w").await;
    assert!(begun.elapsed() < FOUND, "{:?}", begun.elapsed());
    assert_eq!(cluster.node(replica).cli(&["get", &keys[0]]), "w");
    cluster.node(0).start_again().await;
    cluster.wait_ok().await;
    eventually("the replica to count", async || {
        kv.refresh();
        (kv.replicas(keys[0].as_bytes()) == 1).then_some(())
    })
    .await;
    assert_eq!(read(&kv, &keys[0]).await, Ok(Some("w".to_owned())));
    assert_eq!(log.count("Redis is unreachable"), 1);
    assert!(log.count("") < 10, "{log:?}");
}

#[tokio::test]
async fn a_cluster_that_is_down_as_a_whole_says_so_and_comes_back() {
    let cluster = real::cluster().argument("--cluster-require-full-coverage yes").run().await;
    let kv = started(&cluster.urls()).await;
    let keys = [0, 1, 2].map(|node| cluster.key_of(node, 0));
    let (master, replica) = (cluster.node(0), cluster.node(cluster.replica_of(0)));
    // Nobody to take over.
    replica.kill9();
    master.kill9();
    eventually("it to be down", async || {
        let error = call(&kv, &keys[1], &set(&keys[1], "v")).await.err()?;
        (error.code() == Some("CLUSTERDOWN")).then_some(())
    })
    .await;
    master.start_again().await;
    replica.start_again().await;
    cluster.wait_ok().await;
    let begun = Instant::now();
    for key in &keys {
        eventually_set(&kv, key, "w").await;
    }
    assert!(begun.elapsed() < FOUND, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_hung_master_makes_no_other_slower() {
    const WITHIN: Duration = Duration::from_millis(20);
    let cluster = real::cluster().run().await;
    let kv = started(&cluster.urls()).await;
    let keys = [0, 1, 2].map(|node| cluster.key_of(node, 0));
    let hung = async || kv.call(Class::Small, WITHIN, keys[0].as_bytes(), &set(&keys[0], "v")).await;
    let replica = cluster.replica_of(0);
    cluster.node(0).pause();
    let (mut slowest, mut timeouts, mut opens) = (Duration::ZERO, 0, 0);
    within("the replica to take over, and to be used", async {
        loop {
            // Calls to all three at once, so that the hung one could stand in the way of the others.
            let begun = Instant::now();
            let others = async {
                for key in &keys[1..] {
                    call(&kv, key, &set(key, "v")).await.expect("a node that does not hang");
                }
                begun.elapsed()
            };
            let (answer, took) = tokio::join!(hung(), others);
            slowest = slowest.max(took);
            match answer {
                Ok(_) => return,
                Err(Error::Timeout) => timeouts += 1,
                Err(Error::Open) => opens += 1,
                Err(_) => {}
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(slowest < Duration::from_millis(250), "{slowest:?}");
    assert!(opens > timeouts, "{opens} {timeouts}");
    assert_eq!(cluster.node(replica).cli(&["get", &keys[0]]), "v");
    // The old one wakes up, takes itself for the master for a moment, and is put right by the others.
    cluster.node(0).resume();
    cluster.wait_ok().await;
    masters(&kv, &cluster, &[&keys[0], &keys[1], &keys[2]]).await;
    assert_eq!(read(&kv, &keys[0]).await, Ok(Some("v".to_owned())));
}

#[tokio::test]
async fn a_slot_on_the_move_is_found_on_both_sides() {
    let cluster = real::cluster().run().await;
    let kv = started(&cluster.urls()).await;
    let base = cluster.key_of(0, 0);
    let key = |name: &str| format!("{{{base}}}{name}");
    let (stays, moves, fresh) = (key("stays"), key("moves"), key("fresh"));
    for key in [&stays, &moves] {
        call(&kv, key, &set(key, "old")).await.expect("an answer");
    }
    let slot = larder::kv::slot(base.as_bytes()).to_string();
    let (from, to) = (cluster.node(0), cluster.node(1));
    assert_eq!(to.cli(&["cluster", "setslot", &slot, "importing", &cluster.id(0)]), "OK");
    assert_eq!(from.cli(&["cluster", "setslot", &slot, "migrating", &cluster.id(1)]), "OK");
    let port = to.port().to_string();
    assert_eq!(from.cli(&["migrate", "127.0.0.1", &port, &moves, "0", "5000"]), "OK");

    assert_eq!(read(&kv, &stays).await, Ok(Some("old".to_owned())));
    assert_eq!(read(&kv, &moves).await, Ok(Some("old".to_owned())));
    call(&kv, &fresh, &set(&fresh, "new")).await.expect("where new keys go");
    let mut pipeline = redis::pipe();
    for key in [&stays, &moves, &fresh] {
        pipeline.add_command(get(key));
    }
    let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
    let expected = vec![text("old"), text("old"), text("new")];
    assert_eq!(kv.pipeline(Class::Small, LONG, base.as_bytes(), &pipeline).await, Ok(expected.clone()));
    assert_eq!(kv.stats().nodes.len(), 3);

    assert_eq!(from.cli(&["migrate", "127.0.0.1", &port, &stays, "0", "5000"]), "OK");
    for node in [to, from] {
        assert_eq!(node.cli(&["cluster", "setslot", &slot, "node", &cluster.id(1)]), "OK");
    }
    assert_eq!(kv.pipeline(Class::Small, LONG, base.as_bytes(), &pipeline).await, Ok(expected));
    assert_eq!(read(&kv, &stays).await, Ok(Some("old".to_owned())));
}
