//! Certificates and keys in files, as PEM (RFC 7468).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

/// A file of certificates or of a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path:?}: {source}")]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl FileError {
    /// What is wrong with the file at `path`.
    pub(crate) fn of(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self { path: path.to_owned(), source }
    }
}

/// A certificate with those between it and an authority, and the key that belongs to it: what one side of a connection
/// shows of itself.
#[derive(Debug)]
pub(crate) struct Identity {
    /// One's own certificate first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// In PKCS #8, PKCS #1 or SEC 1.
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads both files. Whether they belong together is for who uses them to find out.
    ///
    /// # Errors
    /// Where a file cannot be read, or does not hold what it should; it says which file.
    pub(crate) fn read(chain: &Path, key: &Path) -> Result<Self, FileError> {
        let private = fs::read(key).and_then(|pem| PrivateKeyDer::from_pem_slice(&pem).map_err(no_key));
        let private = private.map_err(FileError::of(key))?;
        let chain = fs::read(chain).and_then(|pem| certificates(&pem)).map_err(FileError::of(chain))?;
        Ok(Self { chain, key: private })
    }
}

/// Adds the authorities that `pem` holds to `roots`.
///
/// # Errors
/// Where it holds none, or one that is not well-formed.
pub(crate) fn authorities(mut roots: RootCertStore, pem: &[u8]) -> io::Result<RootCertStore> {
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(io::Error::other)?;
    }
    Ok(roots)
}

fn no_key(error: pem::Error) -> io::Error {
    match error {
        pem::Error::NoItemsFound => io::Error::new(io::ErrorKind::InvalidData, "no private key in it"),
        error => io::Error::other(error),
    }
}

fn certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(io::Error::other)?;
    if certificates.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no certificate in it"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        /// A certificate in `chain`, twice, its key in `key`, and nothing in `empty`.
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
            let files = Self { directory };
            fs::write(files.path("chain"), made.cert.pem().repeat(2)).expect("written");
            fs::write(files.path("key"), made.signing_key.serialize_pem()).expect("written");
            fs::write(files.path("empty"), "").expect("written");
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn refused(&self, chain: &str, key: &str) -> (PathBuf, String) {
            let error = Identity::read(&self.path(chain), &self.path(key)).expect_err("refused");
            let text = error.to_string();
            assert_eq!(text, format!("{:?}: {}", error.path, error.source), "it names the file");
            (error.path, error.source.to_string())
        }
    }

    #[test]
    fn a_chain_and_its_key() {
        let files = Files::new();
        let Identity { chain, key } = Identity::read(&files.path("chain"), &files.path("key")).expect("both");
        assert_eq!(chain.len(), 2);
        assert!(matches!(key, PrivateKeyDer::Pkcs8(_)));
    }

    #[test]
    fn what_is_wrong_is_said_of_the_file_it_is_wrong_with() {
        let files = Files::new();
        let (chain, key, gone) = (files.path("chain"), files.path("key"), files.path("gone"));
        assert_eq!(files.refused("empty", "key"), (files.path("empty"), "no certificate in it".to_owned()));
        assert_eq!(files.refused("key", "key"), (key, "no certificate in it".to_owned()));
        assert_eq!(files.refused("chain", "chain").0, chain, "it holds no key");
        assert_eq!(files.refused("gone", "key").0, gone);
        assert_eq!(files.refused("chain", "gone").0, gone);
    }

    #[test]
    fn authorities_come_to_those_there_are() {
        let files = Files::new();
        let pem = fs::read(files.path("chain")).expect("a file");
        let one = authorities(RootCertStore::empty(), &pem).expect("authorities");
        assert_eq!(one.len(), 2);
        assert_eq!(authorities(one, &pem).expect("authorities").len(), 4);
        let error = authorities(RootCertStore::empty(), b"no PEM").expect_err("none");
        assert_eq!(error.to_string(), "no certificate in it");
    }
}
