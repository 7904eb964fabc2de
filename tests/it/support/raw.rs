//! Both ends of a connection byte by byte, for what no library would send or show.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::client::TlsStream;

use super::within;

/// How the other side ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// End of stream.
    Closed,
    /// Reset.
    Reset,
}

/// One connection.
pub(crate) struct Conn {
    stream: TcpStream,
    read: Vec<u8>,
    /// Connections its server accepted before it.
    pub(crate) nth: usize,
}

impl Conn {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.expect("someone listens there");
        Self::over(stream, 0)
    }

    fn over(stream: TcpStream, nth: usize) -> Self {
        stream.set_nodelay(true).expect("a connected socket");
        Self { stream, read: Vec::new(), nth }
    }

    /// Sends `bytes`; the other side must take them.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).await.expect("the other side reads");
    }

    pub(crate) async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within("the other side to read", self.stream.write_all(bytes.as_ref())).await
    }

    /// No more will be sent.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.expect("the connection is open");
    }

    /// The next message head, blank line included.
    pub(crate) async fn head(&mut self) -> String {
        self.try_head().await.expect("the connection ended before a head was complete")
    }

    /// The next message head; `None` when the connection ends before its blank line.
    pub(crate) async fn try_head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.read.drain(..at + 4).collect();
                return Some(String::from_utf8(head).expect("a head of characters"));
            }
            if self.more().await.ok()? == 0 {
                return None;
            }
        }
    }

    /// The next `length` bytes.
    pub(crate) async fn exact(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            let read = self.more().await.expect("the connection holds");
            assert_ne!(read, 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.read));
        }
        self.read.drain(..length).collect()
    }

    /// The next message: head, and body by its Content-Length (none: empty).
    pub(crate) async fn message(&mut self) -> (String, Vec<u8>) {
        let head = self.head().await;
        let length = field(&head, "content-length").map_or(0, |value| value.parse().expect("a length"));
        (head, self.exact(length).await)
    }

    /// Everything until the other side ends the connection, and how it did.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, Ending) {
        loop {
            match self.more().await {
                Ok(0) => return (std::mem::take(&mut self.read), Ending::Closed),
                Ok(_) => {}
                Err(_) => return (std::mem::take(&mut self.read), Ending::Reset),
            }
        }
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).expect("a connected socket");
    }

    async fn more(&mut self) -> io::Result<usize> {
        within("bytes from the other side", self.stream.read_buf(&mut self.read)).await
    }
}

/// A client's connection in TLS, read as it comes.
pub(crate) struct Tls {
    stream: TlsStream<TcpStream>,
}

impl Tls {
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream }
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the other side reads");
        self.stream.flush().await.expect("the other side reads");
    }

    /// Sends a request; the head of the answer. The content, whose length that tells, is thrown away.
    pub(crate) async fn ask(&mut self, request: &str) -> String {
        self.write(request).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.exact(1).await);
        }
        let head = String::from_utf8(head).expect("a head of characters");
        if let Some(length) = field(&head, "content-length") {
            self.exact(length.parse().expect("a length")).await;
        }
        head
    }

    /// The next `length` bytes.
    pub(crate) async fn exact(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        within("bytes from the other side", self.stream.read_exact(&mut bytes)).await.expect("the connection holds");
        bytes
    }

    /// The other side ends it, without another byte.
    pub(crate) async fn ended(&mut self) {
        let end = within("the end of a connection", self.stream.read(&mut [0; 1])).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}

/// The value of the first line of that name in a message head.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// The status of a response head.
pub(crate) fn status(head: &str) -> u16 {
    let digits = head.split(' ').nth(1).unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("not a status line: {head:?}"))
}

/// A server whose connections are handled by a function.
pub(crate) struct Origin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Origin {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a server that hands each connection to `script`.
pub(crate) async fn serve<F, S>(script: S) -> Origin
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(Conn) -> F + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let task = tokio::spawn(async move {
        let mut scripts = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("the listening socket stays open");
            scripts.spawn(script(Conn::over(stream, count.fetch_add(1, SeqCst))));
        }
    });
    Origin { address, connections, task }
}

/// Starts a server that answers each request of each connection with the same bytes, and keeps the connection.
pub(crate) async fn answer(bytes: impl Into<Vec<u8>>) -> Origin {
    let bytes: Arc<[u8]> = bytes.into().into();
    serve(move |mut conn| {
        let bytes = Arc::clone(&bytes);
        async move {
            while conn.try_head().await.is_some() {
                if conn.try_write(&bytes).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// Starts a server that answers the first request of each connection with these bytes and closes it.
pub(crate) async fn answer_and_close(bytes: impl Into<Vec<u8>>) -> Origin {
    let bytes: Arc<[u8]> = bytes.into().into();
    serve(move |mut conn| {
        let bytes = Arc::clone(&bytes);
        async move {
            if conn.try_head().await.is_some() && conn.try_write(&bytes).await.is_ok() {
                conn.finish().await;
                conn.rest().await;
            }
        }
    })
    .await
}
