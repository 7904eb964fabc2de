//! Forgetting a URL because an unsafe request succeeded (RFC 9111 section 4.4).

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::HeaderMap;

use super::{
    Cache,
    disk::Written,
    part_key,
    route::{Class, Route},
    target::Target,
};
use crate::{
    object::{key::Key, scope::Scope, time::Timestamp, vary::Variants},
    purge::{Mode, Purge, PurgeId},
    store::{L2, Slot, l3},
};

/// How long an unsafe request waits until no crash can bring back what it removed. A disk that is slower has to do with a
/// purge.
const REMOVAL_MAX: Duration = Duration::from_secs(2);

/// Removals on their way to the disk.
type Removals = Vec<Written>;

impl Cache {
    /// Takes what GET stored of a URL out of the tiers, and keeps fills under way from bringing it back.
    ///
    /// Where keys hold more than the URL, what others have stored of it lies under keys that this request cannot tell:
    /// those are purged through the log. What lies on the disk, and in Redis, is gone for good when this returns. How
    /// often the URL was noted.
    pub(super) async fn forget(&self, route: &Route, target: &Target, request: &HeaderMap) -> u32 {
        let url = target.url_scope(route);
        self.metrics().url_invalidated();
        // What is fetched from here on is newer than the change, however long the removals take: others judge it by this time.
        let at = self.now();
        // Fills are told first, entries removed second: see `Cache::recall`.
        self.invalidations().note(url);
        let targets = spellings(route, target);
        let keys: Vec<_> =
            targets.iter().map(|target| target.key(route, self.secret(), request, Class::Get, None)).collect();
        let (mut notes, mut gone) = (1, true);
        if let Some(l2) = self.l2_of(route) {
            gone = self.forget_in_l2(l2, url, &keys).await;
            // Again, for fills that have found it in Redis meanwhile.
            self.invalidations().note(url);
            notes += 1;
        }
        let mut removals = Removals::new();
        for key in &keys {
            self.forget_primary(key, &mut removals).await;
        }
        // Asked without taking note: whoever asks next must not rely on a purge that is only on its way.
        if self.is_scattered(url) || !are_made(removals).await || !gone {
            self.purge_url(url, at).await;
        }
        self.invalidate_elsewhere(route, url, at).await;
        notes
    }

    /// `false`: not all that L2 may have of the URL is gone.
    async fn forget_in_l2(&self, l2: &L2, url: Scope, keys: &[Key]) -> bool {
        let removed = keys.iter().map(async |key| {
            let variants = self.variants_of(key).await;
            let variants = variants.iter().flat_map(|variants| variants.iter().map(|variant| *variant.key()));
            l2.remove(key, &variants.collect::<Vec<_>>()).await
        });
        let (removed, scattered) = tokio::join!(join_all(removed), l2.is_scattered(url));
        removed.into_iter().all(|removed| removed) && !scattered
    }

    async fn purge_url(&self, url: Scope, at: Timestamp) {
        let Some(purge) = self.invalidation(url, at) else { return };
        if let Err(error) = self.purge_log().append(purge).await {
            tracing::warn!(%error, "an unsafe request could not invalidate all that is stored of its URL");
        }
    }

    /// The purge that stands for an unsafe request that came then; `None` without randomness.
    pub(super) fn invalidation(&self, url: Scope, at: Timestamp) -> Option<Purge> {
        Some(Purge {
            id: PurgeId::random().ok()?,
            at,
            mode: Mode::Hard,
            scopes: vec![url],
            hold: Duration::ZERO,
            note: "invalidated by an unsafe request".to_owned(),
        })
    }

    /// The record of variants stays: it says which fields select one, and that has not changed.
    async fn forget_primary(&self, primary: &Key, removals: &mut Removals) {
        match self.variants_of(primary).await {
            Some(variants) => variants.iter().for_each(|variant| self.forget_key(variant.key(), removals)),
            None => self.forget_slot(primary, removals),
        }
        self.forget_part(primary, removals);
    }

    /// The record of variants under `primary`, in whichever tier it is.
    async fn variants_of(&self, primary: &Key) -> Option<Arc<Variants>> {
        match (self.l1().lookup(primary), self.disk()) {
            (Some(Slot::Variants(variants)), _) => Some(variants),
            (None, Some(disk)) => match disk.l3.look(primary).await {
                Some(l3::Found::Variants(variants)) => Some(variants),
                _ => None,
            },
            _ => None,
        }
    }

    fn forget_key(&self, key: &Key, removals: &mut Removals) {
        self.forget_slot(key, removals);
        self.forget_part(key, removals);
    }

    fn forget_part(&self, key: &Key, removals: &mut Removals) {
        if self.has_parts() {
            self.forget_slot(&part_key(key), removals);
        }
    }

    /// Removes a response, under a key that holds no record.
    fn forget_slot(&self, key: &Key, removals: &mut Removals) {
        self.l1().replace(key, |slot| {
            if let Some(disk) = self.disk() {
                disk.changes.note(key);
                if !disk.l3.lacks(key) {
                    removals.push(Box::pin(disk.l3.removed(key)));
                } else {
                    disk.l3.remove(key);
                }
            }
            match slot {
                Some(Slot::HitForMiss(marker)) => Some(Slot::HitForMiss(marker)),
                _ => None,
            }
        });
    }
}

/// Waits until all have come to the disk, for as long as that is reasonable. Whether they have.
async fn are_made(removals: Removals) -> bool {
    if removals.is_empty() {
        return true;
    }
    let made = tokio::time::timeout(REMOVAL_MAX, join_all(removals)).await;
    made.is_ok_and(|made| made.into_iter().all(|made| made))
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
