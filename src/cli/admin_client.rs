//! Calls the admin plane of a running gateway, over http or https.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use rustls::{RootCertStore, pki_types::ServerName};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use url::Url;

use super::{
    args::{AdminTls, Client},
    events::Events,
};
use crate::{
    admin::Problem,
    archive,
    tls::{self, FileError, Identity, Trust},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the admin plane takes to give up on a call.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Reaches one admin plane, by a connection for each call.
#[derive(Clone)]
pub struct AdminClient {
    /// `host:port`.
    authority: String,
    token: Option<HeaderValue>,
    /// The name its certificate must have, and whom to trust; `None`: plain HTTP.
    tls: Option<(ServerName<'static>, TlsConnector)>,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not one.
    #[error("--admin {url:?}: not a URL such as \"http://127.0.0.1:8081\"")]
    Url {
        /// As given.
        url: String,
    },
    /// A file of a certificate, a key or authorities cannot be used.
    #[error("{flag} {source}")]
    Certificate {
        /// The flag that names it.
        flag: &'static str,
        /// The file, and why.
        source: FileError,
    },
    /// There is no TLS with what listens there.
    #[error("no TLS with {authority}{hint}")]
    Handshake {
        /// Where.
        authority: String,
        /// What may help.
        hint: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The token cannot be sent.
    #[error("the token has bytes a header field cannot have")]
    Token,
    /// Nothing listens there.
    #[error("no gateway answers at {authority} (--admin, LARDER_ADMIN_URL; its `listen.admin`)")]
    Connect {
        /// Where.
        authority: String,
        /// Why.
        source: std::io::Error,
    },
    /// Something listens there and does not answer.
    #[error("{authority} does not answer")]
    Silent {
        /// Where.
        authority: String,
    },
    /// The connection failed.
    #[error("the call to {authority} broke off{hint}")]
    Http {
        /// Where.
        authority: String,
        /// What may help.
        hint: &'static str,
        /// Why.
        source: hyper::Error,
    },
    /// The gateway said no.
    #[error("{detail}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What it said.
        detail: String,
    },
    /// The answer is not what this version understands.
    #[error("the answer of {authority} is not understood: is it a Larder admin plane of this version?")]
    Answer {
        /// Where.
        authority: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path:?}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An argument is not what it should be.
    #[error("{0}")]
    Argument(String),
}

impl Error {
    /// Whether the gateway is there and said no: asking again would change nothing.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.is_client_error())
    }
}

/// As `host:port`.
impl fmt::Display for AdminClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

impl AdminClient {
    /// As the command line says.
    pub fn new(args: &Client) -> Result<Self, Error> {
        Self::to(&args.admin, args.admin_token.as_deref(), &args.tls)
    }

    /// To `url`, with `token` if one is needed, over https as `tls` says.
    pub fn to(url: &str, token: Option<&str>, tls: &AdminTls) -> Result<Self, Error> {
        let text = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let parsed = Url::parse(&text).map_err(|_| Error::Url { url: url.to_owned() })?;
        let wrong = || Error::Url { url: url.to_owned() };
        let host = parsed.host_str().ok_or_else(wrong)?;
        let tls = match parsed.scheme() {
            "http" => None,
            "https" => {
                let name = host.trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(name.to_owned()).map_err(|_| wrong())?;
                Some((name, connector(tls)?))
            }
            _ => return Err(wrong()),
        };
        let port = parsed.port_or_known_default().unwrap_or(80);
        Ok(Self { authority: format!("{host}:{port}"), token: token.map(bearer).transpose()?, tls })
    }

    /// GET.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// POST of JSON.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Argument(error.to_string()))?;
        self.call(Method::POST, path, body.into()).await
    }

    /// PUT of JSON.
    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Argument(error.to_string()))?;
        self.call(Method::PUT, path, body.into()).await
    }

    /// DELETE.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    /// GET of a page for probes, which is text, and has to be there within `patience`.
    pub async fn probe(&self, path: &str, patience: Duration) -> Result<String, Error> {
        let answer = tokio::time::timeout(patience, self.exchange(Method::GET, path, Bytes::new()));
        let (status, body) = answer.await.map_err(|_| Error::Silent { authority: self.authority.clone() })??;
        let text = String::from_utf8_lossy(&body).into_owned();
        match status {
            StatusCode::OK => Ok(text),
            StatusCode::SERVICE_UNAVAILABLE => Err(Error::Refused { status, detail: text.trim().to_owned() }),
            _ => Err(self.not_understood()),
        }
    }

    /// The content of an answer as text.
    pub async fn text(&self, method: Method, path: &str, body: Bytes) -> Result<String, Error> {
        let body = self.answer(method, path, body).await?;
        String::from_utf8(body.into()).map_err(|_| self.not_understood())
    }

    /// A stream of events.
    pub(super) async fn events(&self, path: &str) -> Result<Events, Error> {
        self.download(path).await.map(Events::new)
    }

    /// The content of an answer, as it comes.
    pub(super) async fn download(&self, path: &str) -> Result<Incoming, Error> {
        let silent = || Error::Silent { authority: self.authority.clone() };
        let response = tokio::time::timeout(ANSWER_TIMEOUT, self.begin(Method::GET, path, Bytes::new()));
        let response = response.await.map_err(|_| silent())??;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|_| silent())?;
        Err(refused(status, &body.to_bytes()))
    }

    /// POST of content that takes as long as it takes.
    pub(super) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        content: impl Body<Data = Bytes, Error = Infallible> + Send + 'static,
    ) -> Result<T, Error> {
        let request = self.head(Method::POST, path).header(header::CONTENT_TYPE, archive::MEDIA_TYPE).body(content);
        let response = self.send(request.map_err(|error| Error::Argument(error.to_string()))?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| Error::Silent { authority: self.authority.clone() })?.to_bytes();
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        serde_json::from_slice(&body).map_err(|_| self.not_understood())
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Error> {
        let body = self.answer(method, path, body).await?;
        serde_json::from_slice(&body).map_err(|_| self.not_understood())
    }

    async fn answer(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Error> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(method, path, body));
        let (status, body) = answer.await.map_err(|_| Error::Silent { authority: self.authority.clone() })??;
        if status.is_success() { Ok(body) } else { Err(refused(status, &body)) }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), Error> {
        let response = self.begin(method, path, body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        match body {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(self.not_understood()),
            Err(_) => Err(Error::Silent { authority: self.authority.clone() }),
        }
    }

    /// The answer's head; its content is still to come.
    async fn begin(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Error> {
        self.send(self.request(method, path, body)?).await
    }

    async fn send(
        &self,
        request: Request<impl Body<Data = Bytes, Error = Infallible> + Send + 'static>,
    ) -> Result<Response<Incoming>, Error> {
        let broken = |source| self.broken(source);
        let io = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(broken)?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broken)
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = self.head(method, path);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body)).map_err(|error| Error::Argument(error.to_string()))
    }

    fn head(&self, method: Method, path: &str) -> request::Builder {
        let request = Request::builder().method(method).uri(path).header(header::HOST, &self.authority);
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, token),
            None => request,
        }
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let Some((name, connector)) = &self.tls else { return Ok(Either::Left(self.connect_plainly().await?)) };
        let handshake = connector.connect(name.clone(), self.connect_plainly().await?);
        let secured = tokio::time::timeout(CONNECT_TIMEOUT, handshake).await;
        let secured = secured.map_err(|_| Error::Silent { authority: self.authority.clone() })?;
        Ok(Either::Right(secured.map_err(|source| self.no_tls(source))?))
    }

    fn no_tls(&self, source: std::io::Error) -> Error {
        let hint = match source.get_ref().and_then(|error| error.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(_)) => " (--admin-ca says whom to trust)",
            Some(rustls::Error::AlertReceived(_)) => " (--admin-cert says what to show)",
            Some(rustls::Error::InvalidMessage(_)) => " (does it speak http?)",
            _ => "",
        };
        Error::Handshake { authority: self.authority.clone(), hint, source }
    }

    /// In TLS 1.3 a client is done before it is told, if it is, that it had to show a certificate.
    fn broken(&self, source: hyper::Error) -> Error {
        let hint = match self.tls {
            Some(_) => " (--admin-cert says what to show, if it asks for a certificate)",
            None => "",
        };
        Error::Http { authority: self.authority.clone(), hint, source }
    }

    async fn connect_plainly(&self) -> Result<TcpStream, Error> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.authority));
        let connected = connecting.await.map_err(|_| Error::Silent { authority: self.authority.clone() })?;
        connected.map_err(|source| Error::Connect { authority: self.authority.clone(), source })
    }

    fn not_understood(&self) -> Error {
        Error::Answer { authority: self.authority.clone() }
    }
}

/// What a call goes over.
type Connection = Either<TcpStream, TlsStream<TcpStream>>;

fn connector(args: &AdminTls) -> Result<TlsConnector, Error> {
    let wrong = |flag: &'static str| move |source| Error::Certificate { flag, source };
    let roots = match &args.admin_ca {
        None => tls::system_roots(),
        Some(path) => {
            let roots = std::fs::read(path).and_then(|pem| tls::authorities(RootCertStore::empty(), &pem));
            Arc::new(roots.map_err(FileError::of(path)).map_err(wrong("--admin-ca"))?)
        }
    };
    let builder = tls::client(Trust::Roots(roots));
    let client = match args.admin_cert.as_ref().zip(args.admin_key.as_ref()) {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let identity = Identity::read(cert, key).map_err(wrong("--admin-cert, --admin-key"))?;
            let made = builder.with_client_auth_cert(identity.chain, identity.key).map_err(std::io::Error::other);
            made.map_err(FileError::of(key)).map_err(wrong("--admin-key"))?
        }
    };
    Ok(TlsConnector::from(Arc::new(client)))
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn refused(status: StatusCode, body: &[u8]) -> Error {
    let detail = match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem.detail,
        Err(_) => format!("the gateway answered {status}"),
    };
    Error::Refused { status, detail }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Answers one call with `status` and `body`, and gives back what it was asked.
    async fn once(status: &'static str, body: &'static str) -> (AdminClient, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut buffer = vec![0; 4096];
            let mut asked = String::new();
            while !asked.ends_with('}') && !asked.ends_with("\r\n\r\n") {
                let read = stream.read(&mut buffer).await.expect("a request");
                asked.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.expect("an answer");
            asked
        });
        (AdminClient::to(&url, Some("secret"), &AdminTls::default()).expect("a client"), asked)
    }

    #[tokio::test]
    async fn answers_and_refusals() {
        let (client, asked) = once("200 OK", "{\"a\": 17}").await;
        let answer: serde_json::Value = client.get("/stats?x=1").await.expect("an answer");
        assert_eq!(answer["a"], 17);
        let asked = asked.await.expect("a request").to_ascii_lowercase();
        assert!(asked.starts_with("get /stats?x=1 http/1.1\r\n") && asked.contains("authorization: bearer secret\r\n"));

        let (client, _asked) =
            once("400 Bad Request", r#"{"status":400,"title":"Bad Request","detail":"not so"}"#).await;
        let refused = client.get::<serde_json::Value>("/").await.expect_err("a refusal");
        assert_eq!(refused.to_string(), "not so");
    }

    #[tokio::test]
    async fn probes() {
        let patience = Duration::from_secs(30);
        let (client, _asked) = once("200 OK", "ready\n").await;
        assert_eq!(client.probe("/readyz", patience).await.expect("an answer"), "ready\n");
        let (client, _asked) = once("503 Service Unavailable", "draining\n").await;
        assert_eq!(client.probe("/readyz", patience).await.expect_err("no readiness").to_string(), "draining");
        let (client, _asked) = once("404 Not Found", "").await;
        assert!(matches!(client.probe("/readyz", patience).await, Err(Error::Answer { .. })));
        let mute = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = AdminClient::to(&mute.local_addr().expect("an address").to_string(), None, &AdminTls::default())
            .expect("a client");
        let silent = client.probe("/readyz", Duration::from_millis(10)).await;
        assert!(matches!(silent, Err(Error::Silent { .. })), "{silent:?}");
    }

    #[test]
    fn http_and_https_are_spoken() {
        let to = |url| AdminClient::to(url, None, &AdminTls::default());
        let authority = |url| to(url).map(|client| client.authority);
        assert_eq!(authority("http://127.0.0.1:8081").expect("a client"), "127.0.0.1:8081");
        assert_eq!(authority("localhost:8081").expect("a client"), "localhost:8081");
        assert_eq!(authority("http://[::1]:8081/").expect("a client"), "[::1]:8081");
        assert_eq!(authority("https://a").expect("a client"), "a:443");
        assert_eq!(authority("https://[::1]:8081/").expect("a client"), "[::1]:8081");
        assert!(to("https://a").expect("a client").tls.is_some() && to("http://a").expect("a client").tls.is_none());
        assert!(matches!(authority("ftp://a"), Err(Error::Url { .. })));
        assert!(matches!(AdminClient::to("http://a", Some("a\nb"), &AdminTls::default()), Err(Error::Token)));
    }
}
