//! What an operator has done, while the tier is in use.

use super::*;

/// Many entries that each have a file of their own, so that gc takes a while.
async fn stored(l3: &L3, range: std::ops::Range<u64>) {
    for n in range {
        l3.store(&entry(n, noise(n, 300)));
        if n.is_multiple_of(2000) {
            l3.flush().await;
        }
    }
    assert!(l3.flush().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gc_leaves_what_is_stored_meanwhile() {
    let disk = Disk::new();
    let l3 = disk.open();
    stored(&l3, 0..8000).await;
    let collecting = l3.clone();
    let collecting = tokio::spawn(async move {
        let mut found = Vec::new();
        for _ in 0..5 {
            found.push(collecting.gc().await.expect("on"));
        }
        found
    });
    let mut n = 8000;
    while !collecting.is_finished() {
        // Some new, some in place of others; waited for, so that there are many commits.
        l3.store(&entry(n % 8000, noise(n + 1_000_000, 300)));
        assert!(l3.store_through(&entry(n, noise(n, 300))).await);
        n += 1;
    }
    let found_by_gc = collecting.await.expect("no panic");
    assert!(l3.flush().await);
    let mut gone = 0;
    for n in 0..n {
        gone += usize::from(found(&l3, n).await.is_none());
    }
    assert_eq!(gone, 0, "of {n}; {found_by_gc:?}");
    assert!(found_by_gc.iter().all(|found| (found.orphans, found.lost, found.leaked) == (0, 0, 0)), "{found_by_gc:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleared_while_gc_runs() {
    let disk = Disk::new();
    let l3 = disk.open();
    let contents = Contents::new(&disk.path(), Arc::default());
    for round in 0..3 {
        for n in 0..2000 {
            // The writer is asked about each of them.
            let orphan = noise(round * 10_000 + n, 30);
            contents.write(content::ContentId::of(&orphan), &orphan).expect("written");
        }
        let collecting = l3.clone();
        let collecting = tokio::spawn(async move { collecting.gc().await });
        until("under way", || content_files(&disk) < 2000).await;
        tokio::time::timeout(Duration::from_secs(20), l3.clear()).await.expect("in time").expect("cleared");
        let _ = collecting.await.expect("no panic");
        assert_eq!(content_files(&disk), 0);
    }
    assert!(l3.store_through(&entry(5, "anew")).await);
}

fn content_files(disk: &Disk) -> usize {
    let contents = Contents::new(&disk.path(), Arc::default());
    (0..=u8::MAX).map(|first| contents.list(first).expect("readable").0.len()).sum()
}

#[tokio::test]
async fn an_operators_look_leaves_a_crash_to_be_tidied_up() {
    let disk = Disk::new();
    let l3 = disk.open();
    stored(&l3, 0..3).await;
    drop(l3);
    std::fs::write(disk.path().join("running"), "").expect("written");
    let orphan = noise(77, 30);
    Contents::new(&disk.path(), Arc::default()).write(content::ContentId::of(&orphan), &orphan).expect("written");
    let open = || {
        let now = || Timestamp::from_secs(1_800_000_000);
        L3::open_for_operator(&disk.config, &disk.path(), &SECRET, now).expect("opened")
    };

    let l3 = open();
    assert_eq!((l3.is_on(), l3.stats().entries, content_files(&disk)), (true, 3, 4));
    drop(l3);
    assert!(disk.path().join("running").exists(), "the next start tidies up");
    let l3 = open();
    assert_eq!(l3.gc().await.expect("on"), Collected { contents: 4, orphans: 1, ..Collected::default() });
    assert_eq!(l3.gc().await.expect("on"), Collected { contents: 3, ..Collected::default() });
    drop(l3);
    assert!(!disk.path().join("running").exists(), "it is tidy");
}

#[tokio::test]
async fn an_operator_learns_of_a_damaged_index() {
    let disk = Disk::new();
    let l3 = disk.open();
    stored(&l3, 0..3).await;
    assert!(l3.verify(|_| true).await.expect("on").is_sound());
    drop(l3);
    let index = disk.path().join("index");
    let length = std::fs::metadata(&index).expect("there").len();
    std::fs::write(&index, noise(1, usize::try_from(length).expect("small"))).expect("written");
    let l3 = disk.open();
    until("on", || l3.is_on()).await;
    assert_eq!((l3.stats().damaged_indexes, l3.stats().entries), (1, 0));
}

#[tokio::test]
async fn a_record_that_is_not_what_was_written_is_found() {
    let disk = Disk::new();
    let l3 = disk.open();
    stored(&l3, 0..3).await;
    let index = l3.tier().index().expect("on");
    let at = l3.tier().seal.locator(&key(1));
    let (_, brief) = index.brief(at.prefix()).expect("readable").expect("there");
    let put = index::Change::Put { key: at, record: vec![7; 100], brief: brief.expect("sound") };
    index.apply(&[put]).expect("written");
    drop(index);
    let found = l3.verify(|_| true).await.expect("on");
    assert_eq!((found.entries, found.unreadable, found.corrupt, found.cut_short), (3, 1, 0, false));
    let found = l3.verify(|_| true).await.expect("on");
    assert_eq!((found.entries, found.unreadable), (2, 0), "removed");
    assert!(l3.verify(|found| found.entries < 1).await.expect("on").cut_short);
}

#[tokio::test]
async fn an_operator_with_another_secret_harms_nothing() {
    for encrypt in [false, true] {
        let disk = Disk::with(|config| config.encrypt = encrypt);
        let l3 = disk.open();
        stored(&l3, 0..3).await;
        drop(l3);
        let now = || Timestamp::from_secs(1_800_000_000);
        let opened = patiently(|| L3::open_for_operator(&disk.config, &disk.path(), &[8; 32], now));
        let l3 = opened.expect("opened");
        assert!(!l3.is_on() && l3.verify(|_| true).await.is_err());
        drop(l3);
        let l3 = disk.open();
        assert!(found(&l3, 1).await == Some(noise(1, 300)), "{encrypt}");
    }
}
