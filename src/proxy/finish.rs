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
use http::{HeaderValue, Method, StatusCode, Version};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::{metrics::RouteMetrics, rescue::Refusal};
use crate::{
    cache::{Body, Broken, Outcome, llm::accounts::Receipt},
    telemetry::{
        AccessLog, Cost, Line, Recent,
        trace::{Span, TraceId},
    },
    tenants::Tenant,
};

/// One request, from its head to the end of its answer.
pub(super) struct Record {
    pub(super) metrics: Arc<RouteMetrics>,
    pub(super) begun: Instant,
    /// Whom it is of, where that was asked.
    pub(super) tenant: Option<Arc<Tenant>>,
    pub(super) outcome: Outcome,
    pub(super) sent: u64,
    /// Of the answer; `None`: none has begun.
    pub(super) status: Option<StatusCode>,
    /// What is told of it; `None`: nothing.
    pub(super) told: Option<Box<Told>>,
    /// All of it as a span, where it is traced.
    pub(super) span: Option<Box<Span>>,
}

/// Who is told of a request.
pub(super) struct Listeners {
    pub(super) log: Option<AccessLog>,
    pub(super) recent: Option<Recent>,
}

/// What they are told, gathered when the request arrives.
pub(super) struct Told {
    pub(super) to: Listeners,
    pub(super) time: SystemTime,
    pub(super) client: IpAddr,
    pub(super) method: Method,
    pub(super) uri: http::Uri,
    pub(super) authority: Arc<str>,
    pub(super) version: Version,
    pub(super) route: Arc<str>,
    pub(super) request_id: Option<HeaderValue>,
    pub(super) trace_id: Option<TraceId>,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) status: u16,
    pub(super) head_after: Duration,
    pub(super) broken: bool,
    /// Of a call to a model.
    pub(super) receipt: Option<Receipt>,
}

impl Record {
    /// Notes whom it is of, or why it is not let in.
    pub(super) fn admitted(&mut self, admitted: &Result<Option<Arc<Tenant>>, Refusal>) {
        match admitted {
            Ok(tenant) => self.tenant.clone_from(tenant),
            Err(Refusal::Denied(denied) | Refusal::ForwardDenied(denied)) => {
                self.outcome.detail = Some(denied.as_str());
                self.metrics.denied(denied);
            }
            Err(_) => {}
        }
    }

    /// Notes how the answer begins.
    pub(super) fn answered(&mut self, outcome: Outcome, status: StatusCode) {
        self.outcome = outcome;
        self.status = Some(status);
        if let Some(span) = &mut self.span {
            span.set("http.response.status_code", status.as_u16());
            if status.is_server_error() {
                span.fail();
            }
        }
        if let Some(told) = &mut self.told {
            told.status = status.as_u16();
            told.head_after = self.begun.elapsed();
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.begun.elapsed();
        self.metrics.ended(&self.outcome, self.status, self.sent, duration);
        if let Some(tenant) = &self.tenant {
            self.metrics.ended_of(tenant, &self.outcome);
        }
        if let Some(span) = &mut self.span {
            if let Some(tenant) = &self.tenant {
                span.set("larder.tenant", tenant.name.to_string());
            }
            span.set("larder.outcome", self.outcome.name());
            span.set("larder.detail", self.outcome.reason());
        }
        let Some(told) = &self.told else { return };
        let target = told.uri.path_and_query().map_or("/", |target| target.as_str());
        let plain_hit = self.outcome.is_hit() && told.status < 400 && !told.broken;
        told.to.tell(
            plain_hit,
            Line {
                time: told.time,
                request_id: told.request_id.as_ref().and_then(text).unwrap_or(""),
                client: told.client,
                method: told.method.as_str(),
                target,
                host: &told.authority,
                version: told.version,
                status: told.status,
                route: &told.route,
                tenant: self.tenant.as_ref().map(|tenant| &*tenant.name),
                outcome: self.outcome.name(),
                detail: self.outcome.reason(),
                bytes_sent: self.sent,
                duration,
                ttfb: told.head_after,
                origin: None,
                trace_id: told.trace_id,
                user_agent: told.user_agent.as_ref().and_then(text),
                error: told.broken.then_some("the answer broke off"),
                cost: told.receipt.as_ref().map(|receipt| cost(receipt, self.outcome.is_hit())),
            },
        );
    }
}

impl Listeners {
    /// Of plain hits, the log may take a share.
    fn tell(&self, plain_hit: bool, line: Line<'_>) {
        if let Some(recent) = &self.recent {
            recent.note(&line);
        }
        if let Some(log) = self.log.as_ref().filter(|log| !plain_hit || log.takes_hit()) {
            log.log(line);
        }
    }
}

fn cost(receipt: &Receipt, hit: bool) -> Cost<'_> {
    let paid = receipt.cost();
    Cost {
        model: &receipt.model,
        account: paid.map_or(if hit { "saved" } else { "billed" }, |paid| paid.account),
        input_tokens: paid.map_or(0, |paid| paid.usage.input),
        output_tokens: paid.map_or(0, |paid| paid.usage.output),
        dollars: paid.and_then(|paid| paid.dollars),
    }
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// The content of an answer on its way to the client, counted.
pub struct Sent {
    body: Body,
    record: Record,
}

impl Sent {
    pub(super) fn new(body: Body, record: Record) -> Self {
        Self { body, record }
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
            Poll::Ready(Some(Err(_))) => {
                if let Some(span) = &mut sent.record.span {
                    span.fail();
                }
                if let Some(told) = &mut sent.record.told {
                    told.broken = true;
                }
            }
            Poll::Ready(None) | Poll::Pending => {}
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
