//! Damage to files: never served, always counted, no panic that gets out. `LARDER_DAMAGES` says how many indexes are damaged.

use std::{fs, path::PathBuf};

use super::*;

/// Small ones, compressed ones, large ones.
fn body(n: u64) -> Vec<u8> {
    noise(n, if n.is_multiple_of(5) { 300 << 10 } else { 3000 + n as usize })
}

const ENTRIES: u64 = 30;

async fn filled(disk: &Disk) {
    let l3 = disk.open();
    for n in 0..ENTRIES {
        l3.store(&entry(n, body(n)));
    }
    assert!(l3.flush().await);
}

/// How many are found; all of them right.
async fn intact(l3: &L3) -> u64 {
    let mut intact = 0;
    for n in 0..ENTRIES {
        let Some(found) = l3.lookup(&key(n)).await else { continue };
        // A large one that is damaged breaks off.
        if let Some(content) = content(Some(found)).await {
            assert!(content == body(n), "{n} is not what was stored");
            intact += 1;
        }
    }
    intact
}

fn content_files(disk: &Disk) -> Vec<PathBuf> {
    let mut open = vec![disk.path().join("content-v2")];
    let mut files = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

fn flip(path: &Path, seed: u64) {
    let mut content = fs::read(path).expect("readable");
    let at = usize::try_from(u64::from_le_bytes(noise(seed, 8).try_into().expect("eight"))).expect("64 bits");
    let at = at % (8 * content.len());
    content[at / 8] ^= 1 << (at % 8);
    fs::write(path, content).expect("written");
}

#[tokio::test]
async fn flipped_bits_in_content() {
    let disk = Disk::new();
    filled(&disk).await;
    let l3 = disk.open();
    for (seed, path) in content_files(&disk).iter().enumerate().take(10) {
        flip(path, seed as u64);
    }
    assert_eq!(intact(&l3).await, ENTRIES - 10);
    assert_eq!(l3.tier().metrics.errors("corrupt"), 10);
    l3.flush().await;
    assert_eq!(
        (intact(&l3).await, l3.tier().metrics.errors("corrupt")),
        (ENTRIES - 10, 10),
        "removed, not found again"
    );
    l3.gc().await.expect("on");
    assert_eq!(l3.gc().await.expect("on"), Collected { contents: ENTRIES - 10, ..Collected::default() });
}

#[tokio::test]
async fn what_proved_wrong_is_not_found_again() {
    let disk = Disk::new();
    let l3 = disk.open();
    assert!(l3.store_through(&entry(1, noise(1, 1 << 20))).await);
    flip(&content_files(&disk)[0], 7);
    let Some(Found::Large(large)) = l3.lookup(&key(1)).await else { panic!("large") };
    assert!(read(large.all()).await.is_none(), "breaks off");
    // Without a wait for the writer.
    assert!(l3.lookup(&key(1)).await.is_none());
    assert!(l3.flush().await);
    assert_eq!(l3.tier().metrics.errors("corrupt"), 1, "counted once");
    assert!(l3.store_through(&entry(1, noise(1, 1 << 20))).await, "the same again");
    assert_eq!(found(&l3, 1).await.expect("whole"), noise(1, 1 << 20));
}

#[tokio::test]
async fn content_cut_short_or_gone() {
    let disk = Disk::new();
    filled(&disk).await;
    let l3 = disk.open();
    let files = content_files(&disk);
    for path in &files[..5] {
        let length = fs::metadata(path).expect("there").len();
        fs::File::options().write(true).open(path).and_then(|file| file.set_len(length - 1)).expect("cut");
    }
    files[5..10].iter().for_each(|path| fs::remove_file(path).expect("removed"));
    assert_eq!(intact(&l3).await, ENTRIES - 10);
    assert_eq!((l3.tier().metrics.errors("corrupt"), l3.tier().metrics.errors("missing")), (5, 5));
}

#[tokio::test]
async fn a_large_file_cut_while_it_is_read_breaks_off() {
    let disk = Disk::new();
    let l3 = disk.open();
    assert!(l3.store_through(&entry(1, noise(1, 4 << 20))).await);
    let Some(Found::Large(large)) = l3.lookup(&key(1)).await else { panic!("large") };
    let mut pieces = large.all();
    pieces.next().await.expect("more").expect("sound");
    let path = content_files(&disk).remove(0);
    fs::File::options().write(true).open(path).and_then(|file| file.set_len(100_000)).expect("cut");
    let error = pieces.next().await.expect("more").map(drop).expect_err("not there any more");
    assert!(error.to_string().contains("length"), "{error}");
    assert!(pieces.next().await.is_none());
}

#[tokio::test]
async fn verify_finds_all_damage() {
    let disk = Disk::new();
    filled(&disk).await;
    let l3 = disk.open();
    let files = content_files(&disk);
    files[..4].iter().enumerate().for_each(|(seed, path)| flip(path, seed as u64));
    fs::remove_file(&files[4]).expect("removed");
    let verified = l3.verify(|_| true).await.expect("on");
    assert_eq!((verified.contents, verified.corrupt, verified.missing), (ENTRIES, 4, 1));
    let again = l3.verify(|_| true).await.expect("on");
    assert_eq!((again.contents, again.corrupt, again.missing), (ENTRIES - 5, 0, 0));
    assert_eq!(l3.gc().await.expect("on").lost, 5);
    assert_eq!(intact(&l3).await, ENTRIES - 5);
}

#[tokio::test]
async fn the_scrub_finds_damage_by_itself() {
    let disk = Disk::new();
    filled(&disk).await;
    content_files(&disk)[..4].iter().enumerate().for_each(|(seed, path)| flip(path, seed as u64));
    let disk = Disk { config: L3Config { scrub_rate: ByteSize::gib(1), ..config() }, ..disk };
    let l3 = disk.open();
    until("scrubbed", || l3.tier().metrics.errors("corrupt") == 4).await;
}

#[tokio::test]
async fn a_damaged_index_serves_nothing_wrong() {
    let disk = Disk::new();
    filled(&disk).await;
    let good = fs::read(disk.path().join("index")).expect("readable");
    let times = std::env::var("LARDER_DAMAGES").ok().and_then(|times| times.parse().ok()).unwrap_or(40);
    let mut found_some = 0;
    for seed in 0..times {
        let mut index = good.clone();
        // From one bit to many, anywhere; some of it cut off.
        for nth in 0..1_u64 << (seed % 8) {
            let at = u64::from_le_bytes(noise(1000 * seed + nth, 8).try_into().expect("eight"));
            let at = usize::try_from(at).expect("64 bits") % (8 * index.len());
            index[at / 8] ^= 1 << (at % 8);
        }
        if seed % 10 == 9 {
            index.truncate(index.len() / 2);
        }
        fs::write(disk.path().join("index"), &index).expect("written");
        let l3 = disk.open();
        found_some += intact(&l3).await;
        l3.store_through(&entry(1, body(1))).await;
        until("on", || l3.is_on()).await;
        assert!(l3.store_through(&entry(99, "anew")).await || l3.store_through(&entry(99, "anew")).await);
        assert_eq!(found(&l3, 99).await.expect("it works"), b"anew");
        drop(l3);
        restore(&disk, &good);
    }
    assert!(found_some > 0, "small damage leaves most of it");
}

#[tokio::test]
async fn what_a_lost_index_named_goes_by_itself() {
    let disk = Disk::new();
    filled(&disk).await;
    fs::write(disk.path().join("index"), noise(1, 100_000)).expect("written");
    let l3 = disk.open();
    until("on", || l3.is_on()).await;
    assert_eq!(intact(&l3).await, 0);
    until("tidied up", || content_files(&disk).is_empty()).await;
    assert_eq!(l3.tier().metrics.errors("damaged"), 1);
}

/// The index as it was; content that has gone meanwhile is written again.
fn restore(disk: &Disk, index: &[u8]) {
    fs::write(disk.path().join("index"), index).expect("written");
    let contents = Contents::new(&disk.path(), Arc::default());
    (0..ENTRIES).for_each(|n| contents.write(content::ContentId::of(&body(n)), &body(n)).expect("written"));
}
