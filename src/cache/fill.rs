//! One origin response on its way into the cache, and those who wait for it.
//!
//! ```text
//!            ┌────────▶ Shared ─── its body grows; leader and followers read it
//!            ├────────▶ Stored ─── a stored response answers: confirmed by 304, completed, stale for an error status, of
//!            │                     another node, or that to a similar call
//!  Waiting ──┤
//!            ├────────▶ Released ─ not storable: the leader takes the response, followers go by themselves
//!            ├────────▶ Refused ── its leader may not have the origin asked: followers start over, for themselves
//!            └────────▶ Failed ─── no response: the same failure to all, or to each the stale response it may have
//! ```
//!
//! A fill belongs to the cache: it runs in a task of its own, and no client's leaving ends it.

use std::sync::{Arc, OnceLock, atomic::AtomicU64};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    failure::Failure,
    growing::{Growing, Reader},
    invalidations::Watch,
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
    store::l2::Begun,
    telemetry::trace::{self, Kind as Role, Parent, Span},
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
    /// When, and where the fleet's log was then.
    pub(super) begun: Begun,
    /// Scopes that the request alone tells.
    pub(super) scopes: Arc<[Scope]>,
    pub(super) growing: Arc<Growing>,
    state: Mutex<State>,
    changed: Notify,
    /// Those who were answered by it beside who asked first.
    pub(super) followers: AtomicU64,
    /// An unsafe request that invalidates the URL meanwhile: not to be stored, not to be joined.
    watch: Watch,
    /// How similar a call was whose answer is stored, where that is to be told.
    similar: OnceLock<HeaderValue>,
    /// The span of it, where it is traced: those who wait tell of it.
    traced: OnceLock<Parent>,
}

struct State {
    interims: Vec<InterimHead>,
    settled: Option<Settled>,
    /// Until when those who ask again get the failure, or what stands in for it.
    failed_until: Timestamp,
    /// The response itself, for the leader of a fill that proved not storable.
    direct: Option<OriginResponse>,
}

/// What a fill came to, at the head.
#[derive(Clone)]
pub(super) enum Settled {
    Shared(Arc<Shared>),
    Stored(Stored),
    Released {
        reason: &'static str,
    },
    Failed {
        failure: Arc<Failure>,
        /// What may stand in, for those whose own directives allow it.
        stale: Option<Arc<Entry>>,
    },
    /// Not to be asked for by its leader, which says nothing of those who joined.
    Refused {
        failure: Arc<Failure>,
        /// What may stand in for the leader, as in `Failed`.
        stale: Option<Arc<Entry>>,
    },
    /// Never begun: what it was for had been stored meanwhile. Look again.
    Again,
}

/// A stored response that answers.
#[derive(Clone)]
pub(super) struct Stored {
    /// The answer to who asked first.
    pub(super) leader: Arc<Entry>,
    /// The answer to those who joined; `None`: it is the leader's alone.
    pub(super) others: Option<Arc<Entry>>,
    pub(super) kind: Kind,
    /// Status of the origin's answer.
    pub(super) status: Option<u16>,
}

/// The head of a storable response while its body arrives.
pub(super) struct Shared {
    pub(super) status: StatusCode,
    /// As who asked first gets them: end-to-end fields, as received.
    pub(super) fields: HeaderMap,
    /// Those of them that are for who asked first alone.
    pub(super) withheld: Vec<HeaderName>,
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
    pub(super) scopes: Arc<[Scope]>,
}

impl Fill {
    pub(super) fn new(
        (stamp, begun): (Position, Begun),
        scopes: Arc<[Scope]>,
        watch: Watch,
        growing: Arc<Growing>,
    ) -> Arc<Self> {
        let state = State { interims: Vec::new(), settled: None, failed_until: Timestamp::EPOCH, direct: None };
        let (state, followers) = (Mutex::new(state), AtomicU64::new(0));
        let (changed, similar, traced) = (Notify::new(), OnceLock::new(), OnceLock::new());
        Arc::new(Self { stamp, begun, scopes, growing, state, changed, followers, watch, similar, traced })
    }

    /// Sets what is told of a similar call, before it is settled.
    pub(super) fn tell_similar(&self, told: HeaderValue) {
        let _ = self.similar.set(told);
    }

    /// Begins a span that is all of it.
    pub(super) fn span(&self) -> Option<Span> {
        let span = trace::child("fill", Role::Internal)?;
        let _ = self.traced.set(span.context().own());
        Some(span)
    }

    /// Ends the span of one who has waited for it.
    pub(super) fn followed(&self, span: Option<Span>) {
        if let (Some(mut span), Some(fill)) = (span, self.traced.get()) {
            span.link(*fill);
        }
    }

    /// What is told of a similar call.
    pub(super) fn similar(&self) -> Option<&HeaderValue> {
        self.similar.get()
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

    /// Tells all who wait what the head came to. What was said first counts.
    pub(super) fn settle(&self, settled: Settled) {
        self.settle_until(settled, Timestamp::EPOCH);
    }

    /// As [`Fill::settle`], for a failure or what stands in for one: those who ask before `until` get the same.
    pub(super) fn settle_until(&self, settled: Settled, until: Timestamp) {
        {
            let mut state = self.state.lock();
            if state.settled.is_none() {
                state.settled = Some(settled);
                state.failed_until = until;
            }
        }
        self.changed.notify_waiters();
    }

    /// Not storable: `response` is the leader's.
    pub(super) fn release(&self, response: OriginResponse, reason: &'static str) {
        self.state.lock().direct = Some(response);
        self.settle(Settled::Released { reason });
    }

    /// Failed, for those who ask before `until` too; `stale` may stand in.
    pub(super) fn fail(&self, failure: Arc<Failure>, stale: Option<Arc<Entry>>, until: Timestamp) {
        self.growing.fail(Arc::clone(&failure));
        self.settle_until(Settled::Failed { failure, stale }, until);
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
            Some(Settled::Failed { .. } | Settled::Stored(_)) => now < state.failed_until,
            Some(Settled::Released { .. } | Settled::Refused { .. } | Settled::Again) => false,
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

    /// Whether all who wait know how it ended, to the last byte.
    pub(super) fn has_ended(&self) -> bool {
        self.growing.has_ended() && self.state.lock().settled.is_some()
    }

    pub(super) fn reader(&self) -> Option<Reader> {
        self.growing.reader()
    }

    /// Whether an unsafe request has invalidated its URL since it began.
    pub(super) fn is_invalidated(&self) -> bool {
        self.watch.is_invalidated()
    }
}
