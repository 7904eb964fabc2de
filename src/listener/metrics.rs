//! What the data listener counts.

use std::sync::Arc;

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use tokio::sync::OwnedSemaphorePermit;

use super::{link::Wait, service::Refusal};
use crate::telemetry::Registry;

type Reason = [(&'static str, &'static str); 1];

/// Handles are taken once, so that counting is one addition.
#[derive(Debug)]
pub(super) struct Metrics {
    open: Gauge,
    pub(super) accepted_h1: Counter,
    pub(super) accepted_h2: Counter,
    pub(super) accept_errors: Counter,
    pub(super) panics: Counter,
    pub(super) express: Counter,
    timed_out: [Counter; 4],
    refused: [Counter; Refusal::ALL.len()],
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Arc<Self> {
        let registry = registry.sub_registry_with_prefix("client");
        let open = Gauge::default();
        registry.register("connections", "Client connections open now, tunnels included", open.clone());
        let accepted = Family::<Reason, Counter>::default();
        registry.register("connections_accepted", "Client connections on which something was said", accepted.clone());
        let accept_errors = Counter::default();
        registry.register(
            "accept_errors",
            "Failed accepts, mostly for want of file descriptors",
            accept_errors.clone(),
        );
        let panics = Counter::default();
        registry.register("panics", "Client connections ended by a panic: a defect", panics.clone());
        let express = Counter::default();
        registry.register("express", "Requests answered before the HTTP library saw them", express.clone());
        let timed_out = Family::<Reason, Counter>::default();
        registry.register("timeouts", "Client connections ended because the client was silent", timed_out.clone());
        let refused = Family::<Reason, Counter>::default();
        registry.register("refused", "Requests refused before they reached a route", refused.clone());
        let wait = |wait: Wait| timed_out.get_or_create_owned(&[("while", name(wait))]);
        Arc::new(Self {
            open,
            accepted_h1: accepted.get_or_create_owned(&[("protocol", "h1")]),
            accepted_h2: accepted.get_or_create_owned(&[("protocol", "h2")]),
            accept_errors,
            panics,
            express,
            timed_out: [wait(Wait::Head), wait(Wait::Idle), wait(Wait::Write), wait(Wait::Linger)],
            refused: Refusal::ALL.map(|refusal| refused.get_or_create_owned(&[("reason", refusal.as_str())])),
        })
    }

    pub(super) fn timed_out(&self, wait: Wait) {
        self.timed_out[wait as usize].inc();
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.refused[refusal as usize].inc();
    }
}

fn name(wait: Wait) -> &'static str {
    match wait {
        Wait::Head => "head",
        Wait::Idle => "idle",
        Wait::Write => "write",
        Wait::Linger => "linger",
    }
}

/// Held by a socket: its place among the connections allowed, and in the gauge.
#[derive(Debug)]
pub(super) struct OpenGuard {
    gauge: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl OpenGuard {
    pub(super) fn new(metrics: &Metrics, permit: OwnedSemaphorePermit) -> Self {
        metrics.open.inc();
        Self { gauge: metrics.open.clone(), _permit: permit }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
