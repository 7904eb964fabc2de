//! `/entries`: what is stored, the most used or the largest first.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{Shared, problem::Problem};
use crate::{cache::survey::Ranking, store::l3::Rank};

const LIMIT: usize = 20;
/// Each entry of the disk is a read of it.
const LIMIT_MAX: usize = 100;

/// What entries are put in order by.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum By {
    /// Times they were served.
    #[default]
    Hits,
    /// Bytes of their content.
    Size,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EntriesQuery {
    /// `hits` (the default) or `size`.
    #[serde(default)]
    by: By,
    /// How many: 1 to 100, 20 where absent.
    limit: Option<usize>,
}

/// The entries of memory and disk that are used most, or the largest.
///
/// Of very many only some are looked at; `complete` says so.
#[utoipa::path(get, path = "/entries", tag = "look", security(("token" = [])), params(EntriesQuery), responses(
    (status = 200, body = Ranking),
    (status = 400, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn entries(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<EntriesQuery>, QueryRejection>,
) -> Result<Json<Ranking>, Problem> {
    let Query(EntriesQuery { by, limit }) =
        query.map_err(|rejection| Problem::bad_request(format!("{}: call /entries?by=hits", rejection.body_text())))?;
    let limit = limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let rank = match by {
        By::Hits => Rank::Hits,
        By::Size => Rank::Size,
    };
    let _one = shared.surveys.lock().await;
    Ok(Json(shared.proxy.current().cache().ranking(rank, limit).await))
}
