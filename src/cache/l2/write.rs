//! What of the cache's changes goes to L2, the tier that nodes share.
//!
//! ```text
//!  stored by a fill, or confirmed ──▶ written behind, or through; with what the fill knew when it looked
//!  not storable, too large, a part ─▶ the lease goes back, and who waits goes on by itself; what it supersedes goes
//!  failed, broken off, purged ──────▶ the lease goes back, and another node tries
//!  invalidated by an unsafe request ▶ removed, and no fill that began before brings it back
//! ```

use std::{pin::Pin, sync::Arc};

use crate::{
    cache::{
        Cache, call::Outgoing, config::Use, disk::Written, fetch::Fetch, refused::Refused, route::Route,
        tiers::is_misplaced,
    },
    object::{entry::Entry, freshness::Flags, key::Key},
    store::l2::{Begun, Ticket, Write},
};

impl Cache {
    /// Hands an entry that was stored here to L2. What is given back is to be awaited before its clients have it to the
    /// end.
    pub(in crate::cache) fn to_l2(
        &self,
        route: &Route,
        entry: &Arc<Entry>,
        begun: Begun,
        ticket: Option<Ticket>,
    ) -> Option<Written> {
        // Without a place in the fleet's log nobody could tell whether it has been purged.
        let has_place = begun.position.life != 0;
        let l2 = self.l2_for(route).filter(|_| has_place && !is_misplaced(entry))?;
        let (key, primary) = (entry.key, entry.primary());
        let keep = entry.freshness().keep_until.since(self.now());
        if keep.is_zero() {
            l2.settle(ticket, primary, key, true, Some(begun.at));
            return None;
        }
        let scattered = entry.freshness().flags.has(Flags::SCATTERED).then(|| entry.scopes()[0]);
        let variant = (key != primary).then(|| self.variant_here(&primary, &key)).flatten();
        let (entry, variants_max) = (Arc::clone(entry), route.policy.variants_max);
        let written = l2.store(Write { entry, begun, keep, variant, variants_max, scattered, ticket })?;
        let written: Pin<Box<dyn Future<Output = bool> + Send>> = Box::pin(written);
        (route.policy.l2 == Use::WriteThrough).then_some(written)
    }

    /// Takes an entry out of L2 that is not what the origin would send any more, unless a newer one is there.
    pub(in crate::cache) fn withdraw(&self, route: &Route, entry: &Entry, begun: Begun) {
        if let Some(l2) = self.l2_of(route) {
            l2.settle(None, entry.primary(), entry.key, false, Some(begun.at));
        }
    }
}

impl<O: Outgoing> Fetch<O> {
    /// Hands what this fill has stored to L2.
    pub(in crate::cache) fn share_stored(&mut self, entry: &Arc<Entry>) -> Option<Written> {
        let (exchange, ticket) = (&self.exchange, self.ticket.take());
        exchange.cache.to_l2(&exchange.route, entry, self.fill.begun, ticket)
    }

    /// Nothing of what comes is for L2: who waits elsewhere need not. `newer`: what lies there under `key` is superseded.
    pub(in crate::cache) fn not_shared(&mut self, key: Key, newer: bool) {
        let exchange = &self.exchange;
        if let Some(l2) = exchange.cache.l2_of(&exchange.route) {
            l2.settle(self.ticket.take(), exchange.key, key, true, newer.then_some(self.fill.begun.at));
        }
    }

    /// What a response that is not storable means for L2.
    pub(in crate::cache) fn refused_for_l2(&mut self, refused: Refused, status: http::StatusCode) {
        if refused == Refused::NotAdmitted {
            // Too large for here, which says that it is so for L2.
            return self.not_shared(self.start.key, false);
        }
        if !refused.lasts(status) {
            // Another node may have better luck.
            self.ticket = None;
            return;
        }
        let of_the_url = self.exchange.model.is_none() && !self.start.part && !self.start.conditions;
        self.not_shared(self.start.key, of_the_url && refused.supersedes(status));
    }

    /// Whether a body of that length is not for L2.
    pub(in crate::cache) fn outgrows_l2(&self, length: u64) -> bool {
        let is_too_long = |ticket: &Ticket| length > ticket.object_bytes_max();
        self.ticket.as_ref().is_some_and(is_too_long)
    }
}
