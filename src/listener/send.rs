//! How content goes from a file to a socket: by reference to the pages it lies in, which nobody copies.

use std::{
    io,
    os::fd::BorrowedFd,
    task::{Context, Poll, ready},
};

use tokio::{io::Interest, net::TcpStream};

/// Bytes of a file that one call may send: as much as a socket usually takes, and not so much that others wait.
const AT_ONCE: u64 = 4 << 20;

/// Sends a head that a file follows at once, for both to share the first packet.
pub(super) fn poll_head(stream: &TcpStream, cx: &mut Context<'_>, head: &[u8]) -> Poll<io::Result<usize>> {
    poll_until_taken(stream, cx, || system::send_more(stream, head))
}

/// Sends of `length` bytes of `file` from `offset` on as many as the socket takes.
pub(super) fn poll_file(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    length: u64,
) -> Poll<io::Result<usize>> {
    let length = usize::try_from(length.min(AT_ONCE)).expect("a few MiB");
    poll_until_taken(stream, cx, || system::send_file(stream, file, offset, length))
}

fn poll_until_taken(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    mut send: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_io(Interest::WRITABLE, &mut send) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            done => return Poll::Ready(done),
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::{
        io,
        os::fd::{AsFd, BorrowedFd},
    };

    use rustix::net::SendFlags;

    pub(super) fn send_more(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(socket, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?)
    }

    pub(super) fn send_file(
        socket: impl AsFd,
        file: BorrowedFd<'_>,
        mut offset: u64,
        length: usize,
    ) -> io::Result<usize> {
        Ok(rustix::fs::sendfile(socket, file, Some(&mut offset), length)?)
    }
}

/// Elsewhere nothing lies in a file.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::{
        io,
        os::fd::{AsFd, BorrowedFd},
    };

    pub(super) fn send_more(_: impl AsFd, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn send_file(_: impl AsFd, _: BorrowedFd<'_>, _: u64, _: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
