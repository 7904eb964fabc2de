//! `/healthz` and `/readyz`: what probes ask. No token, no detail.

use std::sync::Arc;

use axum::{extract::State, response::IntoResponse};
use http::{HeaderValue, StatusCode, header};

use super::Shared;

const PLAIN: [(header::HeaderName, HeaderValue); 2] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "It does", body = String)))]
pub(super) async fn healthz() -> impl IntoResponse {
    (PLAIN, "ok\n")
}

/// Whether requests should be sent here.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "They should", body = String),
    (status = 503, description = "They should not: the gateway is draining", body = String),
))]
pub(super) async fn readyz(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    if shared.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, PLAIN, "draining\n")
    } else {
        (StatusCode::OK, PLAIN, "ready\n")
    }
}
