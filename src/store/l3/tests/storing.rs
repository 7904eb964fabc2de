//! What goes in comes out: once on the disk, under every key, also after a restart.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::*;
use crate::object::{
    freshness::Flags,
    head::Head,
    vary::{Comparing, Variant},
};

fn text(n: usize) -> Vec<u8> {
    "{\"answer\": \"the same again\"}, ".repeat(n).into_bytes()
}

fn json(n: u64, body: Vec<u8>) -> Arc<Entry> {
    let fields = HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    Arc::new(Unpacked { head: Head::new(StatusCode::OK, &fields), ..unpacked(n, body) }.pack())
}

#[tokio::test]
async fn content_of_every_size_comes_back() {
    let disk = Disk::new();
    let l3 = disk.open();
    let sizes = [0, 1, 1000, 256 << 10, (256 << 10) + 1, 1 << 20, (1 << 20) + 77];
    for (n, size) in sizes.into_iter().enumerate() {
        let n = n as u64;
        assert!(l3.store_through(&entry(n, noise(n, size))).await);
        assert!(found(&l3, n).await == Some(noise(n, size)), "{size}");
    }
    assert!(found(&l3, 99).await.is_none() && l3.lacks(&key(99)));
    drop(l3);
    let l3 = disk.open();
    for (n, size) in sizes.into_iter().enumerate() {
        assert!(found(&l3, n as u64).await == Some(noise(n as u64, size)), "{size} after a restart");
    }
}

#[tokio::test]
async fn what_an_entry_says_survives() {
    let disk = Disk::new();
    let l3 = disk.open();
    let made = Unpacked {
        stamp: Position::from_number(42),
        scopes: [Scope::site("shop"), Scope::tag(b"", "blue")].into(),
        tags: "blue red".into(),
        url: "http://shop.example/secret".into(),
        fill_millis: 77,
        hits: 3,
        ..unpacked(1, noise(1, 300 << 10))
    };
    let small = Unpacked { body: Bytes::from_static(b"small"), key: key(2), ..made.clone() };
    for made in [&made, &small] {
        assert!(l3.store_through(&Arc::new(made.clone().pack())).await);
    }
    for _ in 0..5 {
        l3.lookup(&key(2)).await.expect("stored");
    }
    drop(l3);
    let l3 = disk.open();
    until("loaded", || l3.is_loaded()).await;
    let Some(Found::Large(large)) = l3.lookup(&key(1)).await else { panic!("large") };
    let Some(Found::Entry(whole)) = l3.lookup(&key(2)).await else { panic!("whole") };
    for entry in [large.entry(), &whole] {
        assert_eq!((entry.stamp, entry.tags(), entry.url()), (made.stamp, "blue red", &*made.url));
        assert_eq!((entry.fill_millis, entry.freshness()), (77, made.freshness));
        assert!(entry.scopes().starts_with(&made.scopes));
    }
    assert!(whole.hits.load(Relaxed) >= 8, "three before it was stored, five since");
    assert_eq!(l3.hottest(1), [key(2)]);
}

#[tokio::test]
async fn identical_bodies_are_stored_once() {
    let disk = Disk::new();
    let l3 = disk.open();
    for body in [noise(1, 5000), noise(2, 500 << 10), text(100)] {
        for n in [1, 2] {
            assert!(l3.store_through(&json(n, body.clone())).await);
        }
        assert!(l3.flush().await);
        let stats = l3.stats();
        assert_eq!((stats.entries, stats.contents), (2, 1), "{stats:?}");
        assert!(l3.removed(&key(1)).await);
        assert!(found(&l3, 1).await.is_none());
        assert!(found(&l3, 2).await == Some(body), "removing one leaves the other");
        assert!(l3.removed(&key(2)).await);
        l3.flush().await;
        assert_eq!((l3.stats().contents, l3.stats().physical_bytes), (0, 0));
        assert_eq!(l3.gc().await.expect("on"), Collected::default(), "and no file is left");
    }
}

#[tokio::test]
async fn two_of_one_content_in_one_batch() {
    let disk = Disk::new();
    let l3 = disk.open();
    (0..50).for_each(|n| assert!(l3.store(&entry(n, noise(1, 2000)))));
    assert!(l3.flush().await);
    assert_eq!((l3.stats().entries, l3.stats().contents), (50, 1));
    assert_eq!(l3.tier().metrics.deduplicated.get(), 49 * 2000);
}

#[tokio::test]
async fn what_compresses_well_is_compressed() {
    let disk = Disk::new();
    let l3 = disk.open();
    let body = text(10_000);
    assert!(l3.store_through(&json(1, body.clone())).await);
    l3.flush().await;
    let stats = l3.stats();
    assert_eq!(stats.logical_bytes, body.len() as u64);
    assert!(stats.stored_bytes < body.len() as u64 / 10, "{stats:?}");
    drop(l3);
    let l3 = disk.open();
    assert!(matches!(l3.lookup(&key(1)).await, Some(Found::Entry(_))), "whole: it has to be decompressed anyway");
    assert!(found(&l3, 1).await == Some(body));
}

#[tokio::test]
async fn the_newest_counts() {
    let disk = Disk::new();
    let l3 = disk.open();
    l3.store(&entry(1, "first"));
    assert_eq!(found(&l3, 1).await.expect("on its way"), b"first");
    l3.store(&entry(1, "second"));
    assert_eq!(found(&l3, 1).await.expect("on its way"), b"second");
    l3.flush().await;
    assert_eq!(found(&l3, 1).await.expect("on the disk"), b"second");
    l3.remove(&key(1));
    assert!(found(&l3, 1).await.is_none(), "at once");
    l3.store(&entry(1, "third"));
    assert!(l3.flush().await);
    assert_eq!(found(&l3, 1).await.expect("stored again"), b"third");
    assert!(l3.removed(&key(1)).await && l3.removed(&key(2)).await);
    drop(l3);
    assert!(found(&disk.open(), 1).await.is_none());
}

#[tokio::test]
async fn a_new_head_leaves_content_as_it_is() {
    let disk = Disk::new();
    let l3 = disk.open();
    let (whole, large) = (unpacked(1, noise(1, 9000)), unpacked(2, noise(2, 400 << 10)));
    for made in [&whole, &large] {
        assert!(l3.store_through(&Arc::new(made.clone().pack())).await);
    }
    let written = l3.tier().metrics.written.get();
    let newer = |made: Unpacked| Arc::new(Unpacked { stamp: Position::from_number(9), ..made }.pack());
    let Some(Found::Large(found_large)) = l3.lookup(&key(2)).await else { panic!("large") };
    assert!(l3.renew(&newer(whole), None));
    assert!(l3.renew(&newer(Unpacked { body: Bytes::new(), ..large }), Some(&found_large)));
    let stamp = |found: Option<Found>| match found {
        Some(Found::Entry(entry)) => entry.stamp.number(),
        Some(Found::Large(large)) => large.entry().stamp.number(),
        _ => panic!("not found"),
    };
    for flushed in [false, true] {
        if flushed {
            assert!(l3.flush().await);
        }
        assert_eq!((stamp(l3.lookup(&key(1)).await), stamp(l3.lookup(&key(2)).await)), (9, 9), "{flushed}");
    }
    assert!(found(&l3, 1).await == Some(noise(1, 9000)) && found(&l3, 2).await == Some(noise(2, 400 << 10)));
    assert_eq!(l3.tier().metrics.written.get(), written);

    l3.store_through(&entry(2, noise(3, 500 << 10))).await;
    l3.renew(&newer(unpacked(2, "")), Some(&found_large));
    l3.flush().await;
    assert!(found(&l3, 2).await == Some(noise(3, 500 << 10)), "something newer is not renewed");
}

#[tokio::test]
async fn variants_are_found() {
    let disk = Disk::new();
    let l3 = disk.open();
    let by = Comparing { secret: &SECRET, normalise: true };
    let head = Head::new(StatusCode::OK, &HeaderMap::new());
    let request = HeaderMap::from_iter([(HeaderName::from_static("foo"), HeaderValue::from_static("1"))]);
    let fields = [HeaderName::from_static("foo")];
    let variant = Variant::new(&key(1), &fields, &request, &head, by, Timestamp::from_secs(5));
    let variants = Arc::new(Variants::default().with(variant, 8));
    assert!(l3.store_variants(&key(1), &variants));
    let found = async |l3: &L3| match l3.lookup(&key(1)).await {
        Some(Found::Variants(found)) => found,
        _ => panic!("variants"),
    };
    assert_eq!(found(&l3).await, variants, "on their way");
    l3.flush().await;
    assert_eq!(found(&l3).await, variants, "on the disk");
    drop(l3);
    assert_eq!(found(&disk.open()).await, variants, "after a restart");
}

async fn stream(l3: &L3, n: u64, body: &[u8], piece: usize) -> bool {
    let mut writer = l3.writer(&key(n)).expect("on");
    for piece in body.chunks(piece) {
        if writer.push(Bytes::copy_from_slice(piece)).await.is_err() {
            return false;
        }
    }
    writer.finish(unpacked(n, "")).await.is_some_and(Finished::store)
}

#[tokio::test]
async fn bodies_are_written_while_they_arrive() {
    let disk = Disk::new();
    let l3 = disk.open();
    let sizes = [0, 10, 256 << 10, (256 << 10) + 1, 3 << 20, (1 << 20) + 4321];
    for (n, size) in sizes.into_iter().enumerate() {
        let body = noise(n as u64, size);
        assert!(stream(&l3, n as u64, &body, 10_007).await);
        assert!(found(&l3, n as u64).await.as_ref() == Some(&body), "{size} on its way");
        assert!(l3.flush().await);
        assert!(found(&l3, n as u64).await == Some(body), "{size} on the disk");
    }
    assert!(stream(&l3, 50, &noise(4, 3 << 20), 1 << 20).await, "the same once more");
    l3.flush().await;
    assert_eq!(l3.stats().contents, 5, "of six bodies one has no content, and the seventh is a copy");
    assert_eq!(l3.gc().await.expect("on"), Collected { contents: 5, ..Collected::default() });
}

#[tokio::test]
async fn what_is_not_committed_was_never_there() {
    let disk = Disk::with(|config| config.object_bytes_max = ByteSize::mib(1));
    let l3 = disk.open();
    let mut writer = l3.writer(&key(1)).expect("on");
    writer.push(noise(1, 600 << 10).into()).await.expect("room");
    drop(writer);
    assert!(!stream(&l3, 2, &noise(2, 2 << 20), 100_000).await, "too long");
    assert!(!l3.store_through(&entry(3, noise(3, 2 << 20))).await, "too long");
    assert!(found(&l3, 1).await.is_none() && found(&l3, 2).await.is_none());
    assert_eq!(l3.gc().await.expect("on"), Collected::default());
    assert_eq!(std::fs::read_dir(disk.path().join("tmp")).expect("there").count(), 0);
    assert_eq!(l3.tier().metrics.drops("large"), 2);
    assert_eq!(l3.tier().streaming.load(Relaxed), 0);
}

#[tokio::test]
async fn ranges_read_what_they_need() {
    let disk = Disk::new();
    let l3 = disk.open();
    let body = noise(1, (1 << 20) + 5);
    assert!(l3.store_through(&entry(1, body.clone())).await);
    let Some(Found::Large(large)) = l3.lookup(&key(1)).await else { panic!("large") };
    assert_eq!(large.length(), body.len() as u64);
    let chunk = record::CHUNK as u64;
    let last = body.len() as u64 - 1;
    for range in [0..=0, 5..=9, chunk - 1..=chunk, chunk..=2 * chunk - 1, 100..=last, last..=last, last..=last + 9] {
        let pieces = large.pieces(range.clone());
        let expected = &body[*range.start() as usize..=(*range.end()).min(last) as usize];
        assert_eq!(pieces.remaining(), expected.len() as u64);
        assert!(read(pieces).await.as_deref() == Some(expected), "{range:?}");
    }
    assert!(read(large.pieces(last + 1..=last + 1)).await == Some(Vec::new()));
    l3.removed(&key(1)).await;
    assert!(read(large.all()).await == Some(body), "who has it open reads it to its end");
}

#[tokio::test]
async fn large_entries_are_held_open_as_long_as_they_are_there() {
    let disk = Disk::new();
    let l3 = disk.open();
    for n in [1, 2] {
        assert!(l3.store_through(&entry(n, noise(n, 300 << 10))).await);
        assert!(found(&l3, n).await.is_some());
    }
    assert_eq!(l3.tier().handles.len(), 2);
    assert!(matches!(l3.tier().peek(&l3.tier().seal.locator(&key(1))), Peek::Open(_)));
    assert!(found(&l3, 1).await == Some(noise(1, 300 << 10)), "from the open file");

    let Some(Found::Large(large)) = l3.lookup(&key(1)).await else { panic!("large") };
    let renewed = Unpacked { stamp: Position::from_number(9), ..unpacked(1, "") };
    assert!(l3.renew(&Arc::new(renewed.pack()), Some(&large)));
    for flushed in [false, true] {
        let Some(Found::Large(large)) = l3.lookup(&key(1)).await else { panic!("large") };
        assert_eq!(large.entry().stamp.number(), 9, "{flushed}");
        assert_eq!(large.entry().length(), 300 << 10);
        l3.flush().await;
    }
    assert!(l3.store_through(&entry(1, noise(3, 400 << 10))).await);
    assert!(found(&l3, 1).await == Some(noise(3, 400 << 10)), "and not what was held open before");
    assert!(l3.removed(&key(2)).await);
    assert!(found(&l3, 2).await.is_none() && l3.tier().handles.len() == 1);
    let id = large::Large::of(large.entry()).expect("of the disk").id();
    assert!(std::fs::metadata(l3.tier().contents.path(id)).is_err(), "its room is free again");
    l3.clear().await.expect("on");
    assert_eq!(l3.tier().handles.len(), 0);
}

#[tokio::test]
async fn a_new_head_reaches_content_that_has_just_landed() {
    let disk = Disk::new();
    let l3 = disk.open();
    assert!(stream(&l3, 1, &noise(1, 300 << 10), 50_000).await);
    let Some(Found::Large(large)) = l3.lookup(&key(1)).await else { panic!("large") };
    let renewed = Unpacked { stamp: Position::from_number(9), ..unpacked(1, "") };
    assert!(l3.renew(&Arc::new(renewed.pack()), Some(&large)));
    l3.flush().await;
    let Some(Found::Large(large)) = l3.lookup(&key(1)).await else { panic!("large") };
    assert_eq!(large.entry().stamp.number(), 9);
}

#[tokio::test]
async fn what_cannot_be_told_by_its_url_is_known_after_a_start() {
    let disk = Disk::new();
    let l3 = disk.open();
    until("loaded", || l3.is_loaded()).await;
    let [url, other] = [Scope::url("shop", "/a", None), Scope::url("shop", "/b", None)];
    assert!(l3.scattered(url) == Scattered::No && !l3.may_hold_parts());
    let mut made = Unpacked { stamp: Position::from_number(7), scopes: [url].into(), ..unpacked(1, "x") };
    made.freshness.flags = Flags::SCATTERED;
    let part = Some(crate::object::range::ContentRange::new(&(0..=0), 9));
    for made in [made, Unpacked { part, scopes: [other].into(), ..unpacked(2, "x") }] {
        assert!(l3.store_through(&Arc::new(made.pack())).await);
    }
    let known = |l3: &L3| (l3.scattered(url), l3.scattered(other), l3.may_hold_parts());
    let expected = (Scattered::UpTo(Position::from_number(7)), Scattered::No, true);
    assert_eq!(known(&l3), expected);
    drop(l3);
    let l3 = disk.open();
    until("loaded", || l3.is_loaded()).await;
    assert_eq!(known(&l3), expected);
}

#[tokio::test]
async fn the_second_hit_is_written() {
    let disk = Disk::with(|config| config.admission = Admission::SecondHit);
    let l3 = disk.open();
    assert!(!l3.store(&entry(1, "once")));
    assert!(l3.store(&entry(1, "twice")), "filled again");
    let served = entry(2, "served");
    served.served();
    assert!(l3.store(&served), "served already");
    assert!(!l3.admits(&key(3), 0) && l3.admits(&key(3), 0));
    assert_eq!(l3.tier().metrics.drops("admission"), 2);
}

#[test]
fn nothing_readable_lies_in_the_index() {
    let lies = |readable| {
        let disk = Disk::with(|config| config.readable_index = readable);
        let l3 = disk.open();
        let made = Unpacked { url: "http://shop.example/prompt".into(), tags: "hush-hush".into(), ..unpacked(1, "x") };
        l3.store(&Arc::new(made.pack()));
        drop(l3);
        let index = std::fs::read(disk.path().join("index")).expect("there");
        let contains = |text: &[u8]| index.windows(text.len()).any(|window| window == text);
        [contains(b"shop.example"), contains(b"hush-hush")]
    };
    assert_eq!((lies(false), lies(true)), ([false, false], [true, true]));
}

#[tokio::test]
async fn another_secret_finds_nothing() {
    let disk = Disk::new();
    let l3 = disk.open();
    assert!(l3.store_through(&entry(1, "sealed")).await);
    drop(l3);
    let now = || Timestamp::from_secs(1_800_000_000);
    let l3 = L3::open(&disk.config, &disk.path(), &[8; 32], now, &mut Registry::default()).expect("opened");
    until("on", || l3.is_on()).await;
    assert!(found(&l3, 1).await.is_none());
    assert!(l3.store_through(&entry(1, "anew")).await);
    l3.gc().await.expect("on");
    assert_eq!(
        l3.gc().await.expect("on"),
        Collected { contents: 1, ..Collected::default() },
        "what nobody can name any more has gone"
    );
}

#[tokio::test]
async fn a_directory_has_one_owner() {
    let disk = Disk::new();
    let l3 = disk.open();
    let error = disk.try_open().err().expect("taken").to_string();
    let pid = std::process::id().to_string();
    assert!(error.contains(&pid) && error.contains(&format!("{:?}", disk.path())), "{error}");
    drop(l3);
    disk.open();
}

#[tokio::test]
async fn cleared() {
    let disk = Disk::new();
    let l3 = disk.open();
    (0..100).for_each(|n| assert!(l3.store(&entry(n, noise(n, 1000)))));
    l3.flush().await;
    l3.clear().await.expect("cleared");
    assert!(l3.is_on() && found(&l3, 5).await.is_none());
    l3.flush().await;
    assert_eq!(l3.stats().entries, 0);
    assert!(l3.store_through(&entry(5, "anew")).await);
    assert_eq!(l3.gc().await.expect("on"), Collected { contents: 1, ..Collected::default() });
    drop(l3);
    L3::clear_directory(&disk.path()).expect("free");
    assert!(found(&disk.open(), 5).await.is_none());
}
