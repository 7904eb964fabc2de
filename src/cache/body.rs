//! The content of an answer, wherever it comes from.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{failure::Failure, growing::Reader};
use crate::origin::OriginBody;

/// Content of an answer.
pub enum Body {
    /// None.
    Empty,
    /// Stored content.
    Full(Bytes),
    /// Pieces of stored content, one after the other.
    Segments(VecDeque<Bytes>),
    /// Content that is still arriving.
    Growing(Reader),
    /// Straight from the origin.
    Origin(Box<OriginBody>),
}

/// Content that broke off. Whoever reads it must not take what came before for all of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the response broke off: {0}")]
pub struct Broken(pub Arc<Failure>);

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let body = self.get_mut();
        match body {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *body = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Segments(segments) => Poll::Ready(segments.pop_front().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Growing(reader) => reader.poll_frame(cx).map_err(Broken),
            Self::Origin(origin) => {
                Pin::new(&mut **origin).poll_frame(cx).map_err(|error| Broken(Arc::new(Failure::Origin(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Segments(segments) => segments.is_empty(),
            Self::Growing(_) => false,
            Self::Origin(origin) => origin.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Segments(segments) => SizeHint::with_exact(segments.iter().map(|bytes| bytes.len() as u64).sum()),
            Self::Growing(reader) => reader.remaining().map_or_else(SizeHint::new, SizeHint::with_exact),
            Self::Origin(origin) => origin.size_hint(),
        }
    }
}
