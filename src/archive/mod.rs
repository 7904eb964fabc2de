//! A file of stored responses, to carry them to another gateway or to keep them: how it is written and read. What of it is
//! believed, and what becomes of it, is for `cache` to decide.
//!
//! ```text
//! file     magic 8 | version u16 | records                      all of it one zstd stream, or none of it
//! record   kind u8 | length u32 | payload | check 8 | seal 16   little-endian
//!
//! header   once, first: JSON, see [`Header`]
//! entry    length of route u16, of variant u32, of head u32, of content u64 | route | variant | head
//! content  a piece; as many as it takes for the length that the entry named
//! dropped  in the place of a piece: the rest of that entry could not be read, and what there is of it is not to be used
//! end      once, last: JSON, see [`End`]
//! ```
//!
//! A digest (BLAKE3) goes over all records in turn. Its first eight bytes behind each record are the *check*: they show
//! damage, and records that are missing, doubled or in another order. The *seal* is a hash of the same digest under a key
//! that is made of the gateway's secret: it shows that who wrote the file has that secret. Whoever has not can look into
//! the file, and can change nothing in it that such a gateway would take.
//!
//! Reader and writer do no I/O: they are given bytes and give bytes. No input makes the reader panic, and none makes it
//! hold more than a record of [`RECORD_MAX`] and what it was given last.

use serde::{Deserialize, Serialize};

mod config;
mod reader;
mod record;
mod writer;

pub use config::Config;
pub use reader::{Error, Item, Reader};
pub use writer::{Form, Writer};

/// Raised whenever the layout changes: other versions are not read.
pub const VERSION: u16 = 1;

/// Bytes of a record's payload, at most. Longer heads are not written; content goes in pieces.
pub const RECORD_MAX: usize = 1 << 20;

/// Bytes of content in one record, at most.
pub const PIECE_MAX: usize = 128 << 10;

/// Media type of such a file.
pub const MEDIA_TYPE: &str = "application/vnd.larder.archive";

/// What is said of all of a file, at its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What wrote it, such as `larder 0.1.0`.
    pub software: String,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
    /// Which secret its keys and seals are made with: [`fingerprint`].
    pub secret: String,
    /// Version of the form of keys.
    pub key_schema: u32,
    /// Version of the stored form of an entry's head.
    pub entry_format: u16,
    /// Where the purge log was when the export began.
    pub log: LogPlace,
    /// Where the log of all nodes was, and in which of its lives; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetPlace>,
    /// What it was restricted to, in words of the call; empty: to nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub only: String,
    /// About how many entries were there to be looked at: what a progress bar goes by.
    pub expected: u64,
    /// Whether what lies on the disk is missing, as it is enciphered under keys that nobody has.
    #[serde(default)]
    pub memory_only: bool,
}

/// A place in a purge log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// The run of the log, in hexadecimal digits.
    pub run: String,
    /// The position.
    pub position: u64,
}

/// A place in the log of all nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetPlace {
    /// Which of its lives.
    pub life: u64,
    /// The position.
    pub position: u64,
}

/// What an entry begins with. Everything is as it was written, and none of it is looked into here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryHead {
    /// Name of its route.
    pub route: String,
    /// Its place among the variants of its URL, as `object::variants_codec` writes it; empty: it has none.
    pub variant: Vec<u8>,
    /// Its head, as `object::codec` writes it, as if there were no content.
    pub head: Vec<u8>,
    /// Length of its content.
    pub length: u64,
}

/// What a file came to, at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Entries in it.
    pub entries: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Entries that were left out because they were purged or past all use.
    pub useless: u64,
    /// Entries that could not be read.
    pub unreadable: u64,
}

/// Names a secret without telling it.
pub fn fingerprint(secret: &[u8; 32]) -> String {
    let named = blake3::derive_key("larder archive secret 1", secret);
    named[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key of the seals.
pub fn seal_key(secret: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("larder archive seal 1", secret)
}

#[cfg(test)]
mod tests;
