//! The content of an answer that somebody listens to on its way to its client.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::cache::body::{Body, Broken};

/// Who listens. One that is dropped without having heard the end knows that there was none.
pub(super) trait Listener: Send + Sync {
    /// The next bytes. `false`: it has heard enough, and is not told of the end.
    fn note(&mut self, data: &[u8]) -> bool;

    /// That was all of it.
    fn end(self: Box<Self>);

    /// Its client has gone without having asked whether that was all: some do, once a stream has said that it is over.
    fn left(self: Box<Self>) {}

    /// It broke off.
    fn broken(self: Box<Self>) {}
}

/// Content, and who listens until it ends or breaks off.
pub struct Overheard {
    body: Body,
    listener: Option<Box<dyn Listener>>,
}

impl Overheard {
    /// The same content, listened to.
    pub(super) fn body(body: Body, listener: impl Listener + 'static) -> Body {
        let mut overheard = Self { body, listener: Some(Box::new(listener)) };
        overheard.end_if_over();
        Body::Overheard(Box::new(overheard))
    }

    pub(in crate::cache) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.listener.take_if(|listener| !listener.note(data));
                }
                self.end_if_over();
            }
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Err(_))) => {
                if let Some(listener) = self.listener.take() {
                    listener.broken();
                }
            }
            Poll::Pending => {}
        }
        polled
    }

    /// Who knows the length does not ask for the end.
    fn end_if_over(&mut self) {
        if self.body.size_hint().exact() == Some(0) || self.body.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.end();
        }
    }

    pub(in crate::cache) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(in crate::cache) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Overheard {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.left();
        }
    }
}
