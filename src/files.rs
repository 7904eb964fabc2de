//! Directories that belong to one process, and their files: readable by their owner alone, replaced whole.
//!
//! Nothing here knows what the files hold.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Another process has the directory.
#[derive(Debug, thiserror::Error)]
#[error("data directory {directory:?} is in use by another larder process{} (it holds {lock:?})", pid(*process))]
struct InUse {
    directory: PathBuf,
    lock: PathBuf,
    process: Option<u32>,
}

fn pid(process: Option<u32>) -> String {
    process.map_or_else(String::new, |process| format!(", pid {process}"))
}

/// An error with the path it is about.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path:?}")]
struct At {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Names what was being done to which path; the kind stays.
pub fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_owned();
    move |source| io::Error::new(source.kind(), At { verb, path, source })
}

/// Holds a directory until dropped; the operating system lets go of it when the process dies.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the directory, which is made if need be.
    ///
    /// # Errors
    /// If another process has it, whose number is told as far as it is known, or if it cannot be used.
    pub fn take(directory: &Path) -> io::Result<Self> {
        create_dir(directory)?;
        let path = directory.join("lock");
        let file = private().truncate(false).open(&path).map_err(at("open", &path))?;
        match file.try_lock() {
            Ok(()) => {
                sign(&file);
                Ok(Self { file })
            }
            Err(TryLockError::WouldBlock) => {
                let in_use = InUse { directory: directory.to_owned(), process: signature(&path), lock: path };
                Err(io::Error::new(io::ErrorKind::ResourceBusy, in_use))
            }
            Err(TryLockError::Error(error)) => Err(at("lock", &path)(error)),
        }
    }
}

impl Lock {
    /// Whether it is the one that others find in `directory`: that may have been removed, and made anew.
    pub fn is_of(&self, directory: &Path) -> bool {
        let there = fs::metadata(directory.join("lock"));
        match (self.file.metadata(), there) {
            (Ok(held), Ok(there)) => is_same(&held, &there),
            _ => false,
        }
    }
}

#[cfg(unix)]
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    // A directory in use cannot be removed there.
    true
}

/// Leaves the number of this process for whoever finds the directory taken. It holds without as well: on a full disk,
/// say.
fn sign(mut file: &File) {
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
}

fn signature(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Makes a directory only its owner can enter, and those above it.
///
/// # Errors
/// Naming the path, as those of all that follows.
pub fn create_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(at("create", path))
}

/// Options for a file that is written and that only its owner can read.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Puts a file with that content in place of `path`, whole or not at all, and returns it. Until [`sync_dir`] succeeded,
/// a power failure may bring the old one back.
///
/// # Errors
/// Where it cannot be written; the old one is as it was.
pub fn replace(path: &Path, content: &[u8], fsync: bool) -> io::Result<File> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = private().truncate(true).open(&temporary)?;
        file.write_all(content)?;
        if fsync {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        Ok(file)
    };
    write().map_err(|error| {
        // It may be the reason why the disk is full.
        let _ = fs::remove_file(&temporary);
        at("write", path)(error)
    })
}

/// Makes renames in the directory of `path` last.
///
/// # Errors
/// Where they may not.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("sync", dir))
}

/// The whole content; `None` if there is no such file.
///
/// # Errors
/// Where it cannot be read.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
    }
}

/// Opens an existing file for writing.
///
/// # Errors
/// Where it is not there or cannot be written.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path).map_err(at("open", path))
}

/// Keeps a copy of a damaged file for whoever wants to look at it; the last one only.
///
/// # Errors
/// Where it cannot be written.
pub fn keep_damaged(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".damaged");
    let copy = path.with_file_name(name);
    match fs::copy(path, &copy) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at("write", &copy)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let data_dir = dir.path().join("data");
        let lock = Lock::take(&data_dir).expect("free");
        let error = Lock::take(&data_dir).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        let pid = std::process::id();
        let told = format!("{data_dir:?} is in use by another larder process, pid {pid} (it holds");
        assert!(error.to_string().contains(&told), "{error}");
        assert!(lock.is_of(&data_dir));
        fs::remove_dir_all(&data_dir).expect("removed");
        assert!(!lock.is_of(&data_dir));
        let anew = Lock::take(&data_dir).expect("another directory");
        assert!(anew.is_of(&data_dir) && !lock.is_of(&data_dir));
        drop(anew);
        Lock::take(&data_dir).expect("free again");
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().expect("a directory");
        let data_dir = dir.path().join("data");
        let _lock = Lock::take(&data_dir).expect("free");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&data_dir), 0o700);
        assert_eq!(mode(&data_dir.join("lock")), 0o600);
    }

    #[test]
    fn an_error_names_the_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("missing").join("file");
        let error = replace(&path, b"", true).expect_err("no directory");
        assert!(error.to_string().contains(&format!("{path:?}")), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
