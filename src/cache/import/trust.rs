//! What the stamps of an archive mean here.

use crate::{
    archive::Header,
    cache::Cache,
    object::{
        entry::Entry,
        scope::{FleetPosition, Position},
    },
    purge::{Run, Standing},
};

/// Why nothing of an archive is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Keys are made of another secret: nobody would find its entries.
    #[error(
        "the archive is of a gateway with another secret (here: {ours}): keys of entries are made of it, so none would be \
         found. Give both the same secret_file, and export again"
    )]
    Secret {
        /// The fingerprint of this gateway's. What such an archive says of its own is not vouched for, so it is not told.
        ours: String,
    },
    /// Another release wrote it, which makes other keys or stores entries in another form.
    #[error(
        "the archive was written by {0}, which makes keys or stores entries in another way than this release: use that one"
    )]
    Release(String),
    /// Its purges are not known here.
    #[error(
        "the archive is of another gateway, or of this one before its data directory was put back: what was purged there \
         after the export is not known here. Purge it here as well after the import, and ask for the import with `foreign` \
         (--foreign)"
    )]
    Foreign,
}

/// By what purges an archive's entries are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Their stamps are of this log, up to there.
    Stamps(Position),
    /// What the log of all nodes has had since then; this log's position is what they are stamped with.
    Fleet(FleetPosition, Position),
    /// None that were before the import began, at that position.
    Foreign(Position),
}

impl Cache {
    /// Whether the archive is sealed with this gateway's secret, as it says.
    ///
    /// # Errors
    /// Where it is not.
    pub fn check_archive(&self, header: &Header) -> Result<[u8; 32], Refused> {
        let ours = crate::archive::fingerprint(self.secret());
        if header.secret != ours {
            return Err(Refused::Secret { ours });
        }
        Ok(crate::archive::seal_key(self.secret()))
    }

    /// By what its purges are judged; the header is sealed with this gateway's secret.
    pub(super) fn trust(&self, header: &Header, foreign: bool) -> Result<Trust, Refused> {
        if header.key_schema != crate::object::key::KEY_SCHEMA || header.entry_format != crate::object::codec::VERSION {
            return Err(Refused::Release(header.software.clone()));
        }
        let log = self.purge_log();
        // Before anything is looked at: what is purged from here on is above it.
        let begun = log.position();
        let reach = header.log.run.parse::<Run>().ok().and_then(|run| log.reach(run));
        if let Some(reach) = reach.filter(|reach| header.log.position <= reach.number()) {
            return Ok(Trust::Stamps(reach));
        }
        let fleet = header.fleet.filter(|at| at.life != 0);
        let at = fleet.map(|at| FleetPosition { life: at.life, position: Position::from_number(at.position) });
        if let Some(at) = at.filter(|at| self.fleet_standing(*at, &[]) != Standing::Hard) {
            return Ok(Trust::Fleet(at, begun));
        }
        if foreign { Ok(Trust::Foreign(begun)) } else { Err(Refused::Foreign) }
    }

    /// The stamp an entry is stored with; `None`: it was purged.
    pub(super) fn stamp_of(&self, trust: &Trust, entry: &Entry) -> Option<Position> {
        let untouched = |standing| standing == Standing::Untouched;
        match *trust {
            Trust::Stamps(reach) => {
                let standing = self.purge_log().verdict(entry.stamp, &entry.scopes());
                (entry.stamp <= reach && untouched(standing)).then_some(entry.stamp)
            }
            Trust::Fleet(at, begun) => untouched(self.fleet_standing(at, &entry.scopes())).then_some(begun),
            Trust::Foreign(begun) => Some(begun),
        }
    }
}
