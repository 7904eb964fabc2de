//! Closed loops over many keys: each once, or by Zipf's law.

use std::{cell::Cell, error::Error, rc::Rc, time::Duration};

use clap::Args;
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    client::{Client, Target},
    gauge::Gauge,
    target,
};

#[derive(Args)]
pub(crate) struct Fill {
    /// With `{}` where the number of the key goes
    #[arg(value_parser = target)]
    url: Target,
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    #[arg(long, default_value_t = 64)]
    connections: usize,
}

#[derive(Args)]
pub(crate) struct Zipf {
    /// With `{}` where the number of the key goes
    #[arg(value_parser = target)]
    url: Target,
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
    #[arg(long, default_value_t = 0.99)]
    exponent: f64,
    /// A field to send, written `name: value`
    #[arg(long)]
    field: Option<String>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

pub(crate) async fn fill(options: Fill) -> Result<Value, Box<dyn Error>> {
    let number = Cell::new(0);
    let keys = options.keys;
    run(&options.url, options.connections, move || {
        let next = number.replace(number.get() + 1);
        (next < keys).then_some(next)
    })
    .await
}

pub(crate) async fn zipf(options: Zipf) -> Result<Value, Box<dyn Error>> {
    let draws = draws(options.keys, options.exponent, options.seed);
    let (position, end) = (Cell::new(0), Instant::now() + Duration::from_secs_f64(options.seconds));
    let url = options.url.with_field(options.field.as_deref());
    run(&url, options.connections, move || {
        let at = position.replace((position.get() + 1) % draws.len());
        (Instant::now() < end).then(|| u64::from(draws[at]))
    })
    .await
}

/// Every connection asks for what `next` says until it says `None`.
async fn run(
    url: &Target,
    connections: usize,
    next: impl Fn() -> Option<u64> + 'static,
) -> Result<Value, Box<dyn Error>> {
    let (next, gauge, start) = (Rc::new(next), Gauge::shared(), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (next, gauge, url) = (Rc::clone(&next), Rc::clone(&gauge), url.clone());
        let mut client = Client::connect(url.address).await?;
        tasks.spawn_local(async move {
            let mut request = Vec::new();
            while let Some(number) = next() {
                url.request(number, &mut request);
                let start = Instant::now();
                let result = client.exchange(&request).await;
                gauge.outcome(start, &result);
                if result.is_err() {
                    match Client::connect(url.address).await {
                        Ok(another) => client = another,
                        Err(error) => return gauge.failed(&error),
                    }
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(gauge.summary(start.elapsed()))
}

/// A million ranks drawn by Zipf's law, made before the clock starts because drawing costs more than a request.
fn draws(keys: u32, exponent: f64, seed: u64) -> Vec<u32> {
    let mut sum = 0.0;
    let cumulated: Vec<f64> = (1..=keys)
        .map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        })
        .collect();
    let mut state = seed;
    let draw = |_| {
        let at = uniform(&mut state) * sum;
        cumulated.partition_point(|upto| *upto < at).min(cumulated.len() - 1) as u32
    };
    (0..1 << 20).map(draw).collect()
}

/// `SplitMix64`, as a share of one.
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}
