//! What a connection's bytes go through: a socket, or TLS over it or in a tunnel.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A stream that HTTP is served on.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether what it has accepted may stay with it until it is flushed.
    const WRITES_BEHIND: bool;

    /// Has it end, when it is dropped in a moment, so that nobody takes that for the end of a response, and nothing of
    /// what was written stays in the kernel.
    fn break_off(&self);

    /// A number that changes while the client takes what was accepted; of no interest where nothing is written behind.
    fn taken(&self) -> u64 {
        0
    }
}

impl Transport for TcpStream {
    const WRITES_BEHIND: bool = false;

    fn break_off(&self) {
        // Without it the close is merely less abrupt.
        let _ = self.set_zero_linger();
    }
}
