//! What makes two requests the same: 256 bits of BLAKE3 over length-prefixed fields.
//!
//! A key decides who gets which answer, so it has to resist crafted collisions; and it is a hash so that no URL, query
//! or body can be read from wherever keys are written. The first field is the schema version: a release that computes
//! keys differently never reads another one's entries.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

/// Raised whenever the same request would be given another key than before.
pub const KEY_SCHEMA: u32 = 1;

/// Identity of a stored response, or of all variants of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 64 bits, for tables and shards: as well distributed as any hash of it.
    pub fn prefix(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.prefix());
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:016x}..)", self.prefix().swap_bytes())
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hexadecimal digits")]
pub struct InvalidKey;

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(InvalidKey);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(InvalidKey);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let value = digit(pair[0])? << 4 | digit(pair[1])?;
            *byte = u8::try_from(value).map_err(|_| InvalidKey)?;
        }
        Ok(Self(bytes))
    }
}

/// Bytes of fields that need no memory of their own: what most keys are made of.
const INLINE: usize = 256;

/// Takes the fields of a key, in order. Every field is preceded by its length, so no two lists of fields look alike.
///
/// The fields are gathered and hashed at once: an incremental hasher is two kilobytes to set up, which is more work than
/// the hash of the hundred bytes a key is made of.
#[derive(Clone)]
pub struct KeyBuilder {
    inline: [u8; INLINE],
    /// Bytes in `inline`.
    length: usize,
    /// All of them, once they are too many.
    spilled: Vec<u8>,
}

impl KeyBuilder {
    /// A key of the kind `domain`, under the current schema version.
    pub fn new(domain: &str) -> Self {
        let mut builder = Self { inline: [0; INLINE], length: 0, spilled: Vec::new() };
        builder.put(&KEY_SCHEMA.to_le_bytes());
        builder.field(domain.as_bytes());
        builder
    }

    /// Appends one field.
    pub fn field(&mut self, bytes: &[u8]) -> &mut Self {
        // Four bytes of length: nothing a key is made of comes near their limit.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.put(&length.to_le_bytes());
        self.put(bytes);
        self
    }

    /// Appends one field that may be absent; absent differs from empty.
    pub fn optional(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            Some(bytes) => {
                self.put(&[1]);
                self.field(bytes)
            }
            None => {
                self.put(&[0]);
                self
            }
        }
    }

    /// The key.
    pub fn finish(&self) -> Key {
        Key(*blake3::hash(self.gathered()).as_bytes())
    }

    /// The key, where its fields may hold credentials: who has it and not the secret cannot try them out.
    pub fn finish_keyed(&self, secret: &[u8; 32]) -> Key {
        Key(*blake3::keyed_hash(secret, self.gathered()).as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if self.spilled.is_empty()
            && let Some(room) = self.inline.get_mut(self.length..end)
        {
            room.copy_from_slice(bytes);
            self.length = end;
            return;
        }
        if self.spilled.is_empty() {
            self.spilled.extend_from_slice(&self.inline[..self.length]);
        }
        self.spilled.extend_from_slice(bytes);
    }

    fn gathered(&self) -> &[u8] {
        if self.spilled.is_empty() { &self.inline[..self.length] } else { &self.spilled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let key = |fields: &[&str]| {
            let mut builder = KeyBuilder::new("test");
            fields.iter().for_each(|field| {
                builder.field(field.as_bytes());
            });
            builder.finish()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["ab"]), key(&["ab", ""]));
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
    }

    #[test]
    fn long_fields_are_whole() {
        let key = |length: usize, last: u8| {
            let mut field = vec![b'x'; length];
            field.push(last);
            let mut builder = KeyBuilder::new("test");
            builder.field(&field).field(b"end");
            (builder.gathered().len(), builder.finish())
        };
        for length in [0, 200, INLINE - 30, INLINE, 3 * INLINE] {
            let (gathered, one) = key(length, b'1');
            assert_eq!(gathered, 4 + 8 + 4 + length + 1 + 4 + 3);
            assert_ne!(one, key(length, b'2').1, "{length}");
        }
    }

    #[test]
    fn absent_is_not_empty() {
        assert_ne!(
            KeyBuilder::new("test").optional(None).finish(),
            KeyBuilder::new("test").optional(Some(b"")).finish()
        );
    }

    #[test]
    fn the_secret_is_part_of_a_keyed_key() {
        let builder = KeyBuilder::new("test");
        assert_ne!(builder.finish_keyed(&[1; 32]), builder.finish_keyed(&[2; 32]));
        assert_ne!(builder.finish_keyed(&[0; 32]), builder.finish());
    }

    #[test]
    fn text_and_back() {
        let key = KeyBuilder::new("test").finish();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("".parse::<Key>(), Err(InvalidKey));
        assert_eq!("g".repeat(64).parse::<Key>(), Err(InvalidKey));
    }
}
