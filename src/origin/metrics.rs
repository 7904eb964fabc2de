//! What is counted about origins. All label values are enums, all handles are taken once.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{error::Kind, pieces::Unread};

/// Handles of all families of this module.
#[derive(Debug)]
pub(super) struct Metrics {
    answered: Counter,
    failed: [Counter; Kind::ALL.len()],
    broken: [Counter; Kind::ALL.len()],
    opened_h1: Counter,
    opened_h2: Counter,
    changes: [Counter; 3],
    pub(super) reused: Counter,
    pub(super) retries: Counter,
    pub(super) idle: Gauge,
    pub(super) open: Gauge,
    pub(super) in_flight: Gauge,
    pub(super) pools: Gauge,
    pub(super) unread: Unread,
    connect: Histogram,
    head_wait: Histogram,
    queue_wait: Histogram,
}

/// A state a breaker enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum BreakerState {
    /// Requests pass.
    Closed,
    /// Requests fail at once.
    Resting,
    /// One request tries.
    Probing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

/// An answer, or what failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Outcome(Option<Kind>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabel {
    error: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolLabel {
    protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Protocol {
    H1,
    H2,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: BreakerState,
}

impl Metrics {
    /// Registers all families below the prefix `origin`.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("origin");
        let requests = Family::<OutcomeLabel, Counter>::default();
        let broken = Family::<ErrorLabel, Counter>::default();
        let opened = Family::<ProtocolLabel, Counter>::default();
        let changes = Family::<StateLabel, Counter>::default();
        registry.register("requests", "Requests sent to origins, after coalescing, by outcome", requests.clone());
        registry.register("bodies_broken", "Response bodies that ended with an error", broken.clone());
        registry.register("connections_opened", "Connections opened, by protocol", opened.clone());
        registry.register("breaker_changes", "States entered by breakers", changes.clone());
        let unread = Unread::default();
        let help = "Response bodies whose readers have a piece and have not come back for more";
        registry.register("bodies_unread", help, unread.gauge());
        let state = |state| changes.get_or_create_owned(&StateLabel { state });
        Self {
            answered: requests.get_or_create_owned(&OutcomeLabel { outcome: Outcome(None) }),
            failed: Kind::ALL.map(|kind| requests.get_or_create_owned(&OutcomeLabel { outcome: Outcome(Some(kind)) })),
            broken: Kind::ALL.map(|kind| broken.get_or_create_owned(&ErrorLabel { error: Outcome(Some(kind)) })),
            opened_h1: opened.get_or_create_owned(&ProtocolLabel { protocol: Protocol::H1 }),
            opened_h2: opened.get_or_create_owned(&ProtocolLabel { protocol: Protocol::H2 }),
            changes: [BreakerState::Closed, BreakerState::Resting, BreakerState::Probing].map(state),
            reused: counter(registry, "connections_reused", "Requests sent on a connection that was open already"),
            retries: counter(registry, "retries", "Requests sent again, the origin not having acted on them"),
            idle: gauge(registry, "connections_idle", "HTTP/1 connections waiting for a request"),
            open: gauge(registry, "connections_open", "Connections open or being opened"),
            in_flight: gauge(registry, "requests_in_flight", "Requests between connection and end of body"),
            pools: gauge(registry, "pools", "Origins connections are kept for"),
            unread,
            connect: seconds(registry, "connect", "From resolution to a usable connection, TLS included"),
            head_wait: seconds(registry, "head_wait", "From the request sent to the final response head"),
            queue_wait: seconds(registry, "queue_wait", "Waits for a connection, of requests that had to wait"),
        }
    }

    /// A request got a response head, `wait` after it left.
    pub(super) fn answered(&self, wait: Duration) {
        self.answered.inc();
        self.head_wait.observe(wait.as_secs_f64());
    }

    /// A request failed before its response head.
    pub(super) fn failed(&self, kind: Kind) {
        self.failed[kind as usize].inc();
    }

    /// A response body failed.
    pub(super) fn broken(&self, kind: Kind) {
        self.broken[kind as usize].inc();
    }

    /// A connection was opened.
    pub(super) fn opened(&self, h2: bool, took: Duration) {
        if h2 { &self.opened_h2 } else { &self.opened_h1 }.inc();
        self.connect.observe(took.as_secs_f64());
    }

    /// A request had to wait for a connection.
    pub(super) fn queued(&self, wait: Duration) {
        self.queue_wait.observe(wait.as_secs_f64());
    }

    /// A breaker entered `state`.
    pub(super) fn breaker(&self, state: BreakerState) {
        self.changes[state as usize].inc();
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let metric = Counter::default();
    registry.register(name, help, metric.clone());
    metric
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let metric = Gauge::default();
    registry.register(name, help, metric.clone());
    metric
}

/// A histogram from 100 µs to 100 s.
fn seconds(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let metric = Histogram::new(exponential_buckets(0.0001, 2.0, 21));
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.map_or("ok", Kind::proxy_status).encode(encoder)
    }
}

impl EncodeLabelValue for Protocol {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
        .encode(encoder)
    }
}

impl EncodeLabelValue for BreakerState {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Closed => "closed",
            Self::Resting => "resting",
            Self::Probing => "probing",
        }
        .encode(encoder)
    }
}
