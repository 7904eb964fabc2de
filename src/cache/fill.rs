//! One origin response on its way into the cache, and those who wait for it.
//!
//! ```text
//!            ┌────────▶ Shared ─── its body grows; leader and followers read it
//!            ├────────▶ Entry ──── a stored response answers: confirmed by 304, or stale because the origin failed
//!  Waiting ──┤
//!            ├────────▶ Released ─ not storable: the leader takes the response, followers go by themselves
//!            └────────▶ Failed ─── no response: the same failure to all
//! ```
//!
//! A fill belongs to the cache: it runs in a task of its own, and no client's leaving ends it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    failure::Failure,
    growing::{Growing, Reader},
    outcome::Kind,
};
use crate::{
    object::{
        entry::Entry,
        freshness::Freshness,
        key::Key,
        scope::{Position, Scope},
        time::Timestamp,
        validators::Validators,
        vary::Vary,
    },
    origin::OriginResponse,
};

/// Interim responses kept for those who join before the final head arrives.
const INTERIMS_MAX: usize = 16;

/// An interim response (RFC 9110 section 15.2).
#[derive(Debug, Clone)]
pub(super) struct InterimHead {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
}

/// One fill.
pub(super) struct Fill {
    /// Position of the purge log before the request leaves (rule F1).
    pub(super) stamp: Position,
    /// Scopes that the request alone tells.
    pub(super) scopes: Vec<Scope>,
    pub(super) growing: Arc<Growing>,
    state: Mutex<State>,
    changed: Notify,
    /// Set by an unsafe request that invalidated the URL meanwhile: not to be stored, not to be joined.
    invalidated: AtomicBool,
}

struct State {
    interims: Vec<InterimHead>,
    settled: Option<Settled>,
    /// Until when a failure is given to those who ask again.
    failed_until: Timestamp,
    /// The response itself, for the leader of a fill that proved not storable.
    direct: Option<OriginResponse>,
}

/// What a fill came to, at the head.
#[derive(Clone)]
pub(super) enum Settled {
    Shared(Arc<Shared>),
    Entry {
        entry: Arc<Entry>,
        kind: Kind,
        status: Option<u16>,
    },
    Released {
        reason: &'static str,
    },
    Failed(Arc<Failure>),
    /// Never begun: what it was for had been stored meanwhile. Look again.
    Again,
}

/// The head of a storable response while its body arrives.
pub(super) struct Shared {
    pub(super) status: StatusCode,
    /// As the client gets them: end-to-end fields, as received.
    pub(super) fields: HeaderMap,
    pub(super) validators: Validators,
    pub(super) freshness: Freshness,
    /// Length of the content, where the origin announced it.
    pub(super) length: Option<u64>,
    /// Whether it is a part of a representation.
    pub(super) part: bool,
    pub(super) vary: Vary,
    /// The key it is stored under.
    pub(super) key: Key,
    /// All scopes, tags included.
    pub(super) scopes: Vec<Scope>,
}

impl Fill {
    pub(super) fn new(stamp: Position, scopes: Vec<Scope>, growing: Arc<Growing>) -> Arc<Self> {
        let state = State { interims: Vec::new(), settled: None, failed_until: Timestamp::EPOCH, direct: None };
        Arc::new(Self {
            stamp,
            scopes,
            growing,
            state: Mutex::new(state),
            changed: Notify::new(),
            invalidated: AtomicBool::new(false),
        })
    }

    /// Passes an interim response on to all who wait.
    pub(super) fn interim(&self, status: StatusCode, fields: &HeaderMap) {
        {
            let mut state = self.state.lock();
            if state.interims.len() >= INTERIMS_MAX {
                return;
            }
            state.interims.push(InterimHead { status, fields: fields.clone() });
        }
        self.changed.notify_waiters();
    }

    /// Tells all who wait what the head came to.
    pub(super) fn settle(&self, settled: Settled) {
        self.state.lock().settled.get_or_insert(settled);
        self.changed.notify_waiters();
    }

    /// Not storable: `response` is the leader's.
    pub(super) fn release(&self, response: OriginResponse, reason: &'static str) {
        self.state.lock().direct = Some(response);
        self.settle(Settled::Released { reason });
    }

    /// Failed; those who ask before `until` get the same answer.
    pub(super) fn fail(&self, failure: Arc<Failure>, until: Timestamp) {
        {
            let mut state = self.state.lock();
            if state.settled.is_none() {
                state.failed_until = until;
            }
        }
        self.growing.fail(Arc::clone(&failure));
        self.settle(Settled::Failed(failure));
    }

    /// The response of a fill that was released, once.
    pub(super) fn take_direct(&self) -> Option<OriginResponse> {
        self.state.lock().direct.take()
    }

    /// What it came to, if it is known.
    pub(super) fn settled(&self) -> Option<Settled> {
        self.state.lock().settled.clone()
    }

    /// Whether a request that comes `now` can still take part, purges aside.
    pub(super) fn joinable(&self, now: Timestamp) -> bool {
        if self.is_invalidated() {
            return false;
        }
        let state = self.state.lock();
        match &state.settled {
            None | Some(Settled::Shared(_)) => true,
            Some(Settled::Failed(_)) => now < state.failed_until,
            Some(Settled::Entry { .. } | Settled::Released { .. } | Settled::Again) => false,
        }
    }

    /// Waits for the head; hands interim responses on as they come.
    pub(super) async fn head(&self, mut on_interim: impl FnMut(&InterimHead)) -> Settled {
        let mut seen = 0;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the state is looked at: a change in between is not missed.
            changed.as_mut().enable();
            {
                let state = self.state.lock();
                state.interims[seen..].iter().for_each(&mut on_interim);
                seen = state.interims.len();
                if let Some(settled) = &state.settled {
                    return settled.clone();
                }
            }
            changed.await;
        }
    }

    pub(super) fn reader(&self) -> Option<Reader> {
        self.growing.reader()
    }

    pub(super) fn invalidate(&self) {
        self.invalidated.store(true, SeqCst);
    }

    pub(super) fn is_invalidated(&self) -> bool {
        self.invalidated.load(SeqCst)
    }
}
