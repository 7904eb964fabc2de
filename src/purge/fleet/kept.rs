//! The last records that this node applied: what a fail-over may have lost, and who has them gives back.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::super::{mark::Mark, types::Purge};

const RECORDS_MAX: usize = 1024;
const SCOPES_MAX: usize = 1 << 17;

/// A fail-over that loses something older than this loses far more than purges.
const AGE_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Clone)]
pub(super) struct One {
    pub(super) mark: Mark,
    pub(super) purge: Purge,
    since: Instant,
}

/// Oldest first.
#[derive(Debug, Default)]
pub(super) struct Kept {
    records: VecDeque<One>,
    scopes: usize,
}

impl Kept {
    pub(super) fn push(&mut self, mark: Mark, purge: Purge, now: Instant) {
        self.scopes += purge.scopes.len();
        self.records.push_back(One { mark, purge, since: now });
        while self.records.len() > RECORDS_MAX || self.scopes > SCOPES_MAX {
            let Some(oldest) = self.records.pop_front() else { break };
            self.scopes -= oldest.purge.scopes.len();
        }
    }

    /// Those that are not too old, oldest first.
    pub(super) fn young(&self, now: Instant) -> Vec<One> {
        let is_young = |one: &&One| now.saturating_duration_since(one.since) < AGE_MAX;
        self.records.iter().filter(is_young).cloned().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &One> {
        self.records.iter()
    }

    pub(super) fn oldest(&self) -> Option<Mark> {
        self.records.front().map(|one| one.mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        object::{scope::Scope, time::Timestamp},
        purge::{Mode, PurgeId},
    };

    fn purge(scopes: usize) -> Purge {
        Purge {
            id: PurgeId::named("a"),
            at: Timestamp::EPOCH,
            mode: Mode::Hard,
            scopes: vec![Scope::everything(); scopes],
            hold: Duration::ZERO,
            note: String::new(),
        }
    }

    #[test]
    fn bounded_in_number_size_and_age() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        (0..RECORDS_MAX + 5).for_each(|_| kept.push(Mark::default(), purge(1), start));
        assert_eq!(kept.young(start).len(), RECORDS_MAX);
        kept.push(Mark::default(), purge(SCOPES_MAX), start);
        assert_eq!((kept.records.len(), kept.scopes), (1, SCOPES_MAX));
        assert!(kept.young(start + AGE_MAX).is_empty());
    }
}
