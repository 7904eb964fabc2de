//! What of the stored responses goes into an archive: what could be used at that moment, and nothing that a purge forbids.
//!
//! ```text
//!  keys of memory, noted ─▶ all that the disk has, by key ─▶ what is left of the noted
//! ```
//!
//! It is read on nobody's behalf: nothing counts as a use, and nothing goes into memory. Content of the disk is read in
//! pieces and waits for who takes the archive, so an export costs a few pieces of memory. What is stored meanwhile may be in
//! it or not. L2 is left out: it is not this node's, and survives it.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{Cache, part_key, route::Route};
use crate::{
    archive::{self, End, EntryHead, FleetPlace, Form, Header, LogPlace, PIECE_MAX, Writer},
    object::{
        codec,
        entry::Entry,
        key::{KEY_SCHEMA, Key},
        scope::Scope,
        variants_codec,
        vary::{Variant, Variants},
    },
    purge::Standing,
    store::{
        Slot,
        l3::{self, Large},
    },
};

/// Keys of the disk that are read at once.
const KEYS: usize = 256;

/// Times a look at the disk is tried: under load one takes longer than requests wait.
const LOOKS_MAX: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Bytes of an archive that are handed over together.
const HANDED_OVER: usize = 64 << 10;

/// What the disk's queue may take to be written before the disk is read: what is left in it is read from it.
const FLUSHED_WITHIN: Duration = Duration::from_secs(10);

/// What is wanted of all that is stored.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What any of these names; `None`: all of it.
    pub scopes: Option<HashSet<Scope>>,
    /// What is of any of these routes; none: of all.
    pub routes: Vec<String>,
    /// What is fresh.
    pub fresh_only: bool,
    /// What the call said, for who reads the archive.
    pub said: String,
}

/// Why nothing can be exported at the moment.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// This node cannot tell what others have purged, so nothing is to be taken along.
    #[error(
        "this node cannot know at the moment what other nodes have purged (its lease is over): try again when it can"
    )]
    Fenced,
    /// There is no memory for it.
    #[error("the archive cannot be begun: {0}")]
    Memory(#[from] io::Error),
}

/// Nobody takes the archive any more.
struct Gone;

/// An export that is about to begin.
pub struct Export<R> {
    cache: Cache,
    wanted: Wanted,
    route_of: R,
    writer: Writer,
    /// Keys that memory had at the beginning, and that are still to come.
    in_memory: HashSet<Key>,
    out: mpsc::Sender<Bytes>,
    /// How long it waits for who takes it.
    patience: Duration,
    end: End,
}

impl Cache {
    /// Prepares an export: what it writes is to be taken from the channel, and given up if that takes longer than
    /// `patience`. `route_of` finds the route of an entry.
    ///
    /// # Errors
    /// Where this node is fenced, or has no memory for it.
    pub async fn export<R: Fn(&Entry) -> Option<Arc<Route>>>(
        &self,
        wanted: Wanted,
        form: Form,
        route_of: R,
        patience: Duration,
    ) -> Result<(Export<R>, mpsc::Receiver<Bytes>), Unavailable> {
        if self.is_fenced(Instant::now()) {
            return Err(Unavailable::Fenced);
        }
        if let Some(l3) = self.l3() {
            // What is stored by now is found on the disk then.
            let _ = timeout(FLUSHED_WITHIN, l3.flush()).await;
        }
        let cache = self.clone();
        let noted = tokio::task::spawn_blocking(move || cache.in_memory()).await;
        let (in_memory, alone) = noted.unwrap_or_default();
        let header = self.archive_header(&wanted, alone);
        let key = archive::seal_key(self.secret());
        let writer = Writer::new(form, key, &header)?;
        // One piece is taken while the next is made.
        let (out, taken) = mpsc::channel(2);
        let (cache, end) = (self.clone(), End::default());
        Ok((Export { cache, wanted, route_of, writer, in_memory, out, patience, end }, taken))
    }

    /// Keys of the entries in memory, 32 bytes for each; and how many of them the disk lacks. Those that are on their way to
    /// the disk are among them: it may have them behind the place that is read by then.
    fn in_memory(&self) -> (HashSet<Key>, u64) {
        let (mut keys, mut alone) = (HashSet::new(), 0);
        self.l1().for_each(&mut |slot| {
            if let Slot::Entry(entry) = slot {
                keys.insert(entry.key);
                alone += u64::from(self.l3().is_none_or(|l3| l3.lacks(&entry.key) || l3.is_enciphered()));
            }
        });
        (keys, alone)
    }

    fn archive_header(&self, wanted: &Wanted, in_memory: u64) -> Header {
        // The places first: what is looked at after this moment has stood before all that was purged up to here.
        let fleet = self.fleet().map(|_| self.fleet_position());
        let log = self.purge_log();
        let position = log.position().number();
        let on_disk = self.l3().filter(|l3| !l3.is_enciphered()).map_or(0, |l3| l3.stats().entries);
        Header {
            software: concat!("larder ", env!("CARGO_PKG_VERSION")).to_owned(),
            created_ms: self.now().as_millis(),
            secret: archive::fingerprint(self.secret()),
            key_schema: KEY_SCHEMA,
            entry_format: codec::VERSION,
            log: LogPlace { run: log.run().map(|run| run.to_string()).unwrap_or_default(), position },
            fleet: fleet.map(|at| FleetPlace { life: at.life, position: at.position.number() }),
            only: wanted.said.clone(),
            expected: on_disk + in_memory,
            memory_only: self.l3().is_some_and(l3::L3::is_enciphered),
        }
    }

    /// What is stored under `key`, without a use of it; `Err` where the disk does not say.
    async fn slot_of(&self, key: &Key) -> Result<Option<Slot>, ()> {
        if let Some(slot) = self.l1().inspect(key, |slot| slot.cloned()) {
            return Ok(Some(slot));
        }
        let Some(l3) = self.l3() else { return Ok(None) };
        for _ in 0..LOOKS_MAX {
            match l3.look(key).await {
                Some(l3::Found::Entry(entry)) => return Ok(Some(Slot::Entry(entry))),
                Some(l3::Found::Large(large)) => return Ok(Some(Slot::Entry(Arc::clone(large.entry())))),
                Some(l3::Found::Variants(variants)) => return Ok(Some(Slot::Variants(variants))),
                None if l3.lacks(key) => return Ok(None),
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
        Err(())
    }

    /// The place of a variant's entry among those of its URL: encoded, and empty where it needs none. `None`: no request
    /// would find it.
    async fn place_of(&self, entry: &Entry) -> Option<Vec<u8>> {
        let primary = entry.primary();
        if entry.key == primary || entry.key == part_key(&primary) {
            return Some(Vec::new());
        }
        let Ok(Some(Slot::Variants(variants))) = self.slot_of(&primary).await else { return None };
        let place = variants.iter().find(|variant| is_place_of(variant, &entry.key))?;
        Some(variants_codec::encode(&Variants::default().with(place.clone(), 1)))
    }
}

/// Whether the entry of that key is the variant's, or a part of it.
pub(super) fn is_place_of(variant: &Variant, key: &Key) -> bool {
    variant.key() == key || part_key(variant.key()) == *key
}

impl<R: Fn(&Entry) -> Option<Arc<Route>>> Export<R> {
    /// Writes all of it. Ends early where nobody takes it: the archive has no end then.
    pub async fn run(mut self) {
        if self.all().await.is_err() {
            tracing::info!(entries = self.end.entries, "export: broken off by who took it");
            return;
        }
        let End { entries, bytes, useless, unreadable } = self.end;
        tracing::info!(entries, bytes, useless, unreadable, "export: complete");
        if let Ok(last) = self.writer.finish(&self.end) {
            let _ = timeout(self.patience, self.out.send(last.into())).await;
        }
    }

    async fn all(&mut self) -> Result<(), Gone> {
        let mut after = None;
        while let Some(keys) = self.keys_after(after).await {
            let Some(last) = keys.last() else { break };
            after = Some(*last);
            for key in &keys {
                self.in_memory.remove(key);
                self.one(key).await?;
            }
        }
        for key in std::mem::take(&mut self.in_memory) {
            self.one(&key).await?;
        }
        Ok(())
    }

    /// The next keys of the disk; `None` where it is off.
    async fn keys_after(&self, after: Option<Key>) -> Option<Vec<Key>> {
        let l3 = self.cache.l3()?.clone();
        tokio::task::spawn_blocking(move || l3.keys_after(after, KEYS)).await.ok().flatten()
    }

    async fn one(&mut self, key: &Key) -> Result<(), Gone> {
        let entry = match self.cache.slot_of(key).await {
            Ok(Some(Slot::Entry(entry))) => entry,
            Ok(_) => return Ok(()),
            Err(()) => {
                self.end.unreadable += 1;
                return Ok(());
            }
        };
        let Some(route) = (self.route_of)(&entry) else {
            // No request would find it.
            self.end.useless += 1;
            return Ok(());
        };
        if !self.is_wanted(&entry, &route) {
            return Ok(());
        }
        let place = if self.is_of_use(&entry) { self.cache.place_of(&entry).await } else { None };
        let Some(variant) = place else {
            self.end.useless += 1;
            return Ok(());
        };
        let (head, length) = (codec::encode_bare_head(&entry), entry.length());
        let begun = self.writer.entry(&EntryHead { route: route.name.to_string(), variant, head, length });
        if !begun.map_err(|_| Gone)? {
            self.end.unreadable += 1;
            return Ok(());
        }
        self.content(&entry).await
    }

    fn is_wanted(&self, entry: &Entry, route: &Route) -> bool {
        let Wanted { scopes, routes, fresh_only, said: _ } = &self.wanted;
        (routes.is_empty() || routes.iter().any(|name| **name == *route.name))
            && scopes.as_ref().is_none_or(|wanted| entry.scopes().iter().any(|scope| wanted.contains(scope)))
            && (!fresh_only || entry.freshness().is_fresh(self.cache.now()))
    }

    /// Whether it may be used at all. What was purged softly may, but elsewhere nobody would know that it was.
    fn is_of_use(&self, entry: &Entry) -> bool {
        let (cache, now) = (&self.cache, self.cache.now());
        now < entry.freshness().keep_until
            && cache.is_of_use(entry)
            && cache.purge_log().standing(entry) == Standing::Untouched
    }

    async fn content(&mut self, entry: &Arc<Entry>) -> Result<(), Gone> {
        match Large::of(entry) {
            None => {
                for piece in entry.content().chunks(PIECE_MAX) {
                    self.writer.content(piece).map_err(|_| Gone)?;
                    self.hand_over(HANDED_OVER).await?;
                }
            }
            Some(large) => {
                let mut pieces = large.all();
                while let Some(piece) = pieces.next().await {
                    let Ok(piece) = piece else {
                        self.end.unreadable += 1;
                        return self.writer.dropped().map_err(|_| Gone);
                    };
                    self.writer.content(&piece).map_err(|_| Gone)?;
                    self.hand_over(HANDED_OVER).await?;
                }
            }
        }
        self.end.entries += 1;
        self.end.bytes += entry.length();
        self.hand_over(HANDED_OVER).await
    }

    /// Hands over what is written, where it is so much.
    async fn hand_over(&mut self, least: usize) -> Result<(), Gone> {
        // To write compresses, and others wait for this thread.
        tokio::task::yield_now().await;
        if self.writer.ready() < least {
            return if self.out.is_closed() { Err(Gone) } else { Ok(()) };
        }
        let piece = self.writer.take();
        timeout(self.patience, self.out.send(piece.into())).await.ok().and_then(Result::ok).ok_or(Gone)
    }
}
