//! Keys: how they are made, and the hashes as which they are kept.

use std::{fmt, hash, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// Fewest bytes of a key: with fewer, whoever has its hash could find it.
pub const KEY_BYTES_MIN: usize = 16;

/// What keys begin with, so that those who search texts for secrets know them.
const PREFIX: &str = "lk-";

/// What hashes are written with.
const ALGORITHM: &str = "sha256:";

/// SHA-256 of a key. A key has more randomness than can be tried, so a slow hash would only make requests slow.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

/// A text that is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is \"sha256:\" and 64 hexadecimal digits, as `larder key` prints it")]
pub struct NotADigest;

impl Digest {
    /// Of a key.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

/// A key that nobody can guess, as a text.
///
/// # Errors
/// Where there is no randomness.
pub fn new_key() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok([PREFIX, &URL_SAFE_NO_PAD.encode(bytes)].concat())
}

impl PartialEq for Digest {
    /// In constant time: how long it takes tells nothing about any key.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl hash::Hash for Digest {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALGORITHM)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits = text.strip_prefix(ALGORITHM).ok_or(NotADigest)?.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0]).ok_or(NotADigest)? << 4 | digit(pair[1]).ok_or(NotADigest)?;
        }
        if digits.len() == 64 { Ok(Self(bytes)) } else { Err(NotADigest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_written_and_read() {
        let digest = Digest::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(text.to_uppercase().replace("SHA", "sha").parse(), Ok(digest));
        assert_ne!(Digest::of(b"abd"), digest);
        for wrong in ["", "sha256:", &text[7..], &text[..70], &format!("{text}0"), &text.replace("ba", "bg")] {
            assert_eq!(wrong.parse::<Digest>(), Err(NotADigest), "{wrong}");
        }
    }

    #[test]
    fn keys_are_long_enough_and_new_each_time() {
        let (one, other) = (new_key().expect("randomness"), new_key().expect("randomness"));
        assert_ne!(one, other);
        assert!(one.len() > 40 && one.bytes().all(|byte| byte.is_ascii_graphic()), "{one}");
    }
}
