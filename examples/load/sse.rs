//! Many event streams: when the first event comes, and how old each one is.

use std::{
    error::Error,
    io,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
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
    #[arg(long, default_value_t = 5000)]
    streams: u32,
    /// Streams opened in a second
    #[arg(long, default_value_t = 1000)]
    ramp: u32,
    /// How long events are measured, after the last stream was opened
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

/// Of all streams.
#[derive(Default)]
struct Gauges {
    first: Gauge,
    events: Gauge,
}

pub(crate) async fn run(options: Options) -> Result<Value, Box<dyn Error>> {
    let (gauges, start) = (Rc::new(Gauges::default()), Instant::now());
    let open = start + Duration::from_secs(1) * options.streams / options.ramp.max(1);
    let end = open + Duration::from_secs_f64(options.seconds);
    let mut tasks = JoinSet::new();
    for number in 0..options.streams {
        let (gauges, url) = (Rc::clone(&gauges), options.url.clone());
        let due = start + Duration::from_secs(1) * number / options.ramp.max(1);
        tasks.spawn_local(async move {
            sleep_until(due).await;
            let followed = timeout_at(end, follow(&url, number, open, &gauges)).await;
            match followed {
                Ok(Err(error)) => gauges.first.failed(&error),
                Ok(Ok(())) => gauges.first.failed(&io::Error::other("the stream ended")),
                // Cut off by the clock, as it should be.
                Err(_) => {}
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let (first, events) = (gauges.first.summary(start.elapsed()), gauges.events.summary(end - open));
    Ok(json!({
        "requests": events["requests"],
        "rate": events["rate"],
        "seconds": start.elapsed().as_secs_f64(),
        "streams": first["requests"],
        "errors": first["errors"],
        "error_kinds": first["error_kinds"],
        "first": first["latency"],
        "latency": events["latency"],
    }))
}

/// Events made before `open` are not counted: streams are still being opened.
async fn follow(url: &Target, number: u32, open: Instant, gauges: &Gauges) -> io::Result<()> {
    let mut client = Client::with_buffers(url.address, None, 4096).await?;
    let mut request = Vec::new();
    url.request(number.into(), &mut request);
    let start = Instant::now();
    let mut body = client.send(&request).await?;
    let (mut first, mut line) = (true, Vec::new());
    loop {
        let going_on = client.more(&mut body, |content| line.extend_from_slice(content)).await?;
        while let Some(end) = memchr::memchr(b'\n', &line) {
            if std::mem::take(&mut first) && end > 0 {
                gauges.first.record(start.elapsed());
            }
            let made =
                std::str::from_utf8(&line[..end]).ok().and_then(|line| line.strip_prefix("data: ")?.parse().ok());
            if let Some(made) = made.filter(|_| Instant::now() > open) {
                let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_nanos(made));
                gauges.events.record(age.unwrap_or_default());
            }
            line.drain(..=end);
        }
        if !going_on {
            return Ok(());
        }
    }
}
