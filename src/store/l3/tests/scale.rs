//! What a million entries cost; run by hand: `cargo test --lib -- --ignored --nocapture l3::tests::scale`.

use super::*;

/// Entries, and how long start, first look-up and misses take with them.
#[tokio::test]
#[ignore = "takes minutes"]
async fn a_million_entries() {
    let entries = std::env::var("LARDER_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let disk = Disk::with(|config| {
        config.max_bytes = ByteSize::gib(64);
        config.entries_max = 2_000_000;
        config.queue_max = 100_000;
    });
    let l3 = disk.open();
    let start = Instant::now();
    for n in 0..entries {
        // One content for all: it is the index that is measured.
        while !l3.store(&entry(n, "x".repeat(100))) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(l3.flush().await);
    println!("stored {entries} in {:?}: {:?}", start.elapsed(), l3.stats());
    drop(l3);

    let start = Instant::now();
    let l3 = disk.open();
    let opened = start.elapsed();
    assert!(l3.lookup(&key(entries / 2)).await.is_some());
    let first = start.elapsed();
    println!("opened in {opened:?}, first look-up after {first:?}");
    until("loaded", || l3.is_loaded()).await;
    println!("loaded after {:?}", start.elapsed());

    let misses = 1_000_000;
    let start = Instant::now();
    let missed = (0..misses).map(|n| key(entries + n % 1000)).filter(|key| l3.lacks(key)).count();
    println!("a miss takes {:?}, the hash of its key included", start.elapsed() / misses as u32);
    assert_eq!(missed as u64, misses);

    let start = Instant::now();
    for n in 0..10_000 {
        assert!(l3.lookup(&key(n * 97 % entries)).await.is_some());
    }
    println!("a hit takes {:?}", start.elapsed() / 10_000);
    assert!(first < Duration::from_secs(1));
}
