//! `/metrics`: every metric family, as OpenMetrics text.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use prometheus_client::encoding::text;

use super::{Shared, problem::Problem};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric, for Prometheus and others that read OpenMetrics.
#[utoipa::path(get, path = "/metrics", tag = "look", security(("token" = [])), responses(
    (status = 200, description = "OpenMetrics text", content_type = "application/openmetrics-text", body = String),
))]
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut page = String::new();
    let written = text::encode_registry(&mut page, &shared.process);
    // The second one writes the line that ends it all.
    match written.and_then(|()| text::encode(&mut page, &shared.registry.lock())) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], page).into_response(),
        Err(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a metric could not be written").into_response(),
    }
}
