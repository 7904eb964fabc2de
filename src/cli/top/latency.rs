//! Quantiles from the histograms of `/metrics`.

use std::collections::BTreeMap;

const BUCKETS: &str = "larder_request_duration_seconds_bucket{";

/// Requests that took no longer than so many nanoseconds, for each bound; of all outcomes together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Latency {
    below: BTreeMap<u64, u64>,
}

impl Latency {
    pub(super) fn of(metrics: &str) -> Self {
        let mut below = BTreeMap::new();
        for line in metrics.lines().filter_map(|line| line.strip_prefix(BUCKETS)) {
            let Some((bound, count)) = bucket(line) else { continue };
            *below.entry(bound).or_default() += count;
        }
        Self { below }
    }

    /// Milliseconds within which so many of all that came since `before` were answered; `None` where none came.
    pub(super) fn quantile(&self, before: &Self, share: f64) -> Option<f64> {
        let since =
            |(bound, count): (&u64, &u64)| (*bound, count.saturating_sub(*before.below.get(bound).unwrap_or(&0)));
        let since: Vec<(u64, u64)> = self.below.iter().map(since).collect();
        let total = since.last()?.1;
        if total == 0 {
            return None;
        }
        let wanted = share * total as f64;
        let (mut lower, mut counted) = (0, 0);
        for (bound, count) in since {
            if count as f64 >= wanted {
                // Beyond the last bound nothing is known but that.
                let upper = if bound == u64::MAX { lower } else { bound };
                let within = (wanted - counted as f64) / (count - counted).max(1) as f64;
                return Some((lower as f64 + (upper - lower) as f64 * within) / 1e6);
            }
            (lower, counted) = (bound, count);
        }
        None
    }
}

/// Bound in nanoseconds, and count.
fn bucket(line: &str) -> Option<(u64, u64)> {
    let (labels, count) = line.rsplit_once("} ")?;
    let (_, after) = labels.split_once("le=\"")?;
    let (bound, _) = after.split_once('"')?;
    let bound = match bound {
        "+Inf" => u64::MAX,
        bound => (bound.parse::<f64>().ok()? * 1e9) as u64,
    };
    Some((bound, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(counts: [u64; 3]) -> Latency {
        let line = |le: &str, count| format!("{BUCKETS}le=\"{le}\",outcome=\"hit\"}} {count}\n");
        let [one, ten, all] = counts;
        Latency::of(&(line("0.001", one) + &line("0.01", ten) + &line("+Inf", all)))
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let (before, now) = (latency([10, 10, 10]), latency([60, 109, 110]));
        assert_eq!(now.quantile(&before, 0.5), Some(1.0));
        assert!(now.quantile(&before, 0.99).is_some_and(|p99| (1.0..=10.0).contains(&p99)));
        assert_eq!(now.quantile(&before, 1.0), Some(10.0), "no more than the last bound is known");
        assert_eq!(now.quantile(&now, 0.5), None);
        assert_eq!(Latency::default().quantile(&Latency::default(), 0.5), None);
    }

    #[test]
    fn outcomes_are_added() {
        let both = format!("{BUCKETS}le=\"+Inf\",outcome=\"hit\"}} 3\n{BUCKETS}outcome=\"miss\",le=\"+Inf\"}} 4\n");
        assert_eq!(Latency::of(&both).below, BTreeMap::from([(u64::MAX, 7)]));
    }
}
