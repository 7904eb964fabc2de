//! Bounds hold, and what leaves leaves in order.

use super::*;

async fn stored(l3: &L3, n: u64, length: usize) {
    assert!(l3.store_through(&entry(n, noise(n, length))).await);
}

async fn left(l3: &L3, range: std::ops::Range<u64>) -> Vec<u64> {
    let mut left = Vec::new();
    for n in range {
        if !l3.lacks(&key(n)) {
            left.push(n);
        }
    }
    left
}

#[tokio::test]
async fn bytes_stay_within_their_bound() {
    let disk = Disk::with(|config| config.max_bytes = ByteSize::mib(8));
    let l3 = disk.open();
    for n in 0..300 {
        stored(&l3, n, 100 << 10).await;
        if n % 25 == 0 {
            l3.flush().await;
            let stats = l3.stats();
            assert!(stats.physical_bytes + stats.index_bytes <= 8 * MIB, "{stats:?}");
        }
    }
    assert!(found(&l3, 299).await.is_some(), "the newest is there");
    assert!(l3.stats().entries > 20 && l3.tier().metrics.evictions("bytes") > 200);
    assert_eq!(l3.gc().await.expect("on").orphans, 0, "what left took its content along");
}

#[tokio::test]
async fn one_entry_does_not_push_out_all_others() {
    let disk = Disk::with(|config| config.max_bytes = ByteSize::mib(8));
    let l3 = disk.open();
    stored(&l3, 1, 1000).await;
    assert!(!l3.store_through(&entry(2, noise(2, 5 << 20))).await);
    assert!(found(&l3, 1).await.is_some());
}

#[tokio::test]
async fn entries_stay_within_their_bound() {
    let disk = Disk::with(|config| config.entries_max = 10);
    let l3 = disk.open();
    for n in 0..40 {
        disk.pass(1);
        stored(&l3, n, 10).await;
    }
    l3.flush().await;
    assert_eq!(l3.stats().entries, 10);
    assert_eq!(left(&l3, 0..40).await, (30..40).collect::<Vec<_>>(), "the least recently used have left");
}

#[tokio::test]
async fn what_is_used_stays() {
    let disk = Disk::with(|config| config.entries_max = 10);
    let l3 = disk.open();
    for n in 0..10 {
        disk.pass(1);
        stored(&l3, n, 10).await;
    }
    disk.pass(1);
    assert!(found(&l3, 0).await.is_some());
    stored(&l3, 10, 10).await;
    assert_eq!(left(&l3, 0..11).await, [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
}

/// Of three entries each policy gives up another one.
#[tokio::test]
async fn policies_choose() {
    let first = async |policy| {
        let disk = Disk::with(|config| (config.entries_max, config.policy) = (3, policy));
        let l3 = disk.open();
        for (n, hits, keep_for, millis) in [(0, 9, 900, 900), (1, 1, 900, 90_000), (2, 9, 100, 900)] {
            disk.pass(1);
            let made = Unpacked { hits, fill_millis: millis, ..keep(unpacked(n, noise(n, 10)), keep_for) };
            assert!(l3.store_through(&Arc::new(made.pack())).await);
        }
        disk.pass(1);
        stored(&l3, 7, 10).await;
        (0..3).find(|n| l3.lacks(&key(*n))).expect("one has left")
    };
    assert_eq!(first(L3Policy::Lru).await, 0);
    assert_eq!(first(L3Policy::Lfu).await, 1);
    assert_eq!(first(L3Policy::Ttl).await, 2);
    assert_eq!(first(L3Policy::Cost).await, 0);
}

#[tokio::test]
async fn the_expired_leave_first() {
    let disk = Disk::with(|config| config.entries_max = 3);
    let l3 = disk.open();
    for (n, seconds) in [(0, 9000), (1, 50), (2, 9000)] {
        disk.pass(1);
        assert!(l3.store_through(&Arc::new(keep(unpacked(n, noise(n, 10)), seconds).pack())).await);
    }
    disk.pass(100);
    stored(&l3, 3, 10).await;
    assert_eq!(left(&l3, 0..4).await, [0, 2, 3]);
    assert!(l3.tier().metrics.evictions("expired") == 1 && l3.tier().metrics.evictions("entries") == 0);
}

#[tokio::test]
async fn a_disk_keeps_what_others_need() {
    let disk = Disk::with(|config| config.free_bytes_min = ByteSize(u64::MAX / 2));
    let l3 = disk.open();
    assert!(!l3.store_through(&entry(1, "x")).await, "the disk would not be left as free");
    assert!(l3.is_on(), "which is no failure");
    assert_eq!(l3.tier().metrics.drops("room"), 1);
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let disk = Disk::with(|config| {
        config.queue_max = 10;
        // The first takes longer than the test.
        config.write_rate = ByteSize(1000);
    });
    let l3 = disk.open();
    let taken = (0..100).filter(|n| l3.store(&entry(*n, noise(*n, 100_000)))).count();
    assert!((10..50).contains(&taken), "{taken}");
    assert_eq!(l3.tier().metrics.drops("queue"), 100 - taken as u64);
    l3.remove(&key(0));
    assert!(found(&l3, 0).await.is_none(), "a removal always has room");
}

/// With paused time, streams take as long as the rate says.
#[tokio::test(start_paused = true)]
async fn writing_keeps_to_its_rate() {
    let disk = Disk::with(|config| config.write_rate = ByteSize::mib(1));
    let l3 = disk.open();
    let start = Instant::now();
    let mut writer = l3.writer(&key(1)).expect("on");
    for _ in 0..64 {
        writer.push(vec![0; 128 << 10].into()).await.expect("room");
    }
    let seconds = start.elapsed().as_secs_f64();
    assert!((6.5..7.5).contains(&seconds), "8 MiB at 1 MiB/s, one second's worth at once: {seconds}");
}
