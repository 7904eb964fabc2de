//! `/disk`: the disk tier, as its operator sees and handles it.

use std::sync::Arc;

use axum::{
    Extension, Json as Answer,
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Shared,
    auth::Caller,
    disk_task::{Busy, DiskCall, DiskTask, Handle},
    problem::{Problem, nearest},
};
use crate::store::{L3, l3::Stats};

/// The disk tier in figures.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct DiskStats {
    /// Where it is.
    pub directory: String,
    /// What it holds.
    #[serde(flatten)]
    pub stats: Stats,
}

impl DiskStats {
    /// Of a tier, at this moment.
    pub fn of(l3: &L3) -> Self {
        // As it was configured where the working directory has gone.
        let directory = std::path::absolute(l3.directory()).unwrap_or_else(|_| l3.directory().to_owned());
        Self { directory: directory.to_string_lossy().into_owned(), stats: l3.stats() }
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct StartQuery {
    /// Answer when the task has ended.
    #[serde(default)]
    wait: bool,
}

/// The disk tier in figures.
#[utoipa::path(get, path = "/disk", tag = "disk", security(("token" = [])), responses(
    (status = 200, body = DiskStats),
    (status = 404, description = "There is no disk tier", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn stats(State(shared): State<Arc<Shared>>) -> Result<Answer<DiskStats>, Problem> {
    shared.l3().map(|l3| Answer(DiskStats::of(&l3)))
}

/// Have the disk tier verified, collected (`gc`) or cleared.
///
/// `verify` reads everything and removes what is not as it was written; `gc` removes content that nothing names, and
/// entries without their content; `clear` removes everything. One at a time; a task that is under way is joined.
#[utoipa::path(post, path = "/disk/{task}", tag = "disk", security(("token" = [])),
    params(("task" = DiskCall, Path, description = "`verify`, `gc` or `clear`"), StartQuery), responses(
    (status = 200, description = "Ended, with `wait`", body = DiskTask),
    (status = 202, description = "Under way; `Location` tells how it goes", body = DiskTask),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "Another task is under way", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn start(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(task): Path<String>,
    query: Result<Query<StartQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let call = call(&task)?;
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let handle = shared.disk_tasks.start(&shared.l3()?, call)?;
    tracing::info!(task, who = &*caller.name, "disk tier: asked for");
    let mut status = StatusCode::ACCEPTED;
    if query.wait {
        handle.finished().await;
        status = StatusCode::OK;
    }
    Ok((status, [(header::LOCATION, format!("/disk/{task}"))], Answer(handle.status())).into_response())
}

/// How the last task of that kind goes or went.
#[utoipa::path(get, path = "/disk/{task}", tag = "disk", security(("token" = [])),
    params(("task" = DiskCall, Path, description = "`verify`, `gc` or `clear`")), responses(
    (status = 200, body = DiskTask),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(task): Path<String>,
) -> Result<Answer<DiskTask>, Problem> {
    shared.last_task(&task).map(|handle| Answer(handle.status()))
}

/// Stop a `verify`. What it has found up to then is removed.
#[utoipa::path(delete, path = "/disk/{task}", tag = "disk", security(("token" = [])),
    params(("task" = DiskCall, Path, description = "`verify`; the others come to their end")), responses(
    (status = 200, description = "Ended, by this or before", body = DiskTask),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn stop(
    State(shared): State<Arc<Shared>>,
    Path(task): Path<String>,
) -> Result<Answer<DiskTask>, Problem> {
    let handle = shared.last_task(&task)?;
    handle.stop();
    handle.finished().await;
    Ok(Answer(handle.status()))
}

impl Shared {
    fn l3(&self) -> Result<L3, Problem> {
        let none = || Problem::new(StatusCode::NOT_FOUND, "there is no disk tier: `l3.max_bytes` is 0");
        self.proxy.now().cache().l3().cloned().ok_or_else(none)
    }

    fn last_task(&self, task: &str) -> Result<Handle, Problem> {
        let none = || Problem::new(StatusCode::NOT_FOUND, format!("`{task}` has not been asked for since the start"));
        self.l3()?;
        self.disk_tasks.last(call(task)?).ok_or_else(none)
    }
}

fn call(task: &str) -> Result<DiskCall, Problem> {
    let known = DiskCall::ALL.map(DiskCall::name);
    let unknown = || {
        let hint = nearest(task, known).map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
        Problem::new(StatusCode::NOT_FOUND, format!("there is no task `{task}`{hint}"))
            .with_known(known.map(str::to_owned).to_vec())
    };
    DiskCall::ALL.into_iter().find(|call| call.name() == task).ok_or_else(unknown)
}

impl From<Busy> for Problem {
    fn from(busy: Busy) -> Self {
        Self::new(StatusCode::CONFLICT, busy.to_string())
    }
}
