//! Traces: which requests belong together (W3C Trace Context), and what was done for one, as spans.
//!
//! A span is sent to the queue of its [`Tracer`] when it is dropped. What works for a request finds it, and its span, by
//! [`current`]: the future of a request is wrapped by [`within`], and that of a task which goes on with its work, too.

pub mod config;
mod context;
mod span;
mod within;

pub use self::{
    config::Config,
    context::{Parent, SpanId, TraceId},
    span::{Context, Ended, Kind, Span, Tracer, Value},
    within::{Request, Within, Work, child, current, request, spanned, within},
};
