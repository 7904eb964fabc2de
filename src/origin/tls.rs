//! TLS towards origins: whom to trust, and which protocols to offer.
//!
//! A file of authorities beside those of the system is read each time an upstream is built, so a reload sees a new one.

use std::{io, path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore};

use crate::tls::{self, Trust};

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

impl Tls {
    /// Builds it; fails if the file of authorities cannot be read or holds none.
    pub(super) fn new(verify: bool, h2: bool, ca_file: Option<&Path>) -> io::Result<Self> {
        let pem = ca_file.map(std::fs::read).transpose()?;
        let identity = Identity { verify, h2, authorities: pem.as_ref().map(|pem| *blake3::hash(pem).as_bytes()) };
        let trust = if verify { Trust::Roots(roots(pem.as_deref())?) } else { Trust::Anybody };
        let base = tls::client(trust).with_no_client_auth();
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
    let system = tls::system_roots();
    match pem {
        None => Ok(system),
        Some(pem) => Ok(Arc::new(tls::authorities(RootCertStore::clone(&system), pem)?)),
    }
}
