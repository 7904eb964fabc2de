//! Where an authority is kept: a directory that only its owner can enter, in the data directory.

use std::path::{Path, PathBuf};

/// The files of an authority.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// That of a data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self { directory: data_dir.join("ca") }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The key, which nobody else may read.
    pub fn key(&self) -> PathBuf {
        self.directory.join("ca-key.pem")
    }

    /// The certificate: what programs are to trust.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The certificate after those the system trusts, for programs that take one file for all.
    pub fn bundle(&self) -> PathBuf {
        self.directory.join("ca-bundle.pem")
    }

    /// Whether there is an authority, or part of one.
    pub fn is_made(&self) -> bool {
        self.key().exists() || self.certificate().exists()
    }
}
