//! Certificates for hosts, made when first asked for and kept: a bounded table in which a host is signed for once,
//! however many ask at the same time.
//!
//! They share a key, which lives as long as the process and is written nowhere, and the key of session tickets.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use quick_cache::sync::Cache;
use rcgen::KeyPair;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{NoServerSessionStorage, ProducesTickets},
};

use super::{Authority, Config, Error, Metrics};
use crate::tls;

/// In order of preference (RFC 7301 section 3.2).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Certificates by host.
pub struct Certificates {
    mint: Arc<Mint>,
    kept: Cache<String, Certificate>,
    metrics: Metrics,
}

/// What signs them.
struct Mint {
    authority: Authority,
    key: KeyPair,
    tickets: Arc<dyn ProducesTickets>,
    lifetime: Duration,
}

#[derive(Clone)]
struct Certificate {
    tls: Arc<ServerConfig>,
    /// From then on another one is made.
    renewed: SystemTime,
}

impl Certificates {
    /// Those of `authority`, none yet.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn new(authority: Authority, config: &Config, metrics: Metrics) -> Result<Self, Error> {
        let mint = Mint {
            authority,
            key: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
            tickets: aws_lc_rs::Ticketer::new()?,
            lifetime: config.certificate_lifetime,
        };
        Ok(Self { mint: Arc::new(mint), kept: Cache::new(config.certificates_max), metrics })
    }

    /// How to answer a handshake as `host`.
    ///
    /// # Errors
    /// Where nothing can be signed, as after the authority's end.
    pub async fn of(&self, host: &str) -> Result<Arc<ServerConfig>, Error> {
        let now = SystemTime::now();
        if let Some(certificate) = self.kept.get(host) {
            if now < certificate.renewed {
                return Ok(certificate.tls);
            }
            self.kept.remove_if(host, |certificate| certificate.renewed <= now);
        }
        let certificate = self.kept.get_or_insert_async(host, self.minted(host, now)).await?;
        self.metrics.kept.set(i64::try_from(self.kept.len()).unwrap_or(i64::MAX));
        Ok(certificate.tls)
    }

    /// Off the thread that serves clients.
    async fn minted(&self, host: &str, now: SystemTime) -> Result<Certificate, Error> {
        let (mint, name) = (Arc::clone(&self.mint), host.to_owned());
        let minted = tokio::task::spawn_blocking(move || mint.certificate(&name, now)).await;
        let certificate = minted.map_err(|_| Error::Interrupted)??;
        self.metrics.minted.inc();
        Ok(certificate)
    }
}

impl Mint {
    fn certificate(&self, host: &str, now: SystemTime) -> Result<Certificate, Error> {
        let (chain, not_after) = self.authority.sign(host, &self.key, now, self.lifetime)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut tls = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        tls.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.ticketer = Arc::clone(&self.tickets);
        // Renewed in time for those who keep a connection, or have a clock that is ahead.
        let left = not_after.duration_since(now).unwrap_or_default();
        Ok(Certificate { tls: Arc::new(tls), renewed: now + left * 3 / 4 })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use prometheus_client::registry::Registry;

    use super::{
        super::{Store, authority::tests::hosts, config::Enabled},
        *,
    };

    fn certificates(max: usize, lifetime: Duration) -> (tempfile::TempDir, Certificates) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::of(directory.path());
        Authority::make(&store, &hosts(&["*.example"]), false).expect("made");
        let config = Config {
            enabled: Enabled::On,
            hosts: Vec::new(),
            ports: Vec::new(),
            certificates_max: max,
            certificate_lifetime: lifetime,
        };
        let authority = Authority::load(&store).expect("an authority");
        let metrics = Metrics::register(&mut Registry::default());
        (directory, Certificates::new(authority, &config, metrics).expect("a key"))
    }

    #[tokio::test]
    async fn a_host_is_signed_for_once() {
        let (_directory, certificates) = certificates(8, Duration::from_secs(3600));
        let all = join_all((0..100).map(|_| certificates.of("a.example"))).await;
        let first = all[0].as_ref().expect("a certificate");
        assert!(all.iter().all(|one| Arc::ptr_eq(one.as_ref().expect("a certificate"), first)));
        assert_eq!((certificates.metrics.minted.get(), certificates.metrics.kept.get()), (1, 1));
        let other = certificates.of("b.example").await.expect("a certificate");
        assert!(!Arc::ptr_eq(&other, first));
        assert_eq!(certificates.metrics.minted.get(), 2);
    }

    #[tokio::test]
    async fn no_more_are_kept_than_allowed() {
        let (_directory, certificates) = certificates(4, Duration::from_secs(3600));
        for number in 0..50 {
            certificates.of(&format!("h{number}.example")).await.expect("a certificate");
        }
        assert!(certificates.kept.len() <= 4, "{}", certificates.kept.len());
    }

    #[tokio::test]
    async fn what_ends_is_renewed() {
        let (_directory, certificates) = certificates(4, Duration::ZERO);
        let first = certificates.of("a.example").await.expect("a certificate");
        let second = certificates.of("a.example").await.expect("a certificate");
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!((certificates.metrics.minted.get(), certificates.metrics.kept.get()), (2, 1));
    }
}
