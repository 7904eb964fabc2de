//! Writes lines without making who writes them wait.
//!
//! A line is copied to a bounded queue; a thread of its own writes the queue out in batches. When the queue is full, or
//! the disk, lines are lost and counted: they cost lines, never time. Whatever is queued when the last handle goes is
//! written before it is gone.

use std::{
    fmt,
    io::{self, Write},
    mem,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;

use super::Registry;

/// How long the writer gathers lines before it writes them.
const GATHER: Duration = Duration::from_millis(10);
/// What a line may take of the queue on average; longer ones make it full earlier.
const LINE_BYTES: usize = 1024;

/// Where lines go that wait to be written; cheap to clone. What is written to it at once is taken for whole lines.
#[derive(Debug, Clone)]
pub struct Lines {
    handle: Arc<Handle>,
}

impl Lines {
    /// Writes to `writer`, with room for `queue_max` lines that wait. `name` is that of the thread.
    pub fn new(name: &str, queue_max: usize, writer: Box<dyn Write + Send>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
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
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || writing.run(writer))?;
        Ok(Self { handle: Arc::new(Handle { shared, thread: Some(thread) }) })
    }

    /// Registers what is counted of lines, as `prefix`.
    pub fn register(&self, prefix: &'static str, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix(prefix);
        let shared = &self.handle.shared;
        let dropped = "Lines lost: the queue was full, or they could not be written";
        registry.register("dropped", dropped, shared.dropped.clone());
        registry.register("write_errors", "Batches of lines that could not be written", shared.failed.clone());
    }

    /// Queues one line, line feed included. Never waits for the writer.
    pub fn push(&self, line: &[u8]) {
        self.handle.shared.push(line);
    }

    /// Lines lost so far.
    pub fn dropped(&self) -> u64 {
        self.handle.shared.dropped.get()
    }

    /// Waits until everything queued so far has been written. Blocks the thread.
    pub fn flush(&self) {
        self.handle.shared.flush();
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends the writer when the last [`Lines`] go.
struct Handle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
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
        while let Some(lines) = self.next(&mut batch) {
            if writer.write_all(&batch).and_then(|()| writer.flush()).is_err() {
                self.failed.inc();
                self.dropped.inc_by(lines as u64);
            }
            batch.clear();
            self.queue.lock().written += 1;
            self.written.notify_all();
        }
    }

    /// Takes what is queued into `batch`, and says how many lines that are; `None` when there will be nothing more.
    fn next(&self, batch: &mut Vec<u8>) -> Option<usize> {
        let mut queue = self.queue.lock();
        while queue.lines == 0 {
            if queue.closed {
                return None;
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
        queue.taken += 1;
        Some(mem::take(&mut queue.lines))
    }
}
