//! From what is to be stored to a record of the index, with its content on the disk.

use std::{borrow::Cow, io, sync::Arc, sync::atomic::Ordering::Relaxed};

use tokio::time::Instant;

use super::{
    super::compress,
    brief::{Brief, Kin, expiry},
    content::{Claim, ContentId, disk_bytes},
    index::Change,
    locator::Address,
    metrics::Drop as Dropped,
    pending::{Landed, Op, Taken},
    proof::Proof,
    record::{Coding, Kind, Record, Stored, WHOLE_MAX},
    seal::Seal,
    tier::Tier,
    trouble::Trouble,
};
use crate::object::{codec, entry::Entry, key::Key, time::Timestamp, variants_codec, vary::Variants};

/// Changes of a batch, and the content they are about to name.
#[derive(Default)]
pub(super) struct Prepared {
    pub(super) changes: Vec<Change>,
    /// Files that were written for it, to be synced.
    pub(super) written: Vec<ContentId>,
    claims: Vec<Claim>,
}

/// What an entry says of itself.
struct Facts {
    keep: Timestamp,
    hits: u32,
    cost: u32,
    kin: Kin,
}

impl Tier {
    /// Bytes of the disk that a change may need at most.
    pub(super) fn needs(&self, op: &Op) -> u64 {
        match op {
            Op::Entry(entry) => disk_bytes(entry.content().len() as u64),
            Op::Large(_) | Op::Variants(..) | Op::Renew(..) | Op::Remove => 0,
        }
    }

    /// Adds one change.
    pub(super) fn prepare(self: &Arc<Self>, taken: &Taken, prepared: &mut Prepared) -> Result<(), Trouble> {
        let at = |key: &Key| Address { key: *key, locator: taken.key };
        match &taken.op {
            Op::Remove => prepared.changes.push(Change::Remove(taken.key)),
            Op::Variants(key, variants) => {
                let change = self.variants(&at(key), variants)?;
                prepared.changes.push(change);
            }
            Op::Entry(entry) => self.entry(&at(&entry.key), entry, prepared)?,
            Op::Large(landed) => {
                let change = self.landed(&at(&landed.entry.key), landed)?;
                prepared.changes.extend(change);
            }
            Op::Renew(entry, id) => {
                let change = self.renewal(&at(&entry.key), entry, *id)?;
                prepared.changes.extend(change);
            }
        }
        Ok(())
    }

    fn variants(&self, at: &Address, variants: &Variants) -> Result<Change, Trouble> {
        let head = variants_codec::encode(variants);
        let record = Record { kind: Kind::Variants, stored: Stored::NONE, proof: Proof::NONE, head };
        self.change(at, record, &Facts { keep: Timestamp::NEVER, hits: 0, cost: 0, kin: Kin::default() })
    }

    fn entry(self: &Arc<Self>, at: &Address, entry: &Entry, prepared: &mut Prepared) -> Result<(), Trouble> {
        let head = codec::encode_head(entry);
        let known =
            self.known(at).filter(|known| known.kind == Kind::Whole && codec::vouches_alike(&known.head, &head));
        let record = match known {
            // The same content under a new head.
            Some(known) => Record { head, ..known },
            None => self.with_content(entry, head, prepared)?,
        };
        if let Some((id, _)) = record.stored.file() {
            prepared.claims.push(self.contents.claim(id));
        }
        prepared.changes.push(self.change(at, record, &Facts::of(entry, &self.seal))?);
        Ok(())
    }

    /// The record of an entry, its content written.
    fn with_content(
        self: &Arc<Self>,
        entry: &Entry,
        head: Vec<u8>,
        prepared: &mut Prepared,
    ) -> Result<Record, Trouble> {
        let content = entry.content();
        let length = content.len() as u64;
        if length == 0 {
            return Ok(Record { kind: Kind::Whole, stored: Stored::NONE, proof: Proof::NONE, head });
        }
        let mut prover = self.seal.prover(&entry.key)?;
        let (bytes, coding) = match self.compressed(entry) {
            Some(compressed) => (Cow::Owned(compressed), Coding::Zstd),
            None => (Cow::Borrowed(content), Coding::Plain),
        };
        if coding == Coding::Plain && length > WHOLE_MAX {
            let stored = self.written(&prover.large(bytes)?, coding, length, prepared)?;
            let head = codec::encode_bare_head(entry);
            return Ok(Record { kind: Kind::Large, stored, proof: prover.finish(), head });
        }
        let stored = self.written(&prover.whole(bytes)?, coding, length, prepared)?;
        Ok(Record { kind: Kind::Whole, stored, proof: prover.finish(), head })
    }

    fn compressed(&self, entry: &Entry) -> Option<Vec<u8>> {
        let content = entry.content();
        if !self.config.compression || !compress::may_pay(&entry.head, content.len() as u64) {
            return None;
        }
        let compressed = compress::compress(content)?;
        self.metrics.compressed_in.inc_by(content.len() as u64);
        self.metrics.compressed_out.inc_by(compressed.len() as u64);
        Some(compressed)
    }

    /// Writes content that is not there yet.
    fn written(
        self: &Arc<Self>,
        bytes: &[u8],
        coding: Coding,
        length: u64,
        prepared: &mut Prepared,
    ) -> Result<Stored, Trouble> {
        let id = ContentId::of(bytes);
        let size = bytes.len() as u64;
        prepared.claims.push(self.contents.claim(id));
        if prepared.written.contains(&id) || self.is_stored(id, size)? {
            self.metrics.deduplicated.inc_by(size);
        } else {
            let wait = self.pace.lock().take(size, Instant::now());
            self.pending.pause(wait);
            self.contents.write(id, bytes)?;
            self.metrics.written.inc_by(size);
            prepared.written.push(id);
        }
        Ok(Stored { id, bytes: size, coding, length })
    }

    /// Content that came piece by piece. It may have been removed since it landed, and is then given up.
    fn landed(&self, at: &Address, landed: &Landed) -> Result<Option<Change>, Trouble> {
        let Stored { id, bytes, .. } = landed.stored;
        if self.contents.length(id)? != Some(bytes) {
            self.metrics.dropped(Dropped::Error);
            return Ok(None);
        }
        let head = codec::encode_bare_head(&landed.entry);
        let record = Record { kind: Kind::Large, stored: landed.stored, proof: (*landed.proof).clone(), head };
        self.change(at, record, &Facts::of(&landed.entry, &self.seal)).map(Some)
    }

    /// A new head for large content, if that is still what is stored.
    fn renewal(&self, at: &Address, entry: &Entry, id: ContentId) -> Result<Option<Change>, Trouble> {
        let known = self.known(at).filter(|known| known.kind == Kind::Large && known.stored.id == id);
        let Some(known) = known else { return Ok(None) };
        let record = Record { head: codec::encode_bare_head(entry), ..known };
        self.change(at, record, &Facts::of(entry, &self.seal)).map(Some)
    }

    /// The record that is there, if it is sound.
    fn known(&self, at: &Address) -> Option<Record> {
        let sealed = self.index()?.record(&at.locator).ok()??;
        self.seal.open(at, &sealed).and_then(|record| Record::decode(&record))
    }

    fn change(&self, at: &Address, record: Record, facts: &Facts) -> Result<Change, Trouble> {
        let brief = Brief {
            stored: record.stored,
            keep: expiry(facts.keep),
            used: self.seconds(),
            hits: facts.hits,
            cost: facts.cost,
            kin: facts.kin,
        };
        let sealed = self.seal.seal(at, &record.encode());
        let record = sealed.ok_or_else(|| io::Error::other("no randomness"))?;
        Ok(Change::Put { key: at.locator, record, brief })
    }
}

impl Facts {
    fn of(entry: &Entry, seal: &Seal) -> Self {
        let (hits, cost) = (entry.hits.load(Relaxed), entry.fill_millis);
        Self { keep: entry.freshness().keep_until, hits, cost, kin: Kin::of(entry, seal) }
    }
}
