//! A node: what `tail`, `resync`, `beat` and `append` do between their steps, over the same state and the same decisions.

use std::{cell::RefCell, rc::Rc, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{
    LEASE, Mutation, clock,
    redis::{Record, Reply, Request},
    world::{KEYS, Shared, call, step},
};
use crate::{
    object::{
        scope::{FleetPosition, Position, Scope},
        time::Timestamp,
    },
    purge::{
        Mode, Purge, PurgeId, Standing,
        fleet::{
            kept::Kept,
            message::{self, Message},
            names,
            nodes::{Card, Nodes, Others},
            resync::{self, Plan, Way},
            saved,
            state::{State, Table},
            tail::Entry,
        },
        mark::Mark,
        recent::{Known, Recent},
        record::{self, Record as Written},
        watermarks::Watermarks,
    },
};

const SCOPES_MAX: usize = 100;
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(500);

/// Records of the log, beyond which a snapshot takes the place of the older ones.
const LOG_MAX: usize = 12;

/// Why following has ended.
pub(super) struct Broken;

/// A change at the origin, and the purge that says so.
pub(super) struct Change {
    purge: Purge,
    key: usize,
    version: u64,
}

/// What a node has stored.
#[derive(Clone, Copy)]
struct Stored {
    version: u64,
    stamp: Position,
    at: Timestamp,
}

/// A node's own log and what it has stored: what a restart leaves.
pub(super) struct Disk {
    watermarks: Watermarks,
    position: Position,
    recent: Recent,
    mark: Option<Mark>,
    stored: [Option<Stored>; KEYS],
}

impl Default for Disk {
    fn default() -> Self {
        let watermarks = Watermarks::new(SCOPES_MAX);
        Self { watermarks, position: Position::START, recent: Recent::default(), mark: None, stored: [None; KEYS] }
    }
}

impl Disk {
    /// As the writer of a node's own log applies a purge.
    fn absorb(&mut self, purge: Purge, mark: Option<Mark>) {
        if let Some(known) = self.recent.find(&purge.id)
            && (mark.is_none() || known.answer(record::digest(purge.mode, purge.hold, &purge.scopes)).is_ok())
        {
            return;
        }
        let record = Written::new(self.position.next(), purge, mark);
        self.watermarks.apply(&record);
        self.position = record.position;
        self.mark = mark.or(self.mark);
        self.recent.remember(Known::new(&record, Duration::ZERO));
    }
}

pub(super) struct Node {
    pub(super) number: usize,
    world: Shared,
    pub(super) state: State,
    nodes: Nodes,
    kept: RefCell<Kept>,
    pub(super) disk: Rc<RefCell<Disk>>,
    records: RefCell<usize>,
}

pub(super) fn scope(key: usize) -> Scope {
    Scope::from_bits(key as u64 + 1)
}

impl Node {
    pub(super) fn new(number: usize, world: &Shared, disk: Rc<RefCell<Disk>>) -> Self {
        let id = format!("{number}-{}", world.borrow_mut().random.next());
        Self {
            number,
            world: Rc::clone(world),
            state: State::new(LEASE, SCOPES_MAX),
            nodes: Nodes::new(id, String::new(), LEASE),
            kept: RefCell::default(),
            disk,
            records: RefCell::default(),
        }
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.world.borrow().mutation == mutation
    }

    fn is_fenced(&self) -> bool {
        self.state.is_fenced(Instant::now()) && !self.is(Mutation::NoLease)
    }

    async fn call(&self, server: usize, request: Request) -> Result<Reply, Broken> {
        call(&self.world, server, request, Instant::now() + LEASE / 2).await.ok_or(Broken)
    }

    fn connect(&self) -> usize {
        self.world.borrow_mut().connect(self.number)
    }

    // === Following the log ===

    pub(super) async fn tail(self: Rc<Self>) {
        loop {
            let Err(Broken) = self.follow().await;
            step().await;
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, Broken> {
        let server = self.connect();
        self.state.doubted.store(false, std::sync::atomic::Ordering::Release);
        self.look(server).await?;
        self.state.beat.notify_one();
        loop {
            if self.state.doubted.load(std::sync::atomic::Ordering::Acquire) {
                return Err(Broken);
            }
            let mark = self.state.mark();
            let Reply::Records(records) = self.call(server, Request::Read(mark.at.position)).await? else {
                return Err(Broken);
            };
            self.apply(entries(mark.at.life, &records)).await?;
            self.save_if_long(server).await;
        }
    }

    async fn apply(&self, entries: Vec<Entry>) -> Result<(), Broken> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut mark = self.state.mark();
        let marks: Vec<Mark> = entries.iter().map(|entry| entry.mark).collect();
        let (mut purges, mut urgent) = (Vec::new(), false);
        for entry in entries {
            if entry.before != Some(mark.digest) {
                return Err(Broken);
            }
            mark = entry.mark;
            match entry.message {
                Message::Purge { purge, urgent: waited } => {
                    urgent |= waited;
                    self.state.table.write().purge(mark.at.position, &purge);
                    step().await;
                    self.disk.borrow_mut().absorb(purge.clone(), Some(mark));
                    purges.push((mark, purge));
                }
                Message::Turn { common } => self.state.table.write().turn(common, mark.at.position),
            }
        }
        step().await;
        for (mark, purge) in purges {
            self.state.let_go(&purge.id);
            self.kept.borrow_mut().push(mark, purge, Instant::now());
        }
        self.state.advance(mark, marks, false);
        if urgent {
            self.state.beat.notify_one();
        }
        Ok(())
    }

    /// As `save`, at the tail's leisure.
    async fn save_if_long(&self, server: usize) {
        if *self.records.borrow() <= LOG_MAX {
            return;
        }
        let mark = self.state.mark();
        let snapshot = saved::encode(&self.state.table.read());
        let oldest = self.kept.borrow().oldest().filter(|kept| kept.at.life == mark.at.life);
        let stays = oldest.map_or(mark.at.position, |kept| kept.at.position.min(mark.at.position));
        let _ = self.call(server, Request::Save { mark, snapshot: snapshot.into(), stays }).await;
        *self.records.borrow_mut() = 0;
    }

    async fn look(&self, server: usize) -> Result<(), Broken> {
        let life = self.world.borrow_mut().random.next() >> 12 | 1;
        let Reply::Head(head) = self.call(server, Request::Hello(life)).await? else { return Err(Broken) };
        let early = if self.is(Mutation::NoWaitForLife) { 2 * LEASE } else { Duration::ZERO };
        self.nodes.lives(head.at.life, Instant::now() - early);
        let applied = self.state.mark();
        if applied.at.life == head.at.life {
            let Reply::Records(there) = self.call(server, Request::Record(applied)).await? else { return Err(Broken) };
            if there.first().is_some_and(|record| record.mark == applied) {
                return Ok(());
            }
        }
        let Reply::Snapshot(snapshot) = self.call(server, Request::Snapshot).await? else { return Err(Broken) };
        let snapshot = snapshot.and_then(|bytes| saved::decode(&bytes, SCOPES_MAX));
        let snapshot = snapshot.filter(|table| table.mark.at.life == head.at.life);
        let Reply::Records(records) = self.call(server, Request::Log).await? else { return Err(Broken) };
        let entries = entries(head.at.life, &records);
        let table = resync::table(SCOPES_MAX, snapshot, &entries);
        let own = if applied.at.life == 0 { self.disk.borrow().mark.unwrap_or_default() } else { applied };
        let kept = self.kept.borrow().young(Instant::now());
        let way = resync::way(&entries, &own, &head, &kept);
        if let Way::Fork(common) = &way {
            let common = common.map_or(Position::START, |index| entries[index].mark.at.position);
            let epoch = names::epoch(head.at.position);
            if epoch == names::epoch(own.at.position) {
                self.call(server, Request::Turn { life: head.at.life, from: epoch, common }).await?;
                return Err(Broken);
            }
        }
        let plan = resync::plan(&table, &entries, &way, &kept, clock());
        let continues = matches!(way, Way::After(_) | Way::Gap(_));
        self.follow_up(table, entries, plan, continues).await
    }

    async fn follow_up(&self, table: Table, entries: Vec<Entry>, plan: Plan, continues: bool) -> Result<(), Broken> {
        let mark = table.mark;
        let marks: Vec<Mark> = entries.iter().map(|entry| entry.mark).collect();
        for purge in &plan.again {
            self.append(purge.id, message::purge(purge, false), false).await?;
        }
        self.state.replace(table, continues);
        for purge in plan.bulk {
            step().await;
            self.disk.borrow_mut().absorb(purge, Some(mark));
        }
        for entry in entries.into_iter().skip(plan.after) {
            if let Message::Purge { purge, .. } = entry.message {
                self.state.let_go(&purge.id);
                self.kept.borrow_mut().push(entry.mark, purge.clone(), Instant::now());
                step().await;
                self.disk.borrow_mut().absorb(purge, Some(entry.mark));
            }
        }
        step().await;
        self.state.advance(mark, marks, true);
        Ok(())
    }

    // === The lease ===

    pub(super) async fn beats(self: Rc<Self>) {
        let period = LEASE / 4;
        let mut beats = 0;
        loop {
            beats += 1;
            let sent = Instant::now();
            let _ = self.beat(beats, sent, period).await;
            loop {
                step().await;
                if Instant::now() >= sent + period || self.state.beat.notified().now_or_never().is_some() {
                    break;
                }
            }
        }
    }

    async fn beat(&self, beats: u64, sent: Instant, period: Duration) -> Result<(), Broken> {
        let mark = self.state.mark();
        if mark.at.life == 0 {
            return Err(Broken);
        }
        let (name, server) = (self.number.to_string(), self.connect());
        let card = Card { beats, at: mark.at, name, version: String::new(), secret: String::new() }.write();
        let request = Request::Beat { node: self.nodes.this().to_owned(), mark, card };
        let answer = call(&self.world, server, request, sent + period).await.ok_or(Broken)?;
        let Reply::Beaten { head, records, nodes, offset } = answer else {
            self.state.distrust();
            return Err(Broken);
        };
        *self.records.borrow_mut() = records;
        self.nodes.hear(nodes.iter().map(|(id, card)| (id.as_str(), card.as_str())), mark.at, Instant::now());
        if !self.is(Mutation::ProofWithoutReplica) {
            call(&self.world, server, Request::Wait(offset), sent + period).await.ok_or(Broken)?;
        }
        if self.is(Mutation::ProofNotApplied) {
            self.state.nobody_can_purge(sent, clock());
        }
        self.state.prove(sent, head);
        Ok(())
    }

    // === Purges ===

    /// Appends once; done when a replica has it.
    async fn append(&self, id: PurgeId, record: Vec<u8>, anew: bool) -> Result<(Mark, bool), Broken> {
        let server = self.connect();
        let deadline = Instant::now() + STEP;
        let request = Request::Append { id, payload: record.into(), anew };
        let answer = call(&self.world, server, request, deadline).await.ok_or(Broken)?;
        let Reply::Appended { mark, known, offset } = answer else {
            self.state.distrust();
            return Err(Broken);
        };
        if !self.is(Mutation::AppendWithoutReplica) {
            call(&self.world, server, Request::Wait(offset), Instant::now() + STEP).await.ok_or(Broken)?;
        }
        Ok((mark, known))
    }

    /// Appends, and returns when this node has applied it.
    async fn append_until(&self, purge: &Purge, urgent: bool, deadline: Instant) -> Result<(Mark, bool), Broken> {
        let mut anew = false;
        loop {
            if Instant::now() >= deadline {
                return Err(Broken);
            }
            let Ok((mark, known)) = self.append(purge.id, message::purge(purge, urgent), anew).await else { continue };
            if self.reached(&mark, deadline).await? {
                self.state.passed(mark.at);
                return Ok((mark, known));
            }
            anew = known;
            self.state.distrust();
        }
    }

    async fn reached(&self, mark: &Mark, deadline: Instant) -> Result<bool, Broken> {
        loop {
            step().await;
            if self.is(Mutation::PositionsAlone) {
                let at = self.state.mark().at;
                if at.life == mark.at.life && at.position >= mark.at.position {
                    return Ok(true);
                }
            }
            if let Some(reached) = self.state.reached(mark).now_or_never() {
                return Ok(reached);
            }
            if Instant::now() >= deadline {
                return Err(Broken);
            }
        }
    }

    async fn all_have(&self, at: FleetPosition, deadline: Instant) -> Result<(), Broken> {
        loop {
            step().await;
            match self.nodes.others(at, Instant::now()) {
                Others::Applied { .. } => return Ok(()),
                Others::Behind(_) if Instant::now() >= deadline => return Err(Broken),
                Others::Behind(_) => self.state.beat.notify_one(),
            }
        }
    }

    /// The origin has something new, and says so. Whether it was acknowledged.
    pub(super) async fn purge(self: Rc<Self>, key: usize, fleet: bool) -> bool {
        let change = {
            let mut world = self.world.borrow_mut();
            world.origin[key] += 1;
            let mode = if world.random.percent(80) { Mode::Hard } else { Mode::Soft };
            let id = PurgeId::named(&world.random.next().to_string());
            let (scopes, note) = (vec![scope(key)], String::new());
            let purge = Purge { id, at: clock(), mode, scopes, hold: Duration::ZERO, note };
            Change { purge, key, version: world.origin[key] }
        };
        let done = self.say(&change, fleet).await;
        if !done {
            self.world.borrow_mut().unacknowledged.push(change);
        }
        done
    }

    /// Says that something has changed, again or for the first time.
    pub(super) async fn say(&self, change: &Change, fleet: bool) -> bool {
        let done = self.purge_all(&change.purge, fleet).await.is_ok();
        if done {
            let (now, &Change { key, version, .. }) = (Instant::now(), change);
            let mut world = self.world.borrow_mut();
            world.acked += 1;
            world.promise(now, key, version, Some(self.number), "a purge on this node");
            if fleet {
                world.promise(now, key, version, None, "ack=fleet");
            } else {
                world.promise(now + LEASE, key, version, None, "ack=log");
            }
        }
        done
    }

    async fn purge_all(&self, purge: &Purge, fleet: bool) -> Result<(), Broken> {
        let deadline = Instant::now() + ACK_TIMEOUT;
        let mut appended = self.append_until(purge, true, deadline).await?.0;
        if !fleet {
            return Ok(());
        }
        loop {
            self.all_have(appended.at, deadline).await?;
            let (mark, known) = self.append_until(purge, true, deadline).await?;
            if known && mark == appended {
                return Ok(());
            }
            appended = mark;
        }
    }

    // === Reads ===

    /// A request of a client: what is stored, what others have stored, or the origin.
    pub(super) async fn read(self: Rc<Self>, key: usize) {
        let floor = self.world.borrow().floor(self.number, key, Instant::now());
        step().await;
        if let Some(version) = self.hit(key) {
            let mut world = self.world.borrow_mut();
            world.hits += 1;
            return world.judge(self.number, version, floor, "what it had stored");
        }
        let stamp = self.disk.borrow().position;
        step().await;
        let unproved = self.is(Mutation::UnprovedStamps);
        let begun = if unproved { self.state.mark().at } else { self.state.proved() };
        step().await;
        if !self.is_fenced() {
            let found = self.world.borrow_mut().look(key);
            step().await;
            if let Some((version, begun)) = found
                && !self.is_fenced()
                && self.standing_here(stamp, key).max(self.state.standing(begun, &[scope(key)])) == Standing::Untouched
            {
                self.store(key, version, stamp);
                step().await;
                let mut world = self.world.borrow_mut();
                world.hits += 1;
                return world.judge(self.number, version, floor, "what another had stored");
            }
        }
        step().await;
        let version = self.world.borrow().origin[key];
        step().await;
        self.store(key, version, stamp);
        step().await;
        if begun.life != 0 {
            self.world.borrow_mut().share(key, version, begun);
        }
        self.world.borrow_mut().judge(self.number, version, floor, "the origin");
    }

    fn standing_here(&self, stamp: Position, key: usize) -> Standing {
        self.disk.borrow().watermarks.standing(stamp, &[scope(key), Scope::everything()])
    }

    fn hit(&self, key: usize) -> Option<u64> {
        let stored = self.disk.borrow().stored[key]?;
        let known = self.state.is_synced() || self.state.refused_since().is_some_and(|since| stored.at >= since);
        let usable = !self.is_fenced() && known && self.standing_here(stored.stamp, key) == Standing::Untouched;
        usable.then_some(stored.version)
    }

    fn store(&self, key: usize, version: u64, stamp: Position) {
        self.disk.borrow_mut().stored[key] = Some(Stored { version, stamp, at: clock() });
    }
}

fn entries(life: u64, records: &[Record]) -> Vec<Entry> {
    let read = |record: &Record| Entry {
        mark: Mark { at: FleetPosition { life, ..record.mark.at }, ..record.mark },
        before: record.before,
        message: Message::read(&record.payload, &record.mark.digest, clock()),
    };
    records.iter().map(read).collect()
}
