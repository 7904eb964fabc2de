//! Request content that is part of the key: read before the look-up, within a bound.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

use crate::origin::RequestBody;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// All of `body`, if it is no larger than `max`; otherwise a body that gives what was read and then the rest.
///
/// # Errors
/// The request broke off.
pub(super) async fn collect(body: RequestBody, max: u64) -> Result<Result<Bytes, RequestBody>, BoxError> {
    let mut stream = match body {
        RequestBody::Empty => return Ok(Ok(Bytes::new())),
        RequestBody::Bytes(bytes) if bytes.len() as u64 <= max => return Ok(Ok(bytes)),
        whole @ RequestBody::Bytes(_) => return Ok(Err(whole)),
        RequestBody::Stream(stream) => stream,
    };
    if stream.size_hint().lower() > max {
        return Ok(Err(RequestBody::Stream(stream)));
    }
    let (mut read, mut len) = (VecDeque::new(), 0);
    while let Some(frame) = stream.frame().await {
        let frame = frame?;
        len += frame.data_ref().map_or(0, |data| data.remaining() as u64);
        read.push_back(frame);
        if len > max {
            let rest = Resumed { read, rest: stream };
            return Ok(Err(RequestBody::Stream(UnsyncBoxBody::new(rest))));
        }
    }
    let mut whole = BytesMut::with_capacity(usize::try_from(len).unwrap_or(0));
    read.into_iter().filter_map(|frame| frame.into_data().ok()).for_each(|data| whole.extend_from_slice(&data));
    Ok(Ok(whole.freeze()))
}

/// What was read, and then the rest.
struct Resumed {
    read: VecDeque<Frame<Bytes>>,
    rest: UnsyncBoxBody<Bytes, BoxError>,
}

impl Body for Resumed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn streamed(chunks: &[&'static str]) -> RequestBody {
        let frames: Vec<_> =
            chunks.iter().map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from_static(chunk.as_bytes())))).collect();
        RequestBody::Stream(UnsyncBoxBody::new(StreamBody::new(futures_util::stream::iter(frames))))
    }

    #[tokio::test]
    async fn small_content_is_read_whole() {
        let read = collect(streamed(&["ab", "c"]), 3).await.expect("no error");
        assert_eq!(read.ok(), Some(Bytes::from_static(b"abc")));
    }

    #[tokio::test]
    async fn large_content_goes_on_as_it_came() {
        let Err(RequestBody::Stream(rest)) = collect(streamed(&["ab", "cd", "ef"]), 3).await.expect("no error") else {
            panic!("larger than the bound");
        };
        assert_eq!(rest.collect().await.expect("no error").to_bytes(), "abcdef");
    }
}
