//! The one place that turns what went wrong into a response: problem+json (RFC 9457) and `Proxy-Status` (RFC 9209).

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::client::ClientFault;
use crate::{
    cache::{Body, Failure},
    limit::Refused,
    tenants::Denied,
};

/// The type of problem that a limit is which is used up (draft-ietf-httpapi-ratelimit-headers section 6).
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// What a request is refused for, beside failures of the cache and the origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// No route, and not a forward-proxy request.
    #[error("no route matches http://{0}: add a [[route]], start with --upstream URL, or use the gateway as a proxy")]
    NoRoute(String),
    /// The target cannot be made out.
    #[error("the request target is not valid: {0}")]
    BadTarget(&'static str),
    /// In a tunnel to one host, a request for another.
    #[error("the tunnel this request came in is one to {0}, and it asks for something else")]
    Misdirected(std::sync::Arc<str>),
    /// `CDN-Loop` names this gateway already (RFC 8586).
    #[error(
        "the request has passed a gateway of this name before (CDN-Loop): the upstream leads back here, or to another \
         gateway that needs a headers.pseudonym of its own"
    )]
    Loop,
    /// The forward proxy is switched off.
    #[error("the forward proxy is switched off (forward.enabled)")]
    ForwardOff,
    /// The forward proxy is not for this client.
    #[error("this client may not use the forward proxy (forward.clients)")]
    ForwardClient,
    /// CONNECT to a port that is not listed.
    #[error("CONNECT to port {0} is not allowed (forward.connect_ports)")]
    ConnectPort(u16),
    /// Too many tunnels.
    #[error("too many tunnels are open (forward.tunnels_max)")]
    Tunnels,
    /// It is of nobody who is let in.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The same, of the forward proxy.
    #[error("{}", of_the_proxy(.0))]
    ForwardDenied(Denied),
    /// The content of the request.
    #[error(transparent)]
    Content(#[from] ClientFault),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute(_) => StatusCode::NOT_FOUND,
            Self::BadTarget(_) => StatusCode::BAD_REQUEST,
            Self::Misdirected(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::ForwardOff | Self::ForwardClient | Self::ConnectPort(_) => StatusCode::FORBIDDEN,
            Self::ForwardDenied(Denied::Route(_)) | Self::Denied(Denied::Route(_)) => StatusCode::FORBIDDEN,
            Self::ForwardDenied(Denied::Unavailable(_)) | Self::Denied(Denied::Unavailable(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::ForwardDenied(_) => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::Denied(_) => StatusCode::UNAUTHORIZED,
            Self::Tunnels => StatusCode::SERVICE_UNAVAILABLE,
            Self::Content(ClientFault::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Content(ClientFault::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Self::Content(ClientFault::Broken) => StatusCode::BAD_REQUEST,
        }
    }

    fn proxy_status(&self) -> &'static str {
        match self {
            Self::NoRoute(_) => "destination_not_found",
            Self::Loop => "proxy_loop_detected",
            Self::Tunnels => "connection_limit_reached",
            Self::BadTarget(_) | Self::Misdirected(_) | Self::Content(_) => "http_request_error",
            Self::ForwardOff | Self::ForwardClient | Self::ConnectPort(_) => "http_request_denied",
            Self::Denied(_) | Self::ForwardDenied(_) => "http_request_denied",
        }
    }

    /// What a client has to show (RFC 6750 section 3).
    fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Denied(Denied::Missing) => Some("Bearer realm=\"larder\""),
            Self::Denied(Denied::Unknown | Denied::Token(_) | Denied::Issuer | Denied::Name) => {
                Some("Bearer realm=\"larder\", error=\"invalid_token\"")
            }
            _ => None,
        }
    }
}

/// Why the forward proxy does not let a client in; without a key, where it shows one.
fn of_the_proxy(denied: &Denied) -> String {
    match denied {
        Denied::Missing => {
            "the forward proxy needs a key: as the password in its URL, http://name:KEY@proxy".to_owned()
        }
        denied => denied.to_string(),
    }
}

/// A refusal as the client sees it.
pub(super) fn refusal(refusal: &Refusal, name: &str) -> Response<Body> {
    let mut response = problem(refusal.status(), &refusal.to_string(), Some(refusal.proxy_status()), name);
    if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        response.headers_mut().insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"larder\""));
    }
    if let Some(challenge) = refusal.challenge() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

/// A failure of the cache or the origin as the client sees it.
pub(super) fn failure(failure: &Failure, name: &str) -> Response<Body> {
    let mut response = problem(failure.status(), &chain(failure), failure.proxy_status(), name);
    if matches!(failure, Failure::NotRecorded(_)) {
        // SDKs of providers ask again after a 504, unless they are told that it is of no use.
        response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
    }
    response
}

/// A limit that is used up as the client sees it: with the words that SDKs of model providers wait by.
pub(super) fn limited(refused: &Refused, name: &str) -> Response<Body> {
    let (status, detail) = (StatusCode::TOO_MANY_REQUESTS, refused.to_string());
    let error = json!({ "message": detail, "type": "rate_limit_error", "code": "rate_limit_exceeded" });
    let body = json!({
        "type": QUOTA_EXCEEDED,
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
        "violated-policies": [&*refused.limit],
        "error": error,
    });
    let mut response = respond(status, &body, Some("http_request_denied"), name);
    refused.tell(response.headers_mut());
    response
}

/// The error and what caused it, in one line.
fn chain(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut source = std::error::Error::source(failure);
    while let Some(error) = source {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

fn problem(status: StatusCode, detail: &str, proxy_status: Option<&str>, name: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("error");
    // `error` is where clients of model providers look for what went wrong.
    let error = json!({ "message": detail, "type": "gateway_error", "code": proxy_status });
    let body = json!({ "title": title, "status": status.as_u16(), "detail": detail, "error": error });
    respond(status, &body, proxy_status, name)
}

fn respond(status: StatusCode, body: &Value, proxy_status: Option<&str>, name: &str) -> Response<Body> {
    let mut body = body.to_string();
    body.push('\n');
    let mut response = Response::new(Body::Full(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(value) = proxy_status.and_then(|error| HeaderValue::from_str(&format!("{name}; error={error}")).ok()) {
        headers.insert("proxy-status", value);
    }
    response
}
