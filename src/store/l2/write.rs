//! Writing entries behind, and taking back what is not to be found any more.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::{
    Inner, L2, SMALL_MAX, Ticket, chance,
    metrics::WriteEnd,
    millis,
    pieces::Pieces,
    scripts::{self, put},
    value::Begun,
};
use crate::{
    kv::{Class, Error, value as replies},
    object::{entry::Entry, key::Key, scope::Scope, time::Timestamp, vary::Variant},
};

/// Writes under way; the others wait in the queue.
pub(super) const WRITERS: usize = 64;

/// How long Redis remembers that something was removed: longer than a fill takes.
const REMOVED: Duration = Duration::from_secs(120);

/// How long a key that proved not storable keeps nobody waiting.
const UNSTORABLE: Duration = Duration::from_millis(1500);

/// Longest time anything is kept. Redis counts in milliseconds, and refuses times without end.
const KEEP_MAX: Duration = Duration::from_hours(24 * 365 * 10);

/// An entry to be written.
pub struct Write {
    /// The entry, its content in memory.
    pub entry: Arc<Entry>,
    /// When its fill began.
    pub begun: Begun,
    /// How long it is of use.
    pub keep: Duration,
    /// Of a variant: how it is found. Absent where it has been found before.
    pub variant: Option<Variant>,
    /// Variants of one key.
    pub variants_max: usize,
    /// Its URL, where that alone does not tell its key.
    pub scattered: Option<Scope>,
    /// What the look-up before left.
    pub ticket: Option<Ticket>,
}

impl L2 {
    /// Writes an entry behind. What is given back says whether it is there, once that is known; nothing, if it is surely
    /// not going to be.
    pub fn store(&self, write: Write) -> Option<impl Future<Output = bool> + Send + use<>> {
        let metrics = &self.inner.metrics;
        let content = write.entry.content().len() as u64;
        if content > self.object_bytes_max() || write.entry.elsewhere().is_some() || write.entry.part().is_some() {
            metrics.wrote(WriteEnd::Large);
            let (key, begun) = (write.entry.key, write.begun);
            self.settle(write.ticket, write.entry.primary(), key, true, Some(begun.at));
            return None;
        }
        let bytes = content + write.entry.head.weight() as u64 + 512;
        let Some(queued) = self.queue(bytes) else {
            metrics.wrote(WriteEnd::Dropped);
            return None;
        };
        let (told, stored) = oneshot::channel();
        let l2 = self.clone();
        let begun = self.behind(async move {
            let end = l2.write(write).await;
            l2.inner.metrics.wrote(end);
            drop(queued);
            // Nobody may wait.
            let _ = told.send(end == WriteEnd::Stored);
        });
        if !begun {
            metrics.wrote(WriteEnd::Dropped);
            return None;
        }
        let patience = self.inner.config.write_timeout;
        Some(async move { matches!(timeout(patience, stored).await, Ok(Ok(true))) })
    }

    async fn write(&self, mut write: Write) -> WriteEnd {
        let Inner { names, config, writers, .. } = &*self.inner;
        let Ok(_permit) = writers.acquire().await else { return WriteEnd::Failed };
        let keep = self.kept(write.keep);
        // First: an unsafe request that does not find the mark relies on there being nothing.
        if let Some(url) = write.scattered
            && !self.scatter(url, keep).await
        {
            return WriteEnd::Failed;
        }
        let entry = Arc::clone(&write.entry);
        let Some(value) = self.encoded(&entry, write.begun).await else { return WriteEnd::Failed };
        let each = config.piece_bytes.as_u64();
        if (entry.content().len() as u64).min(value.len() as u64) <= each {
            return self.put(&mut write, &value, keep).await;
        }
        let Some(pieces) = Pieces::cut(&value, each) else { return WriteEnd::Failed };
        let prefix = names.of(&entry.primary(), &entry.key).pieces;
        let end = match self.put_pieces(&prefix, pieces, &value, keep).await {
            Ok(()) => self.put(&mut write, &pieces.head(&value), keep).await,
            Err(error) => {
                not_written(&error, &entry);
                WriteEnd::Failed
            }
        };
        if end != WriteEnd::Stored {
            self.remove_pieces(&prefix, pieces).await;
        }
        end
    }

    /// Stores an entry, or the head of one whose pieces are there.
    async fn put(&self, write: &mut Write, value: &[u8], keep: Duration) -> WriteEnd {
        let Inner { names, form, metrics, .. } = &*self.inner;
        let (entry, primary) = (Arc::clone(&write.entry), write.entry.primary());
        let record = match (&write.variant, primary == entry.key) {
            (Some(variant), false) => form.encode_variant(&primary, variant),
            _ => Some(Vec::new()),
        };
        let Some(record) = record else { return WriteEnd::Failed };
        let field = if primary == entry.key { String::new() } else { names.field(&entry.key) };
        let named = names.of(&primary, &entry.key);
        let held = write.ticket.as_ref().and_then(Ticket::held);
        let lease = names.of(&primary, held.as_ref().map_or(&entry.key, |(key, _)| key)).lease;
        let (token, seen) = (held.as_ref().map_or(&[][..], |(_, token)| token), write.ticket.as_ref());
        let seen = seen.and_then(|ticket| ticket.seen.as_deref()).unwrap_or(b"?");
        let (keep, max) = (millis(keep), write.variants_max.max(1).to_string());
        let whole = names.of(&primary, &primary).entry;
        let keys = [&named.entry[..], &lease, &named.variants, &named.removal, &whole];
        let args = [value, keep.as_bytes(), token, seen, field.as_bytes(), &record, max.as_bytes()];
        let class = if value.len() > SMALL_MAX { Class::Large } else { Class::Small };
        match self.run(class, &scripts::PUT, &keys, &args).await {
            Ok(reply) => {
                let code = reply.first().map_or(Ok(0), replies::int);
                if let Some(ticket) = &mut write.ticket {
                    ticket.given_back();
                }
                self.wake_if(reply.get(1), &primary);
                metrics.written.inc_by(value.len() as u64);
                match code {
                    Ok(put::STORED) => WriteEnd::Stored,
                    Ok(put::OUTDATED) => WriteEnd::Outdated,
                    Ok(put::FENCED | put::UNLISTED) => WriteEnd::Fenced,
                    _ => WriteEnd::Failed,
                }
            }
            Err(error) => {
                not_written(&error, &entry);
                WriteEnd::Failed
            }
        }
    }

    /// Writes the pieces of `value`, one after the other: others need not wait behind all of them.
    async fn put_pieces(&self, prefix: &[u8], pieces: Pieces, value: &[u8], keep: Duration) -> Result<(), Error> {
        let Inner { kv, config, metrics, .. } = &*self.inner;
        // They are there before the head is, and are to be there for as long.
        let writes = u32::try_from(pieces.count()).unwrap_or(u32::MAX).saturating_add(1);
        let keep = millis(keep.saturating_add(config.write_timeout.saturating_mul(writes)));
        for (name, part) in pieces.names(prefix).zip(pieces.parts(value)) {
            let mut set = redis::cmd("SET");
            set.arg(&name).arg(part).arg("PX").arg(&keep);
            let done = kv.call(Class::Large, config.write_timeout, &name, &set).await.and_then(replies::checked);
            done.inspect_err(|error| metrics.error(error.name()))?;
            metrics.written.inc_by(part.len() as u64);
        }
        Ok(())
    }

    /// Removes pieces that no head will name. Where that fails, they expire.
    async fn remove_pieces(&self, prefix: &[u8], pieces: Pieces) {
        let Inner { kv, config, metrics, .. } = &*self.inner;
        let names: Vec<_> = pieces.names(prefix).collect();
        let mut unlink = redis::cmd("UNLINK");
        unlink.arg(&names);
        let done = kv.call(Class::Control, config.write_timeout, &names[0], &unlink).await.and_then(replies::checked);
        if let Err(error) = done {
            metrics.error(error.name());
        }
    }

    /// Notes that something of a URL is stored under keys that the URL does not give.
    async fn scatter(&self, url: Scope, keep: Duration) -> bool {
        let (name, keep) = (self.inner.names.scattered(url), millis(keep));
        self.run(Class::Control, &scripts::SCATTER, &[&name], &[keep.as_bytes()]).await.is_ok()
    }

    /// Whether something of a URL may be stored under keys that the URL does not give, as far as anybody knows.
    pub async fn is_scattered(&self, url: Scope) -> bool {
        let name = self.inner.names.scattered(url);
        let Inner { kv, config, metrics, .. } = &*self.inner;
        let exists = redis::Cmd::exists(&name);
        match kv.call(Class::Control, config.write_timeout, &name, &exists).await.and_then(|found| replies::int(&found))
        {
            Ok(found) => found > 0,
            Err(error) => {
                metrics.error(error.name());
                true
            }
        }
    }

    async fn encoded(&self, entry: &Arc<Entry>, begun: Begun) -> Option<Vec<u8>> {
        let written = if entry.content().len() <= SMALL_MAX {
            self.inner.form.encode(entry, begun)
        } else {
            // What takes a millisecond holds nobody up.
            let (l2, entry) = (self.clone(), Arc::clone(entry));
            tokio::task::spawn_blocking(move || l2.inner.form.encode(&entry, begun)).await.ok().flatten()
        }?;
        if let Some((before, after)) = written.compressed {
            self.inner.metrics.compressed_in.inc_by(before as u64);
            self.inner.metrics.compressed_out.inc_by(after as u64);
        }
        Some(written.bytes)
    }

    /// So much of what waits to be written is to be counted until it is dropped; `None`: there is no room.
    fn queue(&self, bytes: u64) -> Option<Queued> {
        let Inner { queued, config, metrics, .. } = &*self.inner;
        if queued.fetch_add(bytes, Relaxed) + bytes > config.queue_bytes_max.as_u64() {
            queued.fetch_sub(bytes, Relaxed);
            return None;
        }
        metrics.queue_bytes.inc_by(bytes);
        Some(Queued { l2: self.clone(), bytes })
    }

    fn kept(&self, keep: Duration) -> Duration {
        let keep = keep.clamp(Duration::from_millis(1), KEEP_MAX);
        keep + keep.mul_f64(self.inner.config.ttl_jitter * chance())
    }

    /// Gives up what `ticket` holds, for an entry of `key` that is not stored here. `unstorable`: others need not wait for
    /// each other for a while. What began no later than `stale` goes.
    pub fn settle(&self, ticket: Option<Ticket>, primary: Key, key: Key, unstorable: bool, stale: Option<Timestamp>) {
        if ticket.as_ref().is_none_or(|ticket| ticket.held().is_none()) && stale.is_none() {
            return;
        }
        let l2 = self.clone();
        self.behind(async move {
            let names = &l2.inner.names;
            let held = ticket.as_ref().and_then(Ticket::held);
            let lease = names.of(&primary, held.as_ref().map_or(&key, |(key, _)| key)).lease;
            let token = held.as_ref().map_or(&[][..], |(_, token)| token);
            let mark = if unstorable { millis(UNSTORABLE) } else { String::new() };
            let stale = stale.map_or_else(String::new, |time| time.as_millis().to_string());
            let named = names.of(&primary, &key);
            let (keys, args) = ([&lease[..], &named.entry], [token, mark.as_bytes(), stale.as_bytes()]);
            let settled = l2.run(Class::Control, &scripts::SETTLE, &keys, &args).await;
            let Ok(reply) = settled else { return };
            l2.wake_if(reply.first(), &primary);
            if let Some(mut ticket) = ticket {
                ticket.given_back();
            }
        });
    }

    /// Removes all that is stored under a primary key, those of its variants that are listed included, and `known` ones.
    /// Whether it is gone: once it is, no fill that began before brings it back.
    pub async fn remove(&self, primary: &Key, known: &[Key]) -> bool {
        let names = &self.inner.names;
        let named = names.of(primary, primary);
        let mut number = [0; 16];
        let drawn = getrandom::fill(&mut number).is_ok();
        let (keep, fields) = (millis(REMOVED), known.iter().map(|key| names.field(key)).collect::<Vec<_>>());
        let keys = [&named.entry[..], &named.lease, &named.variants, &named.removal];
        let mut args = vec![&number[..], keep.as_bytes()];
        args.extend(fields.iter().map(String::as_bytes));
        let removed = if drawn { self.run(Class::Control, &scripts::REMOVE, &keys, &args).await.ok() } else { None };
        if let Some(reply) = &removed {
            self.wake_if(reply.get(1), primary);
        }
        self.inner.metrics.removed(removed.is_some());
        removed.is_some()
    }
}

fn not_written(error: &Error, entry: &Entry) {
    tracing::debug!(%error, url = %entry.url(), "not written to Redis");
}

/// Bytes that wait to be written.
struct Queued {
    l2: L2,
    bytes: u64,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.l2.inner.queued.fetch_sub(self.bytes, Relaxed);
        self.l2.inner.metrics.queue_bytes.dec_by(self.bytes);
    }
}
