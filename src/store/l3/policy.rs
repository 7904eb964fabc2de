//! What leaves first.

use super::config::L3Policy;

/// What is known of an entry when one has to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Worth {
    /// When it was last used, in seconds.
    pub(super) used: u32,
    /// How often.
    pub(super) hits: u32,
    /// Milliseconds the origin took.
    pub(super) cost: u32,
    /// Blocks of the disk.
    pub(super) blocks: u32,
    /// Of no use from then on, in seconds.
    pub(super) keep: u32,
}

const DAY: u32 = 24 * 3600;

impl L3Policy {
    /// How much is lost with an entry: the least leaves first.
    pub(super) fn loss(self, worth: &Worth, now: u32) -> f64 {
        let Worth { used, cost, blocks, keep, .. } = *worth;
        // Of two as good as each other, the one that was not used for longer.
        let recent = f64::from(used) / f64::from(u32::MAX);
        match self {
            Self::Lru => f64::from(used),
            Self::Lfu => f64::from(lately(worth, now)) + recent,
            Self::Ttl => f64::from(keep) + recent,
            Self::Cost => {
                let hits = f64::from(lately(worth, now)) + recent;
                hits * f64::from(cost.max(1)) / f64::from(blocks.max(1))
            }
        }
    }
}

/// Hits, of which every idle day takes half: what was popular once would otherwise stay for ever.
fn lately(worth: &Worth, now: u32) -> u32 {
    let idle = now.saturating_sub(worth.used) / DAY;
    worth.hits.checked_shr(idle).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 100 * DAY;

    const PLAIN: Worth = Worth { used: NOW, hits: 10, cost: 100, blocks: 10, keep: NOW + DAY };

    fn first(policy: L3Policy, one: Worth, other: Worth) -> bool {
        policy.loss(&one, NOW) < policy.loss(&other, NOW)
    }

    #[test]
    fn who_leaves_first() {
        let table = [
            (L3Policy::Lru, Worth { used: NOW - 1, hits: 1000, ..PLAIN }),
            (L3Policy::Lfu, Worth { hits: 9, ..PLAIN }),
            (L3Policy::Lfu, Worth { used: NOW - 5, ..PLAIN }),
            (L3Policy::Lfu, Worth { used: NOW - 10 * DAY, hits: 1000, ..PLAIN }),
            (L3Policy::Ttl, Worth { keep: NOW + 5, hits: 1000, ..PLAIN }),
            (L3Policy::Cost, Worth { hits: 9, ..PLAIN }),
            (L3Policy::Cost, Worth { cost: 90, ..PLAIN }),
            (L3Policy::Cost, Worth { blocks: 11, ..PLAIN }),
            (L3Policy::Cost, Worth { hits: 0, used: NOW - 40 * DAY, ..PLAIN }),
        ];
        for (policy, leaves) in table {
            assert!(first(policy, leaves, PLAIN), "{policy:?} {leaves:?}");
        }
    }
}
