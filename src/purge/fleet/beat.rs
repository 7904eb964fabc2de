//! The lease: every quarter of it, a node proves that it is up to date by a write that a replica has.
//!
//! What is proved is the past: at some time after the write was sent, the log was at the head that came back. Once the node
//! has applied all up to there, it may serve until that time and the lease together. A master that a fail-over has deposed
//! and that does not know it yet has no replica any more, so it proves nothing.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use redis::{Cmd, Value};
use tokio::time::{Instant, timeout};

use super::{
    Inner,
    config::{Gone, Replica},
    names,
    nodes::Card,
    scripts,
};
use crate::{
    kv::{Class, Dedicated, Error, value},
    object::scope::FleetPosition,
    purge::mark::Mark,
};

/// Beats within one lease.
const BEATS: u32 = 4;

/// What came of a beat.
enum Beaten {
    /// The log was there; this was its head.
    Head { head: Mark, records: u64 },
    /// The log is not the one this node knows.
    Doubt(&'static str),
}

/// Beats until the last handle is gone.
pub(super) async fn run(inner: Arc<Inner>) {
    let period = inner.config.lease / BEATS;
    let mut connection = None;
    let mut beats = 0_u64;
    while !inner.stop.is_cancelled() {
        beats += 1;
        let sent = Instant::now();
        // A hanging connection must not cost more than one beat.
        let beaten = timeout(period, beat(&inner, &mut connection, beats, period)).await;
        match beaten.unwrap_or(Err(Error::Timeout)) {
            Ok(Beaten::Head { head, records }) => {
                inner.metrics.records.set(records);
                inner.state.prove(sent, head);
            }
            Ok(Beaten::Doubt(why)) => {
                tracing::debug!(why, "the fleet's log is to be looked at anew");
                inner.state.distrust();
            }
            Err(error) => {
                tracing::debug!(%error, "no proof of being up to date");
                inner.metrics.beat_failures.inc();
                connection = None;
                inner.note_gone().await;
            }
        }
        inner.note_fence();
        inner.note_strangers();
        let wait = period.saturating_sub(sent.elapsed());
        tokio::select! {
            () = tokio::time::sleep(wait.max(Duration::from_millis(1))) => {}
            () = inner.state.beat.notified() => {}
            () = inner.stop.cancelled() => {}
        }
    }
}

async fn beat(
    inner: &Inner,
    connection: &mut Option<Dedicated>,
    beats: u64,
    within: Duration,
) -> Result<Beaten, Error> {
    let names = &inner.names;
    let mark = inner.state.mark();
    if mark.at.life == 0 {
        // The tail has not seen the log yet.
        return Err(Error::Unconnected);
    }
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(inner.kv.dedicated(&names.meta, within).await?),
    };
    // Whether a replica is needed is said of the master there is now.
    if !connection.is_current() {
        return Err(Error::Moved);
    }
    let card = Card {
        beats,
        at: mark.at,
        name: inner.name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        secret: inner.nodes.secret().into(),
    }
    .write();
    let (life, epoch) = (mark.at.life.to_string(), names::epoch(mark.at.position).to_string());
    let (seq, digest) = (names::seq(mark.at.position).to_string(), names::hex(&mark.digest));
    let forgotten = inner.nodes.forgotten(Instant::now());
    let mut args: Vec<&[u8]> = [inner.nodes.this(), &life, &epoch, &seq, &digest, &card].map(str::as_bytes).into();
    args.extend(forgotten.iter().map(|id| id.as_bytes()));
    let keys = [&names.meta[..], &names.log, &names.nodes];
    let answer = connection.run(within, &scripts::BEAT, &keys, &args).await?;
    let beaten = read(inner, mark.at, &answer)?;
    if matches!(beaten, Beaten::Head { .. }) && inner.needs_replica() {
        replicated(connection, within).await?;
    }
    Ok(beaten)
}

fn read(inner: &Inner, at: FleetPosition, answer: &Value) -> Result<Beaten, Error> {
    let unread = || Error::Protocol("a beat's answer".into());
    match value::as_list(answer) {
        [word, epoch, seq, digest, records, nodes] if value::as_text(word) == Some("ok") => {
            let cards = value::as_list(nodes).chunks_exact(2);
            let cards = cards.filter_map(|pair| Some((value::as_text(&pair[0])?, value::as_text(&pair[1])?)));
            inner.nodes.hear(cards, at, Instant::now());
            inner.heard.notify_waiters();
            let head = names::head_in(at.life, [epoch, seq, digest]).ok_or_else(unread)?;
            Ok(Beaten::Head { head, records: value::as_number(records).unwrap_or_default() })
        }
        [word] => match value::as_text(word) {
            Some("unborn") => Ok(Beaten::Doubt("unborn")),
            Some("other") => Ok(Beaten::Doubt("other")),
            Some("ahead") => Ok(Beaten::Doubt("ahead")),
            Some("forked") => Ok(Beaten::Doubt("forked")),
            _ => Err(unread()),
        },
        _ => Err(unread()),
    }
}

/// Waits until a replica has all that this connection wrote.
pub(super) async fn replicated(connection: &mut Dedicated, within: Duration) -> Result<(), Error> {
    let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1);
    let mut wait = Cmd::new();
    wait.arg("WAIT").arg(1).arg(millis);
    match connection.call(within + Duration::from_millis(100), &wait).await? {
        Value::Int(replicas) if replicas >= 1 => Ok(()),
        _ => Err(Error::Server { code: "NOREPLICAS".into(), message: "no replica has it".into() }),
    }
}

impl Inner {
    /// Whether a write counts only once a replica has it.
    pub(super) fn needs_replica(&self) -> bool {
        match self.config.replica {
            Replica::Always => true,
            Replica::Never => false,
            Replica::Auto => self.kv.replicas(&self.names.meta) > 0,
        }
    }

    /// Where all of Redis refuses connections, nobody else can write the log either.
    async fn note_gone(&self) {
        if self.config.redis_gone == Gone::Serve
            && let Some(seen) = self.kv.refused_by_all().await
        {
            self.state.nobody_can_purge(seen, self.now());
        } else {
            self.state.somebody_can_purge();
        }
    }

    /// Counts the time without a valid lease, and says when it begins and ends.
    fn note_fence(&self) {
        let now = Instant::now();
        let fenced = self.state.is_fenced(now);
        self.metrics.lease_left.set(self.state.left(now).as_secs_f64());
        self.metrics.nodes.set(self.nodes.live(now) as u64);
        let mut since = self.fenced_since.lock();
        match (*since, fenced) {
            (None, true) => {
                *since = Some(now);
                self.metrics.fenced.set(1);
                if self.state.is_synced() {
                    tracing::warn!(
                        "cut off from the fleet's purge log: stored responses are confirmed before they are used"
                    );
                }
            }
            (Some(start), false) => {
                *since = None;
                self.metrics.fenced.set(0);
                self.metrics.fenced_seconds.inc_by(now.saturating_duration_since(start).as_secs_f64());
                tracing::info!("up to date with the fleet's purge log");
            }
            (Some(start), true) => {
                self.metrics.fenced_seconds.inc_by(now.saturating_duration_since(start).as_secs_f64());
                *since = Some(now);
            }
            (None, false) => {}
        }
    }

    /// Says once that nodes have different secrets: each would fill Redis with what none of the others can find.
    fn note_strangers(&self) {
        let strangers = self.nodes.strangers(Instant::now());
        if !strangers.is_empty() && !self.said_strangers.swap(true, Relaxed) {
            tracing::warn!(
                nodes = strangers.join(", "),
                "these nodes have another secret than this one: they share no stored responses with it (secret_file)"
            );
        }
    }

    /// Tells the others that this node serves no more.
    pub(super) async fn leave(&self) {
        let mut gone = Cmd::new();
        gone.arg("HDEL").arg(&self.names.nodes).arg(self.nodes.this());
        let _ = self.kv.call(Class::Control, Duration::from_millis(200), &self.names.nodes, &gone).await;
    }
}
