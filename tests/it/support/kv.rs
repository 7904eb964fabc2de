//! The library's way to Redis, for scenarios.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use larder::kv::{Class, Config, Error, Kv, value};
use prometheus_client::registry::Registry;
use redis::{Cmd, Value};
use tracing_subscriber::fmt::MakeWriter;

use super::eventually;

/// Longer than any answer takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(10);

pub(crate) fn config(urls: &[String]) -> Config {
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

pub(crate) fn start(config: &Config) -> Kv {
    Kv::start(config, &mut Registry::default()).expect("a configuration that can be used")
}

/// Started, and connected to all nodes for all classes of calls.
pub(crate) async fn started(urls: &[String]) -> Kv {
    let kv = start(&config(urls));
    connected(&kv).await;
    kv
}

/// Returns when calls of all classes reach every node.
pub(crate) async fn connected(kv: &Kv) {
    eventually("connections to all nodes", async || {
        let nodes = kv.stats().nodes;
        (!nodes.is_empty() && nodes.iter().all(|node| node.up && node.slots > 0)).then_some(())
    })
    .await;
    // One key of each of so many slots that no node is left out.
    for number in 0..32 {
        let key = format!("connected:{number}");
        for class in Class::ALL {
            eventually("a connection", async || kv.call(class, LONG, key.as_bytes(), &get(&key)).await.ok()).await;
        }
    }
}

pub(crate) fn set(key: &str, value: &str) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(value);
    command
}

pub(crate) fn get(key: &str) -> Cmd {
    let mut command = redis::cmd("GET");
    command.arg(key);
    command
}

pub(crate) async fn call(kv: &Kv, key: &str, command: &Cmd) -> Result<Value, Error> {
    kv.call(Class::Small, LONG, key.as_bytes(), command).await
}

pub(crate) async fn read(kv: &Kv, key: &str) -> Result<Option<String>, Error> {
    let bytes = value::bytes(call(kv, key, &get(key)).await?)?;
    Ok(bytes.map(|bytes| String::from_utf8(bytes).expect("text")))
}

/// Writes until it works.
pub(crate) async fn eventually_set(kv: &Kv, key: &str, value: &str) {
    eventually("a value to be written", async || call(kv, key, &set(key, value)).await.ok()).await;
}

/// What this thread logs.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// How many lines say so.
    pub(crate) fn count(&self, said: &str) -> usize {
        let log = self.0.lock().expect("nobody panicked");
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains(said)).count()
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0.lock().expect("nobody panicked")))
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
