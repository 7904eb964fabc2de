//! Care for what lies on the disk: a scrub that reads everything in turn, and gc that compares files with the index.
//!
//! Both only read and ask the keeper, which looks again before it removes anything.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use aws_lc_rs::digest::{self, SHA256};
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::Instant};

use super::{
    content::{ContentId, Unreadable},
    index::{Index, Reference},
    metrics::Scrubbed,
    pace::Pace,
    pending::{Control, Op},
    record::CHUNK,
    tier::Tier,
    trouble::Trouble,
};

/// Rows of the index read at once.
const ROWS: usize = 1024;

/// Time between two rounds of the scrub, at least.
const ROUND_MIN: Duration = Duration::from_secs(60);

/// How often to see whether there is something to tidy up.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// What reading everything found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Files read.
    pub contents: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Files with other bytes than were written, now removed.
    pub corrupt: u64,
    /// Files that were not there.
    pub missing: u64,
}

/// What comparing files with the index found, and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Files compared.
    pub contents: u64,
    /// Files that nothing named.
    pub orphans: u64,
    /// Entries without their file.
    pub lost: u64,
    /// Contents counted in the index that no entry named.
    pub leaked: u64,
}

/// Reads everything once; `pace` waits as it pleases, and says whether to go on.
pub(super) fn verify(tier: &Tier, mut pace: impl FnMut(u64) -> bool) -> Result<Verified, Trouble> {
    let mut verified = Verified::default();
    let mut after = None;
    loop {
        let Some(index) = tier.index() else { return Ok(verified) };
        let rows = index.contents(after, ROWS)?;
        drop(index);
        let Some((last, _)) = rows.last() else { return Ok(verified) };
        after = Some(*last);
        for (id, reference) in rows {
            if !pace(reference.bytes) {
                return Ok(verified);
            }
            verify_one(tier, id, reference, &mut verified);
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
    tier.untidy.store(false, Relaxed);
    match collect(tier) {
        Ok(found) => tracing::info!(?found, "disk tier: tidied up"),
        Err(trouble) => {
            tier.untidy.store(true, Relaxed);
            tier.report(trouble);
        }
    }
}

fn scrub(tier: &Tier, pace: &mut Pace) {
    let found = verify(tier, |bytes| {
        tier.pending.pause(pace.take(bytes, Instant::now()));
        !tier.pending.is_stopping() && !is_due(tier)
    });
    match found {
        Ok(found) if found.corrupt + found.missing > 0 => {
            tracing::warn!(?found, "disk tier: the scrub found damage");
        }
        Ok(_) => {}
        Err(trouble) => tier.report(trouble),
    }
}

/// Removes what does not belong together. Blocks.
pub(super) fn collect(tier: &Tier) -> Result<Collected, Trouble> {
    let mut collected = Collected::default();
    let Some(index) = tier.index() else { return Ok(collected) };
    let named = lose(tier, &index, &mut collected)?;
    leak(tier, &index, &named, &mut collected)?;
    for first in 0..=u8::MAX {
        orphans(tier, &index, first, &mut collected)?;
    }
    Ok(collected)
}

/// Removes entries whose file is not there. Returns what the others name.
fn lose(tier: &Tier, index: &Index, collected: &mut Collected) -> Result<HashSet<ContentId>, Trouble> {
    let mut named = HashSet::new();
    let mut after = None;
    loop {
        let rows = index.briefs(after, ROWS)?;
        let Some((last, _)) = rows.last() else { return Ok(named) };
        after = Some(*last);
        for (key, brief) in rows {
            let file = brief.map(|brief| brief.stored.file());
            let sound = match file {
                Some(Some((id, bytes))) => named.contains(&id) || tier.contents.length(id)? == Some(bytes),
                Some(None) => true,
                None => false,
            };
            if sound {
                named.extend(file.flatten().map(|(id, _)| id));
            } else if tier.pending.find(&key).is_none() {
                collected.lost += 1;
                tier.push(key, Op::Remove, None);
            }
        }
    }
}

/// Lets go of content that no entry names, although it is counted.
fn leak(tier: &Tier, index: &Index, named: &HashSet<ContentId>, collected: &mut Collected) -> Result<(), Trouble> {
    let mut after = None;
    loop {
        let rows = index.contents(after, ROWS)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        after = Some(*last);
        for (id, reference) in rows.into_iter().filter(|(id, _)| !named.contains(id)) {
            // Named since the entries were read: then it is counted more often now, and stays.
            if index.reference(id)? == Some(reference) && reclaim(tier, id, Some(reference.count)) {
                collected.leaked += 1;
            }
        }
    }
}

/// Removes files that nothing names.
fn orphans(tier: &Tier, index: &Index, first: u8, collected: &mut Collected) -> Result<(), Trouble> {
    let (ids, strangers) = tier.contents.list(first)?;
    collected.contents += ids.len() as u64;
    for id in ids {
        if index.reference(id)?.is_none() && reclaim(tier, id, None) {
            collected.orphans += 1;
        }
    }
    for stranger in strangers {
        match fs::remove_file(stranger) {
            Ok(()) => collected.orphans += 1,
            // Another of us was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Asks the keeper, which looks again.
fn reclaim(tier: &Tier, id: ContentId, counted: Option<u32>) -> bool {
    let (reply, removed) = oneshot::channel();
    tier.pending.ask(Control::Reclaim(id, counted, reply));
    removed.blocking_recv().unwrap_or(false)
}
