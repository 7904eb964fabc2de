//! Processes killed while they write, remove and evict: nothing wrong is found afterwards, and nothing is left over.
//!
//! The process is this test binary, started once more for one test. `LARDER_CRASHES` says how often it is killed.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::*;

const KEYS: u64 = 60;
const DIRECTORY: &str = "LARDER_CRASH_DIRECTORY";

/// Names key and version, so that one body cannot pass for another; some are shared by all keys.
fn body(n: u64, version: u64) -> Vec<u8> {
    if version.is_multiple_of(7) {
        return noise(version, 20_000);
    }
    let length = [300, 5000, 70_000, 300_000][((n + version) % 4) as usize];
    let mut body = format!("{n} {version} {length};").into_bytes();
    body.extend(noise(n << 32 | version, length));
    body
}

fn crashing() -> Disk {
    Disk::with(|config| {
        config.max_bytes = ByteSize::mib(6);
        config.object_bytes_max = ByteSize::mib(1);
    })
}

/// Run by [`killed_at_any_moment`] in a process of its own.
#[tokio::test]
#[ignore = "is killed; another test starts it"]
async fn writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let now = || Timestamp::from_secs(1_800_000_000);
    let l3 = L3::open(&crashing().config, Path::new(&directory), &SECRET, now, &mut Registry::default());
    let l3 = l3.expect("opened");
    let start: u64 = std::env::var("LARDER_CRASH_START").ok().and_then(|text| text.parse().ok()).expect("given");
    for version in start.. {
        let n = version * 7919 % KEYS;
        let made = Unpacked { stamp: Position::from_number(version), ..unpacked(n, body(n, version)) };
        match version % 5 {
            0 => {
                let mut writer = l3.writer(&key(n)).expect("on");
                for piece in made.body.chunks(9000) {
                    writer.push(Bytes::copy_from_slice(piece)).await.expect("room");
                }
                writer.finish(made).await.map(Finished::store);
            }
            1 if l3.removed(&key(n)).await => println!("removed {n} {version}"),
            _ => {
                l3.store(&Arc::new(made.pack()));
            }
        }
        if version % 16 == 0 {
            l3.flush().await;
            println!("at {version} 0");
        }
    }
}

#[tokio::test]
async fn killed_at_any_moment() {
    let times = std::env::var("LARDER_CRASHES").ok().and_then(|times| times.parse().ok()).unwrap_or(20);
    let disk = crashing();
    let mut removed: HashMap<u64, u64> = HashMap::new();
    let mut start = 1;
    for nth in 0..times {
        start = killed(&disk, start, 8 + nth * 5 % 23, &mut removed) + 1;
        let l3 = disk.open();
        until("on", || l3.is_on()).await;
        let mut any = 0;
        for n in 0..KEYS {
            let Some(found) = l3.lookup(&key(n)).await else { continue };
            let stamp = match &found {
                Found::Entry(entry) => entry.stamp,
                Found::Large(large) => large.entry().stamp,
                Found::Variants(_) => panic!("none was stored"),
            };
            assert!(content(Some(found)).await == Some(body(n, stamp.number())), "{n} at {stamp:?}");
            assert!(removed.get(&n).is_none_or(|version| stamp.number() > *version), "{n} was removed for good");
            any += 1;
        }
        assert!(any > 0, "what was flushed is there");
        let first = l3.gc().await.expect("on");
        assert_eq!((first.lost, first.leaked), (0, 0), "{first:?}");
        let second = l3.gc().await.expect("on");
        assert_eq!((second.orphans, second.lost, second.leaked), (0, 0, 0));
        assert_eq!(second.contents, l3.stats().contents);
        let verified = l3.verify(|_| true).await.expect("on");
        assert_eq!((verified.corrupt, verified.missing), (0, 0));
    }
}

/// Lets a process write until it has told of so many commits, and kills it. Returns the last version it can have reached.
fn killed(disk: &Disk, start: u64, commits: u64, removed: &mut HashMap<u64, u64>) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("known"))
        .args(["--exact", "store::l3::tests::crash::writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DIRECTORY, disk.path())
        .env("LARDER_CRASH_START", start.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (mut seen, mut last) = (0, start);
    for line in lines.map_while(Result::ok) {
        // The harness writes on the same line as the first of ours.
        let words: Vec<_> = line.split_whitespace().collect();
        let [.., what, n, version] = words[..] else { continue };
        let (Ok(n), Ok(version)) = (n.parse::<u64>(), version.parse::<u64>()) else { continue };
        match what {
            "removed" => {
                removed.insert(n, version);
                last = last.max(version);
            }
            "at" => last = last.max(n),
            _ => continue,
        }
        seen += 1;
        if seen == commits {
            child.kill().expect("running");
        }
    }
    child.wait().expect("ended");
    assert!(seen >= commits, "it ended by itself after {seen} commits");
    // Between two flushes it says nothing.
    last + 16
}
