//! Disks that fail: nothing wrong comes out, the tier goes off, and comes back.

use rustix::io::Errno;

use super::*;

fn fail(disk: &Disk, error: Option<Errno>) {
    disk.faults.writes.store(error.map_or(0, Errno::raw_os_error), Relaxed);
}

#[tokio::test]
async fn a_disk_that_fails_turns_the_tier_off_until_it_is_back() {
    for (error, kind) in [(Errno::NOSPC, "full"), (Errno::IO, "io"), (Errno::ROFS, "read-only")] {
        let disk = Disk::new();
        let l3 = disk.open();
        assert!(l3.store_through(&entry(1, "before")).await);
        fail(&disk, Some(error));
        assert!(!l3.store_through(&entry(2, "during")).await);
        until("off", || !l3.is_on()).await;
        assert!(found(&l3, 1).await.is_none() && found(&l3, 2).await.is_none(), "everything is a miss");
        assert!(!l3.store(&entry(3, "while off")) && l3.writer(&key(4)).is_none() && l3.gc().await.is_err());
        assert_eq!(l3.tier().metrics.errors(kind), 1, "{kind} is counted once");
        fail(&disk, None);
        until("on", || l3.is_on()).await;
        assert_eq!(found(&l3, 1).await.expect("still there"), b"before");
        assert!(found(&l3, 2).await.is_none());
        assert!(l3.store_through(&entry(2, "after")).await);
        assert_eq!(found(&l3, 2).await.expect("stored"), b"after");
        l3.gc().await.expect("on");
        assert_eq!(l3.gc().await.expect("on"), Collected { contents: 2, ..Collected::default() });
    }
}

#[tokio::test]
async fn a_removal_outlives_the_failure() {
    let disk = Disk::new();
    let l3 = disk.open();
    assert!(l3.store_through(&entry(1, "to be removed")).await);
    assert!(l3.store_through(&entry(2, "to stay")).await);
    fail(&disk, Some(Errno::IO));
    l3.store_through(&entry(3, "fails")).await;
    until("off", || !l3.is_on()).await;
    l3.remove(&key(1));
    fail(&disk, None);
    until("on", || l3.is_on()).await;
    assert!(found(&l3, 1).await.is_none());
    assert!(l3.flush().await);
    assert!(found(&l3, 1).await.is_none() && found(&l3, 2).await.is_some());
}

#[tokio::test]
async fn a_disk_that_fails_at_the_start() {
    let disk = Disk::new();
    let l3 = disk.open();
    assert!(l3.store_through(&entry(1, "before")).await);
    drop(l3);
    fail(&disk, Some(Errno::IO));
    let l3 = disk.open();
    assert!(!l3.is_on() && found(&l3, 1).await.is_none());
    fail(&disk, None);
    until("on", || l3.is_on()).await;
    assert_eq!(found(&l3, 1).await.expect("there"), b"before");
}

#[tokio::test]
async fn a_directory_that_goes_away() {
    let disk = Disk::new();
    let l3 = disk.open();
    assert!(l3.store_through(&entry(1, "before")).await);
    let elsewhere = disk.directory.path().join("elsewhere");
    std::fs::rename(disk.path(), &elsewhere).expect("moved");
    assert!(found(&l3, 1).await.is_none());
    until("off", || !l3.is_on()).await;
    std::fs::rename(&elsewhere, disk.path()).expect("moved back");
    until("on", || l3.is_on()).await;
    assert_eq!(found(&l3, 1).await.expect("there again"), b"before");
}

#[tokio::test]
async fn a_directory_that_is_made_anew_has_one_owner() {
    let disk = Disk::new();
    let l3 = disk.open();
    assert!(l3.store_through(&entry(1, "before")).await);
    // Noticed without a look-up.
    std::fs::remove_dir_all(disk.path()).expect("removed");
    until("off", || !l3.is_on()).await;
    std::fs::create_dir(disk.path()).expect("made");
    until("on", || l3.is_on()).await;
    assert!(found(&l3, 1).await.is_none());
    assert!(l3.store_through(&entry(2, "after")).await);
    assert!(disk.try_open().is_err_and(|error| error.is_taken()), "ours again");
    drop(l3);
    assert_eq!(found(&disk.open(), 2).await.expect("there"), b"after");
}

#[tokio::test]
async fn content_that_cannot_be_read_is_a_miss() {
    let disk = Disk::new();
    let l3 = disk.open();
    for n in [1, 2] {
        assert!(l3.store_through(&entry(n, noise(n, 300 << 10))).await);
    }
    let Some(Found::Large(large)) = l3.lookup(&key(1)).await else { panic!("large") };
    disk.faults.reads.store(Errno::IO.raw_os_error(), Relaxed);
    assert!(read(large.all()).await.is_none(), "breaks off");
    assert!(l3.lookup(&key(2)).await.is_none());
    disk.faults.reads.store(0, Relaxed);
    l3.flush().await;
    assert!(l3.is_on() && found(&l3, 1).await.is_none() && found(&l3, 2).await.is_none(), "gone for good");
    assert_eq!(l3.tier().metrics.errors("io"), 2);
    assert_eq!(l3.gc().await.expect("on").orphans, 0);
}

/// A file system of its own, for who may mount one.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(path: &Path, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(path).expect("a directory");
        let size = format!("size={bytes}");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "larder-test"]).arg(path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A real disk filled to the brim, by the tier and by others. Where nothing can be mounted, the faults above have to do.
#[tokio::test]
async fn a_small_disk_filled_to_the_brim() {
    let disk = Disk::new();
    let Some(_small) = Small::mount(&disk.path(), 16 * MIB) else { return };
    let l3 = disk.open();
    let mut wrong = 0;
    for n in 0..400 {
        if n == 150 {
            // Somebody else takes what is left.
            let ballast = std::fs::File::create(disk.path().join("ballast")).expect("created");
            let _ = std::io::copy(&mut io::Read::take(io::repeat(7), 64 * MIB), &mut &ballast);
        }
        if n == 250 {
            std::fs::remove_file(disk.path().join("ballast")).expect("removed");
        }
        l3.store_through(&entry(n, noise(n, 100 << 10))).await;
        for known in [n, n / 2, n / 3] {
            wrong += usize::from(found(&l3, known).await.is_some_and(|body| body != noise(known, 100 << 10)));
        }
    }
    assert_eq!(wrong, 0);
    until("on", || l3.is_on()).await;
    assert!(l3.tier().metrics.errors("full") > 0, "it was full");
    let mut stored = false;
    for n in 1000..1100 {
        stored |= l3.store_through(&entry(n, noise(n, 1000))).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if stored {
            break;
        }
    }
    assert!(stored, "it works again");
}
