//! After a purge: fetching the most asked-for of what it took, at a rate the origin can bear.
//!
//! One queue for the node. What does not fit is left to clients' requests, and the reply to the purge says so.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use http::HeaderMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    fetch::{Fetcher, Wanted},
    metrics::{Cause, Metrics},
    pace::paced,
};

/// A handle on the queue; clones are the same queue.
#[derive(Debug, Clone)]
pub struct Refresher {
    queue: mpsc::Sender<String>,
    metrics: Metrics,
}

impl Refresher {
    /// Starts the queue: `queue_max` URLs wait, `rate` a second leave it, `concurrency` are fetched at once.
    pub fn start(
        fetch: Fetcher,
        metrics: Metrics,
        queue_max: usize,
        rate: u32,
        concurrency: usize,
        shutdown: CancellationToken,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(queue_max.max(1));
        let running = run(fetch, metrics.clone(), waiting, rate.max(1), concurrency.max(1));
        tokio::spawn(async move { shutdown.run_until_cancelled_owned(running).await });
        Self { queue, metrics }
    }

    /// Queues as many of `urls` as fit, from the front, and says how many that were.
    pub fn queue(&self, urls: Vec<String>) -> usize {
        let fit = urls.into_iter().take_while(|url| self.queue.try_send(url.clone()).is_ok()).count();
        self.metrics.refresh_queue.inc_by(i64::try_from(fit).unwrap_or(i64::MAX));
        fit
    }
}

async fn run(fetch: Fetcher, metrics: Metrics, waiting: mpsc::Receiver<String>, rate: u32, concurrency: usize) {
    let waiting = Box::pin(stream::unfold(waiting, |mut waiting| async { Some((waiting.recv().await?, waiting)) }));
    let fetch = Arc::clone(&fetch);
    let mut fetches = std::pin::pin!(
        paced(waiting, rate)
            .map(|url| {
                metrics.refresh_queue.dec();
                fetch(Wanted { url, headers: HeaderMap::new(), tenant: None })
            })
            .buffer_unordered(concurrency)
    );
    while let Some(fetched) = fetches.next().await {
        metrics.count(Cause::Refresh, &fetched);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::*;
    use crate::warm::fetch::Fetched;

    #[tokio::test(start_paused = true)]
    async fn leaves_at_the_rate_and_takes_what_fits() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let fetch: Fetcher = {
            let seen = Arc::clone(&seen);
            Arc::new(move |wanted| {
                seen.lock().push((start.elapsed().as_millis(), wanted.url));
                Box::pin(async { Fetched::Stored })
            })
        };
        let shutdown = CancellationToken::new();
        let refresher = Refresher::start(fetch, Metrics::default(), 3, 10, 2, shutdown.clone());
        assert_eq!(refresher.queue(["a", "b", "c", "d"].map(str::to_owned).to_vec()), 3);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let expected = [(0, "a"), (100, "b"), (200, "c")].map(|(at, url)| (at, url.to_owned()));
        assert_eq!(*seen.lock(), expected);
        assert_eq!(refresher.metrics.refresh_queue.get(), 0);
        shutdown.cancel();
        refresher.queue.closed().await;
        assert_eq!(refresher.queue(vec!["e".to_owned()]), 0);
    }
}
