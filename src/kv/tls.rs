//! TLS towards Redis: whom to trust, and what to show.

use std::{fs, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use super::config::{Config, ConfigError};

/// Reads what the files hold.
pub(super) fn connector(config: &Config) -> Result<TlsConnector, ConfigError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default protocol versions");
    let builder = if config.tls_verify {
        builder.with_root_certificates(roots(&config.tls_ca)?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
    let client = match (config.tls_cert.as_str(), config.tls_key.as_str()) {
        ("", "") => builder.with_no_client_auth(),
        ("", _) | (_, "") => return Err(ConfigError::HalfIdentity),
        (cert, key) => {
            let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| wrong(key, error))?;
            builder.with_client_auth_cert(certificates(cert)?, private).map_err(|error| wrong(cert, error))?
        }
    };
    Ok(TlsConnector::from(Arc::new(client)))
}

/// Those of the file, and no others; without one, the system's, or a built-in set where it has none.
fn roots(path: &str) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    if path.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        return Ok(roots);
    }
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| wrong(path, error))?;
    }
    Ok(roots)
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let pem = read(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = read.map_err(|error| wrong(path, error))?;
    if certificates.is_empty() { Err(wrong(path, "no certificate in it")) } else { Ok(certificates) }
}

fn read(path: &str) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|error| wrong(path, error))
}

fn wrong(path: &str, reason: impl ToString) -> ConfigError {
    ConfigError::File { path: path.to_owned(), reason: reason.to_string() }
}

/// Accepts any certificate, but not a forged handshake: the signature is still checked against that certificate.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

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
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
