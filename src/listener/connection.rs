//! The life of one connection: hyper's future, under a clock.
//!
//! One timer serves all time-outs of a connection. It is not moved with every request: it is left to go off at an
//! earlier deadline and is then set anew, so that a busy connection touches it about once per time-out.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    Handler, Interim, Peer,
    config::Config,
    express::Lane,
    io::Io,
    link::{Link, Phase, Wait},
    metrics::OpenGuard,
    server::Shared,
    service::Connection,
    sniff::{Protocol, Sniffed, sniff},
    transport::Transport,
};

/// How long a client may take to read our last response and close.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// For so long after it was accepted a connection's first word is waited for, also when the server begins to drain: it is on
/// its way, and the client takes a connection that is closed before an answer for a failure.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// HTTP/2 connections are asked for a sign of life this often, and given this long for it.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes one HTTP/2 response may have waiting for its window.
const H2_SEND_BUFFER: usize = 128 * 1024;
/// Streams a client may have reset that we have not yet noticed, and such that we reset for its errors.
const H2_RESETS_MAX: usize = 64;
/// hyper reads and writes through buffers of at most this size; a smaller one would slow large bodies.
const BUFFER_MIN: usize = 128 * 1024;
/// What hyper keeps room for on the stack.
const HYPER_FIELDS: usize = 100;

/// Serves one client to the end. Whether it has said anything.
pub(super) async fn run<S: Handler + Clone, T: Transport>(
    shared: Arc<Shared>,
    mut stream: T,
    peer: Peer,
    open: Option<OpenGuard>,
    idle_timeout: Duration,
    handler: S,
) -> bool {
    let accepted = Instant::now();
    let first_head_by = accepted + shared.config.head_timeout;
    let drained = async {
        shared.drain.cancelled().await;
        sleep_until(accepted + FIRST_WORD).await;
    };
    let first = tokio::select! {
        biased;
        first = timeout_at(first_head_by, sniff(&mut stream)) => first,
        () = drained => return true,
    };
    match first {
        Ok(Ok(Some((protocol, sniffed)))) => {
            let link = Arc::new(Link::new(protocol == Protocol::Http2));
            let clock = Clock::new(Arc::clone(&shared), Arc::clone(&link), first_head_by, idle_timeout);
            serve(shared, stream, protocol, sniffed, peer, open, handler, link, clock).await;
            true
        }
        // Gone without a word.
        Ok(_) => false,
        Err(_) => {
            shared.metrics.timed_out(Wait::Head);
            false
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "what a connection is made of, put together here once")]
async fn serve<S: Handler + Clone, T: Transport>(
    shared: Arc<Shared>,
    stream: T,
    protocol: Protocol,
    sniffed: Sniffed,
    mut peer: Peer,
    open: Option<OpenGuard>,
    handler: S,
    link: Arc<Link>,
    clock: Clock,
) {
    if protocol == Protocol::Http1 {
        peer.interim = Interim::new(Arc::clone(&link));
    } else {
        peer.link = Some(Arc::clone(&link));
    }
    let peer = Arc::new(peer);
    let lane = Lane { handler: handler.clone(), peer: Arc::clone(&peer), shared: Arc::clone(&shared) };
    let io = TokioIo::new(Io::new(stream, lane, sniffed, Arc::clone(&link), open));
    let connection = Arc::new(Connection {
        handler,
        peer,
        link,
        limits: shared.limits,
        fields_max: shared.config.head_fields_max,
        metrics: Arc::clone(&shared.metrics),
    });
    let service = service_fn(move |request| connection.serve(request));
    match protocol {
        Protocol::Http1 => {
            shared.metrics.accepted_h1.inc();
            let connection = shared.http1.serve_connection(io, service).with_upgrades();
            Clocked { connection, finish: |connection| connection.graceful_shutdown(), clock }.await;
        }
        Protocol::Http2 => {
            shared.metrics.accepted_h2.inc();
            let connection = shared.http2.serve_connection(io, service);
            Clocked { connection, finish: |connection| connection.graceful_shutdown(), clock }.await;
        }
    }
}

/// hyper's HTTP/1.1, as configured.
pub(super) fn http1(config: &Config) -> http1::Builder {
    let head_bytes_max = usize::try_from(config.head_bytes_max.as_u64()).unwrap_or(usize::MAX);
    let mut builder = http1::Builder::new();
    builder
        // Ours covers idle connections too, and costs no timer per request.
        .header_read_timeout(None)
        .max_header_size(head_bytes_max)
        .max_buf_size(head_bytes_max.max(BUFFER_MIN))
        // A client that has closed its half has gone: its request is given up, and the origin's work with it.
        .half_close(false)
        // It would have every body copied.
        .pipeline_flush(false);
    if config.head_fields_max != HYPER_FIELDS {
        builder.max_headers(config.head_fields_max);
    }
    builder
}

/// hyper's HTTP/2, as configured.
pub(super) fn http2(config: &Config) -> hyper::server::conn::http2::Builder<TokioExecutor> {
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.h2_streams_max)
        .max_header_list_size(u32::try_from(config.head_bytes_max.as_u64()).unwrap_or(u32::MAX))
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_pending_accept_reset_streams(H2_RESETS_MAX)
        .max_local_error_reset_streams(H2_RESETS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

pin_project! {
    /// Drives a connection until it ends by itself or by the clock.
    struct Clocked<C> {
        #[pin]
        connection: C,
        // Has it answer what is under way and take nothing new.
        finish: fn(Pin<&mut C>),
        #[pin]
        clock: Clock,
    }
}

impl<C: Future<Output = hyper::Result<()>>> Future for Clocked<C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let mut drains = this.clock.as_mut().drains(cx);
        loop {
            if let Poll::Ready(result) = this.connection.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(%error, "client connection ended");
                }
                return Poll::Ready(());
            }
            // Now that it has seen what its client has said: hyper closes one that has seen nothing.
            if std::mem::take(&mut drains) {
                (this.finish)(this.connection.as_mut());
                continue;
            }
            let Poll::Ready(wait) = this.clock.as_mut().poll_out(cx) else { return Poll::Pending };
            if !this.clock.as_mut().end(wait) {
                return Poll::Ready(());
            }
            (this.finish)(this.connection.as_mut());
        }
    }
}

pin_project! {
    /// Knows what the connection waits for and when that has taken too long.
    struct Clock {
        shared: Arc<Shared>,
        link: Arc<Link>,
        idle_timeout: Duration,
        #[pin]
        sleep: Sleep,
        // Whether `sleep` will wake us.
        set: bool,
        wait: Option<(Wait, u64)>,
        deadline: Instant,
        #[pin]
        drain: WaitForCancellationFutureOwned,
        drain_set: bool,
        draining: bool,
    }

    impl PinnedDrop for Clock {
        fn drop(this: Pin<&mut Self>) {
            // A socket that lives on belongs to a tunnel.
            this.link.enter(Phase::Gone);
        }
    }
}

impl Clock {
    fn new(shared: Arc<Shared>, link: Arc<Link>, first_head_by: Instant, idle_timeout: Duration) -> Self {
        Self {
            idle_timeout,
            sleep: sleep_until(first_head_by),
            set: false,
            wait: Some((Wait::Head, 0)),
            deadline: first_head_by,
            drain: shared.drain.clone().cancelled_owned(),
            drain_set: false,
            draining: false,
            shared,
            link,
        }
    }

    /// True once, when the server begins to drain.
    fn drains(self: Pin<&mut Self>, cx: &mut Context<'_>) -> bool {
        let this = self.project();
        if *this.draining {
            return false;
        }
        // Polled once for its wake-up, which is this task's for good; after that a flag is cheaper to look at.
        *this.draining = if *this.drain_set {
            this.shared.is_draining()
        } else {
            *this.drain_set = true;
            this.drain.poll(cx).is_ready()
        };
        *this.draining
    }

    /// Ready when the client has let the connection wait too long.
    fn poll_out(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Wait> {
        let mut this = self.project();
        let wait = this.link.waits();
        if *this.wait != wait {
            *this.wait = wait;
            if let Some((wait, _)) = wait {
                let timeout = if wait == Wait::Idle { *this.idle_timeout } else { this.shared.timeout(wait) };
                *this.deadline = Instant::now() + timeout;
            }
        }
        let Some((wait, _)) = wait else { return Poll::Pending };
        loop {
            if *this.deadline < this.sleep.deadline() {
                this.sleep.as_mut().reset(*this.deadline);
                *this.set = false;
            }
            if *this.set && !this.sleep.is_elapsed() {
                return Poll::Pending;
            }
            if this.sleep.as_mut().poll(cx).is_pending() {
                *this.set = true;
                return Poll::Pending;
            }
            if *this.deadline <= this.sleep.deadline() {
                return Poll::Ready(wait);
            }
            this.sleep.as_mut().reset(*this.deadline);
            *this.set = false;
        }
    }

    /// Ends a connection that has waited too long; true if it is to be finished rather than dropped.
    fn end(self: Pin<&mut Self>, wait: Wait) -> bool {
        let this = self.project();
        this.shared.metrics.timed_out(wait);
        match wait {
            // The kernel shall not keep for this client what it does not read.
            Wait::Write => this.link.demand_reset(),
            Wait::Idle if this.link.multiplexed() && this.link.phase() != Phase::Lingering => {
                this.link.enter(Phase::Lingering);
                return true;
            }
            _ => {}
        }
        false
    }
}
