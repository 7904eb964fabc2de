//! The stored form of an [`Entry`], for tiers outside this process: its head as one record, which also vouches for the
//! body, and the body as it is.
//!
//! ```text
//! entry   head length u32 | head record | body
//! record  magic | version u16 | fields, little-endian, lengths first | checksum u64 over all before
//! ```
//!
//! What is read back is either what was written or an error; no input makes it panic, or allocate more than a small
//! multiple of its own length. `checked` is not written: it means something only beside the purge log it was read from.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::StatusCode;

use super::{
    entry::{Entry, Unpacked},
    freshness::{Flags, Freshness},
    head::Head,
    key::Key,
    range::ContentRange,
    scope::{Position, Scope},
    time::Timestamp,
    wire::{Reader, put_bytes, put_len, put_optional, put_u32, put_u64},
};

/// Raised whenever the layout changes: other versions are not read.
pub const VERSION: u16 = 2;

const MAGIC: [u8; 4] = *b"LRDR";
pub(super) const CHECKSUM_BYTES: usize = 8;

/// Where a record has length and checksum of the body.
const VOUCHED: std::ops::Range<usize> = 6..22;

/// Why stored bytes are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Of something else.
    #[error("not a stored entry")]
    Magic,
    /// Of another release.
    #[error("stored entry of format version {0}")]
    Version(u16),
    /// Ends early.
    #[error("stored entry is cut short")]
    Truncated,
    /// Head damaged.
    #[error("stored entry has a damaged head")]
    Head,
    /// Body damaged, or another one's.
    #[error("stored entry has a damaged body")]
    Body,
    /// Undamaged, but no release wrote this.
    #[error("stored entry has an invalid {0}")]
    Invalid(&'static str),
}

/// The whole entry.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let head = encode_head(entry);
    let mut out = Vec::with_capacity(4 + head.len() + entry.content().len());
    put_bytes(&mut out, &head);
    out.extend_from_slice(entry.content());
    out
}

/// The entry that [`encode`] wrote; its body is copied.
pub fn decode(bytes: &[u8]) -> Result<Entry, DecodeError> {
    let mut reader = Reader { rest: bytes };
    let head = reader.bytes()?;
    decode_head(head, Bytes::copy_from_slice(reader.rest))
}

/// All of the entry but its body, and a checksum of that.
pub fn encode_head(entry: &Entry) -> Vec<u8> {
    encode_head_over(entry, entry.content())
}

/// As [`encode_head`], as if there were no body: for a tier that vouches for it in another way.
pub fn encode_bare_head(entry: &Entry) -> Vec<u8> {
    encode_head_over(entry, &[])
}

/// Whether two records of [`encode_head`] vouch for the same body.
pub fn vouches_alike(one: &[u8], other: &[u8]) -> bool {
    let vouched = |record: &[u8]| record.get(VOUCHED).map(<[u8]>::to_vec);
    vouched(one).is_some() && vouched(one) == vouched(other)
}

fn encode_head_over(entry: &Entry, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + entry.url().len() + entry.head.weight());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    put_u64(&mut out, body.len() as u64);
    put_u64(&mut out, checksum(body));
    out.extend_from_slice(entry.key.as_bytes());
    out.extend_from_slice(entry.primary().as_bytes());
    put_u64(&mut out, entry.stamp.number());
    put_scopes(&mut out, &entry.scopes());
    put_bytes(&mut out, entry.url().as_bytes());
    put_bytes(&mut out, entry.tags().as_bytes());
    put_fields(&mut out, &entry.head);
    put_part(&mut out, entry.part().as_ref());
    put_freshness(&mut out, &entry.freshness());
    put_time(&mut out, entry.stored());
    put_u32(&mut out, entry.fill_millis);
    put_u32(&mut out, entry.hits.load(Relaxed));
    let sum = checksum(&out);
    put_u64(&mut out, sum);
    out
}

/// The entry whose head [`encode_head`] wrote and whose body is `body`.
pub fn decode_head(record: &[u8], body: Bytes) -> Result<Entry, DecodeError> {
    let mut reader = open(record)?;
    if reader.u64()? != body.len() as u64 || reader.u64()? != checksum(&body) {
        return Err(DecodeError::Body);
    }
    let entry = Unpacked {
        key: Key::from_bytes(reader.array()?),
        primary: Key::from_bytes(reader.array()?),
        stamp: Position::from_number(reader.u64()?),
        scopes: scopes(&mut reader)?.into(),
        url: text(&mut reader, "url")?,
        tags: text(&mut reader, "tags")?,
        head: head(&mut reader)?,
        body,
        elsewhere: None,
        part: part(&mut reader)?,
        freshness: freshness(&mut reader)?,
        stored: time(&mut reader)?,
        fill_millis: reader.u32()?,
        hits: reader.u32()?,
    };
    if reader.rest.is_empty() { Ok(entry.pack()) } else { Err(DecodeError::Invalid("length")) }
}

/// Key, stamp and scopes of the entry whose head that is, without its body.
pub fn decode_scopes(record: &[u8]) -> Result<(Key, Position, Box<[Scope]>), DecodeError> {
    let mut reader = open(record)?;
    reader.u64()?;
    reader.u64()?;
    let key = Key::from_bytes(reader.array()?);
    let _primary: [u8; 32] = reader.array()?;
    let stamp = Position::from_number(reader.u64()?);
    Ok((key, stamp, scopes(&mut reader)?))
}

/// The fields of a record, once magic, version and checksum are found right.
fn open(record: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut start = Reader { rest: record };
    if start.array()? != MAGIC {
        return Err(DecodeError::Magic);
    }
    let version = u16::from_le_bytes(start.array()?);
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let Some((fields, sum)) = start.rest.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(DecodeError::Truncated);
    };
    if checksum(&record[..record.len() - CHECKSUM_BYTES]) != u64::from_le_bytes(*sum) {
        return Err(DecodeError::Head);
    }
    Ok(Reader { rest: fields })
}

/// 64 bits of BLAKE3: against damage, not against forgery.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    Key::from_bytes(*blake3::hash(bytes).as_bytes()).prefix()
}

// === Parts of an entry, each as it is written and as it is read ===

fn put_scopes(out: &mut Vec<u8>, scopes: &[Scope]) {
    put_len(out, scopes.len());
    for scope in scopes {
        put_u64(out, scope.bits());
    }
}

fn scopes(reader: &mut Reader<'_>) -> Result<Box<[Scope]>, DecodeError> {
    (0..reader.count(8)?).map(|_| reader.u64().map(Scope::from_bits)).collect()
}

fn text(reader: &mut Reader<'_>, what: &'static str) -> Result<Box<str>, DecodeError> {
    std::str::from_utf8(reader.bytes()?).map(Box::from).map_err(|_| DecodeError::Invalid(what))
}

fn put_fields(out: &mut Vec<u8>, head: &Head) {
    out.extend_from_slice(&head.status.as_u16().to_le_bytes());
    put_bytes(out, head.lines());
}

fn head(reader: &mut Reader<'_>) -> Result<Head, DecodeError> {
    let status = StatusCode::from_u16(u16::from_le_bytes(reader.array()?));
    let status = status.map_err(|_| DecodeError::Invalid("status"))?;
    Head::from_lines(status, reader.bytes()?).map_err(|_| DecodeError::Invalid("field"))
}

fn put_part(out: &mut Vec<u8>, part: Option<&ContentRange>) {
    out.push(part.is_some().into());
    if let Some(part) = part {
        put_u64(out, part.first);
        put_u64(out, part.last);
        put_optional(out, part.complete);
    }
}

fn part(reader: &mut Reader<'_>) -> Result<Option<ContentRange>, DecodeError> {
    if !reader.flag()? {
        return Ok(None);
    }
    let part = ContentRange { first: reader.u64()?, last: reader.u64()?, complete: reader.optional()? };
    if part.first > part.last || part.last >= part.complete.unwrap_or(u64::MAX) {
        return Err(DecodeError::Invalid("part"));
    }
    Ok(Some(part))
}

fn put_freshness(out: &mut Vec<u8>, freshness: &Freshness) {
    let Freshness { born, fresh_until, swr_until, sie_until, keep_until, flags } = *freshness;
    for time in [born, fresh_until, swr_until, sie_until, keep_until] {
        put_time(out, time);
    }
    out.extend_from_slice(&flags.bits().to_le_bytes());
}

fn freshness(reader: &mut Reader<'_>) -> Result<Freshness, DecodeError> {
    Ok(Freshness {
        born: time(reader)?,
        fresh_until: time(reader)?,
        swr_until: time(reader)?,
        sie_until: time(reader)?,
        keep_until: time(reader)?,
        flags: Flags::from_bits(u16::from_le_bytes(reader.array()?)),
    })
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    put_u64(out, time.as_millis());
}

fn time(reader: &mut Reader<'_>) -> Result<Timestamp, DecodeError> {
    reader.u64().map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, HeaderName};
    use proptest::{collection::vec, option, prelude::*, strategy::ValueTree};

    use super::{super::fields::tests::any_value, *};

    prop_compose! {
        fn any_part()(first: u64, more: u64, known: bool) -> ContentRange {
            let last = first.saturating_add(more).min(u64::MAX - 2);
            ContentRange { first: first.min(last), last, complete: known.then_some(last + 1) }
        }
    }

    prop_compose! {
        fn any_entry()(
            keys: [[u8; 32]; 2],
            numbers: [u64; 9],
            flags: u16,
            scopes in vec(any::<u64>(), 0..8),
            url in ".{0,20}",
            tags in "[a-z ]{0,20}",
            status in 100..1000u16,
            fields in vec(("[a-z-]{1,8}", any_value()), 0..8),
            body in vec(any::<u8>(), 0..64),
            part in option::of(any_part()),
            counts: [u32; 2],
        ) -> Arc<Entry> {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.append(HeaderName::from_bytes(name.as_bytes()).expect("letters"), value);
            }
            let [stamp, stored, checked, born, fresh_until, swr_until, sie_until, keep_until, _] = numbers;
            let time = Timestamp::from_millis;
            let entry = Unpacked {
                key: Key::from_bytes(keys[0]),
                primary: Key::from_bytes(keys[1]),
                stamp: Position::from_number(stamp),
                scopes: scopes.into_iter().map(Scope::from_bits).collect(),
                url: url.into(),
                tags: tags.into(),
                head: Head::new(StatusCode::from_u16(status).expect("in range"), &map),
                body: body.into(),
                elsewhere: None,
                part,
                freshness: Freshness {
                    born: time(born),
                    fresh_until: time(fresh_until),
                    swr_until: time(swr_until),
                    sie_until: time(sie_until),
                    keep_until: time(keep_until),
                    flags: Flags::from_bits(flags),
                },
                stored: time(stored),
                fill_millis: counts[0],
                hits: counts[1],
            }
            .pack();
            entry.checked.store(checked, Relaxed);
            Arc::new(entry)
        }
    }

    /// Everything that is written, to be compared.
    fn facts(entry: &Arc<Entry>) -> Unpacked {
        entry.under(entry.head.clone())
    }

    proptest! {
        #[test]
        fn there_and_back(entry in any_entry()) {
            let read = Arc::new(decode(&encode(&entry)).expect("written by encode"));
            prop_assert_eq!(facts(&read), facts(&entry));
            prop_assert_eq!(read.checked.load(Relaxed), 0);
            let scopes = decode_scopes(&encode_head(&entry)).expect("written by encode_head");
            prop_assert_eq!(scopes, (entry.key, entry.stamp, entry.scopes().into()));
            let apart = decode_head(&encode_head(&entry), entry.body()).expect("written by encode_head");
            prop_assert_eq!(facts(&Arc::new(apart)), facts(&entry));
        }

        #[test]
        fn any_damage_is_found(entry in any_entry(), at: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = encode(&entry);
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes[..at]).is_err());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn garbage_is_an_error(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_err());
            prop_assert!(decode_head(&bytes, Bytes::new()).is_err());
        }

        /// Behind a right checksum, where only the checks of each field are left.
        #[test]
        fn sealed_garbage_is_read_without_panic(
            entry in any_entry(),
            garbage in vec(any::<u8>(), 1..9),
            at: prop::sample::Index,
        ) {
            let mut record = encode_head(&entry);
            record.truncate(record.len() - CHECKSUM_BYTES);
            let at = 22 + at.index(record.len() - 22);
            let end = record.len().min(at + garbage.len());
            record[at..end].copy_from_slice(&garbage[..end - at]);
            let sum = checksum(&record);
            put_u64(&mut record, sum);
            prop_assert!(!matches!(
                decode_head(&record, entry.body()),
                Err(DecodeError::Magic | DecodeError::Version(_) | DecodeError::Head | DecodeError::Body)
            ));
        }
    }

    fn entry() -> Arc<Entry> {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        any_entry().new_tree(&mut runner).expect("no filter rejects all").current()
    }

    #[test]
    fn heads_vouch_for_bodies() {
        let entry = entry();
        let renewed = Arc::new(Unpacked { stored: Timestamp::EPOCH, ..facts(&entry) }.pack());
        let other = Arc::new(Unpacked { body: Bytes::from_static(b"another"), ..facts(&entry) }.pack());
        assert!(vouches_alike(&encode_head(&entry), &encode_head(&renewed)));
        assert!(!vouches_alike(&encode_head(&entry), &encode_head(&other)));
        assert!(!vouches_alike(b"", b""));
        let bare = decode_head(&encode_bare_head(&entry), Bytes::new()).expect("without a body");
        assert_eq!(facts(&Arc::new(bare)), Unpacked { body: Bytes::new(), ..facts(&entry) });
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |record: &[u8]| decode_head(record, entry().body()).map(|_| ()).expect_err("not an entry");
        let good = encode_head(&entry());
        let with = |at: usize, byte: u8| {
            let mut record = good.clone();
            record[at] = byte;
            record
        };
        assert_eq!(error(b""), DecodeError::Truncated);
        assert_eq!(error(b"HTTP/1.1 200 OK"), DecodeError::Magic);
        assert_eq!(error(&with(4, 9)), DecodeError::Version(9));
        assert_eq!(error(&with(30, !good[30])), DecodeError::Head);
        assert_eq!(error(&good[..20]), DecodeError::Head);
        let other = decode_head(&good, Bytes::from_static(b"another body altogether"));
        assert_eq!(other.map(|_| ()), Err(DecodeError::Body));
    }
}
