//! Purges as other caches take them, so that what calls those can call this.
//!
//! `PURGE` with a URL or with tags in header fields (Varnish, Squid, Fastly), Fastly's API and Cloudflare's. Each is
//! turned into a [`PurgeRequest`]; what it guarantees is what `POST /purge` guarantees.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension, Json as Answer,
    extract::{Path, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, request::Parts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Shared,
    audit::Call,
    auth::{Caller, Identified},
    config::Scope,
    json,
    problem::Problem,
};
use crate::proxy::{
    purge::{PurgeRequest, Receipt},
    purge_method::{add_header_fields, is_soft, request_of},
};

// === PURGE ===

/// Middleware: answers `PURGE`, whatever its target, and passes everything else on.
pub(super) async fn purge_method(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if request.method().as_str() != "PURGE" {
        return next.run(request).await;
    }
    let (head, _) = request.into_parts();
    match shared.auth.admit(&head, Scope::Purge).await {
        Ok(caller) => purged(&shared, &head, &caller).await.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl Shared {
    /// Answers a `PURGE` of the data listener, and tells of it.
    pub(super) async fn purge_of_client(&self, head: &Parts) -> Response {
        let address = head.extensions.get::<IpAddr>().copied();
        if let Some(Err(limited)) = address.map(|address| self.limits.may_try(address)) {
            return limited.into_response();
        }
        let who = self.auth.identify(&head.headers).await;
        let call = Call::of_client(&who, head);
        let tried = address.map_or(Ok(()), |address| self.limits.tried(address, &head.headers, &who));
        let response = match tried {
            Ok(()) => self.answer_client(head, who).await,
            Err(limited) => limited.into_response(),
        };
        call.ended(self, response.status().as_u16());
        response
    }

    /// There, unlike here, a token is needed always: anybody may reach it.
    pub(super) async fn answer_client(&self, head: &Parts, who: Identified) -> Response {
        if who.was_not_asked() {
            let detail = "PURGE needs a token, and none is configured: set `admin.token`, or purge on the admin plane";
            return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
        }
        match self.auth.admit_as(who, head, Scope::Purge) {
            Ok(caller) => purged(self, head, &caller).await.into_response(),
            Err(refusal) => refusal.into_response(),
        }
    }
}

async fn purged(shared: &Shared, head: &Parts, caller: &Caller) -> Result<Answer<FastlyAnswer>, Problem> {
    let receipt = shared.purge(&request_of(head)?, &caller.name).await?;
    Ok(Answer(FastlyAnswer::of(receipt)))
}

// === Fastly ===

/// A receipt with the word Fastly's clients look for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FastlyAnswer {
    /// `ok`.
    status: &'static str,
    #[serde(flatten)]
    receipt: Receipt,
}

impl FastlyAnswer {
    fn of(receipt: Receipt) -> Self {
        Self { status: "ok", receipt }
    }
}

/// Tags, as Fastly's batch purge has them in its content.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FastlyKeys {
    surrogate_keys: Vec<String>,
}

/// Purge one tag, as Fastly's API does.
#[utoipa::path(post, path = "/service/{service}/purge/{key}", tag = "purge (compatible)", security(("token" = [])),
    params(("service" = String, Path, description = "Any"), ("key" = String, Path, description = "The tag")),
    responses((status = 200, body = FastlyAnswer)))]
pub(super) async fn fastly_key(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((_, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer<FastlyAnswer>, Problem> {
    let request = PurgeRequest { tags: vec![key], soft: is_soft(&headers), ..PurgeRequest::default() };
    shared.purge(&request, &caller.name).await.map(FastlyAnswer::of).map(Answer)
}

/// Purge several tags, as Fastly's API does: in `Surrogate-Key` or as content.
#[utoipa::path(post, path = "/service/{service}/purge", tag = "purge (compatible)", security(("token" = [])),
    params(("service" = String, Path, description = "Any")), request_body = Option<FastlyKeys>,
    responses((status = 200, description = "The id of the purge, by tag", body = Value)))]
pub(super) async fn fastly_keys(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Answer<Value>, Problem> {
    let mut wanted = PurgeRequest::default();
    add_header_fields(request.headers(), &mut wanted)?;
    let body = json::read(request, &()).await?;
    if !body.is_empty() {
        wanted.tags.extend(json::parse::<FastlyKeys>(&body)?.surrogate_keys);
    }
    let receipt = shared.purge(&wanted, &caller.name).await?;
    let ids = wanted.tags.into_iter().map(|tag| (tag, Value::from(receipt.id.clone())));
    Ok(Answer(Value::Object(ids.collect())))
}

/// Purge everything, as Fastly's API does.
#[utoipa::path(post, path = "/service/{service}/purge_all", tag = "purge (compatible)", security(("token" = [])),
    params(("service" = String, Path, description = "Any")), responses((status = 200, body = FastlyAnswer)))]
pub(super) async fn fastly_all(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Answer<FastlyAnswer>, Problem> {
    let request = PurgeRequest { all: true, soft: is_soft(&headers), ..PurgeRequest::default() };
    shared.purge(&request, &caller.name).await.map(FastlyAnswer::of).map(Answer)
}

// === Cloudflare ===

/// What Cloudflare's `purge_cache` takes.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CloudflarePurge {
    files: Vec<CloudflareFile>,
    tags: Vec<String>,
    prefixes: Vec<String>,
    hosts: Vec<String>,
    purge_everything: bool,
}

/// A URL; the header fields some clients add make no difference, as all variants go.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
enum CloudflareFile {
    Url(String),
    WithHeaders { url: String },
}

impl From<CloudflarePurge> for PurgeRequest {
    fn from(purge: CloudflarePurge) -> Self {
        let url = |file| match file {
            CloudflareFile::Url(url) | CloudflareFile::WithHeaders { url } => url,
        };
        Self {
            urls: purge.files.into_iter().map(url).collect(),
            tags: purge.tags,
            prefixes: purge.prefixes,
            hosts: purge.hosts,
            all: purge.purge_everything,
            ..Self::default()
        }
    }
}

/// Purge as Cloudflare's API does.
#[utoipa::path(post, path = "/client/v4/zones/{zone}/purge_cache", tag = "purge (compatible)", security(("token" = [])),
    params(("zone" = String, Path, description = "Any")), request_body = CloudflarePurge,
    responses((status = 200, description = "Cloudflare's envelope", body = Value)))]
pub(super) async fn cloudflare(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(zone): Path<String>,
    request: Request,
) -> Response {
    match cloudflare_purge(&shared, &caller, request).await {
        Ok(receipt) => Answer(json!({
            "success": true, "errors": [], "messages": [], "result": {"id": zone, "receipt": receipt},
        }))
        .into_response(),
        Err(problem) => {
            let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
            let error = json!({"code": problem.status, "message": problem.detail});
            let envelope = json!({"success": false, "errors": [error], "messages": [], "result": null});
            (status, Answer(envelope)).into_response()
        }
    }
}

async fn cloudflare_purge(shared: &Shared, caller: &Caller, request: Request) -> Result<Receipt, Problem> {
    let body = json::read(request, &()).await?;
    let purge: CloudflarePurge = json::parse(&body)?;
    shared.purge(&purge.into(), &caller.name).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloudflare_names_the_same_things() {
        let json = br#"{"files":["http://a/1",{"url":"http://a/2","headers":{"accept":"x"}}],"tags":["t"],
            "prefixes":["a.example/p"],"hosts":["b.example"]}"#;
        let request: PurgeRequest = json::parse::<CloudflarePurge>(json).expect("a purge").into();
        let expected = PurgeRequest {
            tags: vec!["t".to_owned()],
            prefixes: vec!["a.example/p".to_owned()],
            hosts: vec!["b.example".to_owned()],
            urls: vec!["http://a/1".to_owned(), "http://a/2".to_owned()],
            ..PurgeRequest::default()
        };
        assert_eq!(request, expected);
        let all: PurgeRequest = json::parse::<CloudflarePurge>(br#"{"purge_everything":true}"#).expect("all").into();
        assert_eq!(all, PurgeRequest { all: true, ..PurgeRequest::default() });
        let unknown = json::parse::<CloudflarePurge>(br#"{"tag":["a"]}"#).expect_err("unknown");
        assert_eq!(unknown.field.as_deref(), Some("tag"));
    }
}
