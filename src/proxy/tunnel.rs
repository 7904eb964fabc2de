//! Tunnels: CONNECT, and upgraded connections (WebSocket). Bytes pass both ways, nothing is cached.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::metrics::TunnelGuard;

/// What an open tunnel holds until it ends: its place among the tunnels, and its connection.
pub struct Guards {
    _place: Option<Place>,
    _connection: Option<Arc<dyn Send + Sync>>,
}

impl Guards {
    /// `place`: `None` in a tunnel that has one.
    pub(super) fn new(place: Option<Place>, connection: Option<Arc<dyn Send + Sync>>) -> Self {
        Self { _place: place, _connection: connection }
    }
}

/// A place among `forward.tunnels_max`, and its part in the count.
pub(super) type Place = (tokio::sync::OwnedSemaphorePermit, TunnelGuard);

/// Copies both ways until both have ended, one breaks, or nothing passes for `idle`.
pub(super) async fn relay(
    client: hyper::upgrade::OnUpgrade,
    origin: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    idle: Duration,
    guards: Guards,
) {
    if let Ok(client) = client.await {
        copy(TokioIo::new(client), origin, idle).await;
    }
    drop(guards);
}

/// How it ends matters to nobody: both sides see their connection close.
async fn copy(
    client: impl AsyncRead + AsyncWrite + Unpin,
    origin: impl AsyncRead + AsyncWrite + Unpin,
    idle: Duration,
) {
    let activity = Arc::new(Activity::new());
    let (mut client, mut origin) = (Watched::new(client, &activity), Watched::new(origin, &activity));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut origin) => {}
        // Beside the copying, not within it: whichever direction has ended or is stuck, the clock runs.
        () = activity.ceased(idle) => {}
    }
}

/// When bytes last passed, either way.
struct Activity {
    begun: Instant,
    /// Milliseconds after `begun`.
    latest: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { begun: Instant::now(), latest: AtomicU64::new(0) }
    }

    fn moved(&self) {
        self.latest.store(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Returns when nothing has passed for `idle`.
    async fn ceased(&self, idle: Duration) {
        loop {
            let latest = self.begun + Duration::from_millis(self.latest.load(Relaxed));
            let deadline = latest + idle;
            if deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

/// A stream that notes when bytes pass. Waiting to write, to flush or to shut down is no activity.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    fn new(stream: S, activity: &Arc<Activity>) -> Self {
        Self { stream, activity: Arc::clone(activity) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.activity.moved();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        if written.is_ready() {
            self.activity.moved();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        task::JoinHandle,
        time::{sleep, timeout},
    };

    use super::*;

    const IDLE: Duration = Duration::from_secs(300);
    /// Bytes one side of a connection takes before the other reads.
    const BUFFER: usize = 64;

    /// The far ends of client and origin, and the tunnel between them.
    fn tunnel() -> (DuplexStream, DuplexStream, JoinHandle<()>) {
        let ((client, near_client), (origin, near_origin)) = (duplex(BUFFER), duplex(BUFFER));
        (client, origin, tokio::spawn(copy(near_client, near_origin, IDLE)))
    }

    /// How long the tunnel is open from now on.
    async fn lasts(tunnel: JoinHandle<()>) -> Duration {
        let begun = Instant::now();
        timeout(10 * IDLE, tunnel).await.expect("the tunnel ends").expect("no panic");
        begun.elapsed()
    }

    async fn passes(from: &mut DuplexStream, to: &mut DuplexStream) {
        from.write_all(b"word").await.expect("open");
        let mut word = [0; 4];
        to.read_exact(&mut word).await.expect("open");
        assert_eq!(&word, b"word");
    }

    #[tokio::test(start_paused = true)]
    async fn both_ends_end_it() {
        let (mut client, mut origin, tunnel) = tunnel();
        passes(&mut client, &mut origin).await;
        client.shutdown().await.expect("open");
        assert_eq!(origin.read(&mut [0; 4]).await.expect("a clean end"), 0);
        passes(&mut origin, &mut client).await;
        origin.shutdown().await.expect("open");
        assert_eq!(lasts(tunnel).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_either_way_keep_it_open() {
        let (mut client, mut origin, tunnel) = tunnel();
        for _ in 0..5 {
            sleep(IDLE * 3 / 4).await;
            passes(&mut client, &mut origin).await;
            sleep(IDLE * 3 / 4).await;
            passes(&mut origin, &mut client).await;
        }
        assert_eq!(lasts(tunnel).await, IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_though_one_side_has_ended() {
        for client_first in [true, false] {
            let (mut client, mut origin, tunnel) = tunnel();
            let (ended, silent) = if client_first { (&mut client, &mut origin) } else { (&mut origin, &mut client) };
            ended.shutdown().await.expect("open");
            assert_eq!(silent.read(&mut [0; 4]).await.expect("a clean end"), 0);
            assert_eq!(lasts(tunnel).await, IDLE, "{client_first}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_nobody_takes_are_silence() {
        let (mut client, _origin, tunnel) = tunnel();
        // More than all buffers on the way hold: the origin never reads.
        let pushing = tokio::spawn(async move { client.write_all(&[0; 1 << 20]).await });
        assert_eq!(lasts(tunnel).await, IDLE);
        pushing.await.expect("no panic").expect_err("the connection was closed");
    }
}
