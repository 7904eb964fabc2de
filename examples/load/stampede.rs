//! Many clients, connected beforehand, ask for one thing at the same moment.

use std::{error::Error, rc::Rc};

use clap::Args;
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    client::{Client, Target},
    gauge::Gauge,
    target,
};

#[derive(Args)]
pub(crate) struct Options {
    #[arg(value_parser = target)]
    url: Target,
    #[arg(long, default_value_t = 1000)]
    clients: usize,
}

pub(crate) async fn run(options: Options) -> Result<Value, Box<dyn Error>> {
    let mut clients = Vec::new();
    for _ in 0..options.clients {
        clients.push(Client::with_buffers(options.url.address, None, 16 * 1024).await?);
    }
    let mut request = Vec::new();
    options.url.request(0, &mut request);
    let (request, gauge, start) = (Rc::new(request), Gauge::shared(), Instant::now());
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (request, gauge) = (Rc::clone(&request), Rc::clone(&gauge));
        tasks.spawn_local(async move {
            let result = client.exchange(&request).await;
            gauge.outcome(start, &result);
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(gauge.summary(start.elapsed()))
}
