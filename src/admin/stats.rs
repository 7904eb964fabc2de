//! `/stats`: the cache in figures, as JSON.

use std::sync::Arc;

use axum::{Json, extract::State};

use super::Shared;
use crate::proxy::stats::Stats;

/// The gateway in figures.
#[utoipa::path(get, path = "/stats", tag = "look", security(("token" = [])), responses((status = 200, body = Stats)))]
pub(super) async fn stats(State(shared): State<Arc<Shared>>) -> Json<Stats> {
    Json(shared.proxy.now().stats())
}
