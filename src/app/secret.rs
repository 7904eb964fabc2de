//! The deployment's secret: the key of the hashes that stand for credentials in keys and scopes.
//!
//! It is made at the first start and kept in the data directory, readable by its owner only: without it, nobody who
//! gets hold of a key can test whether a credential belongs to it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

const FILE: &str = "secret";

/// The secret of `data_dir`, made if there is none.
///
/// # Errors
/// Where it cannot be read or written, or is not 32 bytes long.
pub(super) fn load_or_make(data_dir: &Path) -> io::Result<[u8; 32]> {
    match load(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&data_dir.join(FILE)),
        found => found,
    }
}

/// The secret of `data_dir`.
///
/// # Errors
/// Where there is none, it cannot be read, or is not 32 bytes long.
pub(super) fn load(data_dir: &Path) -> io::Result<[u8; 32]> {
    read(fs::File::open(data_dir.join(FILE))?)
}

fn read(file: fs::File) -> io::Result<[u8; 32]> {
    let mut bytes = Vec::with_capacity(33);
    file.take(33).read_to_end(&mut bytes)?;
    bytes.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the secret file is not 32 bytes long"))
}

/// Written beside and renamed, so that a crash leaves either no secret or a whole one.
fn make(path: &Path) -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_once_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(load(directory.path()).expect_err("none").kind(), io::ErrorKind::NotFound);
        let first = load_or_make(directory.path()).expect("made");
        assert_eq!(load_or_make(directory.path()).expect("read"), first);
        let mode = fs::metadata(directory.path().join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_secret_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(FILE), b"short").expect("written");
        assert!(load_or_make(directory.path()).is_err());
    }
}
