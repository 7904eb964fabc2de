//! What the times of an archive mean here: whoever wrote it may have another clock.

use std::time::Duration;

use crate::{
    archive::Header,
    object::{entry::Unpacked, freshness::Flags, time::Timestamp, vary::Variant},
};

/// How far the clock is ahead, at least, that an archive was written by: what the time on its way hides of that, and a clock
/// that is behind, cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ahead(Duration);

impl Ahead {
    /// Of an archive that begins with `header` and comes in at `now`: it cannot have been written later.
    pub(super) fn of(header: &Header, now: Timestamp) -> Self {
        Self(Timestamp::from_millis(header.created_ms).since(now))
    }

    /// A time of the archive by this clock.
    pub(super) fn here(self, time: Timestamp) -> Timestamp {
        time.minus(self.0)
    }

    /// The entry with its times by this clock. Nothing is to be newer than what is stored here from `now` on.
    pub(super) fn entry(self, mut entry: Unpacked, now: Timestamp) -> Unpacked {
        let times = &mut entry.freshness;
        times.born = self.here(times.born).min(now);
        for until in [&mut times.fresh_until, &mut times.swr_until, &mut times.sie_until, &mut times.keep_until] {
            *until = self.here(*until);
        }
        entry.stored = self.here(entry.stored).min(now);
        entry
    }

    /// As [`Ahead::entry`], for a place among variants.
    pub(super) fn place(self, place: Variant, now: Timestamp) -> Variant {
        let stored = self.here(place.stored()).min(now);
        place.stored_at(stored)
    }
}

/// The entry as one that the origin is asked about before each use: stale, in no window that it came with, and in none
/// that a request opens.
pub(super) fn as_stale(mut entry: Unpacked, now: Timestamp) -> Unpacked {
    let freshness = &mut entry.freshness;
    for until in [&mut freshness.fresh_until, &mut freshness.swr_until, &mut freshness.sie_until] {
        *until = now.min(*until);
    }
    freshness.flags = freshness.flags.with(Flags::MUST_REVALIDATE);
    entry
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode, header::ACCEPT};

    use super::*;
    use crate::object::{head::Head, key::Key, vary::Comparing};

    #[test]
    fn a_place_is_set_back_as_its_entry_is() {
        let at = Timestamp::from_secs;
        let stored = |created: u64, stored: u64| {
            let header = Header { created_ms: at(created).as_millis(), ..Header::default() };
            let head = Head::of(StatusCode::OK, &HeaderMap::new(), |_| true);
            let by = Comparing { secret: &[0; 32], normalise: false };
            let place = Variant::new(&Key::from_bytes([1; 32]), &[ACCEPT], &HeaderMap::new(), &head, by, at(stored));
            Ahead::of(&header, at(1000)).place(place, at(1000)).stored()
        };
        assert_eq!(stored(1000, 900), at(900), "written now");
        assert_eq!(stored(500, 400), at(400), "written a while ago");
        assert_eq!(stored(4600, 4500), at(900), "an hour ahead");
        assert_eq!(stored(900, 1100), at(1000), "of the future all the same");
    }
}
