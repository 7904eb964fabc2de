//! What this node knows of callers: how much each has taken here, and what Redis said of him a moment ago.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    gcra::{Arrival, Rate},
    memory::{Idle, Table, Whose},
    redis::Said,
};

/// For so long what was taken from Redis may be handed out. Longer, and a burst of one node would come on top of what
/// the others take meanwhile.
const HELD: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Known {
    start: Instant,
    arrivals: Table<Arrival>,
    heard: Table<Heard>,
}

/// What a limit says to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// How many more would be admitted now.
    pub(super) left: u64,
    /// Nanoseconds until there is all of it again; where there is nothing left for this request, until there is.
    pub(super) reset: u64,
    /// Whether it is admitted.
    pub(super) admitted: bool,
}

/// What Redis said of somebody, while it holds.
#[derive(Default, Clone, Copy)]
struct Heard {
    /// When it ends.
    until: u64,
    /// How many were taken and are not handed out; if none: there are none before it ends.
    granted: u64,
    left: u64,
    whole_at: u64,
}

impl Idle for Heard {
    fn idle_at(&self) -> u64 {
        self.until
    }
}

impl Known {
    pub(super) fn new(callers: usize) -> Self {
        Self { start: Instant::now(), arrivals: Table::new(callers), heard: Table::new(callers) }
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Who is counted here at the moment.
    pub(super) fn callers(&self) -> usize {
        let now = self.now(Instant::now());
        self.arrivals.known(now) + self.heard.known(now)
    }

    /// Takes `cost`, counted here.
    pub(super) fn take(&self, whose: Whose, rate: &Rate, now: u64, cost: u64) -> Tally {
        self.arrivals.change(whose, now, |arrival| match rate.take(*arrival, now, cost) {
            Ok(next) => {
                *arrival = next;
                Tally::admitted(rate, next, now)
            }
            Err(wait) => Tally::refused(wait),
        })
    }

    /// Takes `cost`, whatever there is.
    pub(super) fn charge(&self, whose: Whose, rate: &Rate, now: u64, cost: u64) {
        self.arrivals.change(whose, now, |arrival| *arrival = rate.charge(*arrival, now, cost));
    }

    /// Nanoseconds that somebody who is counted here would have to wait; `None`: he would be admitted.
    pub(super) fn wait(&self, whose: Whose, rate: &Rate, now: u64) -> Option<u64> {
        self.arrivals.look(whose, now).and_then(|arrival| rate.take(arrival, now, 1).err())
    }

    /// Gives one back that was counted here.
    pub(super) fn give_back(&self, whose: Whose, rate: &Rate, now: u64) {
        self.arrivals.change(whose, now, |arrival| *arrival = rate.give_back(*arrival, 1));
    }

    /// What Redis has said of somebody; `None`: nothing that still holds.
    pub(super) fn remembered(&self, whose: Whose, now: u64) -> Option<Tally> {
        // Most often there is nothing, and then no place is to be taken for it.
        self.heard.look(whose, now)?;
        self.heard.change(whose, now, |heard| {
            if heard.until <= now {
                return None;
            }
            let Some(granted) = heard.granted.checked_sub(1) else { return Some(Tally::refused(heard.until - now)) };
            let reset = heard.whole_at.saturating_sub(now);
            let tally = Tally { left: heard.left.saturating_add(granted), reset, admitted: true };
            heard.granted = granted;
            if granted == 0 {
                // It is not that there are none: it is not known.
                *heard = Heard::default();
            }
            Some(tally)
        })
    }

    /// Takes one of what Redis has granted, and remembers the rest, or that there is nothing.
    pub(super) fn hear(&self, whose: Whose, said: Said, now: u64) -> Tally {
        let Some(more) = said.granted.checked_sub(1) else {
            let wait = said.wait.max(1);
            self.heard.change(whose, now, |heard| {
                // What others have taken meanwhile, and not handed out, is still there.
                if heard.granted == 0 {
                    *heard = Heard { until: now.saturating_add(wait), ..Heard::default() };
                }
            });
            return Tally::refused(wait);
        };
        if more > 0 {
            self.hold(whose, more, now, Some(said));
        }
        Tally { left: said.left.saturating_add(more), reset: said.whole_in, admitted: true }
    }

    /// Has one handed out again that Redis granted.
    pub(super) fn return_granted(&self, whose: Whose, now: u64) {
        self.hold(whose, 1, now, None);
    }

    fn hold(&self, whose: Whose, more: u64, now: u64, said: Option<Said>) {
        let held = u64::try_from(HELD.as_nanos()).unwrap_or(u64::MAX);
        self.heard.change(whose, now, |heard| {
            heard.granted = heard.granted.saturating_add(more);
            heard.until = now.saturating_add(held);
            if let Some(said) = said {
                heard.left = said.left;
                heard.whole_at = now.saturating_add(said.whole_in);
            }
        });
    }
}

impl Tally {
    pub(super) fn admitted(rate: &Rate, arrival: Arrival, now: u64) -> Self {
        Self { left: rate.left(arrival, now), reset: arrival.saturating_sub(now), admitted: true }
    }

    pub(super) fn refused(wait: u64) -> Self {
        Self { left: 0, reset: wait, admitted: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOSE: Whose = Whose { limit: 1, subject: 1 };

    fn said(granted: u64, left: u64, wait: u64) -> Said {
        Said { granted, left, whole_in: 100, wait }
    }

    #[tokio::test]
    async fn a_denial_holds_until_it_ends() {
        let known = Known::new(10);
        assert_eq!(known.remembered(WHOSE, 5), None);
        assert!(!known.hear(WHOSE, said(0, 0, 10), 5).admitted);
        assert_eq!(known.remembered(WHOSE, 6), Some(Tally::refused(9)));
        assert_eq!(known.remembered(WHOSE, 15), None);
    }

    #[tokio::test]
    async fn a_batch_is_handed_out_one_by_one() {
        let known = Known::new(10);
        assert_eq!(known.hear(WHOSE, said(3, 7, 0), 5).left, 9);
        for left in [8, 7] {
            let tally = known.remembered(WHOSE, 6).expect("one of the batch");
            assert_eq!((tally.admitted, tally.left), (true, left));
        }
        assert_eq!(known.remembered(WHOSE, 6), None, "Redis is to be asked, not: there are none");
        known.return_granted(WHOSE, 7);
        assert!(known.remembered(WHOSE, 8).expect("the one given back").admitted);
        assert_eq!(known.remembered(WHOSE, 8), None);
    }

    #[tokio::test]
    async fn what_was_taken_lapses() {
        let known = Known::new(10);
        known.hear(WHOSE, said(3, 7, 0), 5);
        let later = 5 + u64::try_from(HELD.as_nanos()).expect("a second");
        assert_eq!(known.remembered(WHOSE, later), None);
    }
}
