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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redis::Value;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::sleep,
    };

    use super::*;
    use crate::kv::connect::Driver;

    const WITHIN: Duration = Duration::from_millis(10);

    /// A lane with a connection to a server that has not said anything yet.
    async fn lane(in_flight_max: usize, failures_max: u32) -> (Lane, Arc<Link>, Driver, DuplexStream) {
        let lane = Lane::new(in_flight_max, failures_max);
        let (link, driver, server) = link().await;
        lane.set(Phase::Up, Some(Arc::clone(&link)));
        (lane, link, driver, server)
    }

    async fn link() -> (Arc<Link>, Driver, DuplexStream) {
        let (client, server) = duplex(1 << 16);
        let (line, driver) = Line::over(client).await;
        (Arc::new(Link::new(line)), driver, server)
    }

    async fn ping(lane: &Lane) -> Result<Value, Error> {
        let command = redis::cmd("PING");
        lane.send(Instant::now() + WITHIN, |line| async move { line.one(&command).await }).await
    }

    /// Answers what was asked `count` times.
    async fn answer(server: &mut DuplexStream, count: usize) {
        let mut asked = [0; "*1\r\n$4\r\nPING\r\n".len()];
        for _ in 0..count {
            server.read_exact(&mut asked).await.expect("a question");
            server.write_all(b"+PONG\r\n").await.expect("a reader");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_outs_in_a_row_take_the_connection_away() {
        let (lane, link, _driver, _server) = lane(10, 3).await;
        for _ in 0..3 {
            let begun = Instant::now();
            assert_eq!(ping(&lane).await, Err(Error::Timeout));
            assert!(begun.elapsed() >= WITHIN);
        }
        let begun = Instant::now();
        assert_eq!(ping(&lane).await, Err(Error::Open));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        link.given_up.notified().await;
        lane.set(Phase::Open, None);
        assert_eq!(ping(&lane).await, Err(Error::Open));
        lane.set(Phase::Down, None);
        assert_eq!(ping(&lane).await, Err(Error::Unconnected));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_begins_the_row_anew() {
        let (lane, link, _driver, mut server) = lane(10, 2).await;
        assert_eq!(ping(&lane).await, Err(Error::Timeout));
        let (pong, ()) = tokio::join!(ping(&lane), answer(&mut server, 2));
        assert_eq!(pong, Ok(Value::SimpleString("PONG".into())));
        assert!(link.worked());
        assert_eq!(ping(&lane).await, Err(Error::Timeout));
        assert!(lane.line().is_some());
        assert_eq!(ping(&lane).await, Err(Error::Timeout));
        assert!(lane.line().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn late_failures_of_one_connection_do_not_count_for_the_next() {
        let (lane, _link, _driver, _server) = lane(10, 1).await;
        let (next, _next_driver, _next_server) = link().await;
        let (late, ()) = tokio::join!(ping(&lane), async {
            sleep(WITHIN / 2).await;
            lane.set(Phase::Up, Some(Arc::clone(&next)));
        });
        assert_eq!(late, Err(Error::Timeout));
        assert!(lane.line().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_under_way_are_counted_and_end() {
        let (lane, _link, driver, _server) = lane(2, 100).await;
        let (one, two, three) = tokio::join!(ping(&lane), ping(&lane), ping(&lane));
        assert_eq!((one, two, three), (Err(Error::Timeout), Err(Error::Timeout), Err(Error::Busy)));
        let (broken, ()) = tokio::join!(ping(&lane), async { drop(driver) });
        assert_eq!(broken.expect_err("broken").name(), "io");
        assert_eq!(lane.in_flight.load(Ordering::Relaxed), 0);
    }
}
