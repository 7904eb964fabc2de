//! The least an HTTP/1.1 client can do: writes a prepared request, reads a status and where the body ends.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::chunked::{Body, Chunk};

/// A URL, taken apart where `{}` is.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    before: String,
    after: Option<String>,
}

impl Target {
    /// The same URL, asked for with one more field, written `name: value`.
    pub(crate) fn with_field(mut self, field: Option<&str>) -> Target {
        if let Some(field) = field {
            let end = self.after.as_mut().unwrap_or(&mut self.before);
            end.truncate(end.len() - 2);
            end.push_str(field);
            end.push_str("\r\n\r\n");
        }
        self
    }

    pub(crate) fn parse(url: &str) -> Option<Target> {
        let rest = url.strip_prefix("http://")?;
        let (authority, path) = rest.split_at(rest.find('/')?);
        let end = format!(" HTTP/1.1\r\nhost: {authority}\r\n\r\n");
        let (before, after) = match path.split_once("{}") {
            Some((before, after)) => (before, Some(format!("{after}{end}"))),
            None => (path, None),
        };
        let before = format!("GET {before}{}", if after.is_none() { &end } else { "" });
        Some(Target { address: authority.parse().ok()?, before, after })
    }

    /// Writes the request for `number` into `request`, which keeps its memory.
    pub(crate) fn request(&self, number: u64, request: &mut Vec<u8>) {
        use io::Write;
        request.clear();
        request.extend_from_slice(self.before.as_bytes());
        if let Some(after) = &self.after {
            write!(request, "{number}{after}").expect("memory takes what is written");
        }
    }
}

/// A kept-alive connection and what has been read from it beyond the last answer.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Client> {
        Client::with_buffers(address, None, 64 * 1024).await
    }

    /// With `receive` bytes of socket buffer, and reading at most `own` bytes at a time.
    pub(crate) async fn with_buffers(address: SocketAddr, receive: Option<u32>, own: usize) -> io::Result<Client> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, buffer: vec![0; own], filled: 0 })
    }

    /// One request and its whole answer, which is dropped; an error for a status of 400 and above.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        let mut body = self.send(request).await?;
        while self.more(&mut body, |_| ()).await? {}
        Ok(())
    }

    /// Sends and reads the head of the answer; the body is to be read with [`Client::more`].
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<Body> {
        self.stream.write_all(request).await?;
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer[..self.filled], b"\r\n\r\n") {
                let body = head(&self.buffer[..end + 2])?;
                self.consume(end + 4);
                return Ok(body);
            }
            if self.read().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads once; `false` when the body is complete.
    pub(crate) async fn more(&mut self, body: &mut Body, each: impl FnMut(&[u8])) -> io::Result<bool> {
        if matches!(body, Body::Sized(0)) {
            return Ok(false);
        }
        if self.filled == 0 && self.read().await? == 0 {
            return if matches!(body, Body::UntilClose) { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let (used, done) = body.feed(&self.buffer[..self.filled], each);
        self.consume(used);
        Ok(!done)
    }

    async fn read(&mut self) -> io::Result<usize> {
        if self.filled == self.buffer.len() {
            return Err(io::Error::other("the head of the answer is too long"));
        }
        let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
        self.filled += read;
        Ok(read)
    }

    fn consume(&mut self, used: usize) {
        self.buffer.copy_within(used..self.filled, 0);
        self.filled -= used;
    }
}

/// Reads a head without the empty line at its end.
fn head(head: &[u8]) -> io::Result<Body> {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let status = lines.next().and_then(|line| line.get(9..12)).unwrap_or_default();
    if !matches!(status.first(), Some(b'2' | b'3')) {
        return Err(io::Error::other(format!("status {}", String::from_utf8_lossy(status))));
    }
    let mut body = if status == b"304" { Body::Sized(0) } else { Body::UntilClose };
    for line in lines {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            body = Body::Chunked(Chunk::Size(0, true));
        } else if name.eq_ignore_ascii_case(b"content-length") && status != b"304" {
            let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            body = Body::Sized(length.ok_or_else(|| io::Error::other("no length"))?);
        }
    }
    Ok(body)
}
