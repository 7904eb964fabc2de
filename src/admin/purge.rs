//! `POST /purge`: our own form of a purge.

use std::sync::Arc;

use axum::{
    Extension, Json as Answer,
    extract::{Request, State},
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Shared, auth::Caller, json, problem::Problem};
use crate::proxy::{
    purge::{self, Counted, PurgeError, PurgeRequest, Receipt, Refresh},
    purge_method,
};
use crate::purge::PurgeError as Log;

/// What is answered to a purge.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Answered {
    /// It was done.
    Done(Receipt),
    /// It was asked for a count alone.
    Counted(Counted),
}

/// Purge by URL, key, tag, path prefix or host, or everything.
///
/// From the reply on, this node serves nothing of what was named, and no fetch that began before stores it again. With
/// several nodes over one Redis, `ack` says for how many of them the reply waits.
/// Without content, the header fields `Surrogate-Key`, `xkey` or `Cache-Tag` name tags.
#[utoipa::path(post, path = "/purge", tag = "purge", security(("token" = [])), request_body = PurgeRequest, responses(
    (status = 200, description = "Done; with `dry_run`: counted, and nothing done", body = inline(Answered)),
    (status = 202, description = "Done on this node; the others have it as soon as Redis takes it", body = Receipt),
    (status = 400, description = "Not understood; nothing was purged", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Not durable; nothing was purged", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn purge(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(StatusCode, Answer<Answered>), Problem> {
    let headers = request.headers().clone();
    let body = json::read(request, &()).await?;
    let mut wanted = if body.is_empty() { PurgeRequest::default() } else { json::parse::<PurgeRequest>(&body)? };
    purge_method::add_header_fields(&headers, &mut wanted)?;
    if wanted.dry_run {
        return Ok((StatusCode::OK, Answer(Answered::Counted(shared.count(wanted).await?))));
    }
    let receipt = shared.purge(&wanted, &caller.name).await?;
    let queued = receipt.fleet.is_some_and(|spread| spread.queued);
    Ok((if queued { StatusCode::ACCEPTED } else { StatusCode::OK }, Answer(Answered::Done(receipt))))
}

impl Shared {
    /// Counts what a purge would reach, one count at a time.
    async fn count(&self, request: PurgeRequest) -> Result<Counted, Problem> {
        let _one = self.surveys.lock().await;
        let (proxy, config) = (self.proxy.current(), self.purge_config.clone());
        let counted = tokio::task::spawn_blocking(move || purge::count(&proxy, &config, &request)).await;
        counted.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the count failed"))?.map_err(Problem::from)
    }

    /// Purges, and queues what is to be fetched again.
    pub(super) async fn purge(&self, request: &PurgeRequest, who: &str) -> Result<Receipt, Problem> {
        let purged =
            purge::purge(&self.proxy.current(), &self.purge_config, request, who).await.map_err(Problem::from)?;
        let mut receipt = purged.receipt;
        if request.refresh {
            receipt.refresh = Some(Refresh { queued: self.refresher.queue(purged.refresh) });
        }
        tracing::info!(id = %receipt.id, seq = receipt.seq, mode = ?receipt.mode, scopes = receipt.scopes, who, "purged");
        Ok(receipt)
    }
}

impl From<PurgeError> for Problem {
    fn from(error: PurgeError) -> Self {
        if !error.is_callers() {
            tracing::error!(error = chain(&error), "purge failed");
            let detail = match &error {
                PurgeError::Log(Log::Unlogged(_) | Log::Unapplied | Log::Behind { .. }) => {
                    format!("not acknowledged: {}", chain(&error))
                }
                _ => format!("nothing was purged: {}", chain(&error)),
            };
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        }
        let problem = Self::bad_request(chain(&error));
        match error.field() {
            Some(field) => problem.with_field(field),
            None => problem,
        }
    }
}

/// An error and what it comes from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
