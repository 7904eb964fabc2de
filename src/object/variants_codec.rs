//! The stored form of [`Variants`], for tiers outside this process.
//!
//! ```text
//! magic | version u16 | number of variants, the one stored last first | variants | checksum u64 over all before
//! variant   key | stored | names of fields | flag, and if set: key without language, language
//! ```
//!
//! As with entries, what is read back is either what was written or an error, whatever the input.

use http::HeaderName;

use super::{
    codec::{CHECKSUM_BYTES, DecodeError, checksum},
    key::Key,
    time::Timestamp,
    variants::{Variant, Variants},
    wire::{Reader, put_bytes, put_len, put_u64},
};

/// Raised whenever the layout changes: other versions are not read.
const VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"LRDV";

/// Least bytes of a variant.
const VARIANT_BYTES: usize = 32 + 8 + 4 + 1;

/// The whole record.
pub fn encode(variants: &Variants) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 128 * variants.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    put_len(&mut out, variants.len());
    variants.iter().for_each(|variant| put_variant(&mut out, variant));
    let sum = checksum(&out);
    put_u64(&mut out, sum);
    out
}

/// The record that [`encode`] wrote.
///
/// # Errors
/// Where it is damaged, or of another kind or release.
pub fn decode(record: &[u8]) -> Result<Variants, DecodeError> {
    let mut start = Reader { rest: record };
    if start.array()? != MAGIC {
        return Err(DecodeError::Magic);
    }
    let version = u16::from_le_bytes(start.array()?);
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (fields, sum) = start.rest.split_last_chunk::<CHECKSUM_BYTES>().ok_or(DecodeError::Truncated)?;
    if checksum(&record[..record.len() - CHECKSUM_BYTES]) != u64::from_le_bytes(*sum) {
        return Err(DecodeError::Head);
    }
    let mut reader = Reader { rest: fields };
    let count = reader.count(VARIANT_BYTES)?;
    let variants = (0..count).map(|_| variant(&mut reader)).collect::<Result<Vec<_>, _>>()?;
    if !reader.rest.is_empty() {
        return Err(DecodeError::Invalid("length"));
    }
    // The oldest first, so that each takes its place in front of it.
    Ok(variants.into_iter().rev().fold(Variants::default(), |all, one| all.with(one, usize::MAX)))
}

fn put_variant(out: &mut Vec<u8>, variant: &Variant) {
    out.extend_from_slice(variant.key().as_bytes());
    put_u64(out, variant.stored().as_millis());
    put_len(out, variant.fields().len());
    variant.fields().iter().for_each(|name| put_bytes(out, name.as_str().as_bytes()));
    out.push(variant.language.is_some().into());
    if let Some((key, language)) = &variant.language {
        out.extend_from_slice(key.as_bytes());
        put_bytes(out, language.as_bytes());
    }
}

fn variant(reader: &mut Reader<'_>) -> Result<Variant, DecodeError> {
    let key = Key::from_bytes(reader.array()?);
    let stored = Timestamp::from_millis(reader.u64()?);
    let fields = (0..reader.count(4)?).map(|_| name(reader)).collect::<Result<Vec<_>, _>>()?;
    let language = if reader.flag()? { Some((Key::from_bytes(reader.array()?), language(reader)?)) } else { None };
    Ok(Variant { fields: fields.into(), key, language, stored })
}

fn name(reader: &mut Reader<'_>) -> Result<HeaderName, DecodeError> {
    HeaderName::from_bytes(reader.bytes()?).map_err(|_| DecodeError::Invalid("field"))
}

fn language(reader: &mut Reader<'_>) -> Result<Box<str>, DecodeError> {
    std::str::from_utf8(reader.bytes()?).map(Box::from).map_err(|_| DecodeError::Invalid("language"))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    prop_compose! {
        fn any_variant()(
            keys: [[u8; 32]; 2],
            stored: u64,
            names in vec("[a-z-]{1,8}", 0..4),
            language in option::of("[a-z-]{1,5}"),
        ) -> Variant {
            let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).expect("letters");
            Variant {
                fields: names.iter().map(name).collect(),
                key: Key::from_bytes(keys[0]),
                language: language.map(|language| (Key::from_bytes(keys[1]), language.into())),
                stored: Timestamp::from_millis(stored),
            }
        }
    }

    prop_compose! {
        fn any_variants()(all in vec(any_variant(), 0..5)) -> Variants {
            all.into_iter().fold(Variants::default(), |all, one| all.with(one, 8))
        }
    }

    proptest! {
        #[test]
        fn there_and_back(variants in any_variants()) {
            prop_assert_eq!(decode(&encode(&variants)), Ok(variants));
        }

        #[test]
        fn any_damage_is_found(variants in any_variants(), at: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = encode(&variants);
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes[..at]).is_err());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        /// Behind a right checksum, where only the checks of each field are left.
        #[test]
        fn sealed_garbage_is_read_without_panic(garbage in vec(any::<u8>(), 0..200)) {
            let mut record = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
            record.extend_from_slice(&garbage);
            let sum = checksum(&record);
            put_u64(&mut record, sum);
            let _ = decode(&record);
        }
    }
}
