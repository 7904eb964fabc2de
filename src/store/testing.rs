//! What the tests of the tiers are made of.

use std::sync::Arc;

use bytes::Bytes;
use prometheus_client::registry::Registry;

use super::{EvictionPolicy, L1, L1Config, Slot};
use crate::object::{
    entry::Unpacked,
    key::{Key, KeyBuilder},
    scope::{Position, Scope},
    testing,
};

pub(super) const POLICIES: [EvictionPolicy; 3] = [EvictionPolicy::S3Fifo, EvictionPolicy::Lru, EvictionPolicy::Lfu];

pub(super) fn key(n: u64) -> Key {
    KeyBuilder::new("test").field(&n.to_le_bytes()).finish()
}

pub(super) fn l1(policy: EvictionPolicy, max_bytes: u64, object_share_max: f64) -> L1 {
    L1::new(&L1Config { max_bytes: bytesize::ByteSize(max_bytes), policy, object_share_max }, &mut Registry::default())
}

pub(super) fn slot(n: u64, body_bytes: usize) -> Slot {
    let key = key(n);
    let empty = testing::unpacked(key, Position::START, &[Scope::everything(), Scope::key(&key)]);
    Slot::Entry(Arc::new(Unpacked { body: Bytes::from(vec![0; body_bytes]), ..empty }.pack()))
}

pub(super) fn body_bytes(slot: &Slot) -> Option<usize> {
    match slot {
        Slot::Entry(entry) => Some(entry.content().len()),
        Slot::Variants(_) | Slot::HitForMiss(_) => None,
    }
}
