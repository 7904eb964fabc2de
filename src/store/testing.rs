//! What the tests of the tiers are made of.

use std::sync::{Arc, atomic::AtomicU64};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use prometheus_client::registry::Registry;

use super::{EvictionPolicy, L1, L1Config, Slot};
use crate::object::{
    entry::Entry,
    freshness::{Flags, Freshness},
    head::Head,
    key::{Key, KeyBuilder},
    scope::{Position, Scope},
    time::Timestamp,
    validators::Validators,
};

pub(super) const POLICIES: [EvictionPolicy; 3] = [EvictionPolicy::S3Fifo, EvictionPolicy::Lru, EvictionPolicy::Lfu];

pub(super) fn key(n: u64) -> Key {
    KeyBuilder::new("test").field(&n.to_le_bytes()).finish()
}

pub(super) fn l1(policy: EvictionPolicy, max_bytes: u64, object_share_max: f64) -> L1 {
    L1::new(&L1Config { max_bytes: bytesize::ByteSize(max_bytes), policy, object_share_max }, &mut Registry::default())
}

pub(super) fn slot(n: u64, body_bytes: usize) -> Slot {
    Slot::Entry(Arc::new(entry(key(n), body_bytes)))
}

pub(super) fn body_bytes(slot: &Slot) -> Option<usize> {
    match slot {
        Slot::Entry(entry) => Some(entry.body.len()),
        Slot::Variants(_) | Slot::HitForMiss { .. } => None,
    }
}

fn entry(key: Key, body_bytes: usize) -> Entry {
    let never = Timestamp::NEVER;
    Entry {
        key,
        primary: key,
        stamp: Position::START,
        scopes: std::sync::Arc::from([Scope::everything(), Scope::key(&key)]),
        url: "http://shop.example/".into(),
        tags: "".into(),
        head: Head::new(StatusCode::OK, &HeaderMap::new()),
        body: Bytes::from(vec![0; body_bytes]),
        part: None,
        freshness: Freshness {
            born: Timestamp::EPOCH,
            fresh_until: never,
            swr_until: never,
            sie_until: never,
            keep_until: never,
            flags: Flags::default(),
        },
        validators: Validators::default(),
        stored: Timestamp::EPOCH,
        fill_millis: 0,
        hits: 0.into(),
        checked: AtomicU64::new(0),
    }
}
