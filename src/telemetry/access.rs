//! The access log: a line for each request at its end, or for a share of those that were answered from the cache.

use std::cell::{Cell, RefCell};

pub use super::line::Line;
use super::{config::Format, lines::Lines};

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Hits this thread has seen: what the choice of those that are written goes by.
    static HITS: Cell<u64> = const { Cell::new(0) };
}

/// The access log; cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLog {
    format: Format,
    /// Hits of which fewer than this in 2^32 are written.
    share: u64,
    lines: Lines,
}

impl AccessLog {
    /// One that writes to `lines`, and of hits only the share `sample` (0.0 to 1.0).
    pub fn new(format: Format, sample: f64, lines: Lines) -> Self {
        // A share of 1 is all, whatever floating point makes of it.
        Self { format, share: (sample * f64::from(u32::MAX)).ceil() as u64 + 1, lines }
    }

    /// Whether this hit is one of the share that is written.
    pub fn takes_hit(&self) -> bool {
        if self.share > u64::from(u32::MAX) {
            return true;
        }
        let count = HITS.get().wrapping_add(1);
        HITS.set(count);
        // Mixed, so that what comes in a rhythm is not hidden by another one.
        (mixed(count) >> 32) + 1 < self.share
    }

    /// Queues one line. Never waits for the writer.
    pub fn log(&self, line: Line<'_>) {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            line.format(self.format, buffer);
            self.lines.push(buffer);
        });
    }

    /// Lines lost so far.
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }

    /// Waits until everything queued so far has been written. Blocks the thread.
    pub fn flush(&self) {
        self.lines.flush();
    }
}

/// Spreads the bits of a count over all of a number (the end of `SplitMix64`).
fn mixed(count: u64) -> u64 {
    let count = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let count = (count ^ (count >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let count = (count ^ (count >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    count ^ (count >> 31)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, mpsc},
    };

    use parking_lot::Mutex;

    use super::{super::line::tests::line, *};

    /// Hands on what is written, and waits for leave before each write.
    struct Slow {
        leave: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.leave.recv().map_err(io::Error::other)?;
            self.written.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow(queue_max: usize) -> (AccessLog, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (sender, leave) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Slow { leave, written: Arc::clone(&written) };
        let log = AccessLog::new(Format::Json, 1.0, Lines::new("test", queue_max, Box::new(writer)).expect("thread"));
        (log, sender, written)
    }

    fn lines(written: &Mutex<Vec<u8>>) -> Vec<serde_json::Value> {
        let written = written.lock();
        let text = std::str::from_utf8(&written).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn written_in_order_and_flushed() {
        let (log, leave, written) = slow(1000);
        for status in 100..300 {
            log.log(Line { status, ..line() });
        }
        for _ in 0..200 {
            leave.send(()).expect("writer");
        }
        log.flush();
        let statuses: Vec<_> = lines(&written).iter().map(|line| line["status"].as_u64()).collect();
        assert_eq!(statuses, (100..300).map(Some).collect::<Vec<_>>());
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (log, leave, written) = slow(10);
        for _ in 0..1000 {
            log.log(line());
        }
        let dropped = log.dropped();
        // One batch may have been taken by the writer, another fills the queue.
        assert!((980..=990).contains(&dropped), "{dropped}");
        for _ in 0..3 {
            leave.send(()).expect("writer");
        }
        log.flush();
        assert_eq!(lines(&written).len() as u64, 1000 - dropped);
    }

    #[test]
    fn the_last_handle_writes_what_is_left() {
        let (log, leave, written) = slow(10);
        for _ in 0..3 {
            leave.send(()).expect("writer");
        }
        log.clone().log(line());
        log.log(line());
        drop(log);
        assert_eq!(lines(&written).len(), 2);
    }

    #[test]
    fn a_broken_writer_stops_nothing() {
        let (log, leave, written) = slow(10);
        drop(leave);
        log.log(line());
        log.flush();
        log.log(line());
        log.flush();
        assert_eq!(log.dropped(), 2, "and what is lost is counted");
        assert!(written.lock().is_empty());
    }

    #[test]
    fn a_share_of_hits() {
        let taken = |sample: f64| {
            let lines = Lines::new("test", 1, Box::new(io::sink())).expect("thread");
            let log = AccessLog::new(Format::Json, sample, lines);
            (0..10_000).filter(|_| log.takes_hit()).count()
        };
        assert_eq!((taken(0.0), taken(1.0)), (0, 10_000));
        let tenth = taken(0.1);
        assert!((900..1100).contains(&tenth), "{tenth}");
    }
}
