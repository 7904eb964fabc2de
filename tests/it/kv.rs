//! How Redis is reached, with real ones: what is answered, what fails and how fast, and what comes back by itself.

use std::time::Duration;

use larder::kv::{Class, Config, Error, Kv, Script, value};
use prometheus_client::registry::Registry;
use redis::{Cmd, Value};
use tokio::time::Instant;

use super::support::{PATIENCE, eventually, redis as real, within};

/// Longer than any answer takes on a busy machine.
const LONG: Duration = Duration::from_secs(5);

fn config(urls: &[String]) -> Config {
    Config {
        urls: urls.to_vec(),
        username: String::new(),
        password: String::new(),
        tls_ca: String::new(),
        tls_cert: String::new(),
        tls_key: String::new(),
        tls_verify: true,
        connect_timeout: Duration::from_secs(1),
        breaker_failures: 5,
        breaker_pause: Duration::from_millis(100),
        in_flight_max: 1024,
    }
}

fn start(config: &Config) -> Kv {
    Kv::start(config, &mut Registry::default()).expect("a configuration that can be used")
}

async fn started(urls: &[String]) -> Kv {
    let kv = start(&config(urls));
    eventually("Redis to be up", async || kv.is_up().then_some(())).await;
    kv
}

fn set(key: &str, value: &str) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(value);
    command
}

fn get(key: &str) -> Cmd {
    let mut command = redis::cmd("GET");
    command.arg(key);
    command
}

async fn call(kv: &Kv, key: &str, command: &Cmd) -> Result<Value, Error> {
    kv.call(Class::Small, LONG, key.as_bytes(), command).await
}

async fn read(kv: &Kv, key: &str) -> Result<Option<String>, Error> {
    let bytes = value::bytes(call(kv, key, &get(key)).await?)?;
    Ok(bytes.map(|bytes| String::from_utf8(bytes).expect("text")))
}

/// Writes until it works.
async fn eventually_set(kv: &Kv, key: &str, value: &str) {
    eventually("a value to be written", async || call(kv, key, &set(key, value)).await.ok()).await;
}

#[tokio::test]
async fn one_server_answers() {
    let server = real::server().run().await;
    let kv = started(&[server.url()]).await;
    for class in Class::ALL {
        let key = class.name().as_bytes();
        eventually("an answer", async || kv.call(class, LONG, key, &set(class.name(), "v")).await.ok()).await;
    }
    assert_eq!(read(&kv, "small").await, Ok(Some("v".to_owned())));
    assert_eq!(read(&kv, "none").await, Ok(None));
    let refused = call(&kv, "small", redis::cmd("LPUSH").arg("small").arg(1)).await.expect_err("a string");
    assert_eq!((refused.code(), refused.is_server()), (Some("WRONGTYPE"), true));
    assert_eq!(kv.replicas(b"small"), 0);
}

#[tokio::test]
async fn a_script_is_sent_again_where_it_was_forgotten() {
    static SCRIPT: Script = Script::new("redis.call('SET', KEYS[1], ARGV[1]) return {KEYS[1], #ARGV}");
    let server = real::server().run().await;
    let kv = started(&[server.url()]).await;
    let run = async || kv.run(Class::Control, LONG, &SCRIPT, &[b"k"], &[b"a", b"b"]).await;
    let expected = Value::Array(vec![Value::BulkString(b"k".to_vec()), Value::Int(2)]);
    eventually("an answer", async || run().await.ok()).await;
    assert_eq!(server.cli(&["script", "flush"]), "OK");
    assert_eq!(run().await, Ok(expected));
    assert_eq!(read(&kv, "k").await, Ok(Some("a".to_owned())));
}

#[tokio::test]
async fn after_kill_errors_are_immediate_and_a_new_server_is_found() {
    let server = real::server().run().await;
    let kv = started(&[server.url()]).await;
    eventually_set(&kv, "k", "v").await;
    server.kill9();
    within("a failure", async { while read(&kv, "k").await.is_ok() {} }).await;
    eventually("the connection to be known as lost", async || {
        (read(&kv, "k").await == Err(Error::Unconnected)).then_some(())
    })
    .await;
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(read(&kv, "k").await, Err(Error::Unconnected));
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(!kv.is_up());
    server.start_again().await;
    eventually_set(&kv, "k", "w").await;
    assert_eq!(read(&kv, "k").await, Ok(Some("w".to_owned())));
    assert!(PATIENCE > LONG);
}
