//! An authority, the certificates it signs, in files, and clients that trust it and nobody else.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{client, client::Connection, within};

/// An authority with a directory for what it signs.
pub(crate) struct Pki {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// The files of a certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Files {
    /// As an element of `certificates`.
    pub(crate) fn toml(&self) -> String {
        format!("{{ cert = '{}', key = '{}' }}", self.cert.display(), self.key.display())
    }
}

impl Pki {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut authority = CertificateParams::default();
        // Another name than that of the leaves: what has the same one is taken for its own authority.
        authority.distinguished_name.push(DnType::CommonName, "authority of a test");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = authority.self_signed(&key).expect("a certificate");
        fs::write(directory.path().join("authority.pem"), certificate.pem()).expect("a writable directory");
        Self { directory, issuer: Issuer::new(authority, key) }
    }

    /// Of its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// Signs for `names` until the end of `year`; in the place of what was signed in these files before.
    pub(crate) fn sign(&self, file: &str, names: &[&str], year: i32) -> Files {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut leaf = CertificateParams::new(names).expect("names");
        leaf.use_authority_key_identifier_extension = true;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |extension: &str| self.directory.path().join(format!("{file}.{extension}"));
        let files = Files { cert: path("pem"), key: path("key") };
        fs::write(&files.cert, certificate.pem()).expect("a writable directory");
        fs::write(&files.key, key.serialize_pem()).expect("a writable directory");
        files
    }

    /// A client that trusts this authority, and shows `identity`.
    pub(crate) fn client(&self, protocols: &[&str], identity: Option<&Files>) -> TlsClient {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.file())).expect("a certificate of an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports them")
            .with_root_certificates(roots);
        let mut settings = match identity {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
                builder.with_client_auth_cert(vec![certificate(&files.cert)], key).expect("an identity")
            }
        };
        // A session that is resumed shows what it was shown when it began.
        settings.resumption = Resumption::disabled();
        settings.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsClient(Arc::new(settings))
    }
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).expect("a certificate")
}

/// A client that speaks TLS.
pub(crate) struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// The handshake, with `name` asked for.
    pub(crate) async fn handshake(&self, address: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let stream = within("a connection", TcpStream::connect(address)).await.expect("someone listens there");
        stream.set_nodelay(true).expect("a connected socket");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        within("a handshake", TlsConnector::from(Arc::clone(&self.0)).connect(name, stream)).await
    }

    /// HTTP over it, by the protocol that was agreed on.
    pub(crate) async fn connect(&self, address: SocketAddr, name: &str) -> Connection {
        let tls = self.handshake(address, name).await.expect("a handshake");
        let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        client::over(tls, h2).await
    }

    /// The certificate that is shown for `name`.
    pub(crate) async fn shown(&self, address: SocketAddr, name: &str) -> CertificateDer<'static> {
        let tls = self.handshake(address, name).await.expect("a handshake");
        tls.get_ref().1.peer_certificates().expect("certificates")[0].clone().into_owned()
    }
}

impl Files {
    /// The certificate that is in them now.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        certificate(&self.cert)
    }
}
