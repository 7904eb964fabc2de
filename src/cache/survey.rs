//! What operators see of all that is stored: the entries used most and the largest, and how many a purge would name.
//!
//! Work is bounded: of very many entries only some are looked at, and the answer says so.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Cache;
use crate::{
    object::{
        entry::Entry,
        key::Key,
        scope::{Position, Scope},
        time::Timestamp,
    },
    purge::Standing,
    store::{
        Slot,
        l3::{self, Rank},
    },
    telemetry::mask,
};

/// Slots of L1 that are looked at, at most: some tenths of a second.
const IN_MEMORY_MAX: usize = 1 << 20;
/// Entries of L3 that are read for a count, at most: about a second.
const ON_DISK_MAX: usize = 1 << 17;

/// A stored response, as a list of many shows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Ranked {
    /// Its URL as clients name it, with the values of secret arguments masked.
    pub url: String,
    /// Its primary key, by which it can be purged.
    pub key: String,
    /// Where it is: `L1`, `L3`.
    pub tiers: Vec<&'static str>,
    /// Status of the stored response.
    pub status: u16,
    /// Bytes of its content.
    pub bytes: u64,
    /// Times it was served.
    pub hits: u32,
    /// Its age in seconds.
    pub age_seconds: f64,
    /// Seconds of freshness left; negative: so long stale.
    pub ttl_seconds: f64,
    #[serde(skip)]
    id: Key,
}

/// Stored responses that come first by something.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Ranking {
    /// In order.
    pub entries: Vec<Ranked>,
    /// Whether all there are were looked at.
    pub complete: bool,
}

/// How many stored responses something names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Named {
    /// Stored responses, each counted once, whichever tiers have it.
    pub entries: u64,
    /// Of these in L1.
    pub l1: u64,
    /// Of these in L3.
    pub l3: u64,
    /// Whether there may be more: not everything was looked at, or could be (Redis, an enciphered disk, what is on its way).
    pub at_least: bool,
}

impl Cache {
    /// The `max` entries of L1 and L3 that come first by `rank`. The part that takes long runs on a thread for that.
    pub async fn ranking(&self, rank: Rank, max: usize) -> Ranking {
        let (cache, now) = (self.clone(), self.now());
        let gathered = tokio::task::spawn_blocking(move || {
            let (entries, complete) = cache.first_in_memory(rank, max);
            let keys = cache.l3().map(|l3| l3.first(rank, max)).unwrap_or_default();
            (entries, complete, keys)
        });
        let (in_memory, complete, on_disk) = gathered.await.unwrap_or_default();
        let mut entries: Vec<_> = in_memory.iter().map(|entry| ranked(entry, "L1", now)).collect();
        for key in on_disk {
            if let Some(found) = entries.iter_mut().find(|ranked| ranked.id == key) {
                found.tiers.push("L3");
                continue;
            }
            let Some(l3) = self.l3() else { break };
            let entry = match l3.look(&key).await {
                Some(l3::Found::Entry(entry)) => entry,
                Some(l3::Found::Large(large)) => Arc::clone(large.entry()),
                Some(l3::Found::Variants(_)) | None => continue,
            };
            if self.is_alive(&entry, now) {
                entries.push(ranked(&entry, "L3", now));
            }
        }
        entries.sort_by_key(|entry| match rank {
            Rank::Hits => Reverse((u64::from(entry.hits), entry.bytes)),
            Rank::Size => Reverse((entry.bytes, u64::from(entry.hits))),
        });
        entries.truncate(max);
        Ranking { entries, complete }
    }

    fn first_in_memory(&self, rank: Rank, max: usize) -> (Vec<Arc<Entry>>, bool) {
        let now = self.now();
        let mut first = BTreeMap::new();
        let complete = self.l1().look_through(IN_MEMORY_MAX, &mut |slot| {
            let Slot::Entry(entry) = slot else { return };
            let (hits, bytes) = (u64::from(entry.hits.load(Relaxed)), entry.length());
            let place = match rank {
                Rank::Hits => (hits, bytes, entry.key),
                Rank::Size => (bytes, hits, entry.key),
            };
            let beats = first.len() < max || first.first_key_value().is_some_and(|(least, _)| place > *least);
            if beats && self.is_alive(entry, now) {
                first.insert(place, Arc::clone(entry));
                if first.len() > max {
                    first.pop_first();
                }
            }
        });
        (first.into_values().collect(), complete)
    }

    fn is_alive(&self, entry: &Entry, now: Timestamp) -> bool {
        now < entry.freshness().keep_until && self.is_of_use(entry)
    }

    /// How many stored responses of this node any of `scopes` names. Blocks for the time it takes to look through them.
    pub fn named(&self, scopes: &[Scope]) -> Named {
        let scopes: HashSet<Scope> = scopes.iter().copied().collect();
        let all = scopes.contains(&Scope::everything());
        let named = |stamp: Position, own: &[Scope]| {
            (all || own.iter().any(|scope| scopes.contains(scope)))
                && self.purge_log().verdict(stamp, own) != Standing::Hard
        };
        let (mut in_memory, mut on_disk) = (HashSet::new(), 0);
        let mut complete = self.l1().look_through(IN_MEMORY_MAX, &mut |slot| {
            if let Slot::Entry(entry) = slot
                && named(entry.stamp, &entry.scopes())
            {
                in_memory.insert(entry.key.prefix());
            }
        });
        let mut both = 0;
        if let Some(l3) = self.l3() {
            complete &= l3.look_through(ON_DISK_MAX, |key, stamp, own| {
                if named(stamp, own) {
                    on_disk += 1;
                    both += u64::from(in_memory.contains(&key.prefix()));
                }
            });
        }
        let l1 = in_memory.len() as u64;
        Named {
            entries: l1 + on_disk - both,
            l1,
            l3: on_disk,
            at_least: !complete || self.l2().is_some() || self.metrics().fills_running() > 0,
        }
    }
}

fn ranked(entry: &Entry, tier: &'static str, now: Timestamp) -> Ranked {
    let mut url = String::new();
    mask::url(entry.url(), |piece| url.push_str(piece));
    let freshness = entry.freshness();
    Ranked {
        url,
        key: entry.primary().to_string(),
        tiers: vec![tier],
        status: entry.head.status.as_u16(),
        bytes: entry.length(),
        hits: entry.hits.load(Relaxed),
        age_seconds: freshness.age(now).as_secs_f64(),
        ttl_seconds: freshness.ttl(now).as_secs_f64() - now.since(freshness.fresh_until).as_secs_f64(),
        id: entry.key,
    }
}
