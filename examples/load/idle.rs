//! Many kept-alive connections, each used once, few of which go on asking.

use std::{error::Error, rc::Rc, time::Duration};

use clap::Args;
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    client::{Client, Target},
    gauge::Gauge,
    target,
};

#[derive(Args)]
pub(crate) struct Options {
    #[arg(value_parser = target)]
    url: Target,
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Share of the connections that go on asking, each as soon as it was answered
    #[arg(long, default_value_t = 0.05)]
    active: f64,
    /// How long nobody asks, before the active ones do
    #[arg(long, default_value_t = 1.0)]
    pause: f64,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

pub(crate) async fn run(options: Options) -> Result<Value, Box<dyn Error>> {
    let mut request = Vec::new();
    options.url.request(0, &mut request);
    let (request, gauge) = (Rc::new(request), Gauge::shared());
    let mut clients = Vec::new();
    for _ in 0..options.connections {
        let mut client = Client::with_buffers(options.url.address, None, 4096).await?;
        client.exchange(&request).await?;
        clients.push(client);
    }
    // What is resident now is what unused connections cost.
    sleep(Duration::from_secs_f64(options.pause)).await;
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(options.seconds);
    let active = clients.split_off((options.connections as f64 * (1.0 - options.active)) as usize);
    let mut tasks = JoinSet::new();
    for mut client in active {
        let (request, gauge) = (Rc::clone(&request), Rc::clone(&gauge));
        tasks.spawn_local(async move {
            while Instant::now() < end {
                let sent = Instant::now();
                let result = client.exchange(&request).await;
                gauge.outcome(sent, &result);
                if result.is_err() {
                    return;
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let mut summary = gauge.summary(start.elapsed());
    let answered = summary["requests"].as_u64().unwrap_or_default();
    summary["connections"] = options.connections.into();
    // Those that were never asked again must still be there.
    let mut kept = 0_u64;
    for client in &mut clients {
        kept += u64::from(client.exchange(&request).await.is_ok());
    }
    summary["kept"] = kept.into();
    summary["idle"] = clients.len().into();
    // With the first one of each connection and this last one.
    summary["asked"] = (answered + (options.connections + clients.len()) as u64).into();
    Ok(summary)
}
