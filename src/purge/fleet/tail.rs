//! Reading the fleet's log, and applying what is read in its order: to the table of what Redis holds first, to the node's own
//! log second.
//!
//! ```text
//!  look ──▶ the same log, and what is missing is all there ──▶ follow ──┐
//!   ▲  └──▶ a gap, another epoch's fork, another life ──▶ resync ──▶ follow
//!   └── the connection breaks, or a record does not name the one before it ◀──┘
//! ```

use std::{
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::{Inner, message::Message, names, resync, scripts};
use crate::{
    kv::{Dedicated, Error, value},
    object::scope::{FleetPosition, Position},
    purge::{PurgeError, log::Applying, mark::Mark, types::Purge},
};

/// Records read at once.
const BATCH: usize = 256;

/// A record as Redis has it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) mark: Mark,
    /// Digest of the record before; `None`: the first of a log.
    pub(super) before: Option<[u8; 20]>,
    pub(super) message: Message,
}

/// Why following has ended.
#[derive(Debug)]
pub(super) enum Broken {
    /// Redis.
    Redis(Error),
    /// The log does not go on where this node is.
    Fork,
    /// This node's own log cannot be written.
    Own(PurgeError),
    /// Something else said so.
    Doubted,
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Redis(error)
    }
}

impl From<PurgeError> for Broken {
    fn from(error: PurgeError) -> Self {
        Self::Own(error)
    }
}

/// Follows the log until the last handle is gone.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut pause = Duration::from_millis(20);
    loop {
        let followed = tokio::select! {
            followed = look_and_follow(&inner) => followed,
            () = inner.stop.cancelled() => return,
        };
        match followed {
            Broken::Fork | Broken::Doubted => pause = Duration::from_millis(20),
            Broken::Redis(error) => tracing::debug!(%error, "the fleet's log cannot be read"),
            Broken::Own(error) => tracing::error!(%error, "a purge of another node cannot be written down here"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = inner.stop.cancelled() => return,
        }
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

async fn look_and_follow(inner: &Arc<Inner>) -> Broken {
    match try_follow(inner).await {
        Ok(never) => match never {},
        Err(broken) => broken,
    }
}

enum Never {}

async fn try_follow(inner: &Arc<Inner>) -> Result<Never, Broken> {
    let within = inner.config.lease / 2;
    let mut connection = inner.kv.dedicated(&inner.names.log, within).await?;
    inner.state.doubted.store(false, Release);
    resync::look(inner, &mut connection, within).await?;
    check_eviction(inner, &mut connection, within).await;
    inner.state.beat.notify_one();
    loop {
        if inner.state.doubted.load(Acquire) {
            return Err(Broken::Doubted);
        }
        let block = inner.config.lease / 4;
        let entries = read(inner, &mut connection, block).await?;
        apply(inner, entries).await?;
    }
}

/// Says once that Redis may throw the log away: what has no time to live is safe from all policies but those.
async fn check_eviction(inner: &Inner, connection: &mut Dedicated, within: Duration) {
    let mut get = Cmd::new();
    get.arg("CONFIG").arg("GET").arg("maxmemory-policy");
    // Where that is not allowed, nobody can say.
    let Ok(answer) = connection.call(within, &get).await else { return };
    let policy = value::as_list(&answer).get(1).and_then(value::as_text).unwrap_or_default();
    if policy.starts_with("allkeys") && !inner.said_eviction.swap(true, Relaxed) {
        tracing::warn!(
            policy,
            "Redis may evict the fleet's purge log, and all stored responses would have to be confirmed then: set \
             maxmemory-policy to volatile-lru, volatile-lfu or noeviction"
        );
    }
}

/// Waits for what comes after the last record that is applied.
async fn read(inner: &Inner, connection: &mut Dedicated, block: Duration) -> Result<Vec<Entry>, Error> {
    let mark = inner.state.mark();
    let mut read = Cmd::new();
    read.arg("XREAD").arg("COUNT").arg(BATCH).arg("BLOCK").arg(u64::try_from(block.as_millis()).unwrap_or(1).max(1));
    read.arg("STREAMS").arg(&inner.names.log).arg(names::record_id(mark.at.position));
    let answer = connection.call(block + inner.config.lease / 4, &read).await?;
    // [[log, [record, …]]]
    let records = value::as_list(&answer).first().map(value::as_list).and_then(|stream| stream.get(1));
    records.map_or(Ok(Vec::new()), |records| entries(inner, mark.at.life, records))
}

/// Reads records as `XREAD` and `XRANGE` give them.
pub(super) fn entries(inner: &Inner, life: u64, records: &Value) -> Result<Vec<Entry>, Error> {
    let read = |record| entry(inner, life, record).ok_or_else(|| Error::Protocol("a record of the fleet's log".into()));
    value::as_list(records).iter().map(read).collect()
}

fn entry(inner: &Inner, life: u64, record: &Value) -> Option<Entry> {
    let [id, fields] = value::as_list(record) else { return None };
    let position = names::position_of(value::as_text(id)?)?;
    let [_, before, _, digest, _, payload] = value::as_list(fields) else { return None };
    let before = match value::as_text(before)? {
        "" => None,
        before => Some(names::unhex(before)?),
    };
    let digest = names::unhex(value::as_text(digest)?)?;
    let message = Message::read(value::as_bytes(payload)?, &digest, inner.now());
    Some(Entry { mark: Mark { at: FleetPosition { life, position }, digest }, before, message })
}

/// Applies records that follow the last one that is applied.
async fn apply(inner: &Arc<Inner>, entries: Vec<Entry>) -> Result<(), Broken> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut mark = inner.state.mark();
    let marks: Vec<Mark> = entries.iter().map(|entry| entry.mark).collect();
    let (mut applying, mut purges, mut urgent) = (Vec::new(), Vec::new(), false);
    for entry in entries {
        if entry.before != Some(mark.digest) {
            inner.metrics.forks.inc();
            return Err(Broken::Fork);
        }
        mark = entry.mark;
        match entry.message {
            Message::Purge { purge, urgent: waited } => {
                urgent |= waited;
                inner.state.table.write().purge(mark.at.position, &purge);
                if !inner.state.is_obeyed(&purge.id) {
                    applying.push(inner.log.absorb(purge.clone(), mark).await?);
                }
                purges.push((mark, purge));
            }
            Message::Turn { common } => turn(inner, common, mark.at.position),
        }
    }
    applied(applying).await?;
    for (mark, purge) in purges {
        inner.state.let_go(&purge.id);
        inner.note_applied(mark, purge);
    }
    inner.state.advance(mark, marks, false);
    if urgent {
        inner.state.beat.notify_one();
    }
    inner.save_if_long(mark);
    Ok(())
}

/// A new epoch: stamps of the old one beyond what is common mean nothing.
pub(super) fn turn(inner: &Inner, common: Position, begin: Position) {
    inner.state.table.write().turn(common, begin);
    inner.metrics.turns.inc();
}

/// Waits until the node's own log has all of them.
pub(super) async fn applied(applying: Vec<Applying>) -> Result<(), PurgeError> {
    for applying in applying {
        applying.await.unwrap_or(Err(PurgeError::Closed))?;
    }
    Ok(())
}

impl Inner {
    fn note_applied(&self, mark: Mark, purge: Purge) {
        self.metrics.applied.inc();
        self.metrics.propagation.observe(self.now().since(purge.at).as_secs_f64());
        self.kept.lock().push(mark, purge, Instant::now());
    }
}

/// Tells the log's head, and makes the log where there is none.
pub(super) async fn hello(inner: &Inner, connection: &mut Dedicated, within: Duration) -> Result<Mark, Error> {
    let names = &inner.names;
    let mut life = [0; 8];
    getrandom::fill(&mut life).map_err(|error| Error::Protocol(error.to_string()))?;
    // Not 0, which is none, and at home in the numbers of Lua and JSON.
    let life = (u64::from_le_bytes(life) >> 12) | 1;
    let first = super::message::turn(Position::START);
    let keys = [&names.meta[..], &names.log, &names.snapshot, &names.nodes];
    let answer = connection.run(within, &scripts::HELLO, &keys, &[life.to_string().as_bytes(), &first]).await?;
    let [life, epoch, seq, digest, _] = value::as_list(&answer) else {
        return Err(Error::Protocol("the head of the fleet's log".into()));
    };
    names::head([life, epoch, seq, digest]).ok_or_else(|| Error::Protocol("the head of the fleet's log".into()))
}
