//! `/warm`: jobs that fetch what clients are going to ask for.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension, Json as Answer,
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::{IntoParams, ToSchema};

use super::{Shared, auth::Caller, explain::header_map, json::Json, problem::Problem};
use crate::warm::{Config, Full, Plan, Status, sources};

/// A job to start. At least one URL has to come from `urls` or `access_log`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarmRequest {
    /// Absolute URLs, as a client of the gateway names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["http://shop.example/"]))]
    pub urls: Vec<String>,
    /// Text of an access log: Common or Combined log format, or JSON lines. The most frequent URLs come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<String>,
    /// Where the paths of the log are to be found.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "http://shop.example")]
    pub base: Option<String>,
    /// Request header fields of every fetch.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Name of the tenant for whom it is, where routes ask for one. It goes before a key in `headers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Fetches at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Fetches started a second; absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}

/// The jobs of the node, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobList {
    jobs: Vec<Status>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct StartQuery {
    /// Answer when the job has ended.
    #[serde(default)]
    wait: bool,
}

/// Start a job.
#[utoipa::path(post, path = "/warm", tag = "warm", security(("token" = [])), params(StartQuery),
    request_body = WarmRequest, responses(
    (status = 200, description = "Ended, with `wait`", body = Status),
    (status = 202, description = "Started; `Location` tells how it goes", body = Status),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "Too many jobs", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn start(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<StartQuery>, QueryRejection>,
    Json(request): Json<WarmRequest>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let plan = plan(request, shared.jobs.config())?;
    let urls = plan.urls.len();
    let job = shared.jobs.start(plan).map_err(Problem::from)?;
    tracing::info!(id = job.id(), urls, who = &*caller.name, "warming");
    let mut status = StatusCode::ACCEPTED;
    if query.wait {
        job.finished().await;
        status = StatusCode::OK;
    }
    Ok((status, [(header::LOCATION, format!("/warm/{}", job.id()))], Answer(job.status())).into_response())
}

/// List jobs: running, waiting, and the last finished ones.
#[utoipa::path(get, path = "/warm", tag = "warm", security(("token" = [])), responses((status = 200, body = JobList)))]
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Answer<JobList> {
    Answer(JobList { jobs: shared.jobs.list() })
}

/// How a job goes.
#[utoipa::path(get, path = "/warm/{id}", tag = "warm", security(("token" = [])),
    params(("id" = String, Path, description = "Name of the job")), responses(
    (status = 200, body = Status),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Answer<Status>, Problem> {
    shared.jobs.find(&id).map(|job| Answer(job.status())).ok_or_else(|| unknown(&id))
}

/// Cancel a job. What it has fetched stays.
#[utoipa::path(delete, path = "/warm/{id}", tag = "warm", security(("token" = [])),
    params(("id" = String, Path, description = "Name of the job")), responses(
    (status = 200, description = "Ended, by this or before", body = Status),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Answer<Status>, Problem> {
    let job = shared.jobs.find(&id).ok_or_else(|| unknown(&id))?;
    job.cancel();
    job.finished().await;
    Ok(Answer(job.status()))
}

fn unknown(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("no job {id:?}: it may have been forgotten, GET /warm lists the known"))
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, full.to_string())
    }
}

fn plan(request: WarmRequest, config: &Config) -> Result<Plan, Problem> {
    let headers = header_map(&request.headers)?;
    let asked = request.concurrency.map(|asked| usize::try_from(asked).unwrap_or(usize::MAX));
    let (concurrency, rate) = (asked.unwrap_or(config.concurrency), request.rate.unwrap_or(0));
    if !(1..=config.concurrency_max).contains(&concurrency) {
        let detail = format!("`concurrency`: 1 to {} (`warm.concurrency_max`)", config.concurrency_max);
        return Err(Problem::bad_request(detail).with_field("concurrency"));
    }
    let tenant = request.tenant.as_deref().map(Into::into);
    Ok(Plan { urls: urls(request, config.urls_max)?, headers, tenant, concurrency, rate })
}

/// The URLs of a job: those named, then those of the log as far as there is room.
fn urls(request: WarmRequest, urls_max: usize) -> Result<Vec<String>, Problem> {
    for url in &request.urls {
        absolute("urls", url)?;
    }
    let base = request.base.as_deref().map(|base| absolute("base", base)).transpose()?;
    let mut urls = request.urls;
    if urls.len() > urls_max {
        let detail = format!("`urls`: {} of them, a job takes {urls_max} (`warm.urls_max`)", urls.len());
        return Err(Problem::bad_request(detail).with_field("urls"));
    }
    if let Some(log) = &request.access_log {
        let found = sources::access_log(log, base.as_ref());
        if found.urls.is_empty() && urls.is_empty() {
            return Err(nothing_in(&found, base.is_some()));
        }
        urls.extend(found.urls);
        urls.truncate(urls_max);
    }
    if urls.is_empty() {
        return Err(Problem::bad_request("nothing to fetch: give `urls`, or `access_log`"));
    }
    Ok(urls)
}

fn nothing_in(found: &sources::FromLog, has_base: bool) -> Problem {
    let hint = if has_base { "" } else { "; where it names paths only, give `base`, such as \"http://shop.example\"" };
    let (others, not_understood) = (found.others, found.not_understood);
    let detail = format!(
        "`access_log`: no line with a GET or HEAD answered 2xx or 3xx; {others} with others, {not_understood} not \
         understood{hint}"
    );
    Problem::bad_request(detail).with_field("access_log")
}

fn absolute(field: &str, text: &str) -> Result<Url, Problem> {
    match Url::parse(text) {
        Ok(url) if sources::is_http(&url) => Ok(url),
        _ => {
            let detail = format!("`{field}`: {text:?} is not an absolute URL such as \"http://shop.example/a\"");
            Err(Problem::bad_request(detail).with_field(field))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<Plan, Problem> {
        let config =
            Config { urls_max: 3, concurrency: 2, concurrency_max: 8, jobs_max: 1, jobs_kept: 1, errors_kept: 1 };
        plan(super::super::json::parse(json.as_bytes())?, &config)
    }

    #[test]
    fn defaults_come_from_the_configuration() {
        let plan = planned(r#"{"urls":["http://a/"]}"#).expect("a plan");
        assert_eq!((plan.urls.len(), plan.concurrency, plan.rate), (1, 2, 0));
        let plan = planned(r#"{"urls":["http://a/"],"concurrency":8,"rate":5,"headers":{"Accept":"x"}}"#);
        let plan = plan.expect("a plan");
        assert_eq!((plan.concurrency, plan.rate, plan.headers.len()), (8, 5, 1));
    }

    #[test]
    fn a_log_fills_what_is_left() {
        let line = |path: &str| format!(r#"- - - [x] \"GET {path} HTTP/1.1\" 200 1\n"#);
        let log = [line("/a"), line("/b"), line("/b"), line("/c")].concat();
        let json = format!(r#"{{"urls":["http://x/"],"access_log":"{log}","base":"http://a.example/"}}"#);
        assert_eq!(planned(&json).expect("a plan").urls, ["http://x/", "http://a.example/b", "http://a.example/a"]);
    }

    #[test]
    fn what_cannot_be_fetched_is_refused() {
        let field = |json: &str| planned(json).expect_err("a refusal").field;
        assert_eq!(field("{}"), None);
        assert_eq!(field(r#"{"urls":["/a"]}"#).as_deref(), Some("urls"));
        assert_eq!(field(r#"{"urls":["ftp://a/"]}"#).as_deref(), Some("urls"));
        assert_eq!(field(r#"{"urls":["http://a/1","http://a/2","http://a/3","http://a/4"]}"#).as_deref(), Some("urls"));
        assert_eq!(field(r#"{"urls":["http://a/"],"concurrency":0}"#).as_deref(), Some("concurrency"));
        assert_eq!(field(r#"{"urls":["http://a/"],"concurrency":9}"#).as_deref(), Some("concurrency"));
        assert_eq!(field(r#"{"access_log":"x","base":"a"}"#).as_deref(), Some("base"));
        assert_eq!(field(r#"{"access_log":"x"}"#).as_deref(), Some("access_log"));
        assert_eq!(field(r#"{"url":["http://a/"]}"#).as_deref(), Some("url"));
    }
}
