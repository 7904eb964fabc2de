//! A breaker: rests an upstream that failed several times in a row, then lets one request try it.
//!
//! ```text
//!            failures in a row              rest over, one request
//!   Closed ───────────────────▶ Resting ───────────────────────────▶ Probing
//!     ▲                           ▲                                   │   │
//!     └───────────── success ─────┼───────────────────────────────────┘   │
//!                                 └────────────── failure ────────────────┘
//! ```
//! A probe that ends undecided (its request was cancelled, or failed for a reason that says nothing about the
//! upstream) leaves the turn to the next request. While nothing has failed, only one atomic is read.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::metrics::BreakerState;

/// See the module.
#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    rest: Duration,
    /// Whether the state is anything but `Closed` without failures.
    troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Resting { until: Instant },
    Probing,
}

/// Leave to try the upstream; tell it how it went, or drop it if nothing was learnt.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    /// Set while the request is the one probe.
    probe: Option<&'a Breaker>,
    breaker: &'a Breaker,
}

impl Breaker {
    /// A closed breaker; it never opens with `failures_max` 0.
    pub(super) fn new(failures_max: u32, rest: Duration) -> Self {
        Self { failures_max, rest, troubled: AtomicBool::new(false), state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Leave to try the upstream, unless it rests.
    pub(super) fn admit(&self, now: impl FnOnce() -> Instant) -> Option<Admission<'_>> {
        if !self.troubled.load(Ordering::Relaxed) {
            return Some(Admission { probe: None, breaker: self });
        }
        let mut state = self.state.lock();
        match *state {
            State::Closed { .. } => Some(Admission { probe: None, breaker: self }),
            State::Resting { until } if until <= now() => {
                *state = State::Probing;
                Some(Admission { probe: Some(self), breaker: self })
            }
            State::Resting { .. } | State::Probing => None,
        }
    }

    /// Closes; says so if it was not closed before.
    fn close(&self) -> Option<BreakerState> {
        let mut state = self.state.lock();
        let changed = !matches!(*state, State::Closed { .. });
        *state = State::Closed { failures: 0 };
        self.troubled.store(false, Ordering::Relaxed);
        changed.then_some(BreakerState::Closed)
    }

    /// Counts a failure; says so if it now begins to rest.
    fn fail(&self, now: Instant, probe: bool) -> Option<BreakerState> {
        let mut state = self.state.lock();
        let failures = match *state {
            State::Closed { failures } => failures.saturating_add(1),
            State::Probing if probe => self.failures_max,
            // A request from before the rest: nothing new.
            State::Resting { .. } | State::Probing => return None,
        };
        if self.failures_max == 0 {
            return None;
        }
        self.troubled.store(true, Ordering::Relaxed);
        let rests = failures >= self.failures_max;
        *state = if rests { State::Resting { until: now + self.rest } } else { State::Closed { failures } };
        rests.then_some(BreakerState::Resting)
    }
}

impl Admission<'_> {
    /// Whether this is the one request that tries a rested upstream.
    pub(super) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// The upstream answered. Returns the state newly entered, if any.
    pub(super) fn succeeded(mut self) -> Option<BreakerState> {
        self.probe = None;
        if self.breaker.troubled.load(Ordering::Relaxed) { self.breaker.close() } else { None }
    }

    /// The upstream failed. Returns the state newly entered, if any.
    pub(super) fn failed(mut self, now: Instant) -> Option<BreakerState> {
        let probe = self.probe.take().is_some();
        self.breaker.fail(now, probe)
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.probe {
            let mut state = breaker.state.lock();
            if *state == State::Probing {
                // `until` of the last rest has passed: the next request may probe at once.
                *state = State::Resting { until: Instant::now() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(5);

    fn fail(breaker: &Breaker, now: Instant) -> Option<BreakerState> {
        breaker.admit(|| now).expect("admitted").failed(now)
    }

    #[test]
    fn rests_after_failures_in_a_row_and_probes_once() {
        let (breaker, now) = (Breaker::new(3, REST), Instant::now());
        assert_eq!(fail(&breaker, now), None);
        assert_eq!(fail(&breaker, now), None);
        assert_eq!(fail(&breaker, now), Some(BreakerState::Resting));
        assert!(breaker.admit(|| now + REST - Duration::from_millis(1)).is_none());
        let probe = breaker.admit(|| now + REST).expect("one probe");
        assert!(probe.is_probe());
        assert!(breaker.admit(|| now + REST).is_none(), "only one");
        assert_eq!(probe.succeeded(), Some(BreakerState::Closed));
        assert!(!breaker.admit(|| now).expect("closed").is_probe());
    }

    #[test]
    fn a_failed_probe_rests_again() {
        let (breaker, now) = (Breaker::new(1, REST), Instant::now());
        assert_eq!(fail(&breaker, now), Some(BreakerState::Resting));
        let later = now + REST;
        assert_eq!(fail(&breaker, later), Some(BreakerState::Resting));
        assert!(breaker.admit(|| later).is_none());
        assert!(breaker.admit(|| later + REST).is_some());
    }

    #[test]
    fn success_resets_the_count() {
        let (breaker, now) = (Breaker::new(2, REST), Instant::now());
        assert_eq!(fail(&breaker, now), None);
        assert_eq!(breaker.admit(|| now).expect("closed").succeeded(), None);
        assert_eq!(fail(&breaker, now), None);
        assert_eq!(fail(&breaker, now), Some(BreakerState::Resting));
    }

    #[test]
    fn an_undecided_probe_leaves_the_turn_to_the_next() {
        let (breaker, now) = (Breaker::new(1, REST), Instant::now());
        fail(&breaker, now);
        drop(breaker.admit(|| now + REST).expect("a probe"));
        assert!(breaker.admit(|| now + REST).expect("the next one").is_probe());
    }

    #[test]
    fn late_failures_do_not_prolong_the_rest_and_zero_never_rests() {
        let (breaker, now) = (Breaker::new(1, REST), Instant::now());
        let late = breaker.admit(|| now).expect("closed");
        fail(&breaker, now);
        assert_eq!(late.failed(now + REST / 2), None);
        assert!(breaker.admit(|| now + REST).is_some());
        let never = Breaker::new(0, REST);
        for _ in 0..10 {
            assert_eq!(fail(&never, now), None);
        }
    }
}
