//! TLS, as far as all who speak it do it alike: whom a client trusts, and what files hold that say who one is.
//!
//! The system's certificate authorities are read once in the life of the process; where there are none, a built-in set
//! stands in. Nothing here knows with whom it is spoken. What is served over TLS at an address of ours is in `server.rs`
//! (which certificate, for whom) and `acceptor.rs` (the handshake).

use std::sync::{Arc, LazyLock};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    crypto::{CryptoProvider, aws_lc_rs},
};

mod acceptor;
pub mod config;
mod metrics;
mod pem;
mod server;
mod unverified;

pub use self::{acceptor::Acceptor, config::Config, metrics::Metrics, pem::FileError, server::Error};
pub(crate) use self::{
    pem::{Identity, authorities},
    server::{Served, Server},
};

use self::unverified::Unverified;

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

/// Which servers a client believes.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// Those whose certificate one of these authorities vouches for.
    Roots(Arc<RootCertStore>),
    /// All that have the key of the certificate that they show, whoever they are.
    Anybody,
}

/// What does the cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// The system's authorities, or a built-in set.
pub(crate) fn system_roots() -> Arc<RootCertStore> {
    Arc::clone(&SYSTEM_ROOTS)
}

/// A client that trusts so; what it shows of itself is still to be said.
pub(crate) fn client(trust: Trust) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default protocol versions");
    match trust {
        Trust::Roots(roots) => builder.with_root_certificates(roots),
        Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider()))),
    }
}
