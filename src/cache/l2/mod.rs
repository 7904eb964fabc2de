//! Looking into L2, the tier that nodes share, before a fill goes to its origin.
//!
//! ```text
//!  found ───▶ fresh: into L1, and it answers ── stale: into L1, and what is allowed of it is decided there
//!        └──▶ to be confirmed: the fill's candidate, in the place of an older one; and look again, for the lease
//!  variants ▶ into L1's record, and from the start: this request's own is under another key
//!  leased ──▶ to the origin, and all other nodes wait
//!  busy ────▶ wait until the other node has it, and look again; not for ever
//! ```
//!
//! It is the fill that looks, not each request: however many ask a node at once, it asks Redis once. What is found takes
//! the fill's stamp, which was noted before: a purge since then counts.

mod write;

use std::sync::Arc;

use http::Method;
use tokio::time::Instant;

use super::{
    Cache,
    call::{Answer, Outgoing},
    config::Use,
    exchange::{Exchange, is_for_one},
    fetch::Fetch,
    fill::{Fill, Settled, Stored},
    outcome::{Kind, Outcome, Tier},
    promote::as_kept_now,
    route::Route,
    target::Target,
    tiers::is_misplaced,
    traced, ttl,
};
use crate::{
    object::{
        directives::RequestDirectives,
        entry::Entry,
        key::Key,
        reuse::{self, Reuse},
        time::Timestamp,
        vary::{self, Variant, Variants, Vary},
    },
    purge::Standing,
    store::{
        L2, Slot,
        l2::{Begun, Looked, Ticket, Waiting, Wanted},
    },
};

/// Looks of one fill, those aside that it waits between: what is found leads to another few times at most.
const LOOKS_MAX: u8 = 8;

/// What a fill looks for, and what it knows when it has looked.
pub(super) struct Seeking {
    /// The key of what is asked for.
    key: Key,
    /// A stored response to be confirmed.
    candidate: Option<Arc<Entry>>,
    ticket: Ticket,
    /// Whether the lease is wanted.
    lease: bool,
    /// Whether those who wait may be sent back to the start.
    together: bool,
    /// Whether a stale response is of use.
    confirms: bool,
}

/// What looking came to.
enum Came {
    /// This is the answer.
    Answer(Arc<Entry>),
    /// L1 knows more than before.
    Again,
    /// Nothing that answers.
    Nothing,
}

/// What an entry that was found is good for.
enum Good {
    Fresh(Arc<Entry>),
    /// To be served stale, as far as L1's readers may.
    Stale(Arc<Entry>),
    Candidate(Arc<Entry>),
    Nothing,
}

impl Cache {
    /// The tier that nodes share, where there is one.
    pub fn l2(&self) -> Option<&L2> {
        self.inner.l2.as_ref()
    }

    /// The same, where the route uses it, and this node knows what others purge.
    pub(super) fn l2_for(&self, route: &Route) -> Option<&L2> {
        self.l2_of(route).filter(|_| !self.is_fenced(Instant::now()))
    }

    /// The same, where the route uses it.
    pub(super) fn l2_of(&self, route: &Route) -> Option<&L2> {
        self.l2().filter(|_| route.policy.l2 != Use::Off)
    }

    /// Where the fleet's log is, and when: to be noted before a request leaves.
    pub(super) fn begun(&self) -> Begun {
        let at = if self.l2().is_some() { self.now() } else { Timestamp::EPOCH };
        Begun { position: self.fleet_position(), at }
    }

    /// The answer to one input of a call to a model, which nobody else may be filling by itself.
    pub(super) async fn input_in_l2(
        &self,
        route: &Route,
        target: &Target,
        key: &Key,
        directives: &RequestDirectives,
    ) -> Option<Arc<Entry>> {
        let l2 = self.l2_for(route).filter(|_| !directives.wants_validation())?;
        let noted = (self.purge_log().position(), self.begun());
        let scopes = target.scopes(route, key);
        let watch = self.invalidations().watch(scopes[0]);
        let fill = Fill::new(noted, scopes, watch, self.new_growing());
        let wanted = Wanted { key: *key, newer: None, lease: false, over: None, variants: None };
        let looked = l2.look(&mut l2.ticket(*key, fill.begun.position), &wanted).await;
        let Looked::Found(mut entry, begun) = looked else {
            l2.note_miss();
            return None;
        };
        entry.stamp = fill.stamp;
        let scopes = entry.scopes();
        let standing = self.purge_log().verdict(fill.stamp, &scopes);
        let untouched = standing.max(self.fleet_standing(begun.position, &scopes)) == Standing::Untouched;
        let fresh = reuse::reuse(&entry.freshness(), self.now(), directives, false) == Reuse::Fresh;
        let is_unknown = self.is_fenced(Instant::now());
        if is_unknown || !untouched || !fresh || entry.primary() != *key || is_misplaced(&entry) {
            l2.note_miss();
            return None;
        }
        l2.note_hit();
        let entry = as_kept_now(route, Arc::new(*entry));
        drop(self.insert(&entry, &fill, route));
        Some(entry)
    }

    /// A variant that the record in L1 holds.
    pub(super) fn variant_here(&self, primary: &Key, key: &Key) -> Option<Variant> {
        self.l1().inspect(primary, |slot| match slot {
            Some(Slot::Variants(variants)) => variants.iter().find(|variant| variant.key() == key).cloned(),
            _ => None,
        })
    }

    /// How many variants the record in L1 holds.
    fn variants_known(&self, primary: &Key) -> usize {
        self.l1().inspect(primary, |slot| match slot {
            Some(Slot::Variants(variants)) => variants.len(),
            _ => 0,
        })
    }
}

impl<O: Outgoing> Exchange<O> {
    /// L2, where this request may be answered from it.
    fn l2(&self) -> Option<&L2> {
        let whole = self.model.as_ref().is_none_or(|model| model.inputs.is_none());
        self.cache.l2_for(&self.route).filter(|_| whole && !self.wants_validation())
    }

    /// Answers from L2 where no fill is started: a HEAD, or a request that must not be forwarded.
    pub(super) async fn answered_from_l2(
        &self,
        key: Key,
        candidate: Option<Arc<Entry>>,
        method: &Method,
    ) -> Option<Answer> {
        let l2 = self.l2()?;
        let fill = self.new_fill();
        let ticket = l2.ticket(self.key, fill.begun.position);
        let mut seeking = Seeking { key, candidate, ticket, lease: false, together: false, confirms: false };
        let Came::Answer(entry) = self.seek(l2, &fill, &mut seeking).await else {
            l2.note_miss();
            return None;
        };
        l2.note_hit();
        let now = self.cache.now();
        let outcome = Outcome { ttl: Some(ttl(&entry, now)), ..Outcome::of(Kind::Hit(Tier::L2)) };
        Some(self.served(&entry, outcome, method, now))
    }

    async fn seek(&self, l2: &L2, fill: &Fill, seeking: &mut Seeking) -> Came {
        if let Some(entry) = self.found_selected(l2, fill, seeking).await {
            return Came::Answer(entry);
        }
        let mut newer = seeking.candidate.as_ref().map(|entry| entry.stored());
        let mut over = None;
        let mut variants = self.model.is_none().then(|| self.cache.variants_known(&self.key));
        let mut waiting: Option<Waiting<'_>> = None;
        let mut looks = 0;
        while looks < LOOKS_MAX {
            let wanted = Wanted { key: seeking.key, newer, lease: seeking.lease, over, variants };
            let looked = l2.look(&mut seeking.ticket, &wanted).await;
            if let Looked::Busy(holder) = looked {
                // What it brings was purged before this request came: nothing to wait for.
                let purged = self.cache.fleet_standing(holder.position, &fill.scopes) != Standing::Untouched;
                if purged && over != Some(holder) {
                    (over, looks) = (Some(holder), looks + 1);
                    continue;
                }
                waiting = waiting.or_else(|| l2.wait(&self.key));
                let Some(place) = &mut waiting else { return Came::Nothing };
                if !place.for_change().await {
                    return Came::Nothing;
                }
                continue;
            }
            looks += 1;
            if let Some(waiting) = waiting.take() {
                waiting.ended(&looked);
            }
            match looked {
                Looked::Found(entry, begun) => {
                    newer = Some(entry.stored());
                    match self.good(*entry, begun, fill, seeking) {
                        Good::Fresh(entry) => return Came::Answer(entry),
                        Good::Stale(entry) if seeking.together => {
                            drop(entry);
                            return Came::Again;
                        }
                        Good::Stale(entry) | Good::Candidate(entry) if seeking.confirms => {
                            // Who else wants it has to ask the origin as well: nobody has to wait.
                            seeking.lease &= !is_for_one(&entry.freshness());
                            seeking.candidate = Some(entry);
                        }
                        Good::Stale(_) | Good::Candidate(_) | Good::Nothing => {}
                    }
                    if !seeking.lease {
                        return Came::Nothing;
                    }
                }
                Looked::Variants(told) => {
                    variants = None;
                    self.cache.learn_variants(&self.key, &self.route, &told);
                    if seeking.together {
                        return Came::Again;
                    }
                    seeking.key = self.variant_of(&told).unwrap_or(seeking.key);
                }
                Looked::Leased | Looked::Busy(_) | Looked::Unstorable | Looked::Nothing => return Came::Nothing,
            }
        }
        Came::Nothing
    }

    /// What lies under the key of a known variant that would do, where that is not the one to be filled: it was chosen by
    /// other fields, or by its language.
    async fn found_selected(&self, l2: &L2, fill: &Fill, seeking: &mut Seeking) -> Option<Arc<Entry>> {
        if seeking.key == self.key || seeking.candidate.is_some() {
            return None;
        }
        let by = self.cache.comparing(&self.route);
        let selected = self.cache.l1().inspect(&self.key, |slot| match slot {
            Some(Slot::Variants(variants)) => variants.select(&self.key, &self.headers, by),
            _ => None,
        });
        let key = selected.filter(|key| *key != seeking.key)?;
        let wanted = Wanted { key, newer: None, lease: false, over: None, variants: None };
        let Looked::Found(entry, begun) = l2.look(&mut seeking.ticket, &wanted).await else { return None };
        match self.good(*entry, begun, fill, seeking) {
            Good::Fresh(entry) => Some(entry),
            Good::Stale(_) | Good::Candidate(_) | Good::Nothing => None,
        }
    }

    /// The key of this request's variant, where others of the URL are known.
    fn variant_of(&self, variants: &Variants) -> Option<Key> {
        let by = self.cache.comparing(&self.route);
        let latest = || Some(vary::variant_key(&self.key, variants.iter().next()?.fields(), &self.headers, by));
        variants.select(&self.key, &self.headers, by).or_else(latest)
    }

    /// Decides on what was found, and puts what is of use into L1.
    fn good(&self, mut entry: Entry, begun: Begun, fill: &Fill, seeking: &Seeking) -> Good {
        let (cache, now) = (&self.cache, self.cache.now());
        entry.stamp = fill.stamp;
        let scopes = entry.scopes();
        let here = cache.purge_log().verdict(fill.stamp, &scopes);
        let standing = here.max(cache.fleet_standing(begun.position, &scopes));
        let is_foreign = entry.primary() != self.key || entry.part().is_some() || is_misplaced(&entry);
        // It may have been waited for.
        let is_unknown = cache.is_fenced(Instant::now());
        let is_over =
            is_unknown || now >= entry.freshness().keep_until || standing == Standing::Hard || fill.is_invalidated();
        if is_foreign || is_over || !self.is_listed(&entry, seeking) {
            return Good::Nothing;
        }
        let entry = as_kept_now(&self.route, Arc::new(entry));
        if standing == Standing::Soft {
            // L1 knows nothing of what the fleet purged softly, and would take it for fresh.
            return if seeking.candidate.is_none() { Good::Candidate(entry) } else { Good::Nothing };
        }
        match reuse::reuse(&entry.freshness(), now, &self.directives, false) {
            Reuse::Revalidate(_) => {
                if seeking.confirms {
                    self.keep(&entry, fill);
                }
                Good::Candidate(entry)
            }
            Reuse::Fresh => {
                self.keep(&entry, fill);
                Good::Fresh(entry)
            }
            Reuse::Stale | Reuse::StaleWhileRevalidate => {
                self.keep(&entry, fill);
                Good::Stale(entry)
            }
        }
    }

    /// Puts what was found into L1, and into L3 where that admits it.
    fn keep(&self, entry: &Arc<Entry>, fill: &Fill) {
        drop(self.cache.insert(entry, fill, &self.route));
    }

    /// Sees to it that a variant is found in L1 as well. `false`: it is none of this request's.
    fn is_listed(&self, entry: &Entry, seeking: &Seeking) -> bool {
        if entry.key == self.key {
            return true;
        }
        if self.cache.variant_here(&self.key, &entry.key).is_some() {
            return true;
        }
        let Vary::Fields(names) = self.route.vary(&entry.head.to_map()) else { return false };
        let by = self.cache.comparing(&self.route);
        let variant = Variant::new(&self.key, &names, &self.headers, &entry.head, by, entry.stored());
        let is_own = *variant.key() == entry.key && seeking.key == entry.key;
        if is_own {
            self.cache.remember_variant(&self.key, &self.route, &variant);
        }
        is_own
    }
}

impl<O: Outgoing> Fetch<O> {
    /// Looks for what another node has stored or is fetching. `true`: the fill is at its end.
    pub(super) async fn answered_by_l2(&mut self) -> bool {
        let exchange = Arc::clone(&self.exchange);
        let for_one = self.start.candidate.as_ref().is_some_and(|entry| is_for_one(&entry.freshness()));
        // Known to be not storable: nothing is there.
        if for_one || self.start.conditions {
            return false;
        }
        let Some(l2) = exchange.l2() else { return false };
        let together = self.permit.is_some();
        let mut seeking = Seeking {
            key: self.start.key,
            candidate: self.start.candidate.clone(),
            ticket: l2.ticket(exchange.key, self.fill.begun.position),
            lease: together && !self.start.part,
            together,
            confirms: !self.start.part,
        };
        let span = traced::looking("l2");
        let came = exchange.seek(l2, &self.fill, &mut seeking).await;
        traced::looked(span, matches!(came, Came::Answer(_)));
        match came {
            Came::Answer(entry) => {
                l2.note_hit();
                self.permit = None;
                exchange.cache.metrics().fill_ended("l2");
                let (leader, others) = (Arc::clone(&entry), Some(entry));
                self.fill.settle(Settled::Stored(Stored { leader, others, kind: Kind::Hit(Tier::L2), status: None }));
                return true;
            }
            Came::Again => {
                l2.note_stale();
                self.permit = None;
                self.fill.settle(Settled::Again);
                return true;
            }
            Came::Nothing => {}
        }
        let Seeking { key, candidate, ticket, .. } = seeking;
        let had = self.start.candidate.as_ref().map(|entry| entry.stored());
        if candidate.as_ref().map(|entry| entry.stored()) == had {
            l2.note_miss();
        } else {
            l2.note_stale();
            self.start.completing = None;
        }
        (self.start.key, self.start.candidate, self.ticket) = (key, candidate, Some(ticket));
        false
    }
}
