//! What the running task works for: which span, and which request.

use std::{
    cell::RefCell,
    future::Future,
    mem,
    pin::Pin,
    task::{self, Poll},
};

use http::HeaderValue;
use pin_project_lite::pin_project;

use super::{
    context::TraceId,
    span::{Context, Kind, Span},
};

thread_local! {
    static CURRENT: RefCell<Work> = const { RefCell::new(Work::NONE) };
}

/// A request, as diagnostic lines name it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Its id.
    pub id: Option<HeaderValue>,
    /// The trace it belongs to.
    pub trace: Option<TraceId>,
}

/// What is worked for.
#[derive(Clone)]
pub struct Work {
    span: Option<Context>,
    request: Request,
}

impl Work {
    const NONE: Self = Self { span: None, request: Request { id: None, trace: None } };

    /// For that request, and for that span where it is traced.
    pub fn new(span: Option<Context>, request: Request) -> Self {
        Self { span, request }
    }

    fn is_none(&self) -> bool {
        self.span.is_none() && self.request.id.is_none() && self.request.trace.is_none()
    }
}

/// What the caller works for.
pub fn current() -> Work {
    CURRENT.with_borrow(Clone::clone)
}

/// Gives `tell` the request that the caller works for.
pub fn request<R>(tell: impl FnOnce(&Request) -> R) -> R {
    CURRENT.with_borrow(|current| tell(&current.request))
}

/// A span within the one that the caller works for, where that is recorded.
pub fn child(name: &'static str, kind: Kind) -> Option<Span> {
    CURRENT.with_borrow(|current| current.span.as_ref()?.child(name, kind))
}

/// Has `future` do that work.
pub fn within<F>(work: Work, future: F) -> Within<F> {
    Within { work, span: None, future }
}

/// Has `future` go on with the caller's work, for `span`, which ends with it.
pub fn spanned<F>(span: Option<Span>, future: F) -> Within<F> {
    let work = Work { span: span.as_ref().map(|span| span.context().clone()), request: request(Clone::clone) };
    Within { work, span, future }
}

pin_project! {
    /// A future with what it works for.
    pub struct Within<F> {
        work: Work,
        span: Option<Span>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.work.is_none() {
            return this.future.poll(cx);
        }
        let entered = Entered::new(this.work);
        let polled = this.future.poll(cx);
        drop(entered);
        if polled.is_ready() {
            *this.span = None;
        }
        polled
    }
}

/// The work of a future while it is polled. It changes places with what there was before, and back, also where the poll
/// panics.
struct Entered<'a>(&'a mut Work);

impl<'a> Entered<'a> {
    fn new(work: &'a mut Work) -> Self {
        CURRENT.with_borrow_mut(|current| mem::swap(current, work));
        Self(work)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| mem::swap(current, self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Option<HeaderValue> {
        request(|request| request.id.clone())
    }

    fn work(id: &'static str) -> Work {
        Work::new(None, Request { id: Some(HeaderValue::from_static(id)), trace: None })
    }

    #[tokio::test]
    async fn each_task_has_its_own_work() {
        let told = |name: &'static str| async move {
            for _ in 0..3 {
                assert_eq!(id().expect("within"), name);
                tokio::task::yield_now().await;
            }
            within(work("inner"), async { assert_eq!(id().expect("within"), "inner") }).await;
            tokio::spawn(spanned(None, async move { assert_eq!(id().expect("goes on"), name) }))
                .await
                .expect("no panic");
            assert_eq!(id().expect("left again"), name);
        };
        tokio::join!(within(work("a"), told("a")), within(work("b"), told("b")));
        assert!(id().is_none());
    }

    #[test]
    fn a_panic_leaves_it_too() {
        let future = Box::pin(within(work("a"), async { panic!("on purpose") }));
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            futures_util::FutureExt::now_or_never(future);
        }));
        assert!(polled.is_err() && id().is_none());
    }
}
