//! What content on the disk is found right by, before any byte of it is handed out.
//!
//! Content in clear has a checksum for each chunk, if it is large, and otherwise one in its head. Enciphered content has a
//! tag for each chunk, or for the whole: it cannot be read without being found right.

use std::{borrow::Cow, io, sync::Arc};

use super::{
    cipher::{Cipher, Salt, Tag},
    record::{CHUNK, checksum},
};

/// See above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// One for each [`CHUNK`] of large content; none where the head vouches for it.
    Sums(Vec<u64>),
    /// What its key is made of, and one for each [`CHUNK`] of large content or one for all of it.
    Sealed { salt: Salt, tags: Vec<Tag> },
}

/// Makes the proof of content that is on its way to the disk, and enciphers it if it is to be.
pub(super) enum Prover {
    Plain(Vec<u64>),
    /// With a key that nothing was enciphered with before, and what that is made of.
    Sealing {
        cipher: Cipher,
        salt: Salt,
        tags: Vec<Tag>,
    },
}

/// Finds content right, and deciphers it if need be.
#[derive(Debug)]
pub(super) struct Opener {
    proof: Arc<Proof>,
    cipher: Option<Cipher>,
}

impl Proof {
    /// Where there is no content.
    pub(super) const NONE: Self = Self::Sums(Vec::new());

    /// Memory it keeps.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Sums(sums) => size_of_val(&**sums),
            Self::Sealed { tags, .. } => size_of_val(&**tags),
        }
    }
}

impl Prover {
    /// For content that lies in clear.
    pub(super) const PLAIN: Self = Self::Plain(Vec::new());

    /// Goes on with the next chunks, which are as they are to be written by then. None but the last of all may be short.
    pub(super) fn chunks(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Plain(sums) => {
                sums.extend(bytes.chunks(CHUNK).map(checksum));
                Ok(())
            }
            Self::Sealing { cipher, tags, .. } => seal(cipher, tags, bytes, CHUNK),
        }
    }

    /// Large content, as it is to be written.
    pub(super) fn large<'c>(&mut self, content: Cow<'c, [u8]>) -> io::Result<Cow<'c, [u8]>> {
        match self {
            Self::Plain(sums) => {
                sums.extend(content.chunks(CHUNK).map(checksum));
                Ok(content)
            }
            Self::Sealing { cipher, tags, .. } => {
                let mut content = content.into_owned();
                seal(cipher, tags, &mut content, CHUNK)?;
                Ok(content.into())
            }
        }
    }

    /// Content that is read as a whole, as it is to be written.
    pub(super) fn whole<'c>(&mut self, content: Cow<'c, [u8]>) -> io::Result<Cow<'c, [u8]>> {
        match self {
            Self::Plain(_) => Ok(content),
            Self::Sealing { cipher, tags, .. } => {
                let mut content = content.into_owned();
                let all = content.len();
                seal(cipher, tags, &mut content, all)?;
                Ok(content.into())
            }
        }
    }

    pub(super) fn finish(self) -> Proof {
        match self {
            Self::Plain(sums) => Proof::Sums(sums),
            Self::Sealing { salt, tags, .. } => Proof::Sealed { salt, tags },
        }
    }
}

/// Enciphers what follows on so many tags, in chunks of that length.
fn seal(cipher: &Cipher, tags: &mut Vec<Tag>, bytes: &mut [u8], length: usize) -> io::Result<()> {
    bytes.chunks_mut(length.max(1)).try_for_each(|chunk| {
        let tag = cipher.seal(tags.len(), chunk)?;
        tags.push(tag);
        Ok(())
    })
}

impl Opener {
    /// `cipher` is that of the proof, where it has one.
    pub(super) fn new(proof: Arc<Proof>, cipher: Option<Cipher>) -> Self {
        Self { proof, cipher }
    }

    /// Whether these are the chunks from that number on, which are in clear by then.
    pub(super) fn chunks(&self, first: usize, bytes: &mut [u8]) -> bool {
        let number = bytes.len().div_ceil(CHUNK);
        match (&*self.proof, &self.cipher) {
            (Proof::Sums(sums), _) => {
                let sums = sums.get(first..).unwrap_or_default();
                number <= sums.len() && bytes.chunks(CHUNK).zip(sums).all(|(chunk, sum)| checksum(chunk) == *sum)
            }
            (Proof::Sealed { tags, .. }, Some(cipher)) => {
                let tags = tags.get(first..).unwrap_or_default();
                let mut chunks = bytes.chunks_mut(CHUNK).zip(tags).enumerate();
                number <= tags.len() && chunks.all(|(nth, (chunk, tag))| cipher.open(first + nth, chunk, tag))
            }
            (Proof::Sealed { .. }, None) => false,
        }
    }

    /// Whether these bytes are the whole content, which is in clear by then. What was in clear before is for its head to
    /// vouch for.
    pub(super) fn whole(&self, bytes: &mut [u8]) -> bool {
        match (&*self.proof, &self.cipher) {
            (Proof::Sums(_), _) => true,
            (Proof::Sealed { tags, .. }, Some(cipher)) => tags.first().is_some_and(|tag| cipher.open(0, bytes, tag)),
            (Proof::Sealed { .. }, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealing(key: u8) -> Prover {
        Prover::Sealing { cipher: Cipher::new(&[key; 32]), salt: [3; 32], tags: Vec::new() }
    }

    fn opener(proof: &Proof, key: u8) -> Opener {
        let cipher = matches!(proof, Proof::Sealed { .. }).then(|| Cipher::new(&[key; 32]));
        Opener::new(Arc::new(proof.clone()), cipher)
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7) as u8).collect()
    }

    #[test]
    fn chunks_from_anywhere() {
        let plain = content(3 * CHUNK + 5);
        for mut prover in [Prover::PLAIN, sealing(1)] {
            let is_sealed = matches!(prover, Prover::Sealing { .. });
            let mut written = plain.clone();
            let (start, end) = written.split_at_mut(CHUNK);
            prover.chunks(start).expect("enciphered");
            prover.chunks(end).expect("enciphered");
            assert_eq!(written == plain, !is_sealed);
            let opener = opener(&prover.finish(), 1);
            for range in [0..4, 1..3, 3..4] {
                let bytes = range.start * CHUNK..(range.end * CHUNK).min(plain.len());
                let mut read = written[bytes.clone()].to_vec();
                assert!(opener.chunks(range.start, &mut read) && read == plain[bytes]);
            }
            assert!(!opener.chunks(0, &mut written[CHUNK..2 * CHUNK].to_vec()), "in another's place");
            assert!(!opener.chunks(4, &mut [1]), "behind the last");
        }
    }

    #[test]
    fn at_once_as_piece_by_piece() {
        let plain = content(CHUNK + 5);
        for (mut one, mut other) in [(Prover::PLAIN, Prover::PLAIN), (sealing(1), sealing(1))] {
            let mut pieces = plain.clone();
            one.chunks(&mut pieces).expect("enciphered");
            assert_eq!(other.large(Cow::Borrowed(&plain)).expect("enciphered"), pieces);
            assert_eq!(one.finish(), other.finish());
        }
    }

    #[test]
    fn without_its_key_nothing_is_right() {
        let mut prover = sealing(1);
        let mut written = prover.whole(Cow::Borrowed(b"content")).expect("enciphered").into_owned();
        let proof = prover.finish();
        assert!(!opener(&proof, 2).whole(&mut written.clone()));
        assert!(!Opener::new(Arc::new(proof.clone()), None).whole(&mut written.clone()));
        assert!(!Opener::new(Arc::new(proof.clone()), None).chunks(0, &mut written.clone()));
        assert!(opener(&proof, 1).whole(&mut written) && written == b"content");
    }

    proptest! {
        #[test]
        fn any_damage_is_found(length in 1..3 * CHUNK, at: prop::sample::Index, bit in 0..8u8) {
            let plain = content(length);
            for mut prover in [Prover::PLAIN, sealing(1)] {
                let mut written = plain.clone();
                prover.chunks(&mut written).expect("enciphered");
                written[at.index(length)] ^= 1 << bit;
                prop_assert!(!opener(&prover.finish(), 1).chunks(0, &mut written));
            }
        }
    }
}
