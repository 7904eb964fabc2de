//! The content of an answer, wherever it comes from.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{
    failure::Failure,
    growing::Reader,
    llm::{Overheard, Paced},
};
use crate::{origin::OriginBody, store::l3::Pieces};

/// Content of an answer.
pub enum Body {
    /// None.
    Empty,
    /// Stored content.
    Full(Bytes),
    /// Stored content that is read from the disk as it is sent.
    Stored(Pieces),
    /// Pieces of content, one after the other.
    Segments(VecDeque<Segment>),
    /// Content that is still arriving.
    Growing(Reader),
    /// Stored events, at a pace.
    Paced(Box<Paced>),
    /// Content that somebody listens to on its way.
    Overheard(Box<Overheard>),
    /// Straight from the origin.
    Origin(Box<OriginBody>),
}

/// A piece of content.
pub enum Segment {
    /// In memory.
    Bytes(Bytes),
    /// Read from the disk as it is sent.
    Stored(Pieces),
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
            Self::Stored(pieces) => poll_pieces(pieces, cx),
            Self::Segments(segments) => poll_segments(segments, cx),
            Self::Growing(reader) => reader.poll_frame(cx).map_err(Broken),
            Self::Paced(paced) => paced.poll(cx).map(|frame| frame.map(Ok)),
            Self::Overheard(overheard) => overheard.poll(cx),
            Self::Origin(origin) => {
                Pin::new(&mut **origin).poll_frame(cx).map_err(|error| Broken(Arc::new(Failure::Origin(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stored(pieces) => pieces.remaining() == 0,
            Self::Segments(segments) => segments.is_empty(),
            Self::Growing(_) => false,
            Self::Paced(paced) => paced.is_end_stream(),
            Self::Overheard(overheard) => overheard.is_end_stream(),
            Self::Origin(origin) => origin.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stored(pieces) => SizeHint::with_exact(pieces.remaining()),
            Self::Segments(segments) => SizeHint::with_exact(segments.iter().map(Segment::remaining).sum()),
            Self::Growing(reader) => reader.remaining().map_or_else(SizeHint::new, SizeHint::with_exact),
            Self::Paced(paced) => paced.size_hint(),
            Self::Overheard(overheard) => overheard.size_hint(),
            Self::Origin(origin) => origin.size_hint(),
        }
    }
}

impl Segment {
    fn remaining(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stored(pieces) => pieces.remaining(),
        }
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, Broken>>>;

fn poll_segments(segments: &mut VecDeque<Segment>, cx: &mut Context<'_>) -> Polled {
    loop {
        match segments.front_mut() {
            None => return Poll::Ready(None),
            Some(Segment::Bytes(bytes)) => {
                let bytes = std::mem::take(bytes);
                segments.pop_front();
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Some(Segment::Stored(pieces)) if pieces.remaining() > 0 => return poll_pieces(pieces, cx),
            Some(Segment::Stored(_)) => drop(segments.pop_front()),
        }
    }
}

fn poll_pieces(pieces: &mut Pieces, cx: &mut Context<'_>) -> Polled {
    pieces
        .poll_next(cx)
        .map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(|error| Broken(Arc::new(Failure::Disk(error))))))
}
