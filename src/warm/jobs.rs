//! The jobs of a node: so many run at once, as many wait, and some finished ones can still be asked about.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    config::Config,
    fetch::Fetcher,
    job::{Job, Plan, State, Status},
    metrics::Metrics,
};

/// As many jobs run and wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} warm-up jobs run or wait already: wait for one, or cancel one")]
pub struct Full(pub usize);

/// The jobs of this node; clones are the same jobs.
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

struct Inner {
    config: Config,
    fetch: Fetcher,
    metrics: Metrics,
    running: Semaphore,
    shutdown: CancellationToken,
    /// Oldest first.
    jobs: Mutex<VecDeque<Job>>,
}

impl Jobs {
    /// No jobs yet. `shutdown` cancels all of them.
    pub fn new(config: Config, fetch: Fetcher, metrics: Metrics, shutdown: CancellationToken) -> Self {
        let running = Semaphore::new(config.jobs_max.clamp(1, Semaphore::MAX_PERMITS));
        Self(Arc::new(Inner { config, fetch, metrics, running, shutdown, jobs: Mutex::default() }))
    }

    /// What bounds a job.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Starts a job, or lets it wait for its turn.
    pub fn start(&self, mut plan: Plan) -> Result<Job, Full> {
        plan.concurrency = plan.concurrency.clamp(1, self.0.config.concurrency_max.max(1));
        let job = self.enlist(&plan)?;
        let (inner, started) = (Arc::clone(&self.0), job.clone());
        tokio::spawn(async move {
            inner.turn(&started, plan).await;
            inner.forget_old();
        });
        Ok(job)
    }

    /// A job by its name.
    pub fn find(&self, id: &str) -> Option<Job> {
        self.0.jobs.lock().iter().find(|job| job.id() == id).cloned()
    }

    /// All jobs, newest first.
    pub fn list(&self) -> Vec<Status> {
        let jobs: Vec<Job> = self.0.jobs.lock().iter().rev().cloned().collect();
        jobs.iter().map(Job::status).collect()
    }

    fn enlist(&self, plan: &Plan) -> Result<Job, Full> {
        let mut jobs = self.0.jobs.lock();
        let unfinished = jobs.iter().filter(|job| !job.state().is_final()).count();
        if unfinished >= self.0.config.jobs_max.max(1).saturating_mul(2) {
            return Err(Full(unfinished));
        }
        let job = Job::new(plan, self.0.config.errors_kept, self.0.shutdown.child_token());
        jobs.push_back(job.clone());
        Ok(job)
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("jobs", &self.0.jobs.lock().len()).finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    /// Waits for its turn and runs it.
    async fn turn(&self, job: &Job, plan: Plan) {
        let permit = tokio::select! {
            biased;
            () = job.cancelled() => return job.end(State::Cancelled),
            permit = self.running.acquire() => permit,
        };
        job.run(plan, &self.fetch, &self.metrics).await;
        drop(permit);
    }

    fn forget_old(&self) {
        let mut jobs = self.jobs.lock();
        let finished = jobs.iter().filter(|job| job.state().is_final()).count();
        let mut surplus = finished.saturating_sub(self.config.jobs_kept);
        jobs.retain(|job| {
            let forget = surplus > 0 && job.state().is_final();
            surplus -= usize::from(forget);
            !forget
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::warm::fetch::Fetched;

    fn jobs() -> (Jobs, CancellationToken) {
        let config =
            Config { urls_max: 100, concurrency: 1, concurrency_max: 4, jobs_max: 1, jobs_kept: 2, errors_kept: 1 };
        let fetch: Fetcher = Arc::new(|_| {
            Box::pin(async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Fetched::Stored
            })
        });
        let shutdown = CancellationToken::new();
        (Jobs::new(config, fetch, Metrics::default(), shutdown.clone()), shutdown)
    }

    fn plan(urls: usize) -> Plan {
        Plan { urls: vec!["http://a/".to_owned(); urls], concurrency: 1000, ..Plan::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_take_turns_and_are_bounded() {
        let (jobs, _shutdown) = jobs();
        let first = jobs.start(plan(8)).expect("room");
        let second = jobs.start(plan(1)).expect("room");
        assert_eq!(jobs.start(plan(1)).expect_err("no room"), Full(2));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((first.state(), second.state()), (State::Running, State::Queued));
        assert_eq!(first.status().concurrency, 4, "no more at once than configured");
        second.finished().await;
        assert_eq!(first.status().elapsed_ms, 2000);
        assert_eq!(second.status().elapsed_ms, 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_job_can_be_cancelled() {
        let (jobs, _shutdown) = jobs();
        let first = jobs.start(plan(1)).expect("room");
        let second = jobs.start(plan(1)).expect("room");
        second.cancel();
        second.finished().await;
        assert_eq!((second.state(), second.status().done), (State::Cancelled, 0));
        first.finished().await;
        assert_eq!(first.state(), State::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_finished_are_forgotten() {
        let (jobs, _shutdown) = jobs();
        let mut ids = Vec::new();
        for _ in 0..4 {
            let job = jobs.start(plan(1)).expect("room");
            job.finished().await;
            ids.push(job.id().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let known: Vec<String> = jobs.list().into_iter().map(|status| status.id).collect();
        assert_eq!(known, [ids[3].clone(), ids[2].clone()]);
        assert!(jobs.find(&ids[0]).is_none());
        assert!(jobs.find(&ids[3]).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn shutting_down_cancels_all() {
        let (jobs, shutdown) = jobs();
        let [first, second] = [(); 2].map(|()| jobs.start(plan(5)).expect("room"));
        shutdown.cancel();
        first.finished().await;
        second.finished().await;
        assert_eq!((first.state(), second.state()), (State::Cancelled, State::Cancelled));
    }
}
