//! `/explain`: what the cache would do with a request, and why. Nothing is fetched, nothing is changed.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json as Answer,
    extract::{Query, State, rejection::QueryRejection},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Shared, json::Json, problem::Problem};
use crate::{cache::explain::Explanation, proxy::Explained};

/// A request to explain.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Absolute URL, as a client of the gateway names it.
    #[schema(example = "http://shop.example/products/7")]
    pub url: String,
    /// Method; GET where absent, POST where there is content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Request header fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Name of the tenant it is of, where its route asks for one. It goes before a key in `headers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Content of a call to a model: as JSON, or as a text that is taken as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    /// Absolute URL, as a client of the gateway names it.
    url: String,
    /// Method; GET where absent.
    method: Option<String>,
    /// Name of the tenant it is of, where its route asks for one.
    tenant: Option<String>,
}

/// Explain a request that has no header fields of interest.
#[utoipa::path(get, path = "/explain", tag = "look", security(("token" = [])), params(ExplainQuery), responses(
    (status = 200, body = Explanation),
    (status = 400, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn by_query(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Answer<Explanation>, Problem> {
    let Query(ExplainQuery { url, method, tenant }) = query.map_err(|rejection| {
        Problem::bad_request(format!("{}: call /explain?url=http://shop.example/a", rejection.body_text()))
    })?;
    explained(&shared, &ExplainRequest { url, method, tenant, ..ExplainRequest::default() }).await
}

/// Explain a request with its header fields.
#[utoipa::path(post, path = "/explain", tag = "look", security(("token" = [])), request_body = ExplainRequest, responses(
    (status = 200, body = Explanation),
    (status = 400, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn by_body(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<ExplainRequest>,
) -> Result<Answer<Explanation>, Problem> {
    explained(&shared, &request).await
}

async fn explained(shared: &Shared, request: &ExplainRequest) -> Result<Answer<Explanation>, Problem> {
    let usual = if request.body.is_some() { "POST" } else { "GET" };
    let method = request.method.as_deref().unwrap_or(usual);
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| Problem::bad_request(format!("`method`: {method:?} is not a method")).with_field("method"))?;
    let headers = header_map(&request.headers)?;
    let body = match &request.body {
        None => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(json) => json.to_string(),
    };
    let asked = Explained {
        url: &request.url,
        method: &method,
        headers,
        body: body.as_bytes(),
        tenant: request.tenant.as_deref(),
    };
    let explained = shared.proxy.current().explain(asked).await;
    explained.map(Answer).map_err(|error| Problem::bad_request(format!("`url`: {error}")).with_field("url"))
}

/// Header fields written as a JSON object.
pub(super) fn header_map(fields: &BTreeMap<String, String>) -> Result<HeaderMap, Problem> {
    let field = |(name, value): (&String, &String)| {
        let refused = |what: &str| {
            Problem::bad_request(format!("`headers`: {name:?} {what}")).with_field(format!("headers.{name}"))
        };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused("is not a field name"))?;
        let value = HeaderValue::from_str(value).map_err(|_| refused("has a value no field can have"))?;
        Ok((name, value))
    };
    fields.iter().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_none_are_named() {
        let fields = |name: &str, value: &str| header_map(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert_eq!(fields("Accept", "a/b").expect("a field")["accept"], "a/b");
        assert_eq!(fields("a b", "c").expect_err("no name").field.as_deref(), Some("headers.a b"));
        assert_eq!(fields("a", "b\nc").expect_err("no value").field.as_deref(), Some("headers.a"));
    }
}
