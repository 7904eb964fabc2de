//! Files of stored responses that are from elsewhere, from another time or from somebody else; and where they go to.

use std::{
    os::unix::fs::FileTypeExt,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use larder::{
    archive::{EntryHead, Form, Header, Item, Reader, Writer, fingerprint, seal_key},
    object::{codec, entry::Unpacked},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    archive::{Files, SMALL, describe, numbered},
    support::{
        client,
        command::{Ran, larder},
        eventually,
        gate::Gate,
        origin,
        origin::reply,
        within,
    },
};

/// The gateways' secret here.
const SECRET: [u8; 32] = [7; 32];

const HOUR: Duration = Duration::from_secs(3600);

/// Longer than a file is on its way here: by so much less is seen of a clock that is ahead.
const A_WHILE: Duration = Duration::from_secs(300);

/// The file written anew, header and entries changed, and sealed with `key`.
fn rewritten(
    file: &[u8],
    key: [u8; 32],
    change_header: impl Fn(&mut Header),
    change_entry: impl Fn(&mut EntryHead),
) -> Vec<u8> {
    let mut reader = Reader::default();
    reader.push(Bytes::copy_from_slice(file));
    let mut writer = None;
    let mut end = None;
    while let Some(item) = reader.item().expect("a whole file") {
        if let Item::Header(mut header) = item {
            change_header(&mut header);
            writer = Some(Writer::new(Form::Plain, key, &header).expect("memory"));
            continue;
        }
        let writer = writer.as_mut().expect("a header first");
        match item {
            Item::Entry(mut head) => {
                change_entry(&mut head);
                assert!(writer.entry(&head).expect("memory"));
            }
            Item::Content(piece) => writer.content(&piece).expect("memory"),
            Item::End(last) => end = Some(last),
            Item::Header(_) | Item::Whole | Item::Dropped => {}
        }
    }
    writer.expect("a header").finish(&end.expect("an end")).expect("memory")
}

/// As a gateway writes it whose clock is an hour ahead, of an answer that was stored a while before the file was written.
fn an_hour_ahead(head: &mut EntryHead) {
    let entry = std::sync::Arc::new(codec::decode_head(&head.head, Bytes::new()).expect("a head"));
    let ahead_by = HOUR - A_WHILE;
    let mut ahead: Unpacked = entry.under(entry.head.clone());
    ahead.stored = ahead.stored.plus(ahead_by);
    let times = &mut ahead.freshness;
    for time in
        [&mut times.born, &mut times.fresh_until, &mut times.swr_until, &mut times.sie_until, &mut times.keep_until]
    {
        *time = time.plus(ahead_by);
    }
    head.head = codec::encode_bare_head(&ahead.pack());
}

/// Whether a terminal would do something, or show it in another order.
fn is_for_terminals(char: char) -> bool {
    (char.is_control() && char != '\n') || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[track_caller]
fn assert_plain(ran: &Ran) {
    assert!(!ran.stdout.chars().chain(ran.stderr.chars()).any(is_for_terminals), "{ran:?}");
}

#[tokio::test]
async fn what_came_as_stale_is_used_in_no_window() {
    let hello = reply("hello").cache_control("max-age=600, stale-while-revalidate=600, stale-if-error=600");
    let origin = origin::new().route("/a", [hello, reply("down").status(503)]).run().await;
    let (one, other) = (describe(&origin, "").run().await, describe(&origin, "").run().await);
    one.get("/a").await.assert_ok("hello");
    let files = Files::new();
    files.export(&one, "all", &[]).await.assert(0, "1 entries");
    files.import(&other, "all", &["--foreign", "--stale"]).await.assert(0, "imported: 1 entries");
    for wish in ["max-stale=1000", "stale-if-error=1000"] {
        let answer = client::get(other.url("/a")).header("cache-control", wish).send().await;
        assert_eq!((answer.status, answer.text()), (503, "down"), "{wish}");
    }
    assert_eq!(other.get("/a").await.status, 503);
}

#[tokio::test]
async fn an_older_variant_does_not_hide_a_newer_answer_on_the_disk() {
    let varies = reply("old").max_age(600).header("vary", "x-language");
    let origin = origin::new().route("/v", [varies, reply("new").max_age(600)]).run().await;
    let (one, other) = (describe(&origin, SMALL).run().await, describe(&origin, SMALL).run().await);
    one.get("/v").await.assert_ok("old");
    other.get("/v").await.assert_ok("new");
    // From here on it is on the disk alone.
    let other = other.restart().await;
    let files = Files::new();
    files.export(&one, "all", &[]).await.assert(0, "1 entries");
    files.import(&other, "all", &["--foreign", "--dry-run"]).await.assert(0, "1 as new or newer");
    files.import(&other, "all", &["--foreign"]).await.assert(0, "1 as new or newer");
    other.get("/v").await.assert_ok("new").assert_hit();
}

#[tokio::test]
async fn a_clock_that_is_ahead_makes_nothing_newer() {
    let origin = numbered().await;
    let (one, other) = (describe(&origin, "").run().await, describe(&origin, "").run().await);
    one.get("/a").await.assert_ok("0");
    one.get("/b").await.assert_ok("0");
    other.get("/a").await.assert_ok("1");
    let files = Files::new();
    files.export(&one, "all", &[]).await.assert(0, "2 entries");
    let later = |header: &mut Header| header.created_ms += HOUR.as_millis() as u64;
    files.write("ahead", &rewritten(&files.read("all"), seal_key(&SECRET), later, an_hour_ahead));
    files.import(&other, "ahead", &["--foreign"]).await.assert(0, "imported: 1 entries").assert(0, "1 as new or newer");
    other.get("/a").await.assert_ok("1").assert_hit();
    other.get("/b").await.assert_ok("0").assert_hit();
    files.export(&other, "again", &[]).await.assert(0, "2 entries");
    for line in files.list("again").await {
        assert!(line["ttl_seconds"].as_f64().is_some_and(|ttl| ttl <= 600.0), "{line}");
    }
}

#[tokio::test]
async fn a_terminal_gets_no_commands_from_a_file() {
    const TRICK: &str = "\u{1b}[2J\u{9b}31m\u{202e}";
    let origin = numbered().await;
    let gateway = describe(&origin, "").run().await;
    gateway.get("/a").await.assert_ok("0");
    let files = Files::new();
    files.export(&gateway, "all", &[]).await.assert(0, "1 entries");
    let file = files.read("all");
    let named = |head: &mut EntryHead| head.route = TRICK.to_owned();

    let other = |header: &mut Header| header.secret = TRICK.repeat(1000);
    files.write("other", &rewritten(&file, [1; 32], other, named));
    let refused = files.import(&gateway, "other", &[]).await;
    refused.assert(1, "another secret").assert(1, &fingerprint(&SECRET));
    assert_plain(&refused);
    assert!(refused.stderr.len() < 1000, "{refused:?}");

    let release = |header: &mut Header| {
        header.software = TRICK.to_owned();
        header.key_schema += 1;
    };
    files.write("unsealed", &rewritten(&file, [1; 32], release, named));
    let refused = files.import(&gateway, "unsealed", &[]).await;
    refused.assert(1, "not sealed with this secret");
    assert_plain(&refused);
    files.write("sealed", &rewritten(&file, seal_key(&SECRET), release, named));
    let refused = files.import(&gateway, "sealed", &[]).await;
    refused.assert(1, "use that one");
    assert_plain(&refused);

    let listed = larder(["export", "--list", &files.path("unsealed")]).await;
    assert_plain(listed.assert(0, "\\u001b[2J\\u009b31m\\u202e"));
    assert_eq!(files.list("unsealed").await[0]["route"], TRICK, "and nothing is lost");
}

#[tokio::test]
async fn what_is_no_file_is_written_into_and_stays() {
    let origin = numbered().await;
    let gateway = describe(&origin, "").run().await;
    gateway.get("/a").await.assert_ok("0");
    let files = Files::new();
    let pipe = files.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    // Open both ways, neither side waits for the other.
    let _held = std::fs::File::options().read(true).write(true).open(&pipe).expect("a pipe");
    let exported = files.export(&gateway, "pipe", &["--plain"]).await;
    exported.assert(0, "1 entries");
    assert!(!exported.stderr.contains("only you"), "{exported:?}");
    assert!(std::fs::metadata(&pipe).expect("a pipe").file_type().is_fifo());

    std::fs::write(files.path("file"), "old").expect("writable");
    std::os::unix::fs::symlink(files.path("file"), files.path("link")).expect("a link");
    files.export(&gateway, "link", &[]).await.assert(0, "only you can read the file");
    assert!(std::fs::symlink_metadata(files.path("link")).expect("a link").is_symlink());
    assert_eq!(files.list("file").await.len(), 1);
    std::fs::create_dir(files.path("directory")).expect("a directory");
    files.export(&gateway, "directory", &[]).await.assert(1, "directory");
}

#[tokio::test]
async fn an_export_that_is_terminated_leaves_nothing() {
    let gate = Gate::new();
    let slow = origin::new().route("/export?", reply("LARDERAR").gate(&gate).chunk("more")).run().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let left = || std::fs::read_dir(directory.path()).expect("a directory").count();
    for signal in [Signal::TERM, Signal::INT] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.arg("export").arg(directory.path().join("all")).args(["--admin", &slow.url()]);
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary");
        let pid = Pid::from_child(&child);
        eventually("a file that is begun", || async { (left() == 1).then_some(()) }).await;
        kill_process(pid, signal).expect("a process");
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output().expect("its output"));
        let ended = within("the command to end", ended).await.expect("no panic");
        let said = String::from_utf8(ended.stderr).expect("text");
        assert_eq!((ended.status.code(), left()), (Some(1), 0), "{signal:?}: {said}");
        assert!(said.contains("no whole archive was written"), "{said}");
    }
    gate.open();
}
