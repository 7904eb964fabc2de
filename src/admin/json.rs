//! JSON bodies: read within a limit and a deadline, and refused with a word on what was probably meant.
//!
//! The content type is not looked at: `curl -d` says it is a form, and other sites' forms are refused by
//! [`auth`](super::auth).

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
};
use http::StatusCode;
use serde::de::DeserializeOwned;

use super::problem::{Problem, nearest};

/// How long a body may take to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A body that is JSON and nothing but the fields of `T`.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = read(request, state).await?;
        if body.is_empty() {
            return Err(Problem::bad_request("the request has no content: send a JSON object"));
        }
        parse(&body).map(Self)
    }
}

/// The whole body.
pub(super) async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    match tokio::time::timeout(READ_TIMEOUT, Bytes::from_request(request, state)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) => Err(refused(&rejection)),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the request content came too slowly")),
    }
}

fn refused(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request content is larger than `admin.body_bytes_max`: raise it, or send the rest in another request",
        ),
        status => Problem::new(status, "the request content could not be read"),
    }
}

/// Parses JSON; errors name the field, and the known one nearest to an unknown one.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| explained(&error))?;
    deserializer.end().map_err(|error| Problem::bad_request(format!("the request content is not JSON: {error}")))?;
    Ok(parsed)
}

fn explained(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    use serde_json::error::Category;
    let (path, inner) = (error.path().to_string(), error.inner());
    match (inner.classify(), UnknownField::of(&inner.to_string())) {
        (Category::Data, Some(unknown)) => unknown.problem(),
        (Category::Data, None) if path != "." => Problem::bad_request(format!("`{path}`: {inner}")).with_field(path),
        (Category::Data, None) => Problem::bad_request(inner.to_string()),
        _ => Problem::bad_request(format!("the request content is not JSON: {inner}")),
    }
}

/// What serde says of a field it does not know.
struct UnknownField {
    name: String,
    known: Vec<String>,
}

impl UnknownField {
    /// From serde's message, the only place where it names the known fields:
    ///
    /// ```text
    /// unknown field `a`, expected one of `b`, `c`
    /// ```
    fn of(message: &str) -> Option<Self> {
        let rest = message.strip_prefix("unknown field `")?;
        let (name, rest) = rest.split_once("`, ").unwrap_or((rest.trim_end_matches('`'), ""));
        let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some(Self { name: name.to_owned(), known })
    }

    fn problem(self) -> Problem {
        let Self { name, known } = self;
        let meant = match nearest(&name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", listed(&known)),
        };
        Problem::bad_request(format!("unknown field `{name}`: {meant}")).with_field(name).with_known(known)
    }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::proxy::purge::PurgeRequest;

    fn refusal(body: &str) -> Problem {
        parse::<PurgeRequest>(body.as_bytes()).expect_err("a refusal")
    }

    #[test]
    fn an_unknown_field_names_the_nearest() {
        let problem = refusal(r#"{"tag":["a"]}"#);
        assert_eq!(problem.detail, "unknown field `tag`: did you mean `tags`?");
        assert_eq!(problem.field.as_deref(), Some("tag"));
        assert!(problem.known.contains(&"urls".to_owned()));
        assert!(refusal(r#"{"xyzzy":1}"#).detail.contains("known are `urls`"));
    }

    #[test]
    fn a_wrong_value_names_its_field() {
        let problem = refusal(r#"{"tags":["a",7]}"#);
        assert_eq!(problem.field.as_deref(), Some("tags[1]"));
        assert!(refusal(r#"{"ack":"all"}"#).detail.contains("`local`"));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for body in ["{", "tags=a", r#"{"tags":["a"]} x"#] {
            assert!(refusal(body).detail.contains("not JSON"), "{body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::new(Body::from_stream(never));
        let problem = read(request, &()).await.expect_err("a refusal");
        assert_eq!(problem.status, 408);
    }
}
