//! Whether a stored response may answer a request (RFC 9111 sections 4 and 4.2.4, RFC 5861).
//!
//! Reads no field of the stored response: numbers and flags decide.

use std::time::Duration;

use super::{
    directives::RequestDirectives,
    freshness::{Flags, Freshness},
    time::Timestamp,
};

/// What may be done with a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Served: it is fresh.
    Fresh,
    /// Served stale while it is refreshed (RFC 5861 section 3).
    StaleWhileRevalidate,
    /// Served stale because the request's `max-stale` allows it.
    Stale,
    /// To be validated first.
    Revalidate(Why),
}

/// Why a stored response is to be validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// It is stale.
    Expired,
    /// It says `no-cache`.
    NoCache,
    /// The request says `no-cache`.
    RequestNoCache,
    /// It is older than the request's `max-age`.
    RequestMaxAge,
    /// It is not fresh for as long as the request's `min-fresh`.
    RequestMinFresh,
    /// A purge declared it stale.
    SoftPurged,
}

impl Why {
    /// Its name in logs, metrics and explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NoCache => "no-cache",
            Self::RequestNoCache => "request-no-cache",
            Self::RequestMaxAge => "request-max-age",
            Self::RequestMinFresh => "request-min-fresh",
            Self::SoftPurged => "soft-purged",
        }
    }
}

/// Decides at `now`. `only-if-cached` is the caller's: where this says [`Reuse::Revalidate`], it is 504 then.
pub fn reuse(stored: &Freshness, now: Timestamp, request: &RequestDirectives, soft_purged: bool) -> Reuse {
    if let Some(why) = refused(stored, now, request) {
        return Reuse::Revalidate(why);
    }
    if soft_purged {
        return purged(stored, now);
    }
    if stored.is_fresh(now) {
        Reuse::Fresh
    } else if now < stored.swr_until {
        Reuse::StaleWhileRevalidate
    } else if tolerated(stored, now, request) {
        Reuse::Stale
    } else {
        Reuse::Revalidate(Why::Expired)
    }
}

/// Whether it may be served although the origin could not be asked or answered with an error (RFC 5861 section 4).
///
/// A fresh response is only asked about here if the request or a soft purge wanted it validated. What must not be
/// served stale is then not served either, because the purge made it stale.
pub fn on_error(stored: &Freshness, now: Timestamp, request: &RequestDirectives) -> bool {
    if stored.flags.has(Flags::NO_CACHE) || request.no_cache {
        return false;
    }
    if stored.flags.has(Flags::MUST_REVALIDATE) {
        // A window that is open all the same was opened by the origin.
        return stored.sie_until > stored.fresh_until && now < stored.sie_until;
    }
    let asked = request.stale_if_error.map_or(Duration::ZERO, Duration::from_secs);
    now < stored.sie_until.max(stored.fresh_until.plus(asked))
}

/// What either side insists on, however fresh it is.
fn refused(stored: &Freshness, now: Timestamp, request: &RequestDirectives) -> Option<Why> {
    if stored.flags.has(Flags::NO_CACHE) {
        return Some(Why::NoCache);
    }
    if request.no_cache {
        return Some(Why::RequestNoCache);
    }
    if request.max_age.is_some_and(|limit| exceeds(stored.age(now), limit)) && !is_immutable(stored, now) {
        return Some(Why::RequestMaxAge);
    }
    let least = Duration::from_secs(request.min_fresh?);
    (stored.ttl(now) < least).then_some(Why::RequestMinFresh)
}

/// `max-age=0` asks for validation, also within the millisecond.
fn exceeds(age: Duration, limit: u64) -> bool {
    limit == 0 || age > Duration::from_secs(limit)
}

/// Validating what never changes is spared while it is fresh (RFC 8246 section 2): reloads send `max-age=0`.
fn is_immutable(stored: &Freshness, now: Timestamp) -> bool {
    stored.flags.has(Flags::IMMUTABLE) && stored.is_fresh(now)
}

/// A soft purge makes it stale now, so of its windows only the one for a refresh applies, if there is one.
fn purged(stored: &Freshness, now: Timestamp) -> Reuse {
    if stored.swr_until > stored.fresh_until && now < stored.swr_until {
        Reuse::StaleWhileRevalidate
    } else {
        Reuse::Revalidate(Why::SoftPurged)
    }
}

/// Whether `max-stale` covers it and nothing forbids that.
fn tolerated(stored: &Freshness, now: Timestamp, request: &RequestDirectives) -> bool {
    let staleness = now.since(stored.fresh_until);
    let covered = request.max_stale.is_some_and(|limit| staleness <= Duration::from_secs(limit));
    covered && !stored.flags.has(Flags::MUST_REVALIDATE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BORN: Timestamp = Timestamp::from_secs(1_000_000);

    /// Fresh for 60 s, usable during a refresh for 30 s and on errors for 600 s more.
    const STORED: Freshness = Freshness {
        born: BORN,
        fresh_until: Timestamp::from_secs(1_000_060),
        swr_until: Timestamp::from_secs(1_000_090),
        sie_until: Timestamp::from_secs(1_000_660),
        keep_until: Timestamp::from_secs(1_001_000),
        flags: Flags::from_bits(0),
    };

    /// The same without windows.
    const PLAIN: Freshness = Freshness { swr_until: STORED.fresh_until, sie_until: STORED.fresh_until, ..STORED };

    const NONE: RequestDirectives = RequestDirectives {
        no_cache: false,
        no_store: false,
        only_if_cached: false,
        no_transform: false,
        max_age: None,
        min_fresh: None,
        max_stale: None,
        stale_if_error: None,
    };

    fn flagged(stored: Freshness, flags: Flags) -> Freshness {
        Freshness { flags, ..stored }
    }

    fn at(age: u64) -> Timestamp {
        BORN.plus(Duration::from_secs(age))
    }

    fn decide(stored: Freshness, age: u64, request: RequestDirectives) -> Reuse {
        reuse(&stored, at(age), &request, false)
    }

    #[test]
    fn without_wishes() {
        assert_eq!(decide(STORED, 59, NONE), Reuse::Fresh);
        assert_eq!(decide(STORED, 60, NONE), Reuse::StaleWhileRevalidate);
        assert_eq!(decide(STORED, 89, NONE), Reuse::StaleWhileRevalidate);
        assert_eq!(decide(STORED, 90, NONE), Reuse::Revalidate(Why::Expired));
        assert_eq!(decide(PLAIN, 60, NONE), Reuse::Revalidate(Why::Expired));
        assert_eq!(decide(flagged(STORED, Flags::NO_CACHE), 1, NONE), Reuse::Revalidate(Why::NoCache));
        assert_eq!(decide(flagged(PLAIN, Flags::MUST_REVALIDATE), 59, NONE), Reuse::Fresh);
    }

    #[test]
    fn wishes() {
        let max_age = |limit| RequestDirectives { max_age: Some(limit), ..NONE };
        let min_fresh = |limit| RequestDirectives { min_fresh: Some(limit), ..NONE };
        let max_stale = |limit| RequestDirectives { max_stale: Some(limit), ..NONE };
        let no_cache = RequestDirectives { no_cache: true, ..NONE };
        for (stored, age, request, expected) in [
            (STORED, 1, no_cache, Reuse::Revalidate(Why::RequestNoCache)),
            (STORED, 0, max_age(0), Reuse::Revalidate(Why::RequestMaxAge)),
            (STORED, 10, max_age(10), Reuse::Fresh),
            (STORED, 11, max_age(10), Reuse::Revalidate(Why::RequestMaxAge)),
            (STORED, 61, max_age(10), Reuse::Revalidate(Why::RequestMaxAge)),
            (STORED, 50, min_fresh(10), Reuse::Fresh),
            (STORED, 51, min_fresh(10), Reuse::Revalidate(Why::RequestMinFresh)),
            (STORED, 61, min_fresh(1), Reuse::Revalidate(Why::RequestMinFresh)),
            (PLAIN, 160, max_stale(100), Reuse::Stale),
            (PLAIN, 161, max_stale(100), Reuse::Revalidate(Why::Expired)),
            (PLAIN, 999_999, max_stale(u64::MAX), Reuse::Stale),
            (flagged(PLAIN, Flags::MUST_REVALIDATE), 61, max_stale(u64::MAX), Reuse::Revalidate(Why::Expired)),
            (flagged(PLAIN, Flags::NO_CACHE), 61, max_stale(u64::MAX), Reuse::Revalidate(Why::NoCache)),
            (flagged(STORED, Flags::IMMUTABLE), 20, max_age(0), Reuse::Fresh),
            (flagged(STORED, Flags::IMMUTABLE), 20, no_cache, Reuse::Revalidate(Why::RequestNoCache)),
            (flagged(STORED, Flags::IMMUTABLE), 60, max_age(0), Reuse::Revalidate(Why::RequestMaxAge)),
        ] {
            assert_eq!(decide(stored, age, request), expected, "{stored:?} {age} {request:?}");
        }
    }

    #[test]
    fn a_soft_purge_makes_stale() {
        assert_eq!(reuse(&STORED, at(1), &NONE, true), Reuse::StaleWhileRevalidate);
        assert_eq!(reuse(&STORED, at(90), &NONE, true), Reuse::Revalidate(Why::SoftPurged));
        assert_eq!(reuse(&PLAIN, at(1), &NONE, true), Reuse::Revalidate(Why::SoftPurged));
        let request = RequestDirectives { max_stale: Some(u64::MAX), ..NONE };
        assert_eq!(reuse(&PLAIN, at(1), &request, true), Reuse::Revalidate(Why::SoftPurged));
    }

    #[test]
    fn errors() {
        let asked = |seconds| RequestDirectives { stale_if_error: Some(seconds), ..NONE };
        let no_cache = RequestDirectives { no_cache: true, ..NONE };
        for (stored, age, request, expected) in [
            (STORED, 1, NONE, true),
            (STORED, 659, NONE, true),
            (STORED, 660, NONE, false),
            (STORED, 100, no_cache, false),
            (PLAIN, 59, NONE, true),
            (PLAIN, 60, NONE, false),
            (PLAIN, 159, asked(100), true),
            (PLAIN, 160, asked(100), false),
            (STORED, 200, asked(1), true),
            (flagged(PLAIN, Flags::MUST_REVALIDATE), 1, NONE, false),
            (flagged(PLAIN, Flags::MUST_REVALIDATE), 61, asked(100), false),
            (flagged(STORED, Flags::MUST_REVALIDATE), 61, NONE, true),
            (flagged(STORED, Flags::NO_CACHE), 1, NONE, false),
        ] {
            assert_eq!(on_error(&stored, at(age), &request), expected, "{stored:?} {age} {request:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(times: [u64; 6], bits: u16, limits: [Option<u64>; 4], purged: bool) {
            let [born, fresh_until, swr_until, sie_until, keep_until, now] = times.map(Timestamp::from_millis);
            let flags = Flags::from_bits(bits);
            let stored = Freshness { born, fresh_until, swr_until, sie_until, keep_until, flags };
            let [max_age, min_fresh, max_stale, stale_if_error] = limits;
            let request = RequestDirectives { max_age, min_fresh, max_stale, stale_if_error, ..NONE };
            reuse(&stored, now, &request, purged);
            on_error(&stored, now, &request);
        }

        #[test]
        fn fresh_is_served_and_nothing_past_its_windows(age in 0..2_000_u64) {
            let reuse = decide(STORED, age, NONE);
            prop_assert_eq!(reuse == Reuse::Fresh, age < 60);
            prop_assert_eq!(matches!(reuse, Reuse::Revalidate(_)), age >= 90);
        }
    }
}
