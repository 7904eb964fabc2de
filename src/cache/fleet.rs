//! What the fleet's purge log says of entries that other nodes have stored.

use tokio::time::Instant;

use crate::{
    object::scope::{FleetPosition, Scope},
    purge::{Log, Standing},
};

/// A node by itself: its own log, which says nothing of what others have stored.
pub(super) struct Fleet {
    log: Log,
    /// Number of this log, by which its positions are told from those of others.
    life: u64,
}

impl Fleet {
    pub(super) fn new(log: Log) -> Self {
        let mut life = [0; 8];
        // Without randomness positions of another node could be taken for its own.
        let _ = getrandom::fill(&mut life);
        Self { log, life: u64::from_le_bytes(life).max(1) }
    }

    /// Where the log is.
    pub(super) fn position(&self) -> FleetPosition {
        FleetPosition { life: self.life, position: self.log.position() }
    }

    /// The worst that happened to any of `scopes` after `position`.
    pub(super) fn verdict(&self, position: FleetPosition, scopes: &[Scope]) -> Standing {
        if position.life == self.life { self.log.verdict(position.position, scopes) } else { Standing::Untouched }
    }

    /// Whether the node cannot tell any more what others have purged.
    pub(super) fn is_fenced(&self, _at: Instant) -> bool {
        false
    }
}
