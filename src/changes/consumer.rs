//! One node of the group: takes messages, purges what they name, and acknowledges them.
//!
//! A message that fails for want of Redis or of the disk stays this node's, and is tried again after a pause; if that
//! takes long, another node claims it.

use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    config::Config,
    message::{Message, Refused},
    metrics::Metrics,
    stream::{Stream, Which},
};
use crate::{
    kv::{Dedicated, Error, Kv},
    proxy::{
        Live,
        purge::{self, PurgeError},
    },
    purge as purge_log,
    warm::Refresher,
};

/// Pauses after a failure: the first one, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// Between two lines about rejected messages.
const BETWEEN_WARNINGS: Duration = Duration::from_mins(1);

/// What a consumer is made of.
pub struct Parts {
    /// `[changes]`.
    pub config: Config,
    /// `[purge]`.
    pub purge: purge_log::config::Config,
    /// Where the stream is.
    pub kv: Kv,
    /// `l2.namespace`.
    pub namespace: String,
    /// Name of this node.
    pub node: String,
    /// What purges.
    pub proxy: Live,
    /// What fetches again where a message asks for it.
    pub refresher: Refresher,
}

/// See the module.
pub struct Consumer {
    config: Config,
    purge: purge_log::config::Config,
    proxy: Live,
    refresher: Refresher,
    stream: Stream,
    metrics: Metrics,
    warned: Mutex<Option<Instant>>,
}

/// What came of a message.
enum Handled {
    Applied,
    Rejected(Refused),
    /// To be tried again.
    Failed(PurgeError),
}

impl Consumer {
    /// Consumes until `stop`: what is in hand then is finished.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(parts: Parts, registry: &mut Registry, stop: CancellationToken) -> JoinHandle<()> {
        let Parts { config, purge, kv, namespace, node, proxy, refresher } = parts;
        // Each process is another consumer: one that was killed must not take the next one's messages for done.
        let consumer = format!("{node} {:08x}", getrandom::u32().unwrap_or_else(|_| std::process::id()));
        let stream = Stream::new(kv, &namespace, consumer);
        let metrics = Metrics::register(registry);
        let consumer = Self { config, purge, proxy, refresher, stream, metrics, warned: Mutex::new(None) };
        tokio::spawn(consumer.run(stop))
    }

    async fn run(mut self, stop: CancellationToken) {
        let [mut pause, longest] = PAUSES;
        loop {
            match self.consume(&stop, &mut pause).await {
                Ok(()) => break,
                Err(error) => tracing::debug!(%error, "the stream of changes cannot be read"),
            }
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
            pause = (pause * 2).min(longest);
        }
        if let Err(error) = self.stream.leave().await {
            tracing::debug!(%error, "the group that reads changes was not told of the end");
        }
    }

    /// Until `stop`, or until Redis fails.
    async fn consume(&mut self, stop: &CancellationToken, pause: &mut Duration) -> Result<(), Error> {
        let Some(connection) = stop.run_until_cancelled(self.stream.open()).await else { return Ok(()) };
        let mut connection = connection?;
        let (mut which, mut look) = (Which::Own, Instant::now());
        while !stop.is_cancelled() {
            if look <= Instant::now() {
                look = Instant::now() + self.config.claim_after / 4;
                if !self.look_after_others().await? {
                    which = Which::Own;
                }
            }
            let Some(messages) = stop.run_until_cancelled(self.read(&mut connection, which)).await else { break };
            let messages = messages?;
            which = match (messages.is_empty(), self.handle(&messages).await?) {
                (true, _) => Which::New,
                (false, true) => {
                    *pause = PAUSES[0];
                    which
                }
                (false, false) => {
                    let waited = stop.run_until_cancelled(tokio::time::sleep(*pause)).await;
                    *pause = (*pause * 2).min(PAUSES[1]);
                    if waited.is_none() {
                        break;
                    }
                    Which::Own
                }
            };
        }
        Ok(())
    }

    async fn read(&self, connection: &mut Dedicated, which: Which) -> Result<Vec<Message>, Error> {
        if !connection.is_current() {
            return Err(Error::Moved);
        }
        self.stream.read(connection, which, self.config.batch_max).await
    }

    /// Handles what nodes that have gone have left, and removes what nobody needs.
    /// Whether none is to be tried again.
    async fn look_after_others(&mut self) -> Result<bool, Error> {
        let claimed = self.stream.claim(self.config.claim_after, self.config.batch_max).await?;
        self.metrics.claimed.inc_by(claimed.len() as u64);
        let all = self.handle(&claimed).await?;
        self.metrics.pending.set(self.stream.tidy(&self.config).await?);
        Ok(all)
    }

    /// Whether none of them is to be tried again.
    async fn handle(&self, messages: &[Message]) -> Result<bool, Error> {
        let handled = join_all(messages.iter().map(|message| self.apply(message))).await;
        let (mut done, mut all) = (Vec::new(), true);
        for (message, handled) in messages.iter().zip(handled) {
            match handled {
                Handled::Applied => done.push(message.id.clone()),
                Handled::Rejected(reason) => self.reject(message, &reason).await?,
                Handled::Failed(error) => {
                    tracing::debug!(id = message.id, %error, "a change is to be tried again");
                    self.metrics.retried.inc();
                    all = false;
                }
            }
        }
        if !done.is_empty() {
            self.stream.acknowledge(&done).await?;
            self.metrics.applied.inc_by(done.len() as u64);
        }
        Ok(all)
    }

    async fn apply(&self, message: &Message) -> Handled {
        let request = match message.request() {
            Ok(request) => request,
            Err(refused) => return Handled::Rejected(refused),
        };
        match purge::purge(&self.proxy.current(), &self.purge, &request, "stream of changes").await {
            Ok(purged) => {
                if request.refresh {
                    self.refresher.queue(purged.refresh);
                }
                let receipt = purged.receipt;
                if let Some(at) = message.at() {
                    self.metrics.lag.set(self.proxy.now().cache().now().since(at).as_secs_f64());
                }
                tracing::info!(id = %receipt.id, seq = receipt.seq, scopes = receipt.scopes, message = message.id, "purged");
                Handled::Applied
            }
            Err(error) if error.is_callers() => Handled::Rejected(Refused::Purge(error)),
            Err(error) => Handled::Failed(error),
        }
    }

    async fn reject(&self, message: &Message, reason: &Refused) -> Result<(), Error> {
        self.stream.reject(message, &reason.to_string(), self.config.rejected_max).await?;
        self.metrics.rejected.inc();
        let mut warned = self.warned.lock();
        if warned.is_none_or(|last| last.elapsed() >= BETWEEN_WARNINGS) {
            *warned = Some(Instant::now());
            tracing::warn!(message = message.id, %reason, "a change was not understood, and purged nothing");
        }
        Ok(())
    }
}
