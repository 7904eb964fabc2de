//! Sends spans to a collector: OTLP over HTTP, in JSON.
//!
//! A task of its own takes them from the tracer's queue in batches. A collector that hangs, fails or refuses costs spans,
//! which are counted, and no request anything.

mod json;

use std::{str::FromStr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    origin::{self, OriginRequest, Origins, RequestBody, TargetPolicy, Upstream, UpstreamError},
    telemetry::trace::{Config, Ended, Tracer},
};

/// Where traces go below the endpoint, as the protocol has it.
const PATH: &str = "/v1/traces";
/// Spans of one call, and how long they are gathered.
const BATCH_MAX: usize = 512;
const GATHER: Duration = Duration::from_secs(1);
/// Tries of one call, and the pause before the second, which doubles.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// How long stopping waits for what is queued.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why there is no exporter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a URL.
    #[error("{0:?} is no URL")]
    Url(String),
    /// A field that cannot be sent.
    #[error("the field {0:?} cannot be sent")]
    Field(String),
    /// It cannot be called.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// The task that exports.
pub struct Exporter {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// What came of a call.
enum Came {
    /// Taken, but for so many.
    Taken(u64),
    /// Trying again may help.
    Failed(String),
    Refused(String),
}

impl Exporter {
    /// Starts to send what comes out of `ended`, the queue of `tracer`. `origin` says how the collector is reached.
    ///
    /// # Errors
    /// Where the collector cannot be called as it is configured.
    pub fn start(
        config: &Config,
        (tracer, ended): (&Tracer, mpsc::Receiver<Ended>),
        (origin, origins): (&origin::Config, &Origins),
        registry: &mut Registry,
    ) -> Result<Self, Error> {
        let stop = CancellationToken::new();
        let sender = Sender::new(config, origin, origins.clone(), stop.clone())?;
        let registry = registry.sub_registry_with_prefix("trace");
        registry.register("exported", "Spans the collector has taken", sender.exported.clone());
        registry.register("dropped", "Spans that found no room in the queue", tracer.dropped().clone());
        registry.register("failed", "Spans the collector has not taken", sender.failed.clone());
        Ok(Self { task: tokio::spawn(sender.run(ended)), stop })
    }

    /// Sends what is queued, for a moment at most.
    pub async fn stop(self) {
        self.stop.cancel();
        if timeout(DRAIN_MAX, self.task).await.is_err() {
            tracing::warn!("the collector was not told of all spans before the end");
        }
    }
}

struct Sender {
    service: String,
    timeout: Duration,
    upstream: Upstream,
    path: PathAndQuery,
    headers: HeaderMap,
    origins: Origins,
    exported: Counter,
    failed: Counter,
    stop: CancellationToken,
}

impl Sender {
    fn new(config: &Config, origin: &origin::Config, origins: Origins, stop: CancellationToken) -> Result<Self, Error> {
        let not_one = || Error::Url(config.endpoint.clone());
        let uri: Uri = config.endpoint.parse().map_err(|_| not_one())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(not_one()) };
        let path = format!("{}{PATH}", uri.path().trim_end_matches('/')).parse().map_err(|_| not_one())?;
        let origin = origin::Config {
            connect_timeout: origin.connect_timeout.min(config.timeout),
            head_timeout: config.timeout,
            body_idle_timeout: config.timeout,
            queue_timeout: config.timeout,
            ..origin.clone()
        };
        // The operator's own word: wherever it leads is meant.
        let upstream = Upstream::new(&[format!("{scheme}://{authority}")], origin, TargetPolicy::Any)?;
        Ok(Self {
            service: config.service_name.clone(),
            timeout: config.timeout,
            upstream,
            path,
            headers: fields(config)?,
            origins,
            exported: Counter::default(),
            failed: Counter::default(),
            stop,
        })
    }

    async fn run(self, mut ended: mpsc::Receiver<Ended>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let begun = self.stop.run_until_cancelled(ended.recv()).await;
            match begun {
                Some(Some(first)) => batch.push(first),
                Some(None) => return,
                None => break,
            }
            let gather = async {
                while batch.len() < BATCH_MAX {
                    let room = BATCH_MAX - batch.len();
                    if ended.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            let _ = timeout(GATHER, self.stop.run_until_cancelled(gather)).await;
            self.export(&mut batch).await;
        }
        while let Ok(span) = ended.try_recv() {
            batch.push(span);
            if batch.len() == BATCH_MAX {
                self.export(&mut batch).await;
            }
        }
        self.export(&mut batch).await;
    }

    /// Sends a batch, and again where that helps.
    async fn export(&self, batch: &mut Vec<Ended>) {
        let count = batch.len() as u64;
        if count == 0 {
            return;
        }
        let body = Bytes::from(json::request(&self.service, batch).to_string());
        batch.clear();
        let mut pause = PAUSE;
        for number in 1..=TRIES {
            let reason = match self.call(body.clone()).await {
                Came::Taken(rejected) => {
                    let rejected = rejected.min(count);
                    self.failed.inc_by(rejected);
                    self.exported.inc_by(count - rejected);
                    return;
                }
                Came::Failed(reason) if number < TRIES && !self.stop.is_cancelled() => {
                    tracing::debug!(reason, "spans are to be sent again");
                    let _ = self.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    pause *= 2;
                    continue;
                }
                Came::Failed(reason) | Came::Refused(reason) => reason,
            };
            tracing::debug!(reason, spans = count, "the collector did not take spans");
            self.failed.inc_by(count);
            return;
        }
    }

    async fn call(&self, body: Bytes) -> Came {
        let request = OriginRequest {
            method: Method::POST,
            path_and_query: self.path.clone(),
            host: None,
            headers: self.headers.clone(),
            body: RequestBody::Bytes(body),
            interim: None,
            upgrade: false,
        };
        let answer = async {
            let response = self.origins.send(&self.upstream, request).await.map_err(|error| error.to_string())?;
            let body = Limited::new(response.body, ANSWER_BYTES_MAX).collect().await;
            Ok::<_, String>((response.status, body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes)))
        };
        match timeout(self.timeout, answer).await {
            Ok(Ok((status, body))) if status.is_success() => Came::Taken(json::rejected(&body)),
            // Those that the protocol names; all others would fail again.
            Ok(Ok((status, _))) if matches!(status.as_u16(), 429 | 502 | 503 | 504) => {
                Came::Failed(format!("it answered {status}"))
            }
            Ok(Ok((status, _))) => Came::Refused(format!("it answered {status}")),
            Ok(Err(error)) => Came::Failed(error),
            Err(_) => Came::Failed("it did not answer in time".to_owned()),
        }
    }
}

fn fields(config: &Config) -> Result<HeaderMap, Error> {
    let mut fields = HeaderMap::new();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for (name, value) in &config.headers {
        let wrong = || Error::Field(name.clone());
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        fields.insert(HeaderName::from_str(name).map_err(|_| wrong())?, value);
    }
    Ok(fields)
}
