//! The content of an answer that is not stored, on its way to its client: what it cost is counted when it has passed.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::accounts::Bill;
use crate::{
    cache::{
        body::{Body, Broken},
        call::Answer,
    },
    llm::answer::Watcher,
};

/// Largest answer that is looked into for what it cost.
const LOOKED_INTO_MAX: usize = 4 << 20;

/// Content that is watched.
pub struct Watched {
    body: Body,
    /// Taken at the end.
    watcher: Option<(Watcher, Bill)>,
    /// What has come of an answer that is no stream.
    whole: BytesMut,
}

impl Watched {
    /// The same answer, watched.
    pub(super) fn around(mut answer: Answer, watcher: Watcher, bill: Bill) -> Answer {
        if answer.response.status().is_success() {
            answer.response = answer.response.map(|body| {
                Body::Watched(Box::new(Self { body, watcher: Some((watcher, bill)), whole: BytesMut::new() }))
            });
        }
        answer
    }

    pub(in crate::cache) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = http_body::Body::poll_frame(Pin::new(&mut self.body), cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.note(data);
                }
                if http_body::Body::is_end_stream(&self.body) {
                    self.end();
                }
            }
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Err(_))) => self.watcher = None,
            Poll::Pending => {}
        }
        polled
    }

    fn note(&mut self, data: &[u8]) {
        let Some((watcher, _)) = &mut self.watcher else { return };
        if watcher.is_stream() {
            watcher.piece(data);
        } else if self.whole.len() + data.len() > LOOKED_INTO_MAX {
            self.watcher = None;
            self.whole = BytesMut::new();
        } else {
            self.whole.extend_from_slice(data);
        }
    }

    fn end(&mut self) {
        if let Some((watcher, bill)) = self.watcher.take() {
            bill.billed(&watcher.end(Some(&self.whole)));
        }
    }

    pub(in crate::cache) fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    pub(in crate::cache) fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}
