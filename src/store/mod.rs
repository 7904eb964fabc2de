//! The tiers that keep responses.
//!
//! A tier is a bounded map from [`Key`](crate::object::key::Key) to [`Slot`]. It decides what leaves when room is
//! needed and nothing else: whether a slot may be used is for its reader to find out (freshness, purge log).

use std::sync::Arc;

use crate::object::{allocation::shared, entry::Entry, time::Timestamp, vary::Variants};

mod compress;
pub mod config;
mod hasher;
mod l1;
pub mod l2;
pub mod l3;
mod metrics;
mod moka;
mod quick;
#[cfg(test)]
mod testing;

pub use config::{EvictionPolicy, L1Config};
pub use l1::L1;
pub use l2::{L2, L2Config};
pub use l3::{L3, L3Config};

/// What is stored under a key. Cloning copies a pointer.
#[derive(Debug, Clone)]
pub enum Slot {
    /// A response.
    Entry(Arc<Entry>),
    /// Under a primary key whose responses vary: how to find the variant's own key.
    Variants(Arc<Variants>),
    /// A response to this key was not storable: do not wait for each other for a while.
    HitForMiss(Arc<HitForMiss>),
}

/// See [`Slot::HitForMiss`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HitForMiss {
    /// As long as this.
    pub until: Timestamp,
    /// Why it was not storable, in a word.
    pub reason: &'static str,
}

impl Slot {
    /// A marker: not storable until then, for this reason.
    pub fn hit_for_miss(until: Timestamp, reason: &'static str) -> Self {
        Self::HitForMiss(Arc::new(HitForMiss { until, reason }))
    }

    /// Bytes of memory behind the slot, without the bookkeeping of the tier. Always the same for the same slot.
    pub fn weight(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.weight() as u64,
            Self::Variants(variants) => variants.weight() as u64,
            Self::HitForMiss(marker) => shared(size_of_val(&**marker)) as u64,
        }
    }
}
