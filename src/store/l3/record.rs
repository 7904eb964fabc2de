//! What the index holds of an entry: where its content is, how that is found right, and its head.
//!
//! ```text
//! kind u8 | coding u8 | content id 32 | bytes stored u64 | length u64 | proof | head or variants
//! proof         checksums: number u32, each u64
//!  enciphered   tags: number u32, each 16 | salt 32       (and the highest bit of the coding is set)
//! ```
//!
//! The head is that of `object::codec`. That of a whole entry vouches for the content; that of a large one is written
//! as if there were none, and [`CHUNK`] by `CHUNK` of the content has a checksum or a tag here, so that any part of it can
//! be found right before it is sent.

use xxhash_rust::xxh3::xxh3_64;

use super::{
    super::compress::COMPRESSED_MAX,
    cipher::{Salt, Tag},
    content::ContentId,
    proof::Proof,
};

/// Bytes of large content that are read, found right and sent together.
pub(super) const CHUNK: usize = 128 << 10;

/// Longest content that is always held in memory as a whole: small enough for one read and one write.
pub(super) const WHOLE_MAX: u64 = 256 << 10;

const START: usize = 1 + 1 + 32 + 8 + 8 + 4;

/// Set in the coding of enciphered content.
const SEALED: u8 = 1 << 7;

/// What kind of slot a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An entry that is read as a whole.
    Whole,
    /// An entry whose content is read in pieces.
    Large,
    /// A variants record; there is no content.
    Variants,
}

/// How content lies on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Zstd,
}

/// Content on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    /// Hash of the bytes on the disk.
    pub(super) id: ContentId,
    /// How many these are; 0: there is no file.
    pub(super) bytes: u64,
    pub(super) coding: Coding,
    /// Length of the content.
    pub(super) length: u64,
}

/// A record, as it is before it is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) stored: Stored,
    /// What the content is found right by.
    pub(super) proof: Proof,
    /// As `object::codec` or `object::variants_codec` wrote it.
    pub(super) head: Vec<u8>,
}

/// Of one chunk: against damage, not against forgery.
pub(super) fn checksum(chunk: &[u8]) -> u64 {
    xxh3_64(chunk)
}

impl Stored {
    /// No content.
    pub(super) const NONE: Self = Self { id: ContentId::NONE, bytes: 0, coding: Coding::Plain, length: 0 };

    /// Its file, if there is one.
    pub(super) fn file(&self) -> Option<(ContentId, u64)> {
        (self.bytes > 0).then_some((self.id, self.bytes))
    }
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(START + self.proof.bytes() + size_of::<Salt>() + self.head.len());
        out.push(match self.kind {
            Kind::Whole => 0,
            Kind::Large => 1,
            Kind::Variants => 2,
        });
        let coding = match self.stored.coding {
            Coding::Plain => 0,
            Coding::Zstd => 1,
        };
        out.push(if matches!(self.proof, Proof::Sealed { .. }) { coding | SEALED } else { coding });
        out.extend_from_slice(self.stored.id.as_bytes());
        out.extend_from_slice(&self.stored.bytes.to_le_bytes());
        out.extend_from_slice(&self.stored.length.to_le_bytes());
        let number = |chunks: usize| u32::try_from(chunks).expect("content of a petabyte is not stored").to_le_bytes();
        match &self.proof {
            Proof::Sums(sums) => {
                out.extend_from_slice(&number(sums.len()));
                sums.iter().for_each(|sum| out.extend_from_slice(&sum.to_le_bytes()));
            }
            Proof::Sealed { salt, tags } => {
                out.extend_from_slice(&number(tags.len()));
                tags.iter().for_each(|tag| out.extend_from_slice(tag));
                out.extend_from_slice(salt);
            }
        }
        out.extend_from_slice(&self.head);
        out
    }

    /// The record that [`Record::encode`] wrote; `None` for anything else, as far as that can be told.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (start, rest) = bytes.split_first_chunk::<START>()?;
        let kind = match start[0] {
            0 => Kind::Whole,
            1 => Kind::Large,
            2 => Kind::Variants,
            _ => return None,
        };
        let coding = match start[1] & !SEALED {
            0 => Coding::Plain,
            1 => Coding::Zstd,
            _ => return None,
        };
        let number = |at: usize| start[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let id = ContentId::from_bytes(*start[2..].first_chunk()?);
        let stored = Stored { id, bytes: number(34)?, coding, length: number(42)? };
        let count = usize::try_from(u32::from_le_bytes(*start.last_chunk()?)).ok()?;
        let (proof, head) = if start[1] & SEALED == 0 {
            let (sums, head) = rest.split_at_checked(count.checked_mul(size_of::<u64>())?)?;
            (Proof::Sums(sums.as_chunks().0.iter().map(|sum| u64::from_le_bytes(*sum)).collect()), head)
        } else {
            let (tags, rest) = rest.split_at_checked(count.checked_mul(size_of::<Tag>())?)?;
            let (salt, head) = rest.split_first_chunk()?;
            (Proof::Sealed { salt: *salt, tags: tags.as_chunks().0.to_vec() }, head)
        };
        let record = Self { kind, stored, proof, head: head.to_vec() };
        record.is_consistent().then_some(record)
    }

    /// Whether it says nothing that would make its reader allocate or read at random.
    fn is_consistent(&self) -> bool {
        let Stored { bytes, coding, length, .. } = self.stored;
        let plain = coding == Coding::Plain && bytes == length;
        let (chunks, sealed) = match &self.proof {
            Proof::Sums(sums) => (sums.len() as u64, false),
            Proof::Sealed { tags, .. } => (tags.len() as u64, true),
        };
        let proven = if sealed { chunks == 1 } else { chunks == 0 };
        match self.kind {
            Kind::Whole if coding == Coding::Zstd => proven && bytes > 0 && bytes <= length && length <= COMPRESSED_MAX,
            Kind::Whole => proven && plain && length <= WHOLE_MAX,
            Kind::Large => plain && chunks == length.div_ceil(CHUNK as u64),
            Kind::Variants => length == 0 && bytes == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn record(kind: Kind, bytes: u64, coding: Coding, length: u64, sums: usize) -> Record {
        let stored = Stored { id: ContentId::from_bytes([3; 32]), bytes, coding, length };
        Record { kind, stored, proof: Proof::Sums((0..sums as u64).collect()), head: b"head".to_vec() }
    }

    /// As it is where content is enciphered.
    fn sealed(record: Record, tags: usize) -> Record {
        let tags = (0..tags as u8).map(|nth| [nth; 16]).collect();
        Record { proof: Proof::Sealed { salt: [9; 32], tags }, ..record }
    }

    #[test]
    fn there_and_back() {
        for record in [
            record(Kind::Whole, 10, Coding::Plain, 10, 0),
            record(Kind::Whole, 10, Coding::Zstd, 1000, 0),
            record(Kind::Large, 300 << 10, Coding::Plain, 300 << 10, 3),
            record(Kind::Variants, 0, Coding::Plain, 0, 0),
            sealed(record(Kind::Whole, 10, Coding::Plain, 10, 0), 1),
            sealed(record(Kind::Whole, 10, Coding::Zstd, 1000, 0), 1),
            sealed(record(Kind::Large, 300 << 10, Coding::Plain, 300 << 10, 0), 3),
        ] {
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for record in [
            record(Kind::Whole, 10, Coding::Plain, 11, 0),
            record(Kind::Whole, 1 << 40, Coding::Plain, 1 << 40, 0),
            record(Kind::Whole, 10, Coding::Zstd, 1 << 40, 0),
            record(Kind::Large, 300 << 10, Coding::Plain, 300 << 10, 2),
            record(Kind::Variants, 1, Coding::Plain, 1, 0),
            record(Kind::Whole, 10, Coding::Plain, 10, 1),
            sealed(record(Kind::Whole, 10, Coding::Plain, 10, 0), 0),
            sealed(record(Kind::Whole, 10, Coding::Zstd, 1000, 0), 2),
            sealed(record(Kind::Large, 300 << 10, Coding::Plain, 300 << 10, 0), 2),
        ] {
            assert_eq!(Record::decode(&record.encode()), None, "{record:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_read_without_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
        }
    }
}
