//! One fill from request to stored entry: ask the origin, decide, let the body grow, commit.
//!
//! The order of events is what keeps purged things purged (rules F1 to F7 of the coherence chapter):
//!
//! ```text
//!  stamp read ─▶ request leaves ─▶ head: tags known, purges since the stamp looked up ─▶ body …
//!     ─▶ complete: looked up again ─▶ into L1 ─▶ out of the flight table ─▶ readers see the end
//! ```
//!
//! A purge that is applied at any moment in between has a position above the stamp: the entry either is not stored, or
//! is found purged by whoever looks at it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;

use super::{
    Cache,
    call::{Departure, Outgoing},
    complete,
    config::ClientGone,
    failure::Failure,
    fill::{Fill, Settled, Shared},
    flight::Permit,
    outcome::Kind,
    route::Route,
    target::Target,
};
use crate::{
    object::{
        date,
        directives::{self, RequestDirectives},
        entry::Entry,
        fields,
        freshness::Freshness,
        head::Head,
        key::Key,
        merge,
        range::ContentRange,
        reuse,
        scope::Scope,
        tags,
        time::Timestamp,
        validators::{self, Validators},
        vary::{self, Variant, Vary},
        verdict::{self, Facts, Reason, Verdict},
    },
    origin::{self, OriginRequest, OriginResponse, RequestBody},
    purge::Standing,
};

/// What one fill needs to know; owns all of it, because it outlives the request that started it.
pub(super) struct Fetch<O> {
    pub(super) cache: Cache,
    pub(super) route: Arc<Route>,
    pub(super) target: Target,
    pub(super) primary: Key,
    pub(super) method: Method,
    /// The client's fields, as it sent them: for `Vary`, and for what the origin is asked.
    pub(super) client: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) directives: RequestDirectives,
    pub(super) outgoing: Arc<O>,
    /// A stored response to be confirmed, or served if the origin fails.
    pub(super) candidate: Option<Arc<Entry>>,
    /// A stored part to be completed.
    pub(super) completing: Option<Arc<Entry>>,
    /// What is asked for is a part: the client's Range goes along.
    pub(super) part: bool,
    pub(super) fill: Arc<Fill>,
    /// `None`: nobody else can join.
    pub(super) permit: Option<Permit>,
}

/// Everything decided about a storable response when its head is here.
struct Plan {
    head: Head,
    freshness: Freshness,
    key: Key,
    scopes: Vec<Scope>,
    tags: Box<str>,
    part: Option<ContentRange>,
    length: Option<u64>,
    requested: Timestamp,
}

impl<O: Outgoing> Fetch<O> {
    /// Runs the fill to its end.
    pub(super) async fn run(mut self) {
        let _running = self.cache.metrics().fill_running();
        let _ended = Ended(Arc::clone(&self.fill));
        let mut conditional = self.candidate.is_some();
        let mut tries = 2_u8;
        loop {
            tries -= 1;
            let requested = self.cache.now();
            match self.ask(conditional).await {
                Ok(response) if response.status == StatusCode::NOT_MODIFIED && conditional => {
                    match self.confirmed(response, requested) {
                        Ok(()) => return,
                        // What was confirmed may not be used: once more, from scratch.
                        Err(NotThisOne) => conditional = false,
                    }
                    tries = tries.max(1);
                }
                Ok(response) if self.completing.is_some() && response.status == StatusCode::PARTIAL_CONTENT => {
                    if self.completed(response, requested).await {
                        return;
                    }
                    // What came does not go with what is stored: all of it, then.
                    self.completing = None;
                    tries = tries.max(1);
                }
                Ok(response) => return self.arrived(response, requested).await,
                Err(error) if tries > 0 && worth_another_try(&error) => {}
                Err(error) => return self.failed(error.into()),
            }
        }
    }

    async fn ask(&self, conditional: bool) -> Result<OriginResponse, origin::Error> {
        let Departure { upstream, path_and_query, host, mut headers } = self.outgoing.departure(&self.client)?;
        without_conditions(&mut headers, self.part);
        if let Some(part) = &self.completing {
            complete::ask_for_rest(part, &mut headers);
        }
        if conditional && let Some(entry) = &self.candidate {
            validators::add_conditions(&entry.validators, &mut headers);
        }
        let fill = Arc::clone(&self.fill);
        let request = OriginRequest {
            method: self.method.clone(),
            path_and_query,
            host,
            headers,
            body: self.body.clone().map_or(RequestBody::Empty, RequestBody::Bytes),
            interim: Some(Arc::new(move |status, fields: &HeaderMap| fill.interim(status, fields))),
            upgrade: false,
        };
        self.cache.origins().send(&upstream, request).await
    }

    /// A 304 to a conditional request: the stored response lives on with new fields (RFC 9111 section 4.3.4).
    fn confirmed(&mut self, response: OriginResponse, requested: Timestamp) -> Result<(), NotThisOne> {
        let old = self.candidate.clone().ok_or(NotThisOne)?;
        let log = self.cache.purge_log();
        if self.fill.is_invalidated() || log.verdict(old.stamp, &old.scopes) == Standing::Hard {
            return Err(NotThisOne);
        }
        let now = self.cache.now();
        let mut fields = response.headers;
        // The request named this one response and no other: whatever tag the 304 carries, it is the one confirmed.
        self.tidy(&mut fields);
        let head = merge::not_modified(&old.head, &fields);
        let merged = head.to_map();
        let facts = self.facts(requested, now);
        let entry = match verdict::verdict(&facts, head.status, &merged, &self.route.rules) {
            Verdict::Store(freshness) => {
                let entry = Arc::new(renewed(&old, head, self.held(freshness, &old.scopes, now), self.fill.stamp, now));
                self.cache.insert(Arc::clone(&entry), None);
                entry
            }
            // Confirmed for this once, but no longer storable: it answers those who wait and leaves the cache.
            Verdict::Refuse(_) => {
                self.cache.l1().remove(&old.key);
                Arc::new(renewed(&old, head, old.freshness, self.fill.stamp, now))
            }
        };
        self.permit = None;
        self.fill.settle(Settled::Entry { entry, kind: Kind::Revalidated, status: Some(304) });
        Ok(())
    }

    /// A final head other than a confirmation.
    async fn arrived(self, mut response: OriginResponse, requested: Timestamp) {
        if self.route.policy.stale_if_error_status.contains(&response.status.as_u16())
            && let Some(entry) = self.stale_to_serve()
        {
            return self.serve_stale(entry, Some(response.status.as_u16()));
        }
        self.tidy(&mut response.headers);
        match self.plan(&response, requested) {
            Ok((plan, vary)) => self.store(response, plan, vary).await,
            Err(reason) => self.release(response, reason),
        }
    }

    /// Goes on with a response that is here already, its fields tidied.
    pub(super) async fn adopt(self, response: OriginResponse, requested: Timestamp) {
        let _ended = Ended(Arc::clone(&self.fill));
        match self.plan(&response, requested) {
            Ok((plan, vary)) if plan.freshness.is_explicit() => self.store(response, plan, vary).await,
            Ok(_) => self.fill.release(response, "no-freshness"),
            Err(reason) => self.fill.release(response, reason),
        }
    }

    /// Fields as clients and tiers get them.
    pub(super) fn tidy(&self, headers: &mut HeaderMap) {
        fields::strip_hop_by_hop(headers);
        self.rewrite(headers);
        if !headers.contains_key(header::DATE) {
            headers.insert(header::DATE, date::format(self.cache.now()));
        }
    }

    fn rewrite(&self, headers: &mut HeaderMap) {
        self.cache.rewrite_response(&self.route, headers);
    }

    pub(super) fn facts(&self, request_time: Timestamp, response_time: Timestamp) -> Facts<'_> {
        Facts {
            method: &self.method,
            request_no_store: self.directives.no_store,
            authorization: self.client.contains_key(header::AUTHORIZATION),
            partitioned: self.route.partitions(&self.client),
            range_requested: self.part,
            request_time,
            response_time,
            jitter: self.cache.jitter(self.route.policy.ttl_jitter),
        }
    }

    /// Whether and how the response is stored, from its head.
    fn plan(&self, response: &OriginResponse, requested: Timestamp) -> Result<(Plan, Vary), &'static str> {
        let now = self.cache.now();
        let headers = &response.headers;
        let facts = self.facts(requested, now);
        let freshness = match verdict::verdict(&facts, response.status, headers, &self.route.rules) {
            Verdict::Store(freshness) => freshness,
            Verdict::Refuse(reason) => return Err(reason.as_str()),
        };
        let vary = self.route.vary(headers);
        let variant = match &vary {
            Vary::Any => return Err("vary-any"),
            Vary::None => self.primary,
            Vary::Fields(names) => {
                vary::variant_key(&self.primary, names, &self.client, self.cache.comparing(&self.route))
            }
        };
        let length = exact_length(&response.body);
        let part = part_of(response.status, headers, length)?;
        if length.is_some_and(|length| length > self.cache.object_bytes_max(&self.route)) {
            return Err("too-large");
        }
        let tags =
            tags::of(headers, &self.route.tag_fields, self.route.policy.tags_max).map_err(|_| "too-many-tags")?;
        let scopes = self.scopes(&tags);
        // F2: known only now, a tag may have been purged since the request left.
        if self.cache.purge_log().verdict(self.fill.stamp, &scopes) == Standing::Hard {
            return Err("purged");
        }
        let freshness = self.held(freshness, &scopes, now);
        let head = self.stored_head(response.status, headers);
        let key = if part.is_some() { super::part_key(&variant) } else { variant };
        let tags = tags.join(" ").into();
        Ok((Plan { head, freshness, key, scopes, tags, part, length, requested }, vary))
    }

    fn scopes(&self, tags: &[String]) -> Vec<Scope> {
        let mut scopes = self.fill.scopes.clone();
        let partition = Target::partition(&self.route, self.cache.secret(), &self.client);
        for tag in tags {
            scopes.push(Scope::tag(b"", tag));
            if !partition.is_empty() {
                scopes.push(Scope::tag(&partition, tag));
            }
        }
        scopes
    }

    /// F7: within the hold of a purge, nothing it named is kept beyond it.
    pub(super) fn held(&self, freshness: Freshness, scopes: &[Scope], now: Timestamp) -> Freshness {
        match self.cache.purge_log().hold(scopes, now) {
            None => freshness,
            Some(hold) => {
                let until = now.plus(hold);
                Freshness {
                    fresh_until: freshness.fresh_until.min(until),
                    swr_until: freshness.swr_until.min(until),
                    sie_until: freshness.sie_until.min(until),
                    keep_until: freshness.keep_until.min(until),
                    ..freshness
                }
            }
        }
    }

    /// The fields a tier keeps: all but those a hit computes or never repeats.
    fn stored_head(&self, status: StatusCode, headers: &HeaderMap) -> Head {
        let mut kept = headers.clone();
        kept.remove(header::AGE);
        // `no-cache="a"` and `private="a"`: not to be used again without validation, so not kept at all.
        for name in directives::effective(headers).directives.withheld {
            kept.remove(name);
        }
        self.cache.hide_tags(&self.route, &mut kept);
        Head::new(status, &kept)
    }

    /// Shares the response while its body arrives, and stores it when it is complete.
    async fn store(mut self, response: OriginResponse, plan: Plan, vary: Vary) {
        let mut fields = response.headers;
        self.cache.hide_tags(&self.route, &mut fields);
        if let Vary::Fields(names) = &vary {
            let variant = Variant::new(
                &self.primary,
                names,
                &self.client,
                &plan.head,
                self.cache.comparing(&self.route),
                self.cache.now(),
            );
            self.cache.remember_variant(&self.primary, &self.route, variant);
        }
        if let Some(permit) = &mut self.permit {
            permit.move_to(if plan.part.is_some() { permit.key } else { plan.key });
        }
        self.fill.settle(Settled::Shared(Arc::new(Shared {
            status: response.status,
            fields,
            validators: Validators::of(&plan.head.to_map()),
            freshness: plan.freshness,
            length: plan.length,
            part: plan.part.is_some(),
            vary,
            key: plan.key,
            scopes: plan.scopes.clone(),
        })));
        self.pump(response.body, plan).await;
    }

    /// Moves the body from the origin to those who read it, and to the cache.
    async fn pump(mut self, mut body: origin::OriginBody, plan: Plan) {
        let limit = self.cache.object_bytes_max(&self.route);
        let mut storable = true;
        let mut trailers = None;
        loop {
            let keep = storable && self.route.policy.client_gone == ClientGone::Finish;
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = self.fill.growing.abandoned(), if !keep => return self.broken(Failure::GivenUp),
            };
            let Some(frame) = frame else { break };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return self.broken(error.into()),
            };
            match frame.into_data() {
                Ok(data) => {
                    if self.fill.growing.push(data).await.is_err() {
                        return self.broken(Failure::GivenUp);
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if storable && self.fill.growing.len() > limit {
                storable = false;
                self.refused(&plan.key, "too-large", plan.head.status);
                self.permit = None;
            }
        }
        let whole = if storable { self.fill.growing.contiguous().await } else { None };
        if let Some(body) = &whole {
            self.commit(body.clone(), plan);
        }
        // Stored first: who sees the end and asks again finds it.
        self.permit = None;
        self.fill.growing.complete(whole, trailers);
        self.cache.metrics().fill_ended("complete");
    }

    fn commit(&self, body: Bytes, plan: Plan) {
        let now = self.cache.now();
        let wrong_length = plan.part.is_some_and(|part| body.is_empty() || body.len() as u64 > part.length());
        // F2 again: the purge may have come while the body did. A soft one leaves its mark by itself: the entry's
        // stamp is older.
        let purged = self.cache.purge_log().verdict(self.fill.stamp, &plan.scopes) == Standing::Hard;
        if wrong_length || purged || self.fill.is_invalidated() {
            return;
        }
        let millis = now.since(plan.requested).as_millis();
        let validators = Validators::of(&plan.head.to_map());
        let entry = Arc::new(Entry {
            key: plan.key,
            primary: self.primary,
            stamp: self.fill.stamp,
            scopes: plan.scopes.into(),
            url: self.target.url().into(),
            tags: plan.tags,
            head: plan.head,
            body,
            part: plan.part,
            freshness: plan.freshness,
            validators,
            stored: now,
            fill_millis: u32::try_from(millis).unwrap_or(u32::MAX),
            hits: 0.into(),
            checked: 0.into(),
        });
        self.cache.insert(entry, Some(&self.fill));
    }

    /// Not storable: the leader gets the response as it is, the others go by themselves.
    fn release(mut self, mut response: OriginResponse, reason: &'static str) {
        self.refused(&self.primary, reason, response.status);
        self.cache.hide_tags(&self.route, &mut response.headers);
        self.permit = None;
        self.cache.metrics().fill_ended("released");
        self.fill.release(response, reason);
    }

    /// Remembers that the key is not storable, so that nobody waits for another in vain. Not for server errors: a herd
    /// side by side is the last thing a failing origin needs.
    fn refused(&self, key: &Key, reason: &'static str, status: StatusCode) {
        if !status.is_server_error() && reason != "purged" && reason != Reason::RequestNoStore.as_str() && !self.part {
            let until = self.cache.now().plus(self.route.hit_for_miss_ttl());
            self.cache.mark_hit_for_miss(key, until);
        }
    }

    /// No head. A stale response may still do (RFC 9111 section 4.2.4); otherwise all get the same failure.
    fn failed(mut self, failure: Failure) {
        if let Some(entry) = self.stale_to_serve() {
            return self.serve_stale(entry, None);
        }
        self.cache.metrics().fill_ended(failure.name());
        let until = self.cache.now().plus(self.route.policy.error_ttl);
        self.fill.fail(Arc::new(failure), until);
        if let Some(permit) = self.permit.take() {
            self.cache.linger(permit, self.route.policy.error_ttl);
        }
    }

    fn serve_stale(mut self, entry: Arc<Entry>, status: Option<u16>) {
        self.permit = None;
        self.cache.metrics().fill_ended("stale-if-error");
        self.fill.settle(Settled::Entry { entry, kind: Kind::StaleOnError(super::outcome::Tier::L1), status });
    }

    fn stale_to_serve(&self) -> Option<Arc<Entry>> {
        let entry = self.candidate.as_ref()?;
        let usable = self.cache.purge_log().verdict(entry.stamp, &entry.scopes) != Standing::Hard
            && !self.fill.is_invalidated()
            && !(500..600).contains(&entry.head.status.as_u16())
            && reuse::on_error(&entry.freshness, self.cache.now(), &self.directives);
        usable.then(|| Arc::clone(entry))
    }

    /// The body broke off: nothing is stored, and nobody sees a clean end.
    fn broken(mut self, failure: Failure) {
        self.permit = None;
        self.cache.metrics().fill_ended(failure.name());
        self.fill.growing.fail(Arc::new(failure));
    }
}

/// However a fill's task ends, a panic included, nobody waits for it for ever. What was said before counts.
struct Ended(Arc<Fill>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.fail(Arc::new(Failure::GivenUp), Timestamp::EPOCH);
    }
}

/// The candidate was purged while it was being confirmed (F4).
struct NotThisOne;

/// A failure that another connection may not share, and that did not cost the client a time-out already.
fn worth_another_try(error: &origin::Error) -> bool {
    error.unseen() && error.status() == StatusCode::BAD_GATEWAY && error.kind() != origin::Kind::Prohibited
}

fn without_conditions(headers: &mut HeaderMap, part: bool) {
    for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_MATCH, header::IF_UNMODIFIED_SINCE] {
        headers.remove(name);
    }
    if !part {
        headers.remove(header::RANGE);
        headers.remove(header::IF_RANGE);
    }
}

fn exact_length(body: &origin::OriginBody) -> Option<u64> {
    http_body::Body::size_hint(body).exact()
}

/// Which part a 206 is; an error for one that cannot be stored.
fn part_of(status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> Result<Option<ContentRange>, &'static str> {
    if status != StatusCode::PARTIAL_CONTENT {
        return Ok(None);
    }
    let part = headers.get(header::CONTENT_RANGE).and_then(ContentRange::parse).ok_or("no-content-range")?;
    match length {
        // Shorter than it says, and framed as such: what is there can be used. Longer cannot be made sense of.
        Some(length) if length == 0 || length > part.length() => Err("content-range-mismatch"),
        _ => Ok(Some(part)),
    }
}

/// The same content under a new head.
pub(super) fn renewed(
    old: &Entry,
    head: Head,
    freshness: Freshness,
    stamp: crate::object::scope::Position,
    now: Timestamp,
) -> Entry {
    let validators = Validators::of(&head.to_map());
    Entry {
        key: old.key,
        primary: old.primary,
        stamp,
        scopes: old.scopes.clone(),
        url: old.url.clone(),
        tags: old.tags.clone(),
        head,
        body: old.body.clone(),
        part: old.part,
        freshness,
        validators,
        stored: now,
        fill_millis: old.fill_millis,
        hits: old.hits.load(std::sync::atomic::Ordering::Relaxed).into(),
        checked: 0.into(),
    }
}
