//! An answer that is not stored: what it cost is counted when it has passed.

use bytes::BytesMut;

use super::{
    accounts::Bill,
    overheard::{Listener, Overheard},
};
use crate::{cache::call::Answer, llm::answer::Watcher};

/// Largest answer that is looked into for what it cost.
const LOOKED_INTO_MAX: usize = 4 << 20;

struct Watched {
    watcher: Watcher,
    bill: Bill,
    /// What has come of an answer that is no stream.
    whole: BytesMut,
}

/// The same answer, watched.
pub(super) fn watched(mut answer: Answer, watcher: Watcher, bill: Bill) -> Answer {
    if answer.response.status().is_success() {
        let listener = Watched { watcher, bill, whole: BytesMut::new() };
        answer.response = answer.response.map(|body| Overheard::body(body, listener));
    }
    answer
}

impl Listener for Watched {
    fn note(&mut self, data: &[u8]) -> bool {
        if self.watcher.is_stream() {
            self.watcher.piece(data);
            return true;
        }
        let fits = self.whole.len() + data.len() <= LOOKED_INTO_MAX;
        if fits {
            self.whole.extend_from_slice(data);
        }
        fits
    }

    fn end(self: Box<Self>) {
        let Self { watcher, bill, whole } = *self;
        bill.billed(&watcher.end(Some(&whole)));
    }
}
