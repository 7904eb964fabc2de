//! What limits on tokens are told of a call: what its answer says that it took, or else an estimate. No account of money
//! has to do with estimates.

use crate::{
    cache::Charge,
    llm::answer::{Seen, Unfit, Usage},
};

/// A token of text has about as many bytes.
const TOKEN_BYTES: u64 = 4;

/// Who is charged for a call.
#[derive(Clone)]
pub(in crate::cache) struct Due {
    charge: Charge,
    /// Length of the question in bytes.
    asked: u64,
}

/// How much of an answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) enum Length {
    /// Of one that is no stream.
    Bytes(u64),
    /// Of a stream: most of its bytes are frames of JSON around about one token each.
    Events(u64),
}

impl Due {
    pub(super) fn new(charge: Charge, asked: u64) -> Self {
        Self { charge, asked }
    }

    /// Charges for an answer that has ended.
    pub(super) fn ended(&self, seen: &Seen, length: Length) {
        let told = seen.usage.input.saturating_add(seen.usage.output);
        if told > 0 {
            (self.charge)(told);
        } else if seen.fit != Err(Unfit::Error) {
            // Providers take nothing for a call that failed.
            (self.charge)(tokens(self.asked).saturating_add(length.tokens()));
        }
    }

    /// Charges for an answer of which no more will come: what it told so far is not all.
    pub(super) fn cut_off(&self, usage: &Usage, length: Length) {
        let input = if usage.input > 0 { usage.input } else { tokens(self.asked) };
        (self.charge)(input.saturating_add(usage.output.max(length.tokens())));
    }
}

impl Length {
    fn tokens(self) -> u64 {
        match self {
            Self::Bytes(bytes) => tokens(bytes),
            Self::Events(events) => events,
        }
    }
}

fn tokens(bytes: u64) -> u64 {
    bytes.div_ceil(TOKEN_BYTES)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    };

    use super::*;

    /// What is charged for a question of forty bytes.
    fn charged(what: impl FnOnce(&Due)) -> u64 {
        let sum = Arc::new(AtomicU64::new(0));
        let charge: Charge = {
            let sum = Arc::clone(&sum);
            Arc::new(move |tokens| {
                sum.fetch_add(tokens, Relaxed);
            })
        };
        what(&Due::new(charge, 40));
        sum.load(Relaxed)
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input, cached: 0, output }
    }

    #[test]
    fn what_is_told_counts_and_else_an_estimate() {
        let ended = |usage: Usage, fit, length| {
            charged(|due| due.ended(&Seen { usage, model: None, fit, stream: false }, length))
        };
        assert_eq!(ended(usage(7, 0), Ok(()), Length::Bytes(4000)), 7, "of embeddings, the question");
        assert_eq!(ended(usage(0, 0), Ok(()), Length::Bytes(41)), 21);
        assert_eq!(ended(usage(0, 0), Err(Unfit::Unreadable), Length::Events(5)), 15);
        assert_eq!(ended(usage(0, 0), Err(Unfit::Error), Length::Events(5)), 0);
    }

    #[test]
    fn what_broke_off_told_a_part_at_most() {
        let cut_off = |input, output| charged(|due| due.cut_off(&usage(input, output), Length::Events(5)));
        assert_eq!([cut_off(0, 0), cut_off(30, 1), cut_off(30, 9)], [15, 35, 39]);
    }
}
