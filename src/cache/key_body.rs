//! Request content that is part of the key: read before the look-up, within a bound.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
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
    use http::{HeaderMap, HeaderValue};
    use http_body_util::StreamBody;

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
