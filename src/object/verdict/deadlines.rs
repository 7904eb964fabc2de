//! From a lifetime to the deadlines of a stored response.
//!
//! Stale windows: `must-revalidate`, `proxy-revalidate` and `no-cache` close all of them. `s-maxage` forbids stale use
//! as `proxy-revalidate` does (RFC 9111 section 5.2.2.10), but a `stale-while-revalidate` or `stale-if-error` written
//! beside it is an extension that modifies it (section 5.2.3), else the origin would have written it in vain: such
//! windows stay open, and only the route's own are closed.

use std::time::Duration;

use super::Rules;
use crate::object::{
    directives::ResponseDirectives,
    freshness::{Flags, Freshness},
    time::Timestamp,
};

/// Where a lifetime comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// The origin says so.
    Explicit(Duration),
    /// Guessed from the modification date.
    Heuristic(Duration),
    /// The route says so.
    Configured(Duration),
    /// There is none: usable after validation only.
    None,
}

impl Basis {
    fn lifetime(self) -> Duration {
        match self {
            Self::Explicit(lifetime) | Self::Heuristic(lifetime) | Self::Configured(lifetime) => lifetime,
            Self::None => Duration::ZERO,
        }
    }
}

/// What the origin says about stale use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Windows {
    while_revalidate: Option<Duration>,
    if_error: Option<Duration>,
    /// The route's own windows stay closed.
    guarded: bool,
}

impl Windows {
    pub(super) fn of(directives: &ResponseDirectives) -> Self {
        let open = !directives.forbids_stale();
        let given = |seconds: Option<u64>| seconds.filter(|_| open).map(Duration::from_secs);
        Self {
            while_revalidate: given(directives.stale_while_revalidate),
            if_error: given(directives.stale_if_error),
            guarded: !open || directives.s_maxage.is_some(),
        }
    }
}

/// What the deadlines follow from.
pub(super) struct Deadlines<'a> {
    pub(super) now: Timestamp,
    pub(super) age: Duration,
    pub(super) basis: Basis,
    pub(super) windows: Windows,
    pub(super) validator: bool,
    pub(super) jitter: f64,
    pub(super) rules: &'a Rules,
}

impl Deadlines<'_> {
    /// The deadlines. Jitter brings `fresh_until` forward, and no window with it.
    pub(super) fn freshness(&self, flags: Flags) -> Freshness {
        let fresh_until = self.now.plus(self.shortened());
        let fresh_until = if self.expiry() > self.now { fresh_until } else { self.expiry() };
        let window = |length: Duration| if length.is_zero() { fresh_until } else { self.expiry().plus(length) };
        let swr_until = window(self.while_revalidate());
        let sie_until = window(self.if_error());
        let last_use = fresh_until.max(swr_until).max(sie_until);
        let keep_until = if self.validator { last_use.max(self.now).plus(self.rules.keep) } else { last_use };
        Freshness { born: self.now.minus(self.age), fresh_until, swr_until, sie_until, keep_until, flags }
    }

    /// Whether it is of any use from now on.
    pub(super) fn useful(&self) -> bool {
        self.validator || self.now < self.expiry().plus(self.if_error().max(self.while_revalidate()))
    }

    fn lifetime(&self) -> Duration {
        self.basis.lifetime().min(self.rules.ttl_max)
    }

    /// When it becomes stale. Not computed from the time of birth, which may lie before the epoch.
    fn expiry(&self) -> Timestamp {
        let age = if matches!(self.basis, Basis::Configured(_)) { Duration::ZERO } else { self.age };
        self.now.plus(self.lifetime().saturating_sub(age)).minus(age.saturating_sub(self.lifetime()))
    }

    /// The lifetime left, less the jitter.
    fn shortened(&self) -> Duration {
        let left = self.expiry().since(self.now);
        let jitter = if self.jitter.is_finite() { self.jitter.clamp(0.0, 1.0) } else { 0.0 };
        left.saturating_sub(Duration::try_from_secs_f64(left.as_secs_f64() * jitter).unwrap_or_default())
    }

    fn while_revalidate(&self) -> Duration {
        self.windows.while_revalidate.unwrap_or(self.default(self.rules.stale_while_revalidate))
    }

    fn if_error(&self) -> Duration {
        self.windows.if_error.unwrap_or(self.default(self.rules.stale_if_error))
    }

    /// The route's windows are for what was fresh once. A lifetime of zero asks for validation every time: what has none
    /// may be one client's own page, and windows would have every dynamic page stored.
    fn default(&self, window: Duration) -> Duration {
        if self.windows.guarded || self.lifetime().is_zero() { Duration::ZERO } else { window }
    }
}
