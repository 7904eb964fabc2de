//! What the proxy asks of the cache, and what it gets.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, uri::PathAndQuery};

use super::{body::Body, outcome::Outcome, route::Route, target::Target};
use crate::{
    limit::Refused,
    origin::{self, RequestBody, Upstream},
    telemetry::trace::Span,
};

/// A request, as far as the cache needs it.
pub struct Call<O> {
    /// The route it falls on.
    pub route: Arc<Route>,
    /// What it asks for.
    pub target: Target,
    /// Its method.
    pub method: Method,
    /// Its fields, as the client sent them.
    pub headers: HeaderMap,
    /// Its content.
    pub body: RequestBody,
    /// How it leaves, if it does.
    pub outgoing: O,
}

/// How a request leaves for its origin. Asked only when it does: a hit never pays for it.
pub trait Outgoing: Send + Sync + 'static {
    /// The request as the origin gets it: end-to-end fields of the client, and what a proxy adds.
    ///
    /// # Errors
    /// Where there is no origin to send it to (too many hosts under way, a target that may not be reached).
    fn departure(&self, client: &HeaderMap) -> Result<Departure, origin::Error>;

    /// Passes an interim response on to the client that waits.
    fn interim(&self, status: StatusCode, fields: &HeaderMap);

    /// Whether its client may have the origin asked: called once, when it is to be and nothing else can answer.
    fn admitted(&self) -> impl Future<Output = Result<(), Refused>> + Send {
        std::future::ready(Ok(()))
    }

    /// What is to be told how many tokens a model has taken, where that is counted.
    fn charge(&self) -> Option<Charge> {
        None
    }
}

/// Is told what a call to a model has cost, in tokens, once that is known.
pub type Charge = Arc<dyn Fn(u64) + Send + Sync>;

impl<O: Outgoing> Outgoing for Arc<O> {
    fn departure(&self, client: &HeaderMap) -> Result<Departure, origin::Error> {
        (**self).departure(client)
    }

    fn interim(&self, status: StatusCode, fields: &HeaderMap) {
        (**self).interim(status, fields);
    }

    fn admitted(&self) -> impl Future<Output = Result<(), Refused>> + Send {
        (**self).admitted()
    }

    fn charge(&self) -> Option<Charge> {
        (**self).charge()
    }
}

/// A request on its way to the origin.
pub struct Departure {
    /// Where to.
    pub upstream: Upstream,
    /// What for, as the origin names it.
    pub path_and_query: PathAndQuery,
    /// `Host`, where it is not the upstream's own.
    pub host: Option<HeaderValue>,
    /// End-to-end fields.
    pub headers: HeaderMap,
    /// The exchange as a span, where it is traced.
    pub span: Option<Span>,
}

/// An answer, and how it came about.
pub struct Answer {
    /// The response, `Cache-Status` included.
    pub response: Response<Body>,
    /// The decision.
    pub outcome: Outcome,
}
