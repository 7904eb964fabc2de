//! What the parts of one connection tell each other: socket, service, body and the connection's clock.
//!
//! ```text
//!            first byte               request parsed          response head         body dropped
//!   Idle ───────────────▶ Head ─────────────────▶ Handling ─────────────▶ Responding ───────▶ Finished
//!    ▲                                                                                          │ flushed
//!    └──────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! That is HTTP/1.1, where [`Io`](super::io::Io) moves the left half and [`Exchange`](super::service::Exchange) the
//! right; a new connection starts in `Head`. HTTP/2 has many requests at once and only counts them.
//!
//! Nearly all of it runs in the connection's task: the atomics are there to make it `Sync`, not to order anything, and
//! cost what plain fields cost. What comes from elsewhere (an interim response, a body read in another task, HTTP/2
//! streams) wakes that task through a channel or waker, which is order enough.

use std::{
    mem,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    task::Waker,
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// Bytes of interim responses that may wait for the socket; what does not fit is dropped.
const INTERIM_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a response that hyper is given before it has written them: small pieces together, a large one alone. It would
/// take as much as its buffer may hold, and keep it for as long as a slow client lets it.
const UNWRITTEN_MAX: usize = 8 * 1024;

/// Where an HTTP/1.1 connection is with its current request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Part of a request head has come, or must come: the connection is new.
    Head,
    /// Between requests.
    Idle,
    /// The handler has the request and has not answered.
    Handling,
    /// The response body is being written.
    Responding,
    /// The response is complete, perhaps not all of it in the socket.
    Finished,
    /// Closed for writing; what the client still sends is thrown away so that it can read our last response.
    Lingering,
    /// No longer an HTTP connection.
    Gone,
}

impl Phase {
    const ALL: [Self; 7] =
        [Self::Head, Self::Idle, Self::Handling, Self::Responding, Self::Finished, Self::Lingering, Self::Gone];
}

/// What a connection waits for the client to do; each has its time-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Send the rest of a head.
    Head,
    /// Send another request.
    Idle,
    /// Accept bytes.
    Write,
    /// Read what was sent and close.
    Linger,
}

/// What is known about the framing of the head that was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum HeadSeen {
    /// Nothing: the bytes could not be told apart.
    Unknown,
    /// It carries no Content-Length.
    Plain,
    /// It carries Content-Length.
    ContentLength,
}

/// One per connection.
#[derive(Debug)]
pub(super) struct Link {
    multiplexed: bool,
    phase: AtomicU8,
    /// Requests so far; numbers the current one from 1.
    request: AtomicU64,
    /// Whether the current request may be answered with interim responses.
    interim_allowed: AtomicBool,
    head_seen: AtomicU8,
    /// Whether the current request's body is still coming.
    body_open: AtomicBool,
    /// Length of the current request's body, `u64::MAX` where only its end tells.
    body_length: AtomicU64,
    /// How much of it has come, where that is known.
    body_received: AtomicU64,
    /// Whether a request body was left unread.
    body_cut: AtomicBool,
    /// Whether the last write found the socket full.
    blocked: AtomicBool,
    /// Counts what the client lets through after having blocked; a change means progress.
    progress: AtomicU64,
    /// Bytes of the current response that hyper has been given since it last had written all.
    unwritten: AtomicUsize,
    /// Whether the response was asked for more than that.
    withheld: AtomicBool,
    /// Whether the connection must end with a reset, because a clean end would look like a complete response.
    reset: AtomicBool,
    /// HTTP/2: requests under way.
    active: AtomicUsize,
    /// HTTP/2: those of them that gave data and have not been asked for more.
    handed: AtomicUsize,
    /// HTTP/2: tunnels opened by requests that are over.
    tunnels: AtomicUsize,
    offered: AtomicBool,
    interim: Mutex<Offered>,
    waker: AtomicWaker,
}

/// Interim responses not yet in the socket.
#[derive(Debug, Default)]
struct Offered {
    request: u64,
    bytes: Vec<u8>,
}

impl Link {
    pub(super) fn new(multiplexed: bool) -> Self {
        Self {
            multiplexed,
            phase: AtomicU8::new(Phase::Head as u8),
            request: AtomicU64::new(0),
            interim_allowed: AtomicBool::new(false),
            head_seen: AtomicU8::new(HeadSeen::Unknown as u8),
            body_open: AtomicBool::new(false),
            body_length: AtomicU64::new(0),
            body_received: AtomicU64::new(0),
            body_cut: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            progress: AtomicU64::new(0),
            unwritten: AtomicUsize::new(0),
            withheld: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            handed: AtomicUsize::new(0),
            tunnels: AtomicUsize::new(0),
            offered: AtomicBool::new(false),
            interim: Mutex::new(Offered::default()),
            waker: AtomicWaker::new(),
        }
    }

    pub(super) fn multiplexed(&self) -> bool {
        self.multiplexed
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Relaxed))]
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    pub(super) fn request(&self) -> u64 {
        self.request.load(Relaxed)
    }

    /// What the connection waits for, with a number that changes when the wait begins anew.
    pub(super) fn waits(&self) -> Option<(Wait, u64)> {
        if self.blocked.load(Relaxed) {
            return Some((Wait::Write, self.progress.load(Relaxed)));
        }
        let phase = self.phase();
        if phase == Phase::Lingering {
            return Some((Wait::Linger, 0));
        }
        if self.multiplexed {
            return self.multiplexed_waits();
        }
        match phase {
            // A body that is still coming has its own time-outs.
            _ if self.body_open.load(Relaxed) => None,
            Phase::Head => Some((Wait::Head, self.request())),
            Phase::Idle => Some((Wait::Idle, self.request())),
            _ => None,
        }
    }

    /// With HTTP/2 a client that reads nothing does not block the socket: it opens no window.
    fn multiplexed_waits(&self) -> Option<(Wait, u64)> {
        match self.active.load(Relaxed) {
            // They have a time-out of their own.
            0 if self.tunnels.load(Relaxed) > 0 => None,
            0 => Some((Wait::Idle, self.request())),
            active if self.handed.load(Relaxed) >= active => Some((Wait::Write, self.progress.load(Relaxed))),
            _ => None,
        }
    }
}

/// Keeps an HTTP/2 connection without requests from counting as idle.
#[derive(Debug)]
pub struct Hold(Arc<Link>);

impl Hold {
    pub(super) fn new(link: Arc<Link>) -> Self {
        link.tunnels.fetch_add(1, Relaxed);
        Self(link)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Relaxed);
    }
}

// === the exchange ===

impl Link {
    /// A request head was parsed.
    pub(super) fn begin(&self, interim_allowed: bool, body_length: Option<u64>) {
        self.request.fetch_add(1, Relaxed);
        if self.multiplexed {
            self.active.fetch_add(1, Relaxed);
            return;
        }
        self.interim_allowed.store(interim_allowed, Relaxed);
        self.body_length.store(body_length.unwrap_or(u64::MAX), Relaxed);
        self.body_open.store(body_length != Some(0), Relaxed);
        self.body_cut.store(false, Relaxed);
        self.enter(Phase::Handling);
    }

    /// A request was answered that hyper did not see.
    pub(super) fn pass_by(&self) {
        self.request.fetch_add(1, Relaxed);
        self.enter(Phase::Idle);
    }

    /// The handler answered.
    pub(super) fn respond(&self) {
        if !self.multiplexed {
            self.unwritten.store(0, Relaxed);
            self.enter(Phase::Responding);
        }
    }

    /// The response body was dropped, complete or not.
    pub(super) fn finish(&self, handed: bool) {
        if self.multiplexed {
            self.hand(handed, false);
            self.active.fetch_sub(1, Relaxed);
        } else if matches!(self.phase(), Phase::Handling | Phase::Responding) {
            self.enter(Phase::Finished);
        }
    }

    /// HTTP/2: a response body was asked for more (`to == false`) or gave something (`true`).
    pub(super) fn hand(&self, from: bool, to: bool) {
        if !self.multiplexed || from == to {
            return;
        }
        self.progress.fetch_add(1, Relaxed);
        if to {
            self.handed.fetch_add(1, Relaxed);
        } else {
            self.handed.fetch_sub(1, Relaxed);
        }
    }

    /// The connection must not end cleanly.
    pub(super) fn demand_reset(&self) {
        self.reset.store(true, Relaxed);
    }

    pub(super) fn reset_demanded(&self) -> bool {
        self.reset.load(Relaxed)
    }
}

// === the request's framing ===

impl Link {
    pub(super) fn saw_head(&self, seen: HeadSeen) {
        self.head_seen.store(seen as u8, Relaxed);
    }

    /// What is known of the head that was just parsed, once.
    pub(super) fn take_head_seen(&self) -> HeadSeen {
        match self.head_seen.swap(HeadSeen::Unknown as u8, Relaxed) {
            seen if seen == HeadSeen::Plain as u8 => HeadSeen::Plain,
            seen if seen == HeadSeen::ContentLength as u8 => HeadSeen::ContentLength,
            _ => HeadSeen::Unknown,
        }
    }

    pub(super) fn saw_body(&self, received: u64) {
        self.body_received.store(received, Relaxed);
    }

    /// Whether the current request's body was left unread with more of it to come. (If all has come, hyper passes
    /// over it.)
    pub(super) fn body_outstanding(&self) -> bool {
        self.body_cut() && self.body_received.load(Relaxed) < self.body_length.load(Relaxed)
    }

    pub(super) fn body_open(&self) -> bool {
        self.body_open.load(Relaxed)
    }

    /// Length of the current request's body; `None` where only its end tells.
    pub(super) fn body_length(&self) -> Option<u64> {
        Some(self.body_length.load(Relaxed)).filter(|&length| length != u64::MAX)
    }

    /// The request body was read to its end, or is not wanted any more.
    pub(super) fn close_body(&self, complete: bool) {
        if self.multiplexed {
            return;
        }
        self.body_open.store(false, Relaxed);
        if !complete {
            self.body_cut.store(true, Relaxed);
        }
    }

    pub(super) fn body_cut(&self) -> bool {
        self.body_cut.load(Relaxed)
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn unread(&self) -> bool {
        self.body_cut() || self.phase() == Phase::Head
    }
}

// === the socket ===

impl Link {
    pub(super) fn block(&self) {
        self.blocked.store(true, Relaxed);
    }

    pub(super) fn unblock(&self) {
        self.progress.fetch_add(1, Relaxed);
        self.blocked.store(false, Relaxed);
    }
}

// === the response's content ===

impl Link {
    /// Whether hyper has enough to write. If so, [`Link::written`] tells that it is to ask again.
    pub(super) fn withholds(&self) -> bool {
        let enough = !self.multiplexed && self.unwritten.load(Relaxed) >= UNWRITTEN_MAX;
        if enough {
            self.withheld.store(true, Relaxed);
        }
        enough
    }

    /// hyper was given so many bytes to write.
    pub(super) fn give(&self, bytes: usize) {
        self.unwritten.store(self.unwritten.load(Relaxed).saturating_add(bytes), Relaxed);
    }

    /// hyper has written all it was given. Whether it has asked for more meanwhile.
    pub(super) fn written(&self) -> bool {
        self.unwritten.store(0, Relaxed);
        let withheld = self.withheld.load(Relaxed);
        self.withheld.store(false, Relaxed);
        withheld
    }
}

// === interim responses ===

impl Link {
    /// Whether request `number` can be sent interim responses now.
    pub(super) fn accepts_interim(&self, number: u64) -> bool {
        number == self.request() && self.interim_allowed.load(Relaxed) && self.phase() == Phase::Handling
    }

    /// Queues an interim response for request `number` and wakes the connection. From any task.
    pub(super) fn offer(&self, number: u64, render: impl FnOnce(&mut Vec<u8>)) {
        let mut offered = self.interim.lock();
        if offered.request != number {
            offered.request = number;
            offered.bytes.clear();
        }
        let before = offered.bytes.len();
        render(&mut offered.bytes);
        if offered.bytes.len() > INTERIM_BYTES_MAX {
            offered.bytes.truncate(before);
        }
        drop(offered);
        self.offered.store(true, std::sync::atomic::Ordering::Release);
        self.waker.wake();
    }

    /// Moves what was offered for request `number` to `out`; what was offered for an earlier one is gone.
    pub(super) fn take_offered(&self, number: u64, out: &mut Vec<u8>) {
        if !self.offered.swap(false, std::sync::atomic::Ordering::Acquire) {
            return;
        }
        let offered = &mut *self.interim.lock();
        if offered.request == number {
            mem::swap(out, &mut offered.bytes);
        }
        offered.bytes.clear();
    }

    pub(super) fn has_offered(&self) -> bool {
        self.offered.load(Relaxed)
    }

    /// Who is woken by [`Link::offer`].
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}
