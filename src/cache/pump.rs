//! The body of a fill: shared while it arrives, stored when it is complete.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::{
    call::Outgoing,
    config::ClientGone,
    disk::Written,
    failure::Failure,
    fetch::Fetch,
    fill::{Settled, Shared},
    llm::{Length, accounts},
    plan::Plan,
    pour::Pour,
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
        if plan.part.is_some() || plan.length.is_some_and(|length| self.outgrows_l2(length)) {
            self.not_shared(plan.key, plan.part.is_none());
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
    pub(super) async fn pump(mut self, mut body: OriginBody, mut plan: Plan) {
        let exchange = Arc::clone(&self.exchange);
        let memory_max = exchange.cache.memory_object_bytes_max(&exchange.route);
        let mut storable = true;
        let mut pour = None;
        if plan.length.is_some_and(|length| length > memory_max) {
            pour = self.pour(&plan);
            storable = pour.is_some();
            if !storable {
                self.fill.growing.stop_keeping();
                self.permit = None;
            }
        }
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
                        return self.broken_off(&mut plan, Failure::GivenUp);
                    }
                    continue;
                }
            };
            let Some(frame) = frame else { break };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return self.broken_off(&mut plan, error.into()),
            };
            if let (Some(watcher), Some(data)) = (&mut plan.watcher, frame.data_ref()) {
                watcher.piece(data);
                if watcher.is_unfit() {
                    // Who reads of an error asks again at once, and wants another answer than this one.
                    (self.permit, self.ticket) = (None, None);
                }
            }
            match frame.into_data() {
                Ok(data) if body.is_end_stream() => last = data,
                Ok(data) => {
                    if self.fill.growing.push(data).await.is_err() {
                        return self.broken_off(&mut plan, Failure::GivenUp);
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            let length = self.fill.growing.len() + last.len() as u64;
            if self.outgrows_l2(length) {
                self.not_shared(plan.key, true);
            }
            if storable
                && length > memory_max
                && let Err(refused) = self.outgrown(length, &plan, &mut pour)
            {
                storable = false;
                pour = None;
                self.fill.growing.stop_keeping();
                self.refused(&plan.key, refused, plan.head.status);
                self.permit = None;
            }
        }
        let length = self.fill.growing.len() + last.len() as u64;
        if pour.is_some() && !self.has_ended_well(&mut plan, None, length) {
            (pour, storable) = (None, false);
        }
        if let Some(pour) = pour {
            self.fill.growing.complete(last, None, trailers);
            self.fill.growing.spill_rest().await;
            self.not_shared(plan.key, true);
            self.settle_poured(pour, plan).await;
            self.permit = None;
            return exchange.cache.metrics().fill_ended("complete");
        }
        let mut whole = if storable { self.fill.growing.contiguous(&last).await } else { None };
        if !self.has_ended_well(&mut plan, whole.as_deref(), length) {
            whole = None;
        }
        let (stored, key) = (whole.is_some(), plan.key);
        match &whole {
            Some(body) => {
                for written in self.commit(body.clone(), plan) {
                    written.await;
                }
                self.learn(body);
            }
            None if self.fill.growing.push(std::mem::take(&mut last)).await.is_err() => {
                return self.broken(Failure::GivenUp);
            }
            None => self.not_shared(key, false),
        }
        // Stored first: who sees the end and asks again finds it.
        self.permit = None;
        self.fill.growing.complete(last, whole, trailers);
        if stored {
            self.fill.growing.spill_rest().await;
        }
        exchange.cache.metrics().fill_ended("complete");
    }

    /// Whether an answer of a model is whole and fit to be stored, as far as its protocol tells; any other is. What it cost
    /// is counted, and becomes part of its head. `length` is how many bytes came.
    fn has_ended_well(&self, plan: &mut Plan, whole: Option<&[u8]>, length: u64) -> bool {
        let (Some(watcher), Some(model)) = (plan.watcher.take(), &self.exchange.model) else { return true };
        if !plan.head.status.is_success() {
            return model.keeps(plan.head.status);
        }
        let is_seen = watcher.is_stream() || whole.is_some();
        let length = if watcher.is_stream() { Length::Events(watcher.events()) } else { Length::Bytes(length) };
        let seen = watcher.end(whole);
        if is_seen {
            model.bill.billed(&seen, length);
            model.bill.shared(&seen, self.fill.followers.load(Relaxed));
        } else {
            model.bill.charged(&seen, length);
        }
        if let Err(unfit) = seen.fit {
            model.bill.unstored(unfit.as_str());
            return false;
        }
        let took = self.exchange.cache.now().since(plan.requested);
        if let Some(usage) = accounts::usage_field(&seen.usage, took) {
            plan.head = plan.head.clone().with(&accounts::USAGE, &usage);
        }
        true
    }

    /// The body broke off; limits count what has come of a model's answer.
    fn broken_off(self, plan: &mut Plan, failure: Failure) {
        if let (Some(watcher), Some(model)) = (plan.watcher.take(), &self.exchange.model)
            && plan.head.status.is_success()
        {
            let come = self.fill.growing.len();
            let length = if watcher.is_stream() { Length::Events(watcher.events()) } else { Length::Bytes(come) };
            model.bill.cut_off(&watcher.end(None).usage, length);
        }
        self.broken(failure);
    }

    /// A body has grown too large for memory: sees to it that it goes to the disk.
    fn outgrown(&self, length: u64, plan: &Plan, pour: &mut Option<Pour>) -> Result<(), Refused> {
        if length > self.exchange.cache.object_bytes_max(&self.exchange.route) {
            return Err(Refused::TooLarge);
        }
        if pour.is_none() {
            *pour = if self.is_worth_pouring(&plan.key) { self.pour(plan) } else { None };
        }
        if pour.is_some() { Ok(()) } else { Err(Refused::NotAdmitted) }
    }

    /// Stores it. What is given back is to be awaited before anybody has the last byte.
    fn commit(&mut self, body: Bytes, plan: Plan) -> Vec<Written> {
        if let Some(keys) = self.exchange.model.as_ref().and_then(|model| model.inputs.as_ref()) {
            return self.commit_in_parts(&body, plan, keys);
        }
        let length = body.len() as u64;
        let Some(form) = self.stored_form(body, length, plan) else { return Vec::new() };
        let entry = Arc::new(form.pack());
        let written = self.exchange.cache.insert(&entry, &self.fill, &self.exchange.route);
        written.into_iter().chain(self.share_stored(&entry)).collect()
    }

    /// What is to be stored of a body that has come to its end; nothing, if it is not to be any more.
    pub(super) fn stored_form(&self, body: Bytes, length: u64, plan: Plan) -> Option<Unpacked> {
        let exchange = &*self.exchange;
        let now = exchange.cache.now();
        let wrong_length = plan.part.is_some_and(|part| length == 0 || length > part.length());
        // F2 again: the purge may have come while the body did. A soft one leaves its mark by itself: the entry's
        // stamp is older.
        let purged = exchange.cache.purge_log().verdict(self.fill.stamp, &plan.scopes) == Standing::Hard;
        if wrong_length || purged || self.fill.is_invalidated() {
            return None;
        }
        let millis = now.since(plan.requested).as_millis();
        Some(Unpacked {
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
            freshness: exchange.marked(plan.freshness),
            stored: now,
            fill_millis: u32::try_from(millis).unwrap_or(u32::MAX),
            hits: 0,
        })
    }
}
