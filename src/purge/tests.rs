//! The log as a whole: real files, real threads, crashes at every byte.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use prometheus_client::{encoding::text::encode, registry::Registry};
use tempfile::TempDir;

use super::{
    Config, Log, Mode, Purge, PurgeError, PurgeId, Standing,
    metrics::Metrics,
    recovery::{self, Files},
};
use crate::{
    files::{self, Lock},
    object::{
        entry::Entry,
        key::KeyBuilder,
        scope::{Position, Scope},
        testing,
        time::Timestamp,
    },
};

const CONFIG: Config = Config { fsync: false, scopes_max: 1000, call_scopes_max: 100, refresh_max: 0, refresh_rate: 0 };

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn open(dir: &Path) -> Log {
    // A process that another test starts holds the lock from its fork until it is another program.
    for _ in 0..500 {
        match Log::open(&CONFIG, dir, &mut Registry::default()) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {}
            opened => return opened.expect("free and writable"),
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("the lock is not let go")
}

fn scope(n: u64) -> Scope {
    Scope::tag(b"", &n.to_string())
}

fn purge(mode: Mode, scopes: &[Scope]) -> Purge {
    Purge {
        id: PurgeId::random().expect("randomness"),
        at: Timestamp::from_secs(1000),
        mode,
        scopes: scopes.to_vec(),
        hold: Duration::ZERO,
        note: "a test".into(),
    }
}

fn entry(stamp: Position, scopes: &[Scope]) -> Entry {
    testing::entry(KeyBuilder::new("test").finish(), stamp, scopes)
}

#[tokio::test]
async fn a_purge_reaches_what_is_older_and_nothing_else() {
    let dir = temporary();
    let log = open(dir.path());
    let old = entry(log.position(), &[Scope::everything(), scope(1)]);
    let other = entry(log.position(), &[Scope::everything(), scope(2)]);
    let receipt = log.append(purge(Mode::Hard, &[scope(1), scope(1)])).await.expect("done");
    assert_eq!((receipt.seq, receipt.scopes, receipt.position), (1, 1, log.position()));
    let new = entry(log.position(), &[Scope::everything(), scope(1)]);
    assert_eq!(log.standing(&old), Standing::Hard);
    assert_eq!(log.standing(&other), Standing::Untouched);
    assert_eq!(log.standing(&new), Standing::Untouched);
    assert_eq!(other.checked.load(Relaxed), log.position().number(), "remembered");

    log.append(purge(Mode::Soft, &[Scope::everything()])).await.expect("done");
    assert_eq!(log.standing(&old), Standing::Hard);
    assert_eq!(log.standing(&other), Standing::Soft, "what was remembered counts up to its position only");
    assert_eq!(log.latest(&[scope(1)]), receipt.position);
    assert_eq!(log.latest(&[scope(1), Scope::everything()]), log.position());
}

#[tokio::test]
async fn a_hold_lasts_as_long_as_asked_for() {
    let dir = temporary();
    let log = open(dir.path());
    let mut held = purge(Mode::Hard, &[scope(1)]);
    held.hold = Duration::from_secs(30);
    let start = held.at;
    log.append(held).await.expect("done");
    assert_eq!(log.hold(&[scope(1)], start.plus(Duration::from_secs(10))), Some(Duration::from_secs(20)));
    assert_eq!(log.hold(&[scope(2)], start), None);
    drop(log);
    assert_eq!(open(dir.path()).hold(&[scope(1)], start), Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn one_record_purges_any_number_of_entries() {
    let dir = temporary();
    let mut registry = Registry::default();
    let log = Log::open(&CONFIG, dir.path(), &mut registry).expect("free and writable");
    let entries: Vec<Entry> = (0..100_000).map(|n| entry(log.position(), &[scope(n + 10), scope(1)])).collect();
    assert!(entries.iter().all(|entry| log.standing(entry) == Standing::Untouched));
    log.append(purge(Mode::Hard, &[scope(1)])).await.expect("done");
    assert!(entries.iter().all(|entry| log.standing(entry) == Standing::Hard));
    let text = scrape(&registry);
    assert!(text.contains("\npurge_appends_total{mode=\"hard\"} 1\n"), "{text}");
    assert!(text.contains("\npurge_table_scopes 1\n"), "{text}");
}

#[tokio::test]
async fn the_same_id_is_the_same_purge() {
    let dir = temporary();
    let log = open(dir.path());
    let one = purge(Mode::Hard, &[scope(1), scope(2)]);
    let first = log.append(one.clone()).await.expect("done");
    let mut again = one.clone();
    again.scopes.reverse();
    again.note = "sent again".into();
    assert_eq!(log.append(again.clone()).await.expect("known"), first);
    assert_eq!(log.position(), first.position);
    let other = Purge { mode: Mode::Soft, ..one.clone() };
    assert!(matches!(log.append(other).await, Err(PurgeError::IdReused(id)) if id == one.id));

    // After a restart, from the write-ahead file; after another, from the snapshot.
    drop(log);
    for _ in 0..2 {
        let log = open(dir.path());
        let known = log.append(again.clone()).await.expect("known");
        assert_eq!((known.position, known.scopes, known.duration), (first.position, 2, Duration::ZERO));
        assert_eq!(log.position(), first.position);
    }
}

#[tokio::test]
async fn the_same_id_at_the_same_time_is_done_once() {
    let dir = temporary();
    let log = open(dir.path());
    let one = purge(Mode::Hard, &[scope(1)]);
    let calls = (0..32).map(|_| log.append(one.clone()));
    let receipts = futures_util::future::join_all(calls).await;
    assert!(receipts.iter().all(|receipt| receipt.as_ref().is_ok_and(|receipt| receipt.seq == 1)), "{receipts:?}");
    assert_eq!(log.position().number(), 1);
}

#[tokio::test]
async fn impossible_purges_are_refused() {
    let dir = temporary();
    let log = open(dir.path());
    assert!(matches!(log.append(purge(Mode::Hard, &[])).await, Err(PurgeError::NoScopes)));
    let many: Vec<Scope> = (0..101).map(scope).collect();
    let refused = log.append(purge(Mode::Hard, &many)).await;
    assert!(matches!(refused, Err(PurgeError::TooManyScopes { named: 101, max: 100 })));
    assert_eq!(log.position(), Position::START);
}

#[tokio::test]
async fn positions_go_on_after_a_restart() {
    let dir = temporary();
    let durable = Config { fsync: true, ..CONFIG };
    for start in [0, 3, 6] {
        let log = Log::open(&durable, dir.path(), &mut Registry::default()).expect("free and writable");
        assert_eq!(log.position().number(), start);
        for n in 1..=3 {
            let receipt = log.append(purge(Mode::Hard, &[scope(n)])).await.expect("done");
            assert_eq!(receipt.position.number(), start + n);
        }
    }
}

#[tokio::test]
async fn another_process_is_kept_out() {
    let dir = temporary();
    let log = open(dir.path());
    let error = Log::open(&CONFIG, dir.path(), &mut Registry::default()).err().expect("taken");
    assert!(error.to_string().contains("in use by another larder process"), "{error}");
    let clone = log.clone();
    drop(log);
    assert!(Log::open(&CONFIG, dir.path(), &mut Registry::default()).is_err(), "a clone still has it");
    drop(clone);
    open(dir.path());
}

/// A log of several purges, the number of bytes its file had after each, and the content of the file.
async fn written(dir: &Path) -> (Vec<usize>, Vec<u8>) {
    let log = open(dir);
    let wal = Files::of(dir).wal;
    let mut ends = Vec::new();
    for n in 0..6 {
        let mode = if n % 2 == 0 { Mode::Hard } else { Mode::Soft };
        log.append(purge(mode, &[scope(n), scope(n + 100)])).await.expect("done");
        ends.push(fs::metadata(&wal).expect("there").len() as usize);
    }
    (ends, fs::read(wal).expect("readable"))
}

fn assert_purged(log: &Log, n: u64, context: &str) {
    let least = if n.is_multiple_of(2) { Standing::Hard } else { Standing::Soft };
    assert!(log.verdict(Position::from_number(n), &[scope(n + 100)]) >= least, "purge {n} is lost: {context}");
}

#[tokio::test]
async fn a_crash_at_any_byte_loses_nothing_acknowledged() {
    let source = temporary();
    let (ends, content) = written(source.path()).await;
    for cut in 0..=content.len() {
        let dir = temporary();
        let files = Files::of(dir.path());
        files::create_dir(&dir.path().join("purge")).expect("writable");
        fs::write(&files.wal, &content[..cut]).expect("writable");
        let log = open(dir.path());
        let whole = ends.iter().filter(|&&end| end <= cut).count() as u64;
        (0..whole).for_each(|n| assert_purged(&log, n, &format!("cut at {cut}")));
        if cut >= ends[0] {
            assert_eq!(log.position().number(), whole, "a cut is no damage");
            assert_eq!(log.verdict(Position::START, &[scope(99)]), Standing::Untouched);
        }
        let before = log.position();
        let receipt = log.append(purge(Mode::Hard, &[scope(7)])).await.expect("goes on");
        assert_eq!(receipt.position, before.next());
        drop(log);
        let log = open(dir.path());
        assert_eq!(log.position(), receipt.position);
        assert_eq!(log.verdict(before, &[scope(7)]), Standing::Hard);
    }
}

#[tokio::test]
async fn no_flipped_bit_loses_a_purge() {
    let source = temporary();
    let (ends, content) = written(source.path()).await;
    for byte in 0..content.len() {
        let mut flipped = content.clone();
        flipped[byte] ^= 1 << (byte % 8);
        let dir = temporary();
        let files = Files::of(dir.path());
        files::create_dir(&dir.path().join("purge")).expect("writable");
        fs::write(&files.wal, &flipped).expect("writable");
        let log = open(dir.path());
        (0..ends.len() as u64).for_each(|n| assert_purged(&log, n, &format!("flipped in byte {byte}")));
        let copy = files.wal.with_file_name("wal.damaged");
        assert_eq!(fs::read(copy).expect("kept"), flipped);
        assert_eq!(log.verdict(log.position(), &[scope(1)]), Standing::Untouched, "new fills are trusted");
        let position = log.position();
        drop(log);
        assert_eq!(open(dir.path()).position(), position, "repaired for good");
    }
}

#[tokio::test]
async fn a_lost_file_counts_as_a_purge_of_everything() {
    for lost in ["wal", "snapshot"] {
        let dir = temporary();
        written(dir.path()).await;
        drop(open(dir.path()));
        fs::remove_file(dir.path().join("purge").join(lost)).expect("there after a restart");
        let log = open(dir.path());
        (0..6).for_each(|n| assert_purged(&log, n, lost));
        assert_eq!(log.verdict(Position::from_number(6), &[scope(99)]), Standing::Hard, "{lost}");
    }
}

#[tokio::test]
async fn a_crash_between_snapshot_and_new_file_changes_nothing() {
    let dir = temporary();
    let (_, content) = written(dir.path()).await;
    drop(open(dir.path()));
    let files = Files::of(dir.path());
    assert!(fs::metadata(&files.wal).expect("there").len() < content.len() as u64, "compacted at start");
    fs::write(&files.wal, content).expect("writable");
    let log = open(dir.path());
    assert_eq!(log.position().number(), 6);
    (0..6).for_each(|n| assert_purged(&log, n, "known twice"));
    assert_eq!(log.verdict(Position::START, &[scope(99)]), Standing::Untouched, "no damage");
}

#[tokio::test]
async fn a_long_file_is_compacted_while_it_is_used() {
    let dir = temporary();
    let mut registry = Registry::default();
    let config = Config { scopes_max: 100_000, call_scopes_max: 100_000, ..CONFIG };
    let log = Log::open(&config, dir.path(), &mut registry).expect("free and writable");
    let scopes: Vec<Scope> = (0..20_000).map(Scope::from_bits).collect();
    for _ in 0..30 {
        log.append(purge(Mode::Hard, &scopes)).await.expect("done");
    }
    // The answer comes before the compaction; that of the next purge after it.
    let last = log.append(purge(Mode::Soft, &[scope(1)])).await.expect("done").position;
    assert!(scrape(&registry).contains("\npurge_compactions_total 1\n"), "{}", scrape(&registry));
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.position(), last);
    assert_eq!(log.verdict(Position::from_number(29), &[Scope::from_bits(19_999)]), Standing::Hard);
    assert_eq!(log.verdict(Position::from_number(30), &[scope(1)]), Standing::Soft);
}

#[tokio::test]
async fn too_many_scopes_raise_the_floor_and_it_stays() {
    let dir = temporary();
    let config = Config { scopes_max: 10, ..CONFIG };
    let log = Log::open(&config, dir.path(), &mut Registry::default()).expect("free and writable");
    for n in 0..25 {
        log.append(purge(Mode::Hard, &[scope(n)])).await.expect("done");
    }
    let check = |log: &Log| {
        assert_eq!(log.verdict(Position::from_number(10), &[scope(99)]), Standing::Hard);
        assert_eq!(log.verdict(Position::from_number(24), &[scope(24)]), Standing::Hard);
        assert_eq!(log.verdict(Position::from_number(24), &[scope(99)]), Standing::Untouched);
    };
    check(&log);
    drop(log);
    check(&Log::open(&config, dir.path(), &mut Registry::default()).expect("free and writable"));
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let dir = temporary();
    let metrics = Metrics::new(&mut Registry::default());
    let files = Files::of(dir.path());
    files::create_dir(&dir.path().join("purge")).expect("writable");
    let recovered = recovery::recover(&files, &CONFIG, &metrics).expect("readable");
    let room = recovered.wal.room.clone();
    let lock = Lock::take(dir.path()).expect("free");
    let log = Log::start(recovered, files.clone(), &CONFIG, metrics, lock).expect("a thread");

    let one = purge(Mode::Hard, &[scope(1)]);
    room.store(10, Relaxed);
    let error = log.append(one.clone()).await.expect_err("no room");
    assert!(error.to_string().contains(&format!("{:?}", files.wal)), "{error}");
    assert_eq!(log.position(), Position::START);
    assert_eq!(log.verdict(Position::START, &[scope(1)]), Standing::Untouched);

    room.store(usize::MAX, Relaxed);
    assert_eq!(log.append(one).await.expect("room again").seq, 1);
    assert_eq!(log.verdict(Position::START, &[scope(1)]), Standing::Hard);
    drop(log);
    assert_eq!(open(dir.path()).position().number(), 1);
}

/// Position n purges scope n, so whoever sees a position knows which watermark has to be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_position_is_seen_before_its_watermarks() {
    let dir = temporary();
    let log = open(dir.path());
    let done = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (log, done) = (log.clone(), done.clone());
        move || {
            let mut seen = 0_u64;
            while !done.load(Acquire) {
                let position = log.position().number();
                if position > 0 {
                    let standing = log.verdict(Position::from_number(position - 1), &[scope(position % 50)]);
                    assert_ne!(standing, Standing::Untouched, "position {position}");
                    seen += 1;
                }
            }
            seen
        }
    });
    for n in 1..=2000 {
        log.append(purge(Mode::Hard, &[scope(n % 50)])).await.expect("done");
    }
    done.store(true, Release);
    assert!(reader.join().expect("no assertion failed") > 0);
}

/// I1: once a purge was acknowledged, nothing older is untouched, whoever asks and whatever an entry remembered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_older_entry_is_untouched_after_the_receipt() {
    const SCOPES: u64 = 8;
    let dir = temporary();
    let log = open(dir.path());
    let acknowledged: Arc<[AtomicU64; SCOPES as usize]> = Arc::default();
    let entries: Arc<Vec<Entry>> =
        Arc::new((0..SCOPES).map(|n| entry(Position::START, &[Scope::everything(), scope(n)])).collect());
    let done = Arc::new(AtomicBool::new(false));
    let reader = |seed: u64| {
        let (log, done) = (log.clone(), done.clone());
        let (acknowledged, entries) = (acknowledged.clone(), entries.clone());
        std::thread::spawn(move || {
            for n in (seed..).take_while(|_| !done.load(Acquire)) {
                let n = n % SCOPES;
                let position = acknowledged[n as usize].load(Acquire);
                if position > 0 {
                    assert_eq!(log.standing(&entries[n as usize]), Standing::Hard);
                    let newer = entry(Position::from_number(position - 1), &[scope(n)]);
                    assert_eq!(log.standing(&newer), Standing::Hard);
                } else {
                    log.standing(&entries[n as usize]);
                }
            }
        })
    };
    let readers = [reader(0), reader(3)];
    let appenders = (0..SCOPES).map(|n| {
        let (log, acknowledged) = (log.clone(), acknowledged.clone());
        tokio::spawn(async move {
            for _ in 0..200 {
                let receipt = log.append(purge(Mode::Hard, &[scope(n)])).await.expect("done");
                acknowledged[n as usize].store(receipt.position.number(), Release);
            }
        })
    });
    for appender in appenders.collect::<Vec<_>>() {
        appender.await.expect("no assertion failed");
    }
    done.store(true, Release);
    readers.into_iter().for_each(|reader| reader.join().expect("no assertion failed"));
    assert_eq!(log.position().number(), SCOPES * 200);
}

fn scrape(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).expect("a string takes everything");
    text
}
