//! `/log/level`: what is logged, changed while the gateway runs.

use std::{sync::Arc, time::Duration};

use axum::{
    Json as Answer,
    extract::{Query, State, rejection::QueryRejection},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Shared, json::Json, problem::Problem};
use crate::telemetry::{Guard, LogError};

/// Longest time after which it goes back by itself: whoever needs more means it for good.
const FOR_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What is to be logged.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// `error`, `warn`, `info`, `debug`, `trace`, `off`, or a filter such as `larder::origin=debug,info`.
    pub level: String,
}

/// What is logged.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct LogLevelNow {
    /// As it is now.
    pub level: String,
    /// What it goes back to; absent: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    /// Go back after so long, such as `10m`; at most seven days.
    #[serde(default, rename = "for")]
    lasts: Option<String>,
}

/// What is logged.
#[utoipa::path(get, path = "/log/level", tag = "operate", security(("token" = [])), responses(
    (status = 200, body = LogLevelNow),
    (status = 501, description = "This gateway has no log of its own", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(shared): State<Arc<Shared>>) -> Result<Answer<LogLevelNow>, Problem> {
    shared.log().map(|log| Answer(now(log)))
}

/// Change what is logged, for a while or until the next change.
///
/// A reload of the configuration that changes `log.level` is one; a start goes back to what is configured.
#[utoipa::path(put, path = "/log/level", tag = "operate", security(("token" = [])), params(How),
    request_body = LogLevel, responses(
    (status = 200, body = LogLevelNow),
    (status = 400, description = "No level and no filter", body = Problem, content_type = "application/problem+json"),
    (status = 501, description = "This gateway has no log of its own", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    how: Result<Query<How>, QueryRejection>,
    Json(LogLevel { level }): Json<LogLevel>,
) -> Result<Answer<LogLevelNow>, Problem> {
    let Query(how) = how.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let log = shared.log()?;
    let lasts = how.lasts.as_deref().map(duration).transpose()?;
    let mut ending = shared.level_ends.lock();
    let refused = |error| match error {
        LogError::Level(_) => Problem::bad_request(error.to_string()).with_field("level"),
        error => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let task = match lasts {
        None => {
            log.set_level(&level).map_err(refused)?;
            None
        }
        Some(lasts) => {
            let (passing, log) = (log.set_level_for_now(&level).map_err(refused)?, log.clone());
            Some(tokio::spawn(async move {
                tokio::time::sleep(lasts).await;
                if log.take_back(passing) {
                    tracing::info!(level = log.level().0, "the log has gone back to its level");
                }
            }))
        }
    };
    // There is one change to end, at most: that of the last call.
    if let Some(earlier) = std::mem::replace(&mut *ending, task) {
        earlier.abort();
    }
    Ok(Answer(now(log)))
}

fn now(log: &Guard) -> LogLevelNow {
    let (level, back_to) = log.level();
    LogLevelNow { level, back_to }
}

fn duration(text: &str) -> Result<Duration, Problem> {
    let wrong = || Problem::bad_request("`for` is a time such as 10m, at most 7days").with_field("for");
    let lasts = humantime::parse_duration(text).map_err(|_| wrong())?;
    if lasts.is_zero() || lasts > FOR_MAX { Err(wrong()) } else { Ok(lasts) }
}

impl Shared {
    fn log(&self) -> Result<&Guard, Problem> {
        let none = || Problem::new(StatusCode::NOT_IMPLEMENTED, "this gateway was started without a log of its own");
        self.log.as_ref().ok_or_else(none)
    }
}
