//! Spans of what the cache does for a request, where that is traced.

use crate::{
    origin::OriginResponse,
    telemetry::trace::{self, Kind, Span},
};

/// A look into a tier begins.
pub(super) fn looking(tier: &'static str) -> Option<Span> {
    let mut span = trace::child("lookup", Kind::Internal)?;
    span.set("larder.tier", tier);
    Some(span)
}

/// It has ended.
pub(super) fn looked(span: Option<Span>, found: bool) {
    if let Some(mut span) = span {
        span.set("larder.found", found);
    }
}

/// The head of an origin's answer is here, or will not come.
pub(super) fn answered<E>(span: Option<Span>, answer: &Result<OriginResponse, E>) {
    let Some(mut span) = span else { return };
    match answer {
        Ok(response) => {
            span.set("http.response.status_code", response.status.as_u16());
            if response.status.is_client_error() || response.status.is_server_error() {
                span.fail();
            }
        }
        Err(_) => span.fail(),
    }
}
