//! Purges that were acknowledged on this node alone, on their way to the others.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::Inner;
use crate::purge::types::Purge;

/// How long one try may take.
const TRY: Duration = Duration::from_secs(2);

/// Appends one after the other, each until the log has it.
pub(super) async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Purge>) {
    while let Some(purge) = queue.recv().await {
        let mut pause = Duration::from_millis(50);
        while let Err(error) = inner.append(&purge, Instant::now() + TRY).await {
            tracing::debug!(%error, id = %purge.id, "a purge waits for Redis");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        inner.state.let_go(&purge.id);
    }
}
