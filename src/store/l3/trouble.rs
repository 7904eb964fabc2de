//! What can go wrong with a disk, in words that metrics and logs share.

use std::io;

use rustix::io::Errno;

/// Why the tier is of no use for now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The operating system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The index cannot be what was written.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// The index is another's.
    #[error("the index was written under another secret, or with another l3.readable_index")]
    Stranger,
}

impl Trouble {
    /// In a word.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Io(error) => io_kind(error),
            Self::Damaged(_) | Self::Stranger => "damaged",
        }
    }

    /// Whether there is no room.
    pub(super) fn is_full(&self) -> bool {
        self.kind() == "full"
    }
}

/// In a word.
fn io_kind(error: &io::Error) -> &'static str {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    match errno {
        Some(Errno::NOSPC | Errno::DQUOT) => "full",
        Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => "read-only",
        Some(Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV) => "gone",
        _ if error.kind() == io::ErrorKind::StorageFull => "full",
        _ => "io",
    }
}

/// Errors that tests make happen.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Number of the error of every write; 0: none.
    pub(super) writes: std::sync::atomic::AtomicI32,
    /// Number of the error of every read of content; 0: none.
    pub(super) reads: std::sync::atomic::AtomicI32,
}

/// Errors that tests make happen: none.
#[cfg(not(test))]
#[derive(Debug, Default)]
pub(super) struct Faults;

impl Faults {
    #[cfg(test)]
    pub(super) fn write(&self) -> io::Result<()> {
        Self::raise(&self.writes)
    }

    #[cfg(test)]
    pub(super) fn read(&self) -> io::Result<()> {
        Self::raise(&self.reads)
    }

    #[cfg(test)]
    fn raise(number: &std::sync::atomic::AtomicI32) -> io::Result<()> {
        match number.load(std::sync::atomic::Ordering::Relaxed) {
            0 => Ok(()),
            number => Err(io::Error::from_raw_os_error(number)),
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests have another one")]
    pub(super) fn write(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests have another one")]
    pub(super) fn read(&self) -> io::Result<()> {
        Ok(())
    }
}
