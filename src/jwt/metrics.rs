//! What is counted of tokens, by the name of their issuer.

use std::time::SystemTime;

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use super::fault::Fault;
use crate::telemetry::Registry;

type Of = [(&'static str, String); 1];
type Verified = [(&'static str, String); 2];

/// All families. Copies count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    verifications: Family<Verified, Counter>,
    fetch_failures: Family<Of, Counter>,
    fetched: Family<Of, Gauge>,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let registry = registry.sub_registry_with_prefix("jwt");
        registry.register(
            "verifications",
            "Tokens that were verified, by what came of it; one that is remembered is not verified again",
            all.verifications.clone(),
        );
        registry.register(
            "keys_failures",
            "Times the keys of an issuer could not be had: those there were stay",
            all.fetch_failures.clone(),
        );
        registry.register(
            "keys_timestamp_seconds",
            "When the keys of an issuer were had last, in seconds since 1970; 0: never",
            all.fetched.clone(),
        );
        all
    }

    /// Counts a token; `issuer` is empty where it is not known.
    pub(super) fn verified(&self, issuer: &str, fault: Option<Fault>) {
        let result = fault.map_or("valid", Fault::word);
        self.verifications.get_or_create(&[("issuer", issuer.to_owned()), ("result", result.to_owned())]).inc();
    }

    /// Shows an issuer before anything is known of it.
    pub(super) fn begin(&self, issuer: &str) {
        let label = [("issuer", issuer.to_owned())];
        drop(self.fetch_failures.get_or_create(&label));
        drop(self.fetched.get_or_create(&label));
    }

    pub(super) fn failed(&self, issuer: &str) {
        self.fetch_failures.get_or_create(&[("issuer", issuer.to_owned())]).inc();
    }

    pub(super) fn fetched(&self, issuer: &str) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        self.fetched.get_or_create(&[("issuer", issuer.to_owned())]).set(seconds);
    }
}
