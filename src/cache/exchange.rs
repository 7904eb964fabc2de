//! One request on its way through the decisions, from look-up to a place at a fill.
//!
//! ```text
//!              ┌─ fresh ──────────────────────────▶ hit
//!  look up ────┼─ stale, refresh allowed behind ──▶ hit, and a fill in the background
//!              ├─ stale otherwise ─┐
//!              ├─ nothing ─────────┼─▶ join: lead a fill, or follow one ─▶ its head ─▶ answer
//!              └─ hit-for-miss ────┴─▶ a fill of its own
//! ```

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::time::Instant;

use super::{
    Cache,
    answer::{Next, Place},
    asked::Asked,
    call::{Answer, Call, Departure, Outgoing},
    disk::Disk,
    failure::Failure,
    fetch::Fetch,
    fill::{Fill, Settled},
    flight::{Fit, Join, Permit},
    hit::{self, Asking as Reading},
    llm::Asking,
    lookup::Found,
    outcome::{Forward, Kind, Outcome, Tier},
    part_key,
    promote::Wanted,
    route::Route,
    target::Target,
    traced,
    vouch::Vouching,
};
use crate::{
    limit::Refused,
    object::{
        directives::RequestDirectives,
        entry::Entry,
        freshness::{Flags, Freshness},
        key::{Key, KeyBuilder},
        range,
        reuse::{self, Reuse, Why},
        time::Timestamp,
    },
    origin::{self, RequestBody},
    purge::Standing,
    store::Slot,
    telemetry::trace,
};

/// How often a follower may be sent back to the start (another variant, a purge) before it goes by itself.
const REJOINS_MAX: u8 = 3;

/// How often a follower may see its leader refused by a limit before it goes by itself. Each of these leaders is gone
/// then, so it ends; and few would let a caller who may not ask anything drive all the others to the origin.
const TURNED_AWAY_MAX: u16 = 1000;

/// One request on its way through the decisions. The fill it starts shares it, because a fill outlives its request.
pub(super) struct Exchange<O> {
    pub(super) cache: Cache,
    pub(super) route: Arc<Route>,
    pub(super) target: Target,
    /// The method under which the response is stored: GET for HEAD.
    pub(super) method: Method,
    /// The client's fields, as it sent them: for `Vary`, and for what the origin is asked.
    pub(super) headers: HeaderMap,
    pub(super) asked: Asked,
    pub(super) directives: RequestDirectives,
    /// The primary key.
    pub(super) key: Key,
    pub(super) body: Option<Bytes>,
    pub(super) outgoing: O,
    /// What a call to a model asks, if it is one.
    pub(super) model: Option<Asking>,
}

/// What a look-up led to.
enum Looked {
    Answer(Answer),
    Forward(Miss),
    /// Nothing stored may be used at the moment, and nothing is to be stored.
    Bypass,
}

/// What was decided on what was found.
enum Decided {
    Answer(Answer),
    /// A stored response to be confirmed.
    Candidate(Arc<Entry>, Forward),
    /// Nothing is stored that could be used.
    Lacking {
        key: Key,
        forward: Forward,
    },
}

/// A request that has to be forwarded, and what is known of what it asks for.
struct Miss {
    forward: Forward,
    /// The key under which identical requests meet: the variant's where one is known.
    key: Key,
    /// A stored response to be confirmed.
    candidate: Option<Arc<Entry>>,
    /// A stored part to be completed.
    completing: Option<Arc<Entry>>,
    /// What was known of changes under the key before it was looked for on the disk.
    changes: Option<u32>,
}

/// What a fill starts from.
pub(super) struct Start {
    /// The key of what is asked for, as far as the look-up could tell: the variant's where one is known.
    pub(super) key: Key,
    pub(super) candidate: Option<Arc<Entry>>,
    pub(super) completing: Option<Arc<Entry>>,
    /// A part is asked for: the client's Range goes along.
    pub(super) part: bool,
    /// The client's own conditions go along: nothing is stored that they could be answered from.
    pub(super) conditions: bool,
}

impl<O: Outgoing> Exchange<O> {
    /// Answers the request. What is rare is boxed here and below: it should not make every request's future large.
    pub(super) async fn run(self: Arc<Self>, method: Method) -> Result<Answer, Arc<Failure>> {
        let mut alone = !self.route.policy.coalesce;
        let (mut rejoins, mut turned_away) = (0, 0);
        loop {
            let now = self.cache.now();
            let miss = match self.look_up(&method, now).await {
                Looked::Answer(answer) => return Ok(answer),
                Looked::Forward(miss) => miss,
                Looked::Bypass if self.directives.only_if_cached => return Err(Arc::new(Failure::OnlyIfCached)),
                Looked::Bypass => return Box::pin(self.pass(method, Forward::Bypass)).await,
            };
            let forward = miss.forward;
            let goes_through = self.directives.only_if_cached || method == Method::HEAD;
            if goes_through && forward != Forward::HitForMiss && self.cache.l2().is_some() {
                let answer = Box::pin(self.answered_from_l2(miss.key, miss.candidate.clone(), &method));
                if let Some(answer) = answer.await {
                    return Ok(answer);
                }
            }
            if self.directives.only_if_cached {
                return Err(Arc::new(Failure::OnlyIfCached));
            }
            if method == Method::HEAD {
                return Box::pin(self.head(miss.candidate, forward)).await;
            }
            alone |= forward == Forward::HitForMiss || rejoins >= REJOINS_MAX || turned_away >= TURNED_AWAY_MAX;
            alone |= miss.candidate.as_ref().is_some_and(|entry| is_for_one(&entry.freshness()));
            if self.cache.fills_full() {
                return Box::pin(self.pass(method, forward)).await;
            }
            let Some(place) = self.take_place(alone, miss, &method, now) else { continue };
            match self.answer(place, forward, &method).await {
                Next::Done(result) => return result,
                Next::Again => rejoins += 1,
                Next::LeaderRefused => turned_away += 1,
                Next::Alone => alone = true,
            }
        }
    }

    /// More fills than there may be: this one goes through, uncached.
    async fn pass(self: Arc<Self>, method: Method, forward: Forward) -> Result<Answer, Arc<Failure>> {
        let mut headers = self.headers.clone();
        if self.model.is_some() {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let call = Call {
            route: Arc::clone(&self.route),
            target: self.target.clone(),
            method,
            headers,
            body: self.content(),
            outgoing: Arc::clone(&self),
        };
        let answer = self.cache.pass(call, forward, None).await?;
        Ok(self.heard(answer))
    }

    /// An answer that goes past the cache; what a call to a model cost is counted all the same.
    pub(super) fn heard(&self, answer: Answer) -> Answer {
        match &self.model {
            Some(asking) => asking.heard(answer),
            None => answer,
        }
    }

    /// The content to send along.
    pub(super) fn content(&self) -> RequestBody {
        self.body.clone().map_or(RequestBody::Empty, RequestBody::Bytes)
    }

    /// Answers from the tiers, or says why the request has to be forwarded.
    async fn look_up(self: &Arc<Self>, method: &Method, now: Timestamp) -> Looked {
        // Before anything is looked at: what it confirms is what is known then.
        let vouching = self.cache.vouching(&self.route).await;
        if self.cache.is_bypassed(&self.route, vouching) {
            return Looked::Bypass;
        }
        let span = traced::looking("l1");
        let found = self.cache.find(&self.route, &self.key, &&self.headers, now);
        traced::looked(span, matches!(found, Found::Entry { .. }));
        let (found, changes) = match self.cache.disk_for(&self.route) {
            Some(disk) if found.missing(&self.key).is_some_and(|key| !disk.l3.lacks(&key)) => {
                Box::pin(self.look_deeper(disk, found, now)).await
            }
            Some(disk) => {
                let changes = disk.changes.of(&found.expected(&self.key));
                (found, Some(changes))
            }
            None => (found, None),
        };
        let (key, forward) = match self.decide(found, vouching, method, now) {
            Decided::Answer(answer) => return Looked::Answer(answer),
            Decided::Candidate(entry, forward) => {
                let (key, candidate) = (entry.key, Some(entry));
                return Looked::Forward(Miss { forward, key, candidate, completing: None, changes });
            }
            Decided::Lacking { key, forward } => (key, forward),
        };
        let part = if self.cache.has_parts() { Box::pin(self.part(&key, vouching, now)).await } else { None };
        match part {
            Some(part) => self.look_at_part(part, key, changes, method, now),
            None => Looked::Forward(Miss { forward, key, candidate: None, completing: None, changes }),
        }
    }

    /// Goes on in L3; with what was found, what was known of changes before it was looked for.
    async fn look_deeper(&self, disk: &Disk, found: Found, now: Timestamp) -> (Found, Option<u32>) {
        let (route, url) = (&*self.route, self.target.url_scope(&self.route));
        let wanted = Wanted { route, url, key: &self.key, headers: &self.headers, now };
        let span = traced::looking("l3");
        let (found, changes) = self.cache.find_on_disk(disk, &wanted, found).await;
        traced::looked(span, matches!(found, Found::Entry { .. }));
        (found, Some(changes))
    }

    /// Decides on what was found.
    fn decide(self: &Arc<Self>, found: Found, vouching: Vouching, method: &Method, now: Timestamp) -> Decided {
        match found {
            Found::Entry { entry, .. }
                if !self.cache.vouches(&self.route, entry.stored(), vouching, Instant::now()) =>
            {
                Decided::Candidate(entry, Forward::Stale)
            }
            Found::Entry { entry, soft, tier } => {
                let kind = match reuse::reuse(&entry.freshness(), now, &self.directives, soft) {
                    Reuse::Fresh => Kind::Hit(tier),
                    Reuse::Stale => Kind::StaleHit(tier),
                    Reuse::StaleWhileRevalidate => {
                        self.refresh_behind(&entry, now);
                        Kind::StaleHit(tier)
                    }
                    Reuse::Revalidate(why) => {
                        let forward = if by_request(why) { Forward::Request } else { Forward::Stale };
                        return Decided::Candidate(entry, forward);
                    }
                };
                Decided::Answer(self.stored(&entry, kind, method, now))
            }
            Found::OtherVariant { expected, .. } => Decided::Lacking { key: expected, forward: Forward::VaryMiss },
            Found::HitForMiss(_) => Decided::Lacking { key: self.key, forward: Forward::HitForMiss },
            Found::Nothing => Decided::Lacking { key: self.key, forward: Forward::UriMiss },
        }
    }

    fn look_at_part(
        &self,
        (part, tier): (Arc<Entry>, Tier),
        key: Key,
        changes: Option<u32>,
        method: &Method,
        now: Timestamp,
    ) -> Looked {
        if self.covers(&part, method) {
            return Looked::Answer(self.stored(&part, Kind::Hit(tier), method, now));
        }
        // The rest is gathered in memory before anybody gets any of it.
        let completing = Some(part).filter(|part| !self.asked.range && self.cache.may_complete(part));
        Looked::Forward(Miss { forward: Forward::Partial, key, candidate: None, completing, changes })
    }

    /// Whether a stored part is all that is asked for.
    fn covers(&self, part: &Entry, method: &Method) -> bool {
        let length = usize::try_from(part.length()).unwrap_or(usize::MAX);
        let covers = |range| range::from_part(&self.headers, method, &part.validators(), &range, length).is_some();
        self.asked.range && part.part().is_some_and(covers)
    }

    /// A stored, fresh part of what is asked for, and where it is.
    async fn part(&self, key: &Key, vouching: Vouching, now: Timestamp) -> Option<(Arc<Entry>, Tier)> {
        let key = part_key(key);
        let found = match self.cache.l1().lookup(&key) {
            Some(Slot::Entry(part)) => (part, Tier::L1),
            Some(_) => return None,
            None => {
                let url = self.target.url_scope(&self.route);
                (self.cache.entry_on_disk(&self.route, url, &key).await?, Tier::L3)
            }
        };
        let vouched = |part: &Entry| self.cache.vouches(&self.route, part.stored(), vouching, Instant::now());
        Some(found).filter(|(part, _)| self.is_part_of_use(part, now) && vouched(part))
    }

    fn is_part_of_use(&self, part: &Entry, now: Timestamp) -> bool {
        let untouched = self.cache.purge_log().standing(part) == Standing::Untouched;
        let fresh = reuse::reuse(&part.freshness(), now, &self.directives, false) == Reuse::Fresh;
        part.part().is_some() && untouched && fresh
    }

    fn stored(&self, entry: &Arc<Entry>, kind: Kind, method: &Method, now: Timestamp) -> Answer {
        let outcome = Outcome { ttl: Some(super::ttl(entry, now)), ..Outcome::of(kind) };
        self.served(entry, outcome, method, now)
    }

    /// A stored response as the answer.
    pub(super) fn served(&self, entry: &Arc<Entry>, outcome: Outcome, method: &Method, now: Timestamp) -> Answer {
        self.cache.note_served(&self.route, entry);
        let response = hit::from_entry(entry, &self.asking(method), &outcome, self.cache.name(), now);
        Answer { response, outcome }
    }

    pub(super) fn asking<'a>(&'a self, method: &'a Method) -> Reading<'a> {
        Reading { method, headers: &self.headers, asked: self.asked }
    }

    /// Whether a stale response may answer although the origin failed, for this request.
    pub(super) fn may_stand_in(&self, entry: &Entry) -> bool {
        !entry.head.status.is_server_error()
            && (self.model.is_none() || entry.head.status.is_success())
            && self.cache.vouches_on_failure(&self.route, entry)
            && self.cache.purge_log().verdict(entry.stamp, &entry.scopes()) != Standing::Hard
            && reuse::on_error(&entry.freshness(), self.cache.now(), &self.directives)
    }

    /// Joins a fill under way, or starts one. `None`: something was stored meanwhile, look again.
    fn take_place(self: &Arc<Self>, alone: bool, miss: Miss, method: &Method, now: Timestamp) -> Option<Place> {
        let Miss { forward, key, candidate, completing, changes } = miss;
        let part = self.asked.range && candidate.is_none() && self.cache.flight().running(&key).is_none();
        let conditions = forward == Forward::HitForMiss;
        let start = Start { key, candidate, completing, part, conditions };
        if alone {
            return self.go_alone(start);
        }
        let key = if part { self.range_key(&key) } else { key };
        let mut reader = None;
        let fit = |fill: &Fill| match self.fit(fill, now) {
            Fit::Follow => {
                reader = fill.reader();
                if reader.is_some() { Fit::Follow } else { Fit::Lead }
            }
            other => other,
        };
        match self.cache.flight().join(key, fit, || self.new_fill()) {
            Join::Follow(fill) => reader.map(|reader| Place { fill, reader, leads: false }),
            Join::Lead(permit) => self.lead(permit, start, changes, method, now),
            Join::Alone => self.go_alone(start),
        }
    }

    /// A fill that nobody can join.
    fn go_alone(self: &Arc<Self>, start: Start) -> Option<Place> {
        let fill = self.new_fill();
        let reader = fill.reader()?;
        self.spawn(Arc::clone(&fill), None, start);
        Some(Place { fill, reader, leads: true })
    }

    fn lead(
        self: &Arc<Self>,
        permit: Permit,
        start: Start,
        changes: Option<u32>,
        method: &Method,
        now: Timestamp,
    ) -> Option<Place> {
        let nothing = start.candidate.is_none() && start.completing.is_none();
        // A fill may have been stored and have left the table between the look-up and now.
        if nothing && self.is_stored_by_now(&start.key, changes, method, now) {
            // Whoever has joined since then would wait for a fill that nobody runs.
            permit.fill().settle(Settled::Again);
            return None;
        }
        let fill = Arc::clone(permit.fill());
        let reader = fill.reader()?;
        self.spawn(Arc::clone(&fill), Some(permit), start);
        Some(Place { fill, reader, leads: true })
    }

    /// Whether something is stored by now that answers; `changes` is what was known of them under `key`.
    fn is_stored_by_now(self: &Arc<Self>, key: &Key, changes: Option<u32>, method: &Method, now: Timestamp) -> bool {
        let in_memory = match self.cache.find(&self.route, &self.key, &&self.headers, now) {
            Found::Entry { entry, soft, .. } => {
                !matches!(reuse::reuse(&entry.freshness(), now, &self.directives, soft), Reuse::Revalidate(_))
            }
            _ => false,
        };
        let part = || match self.cache.l1().lookup(&part_key(key)) {
            Some(Slot::Entry(part)) => self.is_part_of_use(&part, now) && self.covers(&part, method),
            _ => false,
        };
        let on_disk = || {
            let disk = self.cache.disk().filter(|disk| changes.is_some_and(|seen| seen != disk.changes.of(key)));
            disk.is_some_and(|disk| !disk.l3.lacks(key))
        };
        in_memory || on_disk() || (self.asked.range && self.cache.has_parts() && part())
    }

    /// What a fill under way is to this request.
    fn fit(&self, fill: &Fill, now: Timestamp) -> Fit {
        if !self.is_current(fill, now)
            || !self.cache.vouches_for_fill(&self.route, fill, self.model.is_some())
            || fill.growing.readers() >= self.cache.followers_max()
        {
            return Fit::Lead;
        }
        match fill.settled() {
            // It would wait in vain: nothing that was asked for before it came is good enough for it.
            None if self.wants_validation() => Fit::Lead,
            Some(Settled::Shared(shared)) if is_for_one(&shared.freshness) => Fit::Alone,
            Some(Settled::Shared(shared)) if !self.may_reuse(&shared.freshness, now) => Fit::Lead,
            _ => Fit::Follow,
        }
    }

    /// Whether a fill has not been overtaken by a purge or an unsafe request.
    fn is_current(&self, fill: &Fill, now: Timestamp) -> bool {
        let log = self.cache.purge_log();
        let untouched = |scopes: &[_]| log.verdict(fill.stamp, scopes) == Standing::Untouched;
        fill.joinable(now)
            && untouched(&fill.scopes)
            && match fill.settled() {
                Some(Settled::Shared(shared)) => untouched(&shared.scopes),
                _ => true,
            }
    }

    /// Whether a response with these deadlines, asked for by another request, may answer this one: a collapsed request
    /// is one answered from the cache (RFC 9111 section 4).
    pub(super) fn may_reuse(&self, freshness: &Freshness, now: Timestamp) -> bool {
        !matches!(reuse::reuse(freshness, now, &self.directives, false), Reuse::Revalidate(_))
    }

    /// Whether the request asks for validation of whatever there is. (All but `immutable`, which shows too late.)
    pub(super) fn wants_validation(&self) -> bool {
        self.directives.wants_validation()
    }

    pub(super) fn new_fill(&self) -> Arc<Fill> {
        // F1: read before the request leaves.
        let noted = (self.cache.purge_log().position(), self.cache.begun());
        let scopes = self.target.scopes(&self.route, &self.key);
        let watch = self.cache.invalidations().watch(scopes[0]);
        Fill::new(noted, scopes, watch, self.cache.new_growing())
    }

    fn range_key(&self, key: &Key) -> Key {
        let mut builder = KeyBuilder::new("range");
        builder.field(key.as_bytes());
        for name in [header::RANGE, header::IF_RANGE] {
            self.headers.get_all(&name).iter().for_each(|line| {
                builder.optional(Some(line.as_bytes()));
            });
            builder.optional(None);
        }
        builder.finish()
    }

    fn spawn(self: &Arc<Self>, fill: Arc<Fill>, permit: Option<Permit>, start: Start) {
        let fetch = Fetch { exchange: Arc::clone(self), start, fill, permit, ticket: None, matching: None };
        // Boxed: the runtime would move it several times before it comes to rest.
        let span = fetch.fill.span();
        tokio::spawn(Box::pin(trace::spanned(span, fetch.run())));
    }

    /// Starts a refresh that nobody waits for, unless one is under way, or as many fills as there may be.
    fn refresh_behind(self: &Arc<Self>, entry: &Arc<Entry>, now: Timestamp) {
        if self.cache.fills_full() {
            return;
        }
        let fit = |fill: &Fill| if self.is_current(fill, now) { Fit::Follow } else { Fit::Lead };
        let joined = self.cache.flight().join(entry.key, fit, || self.new_fill());
        if let Join::Lead(permit) = joined {
            let fill = Arc::clone(permit.fill());
            fill.growing.finish_anyway();
            let candidate = Some(Arc::clone(entry));
            let start = Start { key: entry.key, candidate, completing: None, part: false, conditions: false };
            self.spawn(fill, Some(permit), start);
        }
    }
}

impl<O: Outgoing> Outgoing for Exchange<O> {
    fn departure(&self, client: &HeaderMap) -> Result<Departure, origin::Error> {
        self.outgoing.departure(client)
    }

    fn interim(&self, status: StatusCode, fields: &HeaderMap) {
        self.outgoing.interim(status, fields);
    }

    fn admitted(&self) -> impl Future<Output = Result<(), Refused>> + Send {
        self.outgoing.admitted()
    }
}

/// Whether the request, not the stored response, asks for validation.
fn by_request(why: Why) -> bool {
    matches!(why, Why::RequestNoCache | Why::RequestMaxAge | Why::RequestMinFresh)
}

/// Whether what is received with these deadlines can answer nobody but who asked for it, so that others had better not
/// wait for it.
pub(super) fn is_for_one(freshness: &Freshness) -> bool {
    freshness.flags.has(Flags::NO_CACHE) || freshness.fresh_until.max(freshness.swr_until) <= freshness.born
}
