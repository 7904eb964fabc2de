//! The threads that serve clients: a runtime each, one socket for all of them.
//!
//! A connection stays on the thread that accepted it, and so do its requests, its fills and, where there is a choice, the
//! connections to origins they use: a miss wakes no other thread. Against one runtime with many threads that spares a
//! sixth of a miss and a tenth of a hit (docs/ARCHITECTURE.md, "Choices"). Which thread accepts is left to who is free:
//! sockets of their own (`SO_REUSEPORT`) would give a busy thread as many clients as an idle one, and let two gateways
//! share a port by mistake.

use std::{io, net::TcpListener as Socket, sync::Arc, thread};

use tokio::{net::TcpListener, runtime::Builder};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::handler::ProxyHandler;
use crate::listener::Server;

/// Threads that each may wait for the disk (spilled bodies), per worker.
const BLOCKING_MAX: usize = 64;

/// Running workers.
pub(super) struct Workers {
    threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads (0: one a core) that serve `listener` until `stop`.
    ///
    /// # Errors
    /// Where a thread or its runtime cannot be had. Those that have started stop.
    pub(super) fn start(
        count: usize,
        listener: TcpListener,
        server: &Arc<Server>,
        handler: &ProxyHandler,
        stop: &CancellationToken,
    ) -> io::Result<Self> {
        let count = if count == 0 { thread::available_parallelism().map_or(1, usize::from) } else { count };
        let socket = listener.into_std()?;
        // Who has finished waits for the others: one of their clients may follow a fill that runs here.
        let serving = TaskTracker::new();
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let started = socket.try_clone().and_then(|socket| {
                let worker = Worker {
                    socket,
                    server: Arc::clone(server),
                    handler: handler.clone(),
                    stop: stop.clone(),
                    place: serving.token(),
                };
                worker.start(number)
            });
            match started {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    stop.cancel();
                    serving.close();
                    return Err(error);
                }
            }
        }
        serving.close();
        Ok(Self { threads })
    }

    /// Waits until all have ended.
    pub(super) async fn ended(self) {
        let joined = tokio::task::spawn_blocking(|| {
            for thread in self.threads {
                // One that panicked has ended as well.
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }
}

struct Worker {
    socket: Socket,
    server: Arc<Server>,
    handler: ProxyHandler,
    stop: CancellationToken,
    /// Given back when it serves no more, however that comes about.
    place: TaskTrackerToken,
}

impl Worker {
    fn start(self, number: usize) -> io::Result<thread::JoinHandle<()>> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_MAX).build()?;
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(self.socket) {
                    Ok(listener) => self.server.serve(listener, self.handler, self.stop).await,
                    Err(error) => tracing::error!(%error, number, "a worker cannot serve"),
                }
                let serving = self.place.task_tracker().clone();
                drop(self.place);
                serving.wait().await;
            });
            // What is left are fills that nobody waits for, and disk work that may take its time.
            runtime.shutdown_background();
        })
    }
}
