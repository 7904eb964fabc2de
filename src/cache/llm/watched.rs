//! An answer that is not stored: what it cost is counted when it has passed.

use bytes::BytesMut;
use http::{HeaderMap, header};

use super::{
    accounts::Bill,
    due::{Due, Length},
    overheard::{Listener, Overheard},
};
use crate::{cache::call::Answer, llm::answer::Watcher};

/// Largest answer that is looked into for what it cost.
const LOOKED_INTO_MAX: usize = 4 << 20;

/// Who is told what an answer cost.
pub(super) enum Payer {
    /// Accounts, and limits.
    Bill(Bill),
    /// Limits alone: what was asked is not known.
    Due(Due),
}

struct Watched {
    watcher: Watcher,
    payer: Payer,
    /// What has come of an answer that is no stream, as long as it is looked into.
    whole: BytesMut,
    bytes: usize,
}

/// The same answer, watched.
pub(super) fn watched(mut answer: Answer, watcher: Watcher, payer: Payer) -> Answer {
    if answer.response.status().is_success() {
        let listener = Watched { watcher, payer, whole: BytesMut::new(), bytes: 0 };
        answer.response = answer.response.map(|body| Overheard::body(body, listener));
    }
    answer
}

/// Whether an answer with such fields comes as server-sent events that can be read.
pub(super) fn streams(fields: &HeaderMap) -> bool {
    let content_type = fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    content_type.starts_with("text/event-stream") && !fields.contains_key(header::CONTENT_ENCODING)
}

impl Watched {
    fn length(&self) -> Length {
        if self.watcher.is_stream() { Length::Events(self.watcher.events()) } else { Length::Bytes(self.bytes as u64) }
    }

    fn cut_off(self) {
        let length = self.length();
        let seen = self.watcher.end(None);
        match &self.payer {
            // The stream itself says whether that was all.
            Payer::Bill(bill) if seen.fit.is_ok() => bill.billed(&seen, length),
            Payer::Bill(bill) => bill.cut_off(&seen.usage, length),
            Payer::Due(due) if seen.fit.is_ok() => due.ended(&seen, length),
            Payer::Due(due) => due.cut_off(&seen.usage, length),
        }
    }
}

impl Listener for Watched {
    fn note(&mut self, data: &[u8]) -> bool {
        self.bytes = self.bytes.saturating_add(data.len());
        if self.watcher.is_stream() {
            self.watcher.piece(data);
        } else if self.bytes <= LOOKED_INTO_MAX {
            self.whole.extend_from_slice(data);
        } else {
            self.whole = BytesMut::new();
        }
        true
    }

    fn end(self: Box<Self>) {
        let length = self.length();
        let is_seen = self.watcher.is_stream() || self.bytes <= LOOKED_INTO_MAX;
        let seen = self.watcher.end(Some(&self.whole));
        match &self.payer {
            Payer::Bill(bill) if is_seen => bill.billed(&seen, length),
            Payer::Bill(bill) => bill.charged(&seen, length),
            Payer::Due(due) => due.ended(&seen, length),
        }
    }

    fn left(self: Box<Self>) {
        self.cut_off();
    }

    fn broken(self: Box<Self>) {
        self.cut_off();
    }
}
