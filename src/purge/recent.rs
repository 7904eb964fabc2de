//! The last purges by id, so that one that is sent again is answered and not done again.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::{
    record::Record,
    types::{PurgeError, PurgeId, Receipt},
};
use crate::object::scope::Position;

/// How many are remembered.
const RECENT_MAX: usize = 4096;

/// What was done under one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) receipt: Receipt,
    /// See [`Record::digest`].
    pub(super) digest: u64,
}

impl Known {
    pub(super) fn new(record: &Record, duration: Duration) -> Self {
        let receipt = receipt(record.id, record.position, record.scopes.len(), duration);
        Self { receipt, digest: record.digest() }
    }

    /// The answer to a purge with the same id.
    pub(super) fn answer(&self, digest: u64) -> Result<Receipt, PurgeError> {
        if digest == self.digest { Ok(self.receipt) } else { Err(PurgeError::IdReused(self.receipt.id)) }
    }
}

pub(super) fn receipt(id: PurgeId, position: Position, scopes: usize, duration: Duration) -> Receipt {
    Receipt { id, seq: position.number() & ((1 << 48) - 1), position, scopes, duration }
}

/// The last purges, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    order: VecDeque<PurgeId>,
    known: HashMap<PurgeId, Known>,
}

impl Recent {
    pub(super) fn remember(&mut self, known: Known) {
        if self.known.insert(known.receipt.id, known).is_some() {
            return;
        }
        self.order.push_back(known.receipt.id);
        if self.order.len() > RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(super) fn find(&self, id: &PurgeId) -> Option<&Known> {
        self.known.get(id)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.order.iter().filter_map(|id| self.known.get(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(n: usize) -> Known {
        let position = Position::from_number(n as u64);
        Known { receipt: receipt(PurgeId::named(&n.to_string()), position, 1, Duration::ZERO), digest: 7 }
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut recent = Recent::default();
        (0..=RECENT_MAX).for_each(|n| recent.remember(known(n)));
        assert_eq!(recent.find(&PurgeId::named("0")), None);
        assert_eq!(recent.find(&PurgeId::named("1")), Some(&known(1)));
        assert_eq!(recent.len(), RECENT_MAX);
    }

    #[test]
    fn another_purge_under_the_same_id_is_refused() {
        assert_eq!(known(1).answer(7).expect("the same"), known(1).receipt);
        assert!(matches!(known(1).answer(8), Err(PurgeError::IdReused(_))));
    }
}
