//! A response to POST that says it is what GET would get: `Content-Location` naming the target itself, and explicit
//! freshness (RFC 9110 section 9.3.3). It is stored for GET while it goes to the client.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, header};

use super::{
    Cache,
    asked::Asked,
    body::Body,
    call::{Answer, Outgoing},
    exchange::{Exchange, Start},
    failure::Failure,
    fetch::Fetch,
    fill::{Fill, Settled},
    hit,
    invalidations::Watch,
    outcome::{Forward, Outcome},
    route::{Class, Route},
    target::Target,
};
use crate::{
    object::{scope::Position, time::Timestamp},
    origin::OriginResponse,
    store::l2::Begun,
    telemetry::trace,
};

/// The POST that was answered.
pub(super) struct Posted<O> {
    pub(super) route: Arc<Route>,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) outgoing: O,
    /// Position of the purge log before it left.
    pub(super) stamp: Position,
    /// When, and where the fleet's log was then.
    pub(super) begun: Begun,
    pub(super) requested: Timestamp,
    /// Its URL before it left; what it invalidated itself does not count.
    pub(super) watch: Watch,
}

/// Whether the response to a POST stands for what GET of the same URL would get.
pub(super) fn stands_for_get(route: &Route, target: &Target, method: &Method, response: &OriginResponse) -> bool {
    let location = response.headers.get(header::CONTENT_LOCATION).and_then(|value| value.to_str().ok());
    let same = |other: &Target| other.path == target.path && other.query == target.query;
    *method == Method::POST
        && response.status == StatusCode::OK
        && route.class(&Method::GET) == Class::Get
        && location.and_then(|location| target.relative(location, |_| false)).is_some_and(|other| same(&other))
}

impl Cache {
    /// Answers the POST, and stores its response for GET where it may be stored.
    pub(super) async fn adopt<O: Outgoing>(
        &self,
        posted: Posted<O>,
        response: OriginResponse,
    ) -> Result<Answer, Arc<Failure>> {
        let Posted { route, target, headers, outgoing, stamp, begun, requested, watch } = posted;
        let key = target.key(&route, self.secret(), &headers, Class::Get, None);
        let asked = Asked::of(&headers);
        let exchange = Arc::new(Exchange {
            cache: self.clone(),
            directives: self.directives(&route, &&headers, asked),
            route,
            target,
            method: Method::GET,
            headers,
            asked,
            key,
            body: None,
            outgoing,
            model: None,
        });
        let scopes = exchange.target.scopes(&exchange.route, &key);
        let fill = Fill::new((stamp, begun), scopes, watch, self.new_growing());
        let reader = fill.reader().ok_or(Failure::GivenUp)?;
        let start = Start { key, candidate: None, completing: None, part: false, conditions: false };
        let fetch = Fetch { exchange, start, fill: Arc::clone(&fill), permit: None, ticket: None, matching: None };
        tokio::spawn(trace::within(trace::current(), fetch.adopt(response, requested)));
        let outcome = Outcome::forwarded(Forward::Method);
        match fill.head(|_| ()).await {
            Settled::Shared(shared) => {
                let outcome = Outcome { stored: true, ..outcome };
                let mut fields = shared.fields.clone();
                fields.append(super::CACHE_STATUS, outcome.cache_status(self.name()));
                let response = hit::respond(shared.status, fields, Body::Growing(reader));
                Ok(Answer { response, outcome })
            }
            _ => match fill.take_direct() {
                Some(response) => Ok(self.direct(response, outcome)),
                None => Err(Arc::new(Failure::GivenUp)),
            },
        }
    }
}
