//! Settings of the disk tier.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// What leaves L3 first, once nothing expired is left to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum L3Policy {
    /// Least recently used.
    Lru,
    /// Least frequently used; every idle day halves the count.
    Lfu,
    /// What expires soonest.
    Ttl,
    /// What is cheapest to lose: hits times the time the origin took, by byte.
    Cost,
}

/// What is written to L3 at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// What has been asked for twice.
    SecondHit,
    /// Everything storable.
    All,
}

/// `[l3]`: the disk tier.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct L3Config {
    /// Content and index together, as the disk counts them; 0: no disk tier.
    pub max_bytes: ByteSize,
    /// Entries, variants records included.
    pub entries_max: u64,
    /// Content of one entry; never more than half of `max_bytes`.
    pub object_bytes_max: ByteSize,
    /// What is left free on the disk for others.
    pub free_bytes_min: ByteSize,
    /// Bytes written a second, on average; 0: as fast as the disk is.
    pub write_rate: ByteSize,
    /// Bytes the scrub reads a second, on average; 0: no scrub.
    pub scrub_rate: ByteSize,
    /// See [`L3Policy`].
    pub policy: L3Policy,
    /// See [`Admission`].
    pub admission: Admission,
    /// Whether what compresses well is compressed.
    pub compression: bool,
    /// Entries that wait to be written.
    pub queue_max: usize,
    /// Bytes of memory held by those that wait.
    pub queue_bytes_max: ByteSize,
    /// Entries that return to memory after a start.
    pub preload_max: usize,
    /// Reads of the disk at the same time.
    pub threads: usize,
    /// How long a look-up may take before it counts as a miss.
    #[serde(with = "humantime_serde")]
    pub lookup_timeout: Duration,
    /// Memory for pages of the index.
    pub index_memory_bytes: ByteSize,
    /// Whether URLs, tags and fields lie readable in the index.
    pub readable_index: bool,
    /// Whether all that is stored is enciphered, each entry under a key of its own.
    pub encrypt: bool,
}

/// How what is stored lies on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Records sealed with the node's secret, content in clear.
    Sealed,
    /// Both in clear.
    Readable,
    /// Both under keys that the disk does not hold.
    Enciphered,
}

impl L3Config {
    pub(super) fn form(&self) -> Form {
        match (self.encrypt, self.readable_index) {
            (true, _) => Form::Enciphered,
            (false, true) => Form::Readable,
            (false, false) => Form::Sealed,
        }
    }
}

impl Form {
    pub(super) fn is_enciphered(self) -> bool {
        self == Self::Enciphered
    }
}
