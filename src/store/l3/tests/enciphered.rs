//! What is enciphered: as good as in clear for who asks with the right key, and nothing for anybody else.

use std::{fs, path::PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{super::locator::Locator, *};
use crate::object::{
    head::Head,
    vary::{Comparing, Variant},
};

const URL: &str = "http://shop.example/under/the/counter";
const FIELD: &str = "a value of a field";
const TAG: &str = "midnight-blue";
const LINE: &str = "nobody but who asked is to read this line. ";

fn disk() -> Disk {
    Disk::with(|config| config.encrypt = true)
}

fn lines(bytes: usize) -> Vec<u8> {
    LINE.bytes().cycle().take(bytes).collect()
}

/// With text in whatever holds text; compressed where `kind` lets it be.
fn telling(n: u64, kind: &'static str, body: Vec<u8>) -> Unpacked {
    let fields = [("content-type", kind), ("x-field", FIELD)];
    let line = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let fields = fields.into_iter().map(line).collect::<HeaderMap>();
    Unpacked { head: Head::new(StatusCode::OK, &fields), url: URL.into(), tags: TAG.into(), ..unpacked(n, body) }
}

/// One of each kind: whole, compressed, large at once, empty; and large as it came.
async fn filled(l3: &L3) {
    let short = telling(0, "image/png", lines(9000));
    let compressed = telling(1, "text/plain", lines(200_000));
    let large = telling(2, "image/png", lines(700_000));
    let empty = telling(3, "text/plain", Vec::new());
    for entry in [short, compressed, large, empty] {
        assert!(l3.store_through(&Arc::new(entry.pack())).await);
    }
    let mut writer = l3.writer(&key(4)).expect("on");
    for piece in lines(900_000).chunks(10_007) {
        writer.push(Bytes::copy_from_slice(piece)).await.expect("room");
    }
    assert!(writer.finish(telling(4, "image/png", Vec::new())).await.is_some_and(Finished::store));
    assert!(l3.store_variants(&key(5), &variants()));
    assert!(l3.flush().await);
}

const BODIES: [usize; 5] = [9000, 200_000, 700_000, 0, 900_000];

fn variants() -> Arc<Variants> {
    let by = Comparing { secret: &SECRET, normalise: true };
    let head = Head::new(StatusCode::OK, &HeaderMap::new());
    let fields = [HeaderName::from_static("x-secretive")];
    let request = HeaderMap::from_iter([(fields[0].clone(), HeaderValue::from_static(FIELD))]);
    Variants::default().with(Variant::new(&key(5), &fields, &request, &head, by, Timestamp::EPOCH), 8).into()
}

async fn assert_all(l3: &L3) {
    for (n, bytes) in (0..).zip(BODIES) {
        let found = l3.lookup(&key(n)).await;
        let (url, field) = match &found {
            Some(Found::Entry(entry)) => (entry.url().to_owned(), entry.head.get(&HeaderName::from_static("x-field"))),
            Some(Found::Large(large)) => {
                (large.entry().url().to_owned(), large.entry().head.get(&HeaderName::from_static("x-field")))
            }
            _ => panic!("{n} is not there"),
        };
        assert_eq!((&url[..], field), (URL, Some(FIELD.as_bytes())), "{n}");
        assert!(content(found).await == Some(lines(bytes)), "{n}");
    }
    assert!(matches!(l3.lookup(&key(5)).await, Some(Found::Variants(found)) if found == variants()));
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Which of these are somewhere in the directory.
fn shown<'n>(directory: &Path, needles: &[&'n [u8]]) -> Vec<&'n [u8]> {
    let contents: Vec<_> = files(directory).iter().map(|path| fs::read(path).expect("readable")).collect();
    let is_shown = |needle: &&[u8]| contents.iter().any(|content| memchr::memmem::find(content, needle).is_some());
    needles.iter().copied().filter(is_shown).collect()
}

#[tokio::test]
async fn all_that_is_stored_is_found_and_nothing_of_it_is_shown() {
    let variant = *variants().iter().next().expect("one").key();
    let keys: Vec<_> = (0..6).map(key).chain([variant]).collect();
    // Bytes of keys are looked for by halves: scopes hold some.
    let halves = keys.iter().flat_map(|key| key.as_bytes().chunks(8));
    let texts = [LINE, URL, "shop.example", FIELD, TAG, "x-field", "x-secretive", "image/png"];
    let needles: Vec<_> = texts.iter().map(|text| text.as_bytes()).chain(halves).collect();
    let open = Disk::new();
    let l3 = open.open();
    filled(&l3).await;
    drop(l3);
    assert!(shown(&open.path(), &needles).len() > keys.len(), "in clear there would be something to find");

    let disk = disk();
    let l3 = disk.open();
    filled(&l3).await;
    assert_all(&l3).await;
    assert_eq!(shown(&disk.path(), &needles), [] as [&[u8]; 0]);
    drop(l3);
    let l3 = disk.open();
    assert_all(&l3).await;
    assert!(l3.verify(|_| true).await.expect("on").is_sound());
    assert_eq!(l3.gc().await.expect("on"), Collected { contents: 4, ..Collected::default() });
    drop(l3);
    assert_eq!(shown(&disk.path(), &needles), [] as [&[u8]; 0], "nor when it was closed");
}

#[tokio::test]
async fn any_range_is_read() {
    let disk = disk();
    let l3 = disk.open();
    let body = noise(1, (1 << 20) + 5);
    assert!(l3.store_through(&entry(1, body.clone())).await);
    let Some(Found::Large(large)) = l3.lookup(&key(1)).await else { panic!("large") };
    let (chunk, last) = (record::CHUNK as u64, body.len() as u64 - 1);
    for range in [0..=0, 5..=9, chunk - 1..=chunk, chunk..=2 * chunk - 1, 100..=last, last..=last] {
        let expected = &body[*range.start() as usize..=*range.end() as usize];
        assert!(read(large.pieces(range.clone())).await.as_deref() == Some(expected), "{range:?}");
    }
}

#[tokio::test]
async fn the_secret_without_the_key_opens_nothing() {
    let disk = disk();
    let l3 = disk.open();
    filled(&l3).await;
    let (tier, index) = (l3.tier(), l3.tier().index().expect("on"));
    let rows = index.records(None, 100).expect("readable");
    assert_eq!(rows.len(), 6);
    for (locator, sealed) in &rows {
        // All that the disk tells, and keys of other entries: of those a thief may have asked for himself.
        let told = rows.iter().map(|(locator, _)| Key::from_bytes(*locator.as_bytes()));
        let others = (0..6).map(key).filter(|key| tier.seal.locator(key) != *locator);
        for guess in told.chain(others) {
            assert_eq!(tier.seal.open(&Address { key: guess, locator: *locator }, sealed), None);
        }
    }
    // Content, even if its record were known.
    let at = tier.seal.address(&key(0));
    let sealed = index.record(&at.locator).expect("readable").expect("stored");
    let record = record::Record::decode(&tier.seal.open(&at, &sealed).expect("its key")).expect("sound");
    let (id, bytes) = record.stored.file().expect("content");
    let proof = Arc::new(record.proof);
    let opened = |key: &Key| {
        let mut content = tier.contents.read(id, bytes).expect("there");
        let opener = tier.seal.opener(key, Arc::clone(&proof)).expect("of this form");
        opener.whole(&mut content).then_some(content)
    };
    assert!(opened(&key(0)) == Some(lines(BODIES[0])));
    assert!(opened(&key(1)).is_none() && opened(&Key::from_bytes(*at.locator.as_bytes())).is_none());
}

#[tokio::test]
async fn another_secret_finds_nothing() {
    let disk = disk();
    let l3 = disk.open();
    filled(&l3).await;
    drop(l3);
    let disk = Disk { secret: [8; 32], ..disk };
    let l3 = disk.open();
    until("on", || l3.is_on()).await;
    for n in 0..6 {
        assert!(l3.lookup(&key(n)).await.is_none());
    }
    assert_eq!(l3.stats().entries, 0);
    filled(&l3).await;
    assert_all(&l3).await;
}

#[tokio::test]
async fn switched_on_or_off_it_begins_empty() {
    let mut disk = Disk::new();
    for encrypt in [false, true, false] {
        disk.config.encrypt = encrypt;
        let l3 = disk.open();
        for n in 0..6 {
            assert!(l3.lookup(&key(n)).await.is_none(), "{encrypt}");
        }
        filled(&l3).await;
        assert_all(&l3).await;
        let contents = l3.stats().contents;
        drop(l3);
        let now = || Timestamp::from_secs(1_800_000_000);
        let other = L3Config { encrypt: !encrypt, ..disk.config.clone() };
        let l3 = L3::open_for_operator(&other, &disk.path(), &SECRET, now).expect("opened");
        assert!(l3.verify(|_| true).await.expect("on").is_sound());
        assert_eq!((l3.stats().entries, l3.stats().contents), (6, contents), "an operator's look changes nothing");
        drop(l3);
        if encrypt {
            assert_eq!(shown(&disk.path(), &[LINE.as_bytes()]), [] as [&[u8]; 0], "nothing in clear is left");
        }
    }
}

#[tokio::test]
async fn a_new_head_needs_no_new_content() {
    let disk = disk();
    let l3 = disk.open();
    let body = noise(1, 9000);
    assert!(l3.store_through(&entry(1, body.clone())).await);
    assert!(l3.store_through(&entry(2, noise(2, 400 << 10))).await);
    let written = l3.tier().metrics.written.get();
    let Some(Found::Large(large)) = l3.lookup(&key(2)).await else { panic!("large") };
    let newer = |made: Unpacked| Arc::new(Unpacked { stamp: Position::from_number(9), ..made }.pack());
    assert!(l3.renew(&newer(unpacked(1, body.clone())), None));
    assert!(l3.renew(&newer(unpacked(2, "")), Some(&large)));
    assert!(l3.flush().await);
    assert_eq!(l3.tier().metrics.written.get(), written);
    assert!(matches!(l3.lookup(&key(1)).await, Some(Found::Entry(entry)) if entry.stamp.number() == 9));
    assert!(matches!(l3.lookup(&key(2)).await, Some(Found::Large(large)) if large.entry().stamp.number() == 9));
    // Who reads it keeps the directory.
    drop((l3, large));
    let l3 = disk.open();
    assert!(found(&l3, 1).await == Some(body) && found(&l3, 2).await == Some(noise(2, 400 << 10)));
}

#[tokio::test]
async fn its_price() {
    let disk = disk();
    let l3 = disk.open();
    for n in [1, 2] {
        assert!(l3.store_through(&entry(n, noise(0, 9000))).await);
        assert!(found(&l3, n).await.is_some());
    }
    // Who waits for what he stores does not wait for the sums.
    l3.flush().await;
    assert_eq!(l3.stats().contents, 2, "equal content is stored for each key");
    assert!(l3.is_loaded() && l3.hottest(10).is_empty(), "keys are not on the disk");
    assert!(l3.removed(&key(1)).await);
    assert!(l3.lacks(&key(1)) && !l3.lacks(&key(2)) && found(&l3, 1).await.is_none());
    l3.flush().await;
    assert_eq!(l3.stats().contents, 1);
}

/// Bits of the files of contents: nothing wrong is ever handed out.
#[tokio::test]
async fn flipped_bits_are_misses() {
    let disk = disk();
    let l3 = disk.open();
    filled(&l3).await;
    drop(l3);
    let paths = files(&disk.path().join("content-v2"));
    for path in &paths {
        let mut content = fs::read(path).expect("readable");
        let at = noise(content.len() as u64, 2);
        let at = usize::from(at[0]) * 256 + usize::from(at[1]);
        let length = content.len();
        content[at % length] ^= 1;
        fs::write(path, content).expect("written");
    }
    let l3 = disk.open();
    for (n, bytes) in (0..).zip(BODIES).filter(|(_, bytes)| *bytes > 0) {
        assert!(content(l3.lookup(&key(n)).await).await.is_none(), "{n}, {bytes} bytes");
    }
    assert!(found(&l3, 3).await == Some(Vec::new()), "what has no content has lost none");
    assert!(l3.flush().await);
    assert!(l3.verify(|_| true).await.expect("on").is_sound(), "they are gone");
}

/// Bits of records, and records in the place of others.
#[tokio::test]
async fn damaged_records_are_misses() {
    let disk = disk();
    let l3 = disk.open();
    filled(&l3).await;
    let index = l3.tier().index().expect("on");
    let rows = index.records(None, 100).expect("readable");
    let put = |at: Locator, record: Vec<u8>| {
        let (_, brief) = index.brief(at.prefix()).expect("readable").expect("there");
        index.apply(&[index::Change::Put { key: at, record, brief: brief.expect("sound") }]).expect("written");
    };
    for (nth, (locator, sealed)) in rows.iter().enumerate() {
        let mut damaged = sealed.clone();
        let at = usize::from(noise(nth as u64, 1)[0]) % damaged.len();
        damaged[at] ^= 1 << (at % 8);
        put(*locator, if nth == 0 { rows[1].1.clone() } else { damaged });
    }
    let found_by_scrub = upkeep::verify(l3.tier(), |_, found| found.entries < 2);
    assert_eq!((found_by_scrub.unreadable, found_by_scrub.cut_short), (2, true), "without any key");
    for n in 0..6 {
        assert!(l3.lookup(&key(n)).await.is_none(), "{n}");
    }
}
