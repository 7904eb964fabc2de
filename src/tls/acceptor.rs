//! Handshakes with clients, at an address where TLS is spoken, or is not.

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::metrics::{Handshakes, Metrics, Outcome};

/// What every TLS record of a handshake begins with (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// The answer to HTTP without TLS.
const PLAIN_HTTP: &str = "HTTP/1.1 400 Bad Request\r\n\
    content-type: application/problem+json\r\n\
    connection: close\r\n\
    content-length: 106\r\n\r\n\
    {\"status\":400,\"title\":\"Bad Request\",\"detail\":\"this port speaks TLS: ask with https:// instead of http://\"}";

/// How long a client may take to read that and close, and how much it may still send meanwhile.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: u64 = 64 * 1024;

/// Answers the handshakes of one listener, with what is to be shown at the moment.
#[derive(Debug)]
pub struct Acceptor {
    settings: ArcSwapOption<ServerConfig>,
    handshake_timeout: Duration,
    handshakes: Handshakes,
}

impl Acceptor {
    /// Of the listener of that name in metrics, without TLS so far.
    pub fn new(listener: &'static str, handshake_timeout: Duration, metrics: &Metrics) -> Self {
        Self { settings: ArcSwapOption::empty(), handshake_timeout, handshakes: metrics.of(listener) }
    }

    /// From now on handshakes are answered so; `None`: there are none. Connections that exist go on.
    pub(crate) fn replace(&self, settings: Option<Arc<ServerConfig>>) {
        self.settings.store(settings);
    }

    /// How a handshake is answered; `None`: TLS is not spoken.
    pub(crate) fn now(&self) -> Option<Arc<ServerConfig>> {
        self.settings.load_full()
    }

    /// Answers the handshake of a client, over what is made `over` its socket; `None`: there is nothing to serve.
    pub(crate) async fn accept<S>(
        &self,
        settings: Arc<ServerConfig>,
        stream: TcpStream,
        over: impl FnOnce(TcpStream) -> S,
    ) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let by = Instant::now() + self.handshake_timeout;
        let handshake = async {
            match begins_with(&stream).await? {
                // Gone without a word, as those do who only ask whether a port is open.
                None => Ok(Err(None)),
                Some(HANDSHAKE) => Ok(Ok(TlsAcceptor::from(settings).accept(over(stream)).await?)),
                Some(_) => Ok(Err(Some(stream))),
            }
        };
        let outcome = match timeout_at(by, handshake).await {
            Ok(Ok(Ok(secured))) => {
                self.handshakes.count(Outcome::Done);
                return Some(secured);
            }
            Ok(Ok(Err(None))) => return None,
            Ok(Ok(Err(Some(stream)))) => {
                refuse(stream).await;
                Outcome::PlainHttp
            }
            Ok(Err(error)) => {
                let error: io::Error = error;
                tracing::debug!(%error, "a TLS handshake with a client failed");
                Outcome::Failed
            }
            Err(_) => Outcome::TimedOut,
        };
        self.handshakes.count(outcome);
        None
    }
}

/// The first byte that comes, which stays where it is.
async fn begins_with(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut first = [0];
    Ok((stream.peek(&mut first).await? > 0).then_some(first[0]))
}

/// Says that TLS is spoken here. Closing with unread bytes in the socket would send a reset, and a reset can overtake what
/// the client should still read.
async fn refuse(mut stream: TcpStream) {
    let said = async {
        stream.write_all(PLAIN_HTTP.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // Who does not read it does not hear of it.
    let _ = timeout(LINGER_TIMEOUT, said).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let (head, body) = PLAIN_HTTP.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }
}
