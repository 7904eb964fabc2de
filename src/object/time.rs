//! Points in time as the cache counts them: whole milliseconds since the Unix epoch.
//!
//! Nothing here reads a clock; whoever needs "now" is given it.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// Milliseconds since 1970-01-01T00:00:00Z. Arithmetic saturates: no peer can make it overflow.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch itself: earlier than anything a cache sees.
    pub const EPOCH: Self = Self(0);
    /// Later than anything a cache sees.
    pub const NEVER: Self = Self(u64::MAX);

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// `self - earlier`, zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// `self + duration`, at most [`Timestamp::NEVER`].
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// `self - duration`, at least [`Timestamp::EPOCH`].
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self::EPOCH.plus(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        // Bounded, so that the addition cannot overflow whatever the platform's range is.
        SystemTime::UNIX_EPOCH + Duration::from_millis(time.0.min(253_402_300_799_999))
    }
}

/// A [`Timestamp`] in six bytes, for what is kept by the million: exact until the year 10889, and all after it is
/// [`Timestamp::NEVER`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Compact([u8; 6]);

impl Compact {
    const NEVER: u64 = (1 << 48) - 1;

    /// From its bytes.
    pub(super) const fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub(super) const fn as_bytes(&self) -> &[u8; 6] {
        &self.0
    }
}

impl From<Timestamp> for Compact {
    fn from(time: Timestamp) -> Self {
        let [a, b, c, d, e, f, ..] = time.0.min(Self::NEVER).to_le_bytes();
        Self([a, b, c, d, e, f])
    }
}

impl From<Compact> for Timestamp {
    fn from(Compact([a, b, c, d, e, f]): Compact) -> Self {
        match u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) {
            Compact::NEVER => Self::NEVER,
            millis => Self(millis),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_and_back() {
        let back = |time: Timestamp| Timestamp::from(Compact::from(time));
        let last = Timestamp::from_millis(Compact::NEVER - 1);
        for time in [Timestamp::EPOCH, Timestamp::from_millis(1_764_583_200_123), last, Timestamp::NEVER] {
            assert_eq!(back(time), time);
        }
        // The last second that a field can name.
        assert!(Timestamp::from_secs(253_402_300_799) < last);
        assert_eq!(back(Timestamp::from_millis(Compact::NEVER + 5)), Timestamp::NEVER);
    }
}
