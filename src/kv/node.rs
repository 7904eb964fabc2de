//! One server: a lane for each class of calls, each with a task that keeps it connected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, Pipeline, Value};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Class,
    backoff::Backoff,
    connect::{Connector, Driver, Purpose},
    error::Error,
    lane::{Lane, Link, Phase},
    metrics::Metrics,
    url::Address,
};

/// How long all must have gone well before an outage is over.
const SETTLED: Duration = Duration::from_secs(1);

/// What all nodes share.
pub(super) struct Context {
    pub(super) connector: Connector,
    pub(super) metrics: Metrics,
    pub(super) runtime: Handle,
    /// Told when something happened for which the nodes may be others now.
    pub(super) suspect: Notify,
    pub(super) breaker_failures: u32,
    pub(super) breaker_pause: Duration,
    pub(super) in_flight_max: usize,
}

/// See the module. Its connections end with it.
pub(super) struct Node {
    peer: Arc<Peer>,
    _keepers: [AbortOnDropHandle<()>; Class::ALL.len()],
}

/// What callers and the tasks share.
struct Peer {
    address: Address,
    context: Arc<Context>,
    lanes: [Lane; Class::ALL.len()],
    /// Told whenever a lane changes.
    changed: Notify,
    /// Whether it counts as a node that answers.
    up: AtomicBool,
    /// Whether it has been said that it does not.
    troubled: AtomicBool,
}

impl Node {
    pub(super) fn new(address: Address, context: &Arc<Context>) -> Arc<Self> {
        let lanes = Class::ALL.map(|_| Lane::new(context.in_flight_max, context.breaker_failures));
        let (changed, up, troubled) = (Notify::new(), AtomicBool::new(false), AtomicBool::new(false));
        let peer = Arc::new(Peer { address, context: Arc::clone(context), lanes, changed, up, troubled });
        let keepers = Class::ALL.map(|class| {
            let keeper = Keeper { peer: Arc::clone(&peer), class, opened: false };
            AbortOnDropHandle::new(context.runtime.spawn(keeper.run()))
        });
        Arc::new(Self { peer, _keepers: keepers })
    }

    pub(super) fn address(&self) -> &Address {
        &self.peer.address
    }

    /// Whether it is connected and no breaker of it is open.
    pub(super) fn is_up(&self) -> bool {
        self.peer.up.load(Ordering::Relaxed)
    }

    /// Whether any of its breakers is open.
    pub(super) fn is_open(&self) -> bool {
        self.peer.lanes.iter().any(|lane| lane.phase() == Phase::Open)
    }

    pub(super) fn lane(&self, class: Class) -> &Lane {
        &self.peer.lanes[class.index()]
    }

    pub(super) async fn one(&self, class: Class, deadline: Instant, command: &Cmd) -> Result<Value, Error> {
        self.lane(class).send(deadline, |line| line.one(command)).await
    }

    pub(super) async fn many(&self, class: Class, deadline: Instant, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        self.lane(class).send(deadline, |line| line.many(pipeline)).await
    }

    /// Returns when a connection is there, or when there will be none so soon.
    ///
    /// Only for calls that were sent here by another node: this one may be known since that very moment.
    pub(super) async fn greeted(&self, class: Class, deadline: Instant) {
        let wait = async {
            loop {
                let mut changed = std::pin::pin!(self.peer.changed.notified());
                changed.as_mut().enable();
                if self.lane(class).phase() != Phase::Fresh {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout_at(deadline, wait).await;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if *self.up.get_mut() {
            self.context.metrics.nodes.dec();
        }
    }
}

impl Peer {
    fn enter(&self, class: Class, phase: Phase, link: Option<Arc<Link>>) {
        self.lanes[class.index()].set(phase, link);
        let phases = self.lanes.each_ref().map(Lane::phase);
        let up = phases.contains(&Phase::Up) && !phases.contains(&Phase::Open);
        if self.up.swap(up, Ordering::Relaxed) != up {
            self.context.metrics.nodes.inc_by(if up { 1 } else { -1 });
        }
        self.changed.notify_waiters();
    }

    /// Has the other lanes see how they are.
    fn wake_others(&self, class: Class) {
        for other in Class::ALL.into_iter().filter(|other| *other != class) {
            self.lanes[other.index()].wake.notify_one();
        }
    }

    fn trouble(&self, reason: &dyn std::fmt::Display) {
        if !self.troubled.swap(true, Ordering::Relaxed) {
            tracing::warn!(node = %self.address, %reason, "Redis is unreachable");
        }
    }

    fn settled(&self) {
        let all_up = self.lanes.iter().all(|lane| lane.phase() == Phase::Up);
        if all_up && self.troubled.swap(false, Ordering::Relaxed) {
            tracing::info!(node = %self.address, "Redis is reachable again");
        }
    }
}

/// Keeps one lane connected for as long as the node is one.
struct Keeper {
    peer: Arc<Peer>,
    class: Class,
    /// Whether the last connection was given up, and none has been made since.
    opened: bool,
}

/// Why a connection is not in use any more.
enum End {
    Broken,
    GivenUp,
}

impl Keeper {
    async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            match self.context().connector.open(&self.peer.address, Purpose::Calls).await {
                Ok((line, driver)) => {
                    self.context().metrics.connects.inc();
                    let (link, begun) = (Arc::new(Link::new(line)), Instant::now());
                    let end = self.serve(&link, driver).await;
                    if link.worked() || begun.elapsed() >= SETTLED {
                        backoff.reset();
                    }
                    self.ended(&end);
                    if matches!(end, End::GivenUp) {
                        backoff.at_least(self.context().breaker_pause);
                    }
                }
                Err(error) => {
                    tracing::debug!(node = %self.peer.address, class = self.class.name(), %error, "no connection to Redis");
                    self.context().metrics.connect_errors.inc();
                    let phase = if self.opened { Phase::Open } else { Phase::Down };
                    self.peer.enter(self.class, phase, None);
                    self.peer.trouble(&error);
                    self.context().suspect.notify_one();
                }
            }
            // Sooner where another lane got through.
            let pause = backoff.next();
            tokio::select! {
                () = sleep(pause) => {}
                () = self.lane().wake.notified() => {}
            }
        }
    }

    fn context(&self) -> &Context {
        &self.peer.context
    }

    fn lane(&self) -> &Lane {
        &self.peer.lanes[self.class.index()]
    }

    /// Has calls use the connection until it ends.
    async fn serve(&mut self, link: &Arc<Link>, mut driver: Driver) -> End {
        if std::mem::take(&mut self.opened) {
            self.context().metrics.breakers.dec();
        }
        self.peer.enter(self.class, Phase::Up, Some(Arc::clone(link)));
        self.peer.wake_others(self.class);
        let mut settled = std::pin::pin!(sleep(SETTLED));
        let mut is_settled = false;
        loop {
            tokio::select! {
                biased;
                () = link.given_up.notified() => return End::GivenUp,
                _ = &mut driver => return End::Broken,
                () = &mut settled, if !is_settled => {
                    is_settled = true;
                    self.peer.settled();
                }
                () = self.lane().wake.notified() => {
                    if timeout(self.context().connector.timeout(), link.line().ping()).await.is_err() {
                        return End::GivenUp;
                    }
                }
            }
        }
    }

    fn ended(&mut self, end: &End) {
        match end {
            End::Broken => self.peer.enter(self.class, Phase::Down, None),
            End::GivenUp => {
                self.opened = true;
                self.context().metrics.breakers.inc();
                self.peer.enter(self.class, Phase::Open, None);
                self.peer.trouble(&"calls are not answered in time");
                // It may be the server: then the others need not find out call by call.
                self.peer.wake_others(self.class);
            }
        }
        self.context().suspect.notify_one();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.opened {
            self.context().metrics.breakers.dec();
        }
    }
}
