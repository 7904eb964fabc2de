//! One purge as the write-ahead file holds it.

use std::time::Duration;

use super::{
    mark::{self, Mark},
    types::{Mode, Purge, PurgeId},
    wire::{Fields, Put, checksum},
};
use crate::object::{
    scope::{Position, Scope},
    time::Timestamp,
};

/// Bytes of a note that are kept.
const NOTE_MAX: usize = 512;

/// A purge and its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) position: Position,
    pub(super) id: PurgeId,
    pub(super) at: Timestamp,
    pub(super) mode: Mode,
    pub(super) hold: Duration,
    pub(super) scopes: Vec<Scope>,
    pub(super) note: String,
    /// Its place in the log of the fleet, if it came from there.
    pub(super) mark: Option<Mark>,
}

impl Record {
    pub(super) fn new(position: Position, purge: Purge, mark: Option<Mark>) -> Self {
        let Purge { id, at, mode, scopes, hold, note } = purge;
        Self { position, id, at, mode, hold, scopes, note, mark }
    }

    /// What tells one purge from another, whatever their ids are.
    pub(super) fn digest(&self) -> u64 {
        digest(self.mode, self.hold, &self.scopes)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let note = &self.note.as_bytes()[..self.note.floor_char_boundary(NOTE_MAX)];
        let mut out = Vec::with_capacity(64 + 8 * self.scopes.len() + note.len());
        out.put_u64(self.position.number());
        out.put(self.id.as_bytes());
        out.put_u64(self.at.as_millis());
        out.push(mode_byte(self.mode));
        out.put_u64(millis(self.hold));
        out.put_count(self.scopes.len());
        self.scopes.iter().for_each(|scope| out.put_u64(scope.bits()));
        out.put(&(note.len() as u16).to_le_bytes());
        out.put(note);
        mark::put_last(&mut out, self.mark.as_ref());
        out
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        Some(Self {
            position: Position::from_number(fields.u64()?),
            id: PurgeId::from_bytes(fields.array()?),
            at: Timestamp::from_millis(fields.u64()?),
            mode: mode(fields.u8()?)?,
            hold: Duration::from_millis(fields.u64()?),
            scopes: scopes(&mut fields)?,
            note: note(&mut fields)?,
            mark: Mark::read_last(&mut fields)?,
        })
    }
}

/// See [`Record::digest`].
pub(super) fn digest(mode: Mode, hold: Duration, scopes: &[Scope]) -> u64 {
    let mut bytes = vec![mode_byte(mode)];
    bytes.put_u64(millis(hold));
    scopes.iter().for_each(|scope| bytes.put_u64(scope.bits()));
    u64::from_le_bytes(checksum(&[&bytes]))
}

fn scopes(fields: &mut Fields<'_>) -> Option<Vec<Scope>> {
    let count = fields.count(8)?;
    (0..count).map(|_| fields.u64().map(Scope::from_bits)).collect()
}

fn note(fields: &mut Fields<'_>) -> Option<String> {
    let length = fields.u16()?;
    String::from_utf8(fields.bytes(usize::from(length))?.to_vec()).ok()
}

fn mode_byte(mode: Mode) -> u8 {
    match mode {
        Mode::Hard => 1,
        Mode::Soft => 2,
    }
}

fn mode(byte: u8) -> Option<Mode> {
    match byte {
        1 => Some(Mode::Hard),
        2 => Some(Mode::Soft),
        _ => None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object::scope::FleetPosition;

    proptest! {
        #[test]
        fn written_and_read(
            position: u64, id: [u8; 16], at: u64, soft: bool, hold: u64, scopes: Vec<u64>, note in ".{0,100}",
            mark: Option<(u64, u64, [u8; 20])>,
        ) {
            let record = Record {
                position: Position::from_number(position),
                id: PurgeId::from_bytes(id),
                at: Timestamp::from_millis(at),
                mode: if soft { Mode::Soft } else { Mode::Hard },
                hold: Duration::from_millis(hold),
                scopes: scopes.into_iter().map(Scope::from_bits).collect(),
                note,
                mark: mark.map(|(life, position, digest)| {
                    let position = Position::from_number(position);
                    Mark { at: FleetPosition { life, position }, digest }
                }),
            };
            prop_assert_eq!(Record::decode(&record.encode()), Some(record));
        }

        #[test]
        fn garbage_is_no_record(bytes: Vec<u8>) {
            if let Some(record) = Record::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_long_note_is_cut_at_a_character() {
        let purge = Purge {
            id: PurgeId::named("a"),
            at: Timestamp::EPOCH,
            mode: Mode::Hard,
            scopes: vec![Scope::everything()],
            hold: Duration::ZERO,
            note: format!("x{}", "ü".repeat(400)),
        };
        let record = Record::decode(&Record::new(Position::START, purge, None).encode()).expect("readable");
        assert_eq!(record.note.len(), 511);
    }
}
