//! One file for programs that take it in place of the system's authorities: those, and ours.

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{Error, Store, authority::ORGANISATION};
use crate::files;

/// What is in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundled {
    /// Authorities of the system. Without any, the bundle is of no use for hosts whose tunnels are not opened.
    pub of_system: usize,
}

/// Writes the bundle anew.
///
/// # Errors
/// Where there is no authority, or the file cannot be written.
pub fn bundle(store: &Store) -> Result<Bundled, Error> {
    let Some(own) = files::read(&store.certificate())? else {
        return Err(Error::Missing(store.directory().to_owned()));
    };
    // What cannot be read of the system's, programs that use it cannot either.
    let found = rustls_native_certs::load_native_certs().certs;
    let system = found.iter().filter(|certificate| !is_ours(certificate)).collect::<Vec<_>>();
    let mut text = String::from("# The authorities this system trusts, and Larder's last.\n");
    for certificate in &system {
        let pem = Pem::new("CERTIFICATE", certificate.to_vec());
        text.push_str(&pem::encode_config(&pem, EncodeConfig::new().set_line_ending(LineEnding::LF)));
    }
    text.push_str(&String::from_utf8_lossy(&own));
    files::replace(&store.bundle(), text.as_bytes(), false)?;
    Ok(Bundled { of_system: system.len() })
}

/// Where the environment, or the system, already names a bundle of ours, or an authority that has been replaced.
fn is_ours(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
        let mut organisations = parsed.subject().iter_organization();
        organisations.any(|name| name.as_str().is_ok_and(|name| name == ORGANISATION))
    })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::{
        super::{Authority, authority::tests::hosts},
        *,
    };

    #[test]
    fn it_ends_with_ours() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::of(directory.path());
        assert!(matches!(bundle(&store), Err(Error::Missing(_))));
        Authority::make(&store, &hosts(&["a.example"]), false).expect("made");
        let Bundled { of_system } = bundle(&store).expect("written");
        let read = |path: std::path::PathBuf| -> Vec<CertificateDer<'static>> {
            let certificates = CertificateDer::pem_file_iter(path).expect("a file");
            certificates.collect::<Result<_, _>>().expect("certificates")
        };
        let (all, own) = (read(store.bundle()), read(store.certificate()));
        assert_eq!((all.len(), all.last()), (of_system + 1, own.first()));
        assert!(is_ours(&own[0]) && !all[..of_system].iter().any(is_ours));
    }
}
