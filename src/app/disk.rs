//! The disk tier without a gateway: for an operator's call while none runs.

use std::{io, path::PathBuf};

use super::secret;
use crate::{
    cache::Clock,
    config::Config,
    store::{L3, l3::OpenError},
};

/// Why there is nothing to be looked at.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No gateway has stored anything.
    #[error("there is no disk tier in {0:?}: no gateway has run there (--data-dir, --config)")]
    Nothing(PathBuf),
    /// What is stored cannot be read without it.
    #[error("the secret {path:?} cannot be read: what is stored cannot be opened without it")]
    Secret {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be opened.
    #[error("{0}")]
    Open(OpenError),
    /// The disk does not let it be used.
    #[error("disk tier: {0:?} cannot be used: its disk fails, is read-only, or it was written under another secret")]
    Off(PathBuf),
}

/// Where the disk tier of that configuration is.
pub fn directory(config: &Config) -> PathBuf {
    config.data_path().join("l3")
}

/// Opens the tier as it is: nothing leaves it, and nothing is made.
///
/// # Errors
/// If there is none, or it cannot be opened: [`OpenError::is_taken`] where a gateway has it.
pub fn open(config: &Config) -> Result<L3, DiskError> {
    let path = directory(config);
    if !path.exists() {
        return Err(DiskError::Nothing(path));
    }
    let unreadable = |source| DiskError::Secret { path: secret::path(config), source };
    let secret = secret::load(config).map_err(unreadable)?;
    let clock = Clock::start();
    let l3 = L3::open_for_operator(&config.l3, &path, &secret, move || clock.now()).map_err(DiskError::Open)?;
    if l3.is_on() { Ok(l3) } else { Err(DiskError::Off(path)) }
}

/// Empties the tier, whatever release wrote it. Whether there was one.
///
/// # Errors
/// If a gateway has it, or it cannot be written.
pub fn clear(config: &Config) -> Result<bool, DiskError> {
    let path = directory(config);
    if !path.exists() {
        return Ok(false);
    }
    L3::clear_directory(&path).map_err(DiskError::Open)?;
    Ok(true)
}

impl DiskError {
    /// Whether another process has the tier.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Open(error) if error.is_taken())
    }
}
