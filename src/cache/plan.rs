//! How a new response is stored, decided by its head.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{
    call::Outgoing,
    fetch::Fetch,
    judge::{Judged, Judging},
    part_key,
    refused::Refused,
};
use crate::{
    llm::answer::Watcher,
    object::{
        freshness::Freshness,
        head::Head,
        key::Key,
        range::ContentRange,
        scope::Scope,
        time::Timestamp,
        validators::Validators,
        vary::{self, Vary},
    },
    origin::{OriginBody, OriginResponse},
};

/// Everything decided about a storable response when its head is here.
pub(super) struct Plan {
    pub(super) head: Head,
    pub(super) withheld: Vec<HeaderName>,
    pub(super) validators: Validators,
    pub(super) freshness: Freshness,
    pub(super) key: Key,
    pub(super) vary: Vary,
    pub(super) scopes: Arc<[Scope]>,
    pub(super) tags: Box<str>,
    pub(super) part: Option<ContentRange>,
    /// Length of the content, where the origin announced it.
    pub(super) length: Option<u64>,
    /// When the request left.
    pub(super) requested: Timestamp,
    /// Looks at an answer of a model while it comes.
    pub(super) watcher: Option<Watcher>,
}

impl Plan {
    pub(super) fn is_explicit(&self) -> bool {
        self.freshness.is_explicit()
    }
}

impl<O: Outgoing> Fetch<O> {
    /// Whether and how a response with tidied fields is stored.
    pub(super) fn plan(&self, response: &OriginResponse, requested: Timestamp) -> Result<Plan, Refused> {
        let exchange = &*self.exchange;
        let (status, headers) = (response.status, &response.headers);
        // All that an answer of a model depends on is in its key.
        let vary = if exchange.model.is_some() { Vary::None } else { exchange.route.vary(headers) };
        let judging = Judging {
            route: &exchange.route,
            client: &exchange.headers,
            facts: exchange.facts(self.start.part, requested, exchange.cache.now()),
            scopes: &self.fill.scopes,
            tags: "",
            stamp: self.fill.stamp,
            model: exchange.model.as_ref(),
        };
        let watcher = exchange.model.as_ref().map(|model| model.watch(status, headers)).transpose()?;
        let Judged { head, validators, withheld, freshness, scopes, tags } =
            exchange.cache.judge(&judging, status, headers)?;
        let comparing = exchange.cache.comparing(&exchange.route);
        let variant = match &vary {
            Vary::Any => return Err(Refused::VaryAny),
            Vary::None => exchange.key,
            Vary::Fields(names) => vary::variant_key(&exchange.key, names, &exchange.headers, comparing),
        };
        let length = exact_length(&response.body);
        let part = part_of(status, headers, length)?;
        let key = if part.is_some() { part_key(&variant) } else { variant };
        self.fits(length, &key)?;
        Ok(Plan { head, validators, withheld, freshness, key, vary, scopes, tags, part, length, requested, watcher })
    }
}

impl<O: Outgoing> Fetch<O> {
    /// Whether a tier takes a body of that length, where it is known.
    fn fits(&self, length: Option<u64>, key: &Key) -> Result<(), Refused> {
        let (cache, route) = (&self.exchange.cache, &self.exchange.route);
        match length {
            Some(length) if length > cache.object_bytes_max(route) => Err(Refused::TooLarge),
            Some(length) if length > cache.memory_object_bytes_max(route) && !self.is_worth_pouring(key) => {
                Err(Refused::NotAdmitted)
            }
            _ => Ok(()),
        }
    }
}

fn exact_length(body: &OriginBody) -> Option<u64> {
    http_body::Body::size_hint(body).exact()
}

/// Which part a 206 is; an error for one that cannot be stored.
fn part_of(status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> Result<Option<ContentRange>, Refused> {
    if status != StatusCode::PARTIAL_CONTENT {
        return Ok(None);
    }
    let part = headers.get(header::CONTENT_RANGE).and_then(ContentRange::parse).ok_or(Refused::NoContentRange)?;
    match length {
        // Shorter than it says, and framed as such: what is there can be used. Longer cannot be made sense of.
        Some(length) if length == 0 || length > part.length() => Err(Refused::ContentRangeMismatch),
        _ => Ok(Some(part)),
    }
}
