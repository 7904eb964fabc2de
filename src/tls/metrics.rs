//! What is counted of TLS with clients.

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use super::server::Served;
use crate::telemetry::Registry;

type At = [(&'static str, &'static str); 2];
type Named = [(&'static str, String); 2];

/// What became of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was done.
    Done,
    /// It failed: no protocol or certificate in common, or the client went away.
    Failed,
    /// It took too long.
    TimedOut,
    /// What came was HTTP without TLS.
    PlainHttp,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::TimedOut, Self::PlainHttp];

    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::PlainHttp => "plain-http",
        }
    }
}

/// The families of TLS. Copies count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    handshakes: Family<At, Counter>,
    expiry: Family<Named, Gauge>,
}

impl Metrics {
    /// Registers them under `tls`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("tls");
        registry.register("handshakes", "TLS handshakes with clients, by outcome", metrics.handshakes.clone());
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When a certificate ends that clients are shown, in seconds since 1970",
            metrics.expiry.clone(),
        );
        metrics
    }

    /// The counters of one listener.
    pub(super) fn of(&self, listener: &'static str) -> Handshakes {
        let of = |outcome: Outcome| {
            self.handshakes.get_or_create_owned(&[("listener", listener), ("outcome", outcome.as_str())])
        };
        Handshakes(Outcome::ALL.map(of))
    }

    /// Shows when the certificates end that are served from now on, by listener, and no others.
    pub(crate) fn show(&self, served: &[(&'static str, &Served)]) {
        self.expiry.clear();
        for (listener, served) in served {
            for shown in &served.shown {
                let labels = [("listener", (*listener).to_owned()), ("name", shown.name.clone())];
                let ends = self.expiry.get_or_create_owned(&labels);
                // Of two for one name, that which ends first.
                if ends.get() == 0 || shown.not_after < ends.get() {
                    ends.set(shown.not_after);
                }
            }
        }
    }
}

/// Handles are taken once, so that counting is one addition.
#[derive(Debug)]
pub(super) struct Handshakes([Counter; Outcome::ALL.len()]);

impl Handshakes {
    pub(super) fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].inc();
    }
}
