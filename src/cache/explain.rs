//! Why a request is answered as it is: the key and its parts, what the tiers hold, the arithmetic of freshness.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderName, Method, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Cache,
    asked::Asked,
    lookup::Found,
    outcome::Tier,
    route::{Class, Partition, Route},
    target::Target,
};
use crate::{
    llm::outline::Difference,
    object::{
        entry::Entry,
        forwarded,
        freshness::Flags,
        key::Key,
        reuse::{self, Reuse},
        scope::Scope,
        time::Timestamp,
    },
    purge::Standing,
    store::{Slot, l2::Looked, l3},
    telemetry::mask::is_secret_field,
};

/// Variants listed; the rest is counted.
const VARIANTS_SHOWN: usize = 64;

/// The whole decision on one request.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Explanation {
    /// The URL as the gateway understands it.
    pub url: String,
    /// Route it falls on.
    pub route: String,
    /// The tenant it is of, where its route asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// One sentence: what would happen to this request now.
    pub verdict: String,
    /// How the method takes part in caching.
    pub class: String,
    /// Primary key.
    pub key: String,
    /// What the key is made of, in order.
    pub key_parts: Vec<KeyPart>,
    /// What L1 holds under the key.
    pub l1: Option<Stored>,
    /// What L2 holds under the key.
    pub l2: Option<Stored>,
    /// What L3 holds under the key.
    pub l3: Option<Stored>,
    /// The variants of the key, where there are some.
    pub variants: Vec<Stored>,
    /// A fill of the key is under way.
    pub filling: bool,
    /// Position of the purge log.
    pub purge_position: u64,
    /// Of a call to a model that is not stored: where it differs from the most similar one of its scope that was answered
    /// lately, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<Vec<Difference>>,
}

/// One field of a key.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct KeyPart {
    /// What it is.
    pub name: String,
    /// Its value; of a credential only that there is one.
    pub value: Option<String>,
}

/// A stored response.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Stored {
    /// Its key: the primary one, or a variant's.
    pub key: String,
    /// The tier it was found in: `L1`, `L2` or `L3`.
    pub tier: String,
    /// `entry`, `part`, `variants` or `hit-for-miss`.
    pub kind: String,
    /// Status of the stored response.
    pub status: Option<u16>,
    /// Bytes of its content.
    pub body_bytes: Option<u64>,
    /// Times it was served.
    pub hits: Option<u32>,
    /// Milliseconds the origin took for it.
    pub fill_millis: Option<u32>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its freshness.
    pub freshness: Option<FreshnessArithmetic>,
    /// How the purge log sees it: `untouched`, `soft` or `hard`; absent in L2.
    pub standing: Option<String>,
    /// Position of the purge log when its request left; absent in L2.
    pub stamp: Option<u64>,
    /// Until when nothing is expected to be stored, in seconds from now.
    pub hit_for_miss_seconds: Option<f64>,
    /// Why the last response was not stored, in the word that `Cache-Status` had for it.
    pub not_stored: Option<String>,
}

/// RFC 9111 section 4.2 in numbers, in seconds.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FreshnessArithmetic {
    /// Current age.
    pub age: f64,
    /// Freshness lifetime.
    pub lifetime: f64,
    /// Lifetime left; negative: so long stale.
    pub ttl: f64,
    /// What it may be served stale for while a refresh runs, from now.
    pub stale_while_revalidate: f64,
    /// What it may be served stale for if the origin fails, from now.
    pub stale_if_error: f64,
    /// Where the lifetime comes from: `explicit`, `heuristic` or `configured`.
    pub source: String,
    /// `no-cache`: validated on every use.
    pub no_cache: bool,
    /// Never served stale.
    pub must_revalidate: bool,
}

impl Cache {
    /// Explains what a request of `method` for `target` with these fields would meet now.
    pub async fn explain(
        &self,
        route: &Route,
        target: &Target,
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Explanation {
        let now = self.now();
        let model = route.models.as_ref();
        let model = model.map(|models| self.explain_model(route, models, target, (method, headers, body)));
        let (class, passes) = match &model {
            None => (route.class(method), None),
            Some(Ok(explained)) => (Class::WithBody, explained.why),
            Some(Err(why)) => (Class::Other, Some(*why)),
        };
        let model = model.and_then(Result::ok);
        let key = model.as_ref().map_or_else(|| self.primary_key(route, target, headers), |model| model.key);
        let (in_memory, on_disk) = (self.l1().lookup(&key), self.slot_on_disk(&key).await);
        let in_redis = self.slot_in_redis(route, &key, &key).await;
        let lacking = in_memory.is_none() && on_disk.is_none() && in_redis.is_none();
        let variants =
            self.variants_held(route, &key, in_memory.as_ref().or(on_disk.as_ref()).or(in_redis.as_ref()), now).await;
        Explanation {
            url: target.url(),
            route: route.name.to_string(),
            tenant: target.tenant().map(str::to_owned),
            verdict: match passes {
                Some(why) => format!("passed on: {}", why.as_str()),
                None => self.verdict_on(route, &key, class, headers, now).await,
            },
            class: class.as_str().to_owned(),
            key: key.to_string(),
            key_parts: match &model {
                Some(model) => model.parts.clone(),
                None => key_parts(route, target, headers),
            },
            differences: model.and_then(|model| model.differences).filter(|_| lacking),
            l1: in_memory.map(|slot| self.stored(&key, &slot, Tier::L1, now)),
            l2: in_redis.map(|slot| self.stored(&key, &slot, Tier::L2, now)),
            l3: on_disk.map(|slot| self.stored(&key, &slot, Tier::L3, now)),
            variants,
            filling: self.flight().running(&key).is_some(),
            purge_position: self.purge_log().position().number(),
        }
    }

    /// The primary key of a GET with these fields.
    pub fn primary_key(&self, route: &Route, target: &Target, headers: &HeaderMap) -> Key {
        target.key(route, self.secret(), headers, Class::Get, None)
    }

    /// URLs of stored responses that any of `scopes` names, the most served first.
    pub fn popular(&self, scopes: &[Scope], max: usize) -> Vec<String> {
        let mut found = Vec::new();
        self.l1().for_each(&mut |slot| {
            if let Slot::Entry(entry) = slot
                && entry.part().is_none()
                && entry.scopes().iter().any(|scope| scopes.contains(scope))
            {
                found.push((entry.hits.load(std::sync::atomic::Ordering::Relaxed), entry.url().to_owned()));
            }
        });
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup_by(|a, b| a.1 == b.1);
        found.into_iter().take(max).map(|(_, url)| url).collect()
    }

    /// What L3 holds under `key`, without taking it for used.
    async fn slot_on_disk(&self, key: &Key) -> Option<Slot> {
        Some(match self.l3()?.look(key).await? {
            l3::Found::Entry(entry) => Slot::Entry(entry),
            l3::Found::Large(large) => Slot::Entry(Arc::clone(large.entry())),
            l3::Found::Variants(variants) => Slot::Variants(variants),
        })
    }

    /// What L2 holds under `key`, without an effect on anything. It has the stamp of the moment: what purges say of it is
    /// said by the fleet's log.
    async fn slot_in_redis(&self, route: &Route, primary: &Key, key: &Key) -> Option<Slot> {
        let l2 = self.l2_for(route)?;
        let stamp = self.purge_log().position();
        match l2.peek(*primary, *key).await {
            Looked::Found(mut entry, begun) => {
                let standing = self.fleet_standing(begun.position, &entry.scopes());
                entry.stamp = stamp;
                (standing != Standing::Hard && self.is_of_use(&entry)).then(|| Slot::Entry(Arc::new(*entry)))
            }
            Looked::Variants(variants) => Some(Slot::Variants(Arc::new(variants))),
            _ => None,
        }
    }

    async fn variants_held(&self, route: &Route, primary: &Key, slot: Option<&Slot>, now: Timestamp) -> Vec<Stored> {
        let Some(Slot::Variants(variants)) = slot else { return Vec::new() };
        let mut held = Vec::new();
        for variant in variants.iter().take(VARIANTS_SHOWN) {
            let key = variant.key();
            match self.l1().lookup(key) {
                Some(slot) => held.push(self.stored(key, &slot, Tier::L1, now)),
                None => {
                    let on_disk = self.slot_on_disk(key).await.map(|slot| self.stored(key, &slot, Tier::L3, now));
                    held.extend(match on_disk {
                        Some(stored) => Some(stored),
                        None => {
                            let slot = self.slot_in_redis(route, primary, key).await;
                            slot.map(|slot| self.stored(key, &slot, Tier::L2, now))
                        }
                    });
                }
            }
        }
        held
    }

    fn stored(&self, key: &Key, slot: &Slot, tier: Tier, now: Timestamp) -> Stored {
        let empty = Stored {
            key: key.to_string(),
            tier: tier.as_str().to_owned(),
            kind: String::new(),
            status: None,
            body_bytes: None,
            hits: None,
            fill_millis: None,
            tags: Vec::new(),
            freshness: None,
            standing: None,
            stamp: None,
            hit_for_miss_seconds: None,
            not_stored: None,
        };
        // What lies in Redis has no stamp of this node's log.
        let local = tier != Tier::L2;
        match slot {
            Slot::Variants(_) => Stored { kind: "variants".to_owned(), ..empty },
            Slot::HitForMiss(marker) => Stored {
                kind: "hit-for-miss".to_owned(),
                not_stored: Some(marker.reason.to_owned()),
                hit_for_miss_seconds: Some(marker.until.since(now).as_secs_f64()),
                ..empty
            },
            Slot::Entry(entry) => Stored {
                kind: if entry.part().is_some() { "part" } else { "entry" }.to_owned(),
                status: Some(entry.head.status.as_u16()),
                body_bytes: Some(entry.length()),
                hits: Some(entry.hits.load(std::sync::atomic::Ordering::Relaxed)),
                fill_millis: Some(entry.fill_millis),
                tags: entry.tags().split_whitespace().map(str::to_owned).collect(),
                freshness: Some(arithmetic(entry, now)),
                standing: local.then(|| standing(self.purge_log().verdict(entry.stamp, &entry.scopes())).to_owned()),
                stamp: local.then(|| entry.stamp.number()),
                ..empty
            },
        }
    }

    async fn verdict_on(&self, route: &Route, key: &Key, class: Class, headers: &HeaderMap, now: Timestamp) -> String {
        if route.bypass() {
            return "passed on: the route bypasses the cache".to_owned();
        }
        if class == Class::Other {
            return "passed on: the method is not answered from the cache".to_owned();
        }
        let directives = self.directives(route, &headers, Asked::of(headers));
        if directives.no_store {
            return "passed on: the request says no-store".to_owned();
        }
        match self.find_anywhere(route, key, headers, now).await {
            Found::Nothing => "forwarded: nothing is stored under the key".to_owned(),
            Found::OtherVariant { .. } => "forwarded: other variants are stored, this one is not".to_owned(),
            Found::HitForMiss(reason) => {
                format!("forwarded side by side: the last response could not be stored ({reason})")
            }
            Found::Entry { entry, soft, tier } => match reuse::reuse(&entry.freshness(), now, &directives, soft) {
                Reuse::Fresh => format!("hit: a fresh response is stored in {}", tier.as_str()),
                Reuse::Stale => format!("hit: stale, and the request accepts that; stored in {}", tier.as_str()),
                Reuse::StaleWhileRevalidate => "hit: stale, refreshed behind the answer".to_owned(),
                Reuse::Revalidate(why) => format!("validated with the origin: {}", why.as_str()),
            },
        }
    }
}

impl Cache {
    /// What a request would find, without putting it anywhere else.
    async fn find_anywhere(&self, route: &Route, key: &Key, headers: &HeaderMap, now: Timestamp) -> Found {
        let mut found = self.find(route, key, &headers, now);
        // A record, and then its variant.
        for _ in 0..2 {
            let Some(missing) = found.missing(key).filter(|_| self.disk_for(route).is_some()) else { break };
            found = match self.slot_on_disk(&missing).await {
                Some(Slot::Variants(variants)) => self.find_variant(route, key, &variants, headers, now),
                Some(Slot::Entry(entry)) if self.is_of_use(&entry) => {
                    return self.standing(entry, Tier::L3, || found);
                }
                _ => break,
            };
        }
        for _ in 0..2 {
            let missing = match &found {
                Found::Nothing => *key,
                Found::OtherVariant { expected, selected } => selected.unwrap_or(*expected),
                Found::Entry { .. } | Found::HitForMiss(_) => break,
            };
            found = match self.slot_in_redis(route, key, &missing).await {
                Some(Slot::Variants(variants)) => self.find_variant(route, key, &variants, headers, now),
                Some(Slot::Entry(entry)) => return Found::Entry { entry, soft: false, tier: Tier::L2 },
                _ => break,
            };
        }
        found
    }
}

fn arithmetic(entry: &Entry, now: Timestamp) -> FreshnessArithmetic {
    let freshness = &entry.freshness();
    let source = match freshness.flags {
        flags if flags.has(Flags::HEURISTIC) => "heuristic",
        flags if flags.has(Flags::CONFIGURED) => "configured",
        _ => "explicit",
    };
    FreshnessArithmetic {
        age: freshness.age(now).as_secs_f64(),
        lifetime: freshness.lifetime().as_secs_f64(),
        ttl: freshness.ttl(now).as_secs_f64() - now.since(freshness.fresh_until).as_secs_f64(),
        stale_while_revalidate: freshness.swr_until.since(now).as_secs_f64(),
        stale_if_error: freshness.sie_until.since(now).as_secs_f64(),
        source: source.to_owned(),
        no_cache: freshness.flags.has(Flags::NO_CACHE),
        must_revalidate: freshness.flags.has(Flags::MUST_REVALIDATE),
    }
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Untouched => "untouched",
        Standing::Soft => "soft",
        Standing::Hard => "hard",
    }
}

fn key_parts(route: &Route, target: &Target, headers: &HeaderMap) -> Vec<KeyPart> {
    let part = |name: &str, value: Option<String>| KeyPart { name: name.to_owned(), value };
    let mut parts = vec![
        part("route", Some(route.name.to_string())),
        part("site", Some(target.site.to_string())),
        part("scheme", Some(target.scheme.to_owned())),
        part("path", Some(target.path.to_string())),
        part("query", route.key_query(target.query.as_deref()).map(Cow::into_owned)),
    ];
    if let Some(tenant) = target.tenant().filter(|_| route.by_tenant) {
        parts.push(part("tenant", Some(tenant.to_owned())));
    }
    if let Partition::Field(name) = &route.partition {
        let value = if headers.contains_key(name) { "a keyed hash of its value" } else { "absent" };
        parts.push(part(&format!("partition by {name}"), Some(value.to_owned())));
    }
    let field = |name: &HeaderName| {
        let value = headers.get(name).map(|value| match is_secret_field(name) {
            true => "a keyed hash of its value".to_owned(),
            false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        });
        part(&format!("field {name}"), value)
    };
    parts.extend(route.key_headers.iter().map(field));
    for cookie in &route.policy.key_cookies {
        parts.push(part(&format!("cookie {cookie}"), None));
    }
    if target.forwarded {
        let hosts = route.site.is_none().then_some(forwarded::HOST);
        let told = [forwarded::PROTO, forwarded::PORT, header::FORWARDED].into_iter().chain(hosts);
        parts.extend(told.filter(|name| headers.contains_key(name)).map(|name| field(&name)));
    }
    parts
}
