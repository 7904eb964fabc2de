//! The connection to one node for calls of one class, and its breaker.
//!
//! ```text
//!            answered                    broke, or could not be made: again after a pause that grows
//!   Fresh ─────────────▶ Up ─────────────────────────────────────────────────▶ Down
//!                         │ ▲                                                    │
//!        time-outs in a   │ └──────────────── answered ──────────────────────────┤
//!        row              └──▶ Open ─────── answered ─────▶ Up                   ▼
//! ```
//! Callers never wait for a connection. They take the one there is, or fail at once. Time-outs are counted on the
//! connection they happened on, so those of one that was given up say nothing of its successor.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{connect::Line, error::Error};

/// Where a lane is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Its first connection is being made.
    Fresh,
    /// There is a connection.
    Up,
    /// There is none.
    Down,
    /// There is none because calls timed out on the last one.
    Open,
}

/// A connection that is in use.
#[derive(Debug)]
pub(super) struct Link {
    line: Line,
    /// Time-outs since the last answer.
    failures: AtomicU32,
    /// Whether anything was ever answered on it.
    worked: AtomicBool,
    /// Told when it is given up.
    pub(super) given_up: Notify,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    link: ArcSwapOption<Link>,
    phase: AtomicU8,
    in_flight: AtomicUsize,
    in_flight_max: usize,
    failures_max: u32,
    /// Told that another lane of the node went up or was given up: a reason to see how this one is.
    pub(super) wake: Notify,
}

impl Link {
    pub(super) fn new(line: Line) -> Self {
        let (failures, worked) = (AtomicU32::new(0), AtomicBool::new(false));
        Self { line, failures, worked, given_up: Notify::new() }
    }

    pub(super) fn line(&self) -> Line {
        self.line.clone()
    }

    pub(super) fn worked(&self) -> bool {
        self.worked.load(Ordering::Relaxed)
    }

    fn answered(&self) {
        // Written where it changes only: all callers share it.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if !self.worked() {
            self.worked.store(true, Ordering::Relaxed);
        }
    }
}

/// A call under way, while it lives.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lane {
    pub(super) fn new(in_flight_max: usize, failures_max: u32) -> Self {
        Self {
            link: ArcSwapOption::empty(),
            phase: AtomicU8::new(Phase::Fresh as u8),
            in_flight: AtomicUsize::new(0),
            in_flight_max: in_flight_max.max(1),
            // Never to give up would let stuck calls pile up without end.
            failures_max: failures_max.max(1),
            wake: Notify::new(),
        }
    }

    /// Has `send` use the connection until `deadline`.
    pub(super) async fn send<T, F>(&self, deadline: Instant, send: impl FnOnce(Line) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Some(link) = self.link.load_full() else { return Err(self.absent()) };
        let _in_flight = self.enter()?;
        let sent = timeout_at(deadline, send(link.line())).await;
        match &sent {
            Ok(Ok(_)) => link.answered(),
            // It has ended by itself.
            Ok(Err(_)) => {}
            Err(_) => self.failed(&link),
        }
        sent.unwrap_or(Err(Error::Timeout))
    }

    /// The connection, for questions that count neither as calls nor as failures.
    pub(super) fn line(&self) -> Option<Line> {
        self.link.load().as_ref().map(|link| link.line())
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Fresh,
            1 => Phase::Up,
            2 => Phase::Down,
            _ => Phase::Open,
        }
    }

    /// Why there is no connection.
    pub(super) fn absent(&self) -> Error {
        match self.phase() {
            Phase::Fresh | Phase::Down => Error::Unconnected,
            // `Up` without a connection: it has been given up this very moment.
            Phase::Open | Phase::Up => Error::Open,
        }
    }

    /// From now on calls use `link`, or fail.
    pub(super) fn set(&self, phase: Phase, link: Option<Arc<Link>>) {
        // Whoever finds no connection looks at the phase next.
        self.phase.store(phase as u8, Ordering::Release);
        self.link.store(link);
    }

    fn enter(&self) -> Result<InFlight<'_>, Error> {
        let in_flight = InFlight(&self.in_flight);
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if before < self.in_flight_max { Ok(in_flight) } else { Err(Error::Busy) }
    }

    /// Counts a time-out; the last one of a row takes the connection away from all.
    fn failed(&self, link: &Arc<Link>) {
        if link.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1) == self.failures_max {
            self.link.compare_and_swap(&Some(Arc::clone(link)), None);
            link.given_up.notify_one();
        }
    }
}
