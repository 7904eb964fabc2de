//! TLS in front of an origin, under the name `localhost`, and clients that trust whom they are told to.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::within;

/// Takes TLS off what comes and hands the rest to an origin, connection by connection.
pub(crate) struct Front {
    address: SocketAddr,
    directory: TempDir,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Front {
    /// Before the origin at `origin`, with a certificate of an authority of its own.
    pub(crate) async fn before(origin: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let acceptor = TlsAcceptor::from(Arc::new(settings(&directory.path().join("authority.pem"))));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut relays = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("the listening socket stays open");
                count.fetch_add(1, SeqCst);
                relays.spawn(relay(acceptor.clone(), stream, origin));
            }
        });
        Self { address, directory, connections, task }
    }

    /// `localhost` and its port.
    pub(crate) fn authority(&self) -> String {
        format!("localhost:{}", self.port())
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority())
    }

    /// What has to be trusted to reach it.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(acceptor: TlsAcceptor, stream: TcpStream, origin: SocketAddr) {
    stream.set_nodelay(true).expect("a connected socket");
    // How connections end is part of the scenarios.
    let Ok(mut client) = acceptor.accept(stream).await else { return };
    let Ok(mut origin) = TcpStream::connect(origin).await else { return };
    let _ = copy_bidirectional(&mut client, &mut origin).await;
}

/// Makes an authority, writes its certificate to `file`, and has it sign for `localhost`.
fn settings(file: &Path) -> ServerConfig {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    let certificate = authority.self_signed(&key).expect("a certificate");
    std::fs::write(file, certificate.pem()).expect("a writable temporary directory");
    let issuer = Issuer::new(authority, key);
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().expect("a key");
    let certificate = leaf.signed_by(&key, &issuer).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut settings = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], key)
        .expect("a certificate and its key");
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    settings
}

/// A connection through the proxy at `proxy` to `authority`, once CONNECT has been answered; or that answer's status.
pub(crate) async fn tunnel(proxy: SocketAddr, authority: &str) -> Result<TcpStream, u16> {
    tunnel_with(proxy, authority, "").await
}

/// The same, with these lines more in the head of CONNECT.
pub(crate) async fn tunnel_with(proxy: SocketAddr, authority: &str, lines: &str) -> Result<TcpStream, u16> {
    let mut stream = within("a connection", TcpStream::connect(proxy)).await.expect("someone listens there");
    stream.set_nodelay(true).expect("a connected socket");
    let request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.expect("the proxy reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Not a byte of what follows.
        head.push(within("an answer to CONNECT", stream.read_u8()).await.expect("an answer to CONNECT"));
    }
    let status = super::raw::status(&String::from_utf8(head).expect("a head of characters"));
    if status == 200 { Ok(stream) } else { Err(status) }
}

/// TLS with `localhost` over `stream`, by a client that trusts the authorities of one file and no others.
pub(crate) async fn handshake<S>(stream: S, trusted: &Path, protocols: &[&str]) -> io::Result<TlsStream<S>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(trusted).expect("a file") {
        roots.add(certificate.expect("a certificate")).expect("a certificate of an authority");
    }
    let mut settings = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    settings.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    within("a handshake", TlsConnector::from(Arc::new(settings)).connect(name, stream)).await
}
