//! What keeps records of the index from being read, changed or moved, and what the keys of contents are made of.
//!
//! A record is bound to its entry's key: one that was damaged, or put in another's place, does not open. Beside that it
//! lies in one of three forms:
//!
//! | form | who has the node's secret reads | without it |
//! |---|---|---|
//! | sealed | every record; content needs no key | contents alone |
//! | readable | the same | the same |
//! | enciphered | that of which he can say the entry's key, and its content | neither |
//!
//! An entry's key is a keyed hash of the request, with its partition, which may be a credential. Of what is enciphered it
//! is nowhere on the disk: records lie under a keyed hash of it ([`Locator`]). They are marked beside, so that damage is
//! found without the key.

use std::{io, sync::Arc};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{
    brief::place,
    cipher::{self, Cipher, Salt},
    config::Form,
    locator::{Address, Locator},
    proof::{Opener, Proof, Prover},
};
use crate::object::{key::Key, scope::Scope};

/// Bytes of the mark of a record that can be checked without being opened.
const MARK: usize = 16;

/// Seals and opens.
pub(super) enum Seal {
    /// Authenticated encryption that stays safe should a nonce ever repeat.
    Closed(Box<LessSafeKey>),
    /// The key of the marks.
    Readable([u8; 32]),
    /// Records and contents each under a key of their own.
    Enciphered(Box<Keys>),
}

/// What other keys are made of, all derived from the secret.
pub(super) struct Keys {
    locator: [u8; 32],
    mark: [u8; 32],
    record: [u8; 32],
    content: [u8; 32],
    place: [u8; 32],
}

impl Keys {
    fn new(secret: &[u8; 32]) -> Self {
        Self {
            locator: blake3::derive_key("larder l3 enciphered locator 1", secret),
            mark: blake3::derive_key("larder l3 enciphered mark 1", secret),
            record: blake3::derive_key("larder l3 enciphered record 1", secret),
            content: blake3::derive_key("larder l3 enciphered content 1", secret),
            place: blake3::derive_key("larder l3 enciphered place 1", secret),
        }
    }

    /// What opens records under `key`: there may be several in turn, each with a nonce of its own.
    fn record(&self, key: &Key) -> LessSafeKey {
        siv(blake3::keyed_hash(&self.record, key.as_bytes()).as_bytes())
    }

    /// What opens the one content under `key` that has this salt.
    fn content(&self, key: &Key, salt: &Salt) -> Cipher {
        let mut both = [0; 64];
        both[..32].copy_from_slice(salt);
        both[32..].copy_from_slice(key.as_bytes());
        Cipher::new(blake3::keyed_hash(&self.content, &both).as_bytes())
    }
}

impl Seal {
    /// With keys of its own, derived from `secret`.
    pub(super) fn new(secret: &[u8; 32], form: Form) -> Self {
        match form {
            Form::Sealed => Self::Closed(Box::new(siv(&blake3::derive_key("larder l3 sealed record 1", secret)))),
            Form::Readable => Self::Readable(blake3::derive_key("larder l3 readable record 1", secret)),
            Form::Enciphered => Self::Enciphered(Box::new(Keys::new(secret))),
        }
    }

    /// Where the index has what belongs to `key`.
    pub(super) fn address(&self, key: &Key) -> Address {
        Address { key: *key, locator: self.locator(key) }
    }

    /// As [`Seal::address`], where the key is not needed beside.
    pub(super) fn locator(&self, key: &Key) -> Locator {
        match self {
            Self::Closed(_) | Self::Readable(_) => Locator::from_bytes(*key.as_bytes()),
            Self::Enciphered(keys) => {
                Locator::from_bytes(*blake3::keyed_hash(&keys.locator, key.as_bytes()).as_bytes())
            }
        }
    }

    /// The key of what the index has there, if that can be told.
    pub(super) fn key(&self, locator: &Locator) -> Option<Key> {
        match self {
            Self::Closed(_) | Self::Readable(_) => Some(Key::from_bytes(*locator.as_bytes())),
            Self::Enciphered(_) => None,
        }
    }

    /// The place of a URL in tables of what is known by URL, as it is written.
    pub(super) fn place(&self, url: Scope) -> u16 {
        match self {
            Self::Closed(_) | Self::Readable(_) => place(url),
            Self::Enciphered(keys) => {
                let hash = blake3::keyed_hash(&keys.place, &url.bits().to_le_bytes());
                let [first, second, ..] = *hash.as_bytes();
                u16::from_le_bytes([first, second])
            }
        }
    }

    /// `record` as it is written at `address`; `None` without randomness.
    pub(super) fn seal(&self, address: &Address, record: &[u8]) -> Option<Vec<u8>> {
        let Address { key, locator } = address;
        match self {
            Self::Closed(cipher) => closed(cipher, key, record),
            Self::Readable(marking) => Some(marked(marking, locator, record)),
            Self::Enciphered(keys) => {
                let record = closed(&keys.record(key), key, record)?;
                Some(marked(&keys.mark, locator, &record))
            }
        }
    }

    /// The record that was sealed for `address`; `None` where it was not, or not so.
    pub(super) fn open(&self, address: &Address, sealed: &[u8]) -> Option<Vec<u8>> {
        let Address { key, locator } = address;
        match self {
            Self::Closed(cipher) => opened(cipher, key, sealed),
            Self::Readable(marking) => unmarked(marking, locator, sealed).map(<[u8]>::to_vec),
            Self::Enciphered(keys) => opened(&keys.record(key), key, unmarked(&keys.mark, locator, sealed)?),
        }
    }

    /// Whether what lies there is what was written; and the record, where it opens without its key.
    pub(super) fn inspect(&self, locator: &Locator, sealed: &[u8]) -> Inspected {
        let record = match (self, self.key(locator)) {
            (Self::Enciphered(keys), _) => {
                return unmarked(&keys.mark, locator, sealed).map_or(Inspected::Damaged, |_| Inspected::Shut);
            }
            (_, Some(key)) => self.open(&Address { key, locator: *locator }, sealed),
            (_, None) => None,
        };
        record.map_or(Inspected::Damaged, Inspected::Open)
    }

    /// What new content under `key` goes through on its way to the disk.
    pub(super) fn prover(&self, key: &Key) -> io::Result<Prover> {
        match self {
            Self::Closed(_) | Self::Readable(_) => Ok(Prover::PLAIN),
            Self::Enciphered(keys) => {
                let salt = cipher::salt()?;
                Ok(Prover::Sealing { cipher: keys.content(key, &salt), salt, tags: Vec::new() })
            }
        }
    }

    /// What content under `key` goes through on its way from the disk; `None` where it is none of ours.
    pub(super) fn opener(&self, key: &Key, proof: Arc<Proof>) -> Option<Opener> {
        let cipher = match (&*proof, self) {
            (Proof::Sums(_), _) => None,
            (Proof::Sealed { salt, .. }, Self::Enciphered(keys)) => Some(keys.content(key, salt)),
            (Proof::Sealed { .. }, _) => return None,
        };
        Some(Opener::new(proof, cipher))
    }
}

/// What can be said of a record by who does not know its key.
pub(super) enum Inspected {
    Damaged,
    /// It is as it was written, and only its key opens it.
    Shut,
    Open(Vec<u8>),
}

fn siv(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).expect("32 bytes are a key of this cipher"))
}

fn closed(cipher: &LessSafeKey, key: &Key, record: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).ok()?;
    let mut sealed = record.to_vec();
    let aad = Aad::from(key.as_bytes());
    cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
    Some([&nonce[..], &sealed].concat())
}

fn opened(cipher: &LessSafeKey, key: &Key, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut record = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = cipher.open_in_place(nonce, Aad::from(key.as_bytes()), &mut record).ok()?.len();
    record.truncate(length);
    Some(record)
}

fn marked(marking: &[u8; 32], locator: &Locator, record: &[u8]) -> Vec<u8> {
    [&mark(marking, locator, record)[..], record].concat()
}

fn unmarked<'s>(marking: &[u8; 32], locator: &Locator, sealed: &'s [u8]) -> Option<&'s [u8]> {
    let (found, record) = sealed.split_first_chunk::<MARK>()?;
    (*found == mark(marking, locator, record)).then_some(record)
}

fn mark(marking: &[u8; 32], locator: &Locator, record: &[u8]) -> [u8; MARK] {
    let mut hasher = blake3::Hasher::new_keyed(marking);
    hasher.update(locator.as_bytes()).update(record);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than a mark")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    const KEY: Key = Key::from_bytes([7; 32]);
    const OTHER: Key = Key::from_bytes([8; 32]);

    fn seals(secret: u8) -> [Seal; 3] {
        [Form::Sealed, Form::Readable, Form::Enciphered].map(|form| Seal::new(&[secret; 32], form))
    }

    #[test]
    fn bound_to_key_and_secret() {
        for (seal, stranger) in seals(1).iter().zip(&seals(2)) {
            let sealed = seal.seal(&seal.address(&KEY), b"record").expect("randomness");
            assert_eq!(seal.open(&seal.address(&KEY), &sealed).as_deref(), Some(&b"record"[..]));
            assert_eq!(seal.open(&seal.address(&OTHER), &sealed), None);
            assert_eq!(stranger.open(&stranger.address(&KEY), &sealed), None);
            assert!(matches!(seal.inspect(&seal.locator(&OTHER), &sealed), Inspected::Damaged));
        }
        let find = |seal: &Seal| {
            let sealed = seal.seal(&seal.address(&KEY), b"http://shop.example/secret").expect("randomness");
            sealed.windows(12).any(|window| *window == *b"shop.example")
        };
        assert_eq!(seals(1).each_ref().map(find), [false, true, false]);
    }

    #[test]
    fn the_secret_alone_opens_nothing_that_is_enciphered() {
        let [closed, _, enciphered] = seals(1);
        let sealed = closed.seal(&closed.address(&KEY), b"record").expect("randomness");
        assert!(
            matches!(closed.inspect(&closed.locator(&KEY), &sealed), Inspected::Open(record) if record == b"record")
        );

        let address = enciphered.address(&KEY);
        assert_ne!(address.locator.as_bytes(), KEY.as_bytes());
        assert_eq!(enciphered.key(&address.locator), None);
        let sealed = enciphered.seal(&address, b"record").expect("randomness");
        assert!(matches!(enciphered.inspect(&address.locator, &sealed), Inspected::Shut));
        // Whoever has found the record, and the secret, but has to guess the key.
        let guess = Address { key: OTHER, ..address };
        assert_eq!(enciphered.open(&guess, &sealed), None);
        let locator_as_key = Address { key: Key::from_bytes(*address.locator.as_bytes()), ..address };
        assert_eq!(enciphered.open(&locator_as_key, &sealed), None);
    }

    #[test]
    fn content_opens_with_secret_salt_and_key() {
        let [plain, _, enciphered] = seals(1);
        let [.., stranger] = seals(2);
        let mut prover = enciphered.prover(&KEY).expect("randomness");
        let written = prover.whole(Cow::Borrowed(b"content")).expect("enciphered").into_owned();
        assert_ne!(written, b"content");
        let proof = Arc::new(prover.finish());
        let Proof::Sealed { salt, tags } = &*proof else { panic!("in clear") };
        let salted = Arc::new(Proof::Sealed { salt: salt.map(|byte| !byte), tags: tags.clone() });
        let opens = |seal: &Seal, key: &Key, proof: &Arc<Proof>| {
            let mut bytes = written.clone();
            let opener = seal.opener(key, Arc::clone(proof));
            opener.is_some_and(|opener| opener.whole(&mut bytes)) && bytes == b"content"
        };
        assert!(opens(&enciphered, &KEY, &proof));
        assert!(!opens(&enciphered, &OTHER, &proof));
        assert!(!opens(&enciphered, &KEY, &salted));
        assert!(!opens(&stranger, &KEY, &proof));
        assert!(!opens(&plain, &KEY, &proof));
        let mut again = enciphered.prover(&KEY).expect("randomness");
        assert_ne!(again.whole(Cow::Borrowed(b"content")).expect("enciphered"), written, "no two alike");
    }

    #[test]
    fn places_say_nothing_of_urls() {
        let [plain, _, enciphered] = seals(1);
        let [.., stranger] = seals(2);
        let urls: Vec<_> = (0..64).map(Scope::from_bits).collect();
        let places = |seal: &Seal| urls.iter().map(|url| seal.place(*url)).collect::<Vec<_>>();
        assert_eq!(places(&plain), urls.iter().map(|url| place(*url)).collect::<Vec<_>>());
        assert_eq!(places(&enciphered), places(&enciphered));
        assert_ne!(places(&enciphered), places(&plain));
        assert_ne!(places(&enciphered), places(&stranger));
    }

    proptest! {
        #[test]
        fn any_damage_is_found(record in vec(any::<u8>(), 0..100), at: prop::sample::Index, bit in 0..8u8) {
            for seal in seals(1) {
                let address = seal.address(&KEY);
                let mut sealed = seal.seal(&address, &record).expect("randomness");
                let at = at.index(sealed.len());
                prop_assert_eq!(seal.open(&address, &sealed[..at]), None);
                sealed[at] ^= 1 << bit;
                prop_assert_eq!(seal.open(&address, &sealed), None);
                prop_assert!(matches!(seal.inspect(&address.locator, &sealed), Inspected::Damaged));
            }
        }
    }
}
