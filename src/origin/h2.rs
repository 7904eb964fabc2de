//! A connection that speaks HTTP/2, and who may send another request on it. The protocol itself runs in a task.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    connect::in_time,
    error::{Error, Kind},
    io::{Ear, Io, Stream},
    request::SendBody,
    upstream::Limits,
    wire::{Clock, Open},
};

/// HTTP/2 connections with requests in flight are asked for a sign of life this often.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

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

type H2Connection = http2::Connection<TokioIo<Io>, SendBody, TokioExecutor>;

/// Runs an HTTP/2 connection, and lets others ask it how many streams the origin allows.
#[derive(Debug, Clone)]
struct Driver {
    connection: Arc<Mutex<Option<H2Connection>>>,
    ear: Arc<Ear>,
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

fn failed_start(cause: hyper::Error) -> Error {
    Error::awaiting_head(cause, false).into_unseen()
}
