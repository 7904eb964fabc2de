//! Traces: which requests belong together (W3C Trace Context), and what was done for one, as spans.
//!
//! A span is sent to the queue of its [`Tracer`] when it is dropped. What runs within a span finds it by [`current`]: the
//! future of a request is wrapped by [`within`], and that of a task which goes on with its work, too. Without a tracer
//! there is nothing to find, and a wrapped future costs one branch.

pub mod config;
mod context;
mod span;
mod within;

pub use self::{
    config::Config,
    context::{Parent, SpanId, TraceId},
    span::{Context, Ended, Kind, Span, Tracer, Value},
    within::{Within, child, current, spanned, within},
};
