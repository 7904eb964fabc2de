//! What of an archive is stored: entry by entry, as it comes.
//!
//! ```text
//!  head ─▶ known route? ─▶ purged since? ─▶ of use yet? ─▶ not too large? ─▶ nothing newer here?
//!  content ─▶ gathered, or written to the disk while it comes ─▶ whole ─▶ stored as a fill's would be, in L1 and L3
//! ```
//!
//! *Purges.* Where the archive is of this log (`purge/runs.rs`), entries keep their stamps, and the log says what was purged
//! since. Where it is of another node of the same fleet, the log of all nodes says it; from then on an entry has the
//! position at which the import began. Of an archive from elsewhere nobody can say what was purged after the export: it is
//! taken only where the caller answers for that. Purges that come while an import runs are above its position in any case.
//!
//! *Unsafe requests* are in no log. What one of them removed after the export comes back with the archive, unless entries are
//! taken as stale. From the moment an entry is looked at until it is stored, its URL is watched.
//!
//! L2 gets nothing: what lies there says by its position in the log of all nodes, and by when its fill began, what it may
//! take the place of, and an import has neither. Other nodes import for themselves, and what is confirmed here goes to L2
//! with that.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{Cache, invalidations::Watch, promote::as_kept_now, route::Route};
use crate::{
    archive::{Config, EntryHead, Header, Item},
    object::{
        codec,
        entry::{Entry, Unpacked},
        variants_codec,
        vary::Variant,
    },
    store::l3::Writer,
};

mod commit;
mod times;
mod trust;

use self::commit::{Committed, Destined};
pub use self::trust::Refused;
use self::{times::Ahead, trust::Trust};

/// How long an entry waits for the disk before the next one is taken in its place.
const WRITTEN_MAX: Duration = Duration::from_secs(30);

/// How an archive is taken.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Nothing is stored, only counted.
    pub dry_run: bool,
    /// What is of any of these routes; none: of all.
    pub routes: Vec<String>,
    /// Also from elsewhere: the caller answers for what was purged after the export.
    pub foreign: bool,
    /// Entries are stale: the origin is asked about each before it is used.
    pub stale: bool,
}

/// What an import came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    /// Entries that were stored, or would have been.
    pub stored: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Left out: here is something as new or newer.
    pub newer: u64,
    /// Left out: past all use.
    pub expired: u64,
    /// Left out: purged, or invalidated while they were stored.
    pub purged: u64,
    /// Left out: larger than any tier takes here.
    pub too_large: u64,
    /// Left out: their route is not here, or their URL falls on another one.
    pub unknown_route: u64,
    /// Left out: no tier had room for them.
    pub refused: u64,
    /// Left out: not to be read, here or when they were exported.
    pub unreadable: u64,
    /// Left out: not asked for.
    pub not_asked: u64,
    /// Whether the archive came to its end.
    pub complete: bool,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether nothing was stored, as was asked for.
    pub dry_run: bool,
}

/// Why an entry is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Newer,
    Expired,
    Purged,
    TooLarge,
    UnknownRoute,
    Refused,
    Unreadable,
    NotAsked,
}

impl Imported {
    fn left(&mut self, why: Left) {
        *match why {
            Left::Newer => &mut self.newer,
            Left::Expired => &mut self.expired,
            Left::Purged => &mut self.purged,
            Left::TooLarge => &mut self.too_large,
            Left::UnknownRoute => &mut self.unknown_route,
            Left::Refused => &mut self.refused,
            Left::Unreadable => &mut self.unreadable,
            Left::NotAsked => &mut self.not_asked,
        } += 1;
    }

    fn stored(&mut self, bytes: u64) {
        self.stored += 1;
        self.bytes += bytes;
    }
}

/// An entry that is on its way to the disk; the bytes of it that are held.
type Landing = Pin<Box<dyn Future<Output = usize> + Send>>;

/// An import under way.
pub struct Import<R> {
    cache: Cache,
    config: Config,
    options: Options,
    route_of: R,
    trust: Trust,
    ahead: Ahead,
    taking: Taking,
    landing: FuturesUnordered<Landing>,
    /// Bytes of the content of these.
    held: usize,
    done: Imported,
}

/// What becomes of the content that comes.
enum Taking {
    /// Nothing.
    Nothing,
    /// It is counted alone.
    Counted(u64),
    Gathered(Destined, Vec<u8>),
    Written(Destined, Box<Writer>),
}

impl Cache {
    /// Begins the import of the archive that begins with `header`, which is this gateway's by its seal. `route_of` finds the
    /// route of an entry.
    ///
    /// # Errors
    /// Where nothing of it may be used here.
    pub fn import<R: Fn(&Entry) -> Option<Arc<Route>>>(
        &self,
        header: &Header,
        options: Options,
        config: Config,
        route_of: R,
    ) -> Result<Import<R>, Refused> {
        let trust = self.trust(header, options.foreign)?;
        let ahead = Ahead::of(header, self.now());
        let done = Imported { dry_run: options.dry_run, ..Imported::default() };
        let (cache, landing) = (self.clone(), FuturesUnordered::new());
        Ok(Import { cache, config, options, route_of, trust, ahead, taking: Taking::Nothing, landing, held: 0, done })
    }
}

impl<R: Fn(&Entry) -> Option<Arc<Route>>> Import<R> {
    /// Takes what comes next in the archive. Waits for the disk where enough is on its way there.
    pub async fn take(&mut self, item: Item) {
        match item {
            Item::Header(_) => {}
            Item::Entry(head) => self.taking = self.begin(&head).await,
            Item::Content(piece) => self.piece(piece).await,
            Item::Whole => self.whole().await,
            // The end counts it.
            Item::Dropped => self.taking = Taking::Nothing,
            Item::End(end) => {
                self.done.unreadable += end.unreadable;
                self.done.complete = true;
            }
        }
    }

    /// Waits until all is on the disk that was taken; what it came to. `problem`: why no more came.
    pub async fn finish(mut self, problem: Option<String>) -> Imported {
        while self.landing.next().await.is_some() {}
        let complete = self.done.complete && problem.is_none();
        Imported { complete, problem, ..self.done }
    }

    async fn begin(&mut self, head: &EntryHead) -> Taking {
        let (route, entry, place) = match self.judged(head) {
            Ok(judged) => judged,
            Err(why) => {
                self.done.left(why);
                return Taking::Nothing;
            }
        };
        let watch = self.watch(&entry);
        let destined = Destined { route, entry, place, watch };
        if self.cache.has_newer(&destined).await {
            self.done.left(Left::Newer);
            return Taking::Nothing;
        }
        if self.options.dry_run {
            return Taking::Counted(head.length);
        }
        if head.length <= self.cache.memory_object_bytes_max(&destined.route) {
            return Taking::Gathered(destined, Vec::new());
        }
        match self.cache.disk().and_then(|disk| disk.l3.writer(&destined.entry.key)) {
            Some(writer) => Taking::Written(destined, Box::new(writer)),
            None => {
                self.done.left(Left::Refused);
                Taking::Nothing
            }
        }
    }

    fn watch(&self, entry: &Unpacked) -> Watch {
        // The first scope is the URL's.
        let url = entry.scopes.first().copied().unwrap_or_else(crate::object::scope::Scope::everything);
        self.cache.invalidations().watch(url)
    }

    /// The entry, its route, and its place among variants; or why it is left out.
    fn judged(&self, head: &EntryHead) -> Result<(Arc<Route>, Unpacked, Option<Variant>), Left> {
        let entry = codec::decode_head(&head.head, Bytes::new()).map_err(|_| Left::Unreadable)?;
        let place = place_of(&entry, &head.variant)?;
        let route = (self.route_of)(&entry).filter(|route| *route.name == *head.route).ok_or(Left::UnknownRoute)?;
        if !self.options.routes.is_empty() && !self.options.routes.iter().any(|name| **name == *route.name) {
            return Err(Left::NotAsked);
        }
        let stamp = self.cache.stamp_of(&self.trust, &entry).ok_or(Left::Purged)?;
        let now = self.cache.now();
        if self.ahead.here(entry.freshness().keep_until) <= now {
            return Err(Left::Expired);
        }
        if head.length > self.cache.object_bytes_max(&route) {
            return Err(Left::TooLarge);
        }
        if route.bypass() {
            return Err(Left::Refused);
        }
        let entry = as_kept_now(&route, Arc::new(entry));
        let entry = self.ahead.entry(Unpacked { stamp, ..entry.under(entry.head.clone()) }, now);
        let entry = if self.options.stale { times::as_stale(entry, now) } else { entry };
        Ok((route, entry, place.map(|place| self.ahead.place(place, now))))
    }

    async fn piece(&mut self, piece: Bytes) {
        match &mut self.taking {
            Taking::Nothing | Taking::Counted(_) => {}
            Taking::Gathered(_, content) => content.extend_from_slice(&piece),
            Taking::Written(_, writer) => {
                if writer.push(piece).await.is_err() {
                    self.taking = Taking::Nothing;
                    self.done.left(Left::Refused);
                }
            }
        }
    }

    async fn whole(&mut self) {
        match std::mem::replace(&mut self.taking, Taking::Nothing) {
            Taking::Nothing => {}
            Taking::Counted(length) => self.done.stored(length),
            Taking::Gathered(destined, content) => self.store(destined, content.into()).await,
            Taking::Written(destined, writer) => {
                let length = writer.length();
                match self.cache.commit_written(destined, *writer).await {
                    Ok(()) => self.done.stored(length),
                    Err(why) => self.done.left(why),
                }
            }
        }
    }

    async fn store(&mut self, destined: Destined, content: Bytes) {
        let length = content.len();
        self.make_room(length).await;
        match self.cache.commit(destined, content).await {
            Err(why) => self.done.left(why),
            Ok(Committed { written }) => {
                self.done.stored(length as u64);
                if let Some(written) = written {
                    self.held += length;
                    self.landing.push(Box::pin(async move {
                        // What the disk does not take is in memory all the same.
                        let _ = timeout(WRITTEN_MAX, written).await;
                        length
                    }));
                }
            }
        }
    }

    /// Waits until so much more may be on its way to the disk.
    async fn make_room(&mut self, bytes: usize) {
        let most = usize::try_from(self.config.bytes_max.as_u64()).unwrap_or(usize::MAX);
        while self.landing.len() >= self.config.concurrency || (self.held > 0 && self.held.saturating_add(bytes) > most)
        {
            match self.landing.next().await {
                Some(landed) => self.held = self.held.saturating_sub(landed),
                None => return,
            }
        }
    }
}

/// The place of an entry among the variants of its URL, as it came along; `None`: it needs none.
fn place_of(entry: &Entry, encoded: &[u8]) -> Result<Option<Variant>, Left> {
    let primary = entry.primary();
    if encoded.is_empty() {
        let is_primary = entry.key == primary || entry.key == super::part_key(&primary);
        return if is_primary { Ok(None) } else { Err(Left::Unreadable) };
    }
    let variants = variants_codec::decode(encoded).map_err(|_| Left::Unreadable)?;
    let place = variants.iter().find(|variant| super::export::is_place_of(variant, &entry.key));
    place.cloned().map(Some).ok_or(Left::Unreadable)
}
