//! Open model: requests leave when they are due, not when the one before was answered.
//!
//! A request that has to wait for a connection has been waiting since it was due, and its latency says so. The clock
//! is a thread of its own, since the runtime's timers go by milliseconds.

use std::{collections::VecDeque, error::Error, rc::Rc, thread, time::Duration};

use clap::Args;
use serde_json::Value;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
    time::Instant,
};

use crate::{
    client::{Client, Target},
    gauge::Gauge,
    target,
};

#[derive(Args)]
pub(crate) struct Options {
    /// With `{}`, every request is for another key
    #[arg(value_parser = target)]
    url: Target,
    /// Requests a second
    #[arg(long, default_value_t = 5000.0)]
    rate: f64,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// So many keys, again and again
    #[arg(long)]
    keys: Option<u64>,
}

type Due = UnboundedReceiver<(u64, Instant)>;

pub(crate) async fn run(options: Options) -> Result<Value, Box<dyn Error>> {
    let gauge = Gauge::shared();
    let mut unused = Vec::new();
    for _ in 0..options.connections {
        unused.push(Client::connect(options.url.address).await?);
    }
    let start = Instant::now();
    let mut due = clock(start, options.rate, options.seconds);
    let (mut waiting, mut open) = (VecDeque::new(), true);
    let mut tasks = JoinSet::new();
    while open || !waiting.is_empty() || !tasks.is_empty() {
        tokio::select! {
            next = due.recv(), if open => match next {
                Some(request) => waiting.push_back(request),
                None => open = false,
            },
            Some(done) = tasks.join_next() => unused.extend(done?),
        }
        while !waiting.is_empty()
            && let Some(client) = unused.pop()
            && let Some((number, at)) = waiting.pop_front()
        {
            let key = options.keys.map_or(number, |keys| number % keys);
            tasks.spawn_local(one(client, options.url.clone(), key, at, Rc::clone(&gauge)));
        }
        if tasks.is_empty() && !waiting.is_empty() {
            return Err("every connection was lost".into());
        }
    }
    Ok(gauge.summary(start.elapsed()))
}

/// Gives the connection back, or a new one if this one failed.
async fn one(mut client: Client, url: Target, number: u64, due: Instant, gauge: Rc<Gauge>) -> Option<Client> {
    let mut request = Vec::with_capacity(256);
    url.request(number, &mut request);
    let result = client.exchange(&request).await;
    gauge.outcome(due, &result);
    if result.is_ok() { Some(client) } else { Client::connect(url.address).await.ok() }
}

/// Says of each request when it is due.
#[allow(clippy::disallowed_methods, reason = "a thread of its own, which has nothing else to do than to sleep")]
fn clock(start: Instant, rate: f64, seconds: f64) -> Due {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || {
        for number in 0..(rate * seconds) as u64 {
            let due = start + Duration::from_secs_f64(number as f64 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send((number, due)).is_err() {
                return;
            }
        }
    });
    receiver
}
