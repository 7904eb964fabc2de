//! The decisions on one request, from look-up to answer.
//!
//! ```text
//!              ┌─ fresh ──────────────────────────▶ hit
//!  look up ────┼─ stale, refresh allowed behind ──▶ hit, and a fill in the background
//!              ├─ stale otherwise ─┐
//!              ├─ nothing ─────────┼─▶ join: lead a fill, or follow one ─▶ its head ─▶ answer
//!              └─ hit-for-miss ────┴─▶ a fill of its own
//! ```

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use tokio::time::Instant;

use super::{
    Cache,
    asked::Asked,
    call::{Answer, Call, Outgoing},
    failure::Failure,
    fetch::Fetch,
    fill::{Fill, Settled, Shared},
    flight::{Join, Permit},
    hit::{self, Asking},
    key_body,
    outcome::{Forward, Kind, Outcome, Tier},
    part_key,
    route::{Class, Route},
    target::{Target, View, stored_method},
};
use crate::{
    object::{
        directives::RequestDirectives,
        entry::Entry,
        freshness::Flags,
        key::Key,
        range,
        reuse::{self, Reuse, Why},
        scope::Position,
        time::Timestamp,
        vary::{self, Variants, Vary},
    },
    origin::RequestBody,
    purge::Standing,
    store::Slot,
};

/// How often a follower may be sent back to the start (another variant, a purge) before it goes by itself.
const REJOINS_MAX: u8 = 3;

/// What the tiers hold for a request.
pub(super) enum Found {
    /// A response that may be used, fresh or not.
    Entry { entry: Arc<Entry>, soft: bool },
    /// Only other variants; the key under which this one would be.
    OtherVariant(Key),
    /// Known to be not storable lately.
    HitForMiss,
    /// Nothing.
    Nothing,
}

/// One request on its way through the decisions.
pub(super) struct Exchange<O> {
    pub(super) cache: Cache,
    pub(super) route: Arc<Route>,
    pub(super) target: Target,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) asked: Asked,
    pub(super) directives: RequestDirectives,
    pub(super) key: Key,
    pub(super) body: Option<Bytes>,
    pub(super) outgoing: Arc<O>,
    /// Position of the purge log when the request arrived (rule F3).
    pub(super) arrived: Position,
}

impl Cache {
    /// What L1 holds for `key` and these request fields, purges applied (rule I1).
    pub(super) fn find(&self, route: &Route, key: &Key, headers: &HeaderMap, now: Timestamp) -> Found {
        match self.l1().lookup(key) {
            None => Found::Nothing,
            Some(Slot::HitForMiss(until)) if now < until => Found::HitForMiss,
            Some(Slot::HitForMiss(_)) => Found::Nothing,
            Some(Slot::Entry(entry)) => self.standing(entry, Found::Nothing),
            Some(Slot::Variants(variants)) => self.find_variant(route, key, &variants, headers, now),
        }
    }

    fn find_variant(
        &self,
        route: &Route,
        key: &Key,
        variants: &Variants,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Found {
        let other = || {
            let latest = variants.iter().next();
            let expected = latest.map(|known| vary::variant_key(key, known.fields(), headers, self.comparing(route)));
            Found::OtherVariant(expected.unwrap_or(*key))
        };
        let Some(selected) = variants.select(key, headers, self.comparing(route)) else { return other() };
        match self.l1().lookup(&selected) {
            Some(Slot::Entry(entry)) => self.standing(entry, other()),
            Some(Slot::HitForMiss(until)) if now < until => Found::HitForMiss,
            _ => other(),
        }
    }

    fn standing(&self, entry: Arc<Entry>, otherwise: Found) -> Found {
        match self.purge_log().standing(&entry) {
            Standing::Untouched => Found::Entry { entry, soft: false },
            Standing::Soft => Found::Entry { entry, soft: true },
            Standing::Hard => {
                self.l1().remove(&entry.key);
                otherwise
            }
        }
    }

    /// Answers at once what can be: a fresh response in memory. Everything else takes [`Cache::call`].
    pub fn hit(
        &self,
        route: &Route,
        target: View<'_>,
        method: &Method,
        headers: &HeaderMap,
        at: Instant,
    ) -> Option<Answer> {
        let class = route.class(method);
        if !matches!(class, Class::Get | Class::Head) || route.bypass() {
            return None;
        }
        let asked = Asked::of(headers);
        let directives = self.directives(route, headers, asked);
        if directives.no_store || asked.for_origin {
            return None;
        }
        let now = self.inner.clock.at(at);
        let key = target.key(route, self.secret(), headers, class, None);
        let Found::Entry { entry, soft } = self.find(route, &key, headers, now) else { return None };
        if reuse::reuse(&entry.freshness, now, &directives, soft) != Reuse::Fresh {
            return None;
        }
        let outcome = Outcome::hit(Tier::L1, seconds(entry.freshness.ttl(now)));
        let response = hit::from_entry(&entry, &Asking { method, headers, asked }, &outcome, self.name(), now);
        Some(Answer { response, outcome })
    }

    /// Answers a request, whatever it takes.
    ///
    /// # Errors
    /// Where no answer can be had: the origin failed and nothing stored may stand in for it.
    pub async fn call<O: Outgoing>(&self, call: Call<O>) -> Result<Answer, Arc<Failure>> {
        let class = call.route.class(&call.method);
        let asked = Asked::of(&call.headers);
        let directives = self.directives(&call.route, &call.headers, asked);
        if call.route.bypass() {
            return self.pass(call, Forward::Bypass).await;
        }
        // What must not be answered from here must not be forwarded either (RFC 9111 section 5.2.1.7).
        if directives.only_if_cached && (directives.no_store || asked.for_origin) && class != Class::Other {
            return Err(Arc::new(Failure::OnlyIfCached));
        }
        if directives.no_store || asked.for_origin {
            return self.pass(call, Forward::Request).await;
        }
        match class {
            Class::Other => self.pass(call, Forward::Method).await,
            // Content of a GET or HEAD has no meaning, so it is no part of the key; whoever sends some is on its own.
            Class::Get | Class::Head if !matches!(call.body, RequestBody::Empty) => {
                self.pass(call, Forward::Bypass).await
            }
            Class::Get | Class::Head => self.exchange(call, class, asked, directives, None).await,
            Class::WithBody => self.call_with_body(call, asked, directives).await,
        }
    }

    /// QUERY, and POST where it is part of the cache: the body is read first, for the key.
    async fn call_with_body<O: Outgoing>(
        &self,
        mut call: Call<O>,
        asked: Asked,
        directives: RequestDirectives,
    ) -> Result<Answer, Arc<Failure>> {
        let max = call.route.policy.key_body_bytes_max.as_u64();
        let body = std::mem::replace(&mut call.body, RequestBody::Empty);
        match key_body::collect(body, max).await.map_err(|error| Arc::new(Failure::RequestBody(error)))? {
            Ok(body) => self.exchange(call, Class::WithBody, asked, directives, Some(body)).await,
            // Too large for a key: what was read goes along with the rest.
            Err(rest) => {
                call.body = rest;
                self.pass(call, Forward::Bypass).await
            }
        }
    }

    async fn exchange<O: Outgoing>(
        &self,
        call: Call<O>,
        class: Class,
        asked: Asked,
        directives: RequestDirectives,
        body: Option<Bytes>,
    ) -> Result<Answer, Arc<Failure>> {
        let content = body.as_deref().map(|body| (&call.method, body));
        let key = call.target.key(&call.route, self.secret(), &call.headers, class, content);
        let exchange = Exchange {
            cache: self.clone(),
            method: stored_method(class, &call.method),
            route: call.route,
            target: call.target,
            headers: call.headers,
            asked,
            directives,
            key,
            body,
            outgoing: Arc::new(call.outgoing),
            arrived: self.purge_log().position(),
        };
        exchange.run(call.method).await
    }

    pub(super) fn directives(&self, route: &Route, headers: &HeaderMap, asked: Asked) -> RequestDirectives {
        if asked.directives && route.policy.request_directives {
            RequestDirectives::of(headers)
        } else {
            RequestDirectives::default()
        }
    }
}

impl<O: Outgoing> Exchange<O> {
    async fn run(self, method: Method) -> Result<Answer, Arc<Failure>> {
        let mut alone = !self.route.policy.coalesce;
        let mut rejoins = 0;
        loop {
            let now = self.cache.now();
            let (candidate, forward) = match self.look_up(&method, now) {
                Looked::Answer(answer) => return Ok(answer),
                Looked::Forward(candidate, forward) => (candidate, forward),
            };
            if self.directives.only_if_cached {
                return Err(Arc::new(Failure::OnlyIfCached));
            }
            if method == Method::HEAD {
                return self.head(candidate, forward).await;
            }
            alone |= forward == Forward::HitForMiss || rejoins >= REJOINS_MAX;
            alone |= candidate.as_ref().is_some_and(|entry| entry.freshness.flags.has(Flags::NO_CACHE));
            if self.cache.metrics().fills_running() >= self.cache.fills_max() {
                return self.pass(method, forward).await;
            }
            let Some(place) = self.take_place(alone, candidate, &method, now) else { continue };
            match self.answer(place, forward, &method).await {
                Next::Done(result) => return result,
                Next::Again => rejoins += 1,
                Next::Alone => alone = true,
            }
        }
    }

    /// More fills than there may be: this one goes through, uncached.
    async fn pass(self, method: Method, forward: Forward) -> Result<Answer, Arc<Failure>> {
        let call = Call {
            route: self.route,
            target: self.target,
            method,
            headers: self.headers,
            body: self.body.map_or(RequestBody::Empty, RequestBody::Bytes),
            outgoing: self.outgoing,
        };
        self.cache.pass(call, forward).await
    }

    /// Answers from the tiers, or says why the request has to be forwarded.
    fn look_up(&self, method: &Method, now: Timestamp) -> Looked {
        let (candidate, forward) = match self.cache.find(&self.route, &self.key, &self.headers, now) {
            Found::Entry { entry, soft } => match reuse::reuse(&entry.freshness, now, &self.directives, soft) {
                Reuse::Fresh => return Looked::Answer(self.stored(&entry, Kind::Hit(Tier::L1), method, now)),
                Reuse::Stale => return Looked::Answer(self.stored(&entry, Kind::StaleHit(Tier::L1), method, now)),
                Reuse::StaleWhileRevalidate => {
                    self.refresh_behind(&entry, now);
                    return Looked::Answer(self.stored(&entry, Kind::StaleHit(Tier::L1), method, now));
                }
                Reuse::Revalidate(why) => {
                    (Some(entry), if by_request(why) { Forward::Request } else { Forward::Stale })
                }
            },
            Found::OtherVariant(_) => (None, Forward::VaryMiss),
            Found::HitForMiss => (None, Forward::HitForMiss),
            Found::Nothing => (None, Forward::UriMiss),
        };
        match self.part(now) {
            Some(part) if candidate.is_none() && self.asked.range => {
                let cut = part.part.and_then(|range| {
                    range::from_part(&self.headers, method, &part.validators, &range, part.body.len())
                });
                match cut {
                    Some(_) => Looked::Answer(self.stored(&part, Kind::Hit(Tier::L1), method, now)),
                    None => Looked::Forward(None, Forward::Partial),
                }
            }
            Some(_) if candidate.is_none() => Looked::Forward(None, Forward::Partial),
            _ => Looked::Forward(candidate, forward),
        }
    }

    /// A stored, fresh part of what is asked for.
    fn part(&self, now: Timestamp) -> Option<Arc<Entry>> {
        if !self.cache.has_parts() {
            return None;
        }
        let Some(Slot::Entry(part)) = self.cache.l1().lookup(&part_key(&self.flight_key(now))) else { return None };
        let untouched = self.cache.purge_log().standing(&part) == Standing::Untouched;
        let fresh = reuse::reuse(&part.freshness, now, &self.directives, false) == Reuse::Fresh;
        (part.part.is_some() && untouched && fresh).then_some(part)
    }

    fn stored(&self, entry: &Arc<Entry>, kind: Kind, method: &Method, now: Timestamp) -> Answer {
        let outcome = Outcome { ttl: Some(ttl(entry, now)), ..Outcome::of(kind) };
        let response = hit::from_entry(entry, &self.asking(method), &outcome, self.cache.name(), now);
        Answer { response, outcome }
    }

    pub(super) fn asking<'a>(&'a self, method: &'a Method) -> Asking<'a> {
        Asking { method, headers: &self.headers, asked: self.asked }
    }

    /// The key under which identical requests meet: the variant's where one is known.
    fn flight_key(&self, now: Timestamp) -> Key {
        match self.cache.find(&self.route, &self.key, &self.headers, now) {
            Found::Entry { entry, .. } => entry.key,
            Found::OtherVariant(key) => key,
            Found::HitForMiss | Found::Nothing => self.key,
        }
    }

    /// Joins a fill under way, or starts one. `None`: something was stored meanwhile, look again.
    fn take_place(&self, alone: bool, candidate: Option<Arc<Entry>>, method: &Method, now: Timestamp) -> Option<Place> {
        let key = candidate.as_ref().map_or_else(|| self.flight_key(now), |entry| entry.key);
        let running = self.cache.flight().running(&key).is_some();
        let part = self.asked.range && candidate.is_none() && !running;
        let completing = if self.asked.range || candidate.is_some() { None } else { self.part(now) };
        if alone {
            let fill = self.new_fill();
            let reader = fill.reader()?;
            self.spawn(Arc::clone(&fill), None, candidate, completing, part);
            return Some(Place { fill, reader, leads: true });
        }
        let key = if part { self.range_key(&key) } else { key };
        let mut reader = None;
        let joined = self.cache.flight().join(
            key,
            |fill| {
                reader = self.fits(fill, now).then(|| fill.reader()).flatten();
                reader.is_some()
            },
            || self.new_fill(),
        );
        match joined {
            Join::Follow(fill) => reader.map(|reader| Place { fill, reader, leads: false }),
            Join::Lead(permit) => self.lead(permit, candidate, completing, part, method, now),
        }
    }

    fn lead(
        &self,
        permit: Permit,
        candidate: Option<Arc<Entry>>,
        completing: Option<Arc<Entry>>,
        part: bool,
        method: &Method,
        now: Timestamp,
    ) -> Option<Place> {
        // A fill may have been stored and have left the table between the look-up and now.
        if candidate.is_none() && completing.is_none() && matches!(self.look_up(method, now), Looked::Answer(_)) {
            // Whoever has joined since then would wait for a fill that nobody runs.
            permit.fill().settle(Settled::Again);
            return None;
        }
        let fill = Arc::clone(permit.fill());
        let reader = fill.reader()?;
        self.spawn(Arc::clone(&fill), Some(permit), candidate, completing, part);
        Some(Place { fill, reader, leads: true })
    }

    fn fits(&self, fill: &Fill, now: Timestamp) -> bool {
        let log = self.cache.purge_log();
        let untouched = |scopes: &[_]| log.verdict(fill.stamp, scopes) == Standing::Untouched;
        fill.joinable(now)
            && fill.growing.readers() < self.cache.followers_max()
            && untouched(&fill.scopes)
            && match fill.settled() {
                Some(Settled::Shared(shared)) => untouched(&shared.scopes),
                _ => true,
            }
    }

    fn new_fill(&self) -> Arc<Fill> {
        // F1: read before the request leaves.
        let stamp = self.cache.purge_log().position();
        Fill::new(stamp, self.target.scopes(&self.route, &self.key), self.cache.new_growing())
    }

    fn range_key(&self, key: &Key) -> Key {
        let mut builder = crate::object::key::KeyBuilder::new("range");
        builder.field(key.as_bytes());
        for name in [header::RANGE, header::IF_RANGE] {
            builder.optional(self.headers.get(name).map(|value| value.as_bytes()));
        }
        builder.finish()
    }

    fn spawn(
        &self,
        fill: Arc<Fill>,
        permit: Option<Permit>,
        candidate: Option<Arc<Entry>>,
        completing: Option<Arc<Entry>>,
        part: bool,
    ) {
        let fetch = Fetch {
            cache: self.cache.clone(),
            route: Arc::clone(&self.route),
            target: self.target.clone(),
            primary: self.key,
            method: self.method.clone(),
            client: self.headers.clone(),
            body: self.body.clone(),
            directives: self.directives,
            outgoing: Arc::clone(&self.outgoing),
            candidate,
            completing,
            part,
            fill,
            permit,
        };
        tokio::spawn(fetch.run());
    }

    /// Starts a refresh that nobody waits for, unless one is under way.
    fn refresh_behind(&self, entry: &Arc<Entry>, now: Timestamp) {
        let joined = self.cache.flight().join(entry.key, |fill| self.fits(fill, now), || self.new_fill());
        if let Join::Lead(permit) = joined {
            let fill = Arc::clone(permit.fill());
            self.spawn(fill, Some(permit), Some(Arc::clone(entry)), None, false);
        }
    }

    /// Waits for the head and answers as it came out.
    async fn answer(&self, place: Place, forward: Forward, method: &Method) -> Next {
        let Place { fill, reader, leads } = place;
        // To the leader alone: of the others nobody knows yet whether the response is for them.
        let waiting = fill.head(|interim| {
            if leads {
                self.outgoing.interim(interim.status, &interim.fields);
            }
        });
        let settled = if leads {
            waiting.await
        } else {
            let _waiting = self.cache.metrics().follower_waiting();
            match tokio::time::timeout(self.cache.follow_timeout(), waiting).await {
                Ok(settled) => settled,
                Err(_) => return Next::Alone,
            }
        };
        match settled {
            Settled::Shared(shared) => self.answer_shared(&fill, &shared, reader, leads, forward, method),
            Settled::Entry { entry, kind, status } => self.answer_entry(&entry, kind, status, leads, forward, method),
            Settled::Released { reason } if leads => match fill.take_direct() {
                Some(response) => {
                    let outcome = Outcome { detail: Some(reason), ..Outcome::forwarded(forward) };
                    Next::Done(Ok(self.cache.direct(response, outcome)))
                }
                None => Next::Alone,
            },
            Settled::Released { .. } => Next::Alone,
            Settled::Again => Next::Again,
            Settled::Failed(failure) => Next::Done(Err(failure)),
        }
    }

    fn answer_shared(
        &self,
        fill: &Fill,
        shared: &Shared,
        reader: super::growing::Reader,
        leads: bool,
        forward: Forward,
        method: &Method,
    ) -> Next {
        if !leads {
            if !self.same_variant(shared) || self.purged_before_arrival(fill, shared) {
                return Next::Again;
            }
            if shared.freshness.flags.has(Flags::NO_CACHE) {
                return Next::Alone;
            }
        }
        // Broken off before a byte went to the client: it can still be told so.
        if let Some(failure) = reader.failure() {
            return Next::Done(Err(failure));
        }
        let now = self.cache.now();
        let outcome = Outcome {
            forward_status: (forward == Forward::Stale).then_some(shared.status.as_u16()),
            ttl: Some(seconds(shared.freshness.ttl(now))),
            stored: true,
            collapsed: !leads,
            ..Outcome::forwarded(forward)
        };
        let mut fields = shared.fields.clone();
        fields.append(super::CACHE_STATUS, outcome.cache_status(self.cache.name()));
        let response = hit::from_shared(shared, reader, &self.asking(method), fields);
        Next::Done(Ok(Answer { response, outcome }))
    }

    fn same_variant(&self, shared: &Shared) -> bool {
        let Vary::Fields(names) = &shared.vary else { return true };
        let own = vary::variant_key(&self.key, names, &self.headers, self.cache.comparing(&self.route));
        shared.key == if shared.part { part_key(&own) } else { own }
    }

    /// F3, now that the tags are known: a purge that was applied before this request came.
    fn purged_before_arrival(&self, fill: &Fill, shared: &Shared) -> bool {
        let latest = self.cache.purge_log().latest(&shared.scopes);
        latest > fill.stamp && latest <= self.arrived
    }

    fn answer_entry(
        &self,
        entry: &Arc<Entry>,
        kind: Kind,
        status: Option<u16>,
        leads: bool,
        forward: Forward,
        method: &Method,
    ) -> Next {
        if !leads && entry.freshness.flags.has(Flags::NO_CACHE) {
            return Next::Alone;
        }
        let now = self.cache.now();
        let outcome = Outcome {
            forward: Some(forward),
            forward_status: status,
            ttl: Some(ttl(entry, now)),
            stored: kind == Kind::Revalidated,
            collapsed: !leads,
            ..Outcome::of(kind)
        };
        let response = hit::from_entry(entry, &self.asking(method), &outcome, self.cache.name(), now);
        Next::Done(Ok(Answer { response, outcome }))
    }
}

/// What a look-up led to.
enum Looked {
    Answer(Answer),
    Forward(Option<Arc<Entry>>, Forward),
}

/// A place among those who wait for a fill; the reader makes sure that the first byte is still there.
struct Place {
    fill: Arc<Fill>,
    reader: super::growing::Reader,
    leads: bool,
}

/// How a request goes on after the head.
enum Next {
    Done(Result<Answer, Arc<Failure>>),
    /// From the start: another variant, or purged meanwhile.
    Again,
    /// With a fill of its own.
    Alone,
}

/// Whether the request, not the stored response, asks for validation.
fn by_request(why: Why) -> bool {
    matches!(why, Why::RequestNoCache | Why::RequestMaxAge | Why::RequestMinFresh)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds of freshness left, negative where it is stale.
fn ttl(entry: &Entry, now: Timestamp) -> i64 {
    if entry.freshness.is_fresh(now) {
        seconds(entry.freshness.ttl(now))
    } else {
        -seconds(now.since(entry.freshness.fresh_until))
    }
}
