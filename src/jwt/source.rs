//! Where the keys of an issuer come from, and what keeps them up to date: a task for each issuer.
//!
//! A URL is asked at the start, every `refresh`, and when a token names a key that is not known, at most once in
//! `refresh_min`, for all who wait. A file is read again when it changes. Keys that cannot be had leave in place those
//! there were; those of a URL for `keys_max_age`.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    config::{Config, Limits},
    keys::{KeySet, NoKeys},
    metrics::Metrics,
};

/// How often a file is looked at.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(5);

/// Gets what is behind URLs.
pub trait Fetch: Send + Sync {
    /// The content of a 200 to a GET: of `bytes_max` at most, within `timeout`; or why there is none.
    fn get(&self, url: &str, bytes_max: usize, timeout: Duration) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Fetch(String),
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Keys(#[from] NoKeys),
}

/// Keys, and what tells whether they are others than before.
pub(super) type Found = (KeySet, blake3::Hash);

/// Everything that says how keys are had. Where it is the same, they are the same.
#[derive(Debug, Clone, PartialEq)]
struct Settings {
    issuer: String,
    keys: String,
    is_remote: bool,
    refresh: Duration,
    limits: Limits,
}

/// The keys of an issuer.
pub(super) struct Source {
    shared: Arc<Shared>,
    keeper: OnceLock<AbortOnDropHandle<()>>,
}

struct Shared {
    settings: Settings,
    fetch: Arc<dyn Fetch>,
    metrics: Metrics,
    held: ArcSwap<Held>,
    /// Wakes who fetches.
    wanted: Notify,
    rounds: watch::Sender<Round>,
}

/// The keys there are.
pub(super) struct Held {
    /// `None`: they are not known.
    pub(super) keys: Option<KeySet>,
    /// Another for each set of keys in the life of the process.
    pub(super) number: u64,
    digest: Option<blake3::Hash>,
    since: Instant,
}

/// How far fetching is.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// How many have ended.
    ended: u64,
    under_way: bool,
    /// When the next one may begin.
    next: Instant,
}

impl Held {
    fn new(keys: Option<Found>) -> Arc<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (keys, digest) = keys.unzip();
        Arc::new(Self { keys, number: NUMBER.fetch_add(1, Relaxed), digest, since: Instant::now() })
    }
}

impl Source {
    /// As configured. A file is read at once; nobody is asked before [`Source::begin`]. Until then there are the keys
    /// that an `earlier` one has from the same place.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no keys.
    pub(super) fn new(
        config: &Config,
        limits: &Limits,
        earlier: Option<&Self>,
        fetch: &Arc<dyn Fetch>,
        metrics: &Metrics,
    ) -> Result<Self, Failure> {
        let settings = Settings::of(config, limits);
        let keys = if settings.is_remote { None } else { Some(settings.read()?) };
        let was_read = keys.is_some();
        let earlier = earlier.filter(|earlier| settings.is_remote && earlier.shared.settings.keys == settings.keys);
        let held = earlier.map_or_else(|| Held::new(keys), |earlier| earlier.shared.held.load_full());
        let round = Round { ended: 0, under_way: settings.is_remote, next: Instant::now() };
        let shared = Shared {
            fetch: Arc::clone(fetch),
            metrics: metrics.clone(),
            held: ArcSwap::new(held),
            wanted: Notify::new(),
            rounds: watch::Sender::new(round),
            settings,
        };
        shared.metrics.begin(&shared.settings.issuer);
        if was_read {
            shared.metrics.fetched(&shared.settings.issuer);
        }
        Ok(Self { shared: Arc::new(shared), keeper: OnceLock::new() })
    }

    /// Whether it has the keys that are asked for here.
    pub(super) fn is_of(&self, config: &Config, limits: &Limits) -> bool {
        self.shared.settings == Settings::of(config, limits)
    }

    /// What its file holds now; `None`: it is none.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no keys.
    pub(super) fn read_anew(&self) -> Result<Option<Found>, Failure> {
        let settings = &self.shared.settings;
        (!settings.is_remote).then(|| settings.read()).transpose()
    }

    /// Takes what was found in its file.
    pub(super) fn take(&self, found: Found) {
        self.shared.take(Ok(found), 0);
    }

    /// Whether it is of the issuer of that name.
    pub(super) fn is_of_issuer(&self, name: &str) -> bool {
        self.shared.settings.issuer == name
    }

    /// Keeps the keys up to date from now on. To be called within a runtime.
    pub(super) fn begin(&self) {
        self.keeper.get_or_init(|| {
            let shared = Arc::clone(&self.shared);
            let is_remote = shared.settings.is_remote;
            AbortOnDropHandle::new(tokio::spawn(async move {
                if is_remote { shared.ask().await } else { shared.watch().await }
            }))
        });
    }

    /// Keys that one token is tried with.
    pub(super) fn tried_max(&self) -> usize {
        self.shared.settings.limits.keys_tried_max
    }

    /// The keys as they are now.
    pub(super) fn held(&self) -> arc_swap::Guard<Arc<Held>> {
        self.shared.held.load()
    }

    /// Waits until the keys have been asked for once more, where they may be.
    pub(super) async fn look_again(&self) {
        if !self.shared.settings.is_remote {
            return;
        }
        let mut rounds = self.shared.rounds.subscribe();
        let seen = *rounds.borrow_and_update();
        if !seen.under_way && Instant::now() < seen.next {
            return;
        }
        self.shared.wanted.notify_one();
        // Who fetches gives up after `keys_timeout`; this is for one that has died.
        let patience = self.shared.settings.limits.keys_timeout * 2;
        let _ = timeout(patience, rounds.wait_for(|round| round.ended > seen.ended)).await;
    }
}

impl Settings {
    fn of(config: &Config, limits: &Limits) -> Self {
        Self {
            issuer: config.name.clone(),
            keys: config.keys.clone(),
            is_remote: config.is_remote(),
            refresh: config.refresh,
            limits: limits.clone(),
        }
    }

    fn bytes_max(&self) -> usize {
        usize::try_from(self.limits.keys_bytes_max.as_u64()).unwrap_or(usize::MAX)
    }

    fn keys(&self, content: &[u8]) -> Result<Found, Failure> {
        Ok((KeySet::read(content, self.limits.keys_max)?, blake3::hash(content)))
    }

    /// Reads the file.
    fn read(&self) -> Result<Found, Failure> {
        let (mut content, max) = (Vec::new(), self.bytes_max());
        File::open(&self.keys)?.take(max as u64 + 1).read_to_end(&mut content)?;
        if content.len() > max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large (jwt.keys_bytes_max)").into());
        }
        self.keys(&content)
    }
}

impl Shared {
    /// Fetches again and again.
    async fn ask(&self) {
        let (settings, mut failures) = (&self.settings, 0_u64);
        loop {
            let begun = Instant::now();
            self.rounds
                .send_modify(|round| (round.under_way, round.next) = (true, begun + settings.limits.refresh_min));
            let got = self.fetched().await;
            failures = if got.is_ok() { 0 } else { failures + 1 };
            self.take(got, failures);
            self.rounds.send_modify(|round| (round.under_way, round.ended) = (false, round.ended + 1));
            let pause = if failures == 0 { settings.refresh } else { settings.limits.refresh_min };
            self.pause(begun + settings.limits.refresh_min, begun + pause).await;
        }
    }

    /// Until `until`, or until somebody wants keys, from `earliest` on.
    async fn pause(&self, earliest: Instant, until: Instant) {
        let wanted = async {
            loop {
                self.wanted.notified().await;
                if Instant::now() >= earliest {
                    return;
                }
            }
        };
        tokio::select! {
            () = sleep_until(until) => {}
            () = wanted => {}
        }
    }

    async fn fetched(&self) -> Result<Found, Failure> {
        let limit = self.settings.limits.keys_timeout;
        let asking = timeout(limit, self.fetch.get(&self.settings.keys, self.settings.bytes_max(), limit));
        let content = asking.await.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
        self.settings.keys(&content.map_err(Failure::Fetch)?)
    }

    /// Looks at the file again and again.
    async fn watch(self: Arc<Self>) {
        let (mut seen, mut failures) = (None, 0_u64);
        loop {
            let shared = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || {
                let now = stamp(Path::new(&shared.settings.keys));
                // What is there is known before it is read: a change in between is seen the next time.
                (now, (now != seen).then(|| shared.settings.read()))
            });
            // A panic there is one look that was not taken.
            if let Ok((now, Some(read))) = looked.await {
                failures = if read.is_ok() { 0 } else { failures + 1 };
                self.take(read, failures);
                seen = now;
            }
            sleep(LOOKED_AT_EVERY).await;
        }
    }

    /// Takes keys in the place of those there are, if there are any.
    fn take(&self, got: Result<Found, Failure>, failures: u64) {
        let (issuer, held) = (&self.settings.issuer, self.held.load());
        match got {
            Ok((keys, digest)) => {
                self.metrics.fetched(issuer);
                if held.digest == Some(digest) {
                    // The same again: what was verified with them stays so.
                    self.held.store(Held::renewed(&held, keys));
                    return;
                }
                tracing::info!(issuer, ?keys, "keys of an issuer of tokens");
                self.held.store(Held::new(Some((keys, digest))));
            }
            Err(error) => {
                self.metrics.failed(issuer);
                let is_too_old = held.since.elapsed() >= self.settings.limits.keys_max_age;
                if self.settings.is_remote && held.keys.is_some() && is_too_old {
                    tracing::error!(issuer, %error, "keys of an issuer of tokens are too old (jwt.keys_max_age)");
                    self.held.store(Held::new(None));
                } else if failures == 1 {
                    // Told once while it goes on.
                    tracing::warn!(issuer, %error, "keys of an issuer of tokens cannot be had");
                } else {
                    tracing::debug!(issuer, %error, "keys of an issuer of tokens cannot be had");
                }
            }
        }
    }
}

impl Held {
    fn renewed(earlier: &Self, keys: KeySet) -> Arc<Self> {
        Arc::new(Self { keys: Some(keys), number: earlier.number, digest: earlier.digest, since: Instant::now() })
    }
}

/// What changes with a file's content: time, length and number of what is there; `None`: nothing is.
fn stamp(path: &Path) -> Option<(i64, i64, u64, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
}
