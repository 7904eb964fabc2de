//! The body of a fill: shared while it arrives, stored when it is complete.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::{
    call::Outgoing,
    config::ClientGone,
    failure::Failure,
    fetch::Fetch,
    fill::{Settled, Shared},
    plan::Plan,
    refused::Refused,
};
use crate::{
    object::{
        entry::Unpacked,
        vary::{Variant, Vary},
    },
    origin::{OriginBody, OriginResponse},
    purge::Standing,
};

impl<O: Outgoing> Fetch<O> {
    /// Shows a storable response to all who wait, who read its body while it arrives; that is for [`Fetch::pump`].
    pub(super) fn share(mut self, response: OriginResponse, plan: Plan) -> (Self, OriginBody, Plan) {
        let exchange = Arc::clone(&self.exchange);
        let mut fields = response.headers;
        exchange.cache.hide_tags(&exchange.route, &mut fields);
        if let Vary::Fields(names) = &plan.vary {
            let (comparing, now) = (exchange.cache.comparing(&exchange.route), exchange.cache.now());
            let variant = Variant::new(&exchange.key, names, &exchange.headers, &plan.head, comparing, now);
            exchange.cache.remember_variant(&exchange.key, &exchange.route, &variant);
        }
        if let Some(permit) = &mut self.permit {
            permit.move_to(if plan.part.is_some() { permit.key } else { plan.key });
        }
        self.fill.settle(Settled::Shared(Arc::new(Shared {
            status: response.status,
            fields,
            withheld: plan.withheld.clone(),
            validators: plan.validators.clone(),
            freshness: plan.freshness,
            length: plan.length,
            part: plan.part.is_some(),
            vary: plan.vary.clone(),
            key: plan.key,
            scopes: Arc::clone(&plan.scopes),
        })));
        (self, response.body, plan)
    }

    /// Moves the body from the origin to those who read it, and to the cache.
    pub(super) async fn pump(mut self, mut body: OriginBody, plan: Plan) {
        let exchange = Arc::clone(&self.exchange);
        let limit = exchange.cache.object_bytes_max(&exchange.route);
        let mut storable = true;
        let mut trailers = None;
        // What ends the body, held back until the rest is stored: who has the last byte may ask again at once.
        let mut last = Bytes::new();
        loop {
            let keep = storable && exchange.route.policy.client_gone == ClientGone::Finish;
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = self.fill.growing.abandoned(), if !keep => {
                    // Out of the table first: then nobody joins any more, and who has joined meanwhile still counts.
                    self.permit = None;
                    if self.fill.growing.readers() == 0 {
                        return self.broken(Failure::GivenUp);
                    }
                    continue;
                }
            };
            let Some(frame) = frame else { break };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return self.broken(error.into()),
            };
            match frame.into_data() {
                Ok(data) if body.is_end_stream() => last = data,
                Ok(data) => {
                    if self.fill.growing.push(data).await.is_err() {
                        return self.broken(Failure::GivenUp);
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if storable && self.fill.growing.len() + last.len() as u64 > limit {
                storable = false;
                self.fill.growing.stop_keeping();
                self.refused(&plan.key, Refused::TooLarge, plan.head.status);
                self.permit = None;
            }
        }
        let whole = if storable { self.fill.growing.contiguous(&last).await } else { None };
        let stored = whole.is_some();
        match &whole {
            Some(body) => self.commit(body.clone(), plan),
            None if self.fill.growing.push(std::mem::take(&mut last)).await.is_err() => {
                return self.broken(Failure::GivenUp);
            }
            None => {}
        }
        // Stored first: who sees the end and asks again finds it.
        self.permit = None;
        self.fill.growing.complete(last, whole, trailers);
        if stored {
            self.fill.growing.spill_rest().await;
        }
        exchange.cache.metrics().fill_ended("complete");
    }

    fn commit(&self, body: Bytes, plan: Plan) {
        let exchange = &*self.exchange;
        let now = exchange.cache.now();
        let wrong_length = plan.part.is_some_and(|part| body.is_empty() || body.len() as u64 > part.length());
        // F2 again: the purge may have come while the body did. A soft one leaves its mark by itself: the entry's
        // stamp is older.
        let purged = exchange.cache.purge_log().verdict(self.fill.stamp, &plan.scopes) == Standing::Hard;
        if wrong_length || purged || self.fill.is_invalidated() {
            return;
        }
        let millis = now.since(plan.requested).as_millis();
        let entry = Unpacked {
            key: plan.key,
            primary: exchange.key,
            stamp: self.fill.stamp,
            scopes: plan.scopes,
            url: exchange.target.url().into(),
            tags: plan.tags,
            head: plan.head,
            body,
            elsewhere: None,
            part: plan.part,
            freshness: plan.freshness,
            stored: now,
            fill_millis: u32::try_from(millis).unwrap_or(u32::MAX),
            hits: 0,
        };
        exchange.cache.insert(Arc::new(entry.pack()), &self.fill, exchange.key_holds_more());
    }
}
