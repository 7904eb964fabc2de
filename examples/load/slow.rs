//! Many clients that take little at a time, with socket buffers too small to hide it.

use std::{cell::Cell, error::Error, io, rc::Rc, time::Duration};

use clap::Args;
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout_at},
};

use crate::{
    client::{Client, Target},
    gauge::Gauge,
    target,
};

#[derive(Args)]
pub(crate) struct Options {
    /// With `{}`, every client reads another body
    #[arg(value_parser = target)]
    url: Target,
    #[arg(long, default_value_t = 1000)]
    clients: u64,
    /// Bytes a second that each one reads
    #[arg(long, default_value_t = 10 * 1024)]
    pace: usize,
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
}

const PIECES_A_SECOND: u32 = 5;

pub(crate) async fn run(options: Options) -> Result<Value, Box<dyn Error>> {
    let (gauge, read, start) = (Gauge::shared(), Rc::new(Cell::new(0_u64)), Instant::now());
    let end = start + Duration::from_secs_f64(options.seconds);
    let mut tasks = JoinSet::new();
    for number in 0..options.clients {
        let (gauge, read, url, pace) = (Rc::clone(&gauge), Rc::clone(&read), options.url.clone(), options.pace);
        tasks.spawn_local(async move {
            match timeout_at(end, sip(&url, number, pace, &read)).await {
                // Cut off by the clock, as it should be.
                Err(_) => gauge.record(start.elapsed()),
                Ok(result) => gauge.outcome(start, &result),
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let mut summary = gauge.summary(start.elapsed());
    summary["bytes"] = read.get().into();
    Ok(summary)
}

async fn sip(url: &Target, number: u64, pace: usize, read: &Cell<u64>) -> io::Result<()> {
    let mut client = Client::with_buffers(url.address, Some(8 * 1024), pace / PIECES_A_SECOND as usize).await?;
    let mut request = Vec::new();
    url.request(number, &mut request);
    let mut body = client.send(&request).await?;
    let mut ticks = interval(Duration::from_secs(1) / PIECES_A_SECOND);
    loop {
        ticks.tick().await;
        if !client.more(&mut body, |content| read.set(read.get() + content.len() as u64)).await? {
            return Ok(());
        }
    }
}
