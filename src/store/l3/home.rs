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

/// Another form of the same version: nothing of the one can be read as the other, by any release.
const ENCIPHERED: &str = "2 enciphered";

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
    enciphered: bool,
    lock: Mutex<Lock>,
}

/// What the directory says of its form.
enum Signed {
    Enciphered(bool),
    /// There is nothing in it.
    Not,
}

impl Home {
    /// Takes the directory, which is made if need be. What lies in it in another form goes.
    pub(super) fn take(path: &Path, enciphered: bool) -> Result<Self, OpenError> {
        let home = Self::locked(path, enciphered)?;
        match home.signed()? {
            Signed::Enciphered(found) if found == enciphered => {}
            Signed::Enciphered(_) => home.change_form().map_err(OpenError::Directory)?,
            Signed::Not => home.sign().map_err(OpenError::Directory)?,
        }
        Ok(home)
    }

    /// As [`Home::take`], but nothing goes: it has the form it has, and `enciphered` counts where it has none.
    pub(super) fn take_as_it_is(path: &Path, enciphered: bool) -> Result<Self, OpenError> {
        let home = Self::locked(path, enciphered)?;
        match home.signed()? {
            Signed::Enciphered(enciphered) => return Ok(Self { enciphered, ..home }),
            Signed::Not => home.sign().map_err(OpenError::Directory)?,
        }
        Ok(home)
    }

    /// Takes the directory whatever its format is, and empties it.
    pub(super) fn clear(path: &Path) -> Result<(), OpenError> {
        // Who takes it next says in which form it begins.
        Self::locked(path, false)?.empty().map_err(OpenError::Directory)
    }

    fn locked(path: &Path, enciphered: bool) -> Result<Self, OpenError> {
        let lock = Lock::take(path).map_err(OpenError::Directory)?;
        Ok(Self { path: path.to_owned(), enciphered, lock: Mutex::new(lock) })
    }

    fn signed(&self) -> Result<Signed, OpenError> {
        let version = files::read(&self.version()).map_err(OpenError::Directory)?;
        let found = match version.as_deref().map(String::from_utf8_lossy) {
            Some(found) if found.trim() == VERSION => return Ok(Signed::Enciphered(false)),
            Some(found) if found.trim() == ENCIPHERED => return Ok(Signed::Enciphered(true)),
            Some(found) => found.trim().to_owned(),
            None if self.index().exists() => "none".to_owned(),
            None => return Ok(Signed::Not),
        };
        Err(OpenError::Version { path: self.path.clone(), found })
    }

    /// Begins anew in the form that is wanted now. The index goes first: without it the rest is only in the way, and is
    /// removed here or, after a crash, by whoever tidies up.
    fn change_form(&self) -> io::Result<()> {
        let form = if self.enciphered { "on" } else { "off" };
        tracing::warn!(
            directory = ?self.path,
            "disk tier: l3.encrypt has been switched {form}: what was stored before is removed"
        );
        self.mark()?;
        for file in ["index", "index.damaged"] {
            match fs::remove_file(self.path.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        files::sync_dir(&self.version())?;
        for directory in ["content-v2", "tmp"] {
            match fs::remove_dir_all(self.path.join(directory)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.sign()
    }

    /// Whether what lies in it is enciphered.
    pub(super) fn is_enciphered(&self) -> bool {
        self.enciphered
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
        match self.signed() {
            Ok(Signed::Enciphered(found)) if found == self.enciphered => {}
            Ok(Signed::Not) => self.sign()?,
            Err(OpenError::Directory(error)) => return Err(error),
            _ => return Err(io::Error::other("a directory of another form has come in place of ours")),
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

    /// Bytes of the file system.
    pub(super) fn file_system_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.path)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    fn version(&self) -> PathBuf {
        self.path.join("version")
    }

    fn sign(&self) -> io::Result<()> {
        let version = if self.enciphered { ENCIPHERED } else { VERSION };
        files::replace(&self.version(), format!("{version}\n").as_bytes(), true)?;
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
        let home = Home::take(&path, false).expect("made");
        home.probe().expect("writable");
        assert_eq!(home.mark().ok(), Some(false));
        assert_eq!(home.mark().ok(), Some(true));
        home.unmark().expect("marked");
        assert!(home.free_bytes().expect("known") > 0);
        let error = Home::take(&path, false).expect_err("taken").to_string();
        assert!(error.contains(&format!("{path:?}")) && error.contains(&std::process::id().to_string()), "{error}");
        assert!(Home::clear(&path).is_err_and(|error| error.is_taken()), "not under its owner's hands");
        drop(home);

        fs::write(path.join("version"), "99\n").expect("written");
        let error = Home::take(&path, false).expect_err("foreign").to_string();
        assert!(error.contains("\"99\"") && error.contains("larder disk clear"), "{error}");
        fs::create_dir(path.join("content-v2")).expect("made");
        Home::clear(&path).expect("cleared");
        assert!(!path.join("content-v2").exists());
        drop(Home::take(&path, false).expect("ours"));

        fs::write(path.join("file"), "").expect("written");
        let error = Home::take(&path.join("file"), false).expect_err("no directory").to_string();
        assert!(error.contains("file") && error.contains("os error"), "{error}");

        fs::remove_file(path.join("version")).expect("there");
        fs::write(path.join("index"), "").expect("written");
        assert!(matches!(Home::take(&path, false), Err(OpenError::Version { .. })), "half of something");
    }

    #[test]
    fn another_form_begins_empty_and_is_left_alone_by_operators() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("l3");
        let fill = || {
            fs::create_dir_all(path.join("content-v2/sha256")).expect("made");
            for file in ["index", "index.damaged", "content-v2/sha256/x"] {
                fs::write(path.join(file), "").expect("written");
            }
        };
        let left =
            || ["index", "index.damaged", "content-v2"].into_iter().filter(|name| path.join(name).exists()).count();
        for enciphered in [false, true, false] {
            assert_eq!(Home::take(&path, enciphered).expect("taken").is_enciphered(), enciphered);
            assert_eq!(left(), 0);
            fill();
            assert_eq!(Home::take(&path, enciphered).expect("taken").is_enciphered(), enciphered);
            assert_eq!(Home::take_as_it_is(&path, !enciphered).expect("taken").is_enciphered(), enciphered);
            assert_eq!(left(), 3);
        }
        // Cut off between the index and the new signature: it is done again.
        fs::remove_file(path.join("index")).expect("there");
        drop(Home::take(&path, true).expect("taken"));
        assert_eq!(left(), 0);
        Home::clear(&path).expect("cleared");
        assert!(Home::take_as_it_is(&path, true).expect("taken").is_enciphered(), "of no form before");
    }
}
