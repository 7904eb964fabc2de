//! Writing to the fleet's log: one task, one connection, and one wait for a replica for all who append at the same time.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::{Inner, beat, names, scripts};
use crate::{
    kv::{Dedicated, Error, value},
    purge::{PurgeId, mark::Mark},
};

/// Appends that may wait for their turn; more wait for a place.
pub(super) const QUEUE: usize = 256;

/// Appends that share one wait for a replica.
const GROUP_MAX: usize = 64;

/// How long one step may take: a hanging server is found out by the beat as well.
const STEP: Duration = Duration::from_millis(500);

/// How long the log knows the id of a purge: far longer than anybody repeats one.
const ID_REMEMBERED: Duration = Duration::from_secs(3600);

/// A record to be appended.
pub(super) struct Appending {
    pub(super) id: PurgeId,
    pub(super) record: Vec<u8>,
    /// Although it is there already, in a place that says nothing any more.
    pub(super) anew: bool,
    pub(super) reply: oneshot::Sender<Result<Appended, Error>>,
}

/// A record that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) mark: Mark,
    /// Whether it was there before.
    pub(super) known: bool,
    /// Whether a replica has it, too.
    pub(super) replicated: bool,
}

/// Appends until nobody can ask any more.
pub(super) async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Appending>) {
    let mut connection = None;
    while let Some(first) = queue.recv().await {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        let results = append_all(&inner, &mut connection, &group).await;
        if results.iter().any(Result::is_err) {
            connection = None;
        }
        for (appending, result) in group.into_iter().zip(results) {
            // Who has gone can ask again, with the same id.
            let _ = appending.reply.send(result);
        }
    }
}

async fn append_all(
    inner: &Inner,
    connection: &mut Option<Dedicated>,
    group: &[Appending],
) -> Vec<Result<Appended, Error>> {
    let failed = |error: Error| group.iter().map(|_| Err(error.clone())).collect();
    let connection = match connection {
        Some(connection) => connection,
        none => match inner.kv.dedicated(&inner.names.meta, STEP).await {
            Ok(dedicated) => none.insert(dedicated),
            Err(error) => return failed(error),
        },
    };
    if !connection.is_current() {
        return failed(Error::Moved);
    }
    let mut results = Vec::with_capacity(group.len());
    for appending in group {
        results.push(append(inner, connection, appending).await);
    }
    if inner.needs_replica() && results.iter().any(Result::is_ok) {
        let replicated = beat::replicated(connection, STEP).await;
        for result in &mut results {
            match (&mut *result, &replicated) {
                (Ok(appended), Ok(())) => appended.replicated = true,
                (Ok(_), Err(error)) => *result = Err(error.clone()),
                (Err(_), _) => {}
            }
        }
    }
    results
}

async fn append(inner: &Inner, connection: &mut Dedicated, appending: &Appending) -> Result<Appended, Error> {
    let (names, id) = (&inner.names, inner.names.id(&appending.id));
    let remembered = ID_REMEMBERED.as_millis().to_string();
    let keys = [&names.meta[..], &names.log, &id];
    let anew: &[u8] = if appending.anew { b"1" } else { b"" };
    let args = [&appending.record[..], remembered.as_bytes(), anew];
    let answer = connection.run(STEP, &scripts::APPEND, &keys, &args).await?;
    let [life, epoch, seq, digest, known] = value::as_list(&answer) else {
        // There is no log: the tail makes one.
        inner.state.distrust();
        return Err(Error::Server { code: "NOLOG".into(), message: "the fleet's log is being made anew".into() });
    };
    let mark = names::head([life, epoch, seq, digest]).ok_or_else(|| Error::Protocol("an append's answer".into()))?;
    Ok(Appended { mark, known: value::as_number(known) == Some(1), replicated: false })
}
