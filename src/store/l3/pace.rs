//! A rate that is kept on average.

use std::time::Duration;

use tokio::time::Instant;

/// Time's worth of the rate that may be used at once.
const BURST: Duration = Duration::from_secs(1);

/// Hands out bytes at a rate. What is taken beyond it has to be waited for, so that a piece may be of any length.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second; `None`: any number.
    rate: Option<f64>,
    /// When all that was taken will have been within the rate.
    even: Option<Instant>,
}

impl Pace {
    /// So many bytes a second; 0: no limit.
    pub(super) fn new(rate: u64) -> Self {
        Self { rate: (rate > 0).then_some(rate as f64), even: None }
    }

    /// Takes bytes, and says how long to wait before they are used.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let even = self.even.map_or(now, |even| even.max(now)) + Duration::from_secs_f64(bytes as f64 / rate);
        self.even = Some(even);
        (even - now).saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_on_average() {
        let start = Instant::now();
        let mut pace = Pace::new(1000);
        let mut now = start;
        for _ in 0..100 {
            now += pace.take(500, now);
        }
        assert_eq!((now - start).as_secs(), 49, "a second's worth at once, the rest at the rate");
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut pace = Pace::new(1000);
        let now = Instant::now();
        assert_eq!(pace.take(1000, now), Duration::ZERO);
        let later = now + Duration::from_secs(3600);
        assert_eq!(pace.take(3000, later), Duration::from_secs(2));
    }

    #[test]
    fn no_rate_no_wait() {
        assert_eq!(Pace::new(0).take(u64::MAX, Instant::now()), Duration::ZERO);
    }
}
