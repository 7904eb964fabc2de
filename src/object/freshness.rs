//! How long a stored response may be used, computed once when it is stored (RFC 9111 section 4.2).
//!
//! A hit compares a few numbers and parses no field.

use std::time::Duration;

use super::time::Timestamp;

/// Deadlines and rules of one stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// When the origin generated or last validated it: time of receipt minus corrected initial age (section 4.2.3).
    /// The age at any later time is the difference to this.
    pub born: Timestamp,
    /// Fresh before this.
    pub fresh_until: Timestamp,
    /// May be served stale before this while a refresh runs (RFC 5861 section 3).
    pub swr_until: Timestamp,
    /// May be served stale before this when the origin fails (RFC 5861 section 4).
    pub sie_until: Timestamp,
    /// Of no use from this on: stale windows over and no reason left to keep it for validation.
    pub keep_until: Timestamp,
    /// See [`Flags`].
    pub flags: Flags,
}

/// What the directives of a stored response said, as far as reuse needs to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// `no-cache`: never without validation, fresh or not.
    pub const NO_CACHE: Self = Self(1);
    /// `must-revalidate`, `proxy-revalidate` or `s-maxage`: never stale without validation.
    pub const MUST_REVALIDATE: Self = Self(1 << 1);
    /// The lifetime is a heuristic of section 4.2.2.
    pub const HEURISTIC: Self = Self(1 << 2);
    /// The lifetime comes from the route's configuration.
    pub const CONFIGURED: Self = Self(1 << 3);
    /// `immutable` (RFC 8246).
    pub const IMMUTABLE: Self = Self(1 << 4);
    /// Storable only by partition: never to be shared.
    pub const PARTITIONED: Self = Self(1 << 5);
    /// Its key holds more than its URL: an unsafe request to that cannot tell it.
    pub const SCATTERED: Self = Self(1 << 6);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As a number.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// From the number of [`Flags::bits`].
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

impl Freshness {
    /// Current age (section 4.2.3), exact to the millisecond.
    pub fn age(&self, now: Timestamp) -> Duration {
        now.since(self.born)
    }

    /// Lifetime left; zero when stale.
    pub fn ttl(&self, now: Timestamp) -> Duration {
        self.fresh_until.since(now)
    }

    /// Freshness lifetime (section 4.2.1).
    pub fn lifetime(&self) -> Duration {
        self.fresh_until.since(self.born)
    }

    /// Whether the origin itself gave the lifetime.
    pub fn is_explicit(&self) -> bool {
        !self.flags.has(Flags::HEURISTIC) && !self.flags.has(Flags::CONFIGURED)
    }

    /// Whether it is fresh.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.fresh_until
    }
}
