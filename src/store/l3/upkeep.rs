//! Care for what lies on the disk: a scrub that reads everything in turn, and gc that compares files with the index.
//!
//! Both only read and ask the keeper, which looks again before it removes anything.

use std::{
    fs,
    io::{self, Read},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use aws_lc_rs::digest::{self, SHA256};
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::Instant};
use utoipa::ToSchema;

use super::{
    brief::Brief,
    content::{ContentId, Unreadable},
    index::{Index, Reference},
    locator::Locator,
    metrics::Scrubbed,
    pace::Pace,
    pending::{Control, Op},
    record::CHUNK,
    tier::Tier,
    trouble::Trouble,
};

/// Rows of the index read at once.
const ROWS: usize = 1024;

/// The same, of whole records.
const RECORDS: usize = 128;

/// Time between two rounds of the scrub, at least.
const ROUND_MIN: Duration = Duration::from_secs(60);

/// How often to see whether there is something to tidy up.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// What reading everything found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verified {
    /// Entries of the index read.
    pub entries: u64,
    /// Files read.
    pub contents: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Entries of the index that were not as they were written, now removed.
    pub unreadable: u64,
    /// Files with other bytes than were written, now removed.
    pub corrupt: u64,
    /// Files that were not there.
    pub missing: u64,
    /// Whether the index was damaged as a whole: an empty one has taken its place.
    pub index_damaged: bool,
    /// Whether it ended before all was read.
    pub cut_short: bool,
}

impl Verified {
    /// Whether nothing of what was read was wrong.
    pub fn is_sound(&self) -> bool {
        self.unreadable + self.corrupt + self.missing == 0 && !self.index_damaged
    }
}

/// What comparing files with the index found, and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Collected {
    /// Files compared.
    pub contents: u64,
    /// Files that nothing named.
    pub orphans: u64,
    /// Entries without their file.
    pub lost: u64,
    /// Contents counted in the index that no entry named.
    pub leaked: u64,
    /// Whether it ended before all was compared.
    pub cut_short: bool,
}

/// Reads everything once; `pace` waits as it pleases before so many bytes are read, sees what was found, and says
/// whether to go on. What is wrong with the index as a whole goes to the keeper.
pub(super) fn verify(tier: &Tier, mut pace: impl FnMut(u64, &Verified) -> bool) -> Verified {
    let mut verified = Verified::default();
    let complete = verify_records(tier, &mut pace, &mut verified) && verify_contents(tier, &mut pace, &mut verified);
    Verified { cut_short: !complete, ..verified }
}

/// The index. Whether it came to the end.
fn verify_records(tier: &Tier, pace: &mut impl FnMut(u64, &Verified) -> bool, verified: &mut Verified) -> bool {
    let mut after = None;
    loop {
        let Some(rows) = tier.ask(|index| index.records(after, RECORDS)) else { return false };
        let Some((last, _)) = rows.last() else { return true };
        after = Some(*last);
        for (key, sealed) in rows {
            if !pace(sealed.len() as u64, verified) {
                return false;
            }
            verified.entries += 1;
            verified.bytes += sealed.len() as u64;
            if !tier.is_readable(&key, &sealed) && tier.forget_unreadable(&key, &sealed) {
                verified.unreadable += 1;
            }
        }
    }
}

/// The files. Whether it came to the end.
fn verify_contents(tier: &Tier, pace: &mut impl FnMut(u64, &Verified) -> bool, verified: &mut Verified) -> bool {
    let mut after = None;
    loop {
        let Some(rows) = tier.ask(|index| index.contents(after, ROWS)) else { return false };
        let Some((last, _)) = rows.last() else { return true };
        after = Some(*last);
        for (id, reference) in rows {
            if !pace(reference.bytes, verified) {
                return false;
            }
            verify_one(tier, id, reference, verified);
        }
    }
}

fn verify_one(tier: &Tier, id: ContentId, reference: Reference, verified: &mut Verified) {
    verified.contents += 1;
    verified.bytes += reference.bytes;
    tier.metrics.scrubbed.inc_by(reference.bytes);
    let error = match hash(tier, id, reference.bytes) {
        Ok(found) if found == id => return tier.metrics.scrubbed(Scrubbed::Sound),
        Ok(_) => Unreadable::Bytes,
        // Found by another.
        Err(Unreadable::Condemned) => return,
        Err(error) => error,
    };
    // Removed since the row was read: neither missing nor wrong.
    if !tier.index().is_some_and(|index| matches!(index.reference(id), Ok(Some(_)))) {
        return;
    }
    match error {
        Unreadable::Missing => {
            verified.missing += 1;
            tier.metrics.scrubbed(Scrubbed::Missing);
        }
        _ => {
            verified.corrupt += 1;
            tier.metrics.scrubbed(Scrubbed::Corrupt);
        }
    }
    tier.found_unreadable(id, &error);
}

fn hash(tier: &Tier, id: ContentId, bytes: u64) -> Result<ContentId, Unreadable> {
    let mut file = tier.contents.open(id, bytes)?;
    let mut context = digest::Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(ContentId::from_digest(&context.finish())),
            read => context.update(&chunk[..read]),
        }
    }
}

/// Tidies up where need be, and scrubs again and again at the configured rate, until nobody uses the tier any more.
pub(super) fn run(tier: &Tier) {
    let rate = tier.config.scrub_rate.as_u64();
    let mut pace = Pace::new(rate);
    while !tier.pending.is_stopping() {
        tidy(tier);
        let round = Instant::now();
        if rate > 0 {
            scrub(tier, &mut pace);
        }
        while round.elapsed() < ROUND_MIN && !tier.pending.is_stopping() && !is_due(tier) {
            tier.pending.pause(LOOK_AROUND);
        }
    }
}

/// Whether files may lie about, and can be told from others.
fn is_due(tier: &Tier) -> bool {
    tier.untidy.load(Relaxed) && tier.catalogue.read().is_complete()
}

/// After a crash, or with a new index, removes what nothing names: it counts towards no bound.
fn tidy(tier: &Tier) {
    if !is_due(tier) {
        return;
    }
    match collect(tier) {
        Ok(found) => tracing::info!(?found, "disk tier: tidied up"),
        Err(trouble) => tier.report(trouble),
    }
}

fn scrub(tier: &Tier, pace: &mut Pace) {
    let found = verify(tier, |bytes, _| {
        tier.pending.pause(pace.take(bytes, Instant::now()));
        !tier.pending.is_stopping() && !is_due(tier)
    });
    if !found.is_sound() {
        tracing::warn!(?found, "disk tier: the scrub found damage");
    }
}

/// Removes what does not belong together. Blocks.
///
/// Nothing here keeps the index while it waits for the keeper, who may be waiting for its last reader.
pub(super) fn collect(tier: &Tier) -> Result<Collected, Trouble> {
    let mut collected = Collected::default();
    // What goes wrong from here on has to be tidied up another time.
    let untidy = tier.untidy.swap(false, Relaxed);
    let collecting = |collected: &mut Collected| {
        let complete = lose(tier, collected)? && leak(tier, collected) && orphans(tier, collected)?;
        Ok::<_, io::Error>(complete)
    };
    let ended = collecting(&mut collected);
    collected.cut_short = !matches!(ended, Ok(true));
    if collected.cut_short && untidy {
        tier.untidy.store(true, Relaxed);
    }
    ended?;
    Ok(collected)
}

/// Removes entries whose file is not there. Whether it came to the end.
fn lose(tier: &Tier, collected: &mut Collected) -> io::Result<bool> {
    let mut after = None;
    loop {
        let Some(rows) = tier.ask(|index| index.briefs(after, ROWS)) else { return Ok(false) };
        let Some((last, _)) = rows.last() else { return Ok(true) };
        after = Some(*last);
        for (key, brief) in rows {
            let file = brief.map(|brief| brief.stored.file());
            let sound = match file {
                Some(Some((id, bytes))) => tier.contents.length(id)? == Some(bytes),
                Some(None) => true,
                None => false,
            };
            if !sound && is_still(tier, &key, brief) {
                collected.lost += 1;
                tier.push(key, Op::Remove, None);
            }
        }
    }
}

/// Whether nothing has taken an entry's place since its brief was read.
fn is_still(tier: &Tier, key: &Locator, brief: Option<Brief>) -> bool {
    let now = tier.ask(|index| index.brief(key.prefix())).flatten();
    let stored = |brief: Option<Brief>| brief.map(|brief| brief.stored);
    tier.pending.find(key).is_none() && now.is_some_and(|(found, now)| found == *key && stored(now) == stored(brief))
}

/// Lets go of content that no entry names, although it is counted. Whether it came to the end.
fn leak(tier: &Tier, collected: &mut Collected) -> bool {
    let Some(unnamed) = tier.ask(Index::unnamed) else { return false };
    for (id, reference) in unnamed {
        // Named since: then it is counted more often now, and stays.
        if reclaim(tier, id, Some(reference.count)) {
            collected.leaked += 1;
        }
    }
    true
}

/// Removes files that nothing names. Whether it came to the end.
fn orphans(tier: &Tier, collected: &mut Collected) -> io::Result<bool> {
    for first in 0..=u8::MAX {
        let (ids, strangers) = tier.contents.list(first)?;
        collected.contents += ids.len() as u64;
        for id in ids {
            let Some(named) = tier.ask(|index| index.reference(id)) else { return Ok(false) };
            if named.is_none() && reclaim(tier, id, None) {
                collected.orphans += 1;
            }
        }
        for stranger in strangers {
            match fs::remove_file(stranger) {
                Ok(()) => collected.orphans += 1,
                // Another of us was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(true)
}

/// Asks the keeper, which looks again.
fn reclaim(tier: &Tier, id: ContentId, counted: Option<u32>) -> bool {
    let (reply, removed) = oneshot::channel();
    tier.pending.ask(Control::Reclaim(id, counted, reply));
    removed.blocking_recv().unwrap_or(false)
}
