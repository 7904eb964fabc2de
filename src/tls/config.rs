//! Settings of TLS at an address that is listened on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[listen.tls]` and `[admin.tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is shown to clients, each by the names in it; the first also to who names none of them. Empty: no TLS.
    pub certificates: Vec<Certificate>,
    /// File of the authorities (PEM) of which a client has to show a certificate; empty: none is asked for.
    pub client_ca: String,
}

/// One of `certificates`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// File of the certificate, and of those between it and an authority, in this order (PEM).
    pub cert: PathBuf,
    /// File of its key (PEM).
    pub key: PathBuf,
}

impl Config {
    /// Whether TLS is spoken.
    pub fn is_on(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// All files that it names.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        let authorities = (!self.client_ca.is_empty()).then(|| PathBuf::from(&self.client_ca));
        let own = self.certificates.iter().flat_map(|one| [one.cert.clone(), one.key.clone()]);
        own.chain(authorities)
    }
}
