//! Forgetting a URL because an unsafe request succeeded (RFC 9111 section 4.4).

use std::{sync::Arc, time::Duration};

use http::HeaderMap;

use super::{
    Cache, part_key,
    route::{Class, Route},
    target::Target,
};
use crate::{
    object::{key::Key, scope::Scope},
    purge::{Mode, Purge, PurgeId},
    store::Slot,
};

impl Cache {
    /// Takes what GET stored of a URL out of the tiers, and keeps fills under way from bringing it back.
    ///
    /// Where keys hold more than the URL, what others have stored of it lies under keys that this request cannot tell:
    /// those are purged through the log.
    pub(super) async fn forget(&self, route: &Route, target: &Target, request: &HeaderMap) {
        let url = target.url_scope(route);
        self.metrics().url_invalidated();
        // Fills are told first, entries removed second: see `Cache::recall`.
        self.invalidations().note(url);
        for target in spellings(route, target) {
            self.forget_primary(&target.key(route, self.secret(), request, Class::Get, None));
        }
        // Asked without taking note: whoever asks next must not rely on a purge that is only on its way.
        if self.invalidations().is_scattered(url, self.purge_log()) {
            self.purge_url(url).await;
        }
    }

    async fn purge_url(&self, url: Scope) {
        let Ok(id) = PurgeId::random() else { return };
        let purge = Purge {
            id,
            at: self.now(),
            mode: Mode::Hard,
            scopes: vec![url],
            hold: Duration::ZERO,
            note: "invalidated by an unsafe request".to_owned(),
        };
        if let Err(error) = self.purge_log().append(purge).await {
            tracing::warn!(%error, "an unsafe request could not invalidate all that is stored of its URL");
        }
    }

    /// The record of variants stays: it says which fields select one, and that has not changed.
    fn forget_primary(&self, primary: &Key) {
        self.forget_key(primary);
        if let Some(Slot::Variants(variants)) = self.l1().lookup(primary) {
            variants.iter().for_each(|variant| self.forget_key(variant.key()));
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

/// How one URL may have been named where its key is not marked as scattered: with its path as it is and as it is
/// normalised, and not through the trusted proxy that this request came through. Of a route with a site of its own also
/// under the other scheme, which keys hold and scopes do not.
fn spellings(route: &Route, target: &Target) -> Vec<Target> {
    let mut all = vec![target.clone()];
    let mut vary = |applies: bool, change: &dyn Fn(Target) -> Target| {
        if applies {
            all.extend(all.clone().into_iter().map(change));
        }
    };
    vary(target.forwarded, &|target| Target { forwarded: false, ..target });
    vary(target.path != target.normal_path, &|target| Target { path: Arc::clone(&target.normal_path), ..target });
    vary(route.site.is_some(), &|target| {
        let scheme = if target.scheme == "http" { "https" } else { "http" };
        Target { scheme, ..target }
    });
    all
}
