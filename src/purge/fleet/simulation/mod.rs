//! The protocol between nodes, run with virtual time and a scheduler that picks at random what happens next: which node does
//! its next step, which request arrives or is lost, how far the replica comes, which node sleeps, when a master is
//! deposed. The state and the decisions are the real ones; Redis, the network, the tiers and the origin are simulated.
//!
//! What is checked, of each read:
//! 1. After `ack=fleet` returned, no read that begins later has anything older, whatever happens.
//! 2. After `ack=log` returned, none that begins a lease later has.
//! 3. After any purge returned on a node, none that begins later on that node has, as long as its disk is there.
//! 4. When faults end, all nodes have a lease soon, and purges are acknowledged: a new one, and the last of those that were
//!    not, said again with their ids.
//!
//! What is left out in turn (`Mutation`) is missed. Some of the protocol is not, as something else stands in the way as well:
//! - What L2 compares before it stores an entry: a look finds any of what was ever stored, and stamps decide.
//! - Void positions: what is shared is stamped with positions that a replica has.
//! - The second append of `ack=fleet`, and giving back what was lost: what a replica has is not lost, and nothing else is
//!   acknowledged. They are for Redis without replicas, and for a log that is gone; what is stored is confirmed then anyhow.
//!
//! All of Redis refusing connections is not simulated: what is promised then is less (`docs/FLEET.md`).
//!
//! The same seed is the same schedule. `LARDER_SCHEDULES` says how many there are to be, `LARDER_SEED` where to begin.

mod node;
mod random;
mod redis;
mod world;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::Instant;

use self::{
    node::{Disk, Node},
    world::{KEYS, NODES, Shared, World, step},
};
use crate::object::time::Timestamp;

const LEASE: Duration = Duration::from_secs(2);

/// Steps with faults, and steps in which all has to be well again afterwards.
const STEPS: usize = 2500;
const CALM_STEPS: usize = 20_000;

/// Purges that were not acknowledged and are said again then.
const SAID_AGAIN: usize = 3;

/// What is left out of the protocol, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    /// A node serves whatever its lease says.
    NoLease,
    /// A proof counts before what it is about was applied.
    ProofNotApplied,
    /// A proof counts although no replica has it.
    ProofWithoutReplica,
    /// An append counts although no replica has it.
    AppendWithoutReplica,
    /// The list of a new log counts at once.
    NoWaitForLife,
    /// Who is as far as a record's position has that record.
    PositionsAlone,
    /// What is shared is stamped with records that no replica may have.
    UnprovedStamps,
}

fn clock() -> Timestamp {
    thread_local!(static START: Instant = Instant::now());
    let elapsed = START.with(|start| Instant::now().saturating_duration_since(*start));
    Timestamp::from_secs(1_000_000).plus(elapsed)
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A node and what it is doing.
struct Member {
    node: Rc<Node>,
    tasks: Vec<Task>,
    sleeps: bool,
}

impl Member {
    fn new(number: usize, world: &Shared, disk: Rc<RefCell<Disk>>) -> Self {
        let node = Rc::new(Node::new(number, world, disk));
        let tasks: Vec<Task> = vec![Box::pin(Rc::clone(&node).tail()), Box::pin(Rc::clone(&node).beats())];
        Self { node, tasks, sleeps: false }
    }

    /// One of its tasks goes one step on.
    fn poll(&mut self, index: usize) {
        if self.tasks[index].as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            drop(self.tasks.swap_remove(index));
        }
    }
}

struct Simulation {
    world: Shared,
    members: Vec<Member>,
}

impl Simulation {
    fn new(seed: u64, mutation: Mutation) -> Self {
        let world = Rc::new(RefCell::new(World::new(seed, mutation)));
        let members = (0..NODES).map(|number| Member::new(number, &world, Rc::default())).collect();
        Self { world, members }
    }

    fn below(&self, end: usize) -> usize {
        self.world.borrow_mut().random.below(end)
    }

    /// Something happens.
    async fn step(&mut self) {
        match self.below(100) {
            0..=54 => self.poll(),
            55..=79 => self.world.borrow_mut().deliver(),
            80..=90 => self.world.borrow_mut().master().replicate(),
            91..=93 => {
                let millis = self.below(120) as u64 + 1;
                tokio::time::advance(Duration::from_millis(millis)).await;
            }
            94..=97 => self.client(),
            _ if self.world.borrow().calm => self.poll(),
            _ => self.fault().await,
        }
    }

    fn poll(&mut self) {
        let member = self.below(NODES);
        let task = self.below(self.members[member].tasks.len());
        let member = &mut self.members[member];
        if !member.sleeps {
            member.poll(task);
        }
    }

    fn client(&mut self) {
        let (member, key, what) = (self.below(NODES), self.below(KEYS), self.below(100));
        let member = &mut self.members[member];
        if member.tasks.len() > 6 || member.sleeps {
            return;
        }
        let node = Rc::clone(&member.node);
        match what {
            0..=79 => member.tasks.push(Box::pin(node.read(key))),
            what => member.tasks.push(Box::pin(async move {
                node.purge(key, what < 92).await;
            })),
        }
    }

    async fn fault(&mut self) {
        let number = self.below(NODES);
        match self.below(100) {
            0..=19 => self.members[number].sleeps = true,
            20..=59 => self.members[number].sleeps = false,
            60..=69 => self.world.borrow_mut().behind[number] ^= true,
            70..=74 => self.fail_over(),
            75..=79 => self.kill_deposed(),
            80..=89 => self.world.borrow_mut().master().attach(),
            90..=95 => {
                let millis = self.below(5000) as u64;
                tokio::time::advance(Duration::from_millis(millis)).await;
            }
            96 | 97 => self.restart(number),
            98 if self.below(3) == 0 => self.world.borrow_mut().master().flush(),
            _ => {}
        }
    }

    fn kill_deposed(&self) {
        let servers = &mut self.world.borrow_mut().servers;
        let last = servers.len() - 1;
        servers[..last].iter_mut().for_each(|server| *server = None);
    }

    /// The replica takes over, where there is one; the old master goes on for a while, or not.
    fn fail_over(&self) {
        let planned = self.below(3) == 0;
        let dies = self.below(2) == 0;
        self.kill_deposed();
        let mut world = self.world.borrow_mut();
        if planned {
            (0..1000).for_each(|_| world.master().replicate());
        }
        let Some(next) = world.master().promote() else { return };
        world.servers.push(Some(next));
        drop(world);
        if dies {
            self.kill_deposed();
        }
    }

    fn restart(&mut self, number: usize) {
        let keeps_disk = self.below(3) > 0;
        let mut disk = Rc::clone(&self.members[number].node.disk);
        if !keeps_disk {
            disk = Rc::default();
            self.world.borrow_mut().release(number);
        }
        self.members[number] = Member::new(number, &self.world, disk);
    }

    /// Faults end.
    fn calm(&mut self) {
        self.kill_deposed();
        self.members.iter_mut().for_each(|member| member.sleeps = false);
        let mut world = self.world.borrow_mut();
        world.calm = true;
        world.behind = [false; NODES];
        world.master().attach();
    }

    /// Whether all nodes have a lease, and the last purges were acknowledged.
    async fn recovers(&mut self) -> bool {
        self.calm();
        let left = Rc::new(Cell::new(1));
        let (node, told) = (Rc::clone(&self.members[0].node), Rc::clone(&left));
        self.members[0].tasks.push(Box::pin(async move {
            while !Rc::clone(&node).purge(0, true).await {
                step().await;
            }
            told.update(|left| left - 1);
        }));
        let unacknowledged = std::mem::take(&mut self.world.borrow_mut().unacknowledged);
        for (number, change) in unacknowledged.into_iter().rev().take(SAID_AGAIN).enumerate() {
            let member = &mut self.members[number % NODES];
            let (node, told) = (Rc::clone(&member.node), Rc::clone(&left));
            left.update(|left| left + 1);
            member.tasks.push(Box::pin(async move {
                while !node.say(&change, true).await {
                    step().await;
                }
                told.update(|left| left - 1);
            }));
        }
        for _ in 0..CALM_STEPS {
            self.step().await;
            let now = Instant::now();
            if left.get() == 0 && self.members.iter().all(|member| !member.node.state.is_fenced(now)) {
                return true;
            }
        }
        false
    }
}

/// What came of a schedule.
struct Outcome {
    violation: Option<String>,
    hits: u64,
    acked: u64,
}

/// One schedule.
async fn run(seed: u64, mutation: Mutation) -> Outcome {
    let mut simulation = Simulation::new(seed, mutation);
    let is_broken = |simulation: &Simulation| simulation.world.borrow().violation.is_some();
    let mut steps = 0;
    while steps < STEPS && !is_broken(&simulation) {
        simulation.step().await;
        steps += 1;
    }
    if !is_broken(&simulation) && !simulation.recovers().await && !is_broken(&simulation) {
        simulation.world.borrow_mut().violation = Some("no node comes back once faults have ended".to_owned());
    }
    let world = simulation.world.borrow();
    Outcome { violation: world.violation.clone(), hits: world.hits, acked: world.acked }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// The first of so many schedules that breaks a promise, with its seed.
fn search(schedules: u64, mutation: Mutation) -> Option<(u64, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let first = number("LARDER_SEED", 1);
    let (hits, acked) = (AtomicU64::new(0), AtomicU64::new(0));
    let found = runtime.expect("a runtime").block_on(async {
        tokio::time::advance(Duration::from_secs(3600)).await;
        for seed in first..first + schedules {
            let outcome = run(seed, mutation).await;
            hits.fetch_add(outcome.hits, Relaxed);
            acked.fetch_add(outcome.acked, Relaxed);
            if let Some(violation) = outcome.violation {
                return Some((seed, violation));
            }
        }
        None
    });
    println!("{mutation:?}: {found:?}, {hits:?} hits, {acked:?} purges acknowledged");
    if found.is_none() {
        assert!(hits.into_inner() > schedules && acked.into_inner() > schedules, "nothing happens in these schedules");
    }
    found
}

#[test]
fn no_schedule_breaks_a_promise() {
    assert_eq!(search(number("LARDER_SCHEDULES", 1000), Mutation::None), None);
}

/// Each of these is missed. Of what else there is in the protocol, more than one thing stands in the way of a violation.
#[test]
fn what_is_left_out_is_missed() {
    let mutations = [
        Mutation::NoLease,
        Mutation::ProofNotApplied,
        Mutation::ProofWithoutReplica,
        Mutation::AppendWithoutReplica,
        Mutation::NoWaitForLife,
        Mutation::PositionsAlone,
        Mutation::UnprovedStamps,
    ];
    let budget = number("LARDER_SCHEDULES", 1000).max(10_000);
    let unnoticed: Vec<Mutation> =
        mutations.into_iter().filter(|mutation| search(budget, *mutation).is_none()).collect();
    assert_eq!(unnoticed, []);
}
