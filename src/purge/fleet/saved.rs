//! The snapshot in Redis: the table at some record, in the place of all records before it.
//!
//! ```text
//!  "LDRFLEET" │ count, voids │ check of both │ a snapshot as the node's own log has them, which checks itself
//! ```

use super::{
    super::{
        mark::Mark,
        recent::Recent,
        snapshot,
        watermarks::Watermarks,
        wire::{Fields, Put, checksum},
    },
    state::Table,
};
use crate::object::scope::Position;

const MAGIC: [u8; 8] = *b"LDRFLEET";

pub(super) fn encode(table: &Table) -> Vec<u8> {
    let mut out = Vec::new();
    out.put(&MAGIC);
    out.put_count(table.voids.len());
    for (common, begin) in &table.voids {
        out.put_u64(common.number());
        out.put_u64(begin.number());
    }
    let check: [u8; 8] = checksum(&[&out]);
    out.put(&check);
    let position = table.mark.at.position;
    out.put(&snapshot::encode(position, &table.watermarks, &Recent::default(), Some(&table.mark)));
    out
}

/// `None` where anything is wrong with it.
pub(super) fn decode(bytes: &[u8], scopes_max: usize) -> Option<Table> {
    let mut fields = Fields(bytes);
    if fields.array()? != MAGIC {
        return None;
    }
    let count = fields.count(16)?;
    let mut voids = Vec::with_capacity(count);
    for _ in 0..count {
        voids.push((Position::from_number(fields.u64()?), Position::from_number(fields.u64()?)));
    }
    let before = &bytes[..bytes.len() - fields.0.len()];
    if fields.array()? != checksum::<8>(&[before]) {
        return None;
    }
    let found = snapshot::decode(fields.0)?;
    let mark: Mark = found.mark?;
    let mut watermarks = Watermarks::new(scopes_max);
    watermarks.raise_floor(found.floor);
    for (scope, watermark) in found.scopes {
        watermarks.raise(scope, watermark);
    }
    Some(Table { mark, watermarks, voids })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        object::scope::{FleetPosition, Scope},
        purge::{Standing, watermarks::Watermark},
    };

    fn example() -> Table {
        let mut table = Table::new(10);
        table.mark = Mark { at: FleetPosition { life: 5, position: Position::from_number(9) }, digest: [1; 20] };
        table.turn(Position::from_number(3), Position::from_number(5));
        let hard = Position::from_number(8);
        table.watermarks.raise(Scope::from_bits(1), Watermark { hard, ..Watermark::default() });
        table
    }

    #[test]
    fn written_and_read() {
        let table = decode(&encode(&example()), 10).expect("readable");
        assert_eq!(table.mark, example().mark);
        assert!(table.is_void(Position::from_number(4)));
        let standing = |position| table.watermarks.standing(Position::from_number(position), &[Scope::from_bits(1)]);
        assert_eq!((standing(7), standing(8)), (Standing::Hard, Standing::Untouched));
    }

    #[test]
    fn anything_wrong_is_refused() {
        let good = encode(&example());
        for cut in 0..good.len() {
            assert!(decode(&good[..cut], 10).is_none(), "cut at {cut}");
        }
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped, 10).is_none(), "bit {bit}");
        }
    }
}
