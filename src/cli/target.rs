//! Where an archive goes: to the standard output, into what takes bytes and is no file, or into a file that is there when
//! it is whole, for its owner alone.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::export::Error;

/// One archive on its way.
pub(super) enum Target {
    Stdout(io::Stdout),
    /// A device or a pipe: it is written into, for a file that took its name would put an end to it.
    Stream(fs::File, PathBuf),
    File(Box<NamedTempFile>, PathBuf),
}

/// Whether the standard streams are meant.
pub(super) fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

impl Target {
    pub(super) fn at(path: &Path) -> Result<Self, Error> {
        if is_standard(path) {
            return Ok(Self::Stdout(io::stdout()));
        }
        let path = match fs::metadata(path) {
            Ok(there) if there.is_file() => fs::canonicalize(path).map_err(Error::of(path))?,
            Ok(_) => {
                let stream = OpenOptions::new().write(true).open(path).map_err(Error::of(path))?;
                return Ok(Self::Stream(stream, path.to_owned()));
            }
            // Who cannot look at it cannot write beside it either, and is told so then.
            Err(_) => path.to_owned(),
        };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(".larder-export-").tempfile_in(directory);
        Ok(Self::File(Box::new(file.map_err(Error::of(&path))?), path))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Stdout(out) => out.write_all(bytes).map_err(Error::of(Path::new("standard output"))),
            Self::Stream(stream, path) => stream.write_all(bytes).map_err(Error::of(path)),
            Self::File(file, path) => file.write_all(bytes).map_err(Error::of(path)),
        }
    }

    /// Whether only its owner can read what is written.
    pub(super) fn is_private(&self) -> bool {
        matches!(self, Self::File(..))
    }

    /// Ends it; gives a file its name, in the place of what had it.
    pub(super) fn keep(self) -> Result<(), Error> {
        match self {
            Self::Stdout(mut out) => out.flush().map_err(Error::of(Path::new("standard output"))),
            Self::Stream(mut stream, path) => stream.flush().map_err(Error::of(&path)),
            Self::File(file, path) => {
                file.as_file().sync_all().map_err(Error::of(&path))?;
                let kept = file.persist(&path);
                kept.map(|_| ()).map_err(|error| Error::of(&path)(error.error))
            }
        }
    }
}
