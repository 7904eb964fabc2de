//! What leaves, when, and in which steps.
//!
//! Room is made before anything is written, so that no bound is passed. Beside that, what has expired goes a few
//! hundred entries at a time.

use tokio::time::Instant;

use super::{index::Change, keeper::Keeper, locator::Locator, metrics::Eviction, trouble::Trouble};

/// Entries that leave in one transaction.
const STEP: usize = 256;

/// Transactions for the room of one batch; without room after these, it is not written.
const STEPS_MAX: usize = 64;

/// How long the free bytes of the disk are taken for known.
const FREE_KNOWN: std::time::Duration = std::time::Duration::from_millis(500);

/// What the keeper remembers of it.
#[derive(Debug, Default)]
pub(super) struct Evictor {
    free: Option<(u64, Instant)>,
    state: u64,
    /// Room was wanted, and could not be made.
    behind: bool,
}

impl Evictor {
    /// Whether there is more to do.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Numbers that need not be secret, only spread (`SplitMix64`).
    fn random(&mut self) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize
    }
}

impl Keeper {
    /// Makes room for that many bytes and entries. Whether there is.
    pub(super) fn make_room(&mut self, bytes: u64, entries: u64) -> Result<bool, Trouble> {
        for _ in 0..STEPS_MAX {
            match self.lacking(bytes, entries)? {
                None => break,
                Some(reason) if self.evict(reason)? => {}
                Some(_) => break,
            }
        }
        let room = self.lacking(bytes, entries)?.is_none();
        self.evictor.behind = !room && self.tier.catalogue.read().len() > 0;
        Ok(room)
    }

    /// Removes some of what has expired, and goes on with what [`Keeper::make_room`] left.
    pub(super) fn evict_some(&mut self) -> Result<(), Trouble> {
        if let Some(reason) = self.lacking(0, 0)? {
            self.evictor.behind = self.evict(reason)?;
            return Ok(());
        }
        self.evictor.behind = false;
        let expired = self.expired(STEP)?;
        self.leave(expired, Eviction::Expired)
    }

    /// Which bound would be passed.
    fn lacking(&mut self, bytes: u64, entries: u64) -> Result<Option<Eviction>, Trouble> {
        let streaming = self.tier.streaming.load(std::sync::atomic::Ordering::Relaxed);
        let used = self.totals.physical + self.tier.home.index_bytes() + streaming;
        if used + bytes > self.tier.config.max_bytes.as_u64() {
            return Ok(Some(Eviction::Bytes));
        }
        if self.totals.entries + entries > self.tier.config.entries_max {
            return Ok(Some(Eviction::Entries));
        }
        let free = self.free()?;
        Ok((free < self.tier.config.free_bytes_min.as_u64() + bytes).then_some(Eviction::Free))
    }

    fn free(&mut self) -> Result<u64, Trouble> {
        if let Some((free, _)) = self.evictor.free.filter(|(_, at)| at.elapsed() < FREE_KNOWN) {
            return Ok(free);
        }
        // What is written next would make it again, without an index.
        if !self.tier.home.is_ours() {
            return Err(Trouble::Io(rustix::io::Errno::NOENT.into()));
        }
        let free = self.tier.home.free_bytes()?;
        self.evictor.free = Some((free, Instant::now()));
        Ok(free)
    }

    /// Lets some leave. Whether any did.
    fn evict(&mut self, reason: Eviction) -> Result<bool, Trouble> {
        let expired = self.expired(STEP)?;
        let any = !expired.is_empty();
        if any {
            self.leave(expired, Eviction::Expired)?;
        } else {
            let victims = self.victims()?;
            if victims.is_empty() {
                return Ok(false);
            }
            self.leave(victims, reason)?;
        }
        self.evictor.free = None;
        Ok(true)
    }

    /// Up to `max` keys of expired entries.
    fn expired(&mut self, max: usize) -> Result<Vec<Locator>, Trouble> {
        let now = self.tier.seconds();
        self.taken_out(max, |keeper| keeper.tier.catalogue.read().expired(now))
    }

    /// Keys of entries that are least worth keeping: few where there are few.
    fn victims(&mut self) -> Result<Vec<Locator>, Trouble> {
        let (now, policy) = (self.tier.seconds(), self.tier.config.policy);
        let few = (self.tier.catalogue.read().len() / 64).clamp(1, STEP);
        self.taken_out(few, |keeper| {
            let Keeper { tier, evictor, .. } = keeper;
            tier.catalogue.read().victim(policy, now, || evictor.random())
        })
    }

    /// Takes entries out of the catalogue, and finds their keys.
    fn taken_out(
        &mut self,
        max: usize,
        mut next: impl FnMut(&mut Self) -> Option<u64>,
    ) -> Result<Vec<Locator>, Trouble> {
        let Some(index) = self.tier.index() else { return Ok(Vec::new()) };
        let mut keys = Vec::new();
        while keys.len() < max {
            let Some(prefix) = next(self) else { break };
            self.tier.catalogue.write().remove(prefix);
            keys.extend(index.brief(prefix)?.map(|(key, _)| key));
        }
        Ok(keys)
    }

    fn leave(&mut self, keys: Vec<Locator>, reason: Eviction) -> Result<(), Trouble> {
        let changes: Vec<_> = keys.into_iter().map(Change::Remove).collect();
        let freed = self.apply(&changes)?;
        self.remove_content(freed)?;
        changes.iter().for_each(|_| self.tier.metrics.evicted(reason));
        Ok(())
    }
}
