//! A look at the whole log, where following it is not enough: at the start, after a gap, after a fail-over that lost its
//! tail, and when it is a new one.
//!
//! | what is found | what is done |
//! |---|---|
//! | the record this node is at | the ones after it are applied |
//! | that record was trimmed away | what the table has purged since is |
//! | another record in its place, or none | an epoch is begun; what is common stays, the rest is applied; what was lost is appended again |
//! | another life | all of the new log is applied, what was applied lately is appended to it, and everything stored is to be confirmed |

use std::time::Duration;

use redis::Cmd;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Inner,
    append::Appending,
    kept::One,
    message::{self, Message},
    names, saved, scripts,
    state::Table,
    tail::{self, Broken, Entry},
};
use crate::{
    kv::{Dedicated, Error, value},
    object::{
        scope::{Position, Scope},
        time::Timestamp,
    },
    purge::{Mode, PurgeId, mark::Mark, types::Purge, watermarks::Watermark},
};

/// Records read at once.
const PAGE: usize = 1000;

/// Scopes of one purge that stands for many.
const BULK_MAX: usize = 50_000;

/// The whole of the log, as it is in Redis.
struct Found {
    table: Table,
    entries: Vec<Entry>,
}

/// How this node's own position relates to what was found.
pub(super) enum Way {
    /// It is at this record; those after it are missing.
    After(usize),
    /// It was at a record that is older than all there are.
    Gap(Position),
    /// It was at a record that is not there. The last common one, if any is known.
    Fork(Option<usize>),
    /// It was at another log.
    NewLife,
    /// It has never been at any.
    First,
}

/// What is to be done about it.
pub(super) struct Plan {
    /// Purges that stand for those that were missed, for the node's own log.
    pub(super) bulk: Vec<Purge>,
    /// What the log has lost and this node has, to be appended again.
    pub(super) again: Vec<Purge>,
    /// From this record on, each is to be applied.
    pub(super) after: usize,
}

/// Brings this node to the head of the log.
pub(super) async fn look(inner: &Inner, connection: &mut Dedicated, within: Duration) -> Result<(), Broken> {
    let head = tail::hello(inner, connection, within).await?;
    inner.nodes.lives(head.at.life, Instant::now());
    let applied = inner.state.mark();
    if applied.at.life == head.at.life && is_there(inner, connection, &applied, within).await? {
        return Ok(());
    }
    let found = read(inner, connection, &head, within).await?;
    let own = if applied.at.life == 0 { inner.log.mark().unwrap_or_default() } else { applied };
    let kept = inner.kept.lock().young(Instant::now());
    let way = way(&found.entries, &own, &head, &kept);
    if let Way::Fork(common) = &way {
        let common = common.map_or(Position::START, |index| found.entries[index].mark.at.position);
        if names::epoch(head.at.position) == names::epoch(own.at.position) {
            begin_epoch(inner, connection, &head, common, within).await?;
            // Once more, with the new epoch's record.
            return Err(Broken::Doubted);
        }
    }
    inner.metrics.resync(match way {
        Way::After(_) => "behind",
        Way::Gap(_) => "gap",
        Way::Fork(_) => "fork",
        Way::NewLife => "new-life",
        Way::First => "first",
    });
    follow_up(inner, found, way, &kept).await
}

/// Whether the log still has the record this node is at.
async fn is_there(inner: &Inner, connection: &mut Dedicated, mark: &Mark, within: Duration) -> Result<bool, Error> {
    let id = names::record_id(mark.at.position);
    let mut range = Cmd::new();
    range.arg("XRANGE").arg(&inner.names.log).arg(&id).arg(&id);
    let answer = connection.call(within, &range).await?;
    let found = tail::entries(inner, mark.at.life, &answer)?;
    Ok(found.first().is_some_and(|entry| entry.mark == *mark))
}

async fn read(inner: &Inner, connection: &mut Dedicated, head: &Mark, within: Duration) -> Result<Found, Broken> {
    let mut get = Cmd::new();
    get.arg("GET").arg(&inner.names.snapshot);
    // Some MiB.
    let snapshot = connection.call(within * 4, &get).await?;
    let snapshot = value::as_bytes(&snapshot).and_then(|bytes| saved::decode(bytes, inner.scopes_max));
    let snapshot = snapshot.filter(|table| table.mark.at.life == head.at.life);
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let start = entries.last().map_or("-".into(), |entry| format!("({}", names::record_id(entry.mark.at.position)));
        let mut range = Cmd::new();
        range.arg("XRANGE").arg(&inner.names.log).arg(start).arg("+").arg("COUNT").arg(PAGE);
        let page = tail::entries(inner, head.at.life, &connection.call(within, &range).await?)?;
        let is_last = page.len() < PAGE;
        for entry in page {
            if entries.last().is_some_and(|last| entry.before != Some(last.mark.digest)) {
                return Err(
                    Error::Protocol("a record of the fleet's log does not name the one before it".into()).into()
                );
            }
            entries.push(entry);
        }
        if is_last {
            break;
        }
    }
    let table = table(inner.scopes_max, snapshot, &entries);
    Ok(Found { table, entries })
}

/// The table after all records.
pub(super) fn table(scopes_max: usize, snapshot: Option<Table>, entries: &[Entry]) -> Table {
    let is_of = |table: &Table| entries.iter().any(|entry| entry.mark == table.mark);
    let begins = entries.first().is_some_and(|first| first.before.is_none());
    let mut table = match snapshot.filter(is_of) {
        Some(snapshot) => snapshot,
        None => {
            let mut table = Table::new(scopes_max);
            if let Some(first) = entries.first().filter(|_| !begins) {
                // Nobody knows what was purged before.
                table.watermarks.raise_floor(Watermark { hard: first.mark.at.position, ..Watermark::default() });
            }
            table
        }
    };
    for entry in entries.iter().filter(|entry| entry.mark.at.position > table.mark.at.position).collect::<Vec<_>>() {
        match &entry.message {
            Message::Purge { purge, .. } => table.purge(entry.mark.at.position, purge),
            // The first one begins the log.
            Message::Turn { .. } if entry.before.is_none() => {}
            Message::Turn { common } => table.turn(*common, entry.mark.at.position),
        }
    }
    if let Some(last) = entries.last() {
        table.mark = last.mark;
    }
    table
}

pub(super) fn way(entries: &[Entry], own: &Mark, head: &Mark, kept: &[One]) -> Way {
    let index_of = |mark: &Mark| {
        let index = entries.binary_search_by_key(&mark.at.position, |entry| entry.mark.at.position).ok();
        index.filter(|&index| entries[index].mark == *mark)
    };
    if own.at.life == 0 {
        return Way::First;
    }
    if own.at.life != head.at.life {
        return Way::NewLife;
    }
    if let Some(index) = index_of(own) {
        return Way::After(index);
    }
    if entries.first().is_some_and(|first| own.at.position < first.mark.at.position) {
        return Way::Gap(own.at.position);
    }
    Way::Fork(kept.iter().rev().find_map(|one| index_of(&one.mark)))
}

async fn begin_epoch(
    inner: &Inner,
    connection: &mut Dedicated,
    head: &Mark,
    common: Position,
    within: Duration,
) -> Result<(), Error> {
    let epoch = names::epoch(head.at.position);
    let [life, from, to] = [head.at.life, epoch, epoch + 1].map(|number| number.to_string());
    let args = [life.as_bytes(), from.as_bytes(), to.as_bytes(), &message::turn(common)];
    let keys = [&inner.names.meta[..], &inner.names.log];
    connection.run(within, &scripts::TURN, &keys, &args).await?;
    tracing::warn!(epoch = epoch + 1, "the fleet's log lost records in a fail-over; who has them appends them again");
    Ok(())
}

async fn follow_up(inner: &Inner, found: Found, way: Way, kept: &[One]) -> Result<(), Broken> {
    let Found { table, entries } = found;
    let mark = table.mark;
    let marks: Vec<Mark> = entries.iter().map(|entry| entry.mark).collect();
    let Plan { bulk, again, after } = plan(&table, &entries, &way, kept, inner.now());
    // What is lost goes back first: if that fails, this node is where it was, and looks again.
    append_again(inner, &again).await?;
    // The fleet's table first, the node's own log second; until then, how far it is stays as it is.
    inner.state.replace(table, matches!(way, Way::After(_) | Way::Gap(_)));
    let mut applying = Vec::new();
    for purge in bulk {
        applying.push(inner.log.absorb(purge, mark).await?);
    }
    for entry in entries.into_iter().skip(after) {
        if let Message::Purge { purge, .. } = entry.message {
            inner.state.let_go(&purge.id);
            inner.kept.lock().push(entry.mark, purge.clone(), Instant::now());
            applying.push(inner.log.absorb(purge, entry.mark).await?);
        }
    }
    tail::applied(applying).await?;
    inner.state.advance(mark, marks, true);
    Ok(())
}

/// Appends what this node has and the log has not.
async fn append_again(inner: &Inner, lost: &[Purge]) -> Result<(), Broken> {
    for purge in lost {
        let (reply, appended) = oneshot::channel();
        let appending = Appending { id: purge.id, record: message::purge(purge, false), anew: false, reply };
        inner.appending.send(appending).await.map_err(|_| Error::Unconnected)?;
        let appended = appended.await.map_err(|_| Error::Unconnected)??;
        if !appended.known {
            inner.metrics.appended_again.inc();
        }
    }
    Ok(())
}

/// What this node has to do, given how it relates to what was found.
pub(super) fn plan(table: &Table, entries: &[Entry], way: &Way, kept: &[One], now: Timestamp) -> Plan {
    let bulk = match way {
        Way::After(_) | Way::Fork(Some(_)) => Vec::new(),
        Way::Gap(from) => bulk(table, *from, now),
        Way::Fork(None) | Way::First => bulk(table, Position::START, now),
        Way::NewLife => {
            let mut all = bulk(table, Position::START, now);
            all.push(purge(Mode::Soft, vec![Scope::everything()], Duration::ZERO, now));
            all
        }
    };
    let again = match way {
        Way::Fork(common) => lost(kept, entries, *common),
        Way::NewLife => lost(kept, entries, None),
        Way::After(_) | Way::Gap(_) | Way::First => Vec::new(),
    };
    let after = match way {
        Way::After(index) | Way::Fork(Some(index)) => index + 1,
        Way::Gap(_) | Way::Fork(None) | Way::NewLife | Way::First => entries.len(),
    };
    Plan { bulk, again, after }
}

/// What this node has and the log has not, oldest first.
fn lost(kept: &[One], entries: &[Entry], common: Option<usize>) -> Vec<Purge> {
    let since = common.map(|index| entries[index].mark.at);
    let is_common =
        |one: &&One| since.is_some_and(|at| one.mark.at.life == at.life && one.mark.at.position <= at.position);
    kept.iter().filter(|one| !is_common(one)).map(|one| one.purge.clone()).collect()
}

/// What the table has purged since a position, as few purges.
fn bulk(table: &Table, since: Position, now: Timestamp) -> Vec<Purge> {
    let mut purges = Vec::new();
    let floor = table.watermarks.floor();
    if floor.hard > since {
        purges.push(purge(Mode::Hard, vec![Scope::everything()], Duration::ZERO, now));
    } else if floor.soft > since {
        purges.push(purge(Mode::Soft, vec![Scope::everything()], Duration::ZERO, now));
    }
    for mode in [Mode::Hard, Mode::Soft] {
        let raised = |watermark: &Watermark| match mode {
            Mode::Hard => watermark.hard > since,
            Mode::Soft => watermark.soft > since,
        };
        let scopes: Vec<Scope> =
            table.watermarks.iter().filter(|(_, watermark)| raised(watermark)).map(|(scope, _)| scope).collect();
        purges.extend(scopes.chunks(BULK_MAX).map(|chunk| purge(mode, chunk.to_vec(), Duration::ZERO, now)));
    }
    // Holds that still last are few.
    for (scope, watermark) in table.watermarks.iter().filter(|(_, watermark)| watermark.hold_until > now) {
        purges.push(purge(Mode::Soft, vec![scope], watermark.hold_until.since(now), now));
    }
    purges
}

fn purge(mode: Mode, scopes: Vec<Scope>, hold: Duration, now: Timestamp) -> Purge {
    // Without randomness it is one that nobody else has named.
    let id = PurgeId::random().unwrap_or_else(|_| PurgeId::named(&format!("{:?}", Instant::now())));
    Purge { id, at: now, mode, scopes, hold, note: "the fleet's log".into() }
}
