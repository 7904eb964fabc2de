//! The snapshot: everything the log knows at one position, so that the write-ahead file can start anew.
//!
//! ```text
//!  "LDRSNAP1" │ position │ floor │ count, scopes │ count, recent purges │ mark, in a fleet │ check
//! ```

use std::time::Duration;

use super::{
    mark::{self, Mark},
    recent::{self, Known, Recent},
    types::PurgeId,
    watermarks::{Watermark, Watermarks},
    wire::{Fields, Put, checksum},
};
use crate::object::{
    scope::{Position, Scope},
    time::Timestamp,
};

const MAGIC: [u8; 8] = *b"LDRSNAP1";
const CHECK: usize = 32;
const WATERMARK: usize = 24;
const KNOWN: usize = 16 + 8 + 8 + 4;

/// What a snapshot held.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) position: Position,
    pub(super) floor: Watermark,
    /// In an order that makes the same table again.
    pub(super) scopes: Vec<(Scope, Watermark)>,
    /// Oldest first.
    pub(super) recent: Vec<Known>,
    /// How far the log of the fleet is in it.
    pub(super) mark: Option<Mark>,
}

/// About how long a snapshot of that table is.
pub(super) fn bytes(table: &Watermarks) -> u64 {
    (table.len() * (8 + WATERMARK)) as u64
}

pub(super) fn encode(position: Position, table: &Watermarks, recent: &Recent, mark: Option<&Mark>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + table.len() * (8 + WATERMARK) + recent.len() * KNOWN);
    out.put(&MAGIC);
    out.put_u64(position.number());
    put_watermark(&mut out, table.floor());
    out.put_count(table.len());
    for (scope, watermark) in table.iter() {
        out.put_u64(scope.bits());
        put_watermark(&mut out, watermark);
    }
    out.put_count(recent.len());
    recent.iter().for_each(|known| put_known(&mut out, known));
    mark::put_last(&mut out, mark);
    let check: [u8; CHECK] = checksum(&[&out]);
    out.put(&check);
    out
}

/// `None` if anything is wrong with it.
pub(super) fn decode(content: &[u8]) -> Option<Snapshot> {
    let (content, check) = content.split_last_chunk::<CHECK>()?;
    if checksum(&[content]) != *check {
        return None;
    }
    let mut fields = Fields(content.strip_prefix(&MAGIC)?);
    Some(Snapshot {
        position: Position::from_number(fields.u64()?),
        floor: watermark(&mut fields)?,
        scopes: scopes(&mut fields)?,
        recent: known(&mut fields)?,
        mark: Mark::read_last(&mut fields)?,
    })
}

fn put_watermark(out: &mut Vec<u8>, watermark: Watermark) {
    out.put_u64(watermark.hard.number());
    out.put_u64(watermark.soft.number());
    out.put_u64(watermark.hold_until.as_millis());
}

fn watermark(fields: &mut Fields<'_>) -> Option<Watermark> {
    Some(Watermark {
        hard: Position::from_number(fields.u64()?),
        soft: Position::from_number(fields.u64()?),
        hold_until: Timestamp::from_millis(fields.u64()?),
    })
}

fn scopes(fields: &mut Fields<'_>) -> Option<Vec<(Scope, Watermark)>> {
    let count = fields.count(8 + WATERMARK)?;
    (0..count).map(|_| Some((Scope::from_bits(fields.u64()?), watermark(fields)?))).collect()
}

fn put_known(out: &mut Vec<u8>, known: &Known) {
    out.put(known.receipt.id.as_bytes());
    out.put_u64(known.digest);
    out.put_u64(known.receipt.position.number());
    out.put_count(known.receipt.scopes);
}

fn known(fields: &mut Fields<'_>) -> Option<Vec<Known>> {
    let one = |fields: &mut Fields<'_>| {
        let id = PurgeId::from_bytes(fields.array()?);
        let digest = fields.u64()?;
        let position = Position::from_number(fields.u64()?);
        let scopes = usize::try_from(fields.u32()?).ok()?;
        Some(Known { receipt: recent::receipt(id, position, scopes, Duration::ZERO), digest })
    };
    let count = fields.count(KNOWN)?;
    (0..count).map(|_| one(fields)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::scope::FleetPosition;

    fn mark() -> Mark {
        let position = Position::from_number(7);
        Mark { at: FleetPosition { life: 3, position }, digest: [4; 20] }
    }

    fn example() -> Vec<u8> {
        let mut table = Watermarks::new(8);
        for n in 1..=9 {
            let hard = Position::from_number(n);
            table.raise(Scope::from_bits(n), Watermark { hard, ..Watermark::default() });
        }
        let mut recent = Recent::default();
        let receipt = recent::receipt(PurgeId::named("x"), Position::from_number(9), 3, Duration::ZERO);
        recent.remember(Known { receipt, digest: 5 });
        encode(Position::from_number(9), &table, &recent, Some(&mark()))
    }

    #[test]
    fn written_and_read() {
        let snapshot = decode(&example()).expect("readable");
        assert_eq!(snapshot.position.number(), 9);
        assert_eq!(snapshot.floor.hard.number(), 4);
        assert_eq!(snapshot.scopes.len(), 5);
        assert_eq!((snapshot.recent[0].digest, snapshot.recent[0].receipt.scopes), (5, 3));
        assert_eq!(snapshot.mark, Some(mark()));
    }

    #[test]
    fn anything_wrong_is_refused() {
        let good = example();
        for cut in 0..good.len() {
            assert!(decode(&good[..cut]).is_none(), "cut at {cut}");
        }
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_none(), "bit {bit}");
        }
    }
}
