//! The generic cell rate algorithm (ITU-T I.371): a rate and a burst, in one number.
//!
//! That number is the *theoretical arrival time*: when whatever was taken has been made up for. A request moves it on
//! by one interval, and is refused where that would lead further than a burst beyond now. So nothing has to be counted
//! up, no window begins or ends, and who has taken nothing for long has a time in the past, which is as good as none.
//!
//! In any stretch of time `t`, no more is admitted than the burst and what the rate gives in `t`. Times are nanoseconds
//! since some start, and are arguments: a clock that goes back makes nobody wait longer than [`Rate::ceiling`].

use std::time::Duration;

/// When all that was taken is made up for; nanoseconds. Zero is that of nobody.
pub type Arrival = u64;

/// So many in so long, and how many of them may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Nanoseconds in which one is made up for.
    interval: u64,
    burst: u64,
}

impl Rate {
    /// `count` in `period`, of which `burst` may come at once. The interval is rounded up: a rate is never exceeded.
    pub const fn new(count: u64, period: Duration, burst: u64) -> Self {
        let period = period.as_nanos();
        let period = if period > u64::MAX as u128 { u64::MAX } else { period as u64 };
        let interval = period.div_ceil(if count == 0 { 1 } else { count });
        Self { interval: if interval == 0 { 1 } else { interval }, burst: if burst == 0 { 1 } else { burst } }
    }

    /// Nanoseconds in which one is made up for.
    pub const fn interval(&self) -> u64 {
        self.interval
    }

    /// How many may come at once.
    pub const fn burst(&self) -> u64 {
        self.burst
    }

    /// Nanoseconds in which a whole burst is made up for.
    pub const fn window(&self) -> u64 {
        self.interval.saturating_mul(self.burst)
    }

    /// How far from now an arrival time may be, in nanoseconds: the window, and as much again for debts.
    pub const fn ceiling(&self) -> u64 {
        self.window().saturating_mul(2)
    }

    /// Takes `cost`.
    ///
    /// # Errors
    /// Nanoseconds after which it would be admitted, if nobody takes anything until then; [`u64::MAX`] for more than a
    /// burst, which never is.
    pub fn take(&self, arrival: Arrival, now: u64, cost: u64) -> Result<Arrival, u64> {
        let next = self.settled(arrival, now).saturating_add(self.interval.saturating_mul(cost));
        match (next - now).checked_sub(self.window()) {
            None | Some(0) => Ok(next),
            Some(_) if cost > self.burst => Err(u64::MAX),
            Some(wait) => Err(wait),
        }
    }

    /// Takes `cost` whatever there is: what was spent before anybody could know how much it would be. Who is in debt
    /// waits until it is made up for; a debt beyond a burst is forgiven.
    pub fn charge(&self, arrival: Arrival, now: u64, cost: u64) -> Arrival {
        let next = self.settled(arrival, now).saturating_add(self.interval.saturating_mul(cost));
        next.min(now.saturating_add(self.ceiling()))
    }

    /// Gives `cost` back.
    pub fn give_back(&self, arrival: Arrival, cost: u64) -> Arrival {
        arrival.saturating_sub(self.interval.saturating_mul(cost))
    }

    /// How many would be admitted now.
    pub fn left(&self, arrival: Arrival, now: u64) -> u64 {
        self.window().saturating_sub(self.settled(arrival, now) - now) / self.interval
    }

    /// Not before now, nor further from it than it can have come.
    fn settled(&self, arrival: Arrival, now: u64) -> Arrival {
        arrival.clamp(now, now.saturating_add(self.ceiling()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn per_second(count: u64, burst: u64) -> Rate {
        Rate::new(count, Duration::from_secs(1), burst)
    }

    #[test]
    fn a_burst_and_then_one_for_each_interval() {
        let rate = per_second(10, 3);
        let mut arrival = 0;
        for left in [2, 1, 0] {
            arrival = rate.take(arrival, SECOND, 1).expect("within the burst");
            assert_eq!(rate.left(arrival, SECOND), left);
        }
        assert_eq!(rate.take(arrival, SECOND, 1), Err(SECOND / 10));
        assert_eq!(rate.take(arrival, SECOND + 1, 1), Err(SECOND / 10 - 1));
        let later = SECOND + SECOND / 10;
        assert_eq!(rate.left(arrival, later), 1);
        let arrival = rate.take(arrival, later, 1).expect("made up for");
        assert_eq!(rate.left(arrival, later + SECOND), 3);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let rate = per_second(1, 1);
        let arrival = rate.take(0, SECOND, 1).expect("the first");
        assert!(rate.take(arrival, SECOND, 1).is_err());
        assert!(rate.take(rate.give_back(arrival, 1), SECOND, 1).is_ok());
    }

    #[test]
    fn a_debt_is_waited_for_and_has_an_end() {
        let rate = per_second(10, 10);
        let arrival = rate.charge(0, SECOND, 15);
        assert_eq!(rate.take(arrival, SECOND, 1), Err(6 * SECOND / 10));
        assert_eq!(rate.left(arrival, SECOND), 0);
        let arrival = rate.charge(arrival, SECOND, u64::MAX);
        assert_eq!(arrival, SECOND + 2 * SECOND);
    }

    #[test]
    fn more_than_a_burst_is_never_admitted() {
        assert_eq!(per_second(10, 3).take(0, SECOND, 4), Err(u64::MAX));
    }

    #[test]
    fn rates_are_rounded_down() {
        let rate = Rate::new(7, Duration::from_secs(60), 7);
        assert!(rate.interval() * 7 >= 60 * SECOND && rate.interval() * 7 < 60 * SECOND + 7);
        assert_eq!(Rate::new(0, Duration::ZERO, 0), Rate::new(1, Duration::from_nanos(1), 1));
    }

    proptest! {
        /// In any stretch of time no more is admitted than a burst and what the rate gives in it.
        #[test]
        fn prop_never_more_than_burst_and_rate(
            count in 1_u64..200, burst in 1_u64..50,
            steps in proptest::collection::vec((0_u64..SECOND / 10, 1_u64..4), 1..300),
        ) {
            let rate = per_second(count, burst);
            let (mut arrival, mut now) = (0, SECOND);
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (pause, cost) in steps {
                now += pause;
                if let Ok(next) = rate.take(arrival, now, cost) {
                    arrival = next;
                    admitted.push((now, cost));
                }
            }
            for (from, &(begin, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for &(end, cost) in &admitted[from..] {
                    sum += cost;
                    prop_assert!(sum <= burst + (end - begin) / rate.interval(), "{sum} in {}", end - begin);
                }
            }
        }

        /// Who waits as long as he is told is admitted, and not a nanosecond before.
        #[test]
        fn prop_the_wait_is_exact(count in 1_u64..200, burst in 1_u64..50, taken in 0_u64..100, cost in 1_u64..50) {
            let rate = per_second(count, burst);
            let arrival = rate.charge(0, SECOND, taken);
            prop_assume!(cost <= burst);
            if let Err(wait) = rate.take(arrival, SECOND, cost) {
                prop_assert!(rate.take(arrival, SECOND + wait, cost).is_ok());
                prop_assert!(rate.take(arrival, SECOND + wait - 1, cost).is_err());
                prop_assert!(rate.left(arrival, SECOND) < cost);
            } else {
                prop_assert!(rate.left(arrival, SECOND) >= cost);
            }
        }

        /// Whatever the numbers are, and also where the clock goes back: no overflow, and nobody waits for ever.
        #[test]
        fn prop_any_numbers(
            count: u64, period: u64, burst: u64, arrival: u64, now in 0..u64::MAX / 2, back: u64, cost: u64,
        ) {
            let rate = Rate::new(count, Duration::from_nanos(period), burst);
            let next = rate.charge(arrival, now, cost);
            prop_assert!(next >= now);
            let earlier = now.saturating_sub(back);
            match rate.take(next, earlier, 1) {
                Ok(after) => prop_assert!(after >= earlier),
                Err(wait) => prop_assert!(wait <= rate.ceiling().saturating_add(rate.interval())),
            }
            prop_assert!(rate.left(next, now) <= rate.burst());
            prop_assert!(rate.give_back(next, cost) <= next);
        }

        /// Time helps: what is admitted now is admitted later, and no less is left.
        #[test]
        fn prop_monotone(count in 1_u64..1000, burst in 1_u64..1000, arrival in 0..10 * SECOND, now in 0..10 * SECOND,
            later in 0..10 * SECOND) {
            let rate = per_second(count, burst);
            prop_assert!(rate.left(arrival, now + later) >= rate.left(arrival, now));
            prop_assert!(rate.take(arrival, now, 1).is_err() || rate.take(arrival, now + later, 1).is_ok());
        }
    }
}
