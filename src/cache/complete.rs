//! Completing a stored part: the origin is asked for the rest, and both become one (RFC 9111 sections 3.3 and 3.4).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};

use super::{
    Cache,
    call::Outgoing,
    fetch::Fetch,
    fill::{Settled, Stored},
    judge::Renewed,
    outcome::Kind,
};
use crate::{
    object::{
        entry::Entry,
        merge,
        range::{self, Combined, Part},
        time::Timestamp,
        validators::Validators,
    },
    origin::{OriginBody, OriginResponse},
};

/// Asks for what `part` lacks; if the representation has changed, for all of it.
pub(super) fn ask_for_rest(part: &Entry, headers: &mut HeaderMap) {
    let missing = part.part().as_ref().and_then(range::missing);
    let Some(Ok(wanted)) = missing.map(|missing| HeaderValue::from_str(&missing)) else { return };
    headers.insert(header::RANGE, wanted);
    if let Some(etag) = part.validators().etag.filter(|etag| etag.tag().is_strong()) {
        headers.insert(header::IF_RANGE, etag.value().clone());
    }
}

/// Whether a response of this status is for the Range of [`ask_for_rest`] alone: nobody else asked for a part.
pub(super) fn is_answer(status: StatusCode) -> bool {
    matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE)
}

impl Cache {
    /// Whether what a stored part lacks is no more than one body may take in memory. What is more, or nobody knows how
    /// much, is better fetched whole: then its readers get it while it arrives.
    pub(super) fn may_complete(&self, part: &Entry) -> bool {
        part.elsewhere().is_none() && lack(part).is_some_and(|lacks| lacks <= self.memory_bytes_max() as u64)
    }
}

/// Bytes of the representation that a stored part of it lacks, where it says how large that is.
fn lack(part: &Entry) -> Option<u64> {
    part.part().and_then(|range| Some(range.complete?.saturating_sub(range.length())))
}

impl<O: Outgoing> Fetch<O> {
    /// An answer to [`ask_for_rest`]. `false`: it does not go with what is stored.
    pub(super) async fn completed(&mut self, mut response: OriginResponse, requested: Timestamp) -> bool {
        let exchange = Arc::clone(&self.exchange);
        exchange.tidy(&mut response.headers);
        let Some(part) = self.start.completing.clone() else { return false };
        if response.status != StatusCode::PARTIAL_CONTENT {
            return false;
        }
        let Some((combined, now)) = self.combined(&part, &response.headers, response.body).await else {
            return false;
        };
        let (status, fields) = merge::combined(&part.head, &response.headers, &combined);
        let facts = exchange.facts(false, requested, now);
        let Ok(Renewed { mut entry, withheld }) = exchange.renewed(&part, status, &fields, facts, self.fill.stamp)
        else {
            return false;
        };
        if self.is_purged(&part) || self.fill.is_invalidated() {
            return false;
        }
        // The older half is as old as it is (F6).
        entry.stamp = part.stamp;
        (entry.body, entry.part, entry.key) = (combined.body, None, self.start.key);
        let entry = Arc::new(entry.pack());
        let written = exchange.cache.insert(&entry, &self.fill, &exchange.route);
        let shared = self.share_stored(&entry);
        exchange.cache.remove(&part);
        for written in written.into_iter().chain(shared) {
            written.await;
        }
        let leader = if withheld.is_empty() {
            Arc::clone(&entry)
        } else {
            exchange.once(&entry, status, fields, requested, now)
        };
        self.permit = None;
        exchange.cache.metrics().fill_ended("completed");
        let stored = Stored { leader, others: Some(entry), kind: Kind::Forwarded, status: Some(206) };
        self.fill.settle(Settled::Stored(stored));
        true
    }

    /// The stored part and the new one as the whole, if they are of the same representation.
    async fn combined(
        &self,
        stored: &Arc<Entry>,
        fields: &HeaderMap,
        body: OriginBody,
    ) -> Option<(Combined, Timestamp)> {
        let exchange = &*self.exchange;
        let now = exchange.cache.now();
        let validators = Validators::of(fields);
        let held = stored.validators();
        if !held.same_strong(&validators) {
            return None;
        }
        let limit = exchange.cache.memory_object_bytes_max(&exchange.route);
        let lacks = usize::try_from(lack(stored)?).ok()?;
        let _held = exchange.cache.memory().reserve(lacks)?;
        let body: Bytes = Limited::new(body, lacks).collect().await.ok()?.to_bytes();
        let part = range::part_of(fields, body.len() as u64)?;
        let new = Part { range: part, validators: &validators, body: &body };
        let stored = Part { range: stored.part()?, validators: &held, body: &stored.body() };
        let combined = range::combine(stored, new)?;
        (combined.part.is_none() && combined.body.len() as u64 <= limit).then_some((combined, now))
    }
}
