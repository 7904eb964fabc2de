use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use super::*;

const KEY: [u8; 32] = [7; 32];

fn header() -> Header {
    Header { software: "larder 0".into(), created_ms: 5, expected: 2, ..Header::default() }
}

fn head(length: u64) -> EntryHead {
    EntryHead { route: "shop".into(), variant: vec![1, 2], head: vec![3; 40], length }
}

/// A file of these contents; the one before the last broke off.
fn file(form: Form, contents: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = Writer::new(form, KEY, &header()).expect("memory");
    for content in contents {
        assert!(writer.entry(&head(content.len() as u64)).expect("memory"));
        writer.content(content).expect("memory");
    }
    assert!(writer.entry(&head(9)).expect("memory"));
    writer.content(b"cut").expect("memory");
    writer.dropped().expect("memory");
    let mut file = writer.take();
    file.extend(writer.finish(&End { entries: contents.len() as u64, ..End::default() }).expect("memory"));
    file
}

/// All that can be read of a file that comes in pieces of that length, and how it ends.
fn read(file: &[u8], piece: usize, key: Option<[u8; 32]>) -> (Vec<Item>, Result<(), Error>) {
    let (mut reader, mut items) = (Reader::default(), Vec::new());
    for piece in file.chunks(piece.max(1)) {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.item() {
                Ok(Some(item)) => {
                    if matches!(item, Item::Header(_))
                        && let Some(Err(error)) = key.map(|key| reader.trust(key))
                    {
                        return (items, Err(error));
                    }
                    items.push(item);
                }
                Ok(None) => break,
                Err(error) => return (items, Err(error)),
            }
        }
    }
    let end = reader.finish();
    (items, end)
}

/// The contents of entries that are whole.
fn contents(items: &[Item]) -> Vec<Vec<u8>> {
    let (mut whole, mut content) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Entry(entry) => {
                assert_eq!((&*entry.route, &entry.head[..]), ("shop", &[3; 40][..]));
                content.clear();
            }
            Item::Content(piece) => content.extend_from_slice(piece),
            Item::Whole => whole.push(content.clone()),
            Item::Header(_) | Item::Dropped | Item::End(_) => {}
        }
    }
    whole
}

#[test]
fn there_and_back() {
    let long: Vec<u8> = (0..3 * PIECE_MAX + 17).map(|n| (n % 251) as u8).collect();
    let written = vec![b"one".to_vec(), Vec::new(), long];
    for form in [Form::Zstd, Form::Plain] {
        let file = file(form, &written);
        for piece in [1 << 20, 4096, 3] {
            let (items, end) = read(&file, piece, Some(KEY));
            assert!(end.is_ok(), "{form:?}, {piece}: {end:?}");
            assert_eq!(contents(&items), written);
            assert_eq!(items.first(), Some(&Item::Header(Box::new(header()))));
            assert!(matches!(items.last(), Some(Item::End(End { entries: 3, .. }))));
            assert_eq!(items.iter().filter(|item| matches!(item, Item::Dropped)).count(), 1);
        }
    }
}

#[test]
fn a_file_that_was_cut_off_is_incomplete_wherever() {
    let written = vec![b"one".to_vec(), b"two".to_vec()];
    for form in [Form::Zstd, Form::Plain] {
        let file = file(form, &written);
        for cut in 0..file.len() {
            let (items, end) = read(&file[..cut], 64, Some(KEY));
            let expected =
                matches!(end, Err(Error::Incomplete { .. })) || (cut < 4 && matches!(end, Err(Error::Magic)));
            assert!(expected, "{form:?} at {cut}: {end:?}");
            assert!(written.starts_with(&contents(&items)), "what is whole is as it was");
        }
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let written = vec![b"one".to_vec(), b"two".to_vec()];
    let file = file(Form::Plain, &written);
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (items, end) = read(&flipped, 64, Some(KEY));
        assert!(end.is_err(), "bit {bit}");
        assert!(written.starts_with(&contents(&items)), "bit {bit}");
    }
}

/// A compressed stream has bits that mean nothing, such as those of its window: what is read is right, or an error.
#[test]
fn no_flipped_bit_of_a_compressed_file_changes_what_is_read() {
    let written = vec![vec![b'x'; 5000], b"two".to_vec()];
    let file = file(Form::Zstd, &written);
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (items, end) = read(&flipped, 64, Some(KEY));
        assert!(written.starts_with(&contents(&items)), "bit {bit}");
        assert!(end.is_err() || contents(&items) == written, "bit {bit}");
    }
}

#[test]
fn what_follows_the_end_is_damage() {
    for form in [Form::Zstd, Form::Plain] {
        let mut file = file(form, &[]);
        file.extend_from_slice(b"LARDERAR");
        assert!(matches!(read(&file, 1 << 20, Some(KEY)).1, Err(Error::Damaged { .. })), "{form:?}");
    }
}

#[test]
fn what_another_secret_has_sealed_is_not_believed() {
    let file = file(Form::Plain, &[b"one".to_vec()]);
    let (items, end) = read(&file, 64, Some([8; 32]));
    assert!(items.is_empty() && matches!(end, Err(Error::Forged { records: 0 })));
    assert!(read(&file, 64, None).1.is_ok(), "who only looks needs none");
    let mut changed = file.clone();
    let seal = file.len() - 1;
    changed[seal] ^= 1;
    assert!(matches!(read(&changed, 64, Some(KEY)).1, Err(Error::Forged { records: 6 })));
}

#[test]
fn other_files_and_other_versions_are_named() {
    assert!(matches!(read(b"HTTP/1.1 200 OK\r\n", 64, None).1, Err(Error::Magic)));
    assert!(matches!(read(b"LARDxxxxxxxxxxxxxxxxx", 64, None).1, Err(Error::Magic)));
    let mut other = file(Form::Plain, &[]);
    other[8] = 9;
    assert!(matches!(read(&other, 64, None).1, Err(Error::Version(9))));
}

#[test]
fn a_fingerprint_names_a_secret() {
    assert_eq!(fingerprint(&[1; 32]), fingerprint(&[1; 32]));
    assert_ne!(fingerprint(&[1; 32]), fingerprint(&[2; 32]));
    assert_eq!(fingerprint(&[1; 32]).len(), 16);
}

/// A file of any records, each with a right check and a right seal.
fn forged(records: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut chain) = (record::preamble().to_vec(), record::Chain::begin());
    for (kind, payload) in records {
        chain = chain.with(*kind, payload);
        out.push(*kind);
        out.extend_from_slice(&record::length(payload));
        out.extend_from_slice(payload);
        out.extend_from_slice(&chain.check());
        out.extend_from_slice(&chain.seal(&KEY));
    }
    out
}

proptest! {
    #[test]
    fn any_contents_there_and_back(written in vec(vec(any::<u8>(), 0..300), 0..6), piece in 1..600_usize, plain: bool) {
        let form = if plain { Form::Plain } else { Form::Zstd };
        let (items, end) = read(&file(form, &written), piece, Some(KEY));
        prop_assert!(end.is_ok());
        prop_assert_eq!(contents(&items), written);
    }

    #[test]
    fn garbage_is_an_error(bytes in vec(any::<u8>(), 0..400), zstd: bool) {
        prop_assert!(read(&bytes, 64, None).1.is_err());
        let bytes = if zstd { zstd::bulk::compress(&bytes, 1).expect("memory") } else { bytes };
        prop_assert!(read(&bytes, 64, None).1.is_err());
    }

    /// Behind right checks, where only the order of records and their own form are left.
    #[test]
    fn records_in_any_order_are_read_without_panic(
        records in vec((0..7_u8, vec(any::<u8>(), 0..60)), 0..8),
        begun: bool,
    ) {
        let mut all = records;
        if begun {
            let entry = head(3).encode().expect("short");
            all.insert(0, (2, entry));
            all.insert(0, (1, serde_json::to_vec(&header()).expect("JSON")));
        }
        let _ = read(&forged(&all), 64, Some(KEY));
    }
}
