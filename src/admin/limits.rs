//! How often the admin plane is called: by one caller, and by who tries tokens.
//!
//! Who has failed too often is not listened to, whatever token he brings: would the right one be let in, trying would
//! go on to pay. Probes are never limited, and metrics only while their token is wrong.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};

use super::{
    Shared,
    auth::{self, Identified},
    config::Config,
    door::Remote,
    problem::Problem,
};
use crate::limit::{Callers, gcra::Rate};

/// Callers known at once, less than a megabyte of them.
const CALLERS_MAX: usize = 10_000;

/// What is counted.
const CALLS: u64 = 0;
const FAILURES: u64 = 1;
const TRIES: &str = "calls with tokens that are none";

/// Paths that ask for no token, whatever a call brings. Those of probes are not even counted.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];
const PAGES: [&str; 4] = ["/", "/console", "/docs", "/openapi.json"];
const METRICS: &str = "/metrics";

/// Counts calls.
pub(super) struct Limits {
    callers: Callers,
    rate: Rate,
    failures: Rate,
}

impl Limits {
    pub(super) fn new(config: &Config) -> Self {
        let callers = Callers::new(CALLERS_MAX);
        Self { callers, rate: config.rate.rate(0), failures: config.failures_rate.rate(0) }
    }

    /// Whether an address may try another token.
    pub(super) fn may_try(&self, address: IpAddr) -> Result<(), Limited> {
        let waits = self.callers.wait_of_address(FAILURES, address, &self.failures);
        waits.map_or(Ok(()), |wait| Err(Limited { what: TRIES, wait }))
    }

    /// Counts a call with a token that is none, wherever it goes: before anything is answered that would tell. Without
    /// a token it is no try of one.
    pub(super) fn tried(&self, address: IpAddr, headers: &HeaderMap, who: &Identified) -> Result<(), Limited> {
        if !(who.is_wrong() && auth::shows_token(headers)) {
            return Ok(());
        }
        let taken = self.callers.take_address(FAILURES, address, &self.failures);
        taken.map_err(|wait| Limited { what: TRIES, wait })
    }

    fn call(&self, who: &str, address: Option<IpAddr>) -> Result<(), Limited> {
        let taken = match address {
            Some(address) if who.is_empty() || who == "local" => self.callers.take_address(CALLS, address, &self.rate),
            _ => self.callers.take_name(CALLS, who, &self.rate),
        };
        taken.map_err(|wait| Limited { what: "calls", wait })
    }
}

/// A call too many.
#[derive(Debug)]
pub(super) struct Limited {
    what: &'static str,
    wait: Duration,
}

impl IntoResponse for Limited {
    fn into_response(self) -> Response {
        let (what, seconds) = (self.what, self.wait.as_secs());
        let detail = format!("too many {what}; call again in {seconds} s");
        let mut response = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).into_response();
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        response
    }
}

/// Middleware: answers calls that are too many.
pub(super) async fn limit(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    // PURGE is a purge on any path.
    let path = if request.method().as_str() == "PURGE" { "" } else { request.uri().path() };
    if PROBES.contains(&path) {
        return next.run(request).await;
    }
    let (asks, counts) = (!PAGES.contains(&path), path != METRICS);
    let address = request.extensions().get::<ConnectInfo<Remote>>().map(|info| info.0.address());
    let mut name = "".into();
    if asks {
        match shared.identified(address, request.headers()).await {
            Ok(who) => {
                name = who.name();
                // It is not found out twice.
                request.extensions_mut().insert(who);
            }
            Err(limited) => return limited.into_response(),
        }
    }
    if counts && let Err(limited) = shared.limits.call(&name, address) {
        return limited.into_response();
    }
    next.run(request).await
}

impl Shared {
    /// Who calls, where he has not tried too many tokens.
    async fn identified(&self, address: Option<IpAddr>, headers: &HeaderMap) -> Result<Identified, Limited> {
        if let Some(address) = address {
            self.limits.may_try(address)?;
        }
        let who = self.auth.identify(headers).await;
        if let Some(address) = address {
            self.limits.tried(address, headers, &who)?;
        }
        Ok(who)
    }
}
