//! What belongs together: requests of one trace, by the field that tells of it (W3C Trace Context).

mod context;

pub use self::context::{Parent, SpanId, TraceId};
