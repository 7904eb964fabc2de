//! Tells HTTP/2 with prior knowledge from HTTP/1.1 by a connection's first bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1 or 1.0, or nothing at all: hyper's answer to that is 400.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The bytes that were read for it.
#[derive(Debug, Default)]
pub(super) struct Sniffed {
    bytes: [u8; PREFACE.len()],
    replayed: usize,
    length: usize,
}

impl Sniffed {
    /// Gives the bytes out again; false once there are none left.
    pub(super) fn replay(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        if self.replayed == self.length {
            return false;
        }
        let given = buffer.remaining().min(self.length - self.replayed);
        buffer.put_slice(&self.bytes[self.replayed..self.replayed + given]);
        self.replayed += given;
        true
    }
}

/// Reads until the protocol is certain; `None` if the client closes first without a byte.
pub(super) async fn sniff(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(Protocol, Sniffed)>> {
    let mut sniffed = Sniffed::default();
    loop {
        let read = stream.read(&mut sniffed.bytes[sniffed.length..]).await?;
        sniffed.length += read;
        let bytes = &sniffed.bytes[..sniffed.length];
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes == PREFACE {
            return Ok(Some((Protocol::Http2, sniffed)));
        }
        if read == 0 || !PREFACE.starts_with(bytes) {
            return Ok(Some((Protocol::Http1, sniffed)));
        }
    }
}
