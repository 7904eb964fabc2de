//! Tunnels: CONNECT, and upgraded connections (WebSocket). Bytes pass both ways, nothing is cached.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::metrics::TunnelGuard;

/// Copies both ways until both have ended, one breaks, or nothing passes for `idle`.
pub(super) async fn relay(
    client: hyper::upgrade::OnUpgrade,
    origin: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    idle: Duration,
    guards: (Option<tokio::sync::OwnedSemaphorePermit>, TunnelGuard),
) {
    let Ok(client) = client.await else { return };
    let (mut client, mut origin) = (Idle::new(TokioIo::new(client), idle), origin);
    // How it ends matters to nobody: both sides see their connection close.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut origin).await;
    drop(guards);
}

/// A stream that breaks when nothing has been read or written for a while.
struct Idle<S> {
    stream: S,
    idle: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Idle<S> {
    fn new(stream: S, idle: Duration) -> Self {
        Self { stream, idle, deadline: Box::pin(tokio::time::sleep(idle)) }
    }

    fn moved(&mut self) {
        let deadline = Instant::now() + self.idle;
        self.deadline.as_mut().reset(deadline);
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Error> {
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(std::io::ErrorKind::TimedOut.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Idle<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(read) => {
                self.moved();
                Poll::Ready(read)
            }
            Poll::Pending => self.poll_idle(cx).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Idle<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data));
        self.moved();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
