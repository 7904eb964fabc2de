//! A log file that makes room for itself: `larder.log`, and before it `larder.log.1`, `larder.log.2` and so on.
//!
//! Others may make room as well: where the file was moved away or removed, another one is begun.
//!
//! What is written at once is in one file as a whole, or, where it cannot be written, in none: a full disk costs whole
//! lines, and no half of one stays.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Addresses of clients are nobody's business but the operator's and the group's.
const MODE: u32 = 0o640;

/// When a file has had its time, and what stays of those before it.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// Size at which another file is begun; 0: none is because of its size.
    pub bytes: u64,
    /// Age at which another file is begun; 0: none is because of its age.
    pub age: Duration,
    /// Files kept beside the one that is written.
    pub keep: usize,
}

/// A file that is written to its end, and then made room for.
#[derive(Debug)]
pub struct Rotating {
    path: PathBuf,
    rotation: Rotation,
    open: Open,
}

/// A file that is open to be written.
#[derive(Debug)]
struct Open {
    file: File,
    /// Device and number, by which it is known under any name.
    identity: (u64, u64),
    length: u64,
    begun: SystemTime,
}

impl Rotating {
    /// Goes on with the file at `path`, or begins it.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), rotation, open: Open::at(path)? })
    }

    /// Looks what others have done to it since. To ask costs little beside a write, and nobody has to tell.
    fn look(&mut self) {
        let there = fs::metadata(&self.path);
        match there.map(|told| (identity(&told), told.len())) {
            // Somebody may have emptied it.
            Ok((identity, length)) if identity == self.open.identity => self.open.length = length,
            // Where no other can be begun, what is open is better than nothing.
            _ => {
                let _ = Open::at(&self.path).map(|open| self.open = open);
            }
        }
    }

    fn is_due(&self, more: usize) -> bool {
        let Rotation { bytes, age, .. } = self.rotation;
        let full = bytes > 0 && self.open.length + more as u64 > bytes;
        // A clock that was set back makes no file old.
        let old = || !age.is_zero() && self.open.begun.elapsed().is_ok_and(|elapsed| elapsed >= age);
        self.open.length > 0 && (full || old())
    }

    /// Begins another file. Where that fails, the one there is goes on.
    fn rotate(&mut self) -> io::Result<()> {
        let keep = self.rotation.keep;
        for number in (1..keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if keep == 0 { fs::remove_file(&self.path) } else { fs::rename(&self.path, self.numbered(1)) }?;
        self.open = Open::at(&self.path)?;
        Ok(())
    }

    fn numbered(&self, number: usize) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        let told = file.metadata()?;
        // Not all file systems know when a file was made; then it is as old as what was last written to it.
        let begun = told.created().or_else(|_| told.modified())?;
        Ok(Self { file, identity: identity(&told), length: told.len(), begun })
    }
}

fn identity(told: &Metadata) -> (u64, u64) {
    (told.dev(), told.ino())
}

impl Write for Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.look();
        if self.is_due(bytes.len()) && self.rotate().is_err() {
            // It may have been moved, and no other begun.
            self.look();
        }
        let open = &mut self.open;
        match open.file.write_all(bytes) {
            Ok(()) => {
                open.length += bytes.len() as u64;
                Ok(bytes.len())
            }
            Err(error) => {
                // To make it shorter takes no room.
                let _ = open.file.set_len(open.length);
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Rotation = Rotation { bytes: 0, age: Duration::ZERO, keep: 2 };

    fn files(directory: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
        let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut found: Vec<_> = entries.map(|path| (name(&path), fs::read_to_string(&path).expect("text"))).collect();
        found.sort();
        found
    }

    fn expect(directory: &Path, expected: &[(&str, &str)]) {
        let found = files(directory);
        let found: Vec<_> = found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn by_size_and_the_oldest_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut file = Rotating::open(&path, Rotation { bytes: 8, ..NEVER }).expect("a file");
        for line in ["one\n", "two\n", "three\n", "four\n", "longer than all\n", "six\n"] {
            file.write_all(line.as_bytes()).expect("written");
        }
        expect(directory.path(), &[("log", "six\n"), ("log.1", "longer than all\n"), ("log.2", "four\n")]);
    }

    #[test]
    fn a_file_that_is_there_is_gone_on_with() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        for line in ["one\n", "two\n", "three\n"] {
            let mut file = Rotating::open(&path, Rotation { bytes: 8, ..NEVER }).expect("a file");
            file.write_all(line.as_bytes()).expect("written");
        }
        expect(directory.path(), &[("log", "three\n"), ("log.1", "one\ntwo\n")]);
    }

    #[test]
    fn by_age() {
        let directory = tempfile::tempdir().expect("a directory");
        let rotation = Rotation { age: Duration::from_secs(60), keep: 0, ..NEVER };
        let mut file = Rotating::open(&directory.path().join("log"), rotation).expect("a file");
        file.write_all(b"one\n").expect("written");
        file.write_all(b"two\n").expect("written");
        file.open.begun -= Duration::from_secs(61);
        file.write_all(b"three\n").expect("written");
        expect(directory.path(), &[("log", "three\n")]);
    }

    #[test]
    fn others_may_move_it_away_remove_it_and_empty_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut file = Rotating::open(&path, Rotation { bytes: 12, ..NEVER }).expect("a file");
        file.write_all(b"one\n").expect("written");
        fs::rename(&path, directory.path().join("moved")).expect("moved");
        file.write_all(b"two\n").expect("written");
        expect(directory.path(), &[("log", "two\n"), ("moved", "one\n")]);
        fs::remove_file(&path).expect("removed");
        file.write_all(b"three\n").expect("written");
        fs::write(&path, "").expect("emptied");
        file.write_all(b"four\nfive\n").expect("written");
        expect(directory.path(), &[("log", "four\nfive\n"), ("moved", "one\n")]);
    }

    #[test]
    fn where_no_other_can_be_begun_the_one_there_is_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut file = Rotating::open(&path, Rotation { bytes: 4, keep: 1, ..NEVER }).expect("a file");
        fs::create_dir_all(directory.path().join("log.1/full")).expect("a directory in the way");
        file.write_all(b"one\n").expect("written");
        file.write_all(b"two\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("text"), "one\ntwo\n");
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_said() {
        // Linux has a device for that; where there is none, there is nothing to see.
        let Ok(mut file) = Rotating::open(Path::new("/dev/full"), NEVER) else { return };
        assert!(file.write_all(b"one\n").is_err());
        assert_eq!(file.open.length, 0);
    }
}
