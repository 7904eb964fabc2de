//! Writing the snapshot, once the log has become long.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Inner, names, saved, scripts};
use crate::{
    kv::{self, Class, value},
    purge::mark::Mark,
};

/// At most so often by one node.
const PAUSE: Duration = Duration::from_secs(5);

const WITHIN: Duration = Duration::from_secs(5);

impl Inner {
    /// Puts a snapshot in the place of old records, if there are too many. Any node may; Redis takes the first one.
    pub(super) fn save_if_long(self: &Arc<Self>, mark: Mark) {
        let long = self.metrics.records.get() > self.config.log_max as u64;
        let now = Instant::now();
        let mut saving = self.saving.lock();
        if !long || saving.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            return;
        }
        *saving = Some(now);
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            match inner.save(mark).await {
                Ok(true) => inner.metrics.snapshots.inc(),
                Ok(false) => 0,
                Err(error) => {
                    tracing::debug!(%error, "no snapshot of the fleet's log was written");
                    0
                }
            }
        });
    }

    async fn save(&self, mark: Mark) -> Result<bool, kv::Error> {
        let snapshot = {
            let table = self.state.table.read();
            // What was applied since is in the table and follows in the log: that does no harm.
            if table.mark != mark {
                return Ok(false);
            }
            saved::encode(&table)
        };
        // What a fail-over may lose is compared with what nodes remember.
        let oldest = self.kept.lock().oldest().filter(|kept| kept.at.life == mark.at.life);
        let stays = oldest.map_or(mark.at.position, |kept| kept.at.position.min(mark.at.position));
        let (life, id, digest) =
            (mark.at.life.to_string(), names::record_id(mark.at.position), names::hex(&mark.digest));
        let (stays, max) = (names::record_id(stays), self.config.log_max.to_string());
        let args = [life.as_bytes(), id.as_bytes(), digest.as_bytes(), &snapshot, stays.as_bytes(), max.as_bytes()];
        let keys = [&self.names.log[..], &self.names.snapshot, &self.names.meta];
        let saved = self.kv.run(Class::Large, WITHIN, &scripts::SAVE, &keys, &args).await?;
        Ok(value::as_number(&saved) == Some(1))
    }
}
