//! What keeps values in Redis from being read, changed or moved by who has Redis and not the secret.
//!
//! Each entry is enciphered under a key of its own, made of the secret and the entry's key, and bound to the head of its
//! value, which scripts read and which says nothing of the content. Names are keyed hashes of keys (`names.rs`), so that
//! what opens an entry lies nowhere in Redis.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::object::key::Key;

/// Seals and opens.
pub(super) struct Seal {
    key: [u8; 32],
}

impl Seal {
    /// What is made of the deployment's secret; beside it, the key of the hashes that names are made of.
    pub(super) fn new(secret: &[u8; 32]) -> (Self, [u8; 32]) {
        let key = blake3::derive_key("larder l2 enciphered value 1", secret);
        (Self { key }, blake3::derive_key("larder l2 enciphered name 1", secret))
    }

    /// `plain`, sealed for `key` and bound to `head`; `None` without randomness.
    pub(super) fn seal(&self, key: &Key, head: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from(bound(key, head));
        self.cipher(key).seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    /// What was sealed for `key` and bound to `head`; `None` where it was not.
    pub(super) fn open(&self, key: &Key, head: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut plain = sealed.to_vec();
        let aad = Aad::from(bound(key, head));
        let length = self.cipher(key).open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    fn cipher(&self, key: &Key) -> LessSafeKey {
        let key = *blake3::keyed_hash(&self.key, key.as_bytes()).as_bytes();
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &key).expect("32 bytes are a key of this cipher"))
    }
}

fn bound(key: &Key, head: &[u8]) -> Vec<u8> {
    [key.as_bytes(), head].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_to_secret_key_and_head() {
        let ((seal, name), (stranger, other_name)) = (Seal::new(&[1; 32]), Seal::new(&[2; 32]));
        let (one, other) = (Key::from_bytes([7; 32]), Key::from_bytes([8; 32]));
        let sealed = seal.seal(&one, b"head", b"content").expect("randomness");
        assert_eq!(seal.open(&one, b"head", &sealed).as_deref(), Some(&b"content"[..]));
        assert_eq!(seal.open(&other, b"head", &sealed), None);
        assert_eq!(seal.open(&one, b"heat", &sealed), None);
        assert_eq!(stranger.open(&one, b"head", &sealed), None);
        assert_eq!(seal.open(&one, b"head", &sealed[..10]), None);
        assert!(!sealed.windows(7).any(|window| window == b"content"));
        assert_ne!(name, other_name);
    }
}
