//! Writes access lines without making requests wait.
//!
//! A request formats its line into a buffer of its thread and copies it to a bounded queue; a thread of its own
//! writes the queue out in batches. When the queue is full lines are dropped and counted: a slow disk or pipe costs
//! lines, never time. Whatever is queued when the last handle goes is written before it is gone.

use std::{
    cell::RefCell,
    fmt,
    io::{self, Write},
    mem,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;

pub use super::line::Line;
use super::{Registry, config::Format};

/// How long the writer gathers lines before it writes them.
const GATHER: Duration = Duration::from_millis(10);
/// What a line may take of the queue on average; longer ones make it full earlier.
const LINE_BYTES: usize = 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The access log; cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLog {
    handle: Arc<Handle>,
}

impl AccessLog {
    /// One that writes to `writer`, with room for `queue_max` lines that wait.
    pub fn new(format: Format, queue_max: usize, writer: Box<dyn Write + Send>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            format,
            lines_max: queue_max,
            bytes_max: queue_max.saturating_mul(LINE_BYTES),
            queue: Mutex::new(Queue::default()),
            filled: Condvar::new(),
            hurry: Condvar::new(),
            written: Condvar::new(),
            dropped: Counter::default(),
            failed: Counter::default(),
        });
        let writing = Arc::clone(&shared);
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || writing.run(writer))?;
        Ok(Self { handle: Arc::new(Handle { shared, thread: Some(thread) }) })
    }

    /// Registers what the log counts.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("access_log");
        let shared = &self.handle.shared;
        registry.register("dropped", "Access lines dropped because the queue was full", shared.dropped.clone());
        registry.register("write_errors", "Batches of access lines that could not be written", shared.failed.clone());
    }

    /// Queues one line. Never waits for the writer.
    pub fn log(&self, line: Line<'_>) {
        let shared = &self.handle.shared;
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            line.format(shared.format, buffer);
            shared.push(buffer);
        });
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.handle.shared.dropped.get()
    }

    /// Waits until everything queued so far has been written. Blocks the thread.
    pub fn flush(&self) {
        self.handle.shared.flush();
    }
}

/// Ends the writer when the last [`AccessLog`] goes.
struct Handle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("format", &self.shared.format).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            // A panicking writer has nothing left to write.
            let _ = thread.join();
        }
    }
}

struct Shared {
    format: Format,
    lines_max: usize,
    bytes_max: usize,
    queue: Mutex<Queue>,
    /// There is something to write, while the writer waits for that.
    filled: Condvar,
    /// Someone waits for the writer to finish.
    hurry: Condvar,
    /// A batch was written.
    written: Condvar,
    dropped: Counter,
    failed: Counter,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    lines: usize,
    /// Whether the writer is waiting for `filled`: only then is it worth a system call to wake it.
    writer_waits: bool,
    hurried: bool,
    closed: bool,
    /// Batches taken by the writer, and written by it.
    taken: u64,
    written: u64,
}

impl Shared {
    fn push(&self, line: &[u8]) {
        let mut queue = self.queue.lock();
        if queue.lines >= self.lines_max || queue.bytes.len() + line.len() > self.bytes_max {
            drop(queue);
            self.dropped.inc();
            return;
        }
        queue.bytes.extend_from_slice(line);
        queue.lines += 1;
        if mem::take(&mut queue.writer_waits) {
            drop(queue);
            self.filled.notify_one();
        }
    }

    fn flush(&self) {
        let mut queue = self.queue.lock();
        let batch = queue.taken + u64::from(queue.lines > 0);
        queue.hurried = true;
        self.hurry.notify_one();
        while queue.written < batch {
            self.written.wait(&mut queue);
        }
    }

    fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        self.filled.notify_one();
        self.hurry.notify_one();
    }

    /// The writer's thread.
    fn run(&self, mut writer: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        while self.next(&mut batch) {
            if writer.write_all(&batch).and_then(|()| writer.flush()).is_err() {
                self.failed.inc();
            }
            batch.clear();
            self.queue.lock().written += 1;
            self.written.notify_all();
        }
    }

    /// Takes what is queued into `batch`; false when there will be nothing more.
    fn next(&self, batch: &mut Vec<u8>) -> bool {
        let mut queue = self.queue.lock();
        while queue.lines == 0 {
            if queue.closed {
                return false;
            }
            queue.writer_waits = true;
            self.filled.wait(&mut queue);
        }
        queue.writer_waits = false;
        if !queue.closed && !mem::take(&mut queue.hurried) {
            self.hurry.wait_for(&mut queue, GATHER);
            queue.hurried = false;
        }
        mem::swap(&mut queue.bytes, batch);
        queue.lines = 0;
        queue.taken += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

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
        let log = AccessLog::new(Format::Json, queue_max, Box::new(writer)).expect("thread");
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
        assert_eq!(log.handle.shared.failed.get(), 2);
        assert!(written.lock().is_empty());
    }
}
