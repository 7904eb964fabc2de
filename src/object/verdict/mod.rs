//! Whether a response is stored, and until when it is of which use (RFC 9111 sections 3 and 4.2).
//!
//! Lifetime, first that applies: a targeted field's, `s-maxage`, `max-age`, `Expires` minus `Date`, the route's for
//! the status, a tenth of `Date` minus `Last-Modified` (section 4.2.2), the route's default. What the origin gives
//! counts from when it generated the response, so its age is taken off; what the route gives counts from receipt.
//!
//! The base verdict comes from `http-cache-semantics`, behind `base`; both it and the rules here must agree to store.

use std::{collections::BTreeMap, time::Duration};

use http::{
    HeaderMap, Method, StatusCode,
    header::{DATE, ETAG, EXPIRES, LAST_MODIFIED},
};

use self::{
    base::Question,
    deadlines::{Basis, Deadlines, Windows},
};
use super::{
    age, date,
    directives::{Effective, ResponseDirectives, Source},
    freshness::{Flags, Freshness},
    status::{heuristically_cacheable, tied_to_request, understood},
    time::Timestamp,
};

mod base;
mod deadlines;
mod reason;
#[cfg(test)]
mod tests;

pub use self::reason::Reason;

/// Whose word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleMode {
    /// The origin's, as RFC 9111 has it.
    Standard,
    /// The route's: cacheable statuses are stored for its lifetimes whatever the directives say. Responses to requests
    /// with `Authorization` still need leave to be shared.
    Force,
}

/// What a route lays down.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// See [`RuleMode`].
    pub mode: RuleMode,
    /// Lifetime where nothing else gives one; zero: none.
    pub default_ttl: Duration,
    /// Upper bound of every lifetime.
    pub ttl_max: Duration,
    /// Heuristic lifetime as a share of `Date` minus `Last-Modified`; zero turns heuristics off.
    pub heuristic_fraction: f64,
    /// Upper bound of a heuristic lifetime.
    pub heuristic_max: Duration,
    /// Lifetime by status, `404` or `5xx`, where there is no explicit freshness.
    pub status_ttl: BTreeMap<String, Duration>,
    /// Served stale during a refresh for so long, where the origin does not say and allows it.
    pub stale_while_revalidate: Duration,
    /// Served stale on errors for so long, where the origin does not say and allows it.
    pub stale_if_error: Duration,
    /// Kept for validation for so long beyond every other use.
    pub keep: Duration,
}

impl Rules {
    /// The lifetime for exactly this status.
    fn status_lifetime(&self, status: StatusCode) -> Option<Duration> {
        self.status_ttl.get(status.as_str()).copied()
    }

    /// The lifetime for this status or its class.
    fn class_lifetime(&self, status: StatusCode) -> Option<Duration> {
        let class = ["", "1xx", "2xx", "3xx", "4xx", "5xx"].get(usize::from(status.as_u16() / 100));
        self.status_lifetime(status).or_else(|| self.status_ttl.get(*class?).copied())
    }

    fn default_lifetime(&self) -> Option<Duration> {
        (!self.default_ttl.is_zero()).then_some(self.default_ttl)
    }
}

/// The exchange a response came in.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Of the request.
    pub method: &'a Method,
    /// The request said `no-store`, and the route obeys it.
    pub request_no_store: bool,
    /// The request carried `Authorization`.
    pub authorization: bool,
    /// Stored apart by whose request it was: `private` and `Authorization` are no obstacles.
    pub partitioned: bool,
    /// The origin was asked for a range: a part may be stored as such.
    pub range_requested: bool,
    /// When the request left.
    pub request_time: Timestamp,
    /// When the head of the response had arrived.
    pub response_time: Timestamp,
    /// Share of the time left that is taken off, 0 to 1.
    pub jitter: f64,
}

/// Whether a response is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Stored, fresh or at least of some use until these times.
    Store(Freshness),
    /// Not stored.
    Refuse(Reason),
}

/// Judges a final response by its head; `told` is what [`effective`](super::directives::effective) finds in it.
pub fn verdict(facts: &Facts<'_>, status: StatusCode, headers: &HeaderMap, told: &Effective, rules: &Rules) -> Verdict {
    let case = Case::new(facts, status, headers, told, rules);
    let outcome = case.precluded().map_or_else(
        || match rules.mode {
            RuleMode::Standard => case.standard(),
            RuleMode::Force => case.forced(),
        },
        Err,
    );
    outcome.map_or_else(Verdict::Refuse, Verdict::Store)
}

/// A response with everything that matters parsed.
struct Case<'a> {
    facts: &'a Facts<'a>,
    status: StatusCode,
    rules: &'a Rules,
    directives: &'a ResponseDirectives,
    /// The epoch if it makes no sense; `None` also beside a targeted field.
    expires: Option<Timestamp>,
    date: Option<Timestamp>,
    last_modified: Option<Timestamp>,
    /// It could be validated later.
    validator: bool,
    age: Duration,
}

impl<'a> Case<'a> {
    fn new(
        facts: &'a Facts<'a>,
        status: StatusCode,
        headers: &HeaderMap,
        told: &'a Effective,
        rules: &'a Rules,
    ) -> Self {
        let now = facts.response_time;
        let (date, last_modified) = (date::of(headers, &DATE, now), date::of(headers, &LAST_MODIFIED, now));
        let etag = headers.get(ETAG).is_some_and(|etag| !etag.is_empty());
        let counts = told.source == Source::CacheControl && headers.contains_key(EXPIRES);
        Self {
            facts,
            status,
            rules,
            directives: &told.directives,
            expires: counts.then(|| date::of(headers, &EXPIRES, now).unwrap_or(Timestamp::EPOCH)),
            date,
            last_modified,
            // A conditional POST asks something else.
            validator: (etag || last_modified.is_some()) && *facts.method != Method::POST,
            age: age::corrected_initial(headers, date, facts.request_time, now),
        }
    }

    /// What no lifetime and no mode can make up for.
    fn precluded(&self) -> Option<Reason> {
        let facts = self.facts;
        let shared = facts.partitioned || !facts.authorization || self.directives.shares_authorized();
        let reasons = [
            (!is_storable_method(facts.method), Reason::Method),
            (tied_to_request(self.status) && self.rules.status_lifetime(self.status).is_none(), Reason::Status),
            (self.status.is_informational() || self.status == StatusCode::NOT_MODIFIED, Reason::Status),
            (self.status == StatusCode::PARTIAL_CONTENT && !facts.range_requested, Reason::UnrequestedPart),
            (facts.request_no_store, Reason::RequestNoStore),
            (!shared, Reason::Authorization),
        ];
        first(&reasons)
    }

    /// As RFC 9111 has it.
    fn standard(&self) -> Result<Freshness, Reason> {
        self.forbidden().map_or(Ok(()), Err)?;
        let basis = self.basis()?;
        if self.directives.no_cache && !self.validator {
            return Err(Reason::NoCache);
        }
        if basis == Basis::None && !self.validator {
            return Err(Reason::NoFreshness);
        }
        let deadlines = self.deadlines(basis, Windows::of(self.directives));
        if deadlines.useful() { Ok(deadlines.freshness(self.flags(basis))) } else { Err(Reason::Expired) }
    }

    /// As the route has it. A part is as cacheable as the whole.
    fn forced(&self) -> Result<Freshness, Reason> {
        let lifetime = self.rules.class_lifetime(self.status);
        let default = heuristically_cacheable(self.status).then_some(self.rules.default_ttl);
        let basis = Basis::Configured(lifetime.or(default).ok_or(Reason::Status)?);
        let deadlines = self.deadlines(basis, Windows::default());
        let mut flags = Flags::CONFIGURED;
        if self.by_partition_only() {
            flags = flags.with(Flags::PARTITIONED);
        }
        if deadlines.useful() { Ok(deadlines.freshness(flags)) } else { Err(Reason::NoFreshness) }
    }

    /// What the directives forbid.
    fn forbidden(&self) -> Option<Reason> {
        let told = self.directives;
        first(&[
            (told.malformed, Reason::Malformed),
            (told.must_understand && !understood(self.status), Reason::NotUnderstood),
            (told.no_store && !told.must_understand, Reason::NoStore),
            (told.private && !self.facts.partitioned, Reason::Private),
        ])
    }

    /// Where the lifetime comes from.
    fn basis(&self) -> Result<Basis, Reason> {
        let cacheable = heuristically_cacheable(self.status) || self.directives.public;
        let configured = self.configured(cacheable);
        let storable_status = self.explicit() || configured.is_some() || cacheable;
        let base = base::judge(&self.question(storable_status, configured.is_some()));
        if !base.storable {
            return Err(if storable_status { Reason::NoFreshness } else { Reason::Status });
        }
        let default = self.rules.default_lifetime().map(Basis::Configured);
        Ok(match configured {
            _ if self.explicit() => Basis::Explicit(base.lifetime),
            Some(lifetime) => Basis::Configured(lifetime),
            None if base.lifetime > Duration::ZERO => Basis::Heuristic(base.lifetime.min(self.rules.heuristic_max)),
            None => default.unwrap_or(Basis::None),
        })
    }

    fn explicit(&self) -> bool {
        self.directives.lifetime().is_some() || self.expires.is_some()
    }

    /// The route's lifetime where it precedes heuristics: for the status, and for POST, which knows none (RFC 9110
    /// section 9.3.3).
    fn configured(&self, cacheable: bool) -> Option<Duration> {
        let post = cacheable && *self.facts.method == Method::POST;
        let lifetime = || self.rules.class_lifetime(self.status);
        if self.explicit() { None } else { lifetime().or_else(|| self.rules.default_lifetime().filter(|_| post)) }
    }

    fn question(&self, storable_status: bool, configured: bool) -> Question {
        let told = self.directives;
        Question {
            method: self.facts.method.clone(),
            request_no_store: self.facts.request_no_store,
            authorization: self.facts.authorization && !self.facts.partitioned,
            storable_status,
            configured,
            no_store: told.no_store && !told.must_understand,
            private: told.private && !self.facts.partitioned,
            public: told.public,
            must_revalidate: told.must_revalidate,
            max_age: told.max_age,
            s_maxage: told.s_maxage,
            expires: self.expires,
            date: self.date,
            last_modified: self.last_modified,
            response_time: self.facts.response_time,
            heuristic_fraction: self.rules.heuristic_fraction,
        }
    }

    fn deadlines(&self, basis: Basis, windows: Windows) -> Deadlines<'_> {
        Deadlines {
            now: self.facts.response_time,
            age: self.age,
            basis,
            windows,
            validator: self.validator,
            jitter: self.facts.jitter,
            rules: self.rules,
        }
    }

    fn flags(&self, basis: Basis) -> Flags {
        let told = self.directives;
        let revalidate = told.must_revalidate || told.proxy_revalidate || told.s_maxage.is_some();
        [
            (told.no_cache, Flags::NO_CACHE),
            (revalidate, Flags::MUST_REVALIDATE),
            (matches!(basis, Basis::Heuristic(_)), Flags::HEURISTIC),
            (matches!(basis, Basis::Configured(_)), Flags::CONFIGURED),
            (told.immutable, Flags::IMMUTABLE),
            (self.by_partition_only(), Flags::PARTITIONED),
        ]
        .into_iter()
        .fold(Flags::default(), |flags, (set, flag)| if set { flags.with(flag) } else { flags })
    }

    fn by_partition_only(&self) -> bool {
        let authorized = self.facts.authorization && !self.directives.shares_authorized();
        self.facts.partitioned && (self.directives.private || authorized)
    }
}

/// GET, HEAD, QUERY (RFC 10008) and POST, which its caller answers from the cache only with the body in the key.
fn is_storable_method(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "QUERY" | "POST")
}

fn first(reasons: &[(bool, Reason)]) -> Option<Reason> {
    reasons.iter().find(|(applies, _)| *applies).map(|(_, reason)| *reason)
}
