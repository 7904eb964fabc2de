//! Waiting for the head of a fill, and the answer that it makes for one of those who wait.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::{HeaderMap, Method, Response, header};

use super::{
    body::Body,
    call::{Answer, Outgoing},
    config::ClientGone,
    exchange::Exchange,
    failure::Failure,
    fill::{Fill, Settled, Shared, Stored},
    growing::Reader,
    hit,
    llm::{Asking, SEMANTIC},
    outcome::{Forward, Kind, Outcome, Tier},
    part_key, seconds, ttl,
};
use crate::{
    object::{
        entry::Entry,
        vary::{self, Vary},
    },
    purge::Standing,
    telemetry::trace::{self, Kind as Role},
};

/// A place among those who wait for a fill; the reader makes sure that the first byte is still there.
pub(super) struct Place {
    pub(super) fill: Arc<Fill>,
    pub(super) reader: Reader,
    pub(super) leads: bool,
}

/// How a request goes on after the head.
#[expect(clippy::large_enum_variant, reason = "made once for a request, and taken apart at once")]
pub(super) enum Next {
    Done(Result<Answer, Arc<Failure>>),
    /// From the start: another variant, or purged meanwhile.
    Again,
    /// From the start: who led may not ask the origin.
    LeaderRefused,
    /// With a fill of its own.
    Alone,
}

impl<O: Outgoing> Exchange<O> {
    /// Waits for the head and answers as it came out.
    pub(super) async fn answer(&self, place: Place, forward: Forward, method: &Method) -> Next {
        let Place { fill, reader, leads } = place;
        // To the leader alone: of the others nobody knows yet whether the response is for them.
        let waiting = fill.head(|interim| {
            if leads {
                self.outgoing.interim(interim.status, &interim.fields);
            }
        });
        // A model thinks for minutes: who goes by itself meanwhile pays twice and is not sooner there.
        let following = if leads { None } else { trace::child("follow", Role::Internal) };
        let _waiting = (!leads).then(|| self.cache.metrics().follower_waiting());
        let settled = if leads || self.model.is_some() {
            waiting.await
        } else {
            match tokio::time::timeout(self.cache.follow_timeout(), waiting).await {
                Ok(settled) => settled,
                Err(_) => return Next::Alone,
            }
        };
        fill.followed(following);
        let mut next = match settled {
            Settled::Shared(shared) => self.answer_shared(&fill, &shared, reader, leads, forward, method),
            Settled::Stored(stored) => self.answer_stored(stored, leads, forward, method),
            Settled::Released { reason } if leads => match fill.take_direct() {
                Some(response) => {
                    let outcome = Outcome { detail: Some(reason), ..Outcome::forwarded(forward) };
                    Next::Done(Ok(self.heard(self.cache.direct(response, outcome))))
                }
                None => Next::Alone,
            },
            Settled::Released { .. } => Next::Alone,
            Settled::Refused { failure, stale } if leads => {
                Next::Done(self.answer_failed(failure, stale, leads, forward, method))
            }
            Settled::Refused { .. } => Next::LeaderRefused,
            Settled::Again => Next::Again,
            Settled::Failed { failure, stale } => {
                Next::Done(self.answer_failed(failure, stale, leads, forward, method))
            }
        };
        if let (Next::Done(Ok(answer)), Some(told)) = (&mut next, fill.similar())
            && self.model.as_ref().is_some_and(|model| model.matcher().is_some())
        {
            answer.response.headers_mut().insert(SEMANTIC, told.clone());
        }
        next
    }

    fn answer_shared(
        &self,
        fill: &Fill,
        shared: &Shared,
        reader: Reader,
        leads: bool,
        forward: Forward,
        method: &Method,
    ) -> Next {
        if !leads {
            if !self.same_variant(shared) || self.purged_since(fill, shared) {
                return Next::Again;
            }
            if !self.may_reuse(&shared.freshness, self.cache.now()) {
                return Next::Alone;
            }
        }
        // Broken off before a byte went to the client: it can still be told so.
        if let Some(failure) = reader.failure() {
            return Next::Done(Err(failure));
        }
        let now = self.cache.now();
        let stored = self.model.as_ref().is_none_or(|model| model.keeps(shared.status));
        if !leads {
            fill.followers.fetch_add(1, Relaxed);
        }
        let outcome = Outcome {
            forward_status: (forward == Forward::Stale).then_some(shared.status.as_u16()),
            ttl: Some(seconds(shared.freshness.ttl(now))),
            stored,
            collapsed: !leads,
            ..Outcome::forwarded(forward)
        };
        let mut fields = shared.fields.clone();
        if !leads {
            // What it is to be answered from is the stored response, as a moment later it would have been.
            shared.withheld.iter().for_each(|name| drop(fields.remove(name)));
            fields.insert(header::AGE, shared.freshness.age(now).as_secs().into());
        }
        fields.append(super::CACHE_STATUS, outcome.cache_status(self.cache.name()));
        let response = self.shaped(fill, shared, reader, method, fields);
        Next::Done(Ok(Answer { response, outcome }))
    }

    /// The answer to this request. One without a body is all that its client wanted: to have it is not to have gone.
    fn shaped(
        &self,
        fill: &Fill,
        shared: &Shared,
        reader: Reader,
        method: &Method,
        fields: HeaderMap,
    ) -> Response<Body> {
        let cancels = self.route.policy.client_gone == ClientGone::Cancel;
        let _still_read = if cancels { fill.reader() } else { None };
        let response = hit::from_shared(shared, reader, &self.asking(method), fields);
        if cancels && matches!(response.body(), Body::Empty) {
            fill.growing.finish_anyway();
        }
        response
    }

    fn same_variant(&self, shared: &Shared) -> bool {
        let Vary::Fields(names) = &shared.vary else { return true };
        let own = vary::variant_key(&self.key, names, &self.headers, self.cache.comparing(&self.route));
        shared.key == if shared.part { part_key(&own) } else { own }
    }

    /// F3, now that the tags are known: of several purges some may have been applied before this request came. Where
    /// none was, it gets a newer response than it could ask for.
    fn purged_since(&self, fill: &Fill, shared: &Shared) -> bool {
        self.cache.purge_log().latest(&shared.scopes) > fill.stamp
    }

    fn answer_stored(&self, stored: Stored, leads: bool, forward: Forward, method: &Method) -> Next {
        let Stored { leader, others, kind, status } = stored;
        // Not every one who asks the same takes what is only similar.
        let similar = matches!(kind, Kind::Hit(tier) if tier != Tier::L2);
        if similar && !self.model.as_ref().is_some_and(Asking::takes_similar) {
            return Next::Alone;
        }
        let entry = match others {
            _ if leads => leader,
            Some(entry) if self.is_for_followers(&entry, kind) => entry,
            Some(entry) if self.was_purged(&entry, kind) => return Next::Again,
            _ => return Next::Alone,
        };
        let outcome = if matches!(kind, Kind::Hit(_)) {
            let ttl = Some(ttl(&entry, self.cache.now()));
            Outcome { ttl, detail: similar.then_some("semantic"), ..Outcome::of(kind) }
        } else {
            let stored = kind == Kind::Revalidated;
            Outcome { forward_status: status, stored, ..self.outcome_of(&entry, kind, leads, forward) }
        };
        Next::Done(Ok(self.served(&entry, outcome, method, self.cache.now())))
    }

    /// Whether a follower may have what the leader's request brought: what it asked for itself counts, and what has
    /// happened since.
    fn is_for_followers(&self, entry: &Entry, kind: Kind) -> bool {
        let allowed = match kind {
            Kind::StaleOnError(_) => self.may_stand_in(entry),
            _ => self.may_reuse(&entry.freshness(), self.cache.now()),
        };
        allowed && !self.was_purged(entry, kind)
    }

    /// A stale response is no worse for a soft purge.
    fn was_purged(&self, entry: &Entry, kind: Kind) -> bool {
        match self.cache.purge_log().verdict(entry.stamp, &entry.scopes()) {
            Standing::Untouched => false,
            Standing::Soft => !matches!(kind, Kind::StaleOnError(_)),
            Standing::Hard => true,
        }
    }

    /// No response: a stale one may still do (RFC 9111 section 4.2.4), as this request allows it.
    fn answer_failed(
        &self,
        failure: Arc<Failure>,
        stale: Option<Arc<Entry>>,
        leads: bool,
        forward: Forward,
        method: &Method,
    ) -> Result<Answer, Arc<Failure>> {
        let Some(entry) = stale.filter(|entry| self.may_stand_in(entry)) else { return Err(failure) };
        let outcome = self.outcome_of(&entry, Kind::StaleOnError(Tier::of(&entry)), leads, forward);
        tracing::debug!(%failure, "a stale response stands in");
        Ok(self.served(&entry, outcome, method, self.cache.now()))
    }

    fn outcome_of(&self, entry: &Entry, kind: Kind, leads: bool, forward: Forward) -> Outcome {
        let ttl = Some(ttl(entry, self.cache.now()));
        Outcome { forward: Some(forward), ttl, collapsed: !leads, ..Outcome::of(kind) }
    }
}
