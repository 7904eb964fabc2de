//! Request content that is read before its request leaves, within a bound: what is part of the key, and what is short.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::poll;
use http::{HeaderMap, header};

use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use tokio::task::coop::consume_budget;

use crate::origin::RequestBody;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// All of `body`, if it is no larger than `max`; otherwise a body that gives what was read and then the rest.
///
/// Trailers of a body that is read whole are dropped (RFC 9110 section 6.5.1 lets a recipient).
///
/// # Errors
/// The request broke off.
pub(super) async fn collect(body: RequestBody, max: u64) -> Result<Result<Bytes, RequestBody>, BoxError> {
    let mut rest = match body {
        RequestBody::Empty => return Ok(Ok(Bytes::new())),
        RequestBody::Bytes(bytes) if bytes.len() as u64 <= max => return Ok(Ok(bytes)),
        whole @ RequestBody::Bytes(_) => return Ok(Err(whole)),
        RequestBody::Stream(stream) => stream,
    };
    if rest.size_hint().lower() > max {
        return Ok(Err(RequestBody::Stream(rest)));
    }
    let mut read = BytesMut::new();
    while let Some(frame) = rest.frame().await {
        // Pieces without content (empty DATA frames of HTTP/2) cost their sender nothing, not even flow control: however
        // many lie ready, the other tasks have their turn.
        consume_budget().await;
        let Ok(data) = frame?.into_data() else { continue };
        if (read.len() + data.len()) as u64 > max {
            let resumed = Resumed { read: [read.freeze(), data], rest };
            return Ok(Err(RequestBody::Stream(UnsyncBoxBody::new(resumed))));
        }
        read.extend_from_slice(&data);
    }
    Ok(Ok(read.freeze()))
}

/// Content up to this is sent in one piece where it is here already.
const SHORT_MAX: u64 = 16 * 1024;

/// Short content that is here already, whole: so it can be sent again, and costs half of what a stream does. Any other as
/// it is: nothing is waited for, and a client that waits for its `100 (Continue)` gets that when the origin is reached.
///
/// # Errors
/// The request broke off.
pub(super) async fn at_hand(body: RequestBody, fields: &HeaderMap) -> Result<RequestBody, BoxError> {
    let RequestBody::Stream(mut stream) = body else { return Ok(body) };
    let short = stream.size_hint().exact().is_some_and(|length| length <= SHORT_MAX);
    if !short || fields.contains_key(header::EXPECT) {
        return Ok(RequestBody::Stream(stream));
    }
    let mut polled = poll!(stream.frame());
    if polled.is_pending() {
        // A connection hands content out when it is asked for: now it has been, and gets its turn.
        a_turn().await;
        polled = poll!(stream.frame());
    }
    let Poll::Ready(Some(frame)) = polled else { return Ok(RequestBody::Stream(stream)) };
    let Ok(read) = frame?.into_data() else { return Ok(RequestBody::Empty) };
    if stream.is_end_stream() {
        return Ok(RequestBody::Bytes(read));
    }
    let resumed = Resumed { read: [read, Bytes::new()], rest: stream };
    Ok(RequestBody::Stream(UnsyncBoxBody::new(resumed)))
}

/// Lets the tasks that have been woken run first.
async fn a_turn() {
    let mut taken = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut taken, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What was read, and then the rest, trailers included.
struct Resumed {
    read: [Bytes; 2],
    rest: UnsyncBoxBody<Bytes, BoxError>,
}

impl Body for Resumed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.read.iter_mut().find(|read| !read.is_empty()) {
            Some(read) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(read))))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.iter().all(Bytes::is_empty) && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (read, rest) = (self.read.iter().map(|read| read.len() as u64).sum::<u64>(), self.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    };

    use futures_util::stream;
    use http::HeaderValue;
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn framed<I>(frames: I) -> RequestBody
    where
        I: IntoIterator<Item = Frame<Bytes>>,
        I::IntoIter: Send + 'static,
    {
        let frames = stream::iter(frames.into_iter().map(Ok::<_, BoxError>));
        RequestBody::Stream(UnsyncBoxBody::new(StreamBody::new(frames)))
    }

    fn piece(piece: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(piece.as_bytes()))
    }

    async fn taken(stream: UnsyncBoxBody<Bytes, BoxError>, fields: &HeaderMap) -> RequestBody {
        at_hand(RequestBody::Stream(stream), fields).await.expect("no error")
    }

    fn full(length: u64) -> UnsyncBoxBody<Bytes, BoxError> {
        let content = vec![b'x'; usize::try_from(length).expect("short")];
        UnsyncBoxBody::new(Full::new(Bytes::from(content)).map_err(|never| match never {}))
    }

    #[tokio::test]
    async fn what_is_short_and_here_comes_whole() {
        let (none, mut waiting) = (HeaderMap::new(), HeaderMap::new());
        waiting.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        for length in [1, SHORT_MAX] {
            let RequestBody::Bytes(bytes) = taken(full(length), &none).await else { panic!("{length} bytes") };
            assert_eq!(bytes.len() as u64, length);
        }
        for (length, fields) in [(SHORT_MAX + 1, &none), (1, &waiting)] {
            let RequestBody::Stream(stream) = taken(full(length), fields).await else { panic!("{length} bytes") };
            assert_eq!(stream.size_hint().exact(), Some(length), "its length is still known");
            assert_eq!(stream.collect().await.expect("no error").to_bytes().len() as u64, length);
        }
        let RequestBody::Stream(unknown) = framed([piece("x")]) else { unreachable!("made as a stream") };
        assert!(matches!(taken(unknown, &none).await, RequestBody::Stream(_)), "nobody knows how long it will be");
    }

    /// Content as a connection has it: fetched when it is asked for, by another task.
    struct Fetched {
        asked: Option<tokio::sync::oneshot::Sender<()>>,
        content: tokio::sync::oneshot::Receiver<Bytes>,
        given: bool,
    }

    impl Body for Fetched {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.asked.take().map(|asked| asked.send(()));
            Pin::new(&mut self.content).poll(cx).map(|content| {
                self.given = true;
                Some(content.map(Frame::data).map_err(Into::into))
            })
        }

        fn is_end_stream(&self) -> bool {
            self.given
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(3)
        }
    }

    #[tokio::test]
    async fn what_is_here_once_it_is_asked_for_comes_whole() {
        let ((asked, wish), (give, content)) = (tokio::sync::oneshot::channel(), tokio::sync::oneshot::channel());
        tokio::spawn(async move { wish.await.map(|()| give.send(Bytes::from_static(b"abc"))) });
        tokio::task::yield_now().await;
        let stream = UnsyncBoxBody::new(Fetched { asked: Some(asked), content, given: false });
        assert!(matches!(taken(stream, &HeaderMap::new()).await, RequestBody::Bytes(_)));
    }

    #[tokio::test]
    async fn what_comes_in_two_pieces_goes_on_as_it_comes() {
        let two = Resumed { read: [Bytes::from_static(b"ab"), Bytes::new()], rest: full(3) };
        let RequestBody::Stream(stream) = taken(UnsyncBoxBody::new(two), &HeaderMap::new()).await else {
            panic!("the second may never come");
        };
        assert_eq!(stream.size_hint().exact(), Some(5));
        assert_eq!(stream.collect().await.expect("no error").to_bytes(), "abxxx");
    }

    fn trailers() -> Frame<Bytes> {
        Frame::trailers(HeaderMap::from_iter([(http::header::EXPIRES, HeaderValue::from_static("0"))]))
    }

    #[tokio::test]
    async fn small_content_is_read_whole() {
        let read = collect(framed([piece("ab"), piece("c"), trailers()]), 3).await.expect("no error");
        assert_eq!(read.ok(), Some(Bytes::from_static(b"abc")));
    }

    #[tokio::test]
    async fn large_content_goes_on_as_it_came() {
        for first in [vec![piece("ab"), piece("cd")], vec![piece("abcd")], vec![piece(""), piece("abc"), piece("d")]] {
            let frames = first.into_iter().chain([piece("ef"), trailers()]);
            let Err(RequestBody::Stream(rest)) = collect(framed(frames), 3).await.expect("no error") else {
                panic!("larger than the bound");
            };
            assert!(rest.size_hint().lower() >= 4 && !rest.is_end_stream(), "what was read still counts");
            let all = rest.collect().await.expect("no error");
            assert_eq!(all.trailers().map(HeaderMap::len), Some(1), "trailers are kept");
            assert_eq!(all.to_bytes(), "abcdef");
        }
    }

    #[tokio::test]
    async fn content_without_end_starves_nobody() {
        let (seen, others_had_a_turn) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let empty = {
            let (seen, others_had_a_turn) = (Arc::clone(&seen), Arc::clone(&others_had_a_turn));
            std::iter::from_fn(move || {
                let frames = seen.fetch_add(1, Relaxed);
                assert!(frames < 1_000_000, "nobody else has run");
                (!others_had_a_turn.load(Relaxed)).then(|| piece(""))
            })
        };
        let collecting = tokio::spawn(collect(framed(empty), 3));
        tokio::spawn(async move { others_had_a_turn.store(true, Relaxed) });
        let read = collecting.await.expect("no panic").expect("no error");
        assert_eq!(read.ok(), Some(Bytes::new()));
        assert!(seen.load(Relaxed) > 1, "there was something to read");
    }
}
