//! The nodes of a fleet, as one of them sees the others.
//!
//! No clocks are compared: each node counts its beats, and who sees another's count stand still for longer than the lease,
//! by his own clock, knows that the other's lease has run out. For it began before the count was seen.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::names;
use crate::object::scope::{FleetPosition, Position};

/// Nodes that are looked at; further ones in Redis are none of a gateway's.
const NODES_MAX: usize = 1024;

/// Nodes that have been silent for so long are taken out of the list.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) beats: u64,
    pub(super) at: FleetPosition,
    /// For people.
    pub(super) name: String,
    pub(super) version: String,
    /// Of the secret that keys its entries: who has another one shares none with it.
    pub(super) secret: String,
}

impl Card {
    pub(super) fn write(&self) -> String {
        let Self { beats, at, name, version, secret } = self;
        format!("{beats}\n{}\n{}\n{name}\n{version}\n{secret}", at.life, at.position.number())
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let mut number = || lines.next()?.parse().ok();
        let (beats, life, position) = (number()?, number()?, number()?);
        let mut word = || lines.next().map(|word| word.chars().take(128).collect());
        let at = FleetPosition { life, position: Position::from_number(position) };
        Some(Self { beats, at, name: word()?, version: word()?, secret: word()? })
    }
}

#[derive(Debug, Clone)]
struct Seen {
    card: Card,
    /// When this count of beats was first seen.
    since: Instant,
}

/// A node, for lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeStats {
    /// Identity of the process.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its release.
    pub version: String,
    /// Whether it is this one.
    pub this: bool,
    /// Whether it has the secret of this one. If not, they share no entries (`secret_file`).
    pub shares: bool,
    /// "live", or "gone" when its lease has run out.
    pub state: &'static str,
    /// Epoch of the log it is at.
    pub epoch: u64,
    /// Record of that epoch it has applied.
    pub seq: u64,
    /// Milliseconds since it was last heard of.
    pub silent_ms: u64,
}

/// How far the others are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Others {
    /// Every live one has applied it: so many, and so many are gone.
    Applied { live: usize, gone: usize },
    /// Some have not.
    Behind(Vec<String>),
}

/// What was last heard of all nodes.
#[derive(Debug)]
pub(super) struct Nodes {
    this: String,
    secret: String,
    lease: Duration,
    seen: Mutex<BTreeMap<String, Seen>>,
    /// Where this node was when it last heard. Redis has compared that with its log, and does so with what each node says.
    heard: Mutex<FleetPosition>,
    /// When that was.
    last: Mutex<Option<Instant>>,
    /// The life of the log, and since when it is known here.
    life: Mutex<Option<(u64, Instant)>>,
}

impl Nodes {
    pub(super) fn new(this: String, secret: String, lease: Duration) -> Self {
        Self {
            this,
            secret,
            lease,
            seen: Mutex::default(),
            heard: Mutex::default(),
            last: Mutex::default(),
            life: Mutex::default(),
        }
    }

    pub(super) fn this(&self) -> &str {
        &self.this
    }

    /// Takes in what Redis says of all nodes, when this one has said that it is at `at`.
    pub(super) fn hear<'a>(&self, cards: impl Iterator<Item = (&'a str, &'a str)>, at: FleetPosition, now: Instant) {
        let mut seen = self.seen.lock();
        let mut last = self.last.lock();
        // Without Redis nobody's beats were counted, and a lease may have lasted on: silence counts from now on.
        let is_gap = last.is_some_and(|last| now.saturating_duration_since(last) > self.lease);
        *last = Some(now);
        let mut heard = BTreeMap::new();
        for (id, card) in cards.take(NODES_MAX) {
            let Some(card) = Card::read(card) else { continue };
            let since = match seen.remove(id) {
                Some(before) if before.card.beats == card.beats && !is_gap => before.since,
                _ => now,
            };
            heard.insert(id.to_owned(), Seen { card, since });
        }
        *seen = heard;
        *self.heard.lock() = at;
    }

    /// The log is of that life.
    pub(super) fn lives(&self, life: u64, now: Instant) {
        let mut known = self.life.lock();
        if known.is_none_or(|(known, _)| known != life) {
            *known = Some((life, now));
        }
    }

    /// Whether all but this one have applied the record at `at`, or may not serve until they have.
    pub(super) fn others(&self, at: FleetPosition, now: Instant) -> Others {
        let (mut live, mut gone, mut behind) = (0, 0, Vec::new());
        // Of a log that was made a moment ago nobody may be in the list who still has a lease from the one before.
        let settled = |(life, since): (u64, Instant)| life == at.life && self.is_gone(since, now);
        if !self.life.lock().is_some_and(settled) {
            behind.push("any that have not come to this log yet".to_owned());
        }
        // Heard of another log, or of this one before the record was there, the same position may be another record.
        let heard = *self.heard.lock();
        if heard.life != at.life || heard.position < at.position {
            behind.push("any, as nothing has been heard of them since".to_owned());
        }
        for (id, Seen { card, since }) in self.seen.lock().iter().filter(|(id, _)| **id != self.this) {
            if card.at.life == at.life && card.at.position >= at.position {
                live += 1;
            } else if self.is_gone(*since, now) {
                gone += 1;
            } else {
                behind.push(if card.name.is_empty() { id.clone() } else { card.name.clone() });
            }
        }
        if behind.is_empty() { Others::Applied { live, gone } } else { Others::Behind(behind) }
    }

    /// Those that have been silent for long.
    pub(super) fn forgotten(&self, now: Instant) -> Vec<String> {
        let seen = self.seen.lock();
        let silent = seen.iter().filter(|(_, seen)| now.saturating_duration_since(seen.since) > FORGOTTEN);
        silent.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn stats(&self, now: Instant) -> Vec<NodeStats> {
        let seen = self.seen.lock();
        let stats = seen.iter().map(|(id, Seen { card, since })| NodeStats {
            id: id.clone(),
            name: card.name.clone(),
            version: card.version.clone(),
            this: *id == self.this,
            shares: card.secret == self.secret,
            state: if self.is_gone(*since, now) { "gone" } else { "live" },
            epoch: names::epoch(card.at.position),
            seq: names::seq(card.at.position),
            silent_ms: u64::try_from(now.saturating_duration_since(*since).as_millis()).unwrap_or(u64::MAX),
        });
        stats.collect()
    }

    /// Live nodes with another secret than this one.
    pub(super) fn strangers(&self, now: Instant) -> Vec<String> {
        let seen = self.seen.lock();
        let strangers = seen.values().filter(|seen| seen.card.secret != self.secret && !self.is_gone(seen.since, now));
        strangers.map(|seen| seen.card.name.clone()).collect()
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    pub(super) fn live(&self, now: Instant) -> usize {
        self.seen.lock().values().filter(|seen| !self.is_gone(seen.since, now)).count()
    }

    /// A tenth more than the lease: clocks do not run alike.
    fn is_gone(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) > self.lease + self.lease / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(2);

    fn at(position: u64) -> FleetPosition {
        FleetPosition { life: 1, position: Position::from_number(position) }
    }

    fn card(beats: u64, position: u64) -> String {
        Card { beats, at: at(position), name: "b".into(), version: "1".into(), secret: "s".into() }.write()
    }

    #[test]
    fn cards_are_read_and_garbage_is_not() {
        let card = Card { beats: 3, at: at(9), name: "host-7".into(), version: "0.1.0".into(), secret: "s".into() };
        assert_eq!(Card::read(&card.write()), Some(card));
        for garbage in ["", "1", "1\n2\n3", "x\n2\n3\na\nb"] {
            assert_eq!(Card::read(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn who_is_silent_for_longer_than_the_lease_is_gone() {
        let nodes = Nodes::new("a".into(), "s".into(), LEASE);
        let start = Instant::now() + 2 * LEASE;
        nodes.lives(1, start - 2 * LEASE);
        let hear = |beats, position, now| nodes.hear([("b", card(beats, position).as_str())].into_iter(), at(6), now);
        hear(1, 5, start);
        assert_eq!(nodes.others(at(5), start), Others::Applied { live: 1, gone: 0 });
        assert_eq!(nodes.others(at(6), start), Others::Behind(vec!["b".into()]));
        // It is heard of all the time.
        for quarter in 1..=4 {
            hear(1, 5, start + quarter * LEASE / 4);
        }
        let later = start + Duration::from_millis(2100);
        hear(1, 5, later);
        assert_eq!(nodes.others(at(6), later), Others::Behind(vec!["b".into()]), "not for sure yet");
        let gone = start + Duration::from_millis(2300);
        hear(1, 5, gone);
        assert_eq!(nodes.others(at(6), gone), Others::Applied { live: 0, gone: 1 });
        hear(2, 5, gone);
        assert_eq!(nodes.others(at(6), gone), Others::Behind(vec!["b".into()]), "it beats again");
        // Nothing was heard of anybody: nobody was counted out meanwhile.
        let after = gone + 3 * LEASE;
        hear(2, 5, after);
        assert_eq!(nodes.others(at(6), after), Others::Behind(vec!["b".into()]), "silence counts from now on");
    }

    #[test]
    fn a_new_log_is_given_time() {
        let nodes = Nodes::new("a".into(), "s".into(), LEASE);
        let start = Instant::now();
        nodes.lives(1, start);
        assert!(matches!(nodes.others(at(5), start + LEASE), Others::Behind(_)));
        nodes.lives(1, start + LEASE);
        assert!(matches!(nodes.others(at(5), start + 2 * LEASE), Others::Behind(_)), "nothing was heard yet");
        nodes.hear(std::iter::empty(), at(5), start + LEASE);
        assert_eq!(nodes.others(at(5), start + 2 * LEASE), Others::Applied { live: 0, gone: 0 });
        nodes.lives(2, start + 2 * LEASE);
        assert!(matches!(nodes.others(at(5), start + 2 * LEASE), Others::Behind(_)), "of another log");
    }

    #[test]
    fn another_life_is_not_that_record() {
        let nodes = Nodes::new("a".into(), "s".into(), LEASE);
        let now = Instant::now() + 2 * LEASE;
        nodes.lives(2, now - 2 * LEASE);
        nodes.hear(
            [("b", card(1, 9).as_str()), ("a", card(1, 0).as_str())].into_iter(),
            FleetPosition { life: 2, ..at(3) },
            now,
        );
        let other = FleetPosition { life: 2, position: Position::from_number(3) };
        assert_eq!(nodes.others(other, now), Others::Behind(vec!["b".into()]));
        assert_eq!(nodes.stats(now).iter().filter(|node| node.this && node.shares).count(), 1);
        assert!(nodes.strangers(now).is_empty());
        let other = Nodes::new("c".into(), "another".into(), LEASE);
        other.hear([("b", card(1, 9).as_str())].into_iter(), at(9), now);
        assert_eq!(other.strangers(now), ["b"]);
    }
}
