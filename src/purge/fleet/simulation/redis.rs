//! Redis as the fleet uses it: each script as one step on a master, and a replica that follows behind.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::super::{
    super::{
        mark::{DIGEST, Mark},
        types::PurgeId,
    },
    message, names,
};
use crate::object::scope::{FleetPosition, Position};

/// A record of the stream.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) mark: Mark,
    pub(super) before: Option<[u8; DIGEST]>,
    pub(super) payload: Arc<[u8]>,
}

/// What is asked of a server.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// With the life there is to be, if there is none.
    Hello(u64),
    /// The record at this mark.
    Record(Mark),
    Snapshot,
    /// All of the log.
    Log,
    /// What comes after a position.
    Read(Position),
    Turn {
        life: u64,
        from: u64,
        common: Position,
    },
    Append {
        id: PurgeId,
        payload: Arc<[u8]>,
        anew: bool,
    },
    Beat {
        node: String,
        mark: Mark,
        card: String,
    },
    Save {
        mark: Mark,
        snapshot: Arc<[u8]>,
        stays: Position,
    },
    /// Whether a replica has all up to that offset.
    Wait(u64),
}

/// What a server answers.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Head(Mark),
    Records(Vec<Record>),
    Snapshot(Option<Arc<[u8]>>),
    Appended {
        mark: Mark,
        known: bool,
        offset: u64,
    },
    /// There is no log.
    Nothing,
    Beaten {
        head: Mark,
        records: usize,
        nodes: Vec<(String, String)>,
        offset: u64,
    },
    /// Unborn, other, ahead or forked.
    Doubt,
    Waited(bool),
    Done,
}

/// What a server holds, of the fleet's log.
#[derive(Debug, Clone, Default)]
struct Data {
    head: Option<Mark>,
    log: Vec<Record>,
    snapshot: Option<Arc<[u8]>>,
    nodes: BTreeMap<String, String>,
    ids: BTreeMap<[u8; 16], Mark>,
}

/// A master, perhaps with a replica.
#[derive(Debug, Default)]
pub(super) struct Server {
    data: Data,
    offset: u64,
    replica: Option<(u64, Data)>,
    /// On its way to the replica.
    stream: VecDeque<(u64, Data)>,
}

impl Server {
    pub(super) fn run(&mut self, request: Request) -> Reply {
        let (changed, reply) = match request {
            Request::Wait(offset) => {
                return Reply::Waited(self.replica.as_ref().is_some_and(|(has, _)| *has >= offset));
            }
            other => self.data.run(other),
        };
        if changed {
            self.wrote();
        }
        match reply {
            Reply::Appended { mark, known, .. } => Reply::Appended { mark, known, offset: self.offset },
            Reply::Beaten { head, records, nodes, .. } => Reply::Beaten { head, records, nodes, offset: self.offset },
            other => other,
        }
    }

    fn wrote(&mut self) {
        self.offset += 1;
        if self.replica.is_some() {
            self.stream.push_back((self.offset, self.data.clone()));
        }
    }

    /// The replica comes one write nearer.
    pub(super) fn replicate(&mut self) {
        if let Some(next) = self.stream.pop_front() {
            self.replica = Some(next);
        }
    }

    /// A new replica, which copies all.
    pub(super) fn attach(&mut self) {
        if self.replica.is_none() {
            self.replica = Some((self.offset, self.data.clone()));
        }
    }

    /// The replica as a master of its own; this server has none any more, and what was on its way is lost.
    pub(super) fn promote(&mut self) -> Option<Self> {
        let (offset, data) = self.replica.take()?;
        self.stream.clear();
        Some(Self { data, offset, ..Self::default() })
    }

    /// Loses everything.
    pub(super) fn flush(&mut self) {
        self.data = Data::default();
        self.wrote();
    }
}

fn digest(before: &[u8], payload: &[u8]) -> [u8; DIGEST] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(payload);
    let mut digest = [0; DIGEST];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..DIGEST]);
    digest
}

impl Data {
    /// Whether it wrote something, and the answer.
    fn run(&mut self, request: Request) -> (bool, Reply) {
        match request {
            Request::Hello(life) => self.hello(life),
            Request::Record(mark) => {
                let there = self.log.iter().filter(|record| record.mark.at.position == mark.at.position);
                (false, Reply::Records(there.cloned().collect()))
            }
            Request::Snapshot => (false, Reply::Snapshot(self.snapshot.clone())),
            Request::Log => (false, Reply::Records(self.log.clone())),
            Request::Read(after) => {
                let rest = self.log.iter().filter(|record| record.mark.at.position > after);
                (false, Reply::Records(rest.cloned().collect()))
            }
            Request::Turn { life, from, common } => self.turn(life, from, common),
            Request::Append { id, payload, anew } => self.append(id, payload, anew),
            Request::Beat { node, mark, card } => self.beat(node, mark, card),
            Request::Save { mark, snapshot, stays } => self.save(mark, snapshot, stays),
            Request::Wait(_) => (false, Reply::Done),
        }
    }

    fn push(&mut self, at: FleetPosition, payload: Arc<[u8]>) -> Mark {
        let before = self.head.map(|head| head.digest);
        let digest = match before {
            Some(before) => digest(&before, &payload),
            None => digest(b"", &at.life.to_le_bytes()),
        };
        let mark = Mark { at, digest };
        self.log.push(Record { mark, before, payload });
        self.head = Some(mark);
        mark
    }

    fn hello(&mut self, life: u64) -> (bool, Reply) {
        if let Some(head) = self.head.filter(|_| !self.log.is_empty()) {
            return (false, Reply::Head(head));
        }
        *self = Self { ids: std::mem::take(&mut self.ids), ..Self::default() };
        let at = FleetPosition { life, position: names::position(1, 0).expect("in range") };
        (true, Reply::Head(self.push(at, message::turn(Position::START).into())))
    }

    fn append(&mut self, id: PurgeId, payload: Arc<[u8]>, anew: bool) -> (bool, Reply) {
        let Some(head) = self.head.filter(|_| !self.log.is_empty()) else { return (false, Reply::Nothing) };
        if let Some(mark) = self.ids.get(id.as_bytes()).filter(|mark| !anew && mark.at.life == head.at.life) {
            return (false, Reply::Appended { mark: *mark, known: true, offset: 0 });
        }
        let at = FleetPosition { life: head.at.life, position: head.at.position.next() };
        let mark = self.push(at, payload);
        self.ids.insert(*id.as_bytes(), mark);
        (true, Reply::Appended { mark, known: false, offset: 0 })
    }

    fn beat(&mut self, node: String, mark: Mark, card: String) -> (bool, Reply) {
        let doubt = (false, Reply::Doubt);
        let Some(head) = self.head.filter(|_| !self.log.is_empty()) else { return doubt };
        if head.at.life != mark.at.life || mark.at.position > head.at.position {
            return doubt;
        }
        match self.log.iter().find(|record| record.mark.at.position == mark.at.position) {
            Some(there) if there.mark.digest != mark.digest => return doubt,
            None if self.log.iter().any(|record| record.mark.at.position < mark.at.position) => return doubt,
            _ => {}
        }
        self.nodes.insert(node, card);
        let nodes = self.nodes.iter().map(|(id, card)| (id.clone(), card.clone())).collect();
        (true, Reply::Beaten { head, records: self.log.len(), nodes, offset: 0 })
    }

    fn turn(&mut self, life: u64, from: u64, common: Position) -> (bool, Reply) {
        let is_there = |head: &Mark| head.at.life == life && names::epoch(head.at.position) == from;
        if !self.head.as_ref().is_some_and(is_there) {
            return (false, Reply::Done);
        }
        let at = FleetPosition { life, position: names::position(from + 1, 0).expect("in range") };
        self.push(at, message::turn(common).into());
        (true, Reply::Done)
    }

    fn save(&mut self, mark: Mark, snapshot: Arc<[u8]>, stays: Position) -> (bool, Reply) {
        if !self.log.iter().any(|record| record.mark == mark) {
            return (false, Reply::Done);
        }
        self.snapshot = Some(snapshot);
        self.log.retain(|record| record.mark.at.position >= stays);
        (true, Reply::Done)
    }
}
