//! `/requests`: the last requests, and those that end from now on.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::{
    Shared,
    auth::{Auth, Caller},
    config::Scope,
    problem::{Problem, nearest},
};
use crate::{
    cache::Outcome,
    telemetry::recent::{Filter, Following},
};

const LIMIT: usize = 50;
const LIMIT_MAX: usize = 1000;

/// How often a stream without requests says that it is still there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// How often it is seen whether who reads a stream still may.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// Which requests are wanted: those that fit all of it.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestsQuery {
    /// How many, for `/requests`: 1 to 1000, 50 where absent.
    limit: Option<usize>,
    /// What the cache did, in its word: `hit`, `miss`, ...
    outcome: Option<String>,
    /// Name of a route.
    route: Option<String>,
    /// Name of a tenant.
    tenant: Option<String>,
    /// A status, or a class such as `5xx`.
    status: Option<String>,
    /// A path without its query; with `*` at its end, whatever begins so.
    path: Option<String>,
}

impl RequestsQuery {
    fn filter(self) -> Result<Filter, Problem> {
        let Self { outcome, route, tenant, status, path, .. } = self;
        if let Some(outcome) = outcome.as_deref().filter(|outcome| !Outcome::NAMES.contains(outcome)) {
            let near = nearest(outcome, Outcome::NAMES).map(|near| format!(": did you mean `{near}`?"));
            let detail = format!("`outcome`: {outcome:?} is none{}", near.unwrap_or_default());
            let known = Outcome::NAMES.map(str::to_owned).to_vec();
            return Err(Problem::bad_request(detail).with_field("outcome").with_known(known));
        }
        let status = status
            .map(|status| status.parse())
            .transpose()
            .map_err(|expected| Problem::bad_request(format!("`status`: write {expected}")).with_field("status"))?;
        Ok(Filter { outcome, route, tenant, status, path })
    }
}

/// The last requests.
#[derive(ToSchema)]
#[expect(dead_code, reason = "written from lines that are JSON already; this says what they are")]
pub(super) struct Requests {
    /// The newest first, each as the access log has it in JSON.
    requests: Vec<serde_json::Value>,
}

/// The last requests, the newest first.
///
/// Plain hits are among them while somebody looks: from the first call on, until a minute after the last one.
#[utoipa::path(get, path = "/requests", tag = "look", security(("token" = [])), params(RequestsQuery), responses(
    (status = 200, body = Requests),
    (status = 400, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn requests(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<RequestsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let last = shared.proxy.now().recent().last(&query.filter()?, limit);
    let lines: Vec<&str> = last.iter().map(|noted| &*noted.line).collect();
    let body = format!("{{\"requests\":[{}]}}", lines.join(","));
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response())
}

/// Requests as they end, as server-sent events.
///
/// Each event has one request in its data, as `/requests` shows it, and its number as its id. Who reads too slowly
/// misses some, and is told how many by an event `dropped`. The stream ends with an event `end` when the gateway stops,
/// and with an event `refused` when its token has expired, or is no longer one.
#[utoipa::path(get, path = "/requests/stream", tag = "look", security(("token" = [])), params(RequestsQuery), responses(
    (status = 200, body = String, content_type = "text/event-stream"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "As many as may follow already", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn stream(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<RequestsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let filter = query.filter()?;
    let following = shared.proxy.now().recent().follow(filter).ok_or_else(|| {
        let detail = "as many follow requests as may (log.streams_max), or none are kept (log.recent_max)";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
    })?;
    let (auth, draining) = (shared.auth.clone(), shared.draining.clone());
    let look = Instant::now() + LOOKED_AT_EVERY;
    let events = Events { following, draining, auth, caller, look, begun: false, ended: false };
    let stream = futures_util::stream::unfold(events, |mut events| async {
        let event = events.next().await?;
        Some((Ok::<_, Infallible>(event), events))
    });
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((fields, Body::from_stream(stream)).into_response())
}

/// A stream under way.
struct Events {
    following: Following,
    draining: CancellationToken,
    auth: Auth,
    caller: Caller,
    /// When its token is looked at next.
    look: Instant,
    begun: bool,
    ended: bool,
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !std::mem::replace(&mut self.begun, true) {
            return Some(Bytes::from_static(b": requests from now on\n\n"));
        }
        let sign_of_life = Instant::now() + SIGN_OF_LIFE;
        loop {
            if Instant::now() >= self.look {
                if !self.auth.still_admits(&self.caller, Scope::Read).await {
                    self.ended = true;
                    return Some(Bytes::from_static(b"event: refused\ndata: {}\n\n"));
                }
                self.look = Instant::now() + LOOKED_AT_EVERY;
            }
            let dropped = self.following.dropped();
            if dropped > 0 {
                return Some(format!("event: dropped\ndata: {{\"dropped\":{dropped}}}\n\n").into());
            }
            tokio::select! {
                biased;
                noted = self.following.next() => {
                    let noted = noted?;
                    return Some(format!("id: {}\ndata: {}\n\n", noted.number, noted.line).into());
                }
                () = self.draining.cancelled() => {
                    self.ended = true;
                    return Some(Bytes::from_static(b"event: end\ndata: {}\n\n"));
                }
                () = sleep_until(self.look) => {}
                () = sleep_until(sign_of_life) => return Some(Bytes::from_static(b":\n\n")),
            }
        }
    }
}
