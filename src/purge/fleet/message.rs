//! What a record of the fleet's log says, as bytes.
//!
//! ```text
//!  version 1 │ kind 1 │ flags 1 │ a purge, as the write-ahead file has it      kind 1
//!  version 1 │ kind 2 │ flags 1 │ last common position 8                       kind 2: a new epoch
//! ```
//!
//! A record of a later release may name anything: who cannot read it has to take it for a purge of everything.

use super::super::{
    record::Record,
    types::{Mode, Purge, PurgeId},
    wire::{Fields, Put},
};
use crate::object::{
    scope::{Position, Scope},
    time::Timestamp,
};

const VERSION: u8 = 1;
const PURGE: u8 = 1;
const TURN: u8 = 2;
const URGENT: u8 = 1;

/// A record of the log.
#[derive(Debug, Clone)]
pub(super) enum Message {
    /// What was purged, and whether nodes are to prove at once that they have applied it.
    Purge { purge: Purge, urgent: bool },
    /// A new epoch, after a fail-over that lost records: all positions above this one, up to here, mean nothing.
    Turn { common: Position },
}

/// A purge.
pub(super) fn purge(purge: &Purge, urgent: bool) -> Vec<u8> {
    let mut out = vec![VERSION, PURGE, if urgent { URGENT } else { 0 }];
    out.put(&Record::new(Position::START, purge.clone(), None).encode());
    out
}

/// A new epoch.
pub(super) fn turn(common: Position) -> Vec<u8> {
    let mut out = vec![VERSION, TURN, 0];
    out.put_u64(common.number());
    out
}

impl Message {
    /// Reads a record, `digest` of which tells it from others; what cannot be read purges everything.
    pub(super) fn read(payload: &[u8], digest: &[u8], now: Timestamp) -> Self {
        Self::decode(payload).unwrap_or_else(|| {
            let mut id = [0; 16];
            let length = digest.len().min(16);
            id[..length].copy_from_slice(&digest[..length]);
            let purge = Purge {
                id: PurgeId::from_bytes(id),
                at: now,
                mode: Mode::Hard,
                scopes: vec![Scope::everything()],
                hold: std::time::Duration::ZERO,
                note: "a record of the fleet's log that this release cannot read".into(),
            };
            Self::Purge { purge, urgent: true }
        })
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let (version, kind, flags) = (fields.u8()?, fields.u8()?, fields.u8()?);
        if version != VERSION {
            return None;
        }
        match kind {
            PURGE => {
                let Record { id, at, mode, hold, scopes, note, .. } = Record::decode(fields.0)?;
                let purge = Purge { id, at, mode, scopes, hold, note };
                Some(Self::Purge { purge, urgent: flags & URGENT != 0 })
            }
            TURN => {
                let common = Position::from_number(fields.u64()?);
                fields.0.is_empty().then_some(Self::Turn { common })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn written_and_read() {
        let one = Purge {
            id: PurgeId::named("a"),
            at: Timestamp::from_millis(7),
            mode: Mode::Soft,
            scopes: vec![Scope::from_bits(1), Scope::from_bits(2)],
            hold: Duration::from_secs(3),
            note: "who".into(),
        };
        let Message::Purge { purge: read, urgent: true } = Message::read(&purge(&one, true), b"", Timestamp::EPOCH)
        else {
            panic!("a purge");
        };
        assert_eq!(
            (read.id, read.at, read.mode, read.scopes, read.hold),
            (one.id, one.at, one.mode, one.scopes, one.hold)
        );
        let read = Message::read(&turn(Position::from_number(9)), b"", Timestamp::EPOCH);
        assert!(matches!(read, Message::Turn { common } if common.number() == 9));
    }

    proptest! {
        #[test]
        fn what_cannot_be_read_purges_everything(mut payload: Vec<u8>) {
            payload.insert(0, VERSION + 1);
            let Message::Purge { purge, .. } = Message::read(&payload, b"0123456789abcdefghij", Timestamp::EPOCH) else {
                panic!("no turn");
            };
            prop_assert_eq!((purge.mode, purge.scopes), (Mode::Hard, vec![Scope::everything()]));
        }

        #[test]
        fn garbage_does_no_harm(payload: Vec<u8>) {
            Message::read(&payload, b"", Timestamp::EPOCH);
        }
    }
}
