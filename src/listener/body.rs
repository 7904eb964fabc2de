//! A request body, held to the limits of the configuration.
//!
//! It ends with an error when it grows too large, when the client falls silent or keeps too low a rate, and when its
//! framing breaks; never cleanly before its end. Only time spent waiting for the client counts: a slow origin does
//! not make the client slow. Dropped early, hyper reads what little is left or closes the connection after the
//! response; in no case is the rest taken for a request.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep};

use super::{config::Config, link::Link};

/// How long a client may take before its rate is looked at.
const GRACE: Duration = Duration::from_secs(10);

/// Why a request body could not be read.
#[derive(Debug, Error)]
pub enum BodyError {
    /// It is larger than `client.body_bytes_max`.
    #[error("request body too large")]
    TooLarge,
    /// Nothing came for `client.body_idle_timeout`, or less than `client.body_rate_min` on average.
    #[error("request body too slow")]
    TooSlow,
    /// Its framing is wrong or the client has gone.
    #[error("request body broken")]
    Broken(#[source] hyper::Error),
}

/// What a body may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    bytes_max: u64,
    idle_timeout: Duration,
    rate_min: u64,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            bytes_max: config.body_bytes_max.as_u64(),
            idle_timeout: config.body_idle_timeout,
            rate_min: config.body_rate_min.as_u64(),
        }
    }
}

/// The body of a request, from a client or made here.
#[derive(Debug)]
pub struct ClientBody(Source);

#[derive(Debug)]
enum Source {
    /// All of it, or nothing left.
    Ready(Option<Bytes>),
    Client(FromClient),
}

#[derive(Debug)]
struct FromClient {
    /// First, and so dropped first: the connection must know before hyper notices.
    open: OpenBody,
    incoming: Incoming,
    limits: Limits,
    received: u64,
    patience: Patience,
}

impl ClientBody {
    /// No body.
    pub fn empty() -> Self {
        Self(Source::Ready(None))
    }

    pub(super) fn new(incoming: Incoming, limits: Limits, link: &Arc<Link>) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self(Source::Client(FromClient {
            incoming,
            limits,
            received: 0,
            patience: Patience::default(),
            open: OpenBody { link: Arc::clone(link), open: true },
        }))
    }
}

impl From<Bytes> for ClientBody {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Ready(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut self.0 {
            Source::Ready(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Client(client) => ready!(client.poll_frame(cx)),
        };
        if !matches!(frame, Some(Ok(_))) {
            // After the end or an error there is nothing more.
            self.0 = Source::Ready(None);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Ready(bytes) => bytes.is_none(),
            Source::Client(client) => client.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Ready(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Client(client) => client.incoming.size_hint(),
        }
    }
}

impl FromClient {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            ready!(self.patience.poll_out(cx, self.limits.idle_timeout));
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        };
        self.patience.rest();
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(self.admit(frame)),
            Some(Err(error)) => Some(Err(BodyError::Broken(error))),
            None => {
                self.open.end();
                None
            }
        })
    }

    fn admit(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        self.received += frame.data_ref().map_or(0, |data| data.remaining() as u64);
        if self.received > self.limits.bytes_max {
            return Err(BodyError::TooLarge);
        }
        let ended = self.incoming.is_end_stream();
        if !ended && self.patience.too_slow(self.received, self.limits.rate_min) {
            return Err(BodyError::TooSlow);
        }
        if ended {
            self.open.end();
        }
        Ok(frame)
    }
}

/// Counts the time spent waiting for the client.
#[derive(Debug, Default)]
struct Patience {
    /// Runs out after the idle time-out; kept between waits, as the next one is likely.
    sleep: Option<Pin<Box<Sleep>>>,
    since: Option<Instant>,
    waited: Duration,
}

impl Patience {
    /// Ready when the wait has become too long.
    fn poll_out(&mut self, cx: &mut Context<'_>, idle_timeout: Duration) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(now + idle_timeout),
                None => self.sleep = Some(Box::pin(sleep(idle_timeout))),
            }
        }
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// The wait is over.
    fn rest(&mut self) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    fn too_slow(&self, received: u64, rate_min: u64) -> bool {
        self.waited > GRACE && (received as f64) < rate_min as f64 * self.waited.as_secs_f64()
    }
}

/// Tells the connection when the body is over, one way or the other.
#[derive(Debug)]
struct OpenBody {
    link: Arc<Link>,
    open: bool,
}

impl OpenBody {
    fn end(&mut self) {
        self.open = false;
        self.link.close_body(true);
    }
}

impl Drop for OpenBody {
    fn drop(&mut self) {
        if self.open {
            self.link.close_body(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::time::advance;

    use super::*;

    async fn wait(patience: &mut Patience, time: Duration, idle_timeout: Duration) -> bool {
        let out = std::future::poll_fn(|cx| Poll::Ready(patience.poll_out(cx, idle_timeout).is_ready())).await;
        assert!(!out, "too early");
        advance(time).await;
        let out = std::future::poll_fn(|cx| Poll::Ready(patience.poll_out(cx, idle_timeout).is_ready())).await;
        patience.rest();
        out
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_a_second_is_too_slow_after_ten() {
        let mut patience = Patience::default();
        for second in 1..=12 {
            assert!(!wait(&mut patience, Duration::from_secs(1), Duration::from_secs(5)).await);
            assert_eq!(patience.too_slow(second, 100), second > 10, "second {second}");
            assert!(!patience.too_slow(second, 1), "as fast as it must be");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_runs_out() {
        let mut patience = Patience::default();
        assert!(!wait(&mut patience, Duration::from_secs(4), Duration::from_secs(5)).await);
        assert!(wait(&mut patience, Duration::from_secs(6), Duration::from_secs(5)).await);
    }

    /// An origin that takes the body slowly makes us ask for it slowly; that is not the client's fault.
    #[tokio::test(start_paused = true)]
    async fn time_not_spent_waiting_does_not_count() {
        let mut patience = Patience::default();
        for _ in 0..10 {
            assert!(!wait(&mut patience, Duration::from_millis(1), Duration::from_secs(5)).await);
            advance(Duration::from_secs(60)).await;
        }
        assert!(!patience.too_slow(1, 1000));
    }

    #[tokio::test]
    async fn made_here() {
        assert!(ClientBody::empty().is_end_stream());
        let body = ClientBody::from(Bytes::from_static(b"abc"));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(body.collect().await.expect("no client").to_bytes(), "abc");
    }
}
