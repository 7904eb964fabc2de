//! `/nodes`: the nodes that share this one's Redis, and how far each is with the purge log.

use std::sync::Arc;

use axum::{Json, extract::State};
use http::StatusCode;

use super::{Shared, problem::Problem};
use crate::purge::{Fleet, fleet::FleetStats};

/// The nodes over one Redis, as this one sees them.
#[utoipa::path(get, path = "/nodes", tag = "look", security(("token" = [])), responses(
    (status = 200, body = FleetStats),
    (status = 404, description = "The gateway is alone", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn nodes(State(shared): State<Arc<Shared>>) -> Result<Json<FleetStats>, Problem> {
    let stats = shared.proxy.now().cache().fleet().map(Fleet::stats);
    let alone = || Problem::new(StatusCode::NOT_FOUND, "the gateway is alone: there is no Redis (l2.url)");
    stats.map(Json).ok_or_else(alone)
}
