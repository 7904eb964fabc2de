//! Which span the running task works for.

use std::{
    cell::RefCell,
    future::Future,
    mem,
    pin::Pin,
    task::{self, Poll},
};

use pin_project_lite::pin_project;

use super::span::{Context, Kind, Span};

thread_local! {
    static CURRENT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// The span that the caller works for; `None`: it is not traced.
pub fn current() -> Option<Context> {
    CURRENT.with_borrow(Clone::clone)
}

/// A span within the one that the caller works for, where that is recorded.
pub fn child(name: &'static str, kind: Kind) -> Option<Span> {
    CURRENT.with_borrow(|current| current.as_ref()?.child(name, kind))
}

/// Has `future` work for the span of `context`.
pub fn within<F>(context: Option<Context>, future: F) -> Within<F> {
    Within { context, span: None, future }
}

/// Has `future` work for `span`, which ends with it.
pub fn spanned<F>(span: Option<Span>, future: F) -> Within<F> {
    Within { context: span.as_ref().map(|span| span.context().clone()), span, future }
}

pin_project! {
    /// A future that works for a span.
    pub struct Within<F> {
        context: Option<Context>,
        span: Option<Span>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.context.is_none() {
            return this.future.poll(cx);
        }
        let entered = Entered(CURRENT.with_borrow_mut(|current| mem::replace(current, this.context.clone())));
        let polled = this.future.poll(cx);
        drop(entered);
        if polled.is_ready() {
            *this.span = None;
        }
        polled
    }
}

/// Puts back what there was before, also where a poll panics.
struct Entered(Option<Context>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}
