//! HEAD where nothing fresh is stored: passed on as HEAD, and what it says about the stored GET is taken in
//! (RFC 9111 section 4.3.5).

use std::sync::Arc;

use http::Method;

use super::{
    call::{Answer, Outgoing},
    exchange::Exchange,
    failure::Failure,
    judge::Renewed,
    outcome::{Forward, Kind, Outcome, Tier},
};
use crate::{
    object::{
        entry::Entry,
        fields,
        merge::{self, Freshening},
        scope::Position,
        time::Timestamp,
    },
    origin::{OriginResponse, RequestBody},
    purge::Standing,
    store::l2::Begun,
};

impl<O: Outgoing> Exchange<O> {
    pub(super) async fn head(&self, candidate: Option<Arc<Entry>>, forward: Forward) -> Result<Answer, Arc<Failure>> {
        let (stamp, begun) = (self.cache.purge_log().position(), self.cache.begun());
        let requested = self.cache.now();
        let sent = self.cache.send(&self.outgoing, &Method::HEAD, &self.headers, RequestBody::Empty).await;
        let mut response = match (sent, &candidate) {
            (Ok(response), _) => response,
            (Err(failure), Some(entry)) if self.may_stand_in(entry) => {
                let now = self.cache.now();
                let outcome = Outcome { forward: Some(forward), ..Outcome::of(Kind::StaleOnError(Tier::of(entry))) };
                tracing::debug!(%failure, "a stale response stands in for a failed HEAD");
                return Ok(self.served(entry, outcome, &Method::HEAD, now));
            }
            (Err(failure), _) => return Err(failure),
        };
        fields::strip_hop_by_hop(&mut response.headers);
        self.cache.rewrite_response(&self.route, &mut response.headers);
        if let Some(entry) = candidate {
            self.take_in(&entry, &response, (stamp, begun), requested);
        }
        self.cache.hide_tags(&self.route, &mut response.headers);
        Ok(self.cache.direct(response, Outcome::forwarded(forward)))
    }

    /// Freshens the stored GET, or drops it where the HEAD shows that it is no longer what the origin would send.
    fn take_in(
        &self,
        old: &Arc<Entry>,
        response: &OriginResponse,
        (stamp, begun): (Position, Begun),
        requested: Timestamp,
    ) {
        let length = old.length();
        let fields =
            match merge::head_response(&old.head, &old.validators(), length, response.status, &response.headers) {
                Freshening::Updated(fields) => fields,
                Freshening::Untouched => return,
                Freshening::Stale => {
                    self.cache.withdraw(&self.route, old, begun);
                    return self.cache.remove(old);
                }
            };
        if self.cache.purge_log().verdict(old.stamp, &old.scopes()) != Standing::Untouched {
            return;
        }
        let facts = self.facts(false, requested, self.cache.now());
        if let Ok(Renewed { entry, .. }) = self.renewed(old, old.head.status, &fields, facts, stamp) {
            self.cache.renew(old, &Arc::new(entry.pack()), None, &self.route);
        }
    }
}
