//! `larder key`: a new key for a tenant. Needs no gateway, and asks none.

use std::io::{self, Read};

use super::args::Key;
use crate::tenants::{Digest, KEY_BYTES_MIN, new_key};

/// Why there is no key, or no hash of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no randomness.
    #[error("there is no randomness to make a key of: {0}")]
    Randomness(#[from] getrandom::Error),
    /// The key cannot be read.
    #[error("the key cannot be read from the standard input: {0}")]
    Read(#[from] io::Error),
    /// What was read is no key.
    #[error("a key is one word of {KEY_BYTES_MIN} bytes or more")]
    NoKey,
}

/// The text to print: a new key and its hash, or the hash of the key on the standard input.
///
/// # Errors
/// Where there is none.
pub fn run(args: &Key) -> Result<String, Error> {
    if args.hash {
        let mut text = String::new();
        // Longer than any key: what comes after is not read.
        io::stdin().lock().take(64 * 1024).read_to_string(&mut text)?;
        return hash_of(text.trim()).map(|digest| format!("{digest}\n"));
    }
    let key = new_key()?;
    Ok(format!("key   {key}\nhash  {}\n", Digest::of(key.as_bytes())))
}

fn hash_of(key: &str) -> Result<Digest, Error> {
    let is_key = key.len() >= KEY_BYTES_MIN && key.bytes().all(|byte| byte.is_ascii_graphic());
    if is_key { Ok(Digest::of(key.as_bytes())) } else { Err(Error::NoKey) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_with_its_hash() {
        let text = run(&Key { hash: false }).expect("a key");
        let values: Vec<_> =
            text.lines().filter_map(|line| line.split_once("  ")).map(|(_, value)| value.trim()).collect();
        let [key, hash] = values[..] else { panic!("{text}") };
        assert_eq!(hash_of(key).expect("a key").to_string(), hash);
        assert!(hash_of("short").is_err() && hash_of("two words of some length").is_err());
    }
}
