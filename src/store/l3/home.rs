//! The tier's directory: one owner, and a format that is known.
//!
//! ```text
//! lock  version  running  index  content-v2/  tmp/
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use crate::files::{self, Lock};

/// Raised whenever anything in the directory changes its form.
const VERSION: &str = "2";

/// Why the tier cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used, or belongs to another process.
    #[error("disk tier: {}", in_full(.0))]
    Directory(io::Error),
    /// Another release wrote it.
    #[error(
        "disk tier: {path:?} has format {found:?}, and this release reads {VERSION:?}; `larder disk clear` empties it"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A thread cannot be started.
    #[error("disk tier: cannot start its threads: {0}")]
    Threads(#[source] io::Error),
}

/// An error and what it comes from.
fn in_full(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.source()) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl OpenError {
    /// Whether another process has the directory.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Directory(error) if error.kind() == io::ErrorKind::ResourceBusy)
    }
}

/// The directory, as long as it is ours.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    lock: Mutex<Lock>,
}

impl Home {
    /// Takes the directory, which is made if need be.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let home = Self::locked(path)?;
        let version = files::read(&home.version()).map_err(OpenError::Directory)?;
        match version.as_deref().map(String::from_utf8_lossy) {
            Some(found) if found.trim() == VERSION => Ok(home),
            Some(found) => Err(OpenError::Version { path: path.to_owned(), found: found.trim().to_owned() }),
            None if home.index().exists() => {
                Err(OpenError::Version { path: path.to_owned(), found: "none".to_owned() })
            }
            None => {
                home.sign().map_err(OpenError::Directory)?;
                Ok(home)
            }
        }
    }

    /// Takes the directory whatever its format is, and empties it.
    pub(super) fn clear(path: &Path) -> Result<(), OpenError> {
        let home = Self::locked(path)?;
        home.empty().and_then(|()| home.sign()).map_err(OpenError::Directory)
    }

    fn locked(path: &Path) -> Result<Self, OpenError> {
        let lock = Lock::take(path).map_err(OpenError::Directory)?;
        Ok(Self { path: path.to_owned(), lock: Mutex::new(lock) })
    }

    /// Whether it is still the directory that was taken.
    pub(super) fn is_ours(&self) -> bool {
        self.lock.lock().is_of(&self.path)
    }

    /// Takes the directory anew, where it has been removed and made again. It is not made here: what is missing may be
    /// a disk.
    pub(super) fn settle(&self) -> io::Result<()> {
        fs::metadata(&self.path)?;
        let mut lock = self.lock.lock();
        if lock.is_of(&self.path) {
            return Ok(());
        }
        *lock = Lock::take(&self.path)?;
        match files::read(&self.version())? {
            Some(found) if String::from_utf8_lossy(&found).trim() == VERSION => {}
            None if !self.index().exists() => self.sign()?,
            _ => return Err(io::Error::other("another release's directory has come in place of ours")),
        }
        self.mark().map(drop)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn index(&self) -> PathBuf {
        self.path.join("index")
    }

    /// Marks it as in use. Whether it was already: then the last process did not come to its end.
    pub(super) fn mark(&self) -> io::Result<bool> {
        let marked = self.running().exists();
        files::private().open(self.running())?;
        Ok(marked)
    }

    /// Takes the mark away: everything is as it should be.
    pub(super) fn unmark(&self) -> io::Result<()> {
        fs::remove_file(self.running())
    }

    fn running(&self) -> PathBuf {
        self.path.join("running")
    }

    /// Whether it can be written, to the disk.
    pub(super) fn probe(&self) -> io::Result<()> {
        let path = self.path.join("probe");
        files::replace(&path, &[0; 4096], true)?;
        fs::remove_file(path)
    }

    /// Puts a damaged index out of the way; only the last one is kept.
    pub(super) fn set_index_aside(&self) -> io::Result<()> {
        fs::rename(self.index(), self.path.join("index.damaged"))
    }

    /// What the index takes of the disk.
    pub(super) fn index_bytes(&self) -> u64 {
        fs::metadata(self.index()).map_or(0, |metadata| metadata.len())
    }

    /// Bytes that are free for us.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn version(&self) -> PathBuf {
        self.path.join("version")
    }

    fn sign(&self) -> io::Result<()> {
        files::replace(&self.version(), format!("{VERSION}\n").as_bytes(), true)?;
        files::sync_dir(&self.version())
    }

    /// Removes all but the lock.
    fn empty(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            match path.file_name() {
                Some(name) if name == "lock" => {}
                _ if path.is_dir() => fs::remove_dir_all(path)?,
                _ => fs::remove_file(path)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_and_one_format() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("l3");
        let home = Home::take(&path).expect("made");
        home.probe().expect("writable");
        assert_eq!(home.mark().ok(), Some(false));
        assert_eq!(home.mark().ok(), Some(true));
        home.unmark().expect("marked");
        assert!(home.free_bytes().expect("known") > 0);
        let error = Home::take(&path).expect_err("taken").to_string();
        assert!(error.contains(&format!("{path:?}")) && error.contains(&std::process::id().to_string()), "{error}");
        assert!(Home::clear(&path).is_err_and(|error| error.is_taken()), "not under its owner's hands");
        drop(home);

        fs::write(path.join("version"), "99\n").expect("written");
        let error = Home::take(&path).expect_err("foreign").to_string();
        assert!(error.contains("\"99\"") && error.contains("larder disk clear"), "{error}");
        fs::create_dir(path.join("content-v2")).expect("made");
        Home::clear(&path).expect("cleared");
        assert!(!path.join("content-v2").exists());
        drop(Home::take(&path).expect("ours"));

        fs::write(path.join("file"), "").expect("written");
        let error = Home::take(&path.join("file")).expect_err("no directory").to_string();
        assert!(error.contains("file") && error.contains("os error"), "{error}");

        fs::remove_file(path.join("version")).expect("there");
        fs::write(path.join("index"), "").expect("written");
        assert!(matches!(Home::take(&path), Err(OpenError::Version { .. })), "half of something");
    }
}
