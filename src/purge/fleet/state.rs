//! What a node knows of the fleet's log, and until when it may vouch for that.
//!
//! Two tables of watermarks are kept beside each other. That of the node's own log has its own positions; what lies in
//! memory and on its disk is stamped with them. This one has the fleet's; what lies in Redis is stamped with those. A
//! record raises this table first, then the node's: what is taken out of Redis after a look at this table, and stamped
//! with a position that the node's log had before, is out of reach of no purge.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::{sync::Notify, time::Instant};

use super::super::{
    mark::Mark,
    record::Record,
    types::{Purge, PurgeId, Standing},
    watermarks::{Watermark, Watermarks},
};
use crate::object::{
    scope::{FleetPosition, Position, Scope},
    time::Timestamp,
};

/// Fail-overs that lost something, remembered one by one.
const VOIDS_MAX: usize = 64;

/// Records that are remembered by their digests.
const LATELY_MAX: usize = 1024;

/// The table of what the fleet purged.
#[derive(Debug)]
pub(super) struct Table {
    /// The last record that is applied.
    pub(super) mark: Mark,
    pub(super) watermarks: Watermarks,
    /// Positions above the first and below the second were given twice, or to records that are lost: what is stamped with
    /// one of them cannot be compared.
    pub(super) voids: Vec<(Position, Position)>,
}

impl Table {
    pub(super) fn new(scopes_max: usize) -> Self {
        Self { mark: Mark::default(), watermarks: Watermarks::new(scopes_max), voids: Vec::new() }
    }

    /// Raises the watermarks of a purge at `at`.
    pub(super) fn purge(&mut self, at: Position, purge: &Purge) {
        self.watermarks.apply(&Record::new(at, purge.clone(), None));
    }

    /// A new epoch begins at `begin`.
    pub(super) fn turn(&mut self, common: Position, begin: Position) {
        self.voids.push((common, begin));
        if self.voids.len() > VOIDS_MAX {
            let (_, end) = self.voids.remove(0);
            self.watermarks.raise_floor(Watermark { hard: end, ..Watermark::default() });
        }
    }

    pub(super) fn is_void(&self, position: Position) -> bool {
        self.voids.iter().any(|&(common, begin)| common < position && position < begin)
    }

    fn standing(&self, at: FleetPosition, scopes: &[Scope]) -> Standing {
        if at.life != self.mark.at.life || self.is_void(at.position) {
            return Standing::Hard;
        }
        self.watermarks.standing(at.position, scopes)
    }
}

/// A proof that waits until what it is about has been applied.
#[derive(Debug, Clone, Copy)]
struct Proof {
    sent: Instant,
    head: Mark,
}

/// Shared by the tasks of one node.
#[derive(Debug)]
pub(super) struct State {
    pub(super) table: RwLock<Table>,
    pub(super) lease: Duration,
    base: Instant,
    /// Since when all of Redis has refused connections without a break, as often as it was tried: what was stored since may be
    /// served although the log was never seen.
    refused_since: Mutex<Option<Timestamp>>,
    /// Milliseconds after `base` at which the node is no longer up to date for sure; 0: it never was.
    until: AtomicU64,
    /// Whether the log was ever seen.
    synced: AtomicBool,
    proofs: Mutex<Vec<Proof>>,
    /// The head that the last proof was about.
    proved: Mutex<FleetPosition>,
    /// The last records that are applied, oldest first: after a fail-over another log may have others in their places.
    lately: Mutex<VecDeque<Mark>>,
    /// The head as last heard of.
    head: Mutex<FleetPosition>,
    /// Purges acknowledged on this node alone that are not in the log yet.
    pending: Mutex<HashMap<PurgeId, Box<[Scope]>>>,
    pending_count: AtomicUsize,
    /// Those of them that this node has obeyed in another way, until they come back through the log.
    announced: Mutex<HashSet<PurgeId>>,
    /// Told whenever `table.mark` changes.
    pub(super) applied: Notify,
    /// Asks for a beat at once.
    pub(super) beat: Notify,
    /// Whether the tail is to look at the log anew.
    pub(super) doubted: AtomicBool,
}

impl State {
    pub(super) fn new(lease: Duration, scopes_max: usize) -> Self {
        Self {
            table: RwLock::new(Table::new(scopes_max)),
            lease,
            base: Instant::now(),
            refused_since: Mutex::default(),
            until: AtomicU64::new(0),
            synced: AtomicBool::new(false),
            proofs: Mutex::default(),
            proved: Mutex::default(),
            lately: Mutex::default(),
            head: Mutex::default(),
            pending: Mutex::default(),
            pending_count: AtomicUsize::new(0),
            announced: Mutex::default(),
            applied: Notify::new(),
            beat: Notify::new(),
            doubted: AtomicBool::new(false),
        }
    }

    /// How far this node is.
    pub(super) fn mark(&self) -> Mark {
        self.table.read().mark
    }

    /// A place in the log that this node has passed, and that no fail-over takes back: a replica had it.
    pub(super) fn proved(&self) -> FleetPosition {
        let life = self.mark().at.life;
        Some(*self.proved.lock()).filter(|proved| proved.life == life).unwrap_or_default()
    }

    /// This node has applied the record there, and a replica has it.
    pub(super) fn passed(&self, at: FleetPosition) {
        let mut proved = self.proved.lock();
        if proved.life != at.life || proved.position < at.position {
            *proved = at;
        }
    }

    /// The head of the log, as last heard of.
    pub(super) fn head(&self) -> FleetPosition {
        *self.head.lock()
    }

    pub(super) fn is_synced(&self) -> bool {
        self.synced.load(Relaxed)
    }

    /// How what Redis has with that stamp stands to all purges.
    pub(super) fn standing(&self, at: FleetPosition, scopes: &[Scope]) -> Standing {
        if self.pending_count.load(Acquire) > 0 {
            let pending = self.pending.lock();
            if pending.values().any(|purged| purged.iter().any(|scope| scopes.contains(scope))) {
                return Standing::Hard;
            }
        }
        self.table.read().standing(at, scopes)
    }

    /// A purge that this node has acknowledged and the log lacks. `false`: there are too many.
    pub(super) fn hold_back(&self, id: PurgeId, scopes: &[Scope], max: usize) -> bool {
        let mut pending = self.pending.lock();
        if pending.len() >= max && !pending.contains_key(&id) {
            return false;
        }
        pending.insert(id, scopes.into());
        self.pending_count.store(pending.len(), Release);
        true
    }

    /// The log has it.
    pub(super) fn let_go(&self, id: &PurgeId) {
        if self.pending_count.load(Acquire) > 0 {
            let mut pending = self.pending.lock();
            pending.remove(id);
            self.pending_count.store(pending.len(), Release);
        }
    }

    /// Whether a purge of all of those waits already: the one that is still to be appended covers this one as well.
    pub(super) fn is_pending(&self, scopes: &[Scope]) -> bool {
        self.pending_count.load(Acquire) > 0
            && self.pending.lock().values().any(|purged| scopes.iter().all(|scope| purged.contains(scope)))
    }

    /// This node has obeyed it in another way.
    pub(super) fn announced(&self, id: PurgeId) {
        self.announced.lock().insert(id);
    }

    /// Whether this node has obeyed the purge in another way; asked once.
    pub(super) fn is_obeyed(&self, id: &PurgeId) -> bool {
        self.announced.lock().remove(id)
    }

    pub(super) fn pending(&self) -> usize {
        self.pending_count.load(Relaxed)
    }

    // === The lease ===

    /// Whether the node may be behind by more than it is allowed, at that moment.
    pub(super) fn is_fenced(&self, at: Instant) -> bool {
        let now = u64::try_from(at.saturating_duration_since(self.base).as_millis()).unwrap_or(u64::MAX);
        now >= self.until.load(Acquire)
    }

    /// For how long the lease has been over; `None`: there never was one.
    pub(super) fn fenced_for(&self, at: Instant) -> Option<Duration> {
        let until = self.until.load(Acquire);
        (until > 0).then(|| at.saturating_duration_since(self.base + Duration::from_millis(until)))
    }

    /// What is left of the lease.
    pub(super) fn left(&self, at: Instant) -> Duration {
        (self.base + Duration::from_millis(self.until.load(Acquire))).saturating_duration_since(at)
    }

    /// The log was at `head` at some time after `sent`.
    pub(super) fn prove(&self, sent: Instant, head: Mark) {
        *self.head.lock() = head.at;
        self.proofs.lock().push(Proof { sent, head });
        self.settle_proofs();
    }

    /// Nobody could reach the log at `seen`. A lease that had run out before stays so: what was purged since, this node does
    /// not know.
    pub(super) fn nobody_can_purge(&self, seen: Instant, now: Timestamp) {
        self.refused_since.lock().get_or_insert(now);
        if !self.is_synced() || !self.is_fenced(seen) {
            self.extend(seen);
        }
    }

    /// Somebody may be able to reach the log.
    pub(super) fn somebody_can_purge(&self) {
        *self.refused_since.lock() = None;
    }

    pub(super) fn refused_since(&self) -> Option<Timestamp> {
        *self.refused_since.lock()
    }

    /// Takes a table in the place of the one there is. If what this node has applied is not the beginning of it, nothing is
    /// vouched for until there is a proof in the new log: it may be that of a master that was deposed.
    pub(super) fn replace(&self, table: Table, continues: bool) {
        let mut proofs = self.proofs.lock();
        let mut current = self.table.write();
        let continues = continues && current.mark.at.life == table.mark.at.life;
        let mark = if continues { current.mark } else { Mark::default() };
        *current = Table { mark, ..table };
        if !continues {
            proofs.clear();
            self.until.store(0, Release);
        }
    }

    /// Extends the lease by what has been applied by now.
    pub(super) fn settle_proofs(&self) {
        let mut proofs = self.proofs.lock();
        let at = self.mark().at;
        let is_passed = |proof: &Proof| proof.head.at.life == at.life && proof.head.at.position <= at.position;
        // In the log that this node is at, which a fail-over may have changed, that may be another record.
        let is_covered = |proof: &Proof| is_passed(proof) && self.agrees(&proof.head);
        let covered = || proofs.iter().filter(|proof| is_covered(proof));
        if let Some(sent) = covered().map(|proof| proof.sent).max() {
            self.synced.store(true, Relaxed);
            self.extend(sent);
        }
        covered().for_each(|proof| self.passed(proof.head.at));
        let oldest = Instant::now().checked_sub(self.lease);
        proofs.retain(|proof| !is_passed(proof) && Some(proof.sent) > oldest);
    }

    fn extend(&self, sent: Instant) {
        let until = (sent + self.lease).saturating_duration_since(self.base).as_millis();
        self.until.fetch_max(u64::try_from(until).unwrap_or(u64::MAX), Release);
    }

    /// Something does not go together: nothing is vouched for until the log has been looked at anew.
    pub(super) fn distrust(&self) {
        self.proofs.lock().clear();
        self.doubted.store(true, Release);
    }

    /// Sets how far this node is, once the node's own log has it: by these records, or by a look at all there are.
    pub(super) fn advance(&self, mark: Mark, marks: impl IntoIterator<Item = Mark>, all: bool) {
        {
            let mut table = self.table.write();
            let mut lately = self.lately.lock();
            if all {
                lately.clear();
            }
            lately.extend(marks);
            let surplus = lately.len().saturating_sub(LATELY_MAX);
            lately.drain(..surplus);
            table.mark = mark;
        }
        {
            let mut head = self.head.lock();
            if head.life != mark.at.life || head.position < mark.at.position {
                *head = mark.at;
            }
        }
        self.settle_proofs();
        self.applied.notify_waiters();
    }

    /// Whether the log that this node is at has that record in that place; `None`: that is too long ago.
    fn remembers(&self, mark: &Mark) -> Option<bool> {
        let lately = self.lately.lock();
        lately.iter().rev().find(|one| one.at.position <= mark.at.position).map(|one| one == mark)
    }

    /// The same, as far as is remembered.
    fn agrees(&self, mark: &Mark) -> bool {
        self.remembers(mark).unwrap_or(true)
    }

    /// Returns when the node has applied that record: `true`; or when the log that it is at has another one there.
    pub(super) async fn reached(&self, mark: &Mark) -> bool {
        let at = mark.at;
        loop {
            let applied = self.applied.notified();
            tokio::pin!(applied);
            applied.as_mut().enable();
            {
                let table = self.table.read();
                if table.mark.at.life != at.life && table.mark.at.life != 0 {
                    return false;
                }
                if table.mark.at.life == at.life && table.mark.at.position >= at.position {
                    // What was written by the new master before the new epoch began is in the log for good, in a place
                    // that was given twice.
                    return self.remembers(mark).unwrap_or(!table.is_void(at.position));
                }
            }
            applied.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::Mode;

    const LEASE: Duration = Duration::from_secs(2);

    fn at(epoch: u64, seq: u64) -> Position {
        Position::from_number(epoch << 48 | seq)
    }

    fn mark(life: u64, position: Position) -> Mark {
        Mark { at: FleetPosition { life, position }, ..Mark::default() }
    }

    fn state() -> State {
        State::new(LEASE, 100)
    }

    fn purge(scope: u64) -> Purge {
        Purge {
            id: PurgeId::named(&scope.to_string()),
            at: Timestamp::EPOCH,
            mode: Mode::Hard,
            scopes: vec![Scope::from_bits(scope)],
            hold: Duration::ZERO,
            note: String::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_proof_counts_once_what_it_is_about_is_applied() {
        let state = state();
        assert!(state.is_fenced(Instant::now()), "before the first proof");
        let sent = Instant::now();
        tokio::time::advance(Duration::from_millis(100)).await;
        state.prove(sent, mark(1, at(1, 5)));
        assert!(state.is_fenced(Instant::now()), "behind");
        state.advance(mark(1, at(1, 5)), [], false);
        assert!(!state.is_fenced(Instant::now()));
        assert!(!state.is_fenced(sent + LEASE - Duration::from_millis(1)));
        assert!(state.is_fenced(sent + LEASE), "it counts from when it was asked for");
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_proof_takes_nothing_back() {
        let state = state();
        state.advance(mark(1, at(1, 0)), [], false);
        let first = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = Instant::now();
        state.prove(second, mark(1, at(1, 0)));
        state.prove(first, mark(1, at(1, 0)));
        assert!(!state.is_fenced(second + LEASE - Duration::from_millis(1)));
    }

    #[test]
    fn stamps_of_another_life_or_a_lost_tail_are_worth_nothing() {
        let state = state();
        state.advance(mark(1, at(1, 10)), [], false);
        let scopes = [Scope::from_bits(1)];
        let standing = |life, position| state.standing(FleetPosition { life, position }, &scopes);
        assert_eq!(standing(1, at(1, 10)), Standing::Untouched);
        assert_eq!(standing(2, at(1, 10)), Standing::Hard);
        state.table.write().turn(at(1, 8), at(2, 0));
        assert_eq!(standing(1, at(1, 8)), Standing::Untouched, "common to both");
        assert_eq!(standing(1, at(1, 9)), Standing::Hard);
        assert_eq!(standing(1, at(1, 99)), Standing::Hard);
        assert_eq!(standing(1, at(2, 0)), Standing::Untouched);
        state.table.write().purge(at(2, 1), &purge(1));
        assert_eq!(standing(1, at(2, 0)), Standing::Hard);
        assert_eq!(standing(1, at(2, 1)), Standing::Untouched);
    }

    #[test]
    fn many_turns_become_a_floor() {
        let mut table = Table::new(10);
        table.mark = mark(1, at(100, 0));
        (1..=VOIDS_MAX as u64 + 1).for_each(|epoch| table.turn(at(epoch, 5), at(epoch + 1, 0)));
        assert_eq!(table.voids.len(), VOIDS_MAX);
        let standing = |position| table.standing(FleetPosition { life: 1, position }, &[Scope::from_bits(1)]);
        assert_eq!(standing(at(1, 3)), Standing::Hard, "the oldest is folded");
        assert_eq!(standing(at(2, 3)), Standing::Untouched);
        assert_eq!(standing(at(2, 6)), Standing::Hard);
    }

    #[test]
    fn what_waits_for_the_log_counts_already() {
        let state = state();
        state.advance(mark(1, at(1, 1)), [], false);
        let purge = purge(7);
        let stamp = FleetPosition { life: 1, position: at(1, 1) };
        assert!(state.hold_back(purge.id, &purge.scopes, 1));
        assert_eq!(state.standing(stamp, &purge.scopes), Standing::Hard);
        assert_eq!(state.standing(stamp, &[Scope::from_bits(8)]), Standing::Untouched);
        assert!(!state.hold_back(PurgeId::named("other"), &purge.scopes, 1), "bounded");
        state.let_go(&purge.id);
        assert_eq!(state.standing(stamp, &purge.scopes), Standing::Untouched);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_record_that_is_lost_is_told() {
        let state = state();
        state.advance(mark(1, at(1, 5)), [], false);
        assert!(state.reached(&mark(1, at(1, 5))).await);
        let lost = mark(1, at(1, 6));
        let waiting = state.reached(&lost);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        state.table.write().turn(at(1, 5), at(2, 0));
        state.advance(mark(1, at(2, 0)), [], false);
        assert!(!waiting.await);
    }

    #[tokio::test]
    async fn another_record_in_the_same_place_was_not_reached() {
        let state = state();
        let other = |seq, digest| Mark { digest: [digest; 20], ..mark(1, at(1, seq)) };
        state.advance(other(9, 1), (5..=9).map(|seq| other(seq, 1)), true);
        assert!(state.reached(&other(8, 1)).await);
        assert!(!state.reached(&other(8, 2)).await, "given again after a fail-over that this node does not know of");
        assert!(state.reached(&other(4, 2)).await, "older than what is remembered");
    }

    #[tokio::test]
    async fn what_the_new_master_wrote_before_the_new_epoch_was_reached() {
        let state = state();
        let other = |epoch, seq, digest| Mark { digest: [digest; 20], ..mark(1, at(epoch, seq)) };
        state.advance(other(1, 7, 1), (5..=7).map(|seq| other(1, seq, 1)), true);
        // A fail-over lost 6 and 7, and another node was given these places before this one began an epoch.
        state.table.write().turn(at(1, 5), at(2, 0));
        state.advance(other(2, 0, 2), [other(1, 5, 1), other(1, 6, 2), other(2, 0, 2)], true);
        assert!(state.reached(&other(1, 6, 2)).await);
        assert!(!state.reached(&other(1, 6, 1)).await, "lost");
        assert!(!state.reached(&other(1, 7, 1)).await, "lost");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proof_is_about_a_record_and_not_its_place() {
        let state = state();
        let other = |seq, digest| Mark { digest: [digest; 20], ..mark(1, at(1, seq)) };
        state.advance(other(9, 1), (5..=9).map(|seq| other(seq, 1)), true);
        state.prove(Instant::now(), other(8, 2));
        assert!(state.is_fenced(Instant::now()), "that record is in another log");
        assert_eq!(state.proved(), FleetPosition::default());
        state.prove(Instant::now(), other(8, 1));
        assert!(!state.is_fenced(Instant::now()));
        assert_eq!(state.proved(), other(8, 1).at, "what follows may be lost yet");
        state.advance(mark(2, at(1, 0)), [], true);
        assert_eq!(state.proved(), FleetPosition::default(), "nothing of this life");
    }
}
