//! Whether this node may use what it has stored without asking: it may not where somebody else could have purged it and the
//! node cannot know.
//!
//! | `coherence` | the lease is valid | it is not |
//! |---|---|---|
//! | `ttl` | used | used |
//! | `event` | used | as `fenced` says |
//! | `strict` | used, once Redis has confirmed that this node knows of all purges | as `fenced` says |
//!
//! Without a fleet nobody else can purge.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Cache,
    config::{Coherence, Fenced, Invalidate},
    fill::Fill,
    route::Route,
};
use crate::{
    object::{
        entry::Entry,
        scope::{FleetPosition, Scope},
        time::Timestamp,
    },
    purge::{Ack, Fleet, Purge, PurgeError, Receipt, Standing, fleet::Spread},
};

/// How long an unsafe request waits until the log has what it invalidates.
const ANNOUNCED_WITHIN: Duration = Duration::from_millis(250);

/// On what a node may use what it has stored, for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vouching {
    /// Nobody else can purge, or it does not matter.
    Always,
    /// While the lease lasts.
    Lease,
    /// Redis was asked, and this node has applied all there was.
    Confirmed,
    /// Redis was to be asked, and did not say.
    Unconfirmed,
}

impl Cache {
    /// The nodes this one is among.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.inner.fleet.as_ref()
    }

    /// How far this node is with the fleet's log, and what that is to what is stored in Redis.
    pub(super) fn fleet_position(&self) -> FleetPosition {
        self.fleet().map(Fleet::position).unwrap_or_default()
    }

    /// How what Redis has with that position stands to what the fleet has purged.
    pub(super) fn fleet_standing(&self, at: FleetPosition, scopes: &[Scope]) -> Standing {
        self.fleet().map_or(Standing::Hard, |fleet| fleet.standing(at, scopes))
    }

    /// Whether this node cannot know what others have purged.
    pub(super) fn is_fenced(&self, at: Instant) -> bool {
        self.fleet().is_some_and(|fleet| fleet.is_fenced(at))
    }

    /// Purges, here and where others have it; returns when that has come as far as `ack` says.
    ///
    /// # Errors
    /// Where it has not.
    pub async fn purge(&self, purge: Purge, ack: Ack) -> Result<(Receipt, Option<Spread>), PurgeError> {
        match self.fleet() {
            Some(fleet) => fleet.purge(purge, ack).await.map(|(receipt, spread)| (receipt, Some(spread))),
            None => self.purge_log().append(purge).await.map(|receipt| (receipt, None)),
        }
    }

    /// Finds out on what this node may use what it has stored, for a request of that route.
    pub(super) async fn vouching(&self, route: &Route) -> Vouching {
        let Some(fleet) = self.fleet() else { return Vouching::Always };
        match route.policy.coherence {
            Coherence::Ttl => Vouching::Always,
            Coherence::Event => Vouching::Lease,
            // A master that was deposed and does not know it yet would confirm anything: the lease knows.
            Coherence::Strict if fleet.confirm_now().await && !fleet.is_fenced(Instant::now()) => Vouching::Confirmed,
            Coherence::Strict => Vouching::Unconfirmed,
        }
    }

    /// Whether a stored response may be used at that moment, by a request that asks nobody.
    pub(super) fn vouches_at_once(&self, route: &Route, entry: &Entry, at: Instant) -> bool {
        match (self.fleet(), route.policy.coherence) {
            (None, _) | (_, Coherence::Ttl) => true,
            (Some(_), Coherence::Event) => self.vouches(route, entry.stored(), Vouching::Lease, at),
            (Some(_), Coherence::Strict) => false,
        }
    }

    /// Whether what was stored then may be used at that moment.
    pub(super) fn vouches(&self, route: &Route, stored: Timestamp, vouching: Vouching, at: Instant) -> bool {
        let Some(fleet) = self.fleet() else { return true };
        let valid = match vouching {
            Vouching::Always | Vouching::Confirmed => return true,
            Vouching::Lease => fleet.may_serve(stored, at),
            Vouching::Unconfirmed => false,
        };
        valid || (route.policy.fenced == Fenced::Serve && fleet.fenced_for(at) < Some(route.policy.fenced_max))
    }

    /// Whether it may stand in for an answer that the origin does not give. A strict route's has been asked about already,
    /// a moment ago.
    pub(super) fn vouches_on_failure(&self, route: &Route, entry: &Entry) -> bool {
        route.policy.coherence == Coherence::Ttl || self.vouches(route, entry.stored(), Vouching::Lease, Instant::now())
    }

    /// Whether a request may join a fill: not where it began before a purge that this node may have missed.
    pub(super) fn vouches_for_fill(&self, route: &Route, fill: &Fill, model: bool) -> bool {
        let Some(fleet) = self.fleet().filter(|_| route.policy.coherence != Coherence::Ttl) else { return true };
        // An answer of a model is too dear to be asked for side by side.
        !fleet.is_fenced(Instant::now()) || (model && self.now().since(fill.begun.at) < fleet.lease())
    }

    /// Whether all requests of the route go to the origin at the moment.
    pub(super) fn is_bypassed(&self, route: &Route, vouching: Vouching) -> bool {
        route.policy.fenced == Fenced::Bypass && !self.vouches(route, self.now(), vouching, Instant::now())
    }

    /// Has a hit looked at afterwards.
    pub(super) fn audit(&self, route: &Route, entry: &Entry) {
        if let Some(fleet) = self.fleet().filter(|_| route.policy.coherence != Coherence::Ttl) {
            fleet.audit(entry.scopes().into(), entry.stored());
        }
    }

    /// Tells the other nodes that an unsafe request changed what a URL stands for, at that time. Who has its answer finds nothing older
    /// than the log of all nodes does.
    pub(super) async fn invalidate_elsewhere(&self, route: &Route, url: Scope, at: Timestamp) {
        let (unsafe_invalidates, coherence) = (route.policy.unsafe_invalidates, route.policy.coherence);
        let Some(fleet) = self.fleet() else { return };
        if unsafe_invalidates == Invalidate::Node || coherence == Coherence::Ttl {
            return;
        }
        let Some(purge) = self.invalidation(url, at) else { return };
        fleet.announce(purge, ANNOUNCED_WITHIN).await;
    }
}
