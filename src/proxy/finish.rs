//! The end of a request: when the last byte of the answer has gone, or the client has, the line is written and the
//! counters move.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Version};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::{Proxy, metrics::RouteMetrics};
use crate::{
    cache::{Body, Broken, Outcome},
    telemetry::Line,
};

/// What the access line tells, gathered when the request arrives.
pub(super) struct Record {
    pub(super) proxy: Proxy,
    pub(super) metrics: Arc<RouteMetrics>,
    pub(super) begun: Instant,
    pub(super) time: SystemTime,
    pub(super) client: IpAddr,
    pub(super) method: Method,
    pub(super) uri: http::Uri,
    pub(super) authority: Arc<str>,
    pub(super) version: Version,
    pub(super) route: Arc<str>,
    pub(super) request_id: Option<HeaderValue>,
    pub(super) trace_id: Option<HeaderValue>,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) outcome: Outcome,
    pub(super) status: u16,
    pub(super) head_after: Duration,
    pub(super) sent: u64,
    pub(super) broken: bool,
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.begun.elapsed();
        self.metrics.ended(&self.outcome, self.sent, duration);
        let Some(log) = self.proxy.access_log() else { return };
        let target = self.uri.path_and_query().map_or("/", |target| target.as_str());
        log.log(Line {
            time: self.time,
            request_id: self.request_id.as_ref().and_then(text).unwrap_or(""),
            client: self.client,
            method: self.method.as_str(),
            target,
            host: &self.authority,
            version: self.version,
            status: self.status,
            route: &self.route,
            outcome: self.outcome.name(),
            detail: self.outcome.tier().map_or(self.outcome.detail, |tier| Some(tier.as_str())).unwrap_or(""),
            bytes_sent: self.sent,
            duration,
            ttfb: self.head_after,
            origin: None,
            trace_id: self.trace_id.as_ref().and_then(text),
            user_agent: self.user_agent.as_ref().and_then(text),
            error: self.broken.then_some("the answer broke off"),
        });
    }
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// The content of an answer on its way to the client, counted.
pub struct Sent {
    body: Body,
    record: Record,
    over: bool,
}

impl Sent {
    pub(super) fn new(body: Body, record: Record) -> Self {
        Self { body, record, over: false }
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let sent = self.get_mut();
        let polled = Pin::new(&mut sent.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                sent.record.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(_))) => sent.record.broken = true,
            Poll::Ready(None) => sent.over = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
