//! What has to be known of all entries together before one of them is looked up: of which URLs there are some under keys
//! that the URL does not give, and whether any is a part.
//!
//! URLs share places in a table of fixed size; nothing is ever taken out of it. Until all entries have been read from the
//! index, any may be of either kind.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use super::brief::Kin;
use crate::object::scope::Position;

/// Places: one for each number that sixteen bits can have. 512 KiB.
const PLACES: usize = 1 << 16;

/// See above.
pub(super) struct Census {
    complete: AtomicBool,
    parts: AtomicBool,
    /// One more than the highest stamp; 0: there are none.
    scattered: Box<[AtomicU64]>,
}

/// Whether something is stored of a URL under keys that the URL alone does not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scattered {
    /// Nothing is.
    No,
    /// Nothing with a stamp above this.
    UpTo(Position),
    /// Not all has been looked through.
    Unknown,
}

impl Census {
    pub(super) fn new() -> Self {
        let scattered = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { complete: AtomicBool::new(false), parts: AtomicBool::new(false), scattered }
    }

    /// An entry is stored.
    pub(super) fn note(&self, kin: &Kin) {
        if kin.part {
            self.parts.store(true, SeqCst);
        }
        if let Some((place, stamp)) = kin.scattered {
            self.scattered[usize::from(place)].fetch_max(stamp.number().saturating_add(1), SeqCst);
        }
    }

    /// Whether all there are have been noted.
    pub(super) fn set_complete(&self, complete: bool) {
        self.complete.store(complete, SeqCst);
    }

    pub(super) fn may_hold_parts(&self) -> bool {
        !self.complete.load(SeqCst) || self.parts.load(SeqCst)
    }

    pub(super) fn scattered(&self, place: u16) -> Scattered {
        if !self.complete.load(SeqCst) {
            return Scattered::Unknown;
        }
        let above = self.scattered[usize::from(place)].load(SeqCst).checked_sub(1);
        above.map_or(Scattered::No, |stamp| Scattered::UpTo(Position::from_number(stamp)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_once_all_are_noted() {
        let census = Census::new();
        assert!(census.may_hold_parts() && census.scattered(7) == Scattered::Unknown);
        census.set_complete(true);
        assert!(!census.may_hold_parts() && census.scattered(7) == Scattered::No);
        for stamp in [5, 3] {
            census.note(&Kin { part: false, scattered: Some((7, Position::from_number(stamp))) });
        }
        census.note(&Kin { part: true, scattered: None });
        assert!(census.may_hold_parts());
        assert_eq!(census.scattered(7), Scattered::UpTo(Position::from_number(5)), "the highest");
        assert_eq!(census.scattered(8), Scattered::No);
        census.set_complete(false);
        assert_eq!(census.scattered(8), Scattered::Unknown);
    }
}
