//! Telling nodes that a fill has ended for which somebody waits.
//!
//! ```text
//!  the node that fills ── PUT, SETTLE or REMOVE: "somebody waits" ──▶ one record in the stream of wake-ups
//!  each node on which somebody waits ── reads the stream ──▶ whoever waits for that URL looks again
//! ```
//!
//! It is a hint, and nothing depends on it: what is lost is found by looking now and then. A stream, and not Pub/Sub: it
//! is read on a connection like that of the purge log, tells after a broken connection what came meanwhile, and belongs to
//! one node of a cluster. It is read only while somebody waits, and a little longer.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{L2, scripts};
use crate::{
    kv::{Class, Dedicated, Error, value as replies},
    object::key::Key,
};

/// Records read at once.
const BATCH: usize = 256;

/// How long the stream is waited for in one call; then is looked whether it is still the right server.
const BLOCK: Duration = Duration::from_secs(1);

/// How long the stream is read on when nobody waits any more.
const LINGER: Duration = Duration::from_secs(30);

/// Between two tries to read it.
const PAUSE: Duration = Duration::from_millis(250);

/// Who is to be woken.
#[derive(Default)]
pub(super) struct Wakes {
    table: Mutex<Table>,
    /// Whether what is said now is heard.
    heard: AtomicBool,
}

#[derive(Default)]
struct Table {
    /// By what stands for the primary key in Redis.
    bells: HashMap<[u8; 32], Vec<Arc<Notify>>>,
    /// Whether somebody reads the stream, or tries to.
    is_read: bool,
}

impl Wakes {
    pub(super) fn is_heard(&self) -> bool {
        self.heard.load(Relaxed)
    }

    /// Takes a bell back.
    pub(super) fn forget(&self, locator: &[u8; 32], bell: &Arc<Notify>) {
        let mut table = self.table.lock();
        if let Some(bells) = table.bells.get_mut(locator) {
            bells.retain(|other| !Arc::ptr_eq(other, bell));
            if bells.is_empty() {
                table.bells.remove(locator);
            }
        }
    }

    /// Has those look again who wait for one URL. How many there are.
    fn ring(&self, locator: &[u8]) -> usize {
        let table = self.table.lock();
        let bells = table.bells.get(locator).map_or(&[][..], Vec::as_slice);
        bells.iter().for_each(|bell| bell.notify_one());
        bells.len()
    }

    /// Has all look again.
    fn ring_all(&self) {
        self.table.lock().bells.values().flatten().for_each(|bell| bell.notify_one());
    }

    fn is_idle(&self) -> bool {
        self.table.lock().bells.is_empty()
    }

    /// Ends the reading unless somebody waits.
    fn may_end(&self) -> bool {
        let mut table = self.table.lock();
        table.is_read = !table.bells.is_empty();
        !table.is_read
    }
}

impl L2 {
    /// Tells all nodes that there is something to look at: the reply of a script said that somebody waits.
    pub(super) fn wake_if(&self, waited: Option<&Value>, primary: &Key) {
        if waited != Some(&Value::Int(1)) {
            return;
        }
        let (l2, locator) = (self.clone(), self.inner.names.locator(primary));
        self.behind(async move {
            // Where it fails, they find out by themselves.
            let _ = l2.run(Class::Control, &scripts::WAKE, &[&l2.inner.names.wakes], &[&locator]).await;
        });
    }

    /// A bell that is rung when a fill of that URL has ended.
    pub(super) fn hear(&self, locator: [u8; 32]) -> Arc<Notify> {
        let bell = Arc::new(Notify::new());
        let mut table = self.inner.wakes.table.lock();
        table.bells.entry(locator).or_default().push(Arc::clone(&bell));
        if !table.is_read {
            table.is_read = true;
            let l2 = self.clone();
            self.inner.runtime.spawn(async move { l2.listen().await });
        }
        bell
    }

    /// Reads the stream until nobody has waited for a while.
    async fn listen(self) {
        let wakes = &self.inner.wakes;
        loop {
            let read = self.read_wakes().await;
            wakes.heard.store(false, Relaxed);
            if wakes.may_end() {
                return;
            }
            if let Err(error) = read {
                tracing::debug!(%error, "the stream of wake-ups cannot be read");
                sleep(PAUSE).await;
            }
        }
    }

    async fn read_wakes(&self) -> Result<(), Error> {
        let (inner, wakes, name) = (&self.inner, &self.inner.wakes, &self.inner.names.wakes);
        let within = inner.config.connect_timeout;
        let mut connection = inner.kv.dedicated(name, within).await?;
        let mut last = newest(&mut connection, name, within).await?;
        wakes.heard.store(true, Relaxed);
        // What ended before could not be heard.
        wakes.ring_all();
        let mut idle_since = Instant::now();
        while connection.is_current() {
            let mut read = Cmd::new();
            read.arg("XREAD").arg("COUNT").arg(BATCH).arg("BLOCK").arg(BLOCK.as_millis() as u64);
            read.arg("STREAMS").arg(name).arg(&last);
            for record in records(connection.call(BLOCK + within, &read).await?)? {
                inner.metrics.wakes.inc_by(wakes.ring(&record.locator) as u64);
                last = record.id;
            }
            if !wakes.is_idle() {
                idle_since = Instant::now();
            } else if idle_since.elapsed() > LINGER {
                break;
            }
        }
        Ok(())
    }
}

/// A record of the stream.
struct Record {
    id: Vec<u8>,
    /// What stands for the primary key.
    locator: Vec<u8>,
}

/// The id of the stream's last record.
async fn newest(connection: &mut Dedicated, name: &[u8], within: Duration) -> Result<Vec<u8>, Error> {
    let mut last = Cmd::new();
    last.arg("XREVRANGE").arg(name).arg("+").arg("-").arg("COUNT").arg(1);
    let records = replies::array(connection.call(within, &last).await?)?;
    let newest = records.into_iter().next().map(record).transpose()?;
    Ok(newest.map_or_else(|| b"0-0".to_vec(), |record| record.id))
}

/// `[[name, [record, …]]]`, or nothing.
fn records(answer: Value) -> Result<Vec<Record>, Error> {
    if answer == Value::Nil {
        return Ok(Vec::new());
    }
    let Some(stream) = replies::array(answer)?.into_iter().next() else { return Ok(Vec::new()) };
    let records = replies::array(stream)?.into_iter().nth(1).unwrap_or(Value::Array(Vec::new()));
    replies::array(records)?.into_iter().map(record).collect()
}

/// `[id, [field, value]]`
fn record(record: Value) -> Result<Record, Error> {
    let protocol = || Error::Protocol("a record of the stream of wake-ups".into());
    let [id, fields] = <[Value; 2]>::try_from(replies::array(record)?).map_err(|_| protocol())?;
    let value = replies::array(fields)?.into_iter().nth(1).ok_or_else(protocol)?;
    let (id, locator) = (replies::bytes(id)?.ok_or_else(protocol)?, replies::bytes(value)?.ok_or_else(protocol)?);
    Ok(Record { id, locator })
}
