//! What the tiers hold for a request, and the answer to those that need nothing else.

use std::sync::Arc;

use http::{HeaderMap, Method};
use tokio::time::Instant;

use super::{
    Cache,
    asked::Asked,
    call::Answer,
    hit::{self, Asking},
    outcome::{Outcome, Tier},
    route::{Class, Route},
    target::View,
};
use crate::{
    object::{
        directives::RequestDirectives,
        entry::Entry,
        key::Key,
        reuse::{self, Reuse},
        time::Timestamp,
        vary::{self, Variants},
    },
    purge::Standing,
    store::Slot,
};

/// What the tiers hold for a request.
pub(super) enum Found {
    /// A response that may be used, fresh or not.
    Entry { entry: Arc<Entry>, soft: bool },
    /// Only other variants; the key under which this one would be.
    OtherVariant(Key),
    /// Known to be not storable lately, for this reason.
    HitForMiss(&'static str),
    /// Nothing.
    Nothing,
}

impl Cache {
    /// What L1 holds for `key` and these request fields, purges applied (rule I1).
    pub(super) fn find(&self, route: &Route, key: &Key, headers: &HeaderMap, now: Timestamp) -> Found {
        match self.l1().lookup(key) {
            None => Found::Nothing,
            Some(Slot::HitForMiss { until, reason }) if now < until => Found::HitForMiss(reason),
            Some(Slot::HitForMiss { .. }) => Found::Nothing,
            Some(Slot::Entry(entry)) => self.standing(entry, Found::Nothing),
            Some(Slot::Variants(variants)) => self.find_variant(route, key, &variants, headers, now),
        }
    }

    fn find_variant(
        &self,
        route: &Route,
        key: &Key,
        variants: &Variants,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Found {
        let other = || {
            let latest = variants.iter().next();
            let expected = latest.map(|known| vary::variant_key(key, known.fields(), headers, self.comparing(route)));
            Found::OtherVariant(expected.unwrap_or(*key))
        };
        let Some(selected) = variants.select(key, headers, self.comparing(route)) else { return other() };
        match self.l1().lookup(&selected) {
            Some(Slot::Entry(entry)) => self.standing(entry, other()),
            Some(Slot::HitForMiss { until, reason }) if now < until => Found::HitForMiss(reason),
            _ => other(),
        }
    }

    fn standing(&self, entry: Arc<Entry>, otherwise: Found) -> Found {
        match self.purge_log().standing(&entry) {
            Standing::Untouched => Found::Entry { entry, soft: false },
            Standing::Soft => Found::Entry { entry, soft: true },
            Standing::Hard => {
                self.remove(&entry);
                otherwise
            }
        }
    }

    /// Answers at once what can be: a fresh response in memory. Everything else takes [`Cache::call`].
    pub fn hit(
        &self,
        route: &Route,
        target: View<'_>,
        method: &Method,
        headers: &HeaderMap,
        at: Instant,
    ) -> Option<Answer> {
        let class = route.class(method);
        if !matches!(class, Class::Get | Class::Head) || route.bypass() {
            return None;
        }
        let asked = Asked::of(headers);
        let directives = self.directives(route, headers, asked);
        if directives.no_store || asked.for_origin {
            return None;
        }
        let now = self.inner.clock.at(at);
        let key = target.key(route, self.secret(), headers, class, None);
        let Found::Entry { entry, soft } = self.find(route, &key, headers, now) else { return None };
        if reuse::reuse(&entry.freshness, now, &directives, soft) != Reuse::Fresh {
            return None;
        }
        let outcome = Outcome::hit(Tier::L1, super::seconds(entry.freshness.ttl(now)));
        let response = hit::from_entry(&entry, &Asking { method, headers, asked }, &outcome, self.name(), now);
        Some(Answer { response, outcome })
    }

    pub(super) fn directives(&self, route: &Route, headers: &HeaderMap, asked: Asked) -> RequestDirectives {
        if asked.directives && route.policy.request_directives {
            RequestDirectives::of(headers)
        } else {
            RequestDirectives::default()
        }
    }
}
