//! Forgetting a URL because an unsafe request succeeded (RFC 9111 section 4.4).

use std::time::Duration;

use http::HeaderMap;

use super::{
    Cache, part_key,
    route::{Class, Route},
    target::Target,
};
use crate::{
    object::key::Key,
    purge::{Mode, Purge, PurgeId},
    store::Slot,
};

impl Cache {
    /// Takes what GET stored of a URL out of the tiers, and keeps fills under way from bringing it back.
    ///
    /// Where keys hold more than the URL, what others have stored of it lies under keys that this request cannot tell:
    /// those are purged through the log.
    pub(super) async fn forget(&self, route: &Route, target: &Target, request: &HeaderMap) {
        let primary = target.key(route, self.secret(), request, Class::Get, None);
        self.metrics().url_invalidated();
        // Fills are told first, entries removed second: see `Cache::recall`.
        self.invalidations().note(target.url_scope(route));
        self.forget_key(&primary);
        if let Some(Slot::Variants(variants)) = self.l1().lookup(&primary) {
            variants.iter().for_each(|variant| self.forget_key(variant.key()));
        }
        // The record of variants stays: it says which fields select one, and that has not changed.
        if let Some(Slot::Entry(_)) = self.l1().lookup(&primary) {
            self.l1().remove(&primary);
        }
        if self.invalidations().gather(target.url_scope(route)) {
            self.purge_url(route, target).await;
        }
    }

    async fn purge_url(&self, route: &Route, target: &Target) {
        let Ok(id) = PurgeId::random() else { return };
        let purge = Purge {
            id,
            at: self.now(),
            mode: Mode::Hard,
            scopes: vec![target.url_scope(route)],
            hold: Duration::ZERO,
            note: "invalidated by an unsafe request".to_owned(),
        };
        if let Err(error) = self.purge_log().append(purge).await {
            self.invalidations().scatter(target.url_scope(route));
            tracing::warn!(%error, "an unsafe request could not invalidate all that is stored of its URL");
        }
    }

    fn forget_key(&self, key: &Key) {
        if let Some(Slot::Entry(_)) = self.l1().lookup(key) {
            self.l1().remove(key);
        }
        if self.has_parts() {
            self.l1().remove(&part_key(key));
        }
    }
}
