//! Looking into Redis, which takes the lease in the same round trip where nothing is found.

use redis::Value;
use tokio::time::{Instant, timeout};

use super::{
    Inner, L2, SMALL_MAX, Ticket,
    metrics::LeaseEnd,
    millis,
    names::Named,
    pieces::{Joining, PIECED_HEAD, Pieces},
    scripts::{self, looked},
    value::{self, Begun, ValueError},
};
use crate::{
    kv::{Class, Error, value as replies},
    object::{entry::Entry, key::Key, scope::FleetPosition, time::Timestamp, vary::Variants},
};

/// Values that are put together at once: each takes its length in memory, and of the network what others need.
pub(super) const JOINS: usize = 16;

/// What a look-up asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The key: the primary one of the ticket, or that of a variant.
    pub key: Key,
    /// Only what was stored after that.
    pub newer: Option<Timestamp>,
    /// Whether the lease is to be taken where nothing is found.
    pub lease: bool,
    /// Who is to lose it: what comes of its fill is of no use.
    pub over: Option<Holder>,
    /// Tell the variants of the URL if nothing is found and there are more than so many.
    pub variants: Option<usize>,
}

/// What a look-up came to.
pub enum Looked {
    /// An entry, its stamp that of nothing.
    Found(Box<Entry>, Begun),
    /// Nothing under that key, but the URL has variants.
    Variants(Variants),
    /// Nothing; and this node is to fill it.
    Leased,
    /// Nothing, and another fill is under way.
    Busy(Holder),
    /// Nothing, and what was filled a moment ago was not storable.
    Unstorable,
    /// Nothing, or no answer.
    Nothing,
}

/// Who has a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    token: [u8; scripts::TOKEN],
    /// Where the fleet's purge log was when its fill began.
    pub position: FleetPosition,
}

impl L2 {
    /// Looks into Redis.
    pub async fn look(&self, ticket: &mut Ticket, wanted: &Wanted) -> Looked {
        let start = Instant::now();
        let looked = self.ask(ticket, wanted).await;
        self.inner.metrics.looked_up(start.elapsed());
        match looked {
            Ok(looked) => looked,
            Err(error) => {
                self.inner.metrics.error(error.name());
                if wanted.lease && !error.is_unsent() {
                    ticket.may_hold(wanted.key);
                }
                Looked::Nothing
            }
        }
    }

    async fn ask(&self, ticket: &mut Ticket, wanted: &Wanted) -> Result<Looked, Error> {
        let Inner { names, config, .. } = &*self.inner;
        let named = names.of(&ticket.primary, &wanted.key);
        let lease = if wanted.lease { millis(config.fill_lease) } else { String::new() };
        let newer = wanted.newer.map_or_else(String::new, |time| time.as_millis().to_string());
        let variants = wanted.variants.map_or_else(String::new, |known| known.to_string());
        let token = if wanted.lease { *ticket.token() } else { [0; scripts::TOKEN] };
        let (keys, small) = ([&named.entry[..], &named.lease, &named.variants, &named.removal], SMALL_MAX.to_string());
        let (position, over) = (value::place(ticket.position), wanted.over.map(|holder| holder.token));
        let over = over.as_ref().map_or(&[][..], |token| token);
        let (newer, variants) = (newer.as_bytes(), variants.as_bytes());
        let args = [&token[..], lease.as_bytes(), newer, variants, small.as_bytes(), &position, over];
        let reply = self.inner.kv.run(Class::Small, config.read_timeout, &scripts::LOOK, &keys, &args).await?;
        let mut reply = replies::array(reply)?.into_iter();
        let code = replies::int(&reply.next().unwrap_or(Value::Nil))?;
        ticket.seen = replies::bytes(reply.next().unwrap_or(Value::Nil))?;
        Ok(match code {
            looked::FOUND => {
                let value = replies::bytes(reply.next().unwrap_or(Value::Nil))?.unwrap_or_default();
                self.read(&named, wanted, value).await?
            }
            looked::LARGE => match self.large(&named.entry).await? {
                Some(value) => self.read(&named, wanted, value).await?,
                None => Looked::Nothing,
            },
            looked::VARIANTS => {
                let records = reply.map(replies::bytes).collect::<Result<Vec<_>, _>>()?;
                let records: Vec<_> = records.into_iter().flatten().collect();
                Looked::Variants(self.inner.form.decode_variants(&ticket.primary, &records))
            }
            looked::LEASED => {
                self.inner.metrics.lease(LeaseEnd::Taken);
                ticket.holds(wanted.key);
                Looked::Leased
            }
            looked::BUSY => {
                Looked::Busy(holder(&replies::bytes(reply.next().unwrap_or(Value::Nil))?.unwrap_or_default()))
            }
            looked::UNSTORABLE => Looked::Unstorable,
            _ => Looked::Nothing,
        })
    }

    async fn large(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let get = redis::Cmd::get(name);
        let Inner { kv, config, .. } = &*self.inner;
        replies::bytes(kv.call(Class::Large, config.read_timeout, name, &get).await?)
    }

    async fn read(&self, named: &Named, wanted: &Wanted, value: Vec<u8>) -> Result<Looked, Error> {
        let Inner { metrics, form, config, joins, .. } = &*self.inner;
        metrics.read.inc_by(value.len() as u64);
        let start = value[..value.len().min(PIECED_HEAD)].to_vec();
        let decoded = match Pieces::of(&value, form.longest_payload()) {
            Ok(None) => form.decode(&wanted.key, &value),
            Ok(Some(pieces)) => {
                let room = timeout(config.read_timeout, joins.acquire()).await;
                let Ok(Ok(_permit)) = room else { return Err(Error::Busy) };
                match self.joined(named, pieces, &value).await? {
                    Ok(whole) => self.decoded(wanted.key, whole).await,
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        Ok(match decoded {
            Ok((entry, begun)) => Looked::Found(Box::new(entry), begun),
            Err(error) => {
                tracing::debug!(%error, key = %wanted.key, "what lies in Redis is not used");
                metrics.error("value");
                self.discard(&named.entry, start);
                Looked::Nothing
            }
        })
    }

    /// The whole of a value that lies in pieces. One is fetched after the other: together they would have to share the
    /// time that each may take, and others would wait behind all of them.
    async fn joined(&self, named: &Named, pieces: Pieces, head: &[u8]) -> Result<Result<Vec<u8>, ValueError>, Error> {
        let Inner { kv, config, metrics, .. } = &*self.inner;
        let mut joining = Joining::new(pieces, head);
        for name in pieces.names(&named.pieces) {
            // A byte more than it is to have, to see where it has more; not all of what somebody may have put there.
            let last = isize::try_from(joining.wants()).unwrap_or(isize::MAX);
            let get = redis::Cmd::getrange(&name, 0, last);
            let piece = replies::bytes(kv.call(Class::Large, config.read_timeout, &name, &get).await?)?;
            let piece = piece.unwrap_or_default();
            metrics.read.inc_by(piece.len() as u64);
            if let Err(error) = joining.push(&piece) {
                return Ok(Err(error));
            }
        }
        Ok(joining.whole())
    }

    /// The entry in a long value. What takes a millisecond holds nobody up.
    async fn decoded(&self, key: Key, value: Vec<u8>) -> Result<(Entry, Begun), ValueError> {
        let l2 = self.clone();
        let decoding = self.inner.runtime.spawn_blocking(move || l2.inner.form.decode(&key, &value));
        decoding.await.unwrap_or(Err(ValueError::Damaged))
    }

    /// What is no entry goes, if it begins so: nobody could use it, and it would be found again and again.
    fn discard(&self, name: &[u8], start: Vec<u8>) {
        let (l2, name) = (self.clone(), name.to_vec());
        self.behind(async move {
            let removed = l2.run(Class::Control, &scripts::DISCARD, &[&name], &[&start]).await;
            l2.inner.metrics.removed(removed.is_ok());
        });
    }

    /// Without an effect on anything: what there is under `key`.
    pub async fn peek(&self, primary: Key, key: Key) -> Looked {
        let wanted = Wanted { key, newer: None, lease: false, over: None, variants: (primary == key).then_some(0) };
        self.look(&mut self.ticket(primary, FleetPosition::default()), &wanted).await
    }
}

/// What [`scripts::LOOK`] tells of a lease; of what is none, something that nobody is.
fn holder(lease: &[u8]) -> Holder {
    let (token, place) = lease.split_first_chunk().unwrap_or((&[0; scripts::TOKEN], &[]));
    Holder { token: *token, position: value::placed(place).unwrap_or_default() }
}
