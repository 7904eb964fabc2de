//! What interception counts.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What became of a tunnel to a host of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The handshake was done.
    Opened,
    /// After that, the client went away without a request: some that do not trust the authority do.
    Unused,
    /// The client said that it does not trust the certificate.
    Distrusted,
    /// The handshake failed otherwise.
    Failed,
    /// The handshake took too long.
    TimedOut,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Opened, Self::Unused, Self::Distrusted, Self::Failed, Self::TimedOut];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Unused => "unused",
            Self::Distrusted => "distrusted",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
        }
    }
}

/// The families of interception. Copies count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    connections: Family<[(&'static str, &'static str); 1], Counter>,
    pub(super) minted: Counter,
    pub(super) kept: Gauge,
}

impl Metrics {
    /// Registers them under `intercept`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("intercept");
        registry.register("connections", "Tunnels that were intercepted, by outcome", metrics.connections.clone());
        registry.register("certificates_minted", "Certificates signed for hosts", metrics.minted.clone());
        registry.register("certificates", "Certificates kept for hosts", metrics.kept.clone());
        for outcome in Outcome::ALL {
            let _ = metrics.connections.get_or_create(&[("outcome", outcome.as_str())]);
        }
        metrics
    }

    /// Counts a tunnel.
    pub fn count(&self, outcome: Outcome) {
        self.connections.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }
}
