//! Work on the disk tier that takes its time: one task at once, of which the last of each kind can be asked about.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::store::{
    L3,
    l3::{Collected, DiskError, Verified},
};

/// What can be done to the tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskCall {
    /// Read everything, and remove what is not as it was written.
    Verify,
    /// Remove content that nothing names, and entries without their content.
    Gc,
    /// Remove everything.
    Clear,
}

impl DiskCall {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Verify, Self::Gc, Self::Clear];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Gc => "gc",
            Self::Clear => "clear",
        }
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// Under way.
    Running,
    /// At its end, or stopped before: then what it found is `cut_short`.
    Done,
    /// Not done.
    Failed,
}

/// What was there before everything was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Cleared {
    /// Slots.
    pub entries: u64,
    /// Files of content.
    pub contents: u64,
    /// What these took of the disk.
    pub physical_bytes: u64,
}

/// A task, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct DiskTask {
    /// What is done.
    pub task: DiskCall,
    /// How far it is.
    pub state: DiskState,
    /// Milliseconds it has been running, or was.
    pub elapsed_ms: u64,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What `verify` has found, also while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// What `gc` has found and removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected: Option<Collected>,
    /// What `clear` has removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared: Option<Cleared>,
}

/// Another task is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is under way: GET /disk/{} says how far it is", .0.name(), .0.name())]
pub(super) struct Busy(pub(super) DiskCall);

/// A handle on a task; clones are the same.
#[derive(Clone)]
pub(super) struct Handle(Arc<Inner>);

struct Inner {
    started: Instant,
    shown: Mutex<DiskTask>,
    stop: CancellationToken,
    finished: CancellationToken,
}

/// The tasks of this node.
pub(super) struct DiskTasks {
    /// The last of each kind.
    last: Mutex<[Option<Handle>; 3]>,
    shutdown: CancellationToken,
}

impl DiskTasks {
    /// None yet. `shutdown` stops what can be stopped.
    pub(super) fn new(shutdown: CancellationToken) -> Self {
        Self { last: Mutex::default(), shutdown }
    }

    /// Starts a task, or joins the one of the same kind that is under way.
    pub(super) fn start(&self, l3: &L3, call: DiskCall) -> Result<Handle, Busy> {
        let mut last = self.last.lock();
        if let Some(running) = last.iter().flatten().find(|handle| !handle.is_finished()) {
            let task = running.status().task;
            return if task == call { Ok(running.clone()) } else { Err(Busy(task)) };
        }
        let handle = Handle::new(call, self.shutdown.child_token());
        last[call as usize] = Some(handle.clone());
        let (running, l3) = (handle.clone(), l3.clone());
        tokio::spawn(async move { running.run(&l3, call).await });
        Ok(handle)
    }

    /// The last of its kind.
    pub(super) fn last(&self, call: DiskCall) -> Option<Handle> {
        self.last.lock()[call as usize].clone()
    }
}

impl Handle {
    fn new(task: DiskCall, stop: CancellationToken) -> Self {
        let shown = DiskTask {
            task,
            state: DiskState::Running,
            elapsed_ms: 0,
            error: None,
            verified: None,
            collected: None,
            cleared: None,
        };
        let (started, finished) = (Instant::now(), CancellationToken::new());
        Self(Arc::new(Inner { started, shown: Mutex::new(shown), stop, finished }))
    }

    /// How it goes.
    pub(super) fn status(&self) -> DiskTask {
        let mut shown = self.0.shown.lock().clone();
        if shown.state == DiskState::Running {
            shown.elapsed_ms = self.elapsed_ms();
        }
        shown
    }

    /// Ends a `verify` before its end.
    pub(super) fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Waits for its end.
    pub(super) async fn finished(&self) {
        self.0.finished.cancelled().await;
    }

    fn is_finished(&self) -> bool {
        self.0.finished.is_cancelled()
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn run(&self, l3: &L3, call: DiskCall) {
        // Also if this task is dropped or panics: nobody waits for ever.
        let _finished = self.0.finished.clone().drop_guard();
        let found = match call {
            DiskCall::Verify => self.verify(l3).await.map(|found| self.show(|shown| shown.verified = Some(found))),
            DiskCall::Gc => l3.gc().await.map(|found| self.show(|shown| shown.collected = Some(found))),
            DiskCall::Clear => clear(l3).await.map(|found| self.show(|shown| shown.cleared = Some(found))),
        };
        let elapsed_ms = self.elapsed_ms();
        self.show(|shown| {
            shown.elapsed_ms = elapsed_ms;
            shown.state = if found.is_ok() { DiskState::Done } else { DiskState::Failed };
            shown.error = found.err().map(|error| error.to_string());
        });
        let DiskTask { state, error, verified, collected, cleared, .. } = self.status();
        tracing::info!(task = call.name(), ?state, error, ?verified, ?collected, ?cleared, "disk tier: looked after");
    }

    async fn verify(&self, l3: &L3) -> Result<Verified, DiskError> {
        let watching = self.clone();
        let watch = move |found: &Verified| {
            watching.show(|shown| shown.verified = Some(*found));
            !watching.0.stop.is_cancelled()
        };
        l3.verify(watch).await
    }

    fn show(&self, change: impl FnOnce(&mut DiskTask)) {
        change(&mut self.0.shown.lock());
    }
}

async fn clear(l3: &L3) -> Result<Cleared, DiskError> {
    l3.flush().await;
    let before = l3.stats();
    l3.clear().await?;
    Ok(Cleared { entries: before.entries, contents: before.contents, physical_bytes: before.physical_bytes })
}
