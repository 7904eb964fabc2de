//! What all connections of a run share: the clock, the latencies, the errors.

use std::{cell::RefCell, collections::BTreeMap, io, rc::Rc, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::histogram::Histogram;

/// Latencies and errors of one run.
#[derive(Default)]
pub(crate) struct Gauge {
    latency: RefCell<Histogram>,
    errors: RefCell<BTreeMap<String, u64>>,
}

impl Gauge {
    pub(crate) fn shared() -> Rc<Gauge> {
        Rc::default()
    }

    pub(crate) fn record(&self, latency: Duration) {
        self.latency.borrow_mut().record(latency);
    }

    pub(crate) fn failed(&self, error: &io::Error) {
        *self.errors.borrow_mut().entry(error.to_string()).or_default() += 1;
    }

    /// Records the time since `start`, or the error.
    pub(crate) fn outcome(&self, start: Instant, result: &io::Result<()>) {
        match result {
            Ok(()) => self.record(start.elapsed()),
            Err(error) => self.failed(error),
        }
    }

    pub(crate) fn summary(&self, elapsed: Duration) -> Value {
        let latency = self.latency.borrow();
        let errors = self.errors.borrow();
        json!({
            "requests": latency.count(),
            "seconds": elapsed.as_secs_f64(),
            "rate": latency.count() as f64 / elapsed.as_secs_f64(),
            "errors": errors.values().sum::<u64>(),
            "error_kinds": *errors,
            "latency": latency.summary(),
        })
    }
}
