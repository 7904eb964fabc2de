//! URLs at a steady rate.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::time::{Interval, MissedTickBehavior};

/// `urls`, at most `rate` of them a second; zero: as fast as they are asked for.
pub(super) fn paced<S>(urls: S, rate: u32) -> impl Stream<Item = String> + Send
where
    S: Stream<Item = String> + Send + Unpin,
{
    let ticks = (rate > 0).then(|| ticks(rate));
    stream::unfold((urls, ticks), |(mut urls, mut ticks)| async {
        let url = urls.next().await?;
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        Some((url, (urls, ticks)))
    })
}

fn ticks(rate: u32) -> Interval {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    // After a pause the rate is kept, not made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
