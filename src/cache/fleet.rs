//! What the fleet's purge log says of entries that other nodes have stored.

use tokio::time::Instant;

use crate::{
    object::scope::{FleetPosition, Position, Scope},
    purge::Standing,
};

/// A node by itself: no log but its own, which names nothing of what others store.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fleet;

impl Fleet {
    /// Where the log is.
    pub(super) fn position(&self) -> FleetPosition {
        FleetPosition { life: 1, position: Position::START }
    }

    /// The worst that happened to any of `scopes` after `position`.
    pub(super) fn verdict(&self, _position: FleetPosition, _scopes: &[Scope]) -> Standing {
        Standing::Untouched
    }

    /// Whether the node cannot tell any more what others have purged.
    pub(super) fn is_fenced(&self, _at: Instant) -> bool {
        false
    }
}
