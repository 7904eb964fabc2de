//! One warm-up job.
//!
//! ```text
//!  queued ──run──▶ running ──every URL fetched──▶ done
//!     └───cancel──────┴───────────────────────▶ cancelled
//! ```

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use futures_util::{StreamExt, stream};
use http::HeaderMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{
    fetch::{Fetched, Fetcher, Wanted},
    id,
    metrics::{Cause, Metrics},
    pace::paced,
};

/// What a job is to fetch, and how fast.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Absolute URLs, most wanted first.
    pub urls: Vec<String>,
    /// Request header fields of every fetch.
    pub headers: HeaderMap,
    /// The tenant for whom they are, where their routes ask for one.
    pub tenant: Option<Arc<str>>,
    /// Fetches at once.
    pub concurrency: usize,
    /// Fetches started a second; zero: no limit.
    pub rate: u32,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Waits for other jobs.
    Queued,
    /// Fetches.
    Running,
    /// Has fetched everything.
    Done,
    /// Was stopped before its end.
    Cancelled,
}

impl State {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

/// A job as it is shown.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Status {
    /// Its name.
    pub id: String,
    /// See [`State`].
    pub state: State,
    /// URLs to fetch.
    pub total: usize,
    /// URLs fetched, whatever the result.
    pub done: usize,
    /// Fetched and stored.
    pub stored: usize,
    /// Fresh in the cache already.
    pub fresh: usize,
    /// Answered by the origin, but not storable.
    pub not_storable: usize,
    /// Not answered, or with an error status.
    pub failed: usize,
    /// The first failures.
    pub errors: Vec<FetchError>,
    /// Fetches at once.
    pub concurrency: usize,
    /// Fetches started a second; zero: no limit.
    pub rate: u32,
    /// Milliseconds it has been running, or was.
    pub elapsed_ms: u64,
}

/// A URL that could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct FetchError {
    /// Which one.
    pub url: String,
    /// Why.
    pub error: String,
}

/// A handle on a job; clones are the same job.
#[derive(Debug, Clone)]
pub struct Job(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: String,
    total: usize,
    concurrency: usize,
    rate: u32,
    counts: Counts,
    progress: Mutex<Progress>,
    errors_kept: usize,
    cancel: CancellationToken,
    finished: CancellationToken,
}

#[derive(Debug, Default)]
struct Counts {
    stored: AtomicUsize,
    fresh: AtomicUsize,
    not_storable: AtomicUsize,
    failed: AtomicUsize,
}

#[derive(Debug)]
struct Progress {
    state: State,
    started: Option<Instant>,
    ended: Option<Instant>,
    errors: Vec<FetchError>,
}

impl Job {
    /// A queued job; `cancel` ends it, from here or from above.
    pub(super) fn new(plan: &Plan, errors_kept: usize, cancel: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            id: id::fresh(),
            total: plan.urls.len(),
            concurrency: plan.concurrency.max(1),
            rate: plan.rate,
            counts: Counts::default(),
            progress: Mutex::new(Progress { state: State::Queued, started: None, ended: None, errors: Vec::new() }),
            errors_kept,
            cancel,
            finished: CancellationToken::new(),
        }))
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.0.progress.lock().state
    }

    /// Stops it; what is being fetched is left to itself. A finished job stays as it is.
    pub fn cancel(&self) {
        self.0.cancel.cancel();
    }

    /// Returns once nothing more will happen.
    pub async fn finished(&self) {
        self.0.finished.cancelled().await;
    }

    pub(super) async fn cancelled(&self) {
        self.0.cancel.cancelled().await;
    }

    /// As it stands now.
    pub fn status(&self) -> Status {
        let inner = &*self.0;
        let count = |counter: &AtomicUsize| counter.load(Relaxed);
        let [stored, fresh, not_storable, failed] = [
            count(&inner.counts.stored),
            count(&inner.counts.fresh),
            count(&inner.counts.not_storable),
            count(&inner.counts.failed),
        ];
        let progress = inner.progress.lock();
        Status {
            id: inner.id.clone(),
            state: progress.state,
            total: inner.total,
            done: stored + fresh + not_storable + failed,
            stored,
            fresh,
            not_storable,
            failed,
            errors: progress.errors.clone(),
            concurrency: inner.concurrency,
            rate: inner.rate,
            elapsed_ms: progress.elapsed_ms(),
        }
    }

    /// Fetches until everything is fetched or the job is cancelled.
    pub(super) async fn run(&self, plan: Plan, fetch: &Fetcher, metrics: &Metrics) {
        self.0.progress.lock().start();
        let wanted =
            |url: &String| Wanted { url: url.clone(), headers: plan.headers.clone(), tenant: plan.tenant.clone() };
        let wanted = &wanted;
        let fetches = paced(stream::iter(plan.urls), self.0.rate)
            .map(|url| async move { (fetch(wanted(&url)).await, url) })
            .buffer_unordered(self.0.concurrency);
        let mut fetches = std::pin::pin!(fetches);
        loop {
            tokio::select! {
                biased;
                () = self.0.cancel.cancelled() => return self.end(State::Cancelled),
                next = fetches.next() => match next {
                    Some((fetched, url)) => self.note(&fetched, url, metrics),
                    None => return self.end(State::Done),
                },
            }
        }
    }

    /// Moves to a final state.
    pub(super) fn end(&self, state: State) {
        self.0.progress.lock().end(state);
        self.0.finished.cancel();
    }

    fn note(&self, fetched: &Fetched, url: String, metrics: &Metrics) {
        metrics.count(Cause::Job, fetched);
        let counts = &self.0.counts;
        let counter = match fetched {
            Fetched::Stored => &counts.stored,
            Fetched::Fresh => &counts.fresh,
            Fetched::NotStorable => &counts.not_storable,
            Fetched::Failed(error) => {
                self.keep_error(url, error);
                &counts.failed
            }
        };
        counter.fetch_add(1, Relaxed);
    }

    fn keep_error(&self, url: String, error: &str) {
        let mut progress = self.0.progress.lock();
        if progress.errors.len() < self.0.errors_kept {
            progress.errors.push(FetchError { url, error: error.to_owned() });
        }
    }
}

// === impl Progress ===

impl Progress {
    fn start(&mut self) {
        self.state = State::Running;
        self.started = Some(Instant::now());
    }

    fn end(&mut self, state: State) {
        debug_assert!(state.is_final() && !self.state.is_final(), "a job ends once");
        self.state = state;
        self.ended = Some(Instant::now());
    }

    fn elapsed_ms(&self) -> u64 {
        let Some(started) = self.started else { return 0 };
        let elapsed = self.ended.unwrap_or_else(Instant::now) - started;
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Answers by the last letter of the URL, after a second.
    fn fetcher() -> Fetcher {
        Arc::new(|Wanted { url, .. }| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                match url.as_bytes().last() {
                    Some(b's') => Fetched::Stored,
                    Some(b'f') => Fetched::Fresh,
                    Some(b'n') => Fetched::NotStorable,
                    _ => Fetched::Failed("status 502".to_owned()),
                }
            })
        })
    }

    fn plan(urls: &[&str], concurrency: usize, rate: u32) -> Plan {
        Plan { urls: urls.iter().map(|&url| url.to_owned()).collect(), concurrency, rate, ..Plan::default() }
    }

    fn job(plan: &Plan) -> Job {
        Job::new(plan, 1, CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn counts_what_came_of_each_url() {
        let plan = plan(&["/s", "/s", "/f", "/n", "/x", "/y"], 2, 0);
        let job = job(&plan);
        assert_eq!(job.status().state, State::Queued);
        job.run(plan, &fetcher(), &Metrics::default()).await;
        job.finished().await;
        let status = job.status();
        assert_eq!(status.state, State::Done);
        assert_eq!((status.total, status.done), (6, 6));
        assert_eq!((status.stored, status.fresh, status.not_storable, status.failed), (2, 1, 1, 2));
        assert_eq!(status.errors, [FetchError { url: "/x".to_owned(), error: "status 502".to_owned() }]);
        assert_eq!(status.elapsed_ms, 3000, "six fetches of a second, two at once");
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_to_its_rate() {
        let plan = plan(&["/s"; 5], 100, 2);
        let job = job(&plan);
        job.run(plan, &fetcher(), &Metrics::default()).await;
        assert_eq!(job.status().elapsed_ms, 3000, "starts at 0, 0.5, 1, 1.5 and 2 seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_job_stops_between_fetches() {
        let plan = plan(&["/s"; 10], 1, 0);
        let job = job(&plan);
        let running = {
            let job = job.clone();
            tokio::spawn(async move { job.run(plan, &fetcher(), &Metrics::default()).await })
        };
        tokio::time::sleep(Duration::from_millis(3500)).await;
        assert_eq!((job.state(), job.status().done), (State::Running, 3));
        job.cancel();
        job.finished().await;
        running.await.expect("no panic");
        let status = job.status();
        assert_eq!((status.state, status.done, status.elapsed_ms), (State::Cancelled, 3, 3500));
    }
}
