//! The socket as hyper sees it, and what hyper cannot do: interim responses, write stalls noticed, a close that lets
//! the client read the last response.
//!
//! On the way of an ordinary request this costs a few loads and, while the head is read, one look at its lines.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    head::HeadWatch,
    link::{Link, Phase},
    metrics::OpenGuard,
    sniff::Sniffed,
};

/// Bytes of a refused request body that are read and thrown away before the socket is closed regardless.
const LINGER_BYTES_MAX: usize = 16 << 20;

/// One client's socket.
#[derive(Debug)]
pub(super) struct Io {
    stream: TcpStream,
    link: Arc<Link>,
    /// What was read to tell the protocol, to be read again.
    sniffed: Sniffed,
    watch: HeadWatch,
    /// Interim responses on their way; what is left goes before any other byte.
    interim: Vec<u8>,
    interim_written: usize,
    /// The request for which it is certain that no byte of an earlier response waits in hyper's buffer.
    clean_for: u64,
    blocked: bool,
    shut: bool,
    discarded: usize,
    _open: OpenGuard,
}

impl Io {
    pub(super) fn new(stream: TcpStream, sniffed: Sniffed, link: Arc<Link>, open: OpenGuard) -> Self {
        let watch = HeadWatch::new(!link.multiplexed());
        Self {
            stream,
            link,
            sniffed,
            watch,
            interim: Vec::new(),
            interim_written: 0,
            clean_for: 0,
            blocked: false,
            shut: false,
            discarded: 0,
            _open: open,
        }
    }

    /// Bytes of a request were read.
    fn note_read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.link.multiplexed() {
            return;
        }
        match self.link.phase() {
            Phase::Idle if !self.link.body_open() => self.link.enter(Phase::Head),
            Phase::Gone => self.watch.stop(),
            _ => {}
        }
        self.watch.read(&self.link, bytes);
    }

    fn note_write(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending if !self.blocked => {
                self.blocked = true;
                self.link.block();
            }
            Poll::Ready(_) if self.blocked => {
                self.blocked = false;
                self.link.unblock();
            }
            _ => {}
        }
    }

    /// Writes what interim responses there are, if they may go now.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            let request = self.link.request();
            if !self.link.has_offered() || self.clean_for != request {
                return Poll::Ready(Ok(()));
            }
            self.link.take_offered(request, &mut self.interim);
        }
        while self.interim_written < self.interim.len() {
            let rest = &self.interim[self.interim_written..];
            let written = Pin::new(&mut self.stream).poll_write(cx, rest);
            self.note_write(&written);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.interim_written += written,
            }
        }
        self.interim.clear();
        self.interim_written = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads until the client closes. Closing with unread bytes in the socket would send a reset, and a reset can
    /// overtake the response the client should still read.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 4096];
        while self.discarded < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.discarded += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if !this.sniffed.replay(buffer) {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        }
        this.note_read(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.clean_for = 0;
        self.note_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.clean_for = 0;
        self.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when all it had has been written, and at least once each time its connection is polled. While
    /// the handler runs that is the moment for interim responses; after the response it is the response's end.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let phase = self.link.phase();
        if phase == Phase::Handling && !self.link.multiplexed() {
            self.clean_for = self.link.request();
            self.link.register(cx.waker());
        }
        ready!(self.poll_interim(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if phase == Phase::Finished {
            self.link.enter(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
            if self.link.phase() == Phase::Gone || self.link.multiplexed() || !self.link.unread() {
                return Poll::Ready(Ok(()));
            }
            self.link.enter(Phase::Lingering);
        }
        match self.link.phase() {
            Phase::Lingering => self.poll_discard(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if self.link.reset_demanded() {
            // Without it the close is merely less abrupt.
            let _ = self.stream.set_zero_linger();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::SocketAddr};

    use tokio::{io::AsyncReadExt, net::TcpListener, sync::Semaphore};

    use super::{super::metrics::Metrics, *};
    use crate::telemetry::Registry;

    async fn io(link: &Arc<Link>) -> (Io, TcpStream) {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("listening");
        let (server, _) = listener.accept().await.expect("connected");
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("open");
        let open = OpenGuard::new(&Metrics::register(&mut Registry::default()), place);
        (Io::new(server, Sniffed::default(), Arc::clone(link), open), client)
    }

    async fn write(io: &mut Io, bytes: &[u8]) {
        let written = poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, bytes)).await;
        assert_eq!(written.expect("written"), bytes.len());
    }

    async fn flush(io: &mut Io) {
        poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx)).await.expect("flushed");
    }

    /// hyper may still have all of a response in its buffer when it gives out the next request.
    #[tokio::test]
    async fn hints_wait_for_the_response_before_them() {
        let link = Arc::new(Link::new(false));
        let (mut io, mut client) = io(&link).await;
        link.begin(true, Some(0));
        flush(&mut io).await;
        link.respond();
        link.finish(false);
        link.begin(true, Some(0));
        link.offer(2, |out| out.extend_from_slice(b"[hint 2]"));
        write(&mut io, b"[response 1]").await;
        flush(&mut io).await;
        link.respond();
        write(&mut io, b"[response 2]").await;
        drop(io);
        let mut got = String::new();
        client.read_to_string(&mut got).await.expect("read");
        assert_eq!(got, "[response 1][hint 2][response 2]");
    }

    /// The handler may offer a hint and answer before hyper comes to write.
    #[tokio::test]
    async fn hints_go_before_their_own_response() {
        let link = Arc::new(Link::new(false));
        let (mut io, mut client) = io(&link).await;
        link.begin(true, Some(0));
        flush(&mut io).await;
        link.offer(1, |out| out.extend_from_slice(b"[hint 1]"));
        link.respond();
        write(&mut io, b"[response 1").await;
        link.offer(1, |out| out.extend_from_slice(b"[late]"));
        flush(&mut io).await;
        write(&mut io, b"]").await;
        drop(io);
        let mut got = String::new();
        client.read_to_string(&mut got).await.expect("read");
        assert_eq!(got, "[hint 1][response 1]");
    }
}
