//! The body of a response: ends cleanly only if the origin ended it, and gives its connection back then.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    direct::Direct,
    error::{Error, Kind},
    metrics::Metrics,
    pieces::Handed,
    pool::{Lease, Wire},
    request::Progress,
};

/// A response body. Dropped before its end it closes an HTTP/1 connection, or resets an HTTP/2 stream.
pub struct OriginBody {
    source: Source,
    /// Until the end, or the error.
    lease: Option<Lease>,
    request: Option<Arc<Progress>>,
    patience: Patience,
    /// The piece that was given last, until it is asked for the next.
    handed: Option<Handed>,
    metrics: Arc<Metrics>,
    h2: bool,
    failed: bool,
}

/// Where the pieces come from.
#[derive(Debug)]
pub(super) enum Source {
    /// The task that drives the connection.
    Task(Incoming),
    /// The connection itself, which is the lease's.
    Direct,
}

/// Bounds the silence between two pieces. One timer a body at most, made when the body first keeps us waiting; a
/// piece only forgets since when we wait, and the timer looks at that when it goes off.
struct Patience {
    limit: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl OriginBody {
    pub(super) fn new(source: Source, lease: Lease, request: Option<Arc<Progress>>, idle: Duration) -> Self {
        let mut body = Self {
            source,
            request,
            patience: Patience { limit: idle, since: None, timer: None },
            handed: None,
            metrics: Arc::clone(lease.metrics()),
            h2: matches!(lease.wire, Wire::H2(_)),
            lease: Some(lease),
            failed: false,
        };
        if body.has_ended() {
            body.finish();
        }
        body
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.source {
            Source::Task(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|polled| Some(polled?.map_err(Error::reading_body)))
            }
            Source::Direct => match self.lease.as_mut().and_then(Lease::direct_mut) {
                Some((direct, limits)) => direct.poll_frame(cx, limits, self.metrics.unread.piece_max()),
                None => Poll::Ready(None),
            },
        }
    }

    fn direct(&self) -> Option<&Direct> {
        self.lease.as_ref().and_then(Lease::direct)
    }

    fn has_ended(&self) -> bool {
        match &self.source {
            Source::Task(incoming) => incoming.is_end_stream(),
            Source::Direct => self.direct().is_none_or(Direct::is_ended),
        }
    }

    /// The response is complete. The connection can be used again if its request is, too.
    fn finish(&mut self) {
        let sent = self.request.as_ref().is_none_or(|progress| progress.is_sent());
        if let Some(lease) = self.lease.take()
            && sent
        {
            lease.finish();
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed = true;
        self.lease = None;
        self.metrics.broken(error.kind());
        error
    }

    /// Whether the origin really ended the body. HTTP/2 streams that are reset without an error look as if.
    fn is_complete(&self) -> bool {
        !self.h2 || self.has_ended()
    }
}

impl Body for OriginBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.failed {
            return Poll::Ready(None);
        }
        this.handed = None;
        let Poll::Ready(polled) = this.poll_source(cx) else {
            ready!(this.patience.poll(cx));
            return Poll::Ready(Some(Err(this.fail(Error::new(Kind::BodyTimeout)))));
        };
        this.patience.since = None;
        match polled {
            Some(Ok(frame)) => {
                if this.has_ended() {
                    this.finish();
                } else {
                    this.handed = Some(this.metrics.unread.hand());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(this.fail(error)))),
            None if this.is_complete() => {
                this.finish();
                Poll::Ready(None)
            }
            None => Poll::Ready(Some(Err(this.fail(Error::new(Kind::Incomplete))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failed || self.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Task(incoming) => incoming.size_hint(),
            Source::Direct => self.direct().map_or(SizeHint::with_exact(0), Direct::size_hint),
        }
    }
}

impl fmt::Debug for OriginBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginBody").field("h2", &self.h2).field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Patience {
    /// Ready when the silence has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_piece() {
        let limit = Duration::from_secs(10);
        let mut patience = Patience { limit, since: None, timer: None };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(patience.poll(&mut cx).is_pending());
        tokio::time::advance(limit - Duration::from_secs(1)).await;
        patience.since = None;
        assert!(patience.poll(&mut cx).is_pending());
        tokio::time::advance(limit - Duration::from_secs(1)).await;
        assert!(patience.poll(&mut cx).is_pending(), "the old deadline has passed, the new one has not");
        let began = Instant::now();
        std::future::poll_fn(|cx| patience.poll(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}
