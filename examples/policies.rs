//! How often each policy of `l1.policy` finds what is asked for, and what it keeps of what came last.
//!
//! ```sh
//! cargo run --release --example policies -- TRACE.csv.zst ...
//! ```
//!
//! A trace has a line `time,key,size` for each request; a size of 1 stands for none. Beside those given, three made ones
//! are replayed (Zipf; every fifth request is for something nobody asks for again). Of each a cache of 1 and one of 10 %
//! of the bytes it asks for, of one shard; as in the gateway, nothing larger than a tenth of the cache is stored. What is
//! shown is the share of requests found, of bytes too (in brackets) where there are sizes, in per cent; and behind it, of
//! the capacity, what the newest entries take that are all still there after a scan of three times the cache.

use std::{
    collections::HashMap,
    error::Error,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use moka::policy::EvictionPolicy;
use quick_cache::{OptionsBuilder, Weighter, sync};

/// Where a trace knows no sizes. It is also what the gateway takes for the average.
const AVERAGE_BYTES: u64 = 8 * 1024;
const REQUESTS: usize = 2_000_000;
const KEYS: usize = 200_000;

type Key = u64;

struct Trace {
    name: String,
    requests: Vec<(Key, u64)>,
    sized: bool,
}

/// Shares of what was asked for that were found.
struct Hits {
    requests: f64,
    bytes: f64,
}

enum Policy {
    S3Fifo { hot: f64 },
    Moka(EvictionPolicy),
}

enum Cache {
    Quick(Box<sync::Cache<Key, u64, Bytes>>),
    Moka(moka::sync::Cache<Key, u64>),
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, u64> for Bytes {
    fn weight(&self, _: &Key, bytes: &u64) -> u64 {
        *bytes
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut traces = std::env::args().skip(1).map(|path| read(&path)).collect::<Result<Vec<_>, _>>()?;
    traces.extend([0.9, 1.0, 1.1].map(zipf));
    let policies = policies();
    println!(
        "| policy | {} | newest kept |",
        traces.iter().map(|trace| &trace.name[..]).collect::<Vec<_>>().join(" | ")
    );
    println!("|---|{}---|", "---|".repeat(traces.len()));
    for (name, policy) in &policies {
        let ratios = traces.iter().map(|trace| {
            let footprint = trace.footprint();
            let [small, large] = [100, 10].map(|share| hits(policy, footprint / share, &trace.requests));
            let requests = format!("{:.1} / {:.1}", small.requests, large.requests);
            let bytes = format!(" ({:.1} / {:.1})", small.bytes, large.bytes);
            if trace.sized { requests + &bytes } else { requests }
        });
        println!("| {name} | {} | {:.0} % |", ratios.collect::<Vec<_>>().join(" | "), kept(policy) * 100.0);
    }
    Ok(())
}

fn policies() -> Vec<(String, Policy)> {
    let mut all = Vec::new();
    for hot in [0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.5] {
        all.push((format!("S3-FIFO, {hot} hot"), Policy::S3Fifo { hot }));
    }
    all.push(("LRU".to_owned(), Policy::Moka(EvictionPolicy::lru())));
    all.push(("LFU (TinyLFU)".to_owned(), Policy::Moka(EvictionPolicy::tiny_lfu())));
    all
}

/// What is found in a cache of `capacity` bytes, in per cent.
fn hits(policy: &Policy, capacity: u64, requests: &[(Key, u64)]) -> Hits {
    let cache = Cache::new(policy, capacity);
    let (mut found, mut found_bytes, mut all_bytes) = (0_u64, 0, 0);
    for &(key, bytes) in requests {
        all_bytes += bytes;
        if cache.contains(key) {
            found += 1;
            found_bytes += bytes;
        } else if bytes <= capacity / 10 {
            cache.insert(key, bytes);
        }
    }
    let share = |part: u64, all: u64| part as f64 / all as f64 * 100.0;
    Hits { requests: share(found, requests.len() as u64), bytes: share(found_bytes, all_bytes) }
}

/// After a scan: of the capacity, the share that what came last takes without a gap.
fn kept(policy: &Policy) -> f64 {
    let items = 100_000;
    let cache = Cache::new(policy, items * AVERAGE_BYTES);
    (0..3 * items).for_each(|key| cache.insert(key, AVERAGE_BYTES));
    (0..3 * items).rev().take_while(|key| cache.contains(*key)).count() as f64 / items as f64
}

impl Cache {
    fn new(policy: &Policy, capacity: u64) -> Self {
        match policy {
            Policy::S3Fifo { hot } => {
                let items = usize::try_from(capacity / AVERAGE_BYTES).unwrap_or(usize::MAX).max(1);
                let options = OptionsBuilder::new()
                    .shards(1)
                    .hot_allocation(*hot)
                    .estimated_items_capacity(items)
                    .weight_capacity(capacity)
                    .build()
                    .expect("both capacities are set");
                let (hasher, lifecycle) = (Default::default(), Default::default());
                Self::Quick(Box::new(sync::Cache::with_options(options, Bytes, hasher, lifecycle)))
            }
            Policy::Moka(policy) => Self::Moka(
                moka::sync::Cache::builder()
                    .eviction_policy(policy.clone())
                    .weigher(|_, bytes: &u64| u32::try_from(*bytes).unwrap_or(u32::MAX))
                    .max_capacity(capacity)
                    .build(),
            ),
        }
    }

    fn contains(&self, key: Key) -> bool {
        match self {
            Self::Quick(cache) => cache.get(&key).is_some(),
            Self::Moka(cache) => cache.get(&key).is_some(),
        }
    }

    fn insert(&self, key: Key, bytes: u64) {
        match self {
            Self::Quick(cache) => cache.insert(key, bytes),
            Self::Moka(cache) => {
                cache.insert(key, bytes);
                // As it would be with time between two requests.
                cache.run_pending_tasks();
            }
        }
    }
}

impl Trace {
    /// Bytes of all that is asked for.
    fn footprint(&self) -> u64 {
        self.requests.iter().copied().collect::<HashMap<_, _>>().values().sum()
    }
}

fn read(path: &str) -> Result<Trace, Box<dyn Error>> {
    let mut unpacking = Command::new("zstd").args(["-dc", path]).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(unpacking.stdout.take().ok_or("no output")?).lines();
    let (mut requests, mut sized) = (Vec::new(), false);
    for line in lines {
        let line = line?;
        let [_, key, size] = line.split(',').collect::<Vec<_>>()[..] else { return Err(line.into()) };
        let size: u64 = size.parse()?;
        sized |= size > 1;
        requests.push((key.parse()?, if size <= 1 { AVERAGE_BYTES } else { size }));
    }
    unpacking.wait()?;
    let name = path.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or(path).to_owned();
    Ok(Trace { name, requests, sized })
}

/// Requests by Zipf's law with exponent `s`; every fifth is for a key of its own.
fn zipf(s: f64) -> Trace {
    let mut sums = Vec::with_capacity(KEYS);
    let mut sum = 0.0;
    for rank in 1..=KEYS {
        sum += (rank as f64).powf(-s);
        sums.push(sum);
    }
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let requests = (0..REQUESTS).map(|number| {
        if number % 5 == 0 {
            return ((KEYS + number) as Key, AVERAGE_BYTES);
        }
        let wanted = random.share() * sum;
        (sums.partition_point(|&below| below < wanted) as Key, AVERAGE_BYTES)
    });
    Trace { name: format!("Zipf {s}"), requests: requests.collect(), sized: false }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn share(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }
}
