//! The log as the rest of the gateway sees it.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use prometheus_client::registry::Registry;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    config::Config,
    mark::Mark,
    metrics::Metrics,
    recovery::{self, Files, Recovered},
    runs::{Run, Runs},
    types::{Purge, PurgeError, Receipt, Standing},
    writer::{QUEUE, Request, Shared, Waiting, Writer},
};
use crate::{
    files::{self, Lock},
    object::{
        entry::Entry,
        scope::{Position, Scope},
        time::Timestamp,
    },
};

/// The receipt of a purge that is being applied.
pub(super) type Applying = oneshot::Receiver<Result<Receipt, PurgeError>>;

/// The purge log of a data directory. Clones are the same log; with the last one gone, what was accepted is finished,
/// and the directory is free.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    call_scopes_max: usize,
    /// The last record of the fleet's log that was applied before this start.
    mark: Option<Mark>,
    runs: Runs,
    // Before the lock: it is dropped first, and then nobody writes any more.
    worker: Worker,
    _lock: Lock,
}

impl Log {
    /// Opens the log in `data_dir`, which is made if need be and belongs to this process from now on. Applies what the
    /// files hold before it returns. Its metrics go to `registry` under `purge`.
    ///
    /// # Errors
    /// If the directory belongs to another process or cannot be used. A damaged file is no error: it counts as a purge
    /// of everything.
    pub fn open(config: &Config, data_dir: &Path, registry: &mut Registry) -> io::Result<Self> {
        let lock = Lock::take(data_dir)?;
        files::create_dir(&data_dir.join("purge"))?;
        let files = Files::of(data_dir);
        let metrics = Metrics::new(registry);
        let recovered = recovery::recover(&files, config, &metrics)?;
        Self::start(recovered, files, config, metrics, lock)
    }

    /// Starts the writer of a log that was read.
    pub(super) fn start(
        recovered: Recovered,
        files: Files,
        config: &Config,
        metrics: Metrics,
        lock: Lock,
    ) -> io::Result<Self> {
        let mark = recovered.mark;
        let runs = Runs::begin(&files.runs, recovered.position, recovered.is_new, config.fsync)?;
        let (writer, shared) = Writer::new(recovered, files, config.fsync, metrics);
        let worker = Worker::start(writer)?;
        let inner = Inner { shared, call_scopes_max: config.call_scopes_max, mark, runs, worker, _lock: lock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Position of the last purge that is applied. As a stamp it has to be read before the request to the origin leaves.
    pub fn position(&self) -> Position {
        Position::from_number(self.inner.shared.position.load(Acquire))
    }

    /// The name of the run that began when it was opened.
    pub fn run(&self) -> Option<Run> {
        self.inner.runs.current()
    }

    /// Up to which position the history of that run is this log's own: a stamp up to there can be compared with it. `None`:
    /// it is the run of another log, or of one that this has not been since it was put back.
    pub fn reach(&self, run: Run) -> Option<Position> {
        self.inner.runs.reach(run, self.position())
    }

    /// Purges: durable, then applied, then returned. Dropping the future does not take a purge back.
    ///
    /// # Errors
    /// If it was not done; nothing of it was applied then.
    pub async fn append(&self, purge: Purge) -> Result<Receipt, PurgeError> {
        self.check(&purge)?;
        self.send(purge, None).await?.await.unwrap_or(Err(PurgeError::Closed))
    }

    /// Applies a record of the fleet's log, in the order of the calls; what comes back is to be awaited.
    pub(super) async fn absorb(&self, purge: Purge, mark: Mark) -> Result<Applying, PurgeError> {
        self.send(purge, Some(mark)).await
    }

    /// The last record of the fleet's log that was applied before this start.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.inner.mark
    }

    async fn send(&self, mut purge: Purge, mark: Option<Mark>) -> Result<Applying, PurgeError> {
        purge.scopes.sort_unstable();
        purge.scopes.dedup();
        let (reply, receipt) = oneshot::channel();
        let request = Request { purge, mark, waiting: Waiting { start: Instant::now(), reply } };
        self.inner.worker.send(request).await?;
        Ok(receipt)
    }

    /// Whether a purge may be done as it is.
    pub(super) fn check(&self, purge: &Purge) -> Result<(), PurgeError> {
        let (named, max) = (purge.scopes.len(), self.inner.call_scopes_max);
        match named {
            0 => Err(PurgeError::NoScopes),
            _ if named > max => Err(PurgeError::TooManyScopes { named, max }),
            _ => Ok(()),
        }
    }

    /// The worst that happened to any of `scopes` after `stamp`.
    pub fn verdict(&self, stamp: Position, scopes: &[Scope]) -> Standing {
        self.inner.shared.table.read().standing(stamp, scopes)
    }

    /// How a stored response stands to the log. Mostly two loads and a comparison: an entry remembers up to where it
    /// was found untouched.
    pub fn standing(&self, entry: &Entry) -> Standing {
        // The position before the table: what is remembered below then covers no purge that the table did not show.
        let position = self.position();
        if entry.checked.load(Relaxed) == position.number() {
            return Standing::Untouched;
        }
        let standing = self.verdict(entry.stamp, &entry.scopes());
        if standing == Standing::Untouched {
            entry.checked.store(position.number(), Relaxed);
        }
        standing
    }

    /// How long fills of any of `scopes` are held: the longest that is left of any purge's `hold`.
    pub fn hold(&self, scopes: &[Scope], now: Timestamp) -> Option<Duration> {
        self.inner.shared.table.read().hold(scopes, now)
    }

    /// The last purge that names any of `scopes`.
    pub fn latest(&self, scopes: &[Scope]) -> Position {
        self.inner.shared.table.read().latest(scopes)
    }
}

/// The writer's thread; dropping it waits until it has finished what it accepted.
struct Worker {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(writer: Writer) -> io::Result<Self> {
        let (requests, incoming) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name("purge-log".into()).spawn(move || writer.run(incoming))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    async fn send(&self, request: Request) -> Result<(), PurgeError> {
        let requests = self.requests.as_ref().ok_or(PurgeError::Closed)?;
        requests.send(request).await.map_err(|_| PurgeError::Closed)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}
