//! Sends the calls of webhooks, one at a time each, and again where that helps.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::{Call, Caller},
    config::{Config, Kind},
    metrics::{Families, Metrics},
};
use crate::{
    origin::{self, OriginRequest, Origins, RequestBody, TargetPolicy, Upstream, UpstreamError},
    proxy::purge::{PurgeRequest, Receipt},
};

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(10);

/// How long stopping waits for what is queued.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Pauses between tries: the first one, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// Why a webhook cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of its token cannot be used.
    #[error("token_file: {0}")]
    TokenFile(std::io::Error),
    /// A token that is no value of a header field.
    #[error("the token cannot be sent in a header field")]
    Token,
    /// Not a URL.
    #[error("url: {0:?} is no URL")]
    Url(String),
    /// It cannot be called.
    #[error("url: {0}")]
    Upstream(#[from] UpstreamError),
}

/// A purge to be told.
struct Told {
    request: PurgeRequest,
    receipt: Receipt,
}

/// All webhooks.
pub struct Webhooks {
    queues: Vec<(mpsc::Sender<Arc<Told>>, Metrics)>,
    senders: parking_lot::Mutex<Vec<JoinHandle<()>>>,
    stop: CancellationToken,
}

impl Webhooks {
    /// Starts a queue for each. `origin` says how they are reached; the names in errors are theirs.
    ///
    /// # Errors
    /// The name of the first that cannot be used, and why.
    pub fn start(
        configs: &[Config],
        origin: &origin::Config,
        origins: &Origins,
        registry: &mut Registry,
    ) -> Result<Self, (String, Error)> {
        let (stop, families) = (CancellationToken::new(), Families::register(registry));
        let (mut queues, mut senders) = (Vec::new(), Vec::new());
        for config in configs {
            let failed = |error| (config.name.clone(), error);
            let metrics = families.of(&config.name);
            let (queue, waiting) = mpsc::channel(config.queue_max.max(1));
            let (upstream, caller) = reached(config, origin).map_err(failed)?;
            let sender = Sender {
                name: config.name.clone(),
                kind: config.kind,
                retry_for: config.retry_for,
                upstream,
                caller,
                origins: origins.clone(),
                metrics: metrics.clone(),
                stop: stop.clone(),
            };
            senders.push(tokio::spawn(sender.run(waiting)));
            queues.push((queue, metrics));
        }
        Ok(Self { queues, senders: parking_lot::Mutex::new(senders), stop })
    }

    /// Queues a purge for all of them.
    pub fn tell(&self, request: &PurgeRequest, receipt: &Receipt) {
        let told = Arc::new(Told { request: request.clone(), receipt: receipt.clone() });
        for (queue, metrics) in &self.queues {
            if queue.try_send(Arc::clone(&told)).is_ok() {
                metrics.queue.inc();
            } else {
                metrics.dropped.inc();
            }
        }
    }

    /// Sends what is queued, each once, for a moment at most.
    pub async fn stop(&self) {
        self.stop.cancel();
        let senders = std::mem::take(&mut *self.senders.lock());
        if timeout(DRAIN_MAX, join_all(senders)).await.is_err() {
            tracing::warn!("webhooks were not told of all purges before the end");
        }
    }
}

fn reached(config: &Config, origin: &origin::Config) -> Result<(Upstream, Caller), Error> {
    let not_one = || Error::Url(config.url().to_owned());
    let uri: Uri = config.url().parse().map_err(|_| not_one())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(not_one()) };
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let base = match config.kind {
        // The URL is what is called.
        Kind::Json => format!("{scheme}://{authority}"),
        _ => config.url().to_owned(),
    };
    let origin = origin::Config {
        connect_timeout: origin.connect_timeout.min(CALL_MAX),
        head_timeout: CALL_MAX,
        body_idle_timeout: CALL_MAX,
        queue_timeout: origin.queue_timeout.min(CALL_MAX),
        ..origin.clone()
    };
    // The operator's own word: wherever it leads is meant.
    let upstream = Upstream::new(&[base], origin, TargetPolicy::Any)?;
    let token = config.load_token().map_err(Error::TokenFile)?;
    Ok((upstream, Caller::new(config, &token, path).ok_or(Error::Token)?))
}

/// One webhook.
struct Sender {
    name: String,
    kind: Kind,
    retry_for: Duration,
    upstream: Upstream,
    caller: Caller,
    origins: Origins,
    metrics: Metrics,
    stop: CancellationToken,
}

/// What came of a call.
enum Came {
    Taken,
    Refused(String),
    /// Trying again may help; after so long, if it said so.
    Failed(String, Option<Duration>),
}

/// What Cloudflare answers.
#[derive(Deserialize)]
struct Envelope {
    success: bool,
}

impl Sender {
    async fn run(self, mut waiting: mpsc::Receiver<Arc<Told>>) {
        loop {
            let told = tokio::select! {
                biased;
                told = waiting.recv() => told,
                () = self.stop.cancelled() => None,
            };
            let Some(told) = told else { return };
            self.metrics.queue.dec();
            let made = self.caller.calls(&told.request, &told.receipt);
            self.metrics.left_out.inc_by(made.left_out as u64);
            for call in &made.calls {
                self.deliver(call, &told.receipt.id).await;
            }
        }
    }

    async fn deliver(&self, call: &Call, purge: &str) {
        let (begun, [mut pause, longest]) = (Instant::now(), PAUSES);
        loop {
            let (reason, asked) = match self.call(call).await {
                Came::Taken => {
                    self.metrics.sent.inc();
                    return;
                }
                Came::Refused(reason) => return self.give_up(purge, &reason),
                Came::Failed(reason, asked) => (reason, asked),
            };
            let next = asked.unwrap_or_else(|| pause.mul_f64(jitter()));
            if begun.elapsed() + next > self.retry_for {
                return self.give_up(purge, &reason);
            }
            tracing::debug!(webhook = self.name, purge, reason, "a webhook is to be called again");
            if self.stop.run_until_cancelled(tokio::time::sleep(next)).await.is_none() {
                return self.give_up(purge, &reason);
            }
            self.metrics.retried.inc();
            pause = (pause * 2).min(longest);
        }
    }

    fn give_up(&self, purge: &str, reason: &str) {
        self.metrics.failed.inc();
        tracing::warn!(webhook = self.name, purge, reason, "a webhook was not told of a purge");
    }

    async fn call(&self, call: &Call) -> Came {
        let mut headers = call.headers.clone();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let request = OriginRequest {
            method: Method::POST,
            path_and_query: call.path.clone(),
            host: None,
            headers,
            body: RequestBody::Bytes(call.body.clone()),
            interim: None,
            upgrade: false,
        };
        let answer = async {
            let response = self.origins.send(&self.upstream, request).await.map_err(|error| error.to_string())?;
            let body = Limited::new(response.body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_or_else(|_| bytes::Bytes::new(), http_body_util::Collected::to_bytes);
            Ok::<_, String>((response.status, response.headers, body))
        };
        match timeout(CALL_MAX, answer).await {
            Ok(Ok((status, headers, body))) => came(self.kind, status, &headers, &body),
            Ok(Err(error)) => Came::Failed(error, None),
            Err(_) => Came::Failed("it did not answer in time".to_owned(), None),
        }
    }
}

fn came(kind: Kind, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Came {
    let said = || format!("it answered {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS => Came::Failed(said(), retry_after(headers)),
        StatusCode::REQUEST_TIMEOUT => Came::Failed(said(), None),
        _ if status.is_server_error() => Came::Failed(said(), retry_after(headers)),
        _ if !status.is_success() => Came::Refused(said()),
        _ if kind == Kind::Cloudflare && !is_success(body) => {
            Came::Refused("it answered without \"success\": true".to_owned())
        }
        _ => Came::Taken,
    }
}

fn is_success(body: &[u8]) -> bool {
    serde_json::from_slice(body).is_ok_and(|Envelope { success }| success)
}

/// In seconds; dates are left to the pauses of our own.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Between 0.75 and 1.
fn jitter() -> f64 {
    1.0 - f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX) / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_is_tried_again() {
        let answer = |kind, status: u16, body: &str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static("7"))]);
            match came(kind, StatusCode::from_u16(status).expect("a status"), &headers, body.as_bytes()) {
                Came::Taken => "taken".to_owned(),
                Came::Refused(_) => "refused".to_owned(),
                Came::Failed(_, after) => format!("again after {after:?}"),
            }
        };
        assert_eq!(answer(Kind::Fastly, 200, ""), "taken");
        assert_eq!(answer(Kind::Json, 204, ""), "taken");
        assert_eq!(answer(Kind::Cloudflare, 200, r#"{"success":true,"errors":[]}"#), "taken");
        assert_eq!(answer(Kind::Cloudflare, 200, r#"{"success":false}"#), "refused");
        assert_eq!(answer(Kind::Cloudflare, 200, "<html>"), "refused");
        assert_eq!(answer(Kind::Fastly, 403, ""), "refused");
        assert_eq!(answer(Kind::Json, 302, ""), "refused");
        assert_eq!(answer(Kind::Fastly, 429, ""), "again after Some(7s)");
        assert_eq!(answer(Kind::Fastly, 503, ""), "again after Some(7s)");
        assert_eq!(answer(Kind::Fastly, 408, ""), "again after None");
    }
}
