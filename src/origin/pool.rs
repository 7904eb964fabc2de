//! The connections to one endpoint, and who may use them.
//!
//! A request first takes one of a bounded number of slots, waiting in a bounded queue if all are taken; then a
//! connection: the HTTP/1 one that was put back last, a stream of an HTTP/2 one, or a new one.
//!
//! ```text
//!            ┌──────────── lease ────────────┐
//!  queue ──▶ slot ──▶ idle │ h2 stream │ dial ──▶ exchange ──▶ body ends ──▶ idle (HTTP/1), slot free
//!                                                     └── error or early drop ──▶ connection closed, slot free
//! ```
//! HTTP/1 takes one slot a connection. Once an origin has chosen HTTP/2 there are `h2_streams_max` times as many, and
//! connection attempts go one at a time, so that a burst at the start shares a connection; those that waited for an
//! attempt share its failure too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use super::{
    config::Config,
    connect::{Spoken, connect},
    direct::Direct,
    error::{Error, Kind},
    h1::H1,
    h2::H2,
    metrics::Metrics,
    tasked::Tasked,
    upstream::{Endpoint, Limits},
    wire::{Clock, Open},
};

/// A connection that has just delivered the end of a body becomes ready within microseconds.
const SETTLE: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Pool {
    endpoint: Arc<Endpoint>,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// When a request last asked for it.
    used: AtomicU64,
    slots: Semaphore,
    waiting: AtomicUsize,
    /// One permit: connection attempts that may end in HTTP/2.
    dialing: Semaphore,
    /// Whether the origin has chosen HTTP/2 before, and slots are as many as streams.
    widened: AtomicBool,
    /// Whether the origin, offered HTTP/2, chose HTTP/1 the last time.
    declined_h2: AtomicBool,
    open: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The one put back last is at the end.
    idle: Vec<Idle>,
    h2: Vec<Arc<H2>>,
    /// Attempts made one at a time, and how the last one failed.
    dials: u64,
    failure: Option<Error>,
}

#[derive(Debug)]
struct Idle {
    h1: H1,
    until: Instant,
}

/// The right to use a connection for one request. Dropped without [`Lease::finish`], it closes an HTTP/1 connection.
/// The connection goes before the slot: who gets the slot next must not find one connection too many.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) wire: Wire,
    /// Whether the connection was open already.
    pub(super) reused: bool,
    /// How long it took to open it, if it was not.
    pub(super) connect: Option<Duration>,
    slot: Slot,
}

/// What a request asks of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// A new one: those that are idle cannot be trusted.
    pub(super) fresh: bool,
    /// One whose origin has not hung up, as far as can be found out: the request cannot be sent twice.
    pub(super) sure: bool,
    /// One that drives itself while the request is still being made.
    pub(super) tasked: bool,
}

/// The connection of a lease.
#[derive(Debug)]
pub(super) enum Wire {
    H1(H1),
    H2(Stream),
}

/// One request's place on an HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Stream(Arc<H2>);

#[derive(Debug)]
struct Slot {
    pool: Arc<Pool>,
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(endpoint: Arc<Endpoint>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self {
            used: AtomicU64::new(clock.now()),
            slots: Semaphore::new(endpoint.limits.connections_max),
            waiting: AtomicUsize::new(0),
            dialing: Semaphore::new(1),
            widened: AtomicBool::new(false),
            declined_h2: AtomicBool::new(false),
            open: Arc::default(),
            state: Mutex::default(),
            endpoint,
            metrics,
            clock,
        }
    }

    /// Notes that a request asked for it.
    pub(super) fn touch(&self) {
        self.used.store(self.clock.now(), Ordering::Relaxed);
    }

    /// When a request last asked for it.
    pub(super) fn last_used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A connection for one request.
    pub(super) async fn lease(self: &Arc<Self>, config: &Config, need: Need) -> Result<Lease, Error> {
        let slot = self.slot(config).await?;
        let began = Instant::now();
        if !need.fresh
            && let Some(wire) = self.take(began, need).await
        {
            let wire = match wire {
                Wire::H1(h1) if need.tasked => Wire::H1(h1.into_tasked(self.limits()).await?),
                wire => wire,
            };
            return Ok(Lease { wire, reused: true, connect: None, slot });
        }
        let deadline = began + config.connect_timeout;
        let alone = !self.endpoint.may_speak_h2() || self.declined_h2.load(Ordering::Relaxed);
        // Boxed: what a request on an open connection does not do should not make its future large.
        let dialing =
            async { if alone { self.dial(deadline, need).await } else { self.dial_in_turn(deadline, need).await } };
        let wire = Box::pin(dialing).await?;
        Ok(Lease { wire, reused: false, connect: Some(began.elapsed()), slot })
    }

    /// A slot, after waiting in the queue if need be.
    async fn slot(self: &Arc<Self>, config: &Config) -> Result<Slot, Error> {
        let permit = match self.slots.try_acquire() {
            Ok(permit) => permit,
            Err(_none) => {
                let began = Instant::now();
                let _place = Place::take(&self.waiting, config.queue_max)?;
                let acquired = timeout(config.queue_timeout, self.slots.acquire()).await;
                self.metrics.queued(began.elapsed());
                let limit = |_elapsed| Error::new(Kind::ConnectionLimit);
                acquired.map_err(limit)?.expect("the semaphore is never closed")
            }
        };
        permit.forget();
        self.metrics.in_flight.inc();
        Ok(Slot { pool: Arc::clone(self) })
    }

    /// A connection that is open already.
    async fn take(&self, now: Instant, need: Need) -> Option<Wire> {
        loop {
            let mut h1 = {
                let mut state = self.state.lock();
                if let Some(stream) = state.take_stream(self.limits()) {
                    return Some(Wire::H2(stream));
                }
                let before = state.idle.len();
                let taken = state.take_idle(now);
                self.count_idle(before, state.idle.len());
                taken?
            };
            if need.sure && !h1.is_alive_now() {
                continue;
            }
            if !h1.is_ready() && !timeout(SETTLE, h1.ready()).await.ok()? {
                return None;
            }
            return Some(Wire::H1(h1));
        }
    }

    /// A new connection, or a stream of one that another request has opened meanwhile.
    async fn dial_in_turn(&self, deadline: Instant, need: Need) -> Result<Wire, Error> {
        let seen = self.state.lock().dials;
        let turn = timeout_at(deadline, self.dialing.acquire());
        let turn = turn.await.map_err(|_elapsed| Error::new(Kind::ConnectTimeout).echo())?;
        if self.declined_h2.load(Ordering::Relaxed) {
            drop(turn);
            return self.dial(deadline, need).await;
        }
        {
            let mut state = self.state.lock();
            if let Some(stream) = state.take_stream(self.limits()) {
                return Ok(Wire::H2(stream));
            }
            if state.dials != seen
                && let Some(error) = &state.failure
            {
                return Err(error.echo());
            }
            if self.is_full()
                && let Some(stream) = state.take_least_loaded()
            {
                return Ok(Wire::H2(stream));
            }
        }
        let dialled = self.dial(deadline, need).await;
        let mut state = self.state.lock();
        state.dials += 1;
        state.failure = dialled.as_ref().err().cloned();
        dialled
    }

    /// A new connection.
    async fn dial(&self, deadline: Instant, need: Need) -> Result<Wire, Error> {
        self.make_room()?;
        let open = Open::new(&self.open, &self.metrics.open);
        let began = Instant::now();
        let (stream, spoken) = connect(&self.endpoint, deadline).await?;
        let wire = match spoken {
            Spoken::H1 => {
                self.declined_h2.store(true, Ordering::Relaxed);
                Wire::H1(match need.tasked {
                    true => H1::Tasked(Tasked::start(stream, self.limits(), open).await?),
                    false => H1::Direct(Box::new(Direct::new(stream, open))),
                })
            }
            Spoken::H2 => {
                self.declined_h2.store(false, Ordering::Relaxed);
                let h2 = H2::start(stream, self.limits(), open, self.clock.clone(), deadline).await?;
                Wire::H2(self.share(Arc::new(h2)))
            }
        };
        self.metrics.opened(spoken == Spoken::H2, began.elapsed());
        Ok(wire)
    }

    /// Closes the connection unused for longest if there is one too many.
    fn make_room(&self) -> Result<(), Error> {
        while self.is_full() {
            let oldest = {
                let mut state = self.state.lock();
                if state.idle.is_empty() { None } else { Some(state.idle.remove(0)) }
            };
            match oldest {
                Some(_closed) => self.count_idle(1, 0),
                // There are more slots than connections: those of HTTP/2.
                None if self.widened.load(Ordering::Relaxed) => return Err(Error::new(Kind::ConnectionLimit)),
                None => break,
            }
        }
        Ok(())
    }

    /// Lets others use a new HTTP/2 connection too.
    fn share(&self, h2: Arc<H2>) -> Stream {
        let stream = Stream::enter(&h2);
        self.state.lock().h2.push(h2);
        if !self.widened.swap(true, Ordering::Relaxed) {
            let limits = self.limits();
            self.slots.add_permits(limits.connections_max * (limits.streams_max - 1));
        }
        stream
    }

    /// Keeps an HTTP/1 connection for the next request.
    fn put_back(&self, mut h1: H1) {
        let (idle_max, keep) = (self.limits().idle_max, h1.keep());
        if keep.is_zero() || !h1.is_alive() || idle_max == 0 {
            return;
        }
        let until = Instant::now() + keep;
        let mut state = self.state.lock();
        let before = state.idle.len();
        if before >= idle_max {
            state.idle.remove(0);
        }
        state.idle.push(Idle { h1, until });
        self.count_idle(before, state.idle.len());
    }

    /// Closes what is dead or was unused for too long. Returns whether nothing is left.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let keep_max = self.limits().keep_max;
        let mut state = self.state.lock();
        let before = state.idle.len();
        state.idle.retain_mut(|idle| idle.until > now && idle.h1.is_alive());
        state.h2.retain(|h2| h2.is_usable() && !h2.is_unused(keep_max));
        self.count_idle(before, state.idle.len());
        state.idle.is_empty() && state.h2.is_empty() && self.open.load(Ordering::Relaxed) == 0
    }

    fn limits(&self) -> &Limits {
        &self.endpoint.limits
    }

    fn is_full(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.limits().connections_max
    }

    fn count_idle(&self, before: usize, after: usize) {
        if after > before {
            self.metrics.idle.inc_by((after - before) as i64);
        } else if before > after {
            self.metrics.idle.dec_by((before - after) as i64);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let idle = self.state.get_mut().idle.len();
        self.count_idle(idle, 0);
    }
}

// === impl State ===

impl State {
    /// The live connection put back last; one that is not ready yet only if no other is. Dead ones on the way go.
    fn take_idle(&mut self, now: Instant) -> Option<H1> {
        let here = thread::current().id();
        let (mut elsewhere, mut settling) = (None, None);
        for index in (0..self.idle.len()).rev() {
            let Idle { h1, until } = &mut self.idle[index];
            if *until <= now || !h1.is_alive() {
                self.idle.remove(index);
                // What was found before stood behind this one.
                let moved = |index: usize| index - 1;
                (elsewhere, settling) = (elsewhere.map(moved), settling.map(moved));
            } else if !h1.is_ready() {
                settling = settling.or(Some(index));
            } else if h1.home() == here {
                return Some(self.idle.remove(index).h1);
            } else {
                elsewhere = elsewhere.or(Some(index));
            }
        }
        elsewhere.or(settling).map(|index| self.idle.remove(index).h1)
    }

    /// A stream of the first connection with room.
    fn take_stream(&mut self, limits: &Limits) -> Option<Stream> {
        if self.h2.is_empty() {
            return None;
        }
        self.h2.retain(|h2| h2.is_usable());
        self.h2.iter().find(|h2| h2.has_room(limits.streams_max)).map(Stream::enter)
    }

    /// A stream that waits until one of the origin's streams is free.
    fn take_least_loaded(&self) -> Option<Stream> {
        self.h2.iter().min_by_key(|h2| h2.streams()).map(Stream::enter)
    }
}

// === impl Lease ===

impl Lease {
    /// The request and its response are complete: the next one may have the connection.
    pub(super) fn finish(self) {
        let Self { wire, slot, .. } = self;
        if let Wire::H1(h1) = wire {
            slot.pool.put_back(h1);
        }
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.slot.pool.metrics
    }

    /// Its connection, where the request drives that itself.
    pub(super) fn direct(&self) -> Option<&Direct> {
        if let Wire::H1(H1::Direct(direct)) = &self.wire { Some(direct) } else { None }
    }

    /// The same, to drive it, and what it may be sent.
    pub(super) fn direct_mut(&mut self) -> Option<(&mut Direct, &Limits)> {
        let limits = self.slot.pool.limits();
        if let Wire::H1(H1::Direct(direct)) = &mut self.wire { Some((direct, limits)) } else { None }
    }

    /// How long an unused connection is kept at most.
    pub(super) fn keep_max(&self) -> Duration {
        self.slot.pool.limits().keep_max
    }
}

impl Stream {
    fn enter(h2: &Arc<H2>) -> Self {
        h2.enter();
        Self(Arc::clone(h2))
    }

    pub(super) fn connection(&self) -> &H2 {
        &self.0
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.metrics.in_flight.dec();
        self.pool.slots.add_permits(1);
    }
}

/// A place in the queue.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, queue_max: usize) -> Result<Self, Error> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= queue_max {
            return Err(Error::new(Kind::ConnectionLimit));
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::{super::io::Stream, *};

    /// One idle connection for each of `homes`, and the other ends.
    async fn idle(homes: &[thread::ThreadId]) -> (State, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (mut state, mut peers) = (State::default(), Vec::new());
        for &home in homes {
            let tcp = TcpStream::connect(address).await.expect("listening");
            peers.push(listener.accept().await.expect("connected").0);
            let mut direct = Direct::new(Stream::Plain(tcp), Open::new(&Arc::default(), &Default::default()));
            direct.home = home;
            let until = Instant::now() + Duration::from_secs(60);
            state.idle.push(Idle { h1: H1::Direct(Box::new(direct)), until });
        }
        (state, peers)
    }

    #[tokio::test]
    async fn connections_driven_here_are_taken_first_and_the_last_of_them_before_the_others() {
        let here = thread::current().id();
        let there = thread::spawn(|| thread::current().id()).join().expect("no panic");
        let (mut state, peers) = idle(&[here, there, here, there]).await;
        let ports: Vec<u16> = peers.iter().map(|peer| peer.peer_addr().expect("connected").port()).collect();
        let mut taken = Vec::new();
        while let Some(H1::Direct(direct)) = state.take_idle(Instant::now()) {
            taken.push(direct.into_stream().0.tcp().local_addr().expect("connected").port());
        }
        assert_eq!(taken, [ports[2], ports[0], ports[3], ports[1]]);
    }

    #[tokio::test]
    async fn a_connection_that_the_origin_has_closed_is_found_out_by_asking() {
        let (mut state, mut peers) = idle(&[thread::current().id(); 2]).await;
        drop(peers.remove(0));
        let mut alive = Vec::new();
        for Idle { h1, .. } in &mut state.idle {
            alive.push(h1.is_alive_now());
        }
        assert_eq!(alive, [false, true]);
    }
}
