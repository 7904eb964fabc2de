//! HEAD where nothing fresh is stored: passed on as HEAD, and what it says about the stored GET is taken in
//! (RFC 9111 section 4.3.5).

use std::sync::Arc;

use http::Method;

use super::{
    call::{Answer, Outgoing},
    decide::Exchange,
    failure::Failure,
    fetch::renewed,
    hit,
    outcome::{Forward, Kind, Outcome, Tier},
};
use crate::{
    object::{
        entry::Entry,
        fields,
        merge::{self, Freshening},
        reuse,
        verdict::{self, Facts, Verdict},
    },
    origin::{OriginResponse, RequestBody},
    purge::Standing,
};

impl<O: Outgoing> Exchange<O> {
    pub(super) async fn head(&self, candidate: Option<Arc<Entry>>, forward: Forward) -> Result<Answer, Arc<Failure>> {
        let stamp = self.cache.purge_log().position();
        let requested = self.cache.now();
        let sent = self.cache.send(&*self.outgoing, &Method::HEAD, &self.headers, RequestBody::Empty).await;
        let mut response = match (sent, &candidate) {
            (Ok(response), _) => response,
            (Err(failure), Some(entry)) if self.may_stand_in(entry) => {
                let now = self.cache.now();
                let outcome = Outcome { forward: Some(forward), ..Outcome::of(Kind::StaleOnError(Tier::L1)) };
                let response = hit::from_entry(entry, &self.asking(&Method::HEAD), &outcome, self.cache.name(), now);
                tracing::debug!(%failure, "a stale response stands in for a failed HEAD");
                return Ok(Answer { response, outcome });
            }
            (Err(failure), _) => return Err(failure),
        };
        fields::strip_hop_by_hop(&mut response.headers);
        self.cache.rewrite_response(&self.route, &mut response.headers);
        if let Some(entry) = candidate {
            self.take_in(&entry, &response, stamp, requested);
        }
        self.cache.hide_tags(&self.route, &mut response.headers);
        Ok(self.cache.direct(response, Outcome::forwarded(forward)))
    }

    fn may_stand_in(&self, entry: &Entry) -> bool {
        !entry.head.status.is_server_error() && reuse::on_error(&entry.freshness, self.cache.now(), &self.directives)
    }

    /// Freshens the stored GET, or drops it where the HEAD shows that it is no longer what the origin would send.
    fn take_in(
        &self,
        entry: &Arc<Entry>,
        response: &OriginResponse,
        stamp: crate::object::scope::Position,
        requested: crate::object::time::Timestamp,
    ) {
        let length = entry.body.len() as u64;
        let freshening =
            merge::head_response(&entry.head, &entry.validators, length, response.status, &response.headers);
        let head = match freshening {
            Freshening::Updated(head) => head,
            Freshening::Untouched => return,
            Freshening::Stale => return self.cache.l1().remove(&entry.key),
        };
        let now = self.cache.now();
        let facts = Facts {
            method: &Method::GET,
            request_no_store: false,
            authorization: self.headers.contains_key(http::header::AUTHORIZATION),
            partitioned: self.route.partitions(&self.headers),
            range_requested: false,
            request_time: requested,
            response_time: now,
            jitter: 0.0,
        };
        let untouched = self.cache.purge_log().verdict(entry.stamp, &entry.scopes) == Standing::Untouched;
        if let (true, Verdict::Store(freshness)) =
            (untouched, verdict::verdict(&facts, head.status, &head.to_map(), &self.route.rules))
        {
            self.cache.insert(Arc::new(renewed(entry, head, freshness, stamp, now)), None);
        }
    }
}
