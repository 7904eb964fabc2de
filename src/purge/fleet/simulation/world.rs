//! What the nodes share: the network, servers of Redis, responses in the shared tier, the origin; and what was promised.

use std::{cell::RefCell, future::poll_fn, rc::Rc, task::Poll};

use tokio::time::Instant;

use super::{
    Mutation,
    node::Change,
    random::Random,
    redis::{Reply, Request, Server},
};
use crate::object::scope::FleetPosition;

pub(super) const NODES: usize = 3;
pub(super) const KEYS: usize = 2;

/// Responses of a key that may be found; older ones are gone.
const SHARED_MAX: usize = 8;

pub(super) type Shared = Rc<RefCell<World>>;

/// A request on its way.
pub(super) struct Flight {
    server: usize,
    request: Request,
    /// `None`: on its way still, or lost; the inner one: the connection broke.
    reply: Option<Option<Reply>>,
}

/// From then on, no read that begins there returns an older version.
#[derive(Debug)]
struct Promise {
    from: Instant,
    key: usize,
    version: u64,
    /// `None`: on all nodes.
    node: Option<usize>,
    why: &'static str,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) mutation: Mutation,
    /// No more faults.
    pub(super) calm: bool,
    /// `None`: dead.
    pub(super) servers: Vec<Option<Server>>,
    /// Who takes a deposed master for the master.
    pub(super) behind: [bool; NODES],
    flights: Vec<Rc<RefCell<Flight>>>,
    /// Versions with the fleet's position before their fill. A look may find any of them: what Redis compares before it
    /// stores one, and what its own fail-overs bring back, must not matter.
    shared: [Vec<(u64, FleetPosition)>; KEYS],
    pub(super) origin: [u64; KEYS],
    promises: Vec<Promise>,
    /// What was said and not acknowledged.
    pub(super) unacknowledged: Vec<Change>,
    pub(super) violation: Option<String>,
    /// Reads that were answered from what a node had stored, and purges that were acknowledged: it has to be about something.
    pub(super) hits: u64,
    pub(super) acked: u64,
}

impl World {
    pub(super) fn new(seed: u64, mutation: Mutation) -> Self {
        let mut server = Server::default();
        server.attach();
        Self {
            random: Random(seed),
            mutation,
            calm: false,
            servers: vec![Some(server)],
            behind: [false; NODES],
            flights: Vec::new(),
            shared: Default::default(),
            origin: [1; KEYS],
            promises: Vec::new(),
            unacknowledged: Vec::new(),
            violation: None,
            hits: 0,
            acked: 0,
        }
    }

    pub(super) fn master(&mut self) -> &mut Server {
        self.servers.last_mut().and_then(Option::as_mut).expect("the last one is the master and lives")
    }

    // === The network ===

    /// The server that a node takes for the master.
    pub(super) fn connect(&mut self, node: usize) -> usize {
        let last = self.servers.len() - 1;
        let deposed = self.servers[..last].iter().rposition(Option::is_some);
        let mistaken = self.random.percent(if self.behind[node] { 80 } else { 5 });
        deposed.filter(|_| mistaken).unwrap_or(last)
    }

    /// Something happens to a request that is on its way.
    pub(super) fn deliver(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let index = self.random.below(self.flights.len());
        let flight = self.flights.swap_remove(index);
        let abandoned = Rc::strong_count(&flight) == 1;
        let is_wait = matches!(flight.borrow().request, Request::Wait(_));
        let fate = if self.calm { 99 } else { self.random.below(100) };
        if fate < 2 || abandoned && is_wait {
            return;
        }
        let mut landed = flight.borrow_mut();
        let reply = match &mut self.servers[landed.server] {
            Some(server) => Some(server.run(landed.request.clone())),
            None => None,
        };
        if matches!(reply, Some(Reply::Waited(false))) {
            drop(landed);
            self.flights.push(flight);
        } else if fate >= 4 {
            landed.reply = Some(reply);
        }
    }

    // === What is stored where all nodes find it ===

    pub(super) fn share(&mut self, key: usize, version: u64, begun: FleetPosition) {
        let shared = &mut self.shared[key];
        if shared.len() >= SHARED_MAX {
            shared.remove(0);
        }
        shared.push((version, begun));
    }

    pub(super) fn look(&mut self, key: usize) -> Option<(u64, FleetPosition)> {
        let found = self.random.below(self.shared[key].len() + 1);
        self.shared[key].get(found).copied()
    }

    // === Promises ===

    pub(super) fn promise(&mut self, from: Instant, key: usize, version: u64, node: Option<usize>, why: &'static str) {
        self.promises.push(Promise { from, key, version, node, why });
    }

    /// What a read that begins now on that node must not fall short of.
    pub(super) fn floor(&self, node: usize, key: usize, now: Instant) -> (u64, &'static str) {
        let binding = self.promises.iter().filter(|promise| {
            promise.key == key && promise.from <= now && promise.node.is_none_or(|only| only == node)
        });
        binding.map(|promise| (promise.version, promise.why)).max().unwrap_or((0, "nothing"))
    }

    /// What was promised of one node is over: it has lost its disk.
    pub(super) fn release(&mut self, node: usize) {
        self.promises.retain(|promise| promise.node != Some(node));
    }

    pub(super) fn judge(&mut self, node: usize, version: u64, floor: (u64, &'static str), from: &str) {
        if version < floor.0 && self.violation.is_none() {
            let (promised, why) = floor;
            self.violation = Some(format!("node {node} served {version} from {from}, and {why} promised {promised}"));
        }
    }
}

/// Lets everything else happen.
pub(super) async fn step() {
    let mut stepped = false;
    poll_fn(|_| if std::mem::replace(&mut stepped, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Asks a server. `None`: the connection broke, or there was no answer in time.
pub(super) async fn call(world: &Shared, server: usize, request: Request, deadline: Instant) -> Option<Reply> {
    let flight = Rc::new(RefCell::new(Flight { server, request, reply: None }));
    world.borrow_mut().flights.push(Rc::clone(&flight));
    loop {
        step().await;
        if let Some(reply) = flight.borrow_mut().reply.take() {
            return reply;
        }
        if Instant::now() >= deadline {
            return None;
        }
    }
}
