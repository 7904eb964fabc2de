//! TLS towards Redis: whom to trust, and what to show.

use std::{fs, sync::Arc};

use rustls::RootCertStore;
use tokio_rustls::TlsConnector;

use super::config::{Config, ConfigError};
use crate::tls::{self, FileError, Identity, Trust};

/// Reads what the files hold.
pub(super) fn connector(config: &Config) -> Result<TlsConnector, ConfigError> {
    let trust = if config.tls_verify { Trust::Roots(roots(&config.tls_ca)?) } else { Trust::Anybody };
    let builder = tls::client(trust);
    let client = match (config.tls_cert.as_str(), config.tls_key.as_str()) {
        ("", "") => builder.with_no_client_auth(),
        ("", _) | (_, "") => return Err(ConfigError::HalfIdentity),
        (cert, key) => {
            let Identity { chain, key } = Identity::read(cert.as_ref(), key.as_ref())?;
            builder.with_client_auth_cert(chain, key).map_err(|error| wrong(cert, error))?
        }
    };
    Ok(TlsConnector::from(Arc::new(client)))
}

/// Those of the file, and no others; without one, the system's.
fn roots(path: &str) -> Result<Arc<RootCertStore>, ConfigError> {
    if path.is_empty() {
        return Ok(tls::system_roots());
    }
    let roots = fs::read(path).and_then(|pem| tls::authorities(RootCertStore::empty(), &pem));
    Ok(Arc::new(roots.map_err(|error| wrong(path, error))?))
}

fn wrong(path: &str, reason: impl ToString) -> ConfigError {
    ConfigError::File { path: path.to_owned(), reason: reason.to_string() }
}

impl From<FileError> for ConfigError {
    fn from(error: FileError) -> Self {
        wrong(&error.path.to_string_lossy(), error.source)
    }
}
