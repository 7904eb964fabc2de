//! Where the index has what belongs to a key.
//!
//! That is the key itself, unless what is stored is enciphered: then a keyed hash of it, for the key opens what is found
//! there and must not lie beside it. Whatever deals with the disk knows locators, and whoever opens something brings the
//! key.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use crate::object::key::Key;

/// See above.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Locator([u8; 32]);

/// A key, and where the index has what belongs to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    pub(super) key: Key,
    pub(super) locator: Locator,
}

impl Locator {
    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 64 bits: as well distributed as any hash of it.
    pub(super) fn prefix(&self) -> u64 {
        self.0.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

impl Hash for Locator {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.prefix());
    }
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locator({:016x}..)", self.prefix().swap_bytes())
    }
}
