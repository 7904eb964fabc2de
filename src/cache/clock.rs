//! Now, as the cache counts it: the wall clock read once at start, plus monotonic time since.
//!
//! A step of the wall clock neither expires nor revives an entry, and tests that pause time pause this clock too.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::object::time::Timestamp;

/// A clock; copies show the same time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Timestamp,
    start: Instant,
}

impl Clock {
    /// Starts from the wall clock.
    pub fn start() -> Self {
        Self { base: SystemTime::now().into(), start: Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// The time at `instant`.
    pub fn at(&self, instant: Instant) -> Timestamp {
        self.base.plus(instant.saturating_duration_since(self.start))
    }

    /// Time since it was started.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }

    /// The wall clock's time at `instant`, as this clock has it.
    pub fn wall(&self, instant: Instant) -> SystemTime {
        self.at(instant).into()
    }
}
