//! A connection that speaks HTTP/1 in a task of its own, which ends when the connection does or when its handle is
//! dropped: hyper's. For requests whose content is still to come, and for those that ask for another protocol.

use std::thread::{self, ThreadId};
use std::{sync::Arc, time::Duration};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::{
    error::{Error, Kind},
    io::{Ear, Io, Stream},
    request::SendBody,
    upstream::Limits,
    wire::Open,
};

/// Largest piece of a body read at once; also what a connection may buffer of a request.
const BUFFER_MAX: usize = 128 * 1024;
/// What hyper allows without asking the allocator for each response.
const HEAD_FIELDS_INLINE: usize = 100;

/// See the module.
#[derive(Debug)]
pub(super) struct Tasked {
    pub(super) sender: http1::SendRequest<SendBody>,
    pub(super) ear: Arc<Ear>,
    /// How long it may be kept unused; zero if it must not be used again.
    pub(super) keep: Duration,
    /// The thread on which it is driven: a request from there needs no other thread to wake up.
    pub(super) home: ThreadId,
    _open: Open,
}

impl Tasked {
    /// Starts HTTP/1 on `stream`.
    pub(super) async fn start(stream: Stream, limits: &Limits, open: Open) -> Result<Self, Error> {
        let (io, ear) = Io::new(stream);
        let mut builder = http1::Builder::new();
        builder.max_header_size(limits.head_bytes_max).max_buf_size(BUFFER_MAX.max(limits.head_bytes_max));
        if limits.head_fields_max != HEAD_FIELDS_INLINE {
            builder.max_headers(limits.head_fields_max);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(internal)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to an origin ended");
            }
        });
        Ok(Self { sender, ear, keep: Duration::ZERO, home: thread::current().id(), _open: open })
    }
}

fn internal(cause: hyper::Error) -> Error {
    Error::with(Kind::Internal, cause).into_unseen()
}
