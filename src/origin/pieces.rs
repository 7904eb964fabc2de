//! How much of a body is read at once.
//!
//! A body comes in pieces, and each is in memory until its reader has done with it: until it is in the client's socket, or
//! in the cache. Large pieces are cheap: a byte takes half the time it takes in pieces of 16 KiB. But a client that reads
//! slowly keeps a piece for as long as it likes, and there may be thousands of them. So the more readers have a piece and
//! have not come back for more, the smaller the pieces of all.

use prometheus_client::metrics::gauge::Gauge;

/// What is read at once where readers keep up.
pub(super) const PIECE_MAX: usize = 64 * 1024;
/// What is read at once where many do not.
const PIECE_MIN: usize = 16 * 1024;
/// What the pieces that wait for their readers take together before new ones become smaller. Beyond it each is a share of
/// this, and in the end [`PIECE_MIN`].
const WAITING_BYTES: usize = 4 << 20;

/// Counts the bodies whose readers have a piece and have not come back for more. Copies are of the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Gauge);

/// A piece that a reader has; dropped when it comes back for more, or has gone.
#[derive(Debug)]
pub(super) struct Handed(Gauge);

impl Unread {
    /// The same count, as a metric.
    pub(super) fn gauge(&self) -> Gauge {
        self.0.clone()
    }

    /// A reader got a piece, and more is to come.
    pub(super) fn hand(&self) -> Handed {
        self.0.inc();
        Handed(self.0.clone())
    }

    /// Most bytes to be read at once now.
    pub(super) fn piece_max(&self) -> usize {
        let waiting = usize::try_from(self.0.get()).unwrap_or(0).max(1);
        (WAITING_BYTES / waiting).clamp(PIECE_MIN, PIECE_MAX)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_wait_the_smaller_the_pieces() {
        let unread = Unread::default();
        let size_with = |waiting| {
            let handed: Vec<Handed> = (0..waiting).map(|_| unread.hand()).collect();
            let size = unread.piece_max();
            drop(handed);
            size >> 10
        };
        let sizes = [0, 1, 64, 128, 256, 10_000].map(size_with);
        assert_eq!(sizes, [64, 64, 64, 32, 16, 16]);
        assert_eq!(unread.gauge().get(), 0, "who has gone does not count");
    }
}
