//! One fill: ask the origin, and decide by the head of what comes. [`super::pump`] moves its body and commits it.
//!
//! The order of events is what keeps purged things purged (rules F1 to F7 of `docs/ARCHITECTURE.md`):
//!
//! ```text
//!  stamp read ─▶ request leaves ─▶ head: tags known, purges since the stamp looked up ─▶ body …
//!     ─▶ complete: looked up again ─▶ into the tiers ─▶ out of the flight table ─▶ readers see the end
//! ```
//!
//! A purge that is applied at any moment in between has a position above the stamp: the entry either is not stored, or
//! is found purged by whoever looks at it.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    call::{Departure, Outgoing},
    complete,
    exchange::{Exchange, Start},
    failure::Failure,
    fill::{Fill, Settled, Stored},
    flight::Permit,
    judge::Renewed,
    llm::Matching,
    outcome::{Kind, Tier},
    plan::Plan,
    refused::Refused,
    traced,
};
use crate::{
    limit,
    object::{date, entry::Entry, fields, key::Key, merge, time::Timestamp, validators},
    origin::{self, OriginBody, OriginRequest, OriginResponse},
    purge::Standing,
    store::l2::Ticket,
};

/// One fill on its way; it outlives the request that started it.
pub(super) struct Fetch<O> {
    pub(super) exchange: Arc<Exchange<O>>,
    pub(super) start: Start,
    pub(super) fill: Arc<Fill>,
    /// `None`: nobody else can join.
    pub(super) permit: Option<Permit>,
    /// What the look into L2 left, which a write there needs.
    pub(super) ticket: Option<Ticket>,
    /// What is to be learned from the answer, of a call to a model.
    pub(super) matching: Option<Box<Matching>>,
}

impl<O: Outgoing> Fetch<O> {
    /// Runs the fill to its end.
    pub(super) async fn run(mut self) {
        let _running = self.exchange.cache.metrics().fill_running();
        let _ended = Ended(Arc::clone(&self.fill));
        if self.exchange.cache.l2().is_some() && Box::pin(self.answered_by_l2()).await {
            return;
        }
        if self.exchange.model.is_some() && Box::pin(self.answered_by_similar()).await {
            return;
        }
        if let Err(refused) = self.exchange.outgoing.admitted().await {
            return self.turned_away(refused);
        }
        let mut conditional = self.start.candidate.is_some();
        let mut tries = 2_u8;
        loop {
            tries -= 1;
            let requested = self.exchange.cache.now();
            match self.ask(conditional).await {
                Ok(response) if response.status == StatusCode::NOT_MODIFIED && conditional => {
                    match self.confirmed(response, requested) {
                        Ok(()) => return,
                        // What was confirmed may not be used: once more, from scratch.
                        Err(NotThisOne) => conditional = false,
                    }
                    tries = tries.max(1);
                }
                Ok(response) if self.start.completing.is_some() && complete::is_answer(response.status) => {
                    if Box::pin(self.completed(response, requested)).await {
                        return;
                    }
                    // What came does not go with what is stored: all of it, then.
                    self.start.completing = None;
                    tries = tries.max(1);
                }
                Ok(response) => {
                    if let Some((fetch, body, plan)) = self.arrived(response, requested) {
                        fetch.pump(body, plan).await;
                    }
                    return;
                }
                Err(error) if tries > 0 && worth_another_try(&error) => {}
                Err(error) => return self.failed(error.into()),
            }
        }
    }

    async fn ask(&self, conditional: bool) -> Result<OriginResponse, origin::Error> {
        let exchange = &*self.exchange;
        let Departure { upstream, path_and_query, host, mut headers, span } =
            exchange.outgoing.departure(&exchange.headers)?;
        self.without_conditions(&mut headers);
        if exchange.model.is_some() {
            // Stored once for all clients, and looked into.
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if let Some(part) = &self.start.completing {
            complete::ask_for_rest(part, &mut headers);
        }
        if conditional && let Some(entry) = &self.start.candidate {
            validators::add_conditions(&entry.validators(), &mut headers);
        }
        let fill = Arc::clone(&self.fill);
        let request = OriginRequest {
            method: exchange.method.clone(),
            path_and_query,
            host,
            headers,
            body: exchange.content(),
            interim: Some(Arc::new(move |status, fields: &HeaderMap| fill.interim(status, fields))),
            upgrade: false,
        };
        let answer = exchange.cache.origins().send(&upstream, request).await;
        traced::answered(span, &answer);
        answer
    }

    /// What is stored has to be whole, whatever this one client needs of it.
    fn without_conditions(&self, headers: &mut HeaderMap) {
        let asked = self.exchange.asked;
        if asked.conditions && !self.start.conditions {
            for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
                headers.remove(name);
            }
        }
        if asked.range && !self.start.part {
            headers.remove(header::RANGE);
            headers.remove(header::IF_RANGE);
        }
    }

    /// A 304 to a conditional request: the stored response lives on with new fields (RFC 9111 section 4.3.4).
    fn confirmed(&mut self, response: OriginResponse, requested: Timestamp) -> Result<(), NotThisOne> {
        let exchange = Arc::clone(&self.exchange);
        let old = self.start.candidate.clone().ok_or(NotThisOne)?;
        if self.fill.is_invalidated() || self.is_purged(&old) {
            return Err(NotThisOne);
        }
        let now = exchange.cache.now();
        let mut fields = response.headers;
        // The request named this one response and no other: whatever tag the 304 carries, it is the one confirmed.
        exchange.tidy(&mut fields);
        let merged = merge::not_modified(&old.head, &fields);
        let facts = exchange.facts(self.start.part, requested, now);
        let once = |merged| exchange.once(&old, old.head.status, merged, requested, now);
        let (leader, others) = match exchange.renewed(&old, old.head.status, &merged, facts, self.fill.stamp) {
            Ok(Renewed { entry, withheld }) => {
                let entry = Arc::new(entry.pack());
                exchange.cache.renew(&old, &entry, Some(&self.fill), &exchange.route);
                // Behind, also where the route writes through: what is confirmed was there before.
                drop(self.share_stored(&entry));
                (if withheld.is_empty() { Arc::clone(&entry) } else { once(merged) }, Some(entry))
            }
            // Confirmed for this once, but no longer storable: it answers who asked, and leaves the cache.
            Err(refused) => {
                if !refused.is_of_the_request() {
                    exchange.cache.remove(&old);
                }
                self.not_shared(old.key, !refused.is_of_the_request());
                (once(merged), None)
            }
        };
        self.permit = None;
        exchange.cache.metrics().fill_ended("revalidated");
        self.fill.settle(Settled::Stored(Stored { leader, others, kind: Kind::Revalidated, status: Some(304) }));
        Ok(())
    }

    /// A final head other than a confirmation. What is given back is storable, and its body is to be moved.
    fn arrived(self, mut response: OriginResponse, requested: Timestamp) -> Option<(Self, OriginBody, Plan)> {
        let exchange = &*self.exchange;
        let stands_in = exchange.model.as_ref().is_some_and(|model| model.stands_in_for(response.status));
        if (stands_in || exchange.route.policy.stale_if_error_status.contains(&response.status.as_u16()))
            && let Some(entry) = self.stale().filter(|entry| exchange.may_stand_in(entry))
        {
            self.serve_stale(entry, response.status.as_u16());
            return None;
        }
        exchange.tidy(&mut response.headers);
        match self.plan(&response, requested) {
            Ok(plan) => Some(self.share(response, plan)),
            Err(refused) => {
                self.release(response, refused);
                None
            }
        }
    }

    /// Goes on with a response that is here already, its fields tidied.
    pub(super) async fn adopt(self, response: OriginResponse, requested: Timestamp) {
        let _ended = Ended(Arc::clone(&self.fill));
        match self.plan(&response, requested) {
            Ok(plan) if plan.is_explicit() => {
                let (fetch, body, plan) = self.share(response, plan);
                fetch.pump(body, plan).await;
            }
            Ok(_) => self.release(response, Refused::NoExplicitFreshness),
            Err(refused) => self.release(response, refused),
        }
    }

    /// Not storable: the leader gets the response as it is, the others go by themselves.
    fn release(mut self, mut response: OriginResponse, refused: Refused) {
        let exchange = Arc::clone(&self.exchange);
        // The key that was looked up: of a URL that varies, the variant's, where the response lies that this one
        // withdraws.
        self.refused(&self.start.key, refused, response.status);
        self.refused_for_l2(refused, response.status);
        exchange.cache.hide_tags(&exchange.route, &mut response.headers);
        self.permit = None;
        exchange.cache.metrics().fill_ended("released");
        self.fill.release(response, refused.as_str());
    }

    /// Remembers that the key is not storable, so that nobody waits for another in vain.
    pub(super) fn refused(&self, key: &Key, refused: Refused, status: StatusCode) {
        let exchange = &*self.exchange;
        // A POST that might have stood for GET says nothing about GET.
        let lasts = refused.lasts(status) && exchange.model.is_none();
        if lasts && !self.start.part && refused != Refused::NoExplicitFreshness {
            let until = exchange.cache.now().plus(exchange.route.hit_for_miss_ttl());
            exchange.cache.mark_hit_for_miss(key, until, refused, status);
        }
    }

    /// Who started it may not have the origin asked. That says nothing of those who joined: they start over, and one of
    /// them leads.
    fn turned_away(mut self, refused: limit::Refused) {
        let (stale, failure) = (self.stale(), Arc::new(Failure::Limited(refused)));
        self.exchange.cache.metrics().fill_ended(failure.name());
        self.permit = None;
        self.fill.growing.fail(Arc::clone(&failure));
        self.fill.settle(Settled::Refused { failure, stale });
    }

    /// No head: all get the same failure, or what stands in for it, for a while.
    fn failed(mut self, failure: Failure) {
        let exchange = Arc::clone(&self.exchange);
        let stale = self.stale();
        let stands_in = stale.as_ref().is_some_and(|entry| exchange.may_stand_in(entry));
        exchange.cache.metrics().fill_ended(if stands_in { "stale-if-error" } else { failure.name() });
        self.fill.fail(Arc::new(failure), stale, self.until());
        self.linger();
    }

    /// An error status, and a stale response that the one who asked may have instead.
    fn serve_stale(mut self, entry: Arc<Entry>, status: u16) {
        self.exchange.cache.metrics().fill_ended("stale-if-error");
        let (kind, status) = (Kind::StaleOnError(Tier::of(&entry)), Some(status));
        let stored = Stored { leader: Arc::clone(&entry), others: Some(entry), kind, status };
        self.fill.settle_until(Settled::Stored(stored), self.until());
        self.linger();
    }

    /// Until when a failure answers those who ask again.
    fn until(&self) -> Timestamp {
        self.exchange.cache.now().plus(self.exchange.route.policy.error_ttl)
    }

    fn linger(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.exchange.cache.linger(permit, self.exchange.route.policy.error_ttl);
        }
    }

    /// What may answer if the origin does not, as far as it does not depend on who asks.
    fn stale(&self) -> Option<Arc<Entry>> {
        self.start.candidate.clone().filter(|entry| !self.fill.is_invalidated() && !self.is_purged(entry))
    }

    pub(super) fn is_purged(&self, entry: &Entry) -> bool {
        self.exchange.cache.purge_log().verdict(entry.stamp, &entry.scopes()) == Standing::Hard
    }

    /// The body broke off: nothing is stored, and nobody sees a clean end.
    pub(super) fn broken(mut self, failure: Failure) {
        self.permit = None;
        self.exchange.cache.metrics().fill_ended(failure.name());
        self.fill.growing.fail(Arc::new(failure));
    }
}

impl<O: Outgoing> Exchange<O> {
    /// Fields as clients and tiers get them.
    pub(super) fn tidy(&self, headers: &mut HeaderMap) {
        fields::strip_hop_by_hop(headers);
        self.cache.rewrite_response(&self.route, headers);
        if !headers.contains_key(header::DATE) {
            headers.insert(header::DATE, date::format(self.cache.now()));
        }
    }
}

/// However a fill's task ends, a panic included, nobody waits for it for ever. What was said before counts.
struct Ended(Arc<Fill>);

impl Drop for Ended {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.0.fail(Arc::new(Failure::GivenUp), None, Timestamp::EPOCH);
        }
    }
}

/// The candidate was purged while it was being confirmed (F4).
struct NotThisOne;

/// A failure that another connection may not share, and that did not cost the client a time-out already.
fn worth_another_try(error: &origin::Error) -> bool {
    error.unseen() && error.status() == StatusCode::BAD_GATEWAY && error.kind() != origin::Kind::Prohibited
}
