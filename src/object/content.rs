//! Content of an entry: its bytes and, where it is long, perhaps a file that holds the same bytes.
//!
//! Nothing here reads or writes the file: who has one hands it to whoever can send it without looking at what is in it.

use std::{fmt, ops::Deref, os::fd::AsFd, sync::Arc};

use bytes::Bytes;

/// A file that holds some content and nothing else. It never changes.
pub type Backing = Arc<dyn AsFd + Send + Sync>;

/// Content, complete. Cloning copies pointers.
#[derive(Clone)]
pub struct Content {
    bytes: Bytes,
    file: Option<Backing>,
}

/// All of some content, as a file.
#[derive(Clone)]
pub struct Filed {
    /// Holds it from its first byte on.
    pub file: Backing,
    /// Bytes of it.
    pub length: u64,
}

impl Content {
    /// Content that lies in a file as well: both must be the same for ever.
    pub fn filed(bytes: Bytes, file: Backing) -> Self {
        Self { bytes, file: Some(file) }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its file.
    pub fn file(&self) -> Option<Filed> {
        let file = self.file.as_ref()?;
        Some(Filed { file: Arc::clone(file), length: self.bytes.len() as u64 })
    }

    /// Whether there is a file.
    pub fn is_filed(&self) -> bool {
        self.file.is_some()
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, file: None }
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Content {}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("bytes", &self.bytes).field("filed", &self.is_filed()).finish()
    }
}
