//! How one Redis is reached, with real ones: what is answered, what fails and how fast, and what comes back by itself.

use std::time::Duration;

use larder::kv::{Class, Config, Error, Kind, Kv, Script, value};
use prometheus_client::registry::Registry;
use redis::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::support::{
    eventually,
    kv::{LONG, Log, call, config, eventually_set, get, read, set, start, started},
    redis as real, within,
};

/// What "at once" may take on a busy machine, for a hundred calls.
const AT_ONCE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn one_server_answers() {
    let server = real::server().run().await;
    let kv = started(&[server.url()]).await;
    for class in Class::ALL {
        let key = class.name();
        kv.call(class, LONG, key.as_bytes(), &set(key, "v")).await.expect("an answer");
    }
    assert_eq!(read(&kv, "small").await, Ok(Some("v".to_owned())));
    assert_eq!(read(&kv, "none").await, Ok(None));
    let refused = call(&kv, "small", redis::cmd("LPUSH").arg("small").arg(1)).await.expect_err("a string");
    assert_eq!((refused.code(), refused.is_server()), (Some("WRONGTYPE"), true));
    let mut pipeline = redis::pipe();
    pipeline.add_command(set("a", "1")).cmd("LPUSH").arg("a").arg(1).add_command(get("a"));
    let answers = kv.pipeline(Class::Small, LONG, b"a", &pipeline).await.expect("answers");
    let [ok, refused, one] = <[Value; 3]>::try_from(answers).expect("three");
    assert_eq!(ok, Value::Okay);
    assert_eq!(value::checked(refused).expect_err("a string").code(), Some("WRONGTYPE"));
    assert_eq!(value::int(&one), Ok(1));
    let stats = kv.stats();
    assert_eq!((stats.topology, stats.nodes.len(), stats.nodes[0].slots), (Kind::Single, 1, 16384));
    assert_eq!(kv.replicas(b"small"), 0);
}

#[tokio::test]
async fn replicas_are_counted_as_they_come() {
    let server = real::server().run().await;
    let kv = started(&[server.url()]).await;
    let _replica = real::server().argument(&format!("--replicaof 127.0.0.1 {}", server.port())).run().await;
    eventually("a replica", async || {
        kv.refresh();
        (kv.replicas(b"k") == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_script_is_sent_again_where_it_was_forgotten() {
    static SCRIPT: Script = Script::new("redis.call('SET', KEYS[1], ARGV[1]) return {KEYS[1], #ARGV}");
    let server = real::server().run().await;
    let kv = started(&[server.url()]).await;
    let run = async || kv.run(Class::Control, LONG, &SCRIPT, &[b"k"], &[b"a", b"b"]).await;
    let expected = Value::Array(vec![Value::BulkString(b"k".to_vec()), Value::Int(2)]);
    assert_eq!(run().await.as_ref(), Ok(&expected));
    assert_eq!(server.cli(&["script", "flush"]), "OK");
    assert_eq!(run().await.as_ref(), Ok(&expected));
    assert_eq!(read(&kv, "k").await, Ok(Some("a".to_owned())));
    assert_eq!(server.cli(&["script", "flush"]), "OK");
    let mut dedicated = kv.dedicated(b"k", LONG).await.expect("a connection");
    assert_eq!(dedicated.run(LONG, &SCRIPT, &[b"k"], &[b"a", b"b"]).await.as_ref(), Ok(&expected));
}

#[tokio::test]
async fn after_kill_errors_are_immediate_and_a_new_server_is_found() {
    let server = real::server().run().await;
    let kv = started(&[server.url()]).await;
    server.kill9();
    eventually("the loss to be noticed", async || (read(&kv, "k").await == Err(Error::Unconnected)).then_some(()))
        .await;
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(read(&kv, "k").await, Err(Error::Unconnected));
    }
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(kv.dedicated(b"k", LONG).await.expect_err("nobody listens").name(), "io");
    eventually("all connections to be lost", async || (!kv.is_up()).then_some(())).await;
    server.start_again().await;
    eventually_set(&kv, "k", "w").await;
    assert_eq!(read(&kv, "k").await, Ok(Some("w".to_owned())));
}

#[tokio::test]
async fn it_starts_without_a_server_and_picks_it_up() {
    let server = real::server().run().await;
    server.kill9();
    let kv = start(&config(&[server.url()]));
    let begun = Instant::now();
    assert_eq!(read(&kv, "k").await, Err(Error::Unconnected));
    assert_eq!(kv.dedicated(b"k", LONG).await.expect_err("no server").name(), "unconnected");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    server.start_again().await;
    eventually_set(&kv, "k", "v").await;
}

#[tokio::test]
async fn a_hung_server_costs_its_first_callers_their_time_and_the_next_none() {
    const WITHIN: Duration = Duration::from_millis(50);
    let server = real::server().run().await;
    let kv = started(&[server.url()]).await;
    let ask = async || kv.call(Class::Small, WITHIN, b"k", &get("k")).await;
    server.pause();
    for _ in 0..5 {
        let begun = Instant::now();
        assert_eq!(ask().await, Err(Error::Timeout));
        assert!(begun.elapsed() >= WITHIN, "{:?}", begun.elapsed());
    }
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(ask().await, Err(Error::Open));
    }
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    eventually("the breaker to be seen", async || kv.stats().nodes[0].breaker_open.then_some(())).await;
    assert!(!kv.is_up());
    // The other classes find out by themselves.
    let control = async || kv.call(Class::Control, LONG, b"k", &get("k")).await;
    eventually("the same of other connections", async || (control().await == Err(Error::Open)).then_some(())).await;
    server.resume();
    eventually_set(&kv, "k", "v").await;
    eventually("all of it to be well again", async || (kv.is_up() && !kv.stats().nodes[0].breaker_open).then_some(()))
        .await;
}

#[tokio::test]
async fn one_class_of_calls_holds_up_no_other_and_is_bounded() {
    let server = real::server().run().await;
    let kv = start(&Config { in_flight_max: 1, ..config(&[server.url()]) });
    for class in Class::ALL {
        eventually("a connection", async || kv.call(class, LONG, b"k", &get("k")).await.ok()).await;
    }
    let mut blocking = redis::cmd("BLPOP");
    blocking.arg("list").arg(0);
    let large = kv.call(Class::Large, LONG, b"list", &blocking);
    let others = async {
        eventually("it to block", async || {
            server.cli(&["info", "clients"]).contains("blocked_clients:1").then_some(())
        })
        .await;
        assert_eq!(kv.call(Class::Large, LONG, b"k", &get("k")).await, Err(Error::Busy));
        assert_eq!(read(&kv, "k").await, Ok(None));
        call(&kv, "list", redis::cmd("RPUSH").arg("list").arg("v")).await.expect("an answer");
    };
    let (answer, ()) = tokio::join!(large, others);
    assert_eq!(value::array(answer.expect("an answer")).expect("an array").len(), 2);
}

#[tokio::test]
async fn a_connection_of_ones_own_may_block_and_ends_when_dropped() {
    let server = real::server().run().await;
    let kv = started(&[server.url()]).await;
    let mut dedicated = kv.dedicated(b"stream", LONG).await.expect("a connection");
    assert_eq!(dedicated.address(), format!("127.0.0.1:{}", server.port()));
    assert!(dedicated.is_current());
    let mut tail = redis::cmd("XREAD");
    tail.arg("BLOCK").arg(0).arg("STREAMS").arg("stream").arg("$");
    let blocked = async || server.cli(&["info", "clients"]).contains("blocked_clients:1").then_some(());
    let written = async {
        eventually("it to block", blocked).await;
        call(&kv, "stream", redis::cmd("XADD").arg("stream").arg("*").arg("f").arg("v")).await.expect("an answer");
    };
    let (answer, ()) = tokio::join!(dedicated.call(LONG, &tail), written);
    assert_eq!(value::array(answer.expect("an answer")).expect("streams").len(), 1);
    let waited = dedicated.call(LONG, redis::cmd("WAIT").arg(0).arg(1)).await.expect("an answer");
    assert_eq!(value::int(&waited), Ok(0));
    let cut_off = dedicated.call(Duration::from_millis(20), &tail).await;
    assert_eq!(cut_off, Err(Error::Timeout));
    drop(dedicated);
    let gone = async || server.cli(&["info", "clients"]).contains("blocked_clients:0").then_some(());
    eventually("the server to be rid of it", gone).await;
}

#[tokio::test]
async fn a_user_with_a_password_and_a_database() {
    let users = "user default on nopass ~* &* +@all\nuser larder on >p@ss ~larder:* +@all -flushall\n";
    let server = real::server().aclfile(users).run().await;
    let url = server.url_as("larder", "p%40ss") + "/3";
    let kv = start(&config(&[url]));
    eventually_set(&kv, "larder:k", "v").await;
    assert_eq!(server.cli(&["-n", "3", "get", "larder:k"]), "v");
    assert_eq!(call(&kv, "other", &get("other")).await.expect_err("not allowed").code(), Some("NOPERM"));
    let set_apart = Config { username: "larder".to_owned(), password: "p@ss".to_owned(), ..config(&[server.url()]) };
    eventually_set(&start(&set_apart), "larder:k", "w").await;
    assert_eq!(server.cli(&["get", "larder:k"]), "w");
}

#[tokio::test]
async fn a_password_for_all() {
    let server = real::server().argument("--requirepass secret").run().await;
    let kv = start(&Config { password: "secret".to_owned(), ..config(&[server.url()]) });
    eventually_set(&kv, "k", "v").await;
    let (log, _guard) = Log::capture();
    let refused = start(&config(&[server.url_as("default", "wrong")]));
    eventually("a refusal in the log", async || log.count("WRONGPASS").checked_sub(1)).await;
    assert!(!refused.is_up());
    assert_eq!(read(&refused, "k").await, Err(Error::Unconnected));
}

#[tokio::test]
async fn tls_with_an_authority_and_a_certificate_of_ones_own() {
    let server = real::server().tls().run().await;
    let path = |path: std::path::PathBuf| path.to_str().expect("text").to_owned();
    let certificates = server.certificates();
    let trusting = Config {
        tls_ca: path(certificates.authority()),
        tls_cert: path(certificates.certificate()),
        tls_key: path(certificates.key()),
        ..config(&[server.url()])
    };
    eventually_set(&start(&trusting), "k", "v").await;
    let unverified = Config { tls_ca: String::new(), tls_verify: false, ..trusting.clone() };
    eventually_set(&start(&unverified), "k", "w").await;
    let (log, _guard) = Log::capture();
    let distrusting = start(&Config { tls_ca: String::new(), ..trusting.clone() });
    eventually("a refusal of the server", async || log.count("UnknownIssuer").checked_sub(1)).await;
    let anonymous = start(&Config { tls_cert: String::new(), tls_key: String::new(), ..trusting.clone() });
    eventually("a refusal of the client", async || log.count("Redis is unreachable").checked_sub(2)).await;
    assert!(!distrusting.is_up() && !anonymous.is_up());
    let half = Config { tls_key: String::new(), ..trusting.clone() };
    Kv::start(&half, &mut Registry::default()).expect_err("a certificate without a key");
    let missing = Config { tls_ca: "/nowhere.pem".to_owned(), ..trusting };
    let error = Kv::start(&missing, &mut Registry::default()).expect_err("no file");
    assert!(error.to_string().contains("/nowhere.pem"), "{error}");
}

#[tokio::test]
async fn several_servers_that_are_no_cluster_are_refused_once() {
    let servers = [real::server().run().await, real::server().run().await];
    let (log, _guard) = Log::capture();
    let mut registry = Registry::default();
    let kv = Kv::start(&config(&servers.each_ref().map(real::Server::url)), &mut registry).expect("URLs");
    eventually("three tries", async || sample(&registry, "redis_topology_refreshes_total", 3)).await;
    assert_eq!(log.count("not part of a cluster"), 1);
    assert_eq!(read(&kv, "k").await, Err(Error::Unconnected));
}

#[tokio::test]
async fn an_outage_is_said_once_and_so_is_its_end() {
    let server = real::server().run().await;
    let (log, _guard) = Log::capture();
    let mut registry = Registry::default();
    let kv = Kv::start(&config(&[server.url()]), &mut registry).expect("a URL");
    eventually_set(&kv, "k", "v").await;
    server.kill9();
    eventually("many tries", async || sample(&registry, "redis_connect_errors_total", 15)).await;
    assert_eq!((log.count("Redis is unreachable"), log.count("Redis is reachable again")), (1, 0));
    server.start_again().await;
    eventually("the end of the outage", async || log.count("Redis is reachable again").checked_sub(1)).await;
    assert_eq!((log.count("Redis is unreachable"), log.count("Redis is reachable again")), (1, 1));
    assert_eq!(sample(&registry, "redis_nodes", 1), Some(()));
}

#[tokio::test]
async fn garbage_is_survived() {
    const GARBAGE: &[&[u8]] = &[
        b"?\r\n",
        b"*99999999999\r\n",
        b"$99999999999999999999\r\n",
        b"*-5\r\n:x\r\n",
        b"$-7\r\n%9223372036854775807\r\n",
        b"+OK\r\n+PONG\r\n*1\r\n*3\r\n:0\r\n:99999\r\n*0\r\n+\r\n*0\r\n",
        b"+OK\r\n+PONG\r\n-MOVED x y\r\n-ASK\r\n-\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ];
    let server = real::server().run().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("redis://{}", listener.local_addr().expect("a bound socket"));
    let behind = server.port();
    let relay = tokio::spawn(async move {
        for connection in 0.. {
            let (mut client, _) = listener.accept().await.expect("the socket stays open");
            if let Some(garbage) = GARBAGE.get(connection) {
                let _ = client.read(&mut [0; 1024]).await;
                let _ = client.write_all(garbage).await;
                let deep = b"*1\r\n".repeat(if connection == 0 { 100_000 } else { 0 });
                let _ = client.write_all(&deep).await;
                continue;
            }
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", behind)).await.expect("it runs");
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let kv = start(&config(&[url]));
    eventually_set(&kv, "k", "v").await;
    assert_eq!(read(&kv, "k").await, Ok(Some("v".to_owned())));
    relay.abort();
}

#[tokio::test]
async fn a_master_that_sentinels_replace_is_followed() {
    let all = within("Sentinels", real::sentinel()).await;
    let kv = started(&[all.url()]).await;
    assert_eq!((kv.stats().topology, kv.replicas(b"k")), (Kind::Sentinel, 1));
    let dedicated = kv.dedicated(b"k", LONG).await.expect("a connection");
    eventually_set(&kv, "k", "v").await;
    assert_eq!(all.sentinel(0).cli(&["sentinel", "failover", "larder"]), "OK");
    eventually("the other one to be the master", async || (all.master() == 1).then_some(())).await;
    let second = format!("127.0.0.1:{}", all.server(1).port());
    eventually("the new master to be used", async || {
        let _ = call(&kv, "k", &set("k", "w")).await;
        (kv.stats().nodes[0].address == second).then_some(())
    })
    .await;
    eventually_set(&kv, "k", "x").await;
    assert_eq!(all.server(1).cli(&["get", "k"]), "x");
    assert!(!dedicated.is_current());

    all.wait_ok().await;
    eventually("the old one to be in order", async || {
        all.server(0).cli(&["info", "replication"]).contains("master_link_status:up").then_some(())
    })
    .await;
    all.server(1).kill9();
    eventually_set(&kv, "k", "y").await;
    assert_eq!(all.server(0).cli(&["get", "k"]), "y");
}

/// Whether a sample of that name has that value at least, all labels together.
fn sample(registry: &Registry, name: &str, least: u64) -> Option<()> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("metrics");
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let values = text.lines().filter(of_name).filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    (values.sum::<u64>() >= least).then_some(())
}
