//! What the tiers hold for a request, and the answer to those that need nothing else.

use std::{cell::LazyCell, ops::Deref, sync::Arc};

use http::{HeaderMap, Method, StatusCode};
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
        plain::Plain,
        reuse::{self, Reuse},
        time::Timestamp,
        vary::{self, Variants},
    },
    purge::Standing,
    store::Slot,
};

/// The answer to a plain request, its head aside.
pub struct PlainHit {
    /// Status of the answer.
    pub status: StatusCode,
    /// Whose content is the answer's; none: it has no content.
    pub content: Option<Arc<Entry>>,
    /// The decision.
    pub outcome: Outcome,
}

/// Why there is no [`PlainHit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotPlain {
    /// The answer is not of the plain kind.
    Request,
    /// Nothing stored is the answer.
    Nothing,
}

/// A stored response that is the answer.
struct Fresh {
    entry: Arc<Entry>,
    outcome: Outcome,
    now: Timestamp,
}

/// What the tiers hold for a request.
pub(super) enum Found {
    /// A response that may be used, fresh or not.
    Entry { entry: Arc<Entry>, soft: bool, tier: Tier },
    /// Only other variants.
    OtherVariant {
        /// The key under which this one would be.
        expected: Key,
        /// The key of a variant that is known and would do, but is not in L1.
        selected: Option<Key>,
    },
    /// Known to be not storable lately, for this reason.
    HitForMiss(&'static str),
    /// Nothing.
    Nothing,
}

impl Found {
    /// The key under which a response would lie, as far as this tells; `primary` is that of the request.
    pub(super) fn expected(&self, primary: &Key) -> Key {
        match self {
            Self::OtherVariant { expected, .. } => *expected,
            Self::Entry { .. } | Self::HitForMiss(_) | Self::Nothing => *primary,
        }
    }

    /// The key under which L3 may have what L1 lacks.
    pub(super) fn missing(&self, primary: &Key) -> Option<Key> {
        match self {
            Self::Nothing => Some(*primary),
            Self::OtherVariant { selected, .. } => *selected,
            Self::Entry { .. } | Self::HitForMiss(_) => None,
        }
    }
}

impl Cache {
    /// What L1 holds for `key` and these request fields, purges applied (rule I1).
    pub(super) fn find(
        &self,
        route: &Route,
        key: &Key,
        headers: &impl Deref<Target = HeaderMap>,
        now: Timestamp,
    ) -> Found {
        match self.l1().lookup(key) {
            None => Found::Nothing,
            Some(Slot::HitForMiss(marker)) if now < marker.until => Found::HitForMiss(marker.reason),
            Some(Slot::HitForMiss(_)) => Found::Nothing,
            Some(Slot::Entry(entry)) => self.standing(entry, Tier::L1, || Found::Nothing),
            Some(Slot::Variants(variants)) => self.find_variant(route, key, &variants, headers, now),
        }
    }

    pub(super) fn find_variant(
        &self,
        route: &Route,
        key: &Key,
        variants: &Variants,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Found {
        let other = |selected| {
            let latest = variants.iter().next();
            let expected = latest.map(|known| vary::variant_key(key, known.fields(), headers, self.comparing(route)));
            let expected = expected.unwrap_or(*key);
            match self.l1().lookup(&expected) {
                Some(Slot::HitForMiss(marker)) if now < marker.until => Found::HitForMiss(marker.reason),
                _ => Found::OtherVariant { expected, selected },
            }
        };
        let Some(selected) = variants.select(key, headers, self.comparing(route)) else { return other(None) };
        match self.l1().lookup(&selected) {
            Some(Slot::Entry(entry)) => self.standing(entry, Tier::L1, || other(None)),
            _ => other(Some(selected)),
        }
    }

    /// What an entry that was found in `tier` is to the purge log.
    pub(super) fn standing(&self, entry: Arc<Entry>, tier: Tier, otherwise: impl FnOnce() -> Found) -> Found {
        match self.purge_log().standing(&entry) {
            Standing::Untouched => Found::Entry { entry, soft: false, tier },
            Standing::Soft => Found::Entry { entry, soft: true, tier },
            Standing::Hard => {
                self.remove(&entry);
                otherwise()
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
        let asked = Asked::of(headers);
        let Fresh { entry, outcome, now } = self.fresh(route, target, route.class(method), asked, &headers, at)?;
        self.note_served(route, &entry);
        let response = hit::from_entry(&entry, &Asking { method, headers, asked }, &outcome, self.name(), now);
        Some(Answer { response, outcome })
    }

    /// As [`Cache::hit`], for a GET whose answer is all of a stored response, or that the client has it: the head is
    /// written to `head`, without the empty line at the end, so that fields can follow.
    ///
    /// # Errors
    /// Where there is no such answer; nothing was written then.
    pub fn plain_hit(
        &self,
        route: &Route,
        target: View<'_>,
        request: &Plain<'_>,
        at: Instant,
        head: &mut Vec<u8>,
    ) -> Result<PlainHit, NotPlain> {
        let asked = Asked::of_plain(request);
        if asked.range {
            return Err(NotPlain::Request);
        }
        // Most requests are answered without a look at most of their fields.
        let fields = LazyCell::new(|| request.to_map());
        let fresh = self.fresh(route, target, route.class(&Method::GET), asked, &fields, at);
        let Fresh { entry, outcome, now } = fresh.ok_or(NotPlain::Nothing)?;
        let not_modified = asked.conditions && hit::is_held(&entry, &fields);
        let status = if not_modified { StatusCode::NOT_MODIFIED } else { entry.head.status };
        if !hit::write_head(&entry, status, &outcome, self.name(), now, head) {
            return Err(NotPlain::Request);
        }
        self.note_served(route, &entry);
        Ok(PlainHit { status, outcome, content: (!not_modified).then_some(entry) })
    }

    /// A response in memory that a request may have as it is. `fields` are those of the request.
    fn fresh(
        &self,
        route: &Route,
        target: View<'_>,
        class: Class,
        asked: Asked,
        fields: &impl Deref<Target = HeaderMap>,
        at: Instant,
    ) -> Option<Fresh> {
        if !matches!(class, Class::Get | Class::Head) || route.bypass() {
            return None;
        }
        let directives = self.directives(route, fields, asked);
        if directives.no_store || asked.for_origin {
            return None;
        }
        let now = self.inner.clock.at(at);
        let key = target.key(route, self.secret(), fields, class, None);
        let Found::Entry { entry, soft, .. } = self.find(route, &key, fields, now) else { return None };
        if !self.vouches_at_once(route, &entry, at) {
            return None;
        }
        let freshness = entry.freshness();
        if reuse::reuse(&freshness, now, &directives, soft) != Reuse::Fresh {
            return None;
        }
        let outcome = Outcome::hit(Tier::L1, super::seconds(freshness.ttl(now)));
        Some(Fresh { entry, outcome, now })
    }

    pub(super) fn directives(
        &self,
        route: &Route,
        headers: &impl Deref<Target = HeaderMap>,
        asked: Asked,
    ) -> RequestDirectives {
        if asked.directives && route.policy.request_directives {
            RequestDirectives::of(headers)
        } else {
            RequestDirectives::default()
        }
    }
}
