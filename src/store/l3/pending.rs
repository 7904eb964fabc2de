//! Changes on their way to the disk. The newest of a key counts, and look-ups see it before the disk has it.
//!
//! ```text
//!  push ──▶ waiting ──take──▶ with the writer ──done──▶ gone: the disk says the same now
//!             ▲  └ a newer one of the same key takes its place
//!             └──────────────retry (removals only): the disk failed
//! ```
//!
//! So a removal holds from the moment it was pushed: until it is on the disk it stands here, and hides what lies there.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tokio::{sync::oneshot, time::Instant};

use super::{
    content::{Claim, ContentId},
    locator::Locator,
    proof::Proof,
    record::Stored,
};
use crate::object::{entry::Entry, key::Key, vary::Variants};

/// Removals that are remembered while the disk fails; with more, everything is taken for removed.
const REMOVALS_MAX: usize = 1 << 17;

/// How long the first of a batch may wait for more: what makes a batch last costs as much for one as for many.
const GATHER: Duration = Duration::from_millis(50);

/// Contents found wrong that wait to be forgotten; one more is found again.
const CONDEMNED_MAX: usize = 4096;

/// What is to be stored somewhere. It knows the key that is to open it.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// A whole entry.
    Entry(Arc<Entry>),
    /// An entry whose content is on the disk.
    Large(Arc<Landed>),
    /// A variants record, and the key it is of.
    Variants(Key, Arc<Variants>),
    /// The head of what is stored, if that has this content.
    Renew(Arc<Entry>, ContentId),
    /// Nothing.
    Remove,
}

/// Content that was written piece by piece, and is to be named by the index.
#[derive(Debug)]
pub(super) struct Landed {
    /// Without its content.
    pub(super) entry: Arc<Entry>,
    pub(super) stored: Stored,
    pub(super) proof: Arc<Proof>,
    pub(super) claim: Arc<Claim>,
}

impl Landed {
    /// The same content under a new head.
    fn under(&self, entry: &Arc<Entry>) -> Self {
        let (proof, claim) = (Arc::clone(&self.proof), Arc::clone(&self.claim));
        Self { entry: Arc::clone(entry), stored: self.stored, proof, claim }
    }
}

/// What the writer is asked for beside changes.
pub(super) enum Control {
    /// Forget content whose file proved wrong.
    Condemn(ContentId),
    /// Remove this content, if nothing names it.
    Reclaim(ContentId, Option<u32>, oneshot::Sender<bool>),
    /// Empty the tier.
    Clear(oneshot::Sender<bool>),
    /// Answer once all that was pushed before is on the disk.
    Flush(oneshot::Sender<bool>),
}

/// One change, as the writer gets it.
pub(super) struct Taken {
    pub(super) key: Locator,
    pub(super) op: Op,
    turn: u64,
}

/// What the writer gets at once.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<Taken>,
    pub(super) controls: Vec<Control>,
    /// Nobody uses the tier any more.
    pub(super) stopping: bool,
}

/// The queue.
#[derive(Default)]
pub(super) struct Pending {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: HashMap<Locator, Waiting>,
    order: VecDeque<Locator>,
    controls: VecDeque<Control>,
    bytes: usize,
    turns: u64,
    stopping: bool,
    nudged: bool,
    /// Somebody waits for what is in the queue.
    urgent: bool,
    /// There is no writer any more.
    closed: bool,
    /// More was removed than could be remembered.
    overflown: bool,
}

struct Waiting {
    op: Op,
    turn: u64,
    queued: bool,
    bytes: usize,
    told: Vec<oneshot::Sender<bool>>,
}

/// No room in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crowded;

/// Limits of the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl Op {
    /// Memory it keeps.
    fn bytes(&self) -> usize {
        match self {
            Self::Entry(entry) => entry.weight(),
            Self::Large(landed) => landed.entry.weight() + landed.proof.bytes(),
            Self::Variants(_, variants) => variants.weight(),
            Self::Renew(entry, _) => entry.weight(),
            Self::Remove => 0,
        }
    }
}

impl Pending {
    /// Puts a change in the queue, in place of one of the same key; `told` learns whether it came to the disk.
    /// Removals always have room. A new head for other content than what is about to be stored is forgotten.
    pub(super) fn push(
        &self,
        key: Locator,
        mut op: Op,
        limits: Limits,
        told: Option<oneshot::Sender<bool>>,
    ) -> Result<(), Crowded> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Crowded);
        }
        if let (Op::Renew(entry, id), Some(waiting)) = (&op, state.waiting.get(&key)) {
            match &waiting.op {
                Op::Renew(_, other) if other == id => {}
                Op::Large(landed) if landed.stored.id == *id => op = Op::Large(Arc::new(landed.under(entry))),
                _ => return Ok(()),
            }
        }
        let bytes = op.bytes();
        let crowded = state.order.len() >= limits.entries || state.bytes + bytes > limits.bytes;
        if crowded && !matches!(op, Op::Remove) {
            return Err(Crowded);
        }
        state.put(key, op, bytes, told);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// What is about to be stored under `key`.
    pub(super) fn find(&self, key: &Locator) -> Option<Op> {
        let state = self.state.lock();
        state.waiting.get(key).map(|waiting| waiting.op.clone())
    }

    /// Asks the writer for something. Whether it will hear of it.
    pub(super) fn ask(&self, control: Control) -> bool {
        let mut state = self.state.lock();
        let crowded = matches!(control, Control::Condemn(_)) && state.controls.len() >= CONDEMNED_MAX;
        if crowded || state.closed {
            return false;
        }
        state.controls.push_back(control);
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Makes the writer look around.
    pub(super) fn nudge(&self) {
        self.state.lock().nudged = true;
        self.changed.notify_all();
    }

    /// No more will come.
    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }

    /// Nobody is there to take anything: who waits is told so, and so is who comes.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.controls.clear();
        state.forget();
    }

    /// Waits up to `wait` for something to do, and a moment for more of it; takes up to `max` changes of up to `bytes`, at least one.
    pub(super) fn take(&self, max: usize, bytes: usize, wait: Duration) -> Batch {
        let mut state = self.state.lock();
        if state.is_idle() {
            self.changed.wait_for(&mut state, wait);
        }
        let until = Instant::now() + GATHER;
        while state.may_gather(max) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.changed.wait_for(&mut state, left).timed_out() {
                break;
            }
        }
        (state.nudged, state.urgent) = (false, false);
        let mut batch = Batch { stopping: state.stopping, ..Batch::default() };
        let mut weight = 0;
        while batch.changes.len() < max && (weight < bytes || batch.changes.is_empty()) {
            let Some(key) = state.order.pop_front() else { break };
            let Some(waiting) = state.waiting.get_mut(&key) else { continue };
            waiting.queued = false;
            weight += waiting.bytes;
            batch.changes.push(Taken { key, op: waiting.op.clone(), turn: waiting.turn });
        }
        // Controls speak of all that was pushed before them, and who waits may wait for the rest.
        if state.order.is_empty() {
            batch.controls = state.controls.drain(..).collect();
        } else {
            state.urgent = true;
        }
        batch
    }

    /// Waits, unless the tier is stopping.
    pub(super) fn pause(&self, time: Duration) {
        let mut state = self.state.lock();
        let until = Instant::now() + time;
        while !state.stopping {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.changed.wait_for(&mut state, left);
        }
    }

    /// These changes have come to their end: `stored`, or given up.
    pub(super) fn done(&self, changes: &[Taken], stored: bool) {
        let mut told = Vec::new();
        let mut state = self.state.lock();
        for Taken { key, turn, .. } in changes {
            if state.waiting.get(key).is_some_and(|waiting| waiting.turn == *turn)
                && let Some(waiting) = state.waiting.remove(key)
            {
                state.bytes -= waiting.bytes;
                told.extend(waiting.told);
            }
        }
        drop(state);
        for one in told {
            // Who no longer waits does not need to know.
            let _ = one.send(stored);
        }
    }

    /// The disk failed: gives up what was to be stored, and keeps the removals for when it is back.
    pub(super) fn retry(&self, changes: Vec<Taken>) {
        let (removals, given_up): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|taken| matches!(taken.op, Op::Remove));
        self.done(&given_up, false);
        let mut state = self.state.lock();
        for Taken { key, turn, .. } in removals {
            if let Some(waiting) = state.waiting.get_mut(&key).filter(|waiting| waiting.turn == turn && !waiting.queued)
            {
                waiting.queued = true;
                state.order.push_back(key);
            }
        }
        if state.waiting.len() > REMOVALS_MAX {
            state.overflown = true;
            state.forget();
        }
    }

    /// Whether everything has to be taken for removed.
    pub(super) fn is_overflown(&self) -> bool {
        self.state.lock().overflown
    }

    /// Everything was removed: nothing of what was pushed before counts any more.
    pub(super) fn reset(&self) {
        let mut state = self.state.lock();
        state.overflown = false;
        state.forget();
    }

    /// How many changes wait, and the memory they hold.
    pub(super) fn size(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.waiting.len(), state.bytes)
    }

    /// Whether more waits.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.order.is_empty() && state.controls.is_empty()
    }

    /// Whether nobody uses the tier any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.order.is_empty() && self.controls.is_empty() && !self.stopping && !self.nudged
    }

    /// Whether what there is can wait for more.
    fn may_gather(&self, max: usize) -> bool {
        let some = !self.order.is_empty() && self.order.len() < max;
        some && self.controls.is_empty() && !self.urgent && !self.stopping
    }

    fn put(&mut self, key: Locator, op: Op, bytes: usize, told: Option<oneshot::Sender<bool>>) {
        self.urgent |= told.is_some();
        self.turns += 1;
        let turn = self.turns;
        let waiting = self.waiting.entry(key).or_insert_with(|| Waiting {
            op: Op::Remove,
            turn,
            queued: false,
            bytes: 0,
            told: Vec::new(),
        });
        self.bytes = self.bytes - waiting.bytes + bytes;
        (waiting.op, waiting.turn, waiting.bytes) = (op, turn, bytes);
        waiting.told.extend(told);
        if !std::mem::replace(&mut waiting.queued, true) {
            self.order.push_back(key);
        }
    }

    fn forget(&mut self) {
        self.waiting.clear();
        self.order.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    const LIMITS: Limits = Limits { entries: 3, bytes: 1000 };

    fn key(n: u64) -> Locator {
        Locator::from_bytes(*testing::key(n).as_bytes())
    }

    fn variants() -> Op {
        Op::Variants(testing::key(1), Arc::default())
    }

    fn take(pending: &Pending) -> Vec<Taken> {
        pending.take(10, 1000, Duration::ZERO).changes
    }

    #[test]
    fn the_newest_counts_until_it_is_on_the_disk() {
        let pending = Pending::default();
        pending.push(key(1), variants(), LIMITS, None).expect("room");
        let first = take(&pending);
        assert!(matches!(pending.find(&key(1)), Some(Op::Variants(..))), "still on its way");
        pending.push(key(1), Op::Remove, LIMITS, None).expect("room");
        pending.done(&first, true);
        assert!(matches!(pending.find(&key(1)), Some(Op::Remove)), "newer than what was done");
        let second = take(&pending);
        assert_eq!(second.len(), 1);
        pending.done(&second, true);
        assert!(pending.find(&key(1)).is_none());
        assert_eq!(pending.size(), (0, 0));
    }

    #[test]
    fn a_new_head_brings_nothing_back() {
        let pending = Pending::default();
        let entry = || Arc::new(crate::object::testing::entry(testing::key(1), Default::default(), &[]));
        let renewal = |id: &[u8]| Op::Renew(entry(), ContentId::of(id));
        let roomy = Limits { entries: 3, bytes: 10_000 };
        pending.push(key(1), Op::Remove, roomy, None).expect("room");
        pending.push(key(1), renewal(b"old"), roomy, None).expect("no matter");
        assert!(matches!(pending.find(&key(1)), Some(Op::Remove)));
        pending.push(key(1), Op::Entry(entry()), roomy, None).expect("room");
        pending.push(key(1), renewal(b"old"), roomy, None).expect("no matter");
        assert!(matches!(pending.find(&key(1)), Some(Op::Entry(_))));
        for id in [b"a", b"a", b"b"] {
            pending.push(key(2), renewal(id), roomy, None).expect("room");
            assert!(matches!(pending.find(&key(2)), Some(Op::Renew(_, id)) if id == ContentId::of(b"a")));
        }
    }

    #[test]
    fn a_full_queue_takes_removals_only() {
        let pending = Pending::default();
        (0..3).for_each(|n| pending.push(key(n), variants(), LIMITS, None).expect("room"));
        assert_eq!(pending.push(key(3), variants(), LIMITS, None), Err(Crowded));
        pending.push(key(3), Op::Remove, LIMITS, None).expect("room");
        let heavy = Op::Entry(Arc::new(crate::object::testing::entry(testing::key(1), Default::default(), &[])));
        let tight = Limits { entries: 10, bytes: 100 };
        assert_eq!(Pending::default().push(key(1), heavy, tight, None), Err(Crowded));
    }

    #[test]
    fn removals_outlive_a_failure() {
        let pending = Pending::default();
        let (sender, mut told) = oneshot::channel();
        pending.push(key(1), variants(), LIMITS, Some(sender)).expect("room");
        pending.push(key(2), Op::Remove, LIMITS, None).expect("room");
        pending.retry(take(&pending));
        assert_eq!(told.try_recv(), Ok(false), "given up, and told so");
        assert!(pending.find(&key(1)).is_none());
        assert!(matches!(pending.find(&key(2)), Some(Op::Remove)));
        assert_eq!(take(&pending).len(), 1);
    }

    #[test]
    fn more_removals_than_can_be_remembered_are_all() {
        let pending = Pending::default();
        for n in 0..=REMOVALS_MAX as u64 {
            pending.push(key(n), Op::Remove, LIMITS, None).expect("room");
        }
        pending.retry(pending.take(1, 1, Duration::ZERO).changes);
        assert!(pending.is_overflown() && pending.is_empty());
        pending.reset();
        assert!(!pending.is_overflown());
    }

    #[test]
    fn nobody_waits_for_a_writer_that_has_gone() {
        let pending = Pending::default();
        let told = || oneshot::channel::<bool>();
        let ((one, mut waits), (other, mut comes), (asked, mut asks)) = (told(), told(), told());
        pending.push(key(1), variants(), LIMITS, Some(one)).expect("room");
        pending.close();
        assert_eq!(pending.push(key(2), variants(), LIMITS, Some(other)), Err(Crowded));
        pending.ask(Control::Flush(asked));
        assert!(waits.try_recv().is_err() && comes.try_recv().is_err() && asks.try_recv().is_err());
    }

    #[test]
    fn a_moment_for_more_unless_somebody_waits() {
        let pending = Pending::default();
        pending.push(key(1), variants(), LIMITS, None).expect("room");
        let start = Instant::now();
        assert_eq!(take(&pending).len(), 1);
        assert!(start.elapsed() >= GATHER);
        let (told, _stored) = oneshot::channel();
        pending.push(key(2), variants(), LIMITS, Some(told)).expect("room");
        let mut state = pending.state.lock();
        assert!(!state.may_gather(10));
        state.urgent = false;
        assert!(state.may_gather(10) && !state.may_gather(1));
    }

    #[test]
    fn controls_come_after_what_was_pushed_before() {
        let pending = Pending::default();
        pending.push(key(1), variants(), LIMITS, None).expect("room");
        pending.push(key(2), variants(), LIMITS, None).expect("room");
        pending.ask(Control::Condemn(ContentId::NONE));
        let first = pending.take(1, 1000, Duration::ZERO);
        assert!(first.controls.is_empty() && first.changes.len() == 1);
        assert_eq!(pending.take(1, 1000, Duration::ZERO).controls.len(), 1);
    }
}
