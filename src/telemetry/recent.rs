//! The last requests, kept in memory for who looks at the gateway, and handed on to who follows them.
//!
//! A thread notes its requests in a ring of its own, so requests wait for no other thread; who looks takes one ring after
//! the other. Plain hits are noted only while somebody looks ([`Recent::is_watched`]): they are the requests that a note
//! would cost the most. Whoever follows has a bounded queue, and is told how much did not fit.

use std::{
    cell::Cell,
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::Instant,
};

use super::{
    config::{Config, Format},
    line::Line,
};

/// How long after somebody looked plain hits are still noted.
const WATCHED: Duration = Duration::from_secs(60);
/// Rings, at most: threads beyond share them.
const RINGS_MAX: usize = 64;

thread_local! {
    static RING: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The last requests; cheap to clone.
#[derive(Clone)]
pub struct Recent {
    shared: Arc<Shared>,
}

struct Shared {
    max: usize,
    streams_max: usize,
    stream_queue_max: usize,
    made: Instant,
    /// Milliseconds after `made` until which plain hits are noted.
    watched_until: AtomicU64,
    number: AtomicU64,
    threads: AtomicUsize,
    rings: Box<[Mutex<VecDeque<Arc<Noted>>>]>,
    streams: RwLock<Vec<Arc<Stream>>>,
    /// As many as `streams` has.
    following: AtomicUsize,
}

/// One request, as it was noted at its end.
#[derive(Debug)]
pub struct Noted {
    /// Counts the requests that were noted, from 1.
    pub number: u64,
    status: u16,
    outcome: &'static str,
    route: Box<str>,
    tenant: Option<Box<str>>,
    path: Box<str>,
    /// As the access log has it in JSON: masked, cut, and safe to show. Without a line feed.
    pub line: Box<str>,
}

/// Which requests are wanted: those that fit everything that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of the words for outcomes.
    pub outcome: Option<String>,
    /// Name of a route.
    pub route: Option<String>,
    /// Name of a tenant.
    pub tenant: Option<String>,
    /// See [`Status`].
    pub status: Option<Status>,
    /// A path, or the beginning of one with `*` behind it.
    pub path: Option<String>,
}

/// One status, or all of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Such as 404.
    One(u16),
    /// Such as 4 for 400 to 499.
    Class(u16),
}

/// Requests as they end. Following ends when it is dropped.
pub struct Following {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    queue: mpsc::Receiver<Arc<Noted>>,
}

struct Stream {
    filter: Filter,
    queue: mpsc::Sender<Arc<Noted>>,
    dropped: AtomicU64,
}

impl Recent {
    /// Nothing noted yet.
    pub fn new(config: &Config) -> Self {
        let rings = std::thread::available_parallelism().map_or(1, usize::from).min(RINGS_MAX);
        let shared = Shared {
            max: config.recent_max,
            streams_max: config.streams_max,
            stream_queue_max: config.stream_queue_max,
            made: Instant::now(),
            watched_until: AtomicU64::new(0),
            number: AtomicU64::new(0),
            threads: AtomicUsize::new(0),
            rings: (0..rings).map(|_| Mutex::default()).collect(),
            streams: RwLock::default(),
            following: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether anything is noted at all.
    pub fn is_on(&self) -> bool {
        self.shared.max > 0
    }

    /// Whether somebody follows, or looked within the last minute before `now`.
    pub fn is_watched(&self, now: Instant) -> bool {
        let until = self.shared.watched_until.load(Relaxed);
        self.shared.following.load(Relaxed) > 0 || (until > 0 && self.shared.age(now) < until)
    }

    /// Notes a request that has ended.
    pub fn note(&self, line: &Line<'_>) {
        let shared = &self.shared;
        let noted = Arc::new(Noted::of(shared.number.fetch_add(1, Relaxed) + 1, line));
        let mut ring = shared.ring().lock();
        let oldest = if ring.len() < shared.max { None } else { ring.pop_front() };
        ring.push_back(Arc::clone(&noted));
        drop(ring);
        drop(oldest);
        if shared.following.load(Relaxed) > 0 {
            shared.streams.read().iter().for_each(|stream| stream.offer(&noted));
        }
    }

    /// The last of those that fit, the newest first. Who asks watches for a minute.
    pub fn last(&self, filter: &Filter, limit: usize) -> Vec<Arc<Noted>> {
        let shared = &self.shared;
        let until = shared.age(Instant::now() + WATCHED);
        shared.watched_until.fetch_max(until, Relaxed);
        let mut found = Vec::new();
        for ring in &shared.rings {
            let ring = ring.lock();
            found.extend(ring.iter().rev().filter(|noted| filter.admits(noted)).take(limit).cloned());
        }
        found.sort_unstable_by_key(|noted| std::cmp::Reverse(noted.number));
        found.truncate(limit);
        found
    }

    /// Those that fit, from now on; `None` where as many as may follow already.
    pub fn follow(&self, filter: Filter) -> Option<Following> {
        let shared = &self.shared;
        let (sender, queue) = mpsc::channel(shared.stream_queue_max.max(1));
        let stream = Arc::new(Stream { filter, queue: sender, dropped: AtomicU64::new(0) });
        let mut streams = shared.streams.write();
        if streams.len() >= shared.streams_max || !self.is_on() {
            return None;
        }
        streams.push(Arc::clone(&stream));
        shared.following.store(streams.len(), Relaxed);
        drop(streams);
        Some(Following { shared: Arc::clone(shared), stream, queue })
    }
}

impl Shared {
    fn age(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.made).as_millis()).unwrap_or(u64::MAX)
    }

    /// That of this thread.
    fn ring(&self) -> &Mutex<VecDeque<Arc<Noted>>> {
        let own = RING.get().unwrap_or_else(|| {
            let own = self.threads.fetch_add(1, Relaxed);
            RING.set(Some(own));
            own
        });
        &self.rings[own % self.rings.len()]
    }
}

impl Noted {
    fn of(number: u64, line: &Line<'_>) -> Self {
        let path = line.target.split('?').next().unwrap_or_default();
        let mut text = Vec::with_capacity(512);
        line.format(Format::Json, &mut text);
        text.pop();
        Self {
            number,
            status: line.status,
            outcome: line.outcome,
            route: line.route.into(),
            tenant: line.tenant.map(Into::into),
            path: path.into(),
            line: String::from_utf8(text).unwrap_or_else(|_| "{}".to_owned()).into(),
        }
    }
}

impl Filter {
    fn admits(&self, noted: &Noted) -> bool {
        let same = |wanted: &Option<String>, given: &str| wanted.as_deref().is_none_or(|wanted| wanted == given);
        same(&self.outcome, noted.outcome)
            && same(&self.route, &noted.route)
            && same(&self.tenant, noted.tenant.as_deref().unwrap_or_default())
            && self.status.is_none_or(|status| status.is(noted.status))
            && self.path.as_deref().is_none_or(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => noted.path.starts_with(beginning),
                None => *noted.path == *pattern,
            })
    }
}

impl Status {
    fn is(self, status: u16) -> bool {
        match self {
            Self::One(one) => status == one,
            Self::Class(class) => status / 100 == class,
        }
    }
}

impl std::str::FromStr for Status {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const NONE: &str = "a status such as 404, or a class such as 5xx";
        match text.as_bytes() {
            [class @ b'1'..=b'5', b'x', b'x'] => Ok(Self::Class(u16::from(class - b'0'))),
            _ => text.parse().ok().filter(|status| (100..1000).contains(status)).map(Self::One).ok_or(NONE),
        }
    }
}

impl Stream {
    fn offer(&self, noted: &Arc<Noted>) {
        if self.filter.admits(noted)
            && let Err(TrySendError::Full(_)) = self.queue.try_send(Arc::clone(noted))
        {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Following {
    /// The next one; never ends by itself.
    pub async fn next(&mut self) -> Option<Arc<Noted>> {
        self.queue.recv().await
    }

    /// How many did not fit into the queue since this was asked last.
    pub fn dropped(&self) -> u64 {
        self.stream.dropped.swap(0, Relaxed)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut streams = self.shared.streams.write();
        streams.retain(|stream| !Arc::ptr_eq(stream, &self.stream));
        self.shared.following.store(streams.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::{super::line::tests::line, *};

    fn recent(recent_max: usize, stream_queue_max: usize) -> Recent {
        let config = Config {
            format: Format::Json,
            level: String::new(),
            access: false,
            sample: 1.0,
            queue_max: 1,
            file: String::new(),
            audit_file: String::new(),
            rotate_bytes: ByteSize(0),
            rotate_age: Duration::ZERO,
            keep: 0,
            recent_max,
            streams_max: 2,
            stream_queue_max,
        };
        Recent::new(&config)
    }

    fn numbers(noted: &[Arc<Noted>]) -> Vec<u64> {
        noted.iter().map(|noted| noted.number).collect()
    }

    #[test]
    fn the_last_ones_are_kept_newest_first() {
        let recent = recent(3, 1);
        (0..5).for_each(|_| recent.note(&line()));
        assert_eq!(numbers(&recent.last(&Filter::default(), 10)), [5, 4, 3]);
        assert_eq!(numbers(&recent.last(&Filter::default(), 2)), [5, 4]);
    }

    #[test]
    fn all_threads_are_gathered() {
        let recent = recent(10, 1);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| recent.note(&line()));
            }
        });
        assert_eq!(numbers(&recent.last(&Filter::default(), 10)), [4, 3, 2, 1]);
    }

    #[test]
    fn a_filter_is_all_of_what_it_says() {
        let recent = recent(10, 1);
        recent.note(&Line { status: 200, outcome: "hit", route: "a", target: "/v1/x?y", ..line() });
        let tenant = Some("search");
        recent.note(&Line { status: 503, outcome: "error", route: "b", tenant, target: "/v2", ..line() });
        let found = |filter: Filter| numbers(&recent.last(&filter, 10));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(found(Filter { outcome: some("hit"), ..Filter::default() }), [1]);
        assert_eq!(found(Filter { route: some("b"), ..Filter::default() }), [2]);
        assert_eq!(found(Filter { tenant: some("search"), ..Filter::default() }), [2]);
        assert_eq!(found(Filter { tenant: some("shop"), ..Filter::default() }), [0; 0]);
        assert_eq!(found(Filter { status: "5xx".parse().ok(), ..Filter::default() }), [2]);
        assert_eq!(found(Filter { status: "200".parse().ok(), ..Filter::default() }), [1]);
        assert_eq!(found(Filter { path: some("/v*"), ..Filter::default() }), [2, 1]);
        assert_eq!(found(Filter { path: some("/v1/x"), ..Filter::default() }), [1], "without its query");
        assert_eq!(found(Filter { path: some("/v1/x"), route: some("b"), ..Filter::default() }), [0; 0]);
        for wrong in ["", "6xx", "xx", "99", "1000", "5x"] {
            assert!(wrong.parse::<Status>().is_err(), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watched_for_a_minute_after_a_look_and_while_followed() {
        let recent = recent(3, 1);
        let watched = || recent.is_watched(Instant::now());
        assert!(!watched());
        recent.last(&Filter::default(), 1);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(watched());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!watched());
        let following = recent.follow(Filter::default());
        assert!(watched());
        drop(following);
        assert!(!watched());
    }

    #[tokio::test]
    async fn who_follows_too_slowly_is_told_what_was_dropped() {
        let recent = recent(3, 2);
        let mut following = recent.follow(Filter::default()).expect("room");
        (0..5).for_each(|_| recent.note(&line()));
        assert_eq!((following.dropped(), following.dropped()), (3, 0));
        assert_eq!(following.next().await.map(|noted| noted.number), Some(1));
        let other = recent.follow(Filter::default());
        assert!(other.is_some() && recent.follow(Filter::default()).is_none(), "two may");
        drop(other);
        assert!(recent.follow(Filter::default()).is_some());
    }

    #[test]
    fn secrets_are_masked() {
        let recent = recent(3, 1);
        recent.note(&Line { target: "/a?token=S3CR3T", ..line() });
        let noted = recent.last(&Filter::default(), 1);
        assert!(noted[0].line.contains("token=***") && !noted[0].line.contains("S3CR3T"), "{}", noted[0].line);
    }
}
