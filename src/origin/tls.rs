//! TLS towards origins: whom to trust, and which protocols to offer.
//!
//! The system's certificate authorities are read once in the life of the process; where there are none, a built-in set
//! stands in. A file of further authorities is read each time an upstream is built, so a reload sees a new one.

use std::{
    io,
    path::Path,
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

/// How to speak TLS to an origin. Equal where the same options were asked for.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    identity: Identity,
    config: Arc<ClientConfig>,
    h1_config: Arc<ClientConfig>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    verify: bool,
    h2: bool,
    /// Digest of the file of further authorities.
    authorities: Option<[u8; 32]>,
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

static SYSTEM_ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::debug!(%error, "a certificate authority of the system cannot be read");
    }
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Arc::new(roots)
});

impl Tls {
    /// Builds it; fails if the file of authorities cannot be read or holds none.
    pub(super) fn new(verify: bool, h2: bool, ca_file: Option<&Path>) -> io::Result<Self> {
        let pem = ca_file.map(std::fs::read).transpose()?;
        let identity = Identity { verify, h2, authorities: pem.as_ref().map(|pem| *blake3::hash(pem).as_bytes()) };
        let base = if verify { trusting(roots(pem.as_deref())?) } else { trusting_all() };
        let with_protocols = |protocols: &[&str]| {
            let mut config = base.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
            Arc::new(config)
        };
        let h1_config = with_protocols(&["http/1.1"]);
        let config = if h2 { with_protocols(&["h2", "http/1.1"]) } else { Arc::clone(&h1_config) };
        Ok(Self { identity, config, h1_config })
    }

    /// The same without HTTP/2, for upgrades.
    pub(super) fn without_h2(&self) -> Self {
        Self {
            identity: Identity { h2: false, ..self.identity.clone() },
            config: Arc::clone(&self.h1_config),
            h1_config: Arc::clone(&self.h1_config),
        }
    }

    /// Whether HTTP/2 is offered.
    pub(super) fn offers_h2(&self) -> bool {
        self.identity.h2
    }

    /// For `tokio_rustls`.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Tls {}

/// The system's authorities and those of `pem`.
fn roots(pem: Option<&[u8]>) -> io::Result<Arc<RootCertStore>> {
    let Some(pem) = pem else { return Ok(Arc::clone(&SYSTEM_ROOTS)) };
    let mut roots = RootCertStore::clone(&SYSTEM_ROOTS);
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    if roots.len() == before {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no certificate in it"));
    }
    Ok(Arc::new(roots))
}

fn trusting(roots: Arc<RootCertStore>) -> ClientConfig {
    builder().with_root_certificates(roots).with_no_client_auth()
}

fn trusting_all() -> ClientConfig {
    builder().dangerous().with_custom_certificate_verifier(Arc::new(Unverified)).with_no_client_auth()
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default protocol versions")
}

/// Accepts any certificate, but not a forged handshake: the signature is still checked against that certificate.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
