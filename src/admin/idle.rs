//! Connections of the admin plane on which nothing happens: they are closed, so that there is a place for who has
//! something to say. Nobody needs a token to open one.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{ConnectInfo, Request},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use super::door::Remote;

/// The calls of one connection, from their heads to the ends of their answers.
#[derive(Debug, Default)]
pub(super) struct Calls {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A call that is under way.
struct UnderWay(Arc<Calls>);

impl Calls {
    fn begin(self: &Arc<Self>) -> UnderWay {
        self.begun.fetch_add(1, Relaxed);
        UnderWay(Arc::clone(self))
    }

    fn seen(&self) -> (u64, u64) {
        // In this order no more have ended than have begun.
        let ended = self.ended.load(Relaxed);
        (self.begun.load(Relaxed), ended)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Relaxed);
    }
}

/// How long a connection may go on without anything.
pub(super) struct Patience {
    timeout: Duration,
    calls: Arc<Calls>,
    /// The calls there were when `idle` was set.
    seen: (u64, u64),
    idle: Pin<Box<Sleep>>,
    /// There while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, calls: Arc::default(), seen: (0, 0), idle: Box::pin(sleep(timeout)), stalled: None }
    }

    pub(super) fn calls(&self) -> Arc<Calls> {
        Arc::clone(&self.calls)
    }

    /// What reading gave; an error where there has been no call for too long. Single bytes of a head are none.
    pub(super) fn read<T>(&mut self, cx: &mut Context<'_>, read: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if read.is_pending() {
            ready!(self.poll_idle(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }

    /// What writing gave; an error where the client has taken nothing for too long.
    pub(super) fn written<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            let timeout = self.timeout;
            let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
            ready!(stalled.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.stalled = None;
        written
    }

    /// Ready when nothing has been called for too long. The clock goes on while a call is under way: nobody says here
    /// when it ends.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let seen = self.calls.seen();
            if seen != self.seen {
                self.seen = seen;
                self.idle.as_mut().reset(Instant::now() + self.timeout);
            }
            ready!(self.idle.as_mut().poll(cx));
            if seen == self.calls.seen() {
                if seen.0 == seen.1 {
                    return Poll::Ready(());
                }
                self.idle.as_mut().reset(Instant::now() + self.timeout);
            }
        }
    }
}

pin_project! {
    /// The content of an answer, which is under way as long as there is any.
    struct Answer {
        #[pin]
        body: Body,
        call: UnderWay,
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Middleware: notes on the connection that a call is under way.
pub(super) async fn under_way(request: Request, next: Next) -> Response {
    let remote = request.extensions().get::<ConnectInfo<Remote>>();
    let Some(call) = remote.map(|remote| remote.0.calls.begin()) else { return next.run(request).await };
    next.run(request).await.map(|body| Body::new(Answer { body, call }))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Waits for what never comes; how long it took to be given up.
    async fn silence(patience: &mut Patience) -> Duration {
        let begun = Instant::now();
        let waited = poll_fn(|cx| patience.read(cx, Poll::<io::Result<()>>::Pending)).await;
        assert_eq!(waited.expect_err("an error").kind(), io::ErrorKind::TimedOut);
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_has_an_end() {
        let mut patience = Patience::new(TIMEOUT);
        assert_eq!(silence(&mut patience).await.as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_no_call() {
        let mut patience = Patience::new(TIMEOUT);
        advance(Duration::from_secs(9)).await;
        let _ = poll_fn(|cx| patience.read(cx, Poll::Ready(Ok(())))).await;
        assert_eq!(silence(&mut patience).await.as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn each_call_is_followed_by_as_much_patience() {
        let mut patience = Patience::new(TIMEOUT);
        let calls = patience.calls();
        // It begins and ends between two looks.
        advance(Duration::from_secs(9)).await;
        drop(calls.begin());
        assert_eq!(silence(&mut patience).await.as_secs(), 10);
        let mut patience = Patience::new(TIMEOUT);
        let calls = patience.calls();
        let call = calls.begin();
        assert!(timeout(Duration::from_secs(95), silence(&mut patience)).await.is_err(), "it is under way");
        drop(call);
        assert_eq!(silence(&mut patience).await.as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up_also_within_a_call() {
        let mut patience = Patience::new(TIMEOUT);
        let _call = patience.calls().begin();
        let begun = Instant::now();
        let stalled =
            |patience: &mut Patience, cx: &mut Context<'_>| patience.written(cx, Poll::<io::Result<()>>::Pending);
        assert!(timeout(Duration::from_secs(9), poll_fn(|cx| stalled(&mut patience, cx))).await.is_err());
        let _ = poll_fn(|cx| patience.written(cx, Poll::Ready(Ok(())))).await;
        assert!(poll_fn(|cx| stalled(&mut patience, cx)).await.is_err());
        assert_eq!(begun.elapsed().as_secs(), 19);
    }
}
