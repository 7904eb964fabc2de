//! How often a stored answer was not what the provider said: the latest comparisons, and when they are too bad.

use std::collections::VecDeque;

/// The latest comparisons.
#[derive(Debug)]
pub(super) struct Verdicts {
    /// Whether each differed.
    latest: VecDeque<bool>,
    samples: usize,
    /// Of `samples`, how many may differ.
    tolerated: usize,
}

impl Verdicts {
    pub(super) fn new(samples: usize, error_rate_max: f64) -> Self {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of thousands"
        )]
        let tolerated = (samples as f64 * error_rate_max).floor() as usize;
        Self { latest: VecDeque::new(), samples, tolerated }
    }

    /// Takes one more; whether they are too bad now. That is known before there are as many as count: once too many of
    /// them differ, no further ones can mend it.
    pub(super) fn note(&mut self, differs: bool) -> bool {
        if self.latest.len() >= self.samples {
            self.latest.pop_front();
        }
        self.latest.push_back(differs);
        self.latest.iter().filter(|differs| **differs).count() > self.tolerated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_within_the_latest() {
        let mut verdicts = Verdicts::new(10, 0.2);
        let mut note = |differs: &[bool]| differs.iter().map(|differs| verdicts.note(*differs)).collect::<Vec<_>>();
        assert_eq!(note(&[true, true, false]), [false; 3], "two of ten");
        assert_eq!(note(&[false; 8]), [false; 8], "the first are forgotten");
        assert_eq!(note(&[true, true, true]), [false, false, true]);
        assert!(Verdicts::new(50, 0.0).note(true), "none at all");
    }
}
