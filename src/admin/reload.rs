//! `POST /reload`: taking over the configuration as its file has it now.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Query, State},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Shared, auth::Caller, problem::Problem};

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Change {
    /// Its path; a route is named by its name: `route.shop.cache.keep`.
    pub setting: String,
    /// What it was, as TOML writes it; absent: nothing. Secrets are `***`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it is to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether only a new process takes it over.
    pub needs_restart: bool,
}

impl Change {
    /// The settings of these.
    pub fn settings(changes: &[Self]) -> Vec<&str> {
        changes.iter().map(|change| change.setting.as_str()).collect()
    }

    /// The settings of those of them that need a restart.
    pub fn fixed(changes: &[Self]) -> Vec<&str> {
        changes.iter().filter(|change| change.needs_restart).map(|change| change.setting.as_str()).collect()
    }
}

/// Takes over configurations.
pub trait Reload: Send + Sync {
    /// Reads the configuration and takes it over, all of it or nothing; `dry_run`: only says what that would come to.
    fn reload(&self, dry_run: bool) -> Reloaded;
}

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    /// It was taken over, or would have been.
    Done {
        /// What is different now.
        changes: Vec<Change>,
        /// What is allowed and surely not meant.
        warnings: Vec<String>,
    },
    /// Nothing was taken over: some of it needs a new process.
    NeedsRestart(Vec<Change>),
    /// Nothing was taken over: it cannot be read, or not be used.
    Invalid(String),
}

/// How to reload.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    /// Only say what would change.
    #[serde(default)]
    dry_run: bool,
}

/// What a reload has changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Answer {
    /// Whether it was only tried.
    dry_run: bool,
    /// What is different now, or would be.
    changes: Vec<Change>,
    /// What is allowed and surely not meant.
    warnings: Vec<String>,
}

/// Take over the configuration: its file, environment and flags are read again.
///
/// All of it, or nothing. Requests under way end by the rules they began with; no connection is dropped and nothing stored
/// is lost. Settings that a process has for life (addresses, directories, sizes of tiers) are refused by name.
#[utoipa::path(post, path = "/reload", tag = "operate", security(("token" = [])), params(How), responses(
    (status = 200, description = "Taken over; what is different", body = Answer),
    (status = 409, description = "Nothing was taken over: these settings need a restart", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "Nothing was taken over: the configuration is wrong, and where", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn reload(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(how): Query<How>,
) -> Result<Json<Answer>, Problem> {
    let Some(reload) = shared.reload.clone() else {
        return Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "this gateway was started without a configuration to read",
        ));
    };
    let dry_run = how.dry_run;
    // It reads files and makes pools.
    let reloaded = tokio::task::spawn_blocking(move || reload.reload(dry_run)).await;
    match reloaded {
        Ok(Reloaded::Done { changes, warnings }) => {
            tracing::info!(changed = Change::settings(&changes).join(" "), dry_run, who = %caller.name, "configuration reloaded");
            Ok(Json(Answer { dry_run, changes, warnings }))
        }
        Ok(Reloaded::NeedsRestart(changes)) => Err(needs_restart(&changes)),
        Ok(Reloaded::Invalid(errors)) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, errors)),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the call failed inside; the log says where")),
    }
}

fn needs_restart(changes: &[Change]) -> Problem {
    let fixed: Vec<_> = Change::fixed(changes).into_iter().map(|setting| format!("`{setting}`")).collect();
    let detail = format!("nothing was taken over: {} can only change with a restart", fixed.join(", "));
    Problem::new(StatusCode::CONFLICT, detail)
}
