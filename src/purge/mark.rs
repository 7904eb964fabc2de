//! Where a record of the fleet's log stands in that log: what a node has to remember of it across restarts.

use super::wire::{Fields, Put};
use crate::object::scope::{FleetPosition, Position};

/// Bytes of the digest by which records name the one before them.
pub(super) const DIGEST: usize = 20;

/// The place of one record, and the digest of the log up to it: two logs that agree on a mark agree on all before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: FleetPosition,
    pub(super) digest: [u8; DIGEST],
}

impl Mark {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.at.life);
        out.put_u64(self.at.position.number());
        out.put(&self.digest);
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let at = FleetPosition { life: fields.u64()?, position: Position::from_number(fields.u64()?) };
        Some(Self { at, digest: fields.array()? })
    }

    /// Reads what ends a record or a snapshot: nothing in those of a node without a fleet.
    pub(super) fn read_last(fields: &mut Fields<'_>) -> Option<Option<Self>> {
        if fields.0.is_empty() {
            return Some(None);
        }
        let mark = Self::read(fields)?;
        fields.0.is_empty().then_some(Some(mark))
    }
}

pub(super) fn put_last(out: &mut Vec<u8>, mark: Option<&Mark>) {
    if let Some(mark) = mark {
        mark.put(out);
    }
}
