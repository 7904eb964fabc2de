//! A gate in the script of an origin: who comes to it waits until the test opens it, and the test sees who waits.

use std::sync::Arc;

use tokio::sync::watch;

use super::within;

/// Cheap to clone; all clones are the same gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Shared>);

struct Shared {
    open: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl Gate {
    /// A closed gate.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { open: watch::Sender::new(false), arrived: watch::Sender::new(0) }))
    }

    /// Lets everyone through, for good.
    pub(crate) fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// Returns when `count` have come to the gate, since it was made.
    pub(crate) async fn arrived(&self, count: usize) {
        let mut arrived = self.0.arrived.subscribe();
        within("arrivals at a gate", arrived.wait_for(|seen| *seen >= count)).await.expect("the gate keeps its sender");
    }

    /// Comes to the gate and waits for it to open. For ever, if need be: the test that forgot it fails elsewhere.
    pub(crate) async fn pass(&self) {
        self.0.arrived.send_modify(|seen| *seen += 1);
        let mut open = self.0.open.subscribe();
        open.wait_for(|open| *open).await.expect("the gate keeps its sender");
    }
}
