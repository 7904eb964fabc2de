//! Content as it lies on the disk where nobody is to read it there.
//!
//! AES-256-GCM, chunk by chunk, in place: the tags go elsewhere, so every byte stays where it was, and any chunk can be
//! read without the others. A key is made for one content and enciphers each of its chunks once, so the chunk's number is
//! a nonce that never repeats.

use std::{fmt, io};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// What makes the key of one content different from that of any other.
pub(super) type Salt = [u8; 32];

/// What shows that a chunk is what was enciphered, under that key and number.
pub(super) type Tag = [u8; 16];

/// Enciphers and deciphers one content.
pub(super) struct Cipher(LessSafeKey);

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key of this cipher");
        Self(LessSafeKey::new(key))
    }

    /// Enciphers a chunk in place. No number may come twice.
    pub(super) fn seal(&self, number: usize, chunk: &mut [u8]) -> io::Result<Tag> {
        let tag = self.0.seal_in_place_separate_tag(nonce(number), Aad::empty(), chunk);
        let tag = tag.ok().and_then(|tag| tag.as_ref().try_into().ok());
        tag.ok_or_else(|| io::Error::other("content could not be enciphered"))
    }

    /// Deciphers a chunk in place. Whether it is what was enciphered: if not, what it holds is of no meaning.
    pub(super) fn open(&self, number: usize, chunk: &mut [u8], tag: &Tag) -> bool {
        self.0.open_in_place_separate_tag(nonce(number), Aad::empty(), tag, chunk).is_ok()
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// A new salt.
pub(super) fn salt() -> io::Result<Salt> {
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(|_| io::Error::other("no randomness"))?;
    Ok(salt)
}

fn nonce(number: usize) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&(number as u64).to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn only_what_was_enciphered_there_opens(
            content in vec(any::<u8>(), 1..200),
            at: prop::sample::Index,
            bit in 0..8u8,
            number in 0..9usize,
        ) {
            let (cipher, stranger) = (Cipher::new(&[1; 32]), Cipher::new(&[2; 32]));
            let mut sealed = content.clone();
            let tag = cipher.seal(number, &mut sealed).expect("short");
            prop_assert_eq!(sealed.len(), content.len());
            let opens = |cipher: &Cipher, number, mut chunk: Vec<u8>, tag: &Tag| {
                cipher.open(number, &mut chunk, tag).then_some(chunk)
            };
            prop_assert_eq!(opens(&stranger, number, sealed.clone(), &tag), None);
            prop_assert_eq!(opens(&cipher, number + 1, sealed.clone(), &tag), None);
            let mut other = tag;
            other[at.index(16)] ^= 1 << bit;
            prop_assert_eq!(opens(&cipher, number, sealed.clone(), &other), None);
            let mut damaged = sealed.clone();
            damaged[at.index(content.len())] ^= 1 << bit;
            prop_assert_eq!(opens(&cipher, number, damaged, &tag), None);
            prop_assert_eq!(opens(&cipher, number, sealed, &tag), Some(content));
        }
    }

    #[test]
    fn equal_chunks_do_not_look_alike() {
        let cipher = Cipher::new(&[1; 32]);
        let [mut one, mut two] = [[0; 64]; 2];
        cipher.seal(0, &mut one).expect("short");
        cipher.seal(1, &mut two).expect("short");
        assert_ne!(one, two);
        assert_ne!(salt().expect("randomness"), salt().expect("randomness"));
    }
}
