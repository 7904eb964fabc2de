//! How long to wait before the next try: longer each time, never the same for all.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const MAX: Duration = Duration::from_secs(1);

/// See the module. The first try after success is not waited for.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: Duration::ZERO }
    }

    pub(super) fn reset(&mut self) {
        self.next = Duration::ZERO;
    }

    /// The next pause is that long at least.
    pub(super) fn at_least(&mut self, pause: Duration) {
        self.next = self.next.max(pause);
    }

    /// The pause before the next try.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next.min(MAX.max(FIRST));
        self.next = (pause * 2).clamp(FIRST, MAX);
        pause.mul_f64(jitter())
    }
}

/// Between 0.75 and 1.
fn jitter() -> f64 {
    let random = getrandom::u32().unwrap_or(0);
    1.0 - f64::from(random) / f64::from(u32::MAX) / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_second_and_starts_over() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.next(), Duration::ZERO);
        let pauses: Vec<Duration> = (0..6).map(|_| backoff.next()).collect();
        for (pause, most) in pauses.iter().zip([50, 100, 200, 400, 800, 1000]) {
            let most = Duration::from_millis(most);
            assert!(*pause <= most && *pause >= most.mul_f64(0.75), "{pauses:?}");
        }
        backoff.reset();
        assert_eq!(backoff.next(), Duration::ZERO);
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept_and_grows() {
        let mut backoff = Backoff::new();
        backoff.at_least(Duration::from_millis(300));
        let pause = backoff.next();
        assert!(pause >= Duration::from_millis(225) && pause <= Duration::from_millis(300), "{pause:?}");
        assert!(backoff.next() > Duration::from_millis(400));
    }
}
