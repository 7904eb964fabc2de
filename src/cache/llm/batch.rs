//! Several inputs in one call: those whose answers are stored are answered from here, and the provider is asked for the
//! others alone. Nobody sees the difference but by the bill.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::{Asking, accounts, told};
use crate::{
    cache::{
        Cache,
        body::{Body, Broken},
        call::{Answer, Call, Outgoing},
        disk::Written,
        failure::Failure,
        fetch::Fetch,
        hit,
        lookup::Found,
        outcome::{Forward, Outcome, Tier},
        plan::Plan,
        route::Route,
        target::Target,
    },
    llm::embeddings,
    object::{
        directives::RequestDirectives,
        entry::{Entry, Unpacked},
        head::Head,
        key::{Key, KeyBuilder},
        reuse::{self, Reuse},
        time::Timestamp,
    },
    store::l3::Large,
};

/// Look-ups of one call at the same time: a call for a thousand inputs leaves room for others.
const LOOKUPS: usize = 64;

/// The inputs of a call, and what is known of their answers.
struct Batch {
    /// In the order of the request; the same input may come twice.
    keys: Vec<Key>,
    stored: HashMap<Key, Arc<Entry>>,
    /// Places of the others in the content, each once, in order.
    lacking: Vec<(Key, Range<usize>)>,
}

impl Cache {
    /// Answers a call for several inputs, `keys` those of their answers.
    pub(super) async fn ask_in_parts<O: Outgoing>(
        &self,
        call: Call<O>,
        mut asking: Asking,
        keys: Vec<Key>,
        body: Bytes,
        directives: RequestDirectives,
    ) -> Result<Answer, Arc<Failure>> {
        let Some(inputs) = asking.question.inputs.take() else { return Err(Arc::new(Failure::GivenUp)) };
        let mut batch = Batch { keys, stored: HashMap::new(), lacking: Vec::new() };
        let mut known = HashSet::new();
        let each = batch.keys.iter().zip(&inputs.each).filter(|(key, _)| known.insert(**key));
        let each: Vec<(Key, Range<usize>)> = each.map(|(key, (place, _))| (*key, place.clone())).collect();
        let (route, target, headers, directives_of) = (&call.route, &call.target, &call.headers, &directives);
        let looking = each.into_iter().map(|(key, place)| async move {
            (key, place, self.part_of_answer(route, target, headers, &key, directives_of).await)
        });
        let mut looked = stream::iter(looking).buffered(LOOKUPS);
        while let Some((key, place, found)) = looked.next().await {
            match found {
                Some(entry) => drop(batch.stored.insert(key, entry)),
                None => batch.lacking.push((key, place)),
            }
        }
        drop(looked);
        if batch.lacking.is_empty() {
            let outcome = Outcome::hit(Tier::L1, batch.ttl(self.now()));
            return self.joined(&batch, &[], None, &asking, outcome).ok_or_else(|| Arc::new(Failure::GivenUp));
        }
        let in_full = batch.lacking.len() == batch.keys.len();
        let (keys, places): (Vec<_>, Vec<_>) = batch.lacking.iter().cloned().unzip();
        let body = if in_full { body } else { embeddings::with_only(&body, &inputs.list, &places).into() };
        let (bill, models) = (asking.bill.clone(), Arc::clone(&asking.models));
        let again = Asking {
            inputs: None,
            tell: false,
            question: asking.question.clone(),
            rules: asking.rules.clone(),
            bill,
            models,
        };
        let mut key = KeyBuilder::new("llm inputs");
        for input in &keys {
            key.field(input.as_bytes());
        }
        let asking = Asking { inputs: Some(keys), ..asking };
        let answer = self.ask(call, asking, key.finish(), body, directives).await?;
        if in_full || answer.response.status() != StatusCode::OK {
            return Ok(answer);
        }
        self.completed(&batch, answer, &again).await
    }

    /// The stored answer of one input.
    pub(super) async fn part_of_answer(
        &self,
        route: &Route,
        target: &Target,
        headers: &HeaderMap,
        key: &Key,
        directives: &RequestDirectives,
    ) -> Option<Arc<Entry>> {
        let now = self.now();
        let found = match self.find(route, key, &headers, now) {
            Found::Nothing => {
                let url = target.url_scope(route);
                match self.entry_on_disk(route, url, key).await {
                    Some(entry) => self.standing(entry, Tier::L3, || Found::Nothing),
                    None => return self.input_in_l2(route, target, key, directives).await.filter(is_whole),
                }
            }
            found => found,
        };
        let Found::Entry { entry, soft, .. } = found else { return None };
        let fresh = reuse::reuse(&entry.freshness(), now, directives, soft) == Reuse::Fresh
            && self.vouches_at_once(route, &entry, Instant::now());
        Some(entry).filter(|entry| fresh && is_whole(entry))
    }

    /// The whole answer, when that for what was lacking has come.
    async fn completed(&self, batch: &Batch, answer: Answer, asking: &Asking) -> Result<Answer, Arc<Failure>> {
        let (head, body) = answer.response.into_parts();
        let new = body.collect().await.map_err(|Broken(failure)| failure)?.to_bytes();
        let parts = embeddings::split(&new, batch.lacking.len());
        let outcome = Outcome { forward: Some(Forward::Partial), ..answer.outcome };
        let joined = parts.and_then(|parts| self.joined(batch, &parts, Some(head.headers), asking, outcome));
        // What the provider said is no list of what it was asked for.
        joined.ok_or_else(|| Arc::new(Failure::OtherAnswer))
    }

    /// One answer of all, with the fields of what the provider said, or those that are stored.
    fn joined(
        &self,
        batch: &Batch,
        new: &[Vec<u8>],
        fields: Option<HeaderMap>,
        asking: &Asking,
        outcome: Outcome,
    ) -> Option<Answer> {
        let new: HashMap<&Key, &[u8]> =
            batch.lacking.iter().map(|(key, _)| key).zip(new.iter().map(Vec::as_slice)).collect();
        let stored: HashMap<&Key, Bytes> = batch.stored.iter().map(|(key, entry)| (key, entry.body())).collect();
        let parts =
            batch.keys.iter().map(|key| new.get(key).copied().or_else(|| stored.get(key).map(|body| &body[..])));
        let content = embeddings::join(&parts.collect::<Option<Vec<_>>>()?)?;
        let first = batch.stored.values().next();
        let mut fields = fields.or_else(|| first.map(|entry| entry.head.to_map()))?;
        for name in [header::CONTENT_LENGTH, header::AGE, super::super::CACHE_STATUS, accounts::USAGE] {
            fields.remove(name);
        }
        if outcome.is_hit() {
            let now = self.now();
            let age = batch.stored.values().map(|entry| entry.freshness().age(now)).max().unwrap_or_default();
            fields.insert(header::AGE, age.as_secs().into());
        }
        fields.append(super::super::CACHE_STATUS, outcome.cache_status(self.name()));
        let saved = batch.stored.values().filter_map(|entry| entry.head.get(&accounts::USAGE));
        asking.bill.saved_in_parts(saved.filter_map(|value| HeaderValue::from_bytes(value).ok()), &mut fields);
        let response = hit::respond(StatusCode::OK, fields, Body::Full(content.into()));
        Some(told(Answer { response, outcome }, &asking.bill, &asking.question.controls.dialects))
    }
}

impl Batch {
    /// Seconds until the first of them is stale.
    fn ttl(&self, now: Timestamp) -> i64 {
        self.stored.values().map(|entry| super::super::ttl(entry, now)).min().unwrap_or_default()
    }
}

impl<O: Outgoing> Fetch<O> {
    /// Stores the answers of several inputs, each for itself.
    pub(in crate::cache) fn commit_in_parts(&self, body: &[u8], plan: Plan, keys: &[Key]) -> Vec<Written> {
        let exchange = &*self.exchange;
        let Some(parts) = embeddings::split(body, keys.len()) else { return Vec::new() };
        let usage = plan.head.get(&accounts::USAGE).and_then(|value| HeaderValue::from_bytes(value).ok());
        let mut fields = plan.head.to_map();
        fields.remove(header::CONTENT_LENGTH);
        fields.remove(accounts::USAGE);
        let Some(form) = self.stored_form(Bytes::new(), body.len() as u64, plan) else { return Vec::new() };
        let mut written = Vec::new();
        for (nth, (key, part)) in keys.iter().zip(parts).enumerate() {
            if let Some(share) = usage.as_ref().and_then(|usage| accounts::share(usage, nth, keys.len())) {
                fields.insert(accounts::USAGE, share);
            }
            let head = Head::new(form.head.status, &fields);
            let scopes = exchange.target.scopes(&exchange.route, key);
            let entry = Unpacked { key: *key, primary: *key, scopes, head, body: part.into(), ..form.clone() };
            let entry = Arc::new(entry.pack());
            written.extend(exchange.cache.insert(&entry, &self.fill, &exchange.route));
            written.extend(exchange.cache.to_l2(&exchange.route, &entry, self.fill.begun, None));
        }
        written
    }
}

/// Whether a stored answer can be a part of another.
fn is_whole(entry: &Arc<Entry>) -> bool {
    entry.head.status == StatusCode::OK && Large::of(entry).is_none()
}
