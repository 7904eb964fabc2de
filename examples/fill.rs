//! How much memory the memory tier really takes: fills it with small responses, and compares what it says it weighs with
//! the growth of the process.
//!
//! `fill ENTRIES [BODY_BYTES] [CHURN] [MAX_BYTES] [POLICY]` stores `CHURN` times `ENTRIES` responses under different
//! keys, with bodies of half to one and a half times `BODY_BYTES`, looks some of them up again while it does, and prints
//! one object of JSON. Without `MAX_BYTES` the tier has room for all. `POLICY` is that of `l1.policy`. `tests/memory.rs`
//! does the same on a small scale.

use std::{collections::VecDeque, error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use bytesize::ByteSize;
use http::{HeaderMap, HeaderValue, StatusCode};
use larder::{
    object::{
        entry::{Entry, Unpacked},
        freshness::{Flags, Freshness},
        head::Head,
        key::{Key, KeyBuilder},
        scope::{Position, Scope},
        time::Timestamp,
    },
    store::{EvictionPolicy, L1, L1Config, Slot},
};
use mimalloc::MiMalloc;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

/// The one the gateway has.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What an API's answer carries.
const FIELDS: [(&str, &str); 9] = [
    ("content-type", "application/json"),
    ("content-length", "1024"),
    ("cache-control", "public, max-age=3600"),
    ("etag", "\"5f3c1d9a7e\""),
    ("last-modified", "Sat, 01 Nov 2025 10:00:00 GMT"),
    ("date", "Mon, 01 Dec 2025 10:00:00 GMT"),
    ("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
    ("access-control-allow-origin", "*"),
    ("via", "1.1 larder"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let entries = number(0, 100_000)?;
    let (body_bytes, churn, max_bytes) = (number(1, 256)?, number(2, 1)?, number(3, 1 << 40)?);
    let policy = arguments.get(4).map_or("s3-fifo", String::as_str);
    let policy: EvictionPolicy = serde_json::from_value(Value::from(policy))?;
    println!("{:#}", measure(policy, max_bytes, entries * churn, usize::try_from(body_bytes)?)?);
    Ok(())
}

/// Fills a tier and reports.
pub(crate) fn measure(
    policy: EvictionPolicy,
    max_bytes: u64,
    inserts: u64,
    body_bytes: usize,
) -> Result<Value, Box<dyn Error>> {
    let config = L1Config { max_bytes: ByteSize(max_bytes), policy, object_share_max: 0.01 };
    let l1 = L1::new(&config, &mut Registry::default());
    let before = resident_bytes()?;
    fill(&l1, inserts, body_bytes);
    settle();
    let grown = resident_bytes()?.saturating_sub(before);
    Ok(report(&l1, grown))
}

fn fill(l1: &L1, inserts: u64, body_bytes: usize) {
    let fields: HeaderMap =
        FIELDS.iter().map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value))).collect();
    let mut recent = VecDeque::new();
    for n in 0..inserts {
        let key = KeyBuilder::new("fill").field(&n.to_le_bytes()).finish();
        let length = body_bytes / 2 + key.prefix() as usize % body_bytes.max(1);
        l1.insert(key, Slot::Entry(Arc::new(entry(n, key, &fields, length))));
        // A tenth is asked for again soon, and stays longer than the rest.
        if n % 10 == 0 {
            recent.push_back(key);
        }
        if recent.len() > 1000 {
            // As a hit does: it shares the body.
            let found = recent.pop_front().and_then(|key| l1.lookup(&key));
            drop(found.map(|slot| if let Slot::Entry(entry) = slot { entry.body() } else { Bytes::new() }));
        }
    }
}

/// Memory is given back some time after it was freed, by whoever allocates then.
fn settle() {
    std::thread::park_timeout(Duration::from_millis(1500));
    (0..1000).for_each(|_| drop(std::hint::black_box(vec![0_u8; 1 << 20])));
}

/// One as the gateway makes them.
fn entry(n: u64, key: Key, fields: &HeaderMap, body_bytes: usize) -> Entry {
    let (site, path) = ("http://shop.example", format!("/items/{n:08}"));
    let mut scopes = vec![Scope::url(site, &path, None), Scope::everything(), Scope::site(site), Scope::key(&key)];
    scopes.extend(Scope::prefixes(site, &path));
    let now = Timestamp::from_millis(1_764_583_200_000 + n);
    let until = Timestamp::from_millis(now.as_millis() + 3_600_000);
    Unpacked {
        key,
        primary: key,
        stamp: Position::START,
        scopes: scopes.into(),
        url: format!("{site}{path}").into(),
        tags: "".into(),
        head: Head::new(StatusCode::OK, fields),
        body: Bytes::from(vec![b'x'; body_bytes]),
        elsewhere: None,
        part: None,
        freshness: Freshness {
            born: now,
            fresh_until: until,
            swr_until: until,
            sie_until: until,
            keep_until: until,
            flags: Flags::default(),
        },
        stored: now,
        fill_millis: 5,
        hits: 0,
    }
    .pack()
}

fn report(l1: &L1, grown: u64) -> Value {
    let (mut text, mut body, mut entries) = (0, 0, 0);
    l1.for_each(&mut |slot| {
        if let Slot::Entry(entry) = slot {
            entries += 1;
            text += entry.head.lines().len() as u64;
            body += entry.content().len() as u64;
        }
    });
    let each = |bytes: u64| bytes as f64 / entries as f64;
    json!({
        "entries": entries,
        "weight": l1.bytes(),
        "resident_growth": grown,
        "resident_to_weight": grown as f64 / l1.bytes() as f64,
        "head_text_each": each(text),
        "body_each": each(body),
        "weight_each": each(l1.bytes()),
        "bookkeeping_each": each(grown) - each(text) - each(body),
    })
}

/// `VmRSS` of this process.
fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
