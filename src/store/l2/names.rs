//! What things are called in Redis.
//!
//! ```text
//! namespace:1.2.2:{primary key}:e             an entry under the primary key
//! namespace:1.2.2:{primary key}:e:variant     the entry of a variant
//! namespace:1.2.2:{primary key}:p[:variant]:token:n   the nth piece of a long entry, of one write of it
//! namespace:1.2.2:{primary key}:l[:variant]   who is filling it
//! namespace:1.2.2:{primary key}:v             which variants there are
//! namespace:1.2.2:{primary key}:x             that it was removed a moment ago
//! namespace:1.2.2:{scope of a URL}:s          that some of it lies under keys that the URL does not give
//! namespace:1.2.2:{wakes}:w                   the stream that says of which URLs fills have ended
//! ```
//!
//! All of a primary key lies in one slot of a cluster, by the braces: a script changes it in one step. The numbers are those of
//! the forms of keys, entries and values: releases that differ in one of them run side by side and never read each
//! other's. Keys are keyed hashes of requests; where entries are enciphered, keyed hashes of these in turn, because the
//! key opens the entry.

use super::value;
use crate::object::{
    codec,
    key::{KEY_SCHEMA, Key},
    scope::Scope,
};

/// Makes names.
pub(super) struct Names {
    prefix: String,
    /// The stream of wake-ups.
    pub(super) wakes: Vec<u8>,
    /// The key of the hashes that stand for keys.
    hidden: Option<[u8; 32]>,
}

/// The names of one entry, and of what is kept of its URL.
pub(super) struct Named {
    pub(super) entry: Vec<u8>,
    /// What the names of its pieces begin with.
    pub(super) pieces: Vec<u8>,
    pub(super) lease: Vec<u8>,
    pub(super) variants: Vec<u8>,
    pub(super) removal: Vec<u8>,
}

impl Names {
    pub(super) fn new(namespace: &str, hidden: Option<[u8; 32]>) -> Self {
        let prefix = format!("{namespace}:{KEY_SCHEMA}.{}.{}:{{", codec::VERSION, value::VERSION);
        let wakes = format!("{prefix}wakes}}:w").into_bytes();
        Self { prefix, wakes, hidden }
    }

    /// The names of what lies under `key`: the primary one, or that of one of its variants.
    pub(super) fn of(&self, primary: &Key, key: &Key) -> Named {
        let base = format!("{}{}}}", self.prefix, Key::from_bytes(self.locator(primary)));
        let variant = (primary != key).then(|| self.field(key));
        let name = |kind: &str| {
            let mut name = format!("{base}:{kind}");
            if let Some(variant) = &variant {
                name.push(':');
                name.push_str(variant);
            }
            name.into_bytes()
        };
        Named {
            entry: name("e"),
            pieces: name("p"),
            lease: name("l"),
            variants: format!("{base}:v").into_bytes(),
            removal: format!("{base}:x").into_bytes(),
        }
    }

    /// What a variant is called in the names of its URL, and in the list of them.
    pub(super) fn field(&self, key: &Key) -> String {
        Key::from_bytes(self.locator(key)).to_string()
    }

    /// The mark of a URL.
    pub(super) fn scattered(&self, url: Scope) -> Vec<u8> {
        let bits = url.bits().to_be_bytes();
        let bits = match &self.hidden {
            None => bits,
            Some(hash) => *blake3::keyed_hash(hash, &bits).as_bytes().first_chunk().expect("longer than that"),
        };
        format!("{}{:016x}}}:s", self.prefix, u64::from_be_bytes(bits)).into_bytes()
    }

    /// What stands for a key.
    pub(super) fn locator(&self, key: &Key) -> [u8; 32] {
        match &self.hidden {
            None => *key.as_bytes(),
            Some(hash) => *blake3::keyed_hash(hash, key.as_bytes()).as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: Key = Key::from_bytes([0xab; 32]);
    const VARIANT: Key = Key::from_bytes([0xcd; 32]);

    fn text(name: &[u8]) -> &str {
        std::str::from_utf8(name).expect("text")
    }

    #[test]
    fn all_of_a_url_is_in_one_slot() {
        let names = Names::new("shop", None);
        let (whole, variant) = (names.of(&PRIMARY, &PRIMARY), names.of(&PRIMARY, &VARIANT));
        let tag = "ab".repeat(32);
        let version = format!("{KEY_SCHEMA}.{}.{}", codec::VERSION, value::VERSION);
        assert_eq!(text(&whole.entry), format!("shop:{version}:{{{tag}}}:e"));
        assert_eq!(text(&variant.entry), format!("shop:{version}:{{{tag}}}:e:{}", "cd".repeat(32)));
        assert_eq!(text(&variant.lease), format!("shop:{version}:{{{tag}}}:l:{}", "cd".repeat(32)));
        assert_eq!(whole.variants, variant.variants);
        assert_eq!(whole.removal, variant.removal);
        assert_eq!(text(&variant.pieces), format!("shop:{version}:{{{tag}}}:p:{}", "cd".repeat(32)));
        let names = [&whole.lease, &whole.variants, &whole.removal, &whole.pieces, &variant.entry, &variant.lease];
        for name in names.into_iter().chain([&variant.pieces]) {
            assert_eq!(crate::kv::slot(name), crate::kv::slot(&whole.entry));
        }
    }

    #[test]
    fn namespaces_do_not_meet() {
        let names = |namespace| Names::new(namespace, None).of(&PRIMARY, &PRIMARY).entry;
        assert_ne!(names("one"), names("two"));
    }

    #[test]
    fn hidden_names_do_not_hold_the_key() {
        let names = |hidden| text(&Names::new("shop", hidden).of(&PRIMARY, &VARIANT).entry).to_owned();
        let (plain, hidden) = (names(None), names(Some([1; 32])));
        assert!(plain.contains(&PRIMARY.to_string()) && plain.contains(&VARIANT.to_string()));
        assert!(!hidden.contains(&PRIMARY.to_string()) && !hidden.contains(&VARIANT.to_string()));
        assert_ne!(hidden, names(Some([2; 32])));
        assert_eq!(hidden.len(), plain.len());
        let mark = |hidden| Names::new("shop", hidden).scattered(Scope::from_bits(7));
        assert!(mark(None).ends_with(b"{0000000000000007}:s") && mark(None) != mark(Some([1; 32])));
    }
}
