//! Completing a stored part: the origin is asked for the rest, and both become one (RFC 9111 sections 3.3 and 3.4).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};

use super::{
    call::Outgoing,
    fetch::{Fetch, renewed},
    fill::Settled,
    outcome::Kind,
};
use crate::{
    object::{
        entry::Entry,
        merge,
        range::{self, Combined, Part},
        time::Timestamp,
        validators::Validators,
        verdict::{self, Verdict},
    },
    origin::OriginResponse,
    purge::Standing,
};

/// Asks for what `part` lacks; if the representation has changed, for all of it.
pub(super) fn ask_for_rest(part: &Entry, headers: &mut HeaderMap) {
    let missing = part.part.as_ref().and_then(range::missing);
    let Some(Ok(wanted)) = missing.map(|missing| HeaderValue::from_str(&missing)) else { return };
    headers.insert(header::RANGE, wanted);
    if let Some(etag) = part.validators.etag.as_ref().filter(|etag| etag.tag().is_strong()) {
        headers.insert(header::IF_RANGE, etag.value().clone());
    }
}

impl<O: Outgoing> Fetch<O> {
    /// A 206 to [`ask_for_rest`]. `false`: it does not go with what is stored.
    pub(super) async fn completed(&mut self, mut response: OriginResponse, requested: Timestamp) -> bool {
        self.tidy(&mut response.headers);
        let Some(stored) = self.completing.clone() else { return false };
        let Some((combined, now)) = self.combined(&stored, &response.headers, response.body).await else {
            return false;
        };
        let head = merge::combined(&stored.head, &response.headers, &combined);
        let facts = self.facts(requested, now);
        let Verdict::Store(freshness) = verdict::verdict(&facts, StatusCode::OK, &head.to_map(), &self.route.rules)
        else {
            return false;
        };
        if self.cache.purge_log().verdict(stored.stamp, &stored.scopes) == Standing::Hard || self.fill.is_invalidated()
        {
            return false;
        }
        let freshness = self.held(freshness, &stored.scopes, now);
        let mut entry = renewed(&stored, head, freshness, self.fill.stamp, now);
        (entry.body, entry.part, entry.key) = (combined.body, None, self.whole_key());
        let entry = Arc::new(entry);
        self.cache.insert(Arc::clone(&entry), Some(&self.fill));
        self.cache.l1().remove(&stored.key);
        self.permit = None;
        self.cache.metrics().fill_ended("completed");
        self.fill.settle(Settled::Entry { entry, kind: Kind::Forwarded, status: Some(206) });
        true
    }

    /// The stored part and the new one as the whole, if they are of the same representation.
    async fn combined(
        &self,
        stored: &Entry,
        fields: &HeaderMap,
        body: crate::origin::OriginBody,
    ) -> Option<(Combined, Timestamp)> {
        let now = self.cache.now();
        let validators = Validators::of(fields);
        if !stored.validators.same_strong(&validators) {
            return None;
        }
        let limit = usize::try_from(self.cache.object_bytes_max(&self.route)).unwrap_or(usize::MAX);
        let body: Bytes = Limited::new(body, limit).collect().await.ok()?.to_bytes();
        let part = range::part_of(fields, body.len() as u64)?;
        let new = Part { range: part, validators: &validators, body: &body };
        let stored = Part { range: stored.part?, validators: &stored.validators, body: &stored.body };
        let combined = range::combine(stored, new)?;
        (combined.part.is_none() && combined.body.len() <= limit).then_some((combined, now))
    }

    /// The key of the whole representation: the one the fill runs under.
    fn whole_key(&self) -> crate::object::key::Key {
        self.permit.as_ref().map_or(self.primary, |permit| permit.key)
    }
}
