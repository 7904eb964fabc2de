//! What keeps records of the index from being read, changed or moved.
//!
//! A record is sealed under a key derived from the node's secret and bound to the key of its entry: one that was
//! damaged, or put in another's place, does not open. Where the index is to be readable, it is bound in the same way
//! and lies in clear. The secret lies in the data directory: sealing protects an index that gets away without it.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::object::key::Key;

/// Bytes of the mark of a readable record.
const MARK: usize = 16;

/// Seals and opens.
pub(super) enum Seal {
    /// Authenticated encryption that stays safe should a nonce ever repeat.
    Closed(Box<LessSafeKey>),
    /// The key of the marks.
    Readable([u8; 32]),
}

impl Seal {
    /// With keys of its own, derived from `secret`.
    pub(super) fn new(secret: &[u8; 32], readable: bool) -> Self {
        if readable {
            return Self::Readable(blake3::derive_key("larder l3 readable record 1", secret));
        }
        let key = blake3::derive_key("larder l3 sealed record 1", secret);
        let key = UnboundKey::new(&AES_256_GCM_SIV, &key).expect("32 bytes are a key of this cipher");
        Self::Closed(Box::new(LessSafeKey::new(key)))
    }

    /// `record` as it is written under `key`; `None` without randomness.
    pub(super) fn seal(&self, key: &Key, record: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Closed(cipher) => {
                let mut nonce = [0; NONCE_LEN];
                getrandom::fill(&mut nonce).ok()?;
                let mut sealed = record.to_vec();
                let aad = Aad::from(key.as_bytes());
                cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
                Some([&nonce[..], &sealed].concat())
            }
            Self::Readable(marking) => Some([&mark(marking, key, record)[..], record].concat()),
        }
    }

    /// The record that was sealed under `key`; `None` where it was not, or not so.
    pub(super) fn open(&self, key: &Key, sealed: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Closed(cipher) => {
                let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
                let mut record = sealed.to_vec();
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let length = cipher.open_in_place(nonce, Aad::from(key.as_bytes()), &mut record).ok()?.len();
                record.truncate(length);
                Some(record)
            }
            Self::Readable(marking) => {
                let (found, record) = sealed.split_first_chunk::<MARK>()?;
                (*found == mark(marking, key, record)).then(|| record.to_vec())
            }
        }
    }
}

fn mark(marking: &[u8; 32], key: &Key, record: &[u8]) -> [u8; MARK] {
    let mut hasher = blake3::Hasher::new_keyed(marking);
    hasher.update(key.as_bytes()).update(record);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than a mark")
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const KEY: Key = Key::from_bytes([7; 32]);

    fn seals(secret: u8) -> [Seal; 2] {
        [Seal::new(&[secret; 32], false), Seal::new(&[secret; 32], true)]
    }

    #[test]
    fn bound_to_key_and_secret() {
        for (seal, stranger) in seals(1).iter().zip(&seals(2)) {
            let sealed = seal.seal(&KEY, b"record").expect("randomness");
            assert_eq!(seal.open(&KEY, &sealed).as_deref(), Some(&b"record"[..]));
            assert_eq!(seal.open(&Key::from_bytes([8; 32]), &sealed), None);
            assert_eq!(stranger.open(&KEY, &sealed), None);
        }
        let [closed, readable] = seals(1);
        let find = |seal: &Seal| {
            let sealed = seal.seal(&KEY, b"http://shop.example/secret").expect("randomness");
            sealed.windows(12).any(|window| *window == *b"shop.example")
        };
        assert!(!find(&closed) && find(&readable));
    }

    proptest! {
        #[test]
        fn any_damage_is_found(record in vec(any::<u8>(), 0..100), at: prop::sample::Index, bit in 0..8u8) {
            for seal in seals(1) {
                let mut sealed = seal.seal(&KEY, &record).expect("randomness");
                let at = at.index(sealed.len());
                prop_assert_eq!(seal.open(&KEY, &sealed[..at]), None);
                sealed[at] ^= 1 << bit;
                prop_assert_eq!(seal.open(&KEY, &sealed), None);
            }
        }
    }
}
