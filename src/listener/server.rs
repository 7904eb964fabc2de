//! Accepts connections, no more than allowed at once, and lets them finish when the process stops.

use std::{
    any::Any,
    io,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use hyper::{
    server::conn::{http1, http2},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioExecutor;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Handler, Peer,
    body::Limits,
    config::Config,
    connection,
    link::Wait,
    metrics::{Metrics, OpenGuard},
    secure::{Counted, HandshakeError, Secured, Tunnel},
};
use crate::{telemetry::Registry, tls::Acceptor};

const BACKLOG: u32 = 4096;
/// Between two accepts that failed for want of something only time brings.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Binds the data listener's socket.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the old process's connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The data listener.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    /// What answers handshakes, where TLS is spoken.
    tls: Option<Arc<Acceptor>>,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<TokioExecutor>,
    /// Wakes all connections to finish; set after `draining`.
    pub(super) drain: CancellationToken,
    draining: AtomicBool,
    /// Connections in tunnels of others, which may have ended by then as far as hyper is concerned.
    inside: TaskTracker,
}

impl Shared {
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn timeout(&self, wait: Wait) -> Duration {
        match wait {
            Wait::Head => self.config.head_timeout,
            // In a tunnel it may be shorter.
            Wait::Idle => self.config.idle_timeout,
            Wait::Write => self.config.write_timeout,
            Wait::Linger => connection::LINGER_TIMEOUT,
        }
    }
}

impl Server {
    /// A server for any number of sockets, which share its limits.
    pub fn new(config: Config, registry: &mut Registry) -> Self {
        let places = Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS)));
        let shared = Shared {
            limits: Limits::from(&config),
            metrics: Metrics::register(registry),
            http1: connection::http1(&config),
            http2: connection::http2(&config),
            drain: CancellationToken::new(),
            draining: AtomicBool::new(false),
            inside: TaskTracker::new(),
            config,
        };
        shared.inside.close();
        Self { shared: Arc::new(shared), places, tls: None }
    }

    /// The same, where `tls` says whether and how handshakes are answered.
    pub fn with_tls(self, tls: Arc<Acceptor>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// What its connections share.
    #[cfg(test)]
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Serves `listener` until `stop`; then takes no new connection, closes idle ones, and returns when the requests
    /// under way are answered or the drain time-out has passed.
    pub async fn serve<S: Handler + Clone>(&self, listener: TcpListener, handler: S, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.accept(&listener, handler, &mut connections) => {}
        }
        drop(listener);
        self.drain(connections).await;
    }

    async fn accept<S: Handler + Clone>(&self, listener: &TcpListener, handler: S, connections: &mut JoinSet<()>) {
        while let Ok(place) = self.place(connections).await {
            let (stream, address) = self.accept_one(listener, connections).await;
            let open = OpenGuard::new(&self.shared.metrics, place);
            // Fails only if the client has already gone.
            let Ok(local) = stream.set_nodelay(true).and_then(|()| stream.local_addr()) else { continue };
            let peer = Peer::new(address, local);
            let idle_timeout = self.shared.config.idle_timeout;
            let (shared, handler) = (Arc::clone(&self.shared), handler.clone());
            let Some((tls, settings)) = self.tls.as_ref().and_then(|tls| Some((Arc::clone(tls), tls.now()?))) else {
                connections.spawn(async move {
                    connection::run(shared, stream, peer, Some(open), idle_timeout, handler).await;
                });
                continue;
            };
            // Boxed, as it is in tunnels, and so that no connection without TLS has room for it.
            let secured = async move {
                let secured = tokio::select! {
                    biased;
                    secured = tls.accept(settings, stream, Counted::over) => secured,
                    () = shared.drain.cancelled() => return,
                };
                let (Some(secured), peer) = (secured, Peer { secured: true, ..peer }) else { return };
                connection::run(shared, Secured::of(secured), peer, Some(open), idle_timeout, handler).await;
            };
            connections.spawn(secured.boxed());
        }
    }

    /// Has `task` serve a connection in a tunnel: [`Server::serve`] waits for it, too.
    pub fn spawn_inside(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.shared.inside.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                shared.metrics.panics.inc();
                tracing::error!("a client connection in a tunnel ended in a panic");
            }
        });
    }

    /// Answers a TLS handshake in a tunnel, in as much time as a client has for a request head.
    ///
    /// Boxed, as what follows it is: where these are spawned with a handler of many parts, the compiler would look through
    /// all of them again and again, for minutes.
    ///
    /// # Errors
    /// Where there is none, it fails, or the server stops meanwhile.
    pub fn secure(
        &self,
        tunnel: Upgraded,
        tls: Arc<ServerConfig>,
        outer: &Peer,
        held: Box<dyn Any + Send>,
    ) -> BoxFuture<'static, Result<Secured, HandshakeError>> {
        let shared = Arc::clone(&self.shared);
        let handshake = timeout(shared.config.head_timeout, Secured::accept(Tunnel::new(tunnel, outer, held), tls));
        async move {
            tokio::select! {
                biased;
                secured = handshake => match secured {
                    Ok(secured) => Ok(secured?),
                    Err(_) => Err(HandshakeError::TimedOut),
                },
                () = shared.drain.cancelled() => Err(HandshakeError::Stopped),
            }
        }
        .boxed()
    }

    /// Serves what came of a handshake in a tunnel to `authority`, as it would any client of its own, until it ends.
    /// Whether the client has said anything.
    pub fn serve_inside<S: Handler + Clone>(
        &self,
        secured: Secured,
        outer: &Peer,
        authority: Arc<str>,
        idle_timeout: Duration,
        handler: S,
    ) -> BoxFuture<'static, bool> {
        let peer = Peer { within: Some(authority), ..Peer::new(outer.addr, outer.local) };
        let idle_timeout = idle_timeout.min(self.shared.config.idle_timeout);
        connection::run(Arc::clone(&self.shared), secured, peer, None, idle_timeout, handler).boxed()
    }

    /// Waits for a place among the connections allowed: one client more waits in the kernel's backlog.
    async fn place(&self, connections: &mut JoinSet<()>) -> Result<OwnedSemaphorePermit, tokio::sync::AcquireError> {
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::pin!(place);
        loop {
            tokio::select! {
                biased;
                Some(ended) = connections.join_next() => self.reap(ended),
                place = &mut place => return place,
            }
        }
    }

    /// The next connection, however many accepts fail before it.
    async fn accept_one(&self, listener: &TcpListener, connections: &mut JoinSet<()>) -> (TcpStream, SocketAddr) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = tokio::select! {
                biased;
                Some(ended) = connections.join_next() => {
                    self.reap(ended);
                    continue;
                }
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => return accepted,
                    Err(error) => error,
                },
            };
            self.shared.metrics.accept_errors.inc();
            if is_the_clients(&error) {
                continue;
            }
            tracing::warn!(%error, retry_in = ?backoff, "cannot accept a connection");
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn reap(&self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.shared.metrics.panics.inc();
            tracing::error!("a client connection ended in a panic");
        }
    }

    async fn drain(&self, mut connections: JoinSet<()>) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.drain.cancel();
        let all = async {
            while let Some(ended) = connections.join_next().await {
                self.reap(ended);
            }
            self.shared.inside.wait().await;
        };
        if timeout(self.shared.config.drain_timeout, all).await.is_err() {
            tracing::warn!(
                connections = connections.len() + self.shared.inside.len(),
                "requests still under way after the drain time-out are cut"
            );
            connections.shutdown().await;
        }
    }
}

/// Errors of the connection that was to be accepted, not of the listener: the next may be fine at once.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
