//! One request and the head of its response on one connection; and, where that fails, whether to try again.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use hyper::{body::Incoming, client::conn::TrySendError, upgrade::OnUpgrade};
use tokio::time::{Instant, timeout_at};

use super::{
    body::{OriginBody, Source},
    config::Config,
    direct::{self, Head, Unanswered},
    error::{Error, Kind, is_stream_reset},
    h1::H1,
    pool::{Lease, Wire},
    request::{Load, Progress, SendBody, Template},
    response::{OriginResponse, Timing},
    upstream::Base,
};

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) again: Option<Again>,
}

/// The request, where it may be tried once more.
#[derive(Debug)]
pub(super) enum Again {
    /// It got no connection: at another base URL.
    Elsewhere(Box<Load>),
    /// The connection failed it: on another one.
    Fresh(Box<Load>),
}

type Outcome = Result<Response<Incoming>, TrySendError<http::Request<SendBody>>>;

/// Sends a request and waits for the final response head.
pub(super) async fn exchange(
    lease: Lease,
    base: &Base,
    config: &Config,
    template: &Template,
    load: Load,
) -> Result<OriginResponse, Failure> {
    if lease.direct().is_some()
        && let Some(encoded) = direct::encode(&load, template, base)
    {
        return directly(lease, encoded, config, template, load).await;
    }
    // Boxed: most requests do without.
    Box::pin(through_task(lease, base, config, template, load)).await
}

/// Over a connection that this request drives.
async fn directly(
    mut lease: Lease,
    encoded: (Bytes, Bytes),
    config: &Config,
    template: &Template,
    load: Load,
) -> Result<OriginResponse, Failure> {
    let start = Instant::now();
    let reused = lease.reused;
    let Some((direct, limits)) = lease.direct_mut() else { return Err(Failure::final_one(Kind::Internal)) };
    let asking = direct.exchange(encoded, &load.method, limits, template.interim.as_ref());
    let answered = match timeout_at(start + config.head_timeout, asking).await {
        Ok(answered) => answered,
        Err(_elapsed) => return Err(Failure::final_one(Kind::HeadTimeout)),
    };
    match answered {
        Ok(Head { status, version, headers }) => lease.respond(
            Answer { status, version, headers, upgrade: None },
            Source::Direct,
            start.elapsed(),
            None,
            config,
        ),
        Err(Unanswered { error, untouched: true, .. }) => {
            Err(Failure { error: error.into_unseen(), again: Some(Again::Fresh(Box::new(load))) })
        }
        Err(Unanswered { error, heard, .. }) => {
            let lost = reused && load.method.is_idempotent() && !heard && error.kind() == Kind::Terminated;
            Err(Failure { error, again: lost.then(|| Again::Fresh(Box::new(load))) })
        }
    }
}

/// Over a connection that a task drives.
async fn through_task(
    mut lease: Lease,
    base: &Base,
    config: &Config,
    template: &Template,
    load: Load,
) -> Result<OriginResponse, Failure> {
    let idempotent = load.method.is_idempotent();
    let spare = if config.retries > 0 && lease.may_lose(idempotent) { load.replica() } else { None };
    let start = Instant::now();
    let (outcome, progress) = match &mut lease.wire {
        Wire::H1(H1::Tasked(tasked)) => {
            tasked.ear.forget();
            let (request, progress) = load.into_h1(template, base);
            let sending = tasked.sender.try_send_request(request);
            (await_head(sending, start, config.head_timeout, progress.as_deref()).await, progress)
        }
        Wire::H1(H1::Direct(_)) => return Err(Failure::final_one(Kind::Internal)),
        Wire::H2(stream) => {
            let (request, progress) = load.into_h2(template, base);
            let mut sender = stream.connection().sender();
            let sending = sender.try_send_request(request);
            (await_head(sending, start, config.head_timeout, progress.as_deref()).await, progress)
        }
    };
    match outcome {
        None => Err(Failure::final_one(Kind::HeadTimeout)),
        Some(Err(cause)) => Err(lease.judge(cause, progress.as_deref(), idempotent, spare)),
        Some(Ok(response)) => {
            let (mut parts, incoming) = response.into_parts();
            let upgrade = if template.upgrade { parts.extensions.remove::<OnUpgrade>() } else { None };
            let answer = Answer { status: parts.status, version: parts.version, headers: parts.headers, upgrade };
            lease.respond(answer, Source::Task(incoming), start.elapsed(), progress, config)
        }
    }
}

/// A response head, whoever read it.
struct Answer {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    upgrade: Option<OnUpgrade>,
}

/// The outcome, or nothing if it takes longer than `limit` from the request's last byte (or its last sign of life).
async fn await_head(
    sending: impl Future<Output = Outcome>,
    start: Instant,
    limit: Duration,
    progress: Option<&Progress>,
) -> Option<Outcome> {
    let mut sending = pin!(sending);
    let mut deadline = start + limit;
    loop {
        if let Ok(outcome) = timeout_at(deadline, sending.as_mut()).await {
            return Some(outcome);
        }
        deadline = progress.map(|progress| progress.last() + limit).filter(|&later| later > deadline)?;
    }
}

impl Failure {
    /// One that another try would not mend.
    fn final_one(kind: Kind) -> Self {
        Self { error: Error::new(kind), again: None }
    }

    /// No connection.
    pub(super) fn unconnected(error: Error, load: Load) -> Self {
        Self { error, again: Some(Again::Elsewhere(Box::new(load))) }
    }
}

impl Lease {
    /// Whether the request could be lost in a way that lets it be sent again.
    fn may_lose(&self, idempotent: bool) -> bool {
        match self.wire {
            Wire::H1(_) => self.reused && idempotent,
            // HTTP/2 says which requests it refused.
            Wire::H2(_) => true,
        }
    }

    /// What a failure means, and whether the request may be tried again: if it was not sent, if the origin refused to
    /// process it, or if it is idempotent and a connection that had been idle broke without a byte of response.
    fn judge(
        self,
        mut cause: TrySendError<http::Request<SendBody>>,
        progress: Option<&Progress>,
        idempotent: bool,
        spare: Option<Load>,
    ) -> Failure {
        let heard = match &self.wire {
            Wire::H1(H1::Tasked(tasked)) => tasked.ear.has_heard(),
            Wire::H1(H1::Direct(_)) | Wire::H2(_) => false,
        };
        let unsent = cause.take_message();
        let cause = cause.into_error();
        let reset = is_stream_reset(&cause);
        let error = Error::awaiting_head(cause, heard);
        if let Wire::H2(stream) = &self.wire
            && !reset
        {
            stream.connection().retire();
        }
        if let Some(request) = unsent {
            let again = Some(Again::Fresh(Box::new(Load::recover(request))));
            return Failure { error: error.into_unseen(), again };
        }
        if progress.is_some_and(Progress::has_failed) {
            return Failure { error: Error::new(Kind::RequestBody), again: None };
        }
        let lost = self.reused && idempotent && !heard && !reset && error.kind() == Kind::Terminated;
        let again = if lost || error.unseen() { spare.map(|load| Again::Fresh(Box::new(load))) } else { None };
        Failure { error, again }
    }

    fn respond(
        mut self,
        mut answer: Answer,
        source: Source,
        wait: Duration,
        progress: Option<Arc<Progress>>,
        config: &Config,
    ) -> Result<OriginResponse, Failure> {
        let switching = answer.status == StatusCode::SWITCHING_PROTOCOLS;
        if switching && answer.upgrade.is_none() {
            return Err(Failure::final_one(Kind::Protocol));
        }
        let keep_max = self.keep_max();
        if let Wire::H1(h1) = &mut self.wire {
            h1.learn(answer.version, &answer.headers, keep_max);
            if switching {
                h1.retire();
            }
        }
        if answer.headers.contains_key(TRANSFER_ENCODING) {
            // The transfer coding overrides it (RFC 9112, 6.3): passed on it would be a lie.
            answer.headers.remove(CONTENT_LENGTH);
        }
        let timing = Timing { connect: self.connect, wait };
        Ok(OriginResponse {
            status: answer.status,
            version: answer.version,
            headers: answer.headers,
            body: OriginBody::new(source, self, progress, config.body_idle_timeout),
            upgrade: answer.upgrade,
            timing,
        })
    }
}
