//! The deployment's secret: the key of the hashes that stand for credentials in keys and scopes, and what the disk tier's
//! own keys are made of.
//!
//! It is made at the first start and kept in the data directory, readable by its owner only: without it, nobody who
//! gets hold of a key can test whether a credential belongs to it. Where `secret_file` names another place it is the
//! operator's, and never made here: a name with a mistake in it would be another secret.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::config::Config;

const FILE: &str = "secret";

/// Longer than any form of it.
const FILE_BYTES_MAX: u64 = 128;

/// Where the secret is.
pub(super) fn path(config: &Config) -> PathBuf {
    match &config.secret_file[..] {
        "" => config.data_path().join(FILE),
        path => PathBuf::from(path),
    }
}

/// Whether whoever has the data directory has the secret with it.
pub(super) fn is_in_data_dir(config: &Config) -> bool {
    let canonical = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    canonical(&path(config)).starts_with(canonical(config.data_path()))
}

/// The secret, made if there is none and it is ours to make.
///
/// # Errors
/// Where it cannot be read or written, or is no secret.
pub(super) fn load_or_make(config: &Config) -> io::Result<[u8; 32]> {
    match load(config) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && config.secret_file.is_empty() => make(&path(config)),
        found => found,
    }
}

/// The secret.
///
/// # Errors
/// Where there is none, it cannot be read, or is no secret.
pub(super) fn load(config: &Config) -> io::Result<[u8; 32]> {
    let mut bytes = Vec::with_capacity(FILE_BYTES_MAX as usize);
    fs::File::open(path(config))?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the secret is neither 32 bytes nor 64 hexadecimal digits")
    })
}

/// 32 bytes as they are, or as hexadecimal digits with blanks around.
fn parse(bytes: &[u8]) -> Option<[u8; 32]> {
    if let Ok(secret) = bytes.try_into() {
        return Some(secret);
    }
    let digits = bytes.trim_ascii();
    let mut secret = [0; 32];
    if digits.len() != 2 * secret.len() {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(digits.as_chunks::<2>().0) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(secret)
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

    fn config(data_dir: &Path, secret_file: &str) -> Config {
        Config::parse("test", &format!("data_dir = {data_dir:?}\nsecret_file = {secret_file:?}")).expect("valid")
    }

    #[test]
    fn made_once_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(directory.path(), "");
        assert_eq!(load(&config).expect_err("none").kind(), io::ErrorKind::NotFound);
        let first = load_or_make(&config).expect("made");
        assert_eq!(load_or_make(&config).expect("read"), first);
        let mode = fs::metadata(path(&config)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(is_in_data_dir(&config));
    }

    #[test]
    fn a_damaged_secret_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(FILE), b"short").expect("written");
        assert!(load_or_make(&config(directory.path(), "")).is_err());
    }

    #[test]
    fn elsewhere_it_is_read_and_never_made() {
        let directory = tempfile::tempdir().expect("a directory");
        let data_dir = directory.path().join("data");
        fs::create_dir(&data_dir).expect("made");
        let file = directory.path().join("elsewhere");
        let elsewhere = config(&data_dir, file.to_str().expect("text"));
        assert_eq!(load_or_make(&elsewhere).expect_err("none").kind(), io::ErrorKind::NotFound);
        assert!(!file.exists() && !is_in_data_dir(&elsewhere));
        fs::write(&file, [7; 32]).expect("written");
        assert_eq!(load_or_make(&elsewhere).expect("read"), [7; 32]);
        fs::write(&file, format!("{}\n", "aB".repeat(32))).expect("written");
        assert_eq!(load_or_make(&elsewhere).expect("read"), [0xab; 32]);
        assert!(!data_dir.join(FILE).exists());
        let within = config(&data_dir, data_dir.join("../data/mine").to_str().expect("text"));
        fs::write(data_dir.join("mine"), [7; 32]).expect("written");
        assert!(is_in_data_dir(&within));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for bytes in [&b""[..], &[7; 31], &[7; 33], &[b'a'; 63], &[b'g'; 64], &[b'a'; 66], &[b' '; 64]] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
    }
}
