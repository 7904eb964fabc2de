//! Names of the keys, and numbers as Redis has them.

use redis::Value;

use super::super::{
    mark::{DIGEST, Mark},
    types::PurgeId,
};
use crate::{
    kv::value,
    object::scope::{FleetPosition, Position},
};

/// Keys of one fleet, all in one slot.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) meta: Vec<u8>,
    pub(super) log: Vec<u8>,
    pub(super) snapshot: Vec<u8>,
    pub(super) nodes: Vec<u8>,
    id: String,
}

impl Names {
    pub(super) fn new(namespace: &str) -> Self {
        let name = |what: &str| format!("{namespace}:{{{namespace}.fleet}}:{what}").into_bytes();
        Self {
            meta: name("meta"),
            log: name("log"),
            snapshot: name("snapshot"),
            nodes: name("nodes"),
            id: format!("{namespace}:{{{namespace}.fleet}}:id:"),
        }
    }

    pub(super) fn id(&self, id: &PurgeId) -> Vec<u8> {
        format!("{}{id}", self.id).into_bytes()
    }
}

pub(super) const fn epoch(position: Position) -> u64 {
    position.number() >> 48
}

pub(super) const fn seq(position: Position) -> u64 {
    position.number() & ((1 << 48) - 1)
}

/// The position of those two, if they are in range.
pub(super) fn position(epoch: u64, seq: u64) -> Option<Position> {
    (epoch < 1 << 16 && seq < 1 << 48).then(|| Position::from_number(epoch << 48 | seq))
}

/// The id of the record at a position.
pub(super) fn record_id(position: Position) -> String {
    format!("{}-{}", epoch(position), seq(position))
}

/// The position of the record of that id.
pub(super) fn position_of(id: &str) -> Option<Position> {
    let (epoch, seq) = id.split_once('-')?;
    position(epoch.parse().ok()?, seq.parse().ok()?)
}

pub(super) fn hex(digest: &[u8; DIGEST]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex(text: &str) -> Option<[u8; DIGEST]> {
    let mut digest = [0; DIGEST];
    let is_right = text.len() == 2 * DIGEST && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (at, byte) in digest.iter_mut().enumerate().filter(|_| is_right) {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    is_right.then_some(digest)
}

/// The place of a record and its digest, as scripts tell the head of the log: life, epoch, seq, digest.
pub(super) fn head([life, epoch, seq, digest]: [&Value; 4]) -> Option<Mark> {
    head_in(value::as_number(life)?, [epoch, seq, digest])
}

/// The same in a life that is known: epoch, seq, digest.
pub(super) fn head_in(life: u64, [epoch, seq, digest]: [&Value; 3]) -> Option<Mark> {
    let position = position(value::as_number(epoch)?, value::as_number(seq)?)?;
    let digest = unhex(value::as_text(digest)?)?;
    Some(Mark { at: FleetPosition { life, position }, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_whole_or_not_at_all() {
        let text = |text: &str| Value::BulkString(text.into());
        let (life, epoch, seq, digest) = (text("7"), text("3"), Value::Int(17), text(&hex(&[0xa7; DIGEST])));
        let at = FleetPosition { life: 7, position: position(3, 17).expect("in range") };
        let mark = Mark { at, digest: [0xa7; DIGEST] };
        assert_eq!(head([&life, &epoch, &seq, &digest]), Some(mark));
        assert_eq!(head_in(7, [&epoch, &seq, &digest]), Some(mark));
        for wrong in [Value::Nil, text("x"), text("281474976710656")] {
            assert_eq!(head([&life, &wrong, &seq, &digest]), None, "{wrong:?}");
            assert_eq!(head([&life, &epoch, &wrong, &digest]), None, "{wrong:?}");
            assert_eq!(head([&life, &epoch, &seq, &wrong]), None, "{wrong:?}");
        }
        assert_eq!(head([&Value::Nil, &epoch, &seq, &digest]), None);
    }

    #[test]
    fn there_and_back() {
        let at = position(3, 17).expect("in range");
        assert_eq!(record_id(at), "3-17");
        assert_eq!(position_of("3-17"), Some(at));
        assert_eq!(position(1 << 16, 0), None);
        for garbage in ["", "3", "3-", "-", "3-x", "99999999-1"] {
            assert_eq!(position_of(garbage), None, "{garbage}");
        }
        let digest = [0xa7; DIGEST];
        assert_eq!(unhex(&hex(&digest)), Some(digest));
        assert_eq!(unhex("a7"), None);
        assert_eq!(unhex(&"ä".repeat(DIGEST)), None);
    }

    #[test]
    fn one_slot() {
        let names = Names::new("larder");
        assert!(names.meta.starts_with(b"larder:{larder.fleet}:"));
        assert!(names.id(&PurgeId::named("x")).starts_with(b"larder:{larder.fleet}:id:"));
    }
}
