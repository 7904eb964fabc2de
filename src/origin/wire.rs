//! A connection to an origin that speaks HTTP: the handle requests are sent through. The protocol itself runs in a
//! task of its own, which ends when the connection does or when its handle is dropped.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    thread::{self, ThreadId},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Version, header::CONNECTION};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::{
    connect::in_time,
    error::{Error, Kind},
    io::{Ear, Io, Stream},
    request::SendBody,
    upstream::Limits,
};

/// Largest piece of a body read at once; also what a connection may buffer of a request.
const BUFFER_MAX: usize = 128 * 1024;
/// What hyper allows without asking the allocator for each response.
const HEAD_FIELDS_INLINE: usize = 100;
/// HTTP/2 connections with requests in flight are asked for a sign of life this often.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// One connection that speaks HTTP/1.
#[derive(Debug)]
pub(super) struct H1 {
    pub(super) sender: http1::SendRequest<SendBody>,
    pub(super) ear: Arc<Ear>,
    /// How long it may be kept unused; zero if it must not be used again.
    pub(super) keep: Duration,
    /// The thread on which it is driven: a request from there needs no other thread to wake up.
    pub(super) home: ThreadId,
    _open: Open,
}

/// One connection that speaks HTTP/2.
#[derive(Debug)]
pub(super) struct H2 {
    sender: http2::SendRequest<SendBody>,
    driver: Driver,
    streams: AtomicUsize,
    retired: AtomicBool,
    clock: Clock,
    /// When a request last ended.
    used: AtomicU64,
    _open: Open,
}

/// Counts a connection for as long as it exists.
#[derive(Debug)]
pub(super) struct Open {
    count: Arc<AtomicUsize>,
    gauge: Gauge,
}

/// Seconds, as counted by the pools' sweeper. Coarse, but reading it costs nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<AtomicU64>);

type H2Connection = http2::Connection<TokioIo<Io>, SendBody, TokioExecutor>;

/// Runs an HTTP/2 connection, and lets others ask it how many streams the origin allows.
#[derive(Debug, Clone)]
struct Driver {
    connection: Arc<Mutex<Option<H2Connection>>>,
    ear: Arc<Ear>,
}

// === impl Clock ===

impl Clock {
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Another second has passed; returns which.
    pub(super) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

// === impl Open ===

impl Open {
    pub(super) fn new(count: &Arc<AtomicUsize>, gauge: &Gauge) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        gauge.inc();
        Self { count: Arc::clone(count), gauge: gauge.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

// === impl H1 ===

impl H1 {
    /// Starts HTTP/1 on `stream`.
    pub(super) async fn start(stream: Stream, limits: &Limits, open: Open) -> Result<Self, Error> {
        let (io, ear) = Io::new(stream);
        let mut builder = http1::Builder::new();
        builder.max_header_size(limits.head_bytes_max).max_buf_size(BUFFER_MAX.max(limits.head_bytes_max));
        if limits.head_fields_max != HEAD_FIELDS_INLINE {
            builder.max_headers(limits.head_fields_max);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(internal)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to an origin ended");
            }
        });
        Ok(Self { sender, ear, keep: Duration::ZERO, home: thread::current().id(), _open: open })
    }

    /// Learns from a response head how long the connection may be kept: `keep_max`, less if the origin says so.
    pub(super) fn learn(&mut self, version: Version, headers: &HeaderMap, keep_max: Duration) {
        self.keep = if persists(version, headers) { keep_alive(headers, keep_max) } else { Duration::ZERO };
    }
}

/// Whether the connection may be used again after this response.
fn persists(version: Version, headers: &HeaderMap) -> bool {
    let says = |token| headers.get_all(CONNECTION).iter().any(|value| lists(value, token));
    let kept = if version == Version::HTTP_11 { !says("close") } else { says("keep-alive") && !says("close") };
    // Both framings at once: what follows may have been meant to be taken for a response (RFC 9112, 6.3).
    let ambiguous = headers.contains_key(http::header::TRANSFER_ENCODING)
        && (headers.contains_key(http::header::CONTENT_LENGTH) || version != Version::HTTP_11);
    kept && !ambiguous
}

fn lists(value: &HeaderValue, token: &str) -> bool {
    value.as_bytes().split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// `Keep-Alive: timeout=N` less a second, so that the origin does not close while a request is on its way.
fn keep_alive(headers: &HeaderMap, keep_max: Duration) -> Duration {
    let Some(value) = headers.get("keep-alive") else { return keep_max };
    let parameters = value.to_str().unwrap_or_default().split(',');
    let mut announced = parameters.filter_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        let seconds: u64 = seconds.trim().parse().ok()?;
        name.trim().eq_ignore_ascii_case("timeout").then_some(Duration::from_secs(seconds))
    });
    announced.next().map_or(keep_max, |announced| announced.saturating_sub(Duration::from_secs(1)).min(keep_max))
}

// === impl H2 ===

impl H2 {
    /// Starts HTTP/2 on `stream`, and waits until the origin has said how many streams it allows.
    pub(super) async fn start(
        stream: Stream,
        limits: &Limits,
        open: Open,
        clock: Clock,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let (io, ear) = Io::new(stream);
        let head_bytes_max = u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(head_bytes_max)
            // None before the origin's settings: a burst would pile up on a connection that allows four.
            .initial_max_send_streams(0)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let handshake = async { builder.handshake(TokioIo::new(io)).await.map_err(failed_start) };
        let (sender, connection) = in_time(deadline, Kind::ConnectTimeout, handshake).await?;
        let driver = Driver { connection: Arc::new(Mutex::new(Some(connection))), ear };
        tokio::spawn(driver.clone());
        in_time(deadline, Kind::ConnectTimeout, poll_fn(|cx| driver.poll_settings(cx, &sender))).await?;
        let (streams, used) = (AtomicUsize::new(0), AtomicU64::new(clock.now()));
        Ok(Self { sender, driver, streams, retired: AtomicBool::new(false), clock, used, _open: open })
    }

    /// A handle to send one request.
    pub(super) fn sender(&self) -> http2::SendRequest<SendBody> {
        self.sender.clone()
    }

    /// Whether further requests may be sent.
    pub(super) fn is_usable(&self) -> bool {
        !self.retired.load(Ordering::Relaxed) && !self.sender.is_closed()
    }

    /// No further requests after those in flight.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Requests in flight.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whether another request fits, by the origin's word and ours.
    pub(super) fn has_room(&self, streams_max: usize) -> bool {
        self.streams() < streams_max.min(self.driver.streams_allowed())
    }

    /// Counts a request in.
    pub(super) fn enter(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request out.
    pub(super) fn leave(&self) {
        self.used.store(self.clock.now(), Ordering::Relaxed);
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it has been without requests for longer than `keep`.
    pub(super) fn is_unused(&self, keep: Duration) -> bool {
        let unused = self.clock.now().saturating_sub(self.used.load(Ordering::Relaxed));
        self.streams() == 0 && unused > keep.as_secs()
    }
}

// === impl Driver ===

impl Driver {
    /// Streams the origin allows; 0 once the connection has ended.
    fn streams_allowed(&self) -> usize {
        self.connection.lock().as_ref().map_or(0, H2Connection::current_max_send_streams)
    }

    fn poll_settings(&self, cx: &Context<'_>, sender: &http2::SendRequest<SendBody>) -> Poll<Result<(), Error>> {
        // Registered first: settings that come after the look below wake this.
        self.ear.register(cx);
        if sender.is_closed() {
            return Poll::Ready(Err(Error::new(Kind::Protocol).into_unseen()));
        }
        if self.streams_allowed() > 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = self.connection.lock();
        if let Some(connection) = slot.as_mut() {
            let ended = ready!(Pin::new(connection).poll(cx));
            if let Err(error) = ended {
                tracing::debug!(%error, "connection to an origin ended");
            }
            // The handles ask this half whether the connection lives.
            *slot = None;
        }
        self.ear.wake();
        Poll::Ready(())
    }
}

fn internal(cause: hyper::Error) -> Error {
    Error::with(Kind::Internal, cause).into_unseen()
}

fn failed_start(cause: hyper::Error) -> Error {
    Error::awaiting_head(cause, false).into_unseen()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn persistence_follows_version_and_connection() {
        for (version, lines, expected) in [
            (Version::HTTP_11, &[][..], true),
            (Version::HTTP_11, &[("connection", "foo, Close")], false),
            (Version::HTTP_10, &[], false),
            (Version::HTTP_10, &[("connection", "Keep-Alive")], true),
            (Version::HTTP_11, &[("transfer-encoding", "chunked")], true),
            (Version::HTTP_11, &[("transfer-encoding", "chunked"), ("content-length", "3")], false),
        ] {
            assert_eq!(persists(version, &headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn an_announced_timeout_shortens_the_stay_by_a_second_more() {
        let max = Duration::from_secs(60);
        for (value, seconds) in
            [("timeout=5, max=100", 4), ("max=3, Timeout = 9", 8), ("timeout=1", 0), ("timeout=900", 60), ("x", 60)]
        {
            assert_eq!(keep_alive(&headers(&[("keep-alive", value)]), max), Duration::from_secs(seconds), "{value}");
        }
        assert_eq!(keep_alive(&headers(&[]), max), max);
    }
}
