//! All limits that hold for a route, and what they say to a request together.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Limits,
    config::{Count, Per},
    fields::{self, LEFT, POLICY},
    gate::Gate,
    known::Tally,
    subject::Caller,
};

/// See the module.
pub struct RouteLimits {
    limits: Limits,
    /// Of every request; those that ask nobody come first.
    requests: Box<[Gate]>,
    /// Of what goes to the origin; those that ask nobody come first.
    origin: Box<[Gate]>,
    /// What all of them are, where answers tell of it.
    policy: Option<HeaderValue>,
    by_address: bool,
    /// Whether there is something to [`RouteLimits::begin`] with.
    begins: bool,
}

/// What a request that was admitted is told of what is left.
#[derive(Debug, Default, Clone)]
pub struct Passed {
    list: Vec<u8>,
}

/// Why a request was not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The limit that is used up.
    pub limit: Arc<str>,
    /// How long to wait.
    pub wait: Duration,
    list: Vec<u8>,
    policy: Option<HeaderValue>,
}

/// What one request is counted under when it goes to the origin, and what it was told then.
pub struct ToOrigin {
    limits: Arc<RouteLimits>,
    subjects: Box<[Option<u128>]>,
    passed: Mutex<Passed>,
}

/// What was taken of limits by address, before it was known whom a request is of.
pub struct Begun(Walk);

/// A way past some gates: which have been passed, as bits, and what they said.
#[derive(Default)]
struct Walk {
    taken: u64,
    over: u64,
    passed: Passed,
}

impl RouteLimits {
    pub(super) fn new(limits: Limits, gates: Vec<Gate>, told: bool) -> Self {
        let mut policy = Vec::new();
        for gate in gates.iter().filter(|gate| told && gate.enforces()) {
            fields::write_policy(&gate.limit.name, &gate.limit.rate, &mut policy);
        }
        let by_address = gates.iter().any(|gate| {
            let config = &gate.limit.config;
            config.per == Per::Address || !config.exempt.is_empty()
        });
        let (mut requests, mut origin): (Vec<_>, Vec<_>) =
            gates.into_iter().partition(|gate| gate.limit.config.count == Count::Requests);
        // What Redis has granted cannot be given back to it: it is asked when nobody else refuses.
        requests.sort_by_key(Gate::is_shared);
        origin.sort_by_key(Gate::is_shared);
        let begins = requests.iter().any(|gate| gate.limit.config.per == Per::Address);
        let policy = HeaderValue::from_bytes(&policy).ok().filter(|policy| !policy.is_empty());
        Self { limits, requests: requests.into(), origin: origin.into(), policy, by_address, begins }
    }

    /// Whether the client's address matters.
    pub fn by_address(&self) -> bool {
        self.by_address
    }

    /// Whether there are limits by address for every request.
    pub fn begins_with_address(&self) -> bool {
        self.begins
    }

    /// Whether fields of requests matter.
    pub fn by_field(&self) -> bool {
        let by_field = |gate: &Gate| matches!(gate.limit.config.per, Per::Field(_));
        self.requests.iter().chain(&self.origin).any(by_field)
    }

    /// Whether what goes to the origin is counted.
    pub fn counts_origin(&self) -> bool {
        !self.origin.is_empty()
    }

    /// Admits a request that needs no call to Redis for it; `None`: nothing was taken, and [`RouteLimits::admit`] is to
    /// say what becomes of it.
    pub fn at_once(&self, caller: &Caller<'_>, at: Instant) -> Option<Passed> {
        let inner = &*self.limits.inner;
        let now = inner.known.now(at);
        let mut walk = Walk::default();
        for (nth, gate) in self.requests.iter().enumerate() {
            let Some(subject) = gate.subject(caller, &inner.secret) else { continue };
            let tally = gate.at_once(inner, subject, now);
            if !tally.is_some_and(|tally| walk.passes(nth, gate, tally, self.tells())) {
                self.undo(&self.requests, &walk, now, |gate| gate.subject(caller, &inner.secret));
                return None;
            }
        }
        walk.count(&self.requests);
        let remembered = self.requests.iter().enumerate().filter(|(nth, gate)| gate.is_shared() && walk.asked(*nth));
        inner.metrics.remembered.inc_by(remembered.count() as u64);
        Some(walk.passed)
    }

    /// Takes what the client's address costs a request whose tenant is not known yet: who is nobody has paid it all the
    /// same, and one that is over is told so before anybody looks at what he brings.
    ///
    /// # Errors
    /// The first limit that is used up.
    pub async fn begin(&self, caller: &Caller<'_>) -> Result<Begun, Refused> {
        let secret = &self.limits.inner.secret;
        let by_address = |gate: &Gate| (gate.limit.config.per == Per::Address).then(|| gate.subject(caller, secret));
        let subjects: Vec<_> = self.requests.iter().map(|gate| by_address(gate).flatten()).collect();
        self.walk(&self.requests, &subjects, Walk::default()).await.map(Begun)
    }

    /// Admits a request, or does not; then it has cost nothing. What it has `begun` with is not taken again.
    ///
    /// # Errors
    /// The first limit that is used up.
    pub async fn admit(&self, caller: &Caller<'_>, begun: Option<Begun>) -> Result<Passed, Refused> {
        // Found before anything is waited for: what is asked is not to be kept.
        let secret = &self.limits.inner.secret;
        let subjects: Vec<_> = self.requests.iter().map(|gate| gate.subject(caller, secret)).collect();
        let begun = begun.map(|begun| begun.0).unwrap_or_default();
        let walk = self.walk(&self.requests, &subjects, begun).await?;
        walk.count(&self.requests);
        Ok(walk.passed)
    }

    /// Prepares a request for what it costs to go to the origin; `None`: nothing.
    pub fn to_origin(self: &Arc<Self>, caller: &Caller<'_>) -> Option<ToOrigin> {
        let secret = &self.limits.inner.secret;
        let subjects = || self.origin.iter().map(|gate| gate.subject(caller, secret)).collect();
        let made = || ToOrigin { limits: Arc::clone(self), subjects: subjects(), passed: Mutex::default() };
        self.counts_origin().then(made)
    }

    /// Writes what an answer tells of limits.
    pub fn tell(&self, passed: &Passed, headers: &mut HeaderMap) {
        tell(self.policy.as_ref(), &passed.list, headers);
    }

    /// The same as lines of a head.
    pub fn write(&self, passed: &Passed, head: &mut Vec<u8>) {
        let Some(policy) = &self.policy else { return };
        for (name, list) in [(POLICY, policy.as_bytes()), (LEFT, &passed.list)] {
            if !list.is_empty() {
                for piece in [name.as_str().as_bytes(), b": ", list, b"\r\n"] {
                    head.extend_from_slice(piece);
                }
            }
        }
    }

    fn tells(&self) -> bool {
        self.policy.is_some()
    }

    /// Goes on past the gates that were not asked so far.
    async fn walk(&self, gates: &[Gate], subjects: &[Option<u128>], mut walk: Walk) -> Result<Walk, Refused> {
        let inner = &*self.limits.inner;
        for (nth, (gate, subject)) in gates.iter().zip(subjects).enumerate() {
            let Some(subject) = subject.filter(|_| !walk.asked(nth)) else { continue };
            let tally = match gate.at_once(inner, subject, inner.known.now(Instant::now())) {
                Some(tally) => {
                    if gate.is_shared() {
                        inner.metrics.remembered.inc();
                    }
                    tally
                }
                None => gate.ask(inner, subject).await,
            };
            if !walk.passes(nth, gate, tally, self.tells()) {
                gate.counts.refused.inc();
                let mut index = subjects.iter();
                self.undo(gates, &walk, inner.known.now(Instant::now()), |_| index.next().copied().flatten());
                return Err(self.refused(gate, tally));
            }
        }
        Ok(walk)
    }

    fn refused(&self, gate: &Gate, tally: Tally) -> Refused {
        let wait = fields::seconds(tally.reset);
        let mut list = Vec::new();
        if self.tells() {
            // The same moment as that of Retry-After.
            fields::write_left(&gate.limit.name, 0, wait.saturating_mul(1_000_000_000), &mut list);
        }
        Refused {
            limit: Arc::clone(&gate.limit.name),
            wait: Duration::from_secs(wait),
            list,
            policy: self.policy.clone(),
        }
    }

    /// Gives back what was taken. `subject` is asked for each gate in its order.
    fn undo(&self, gates: &[Gate], walk: &Walk, now: u64, mut subject: impl FnMut(&Gate) -> Option<u128>) {
        if walk.taken == 0 {
            return;
        }
        for (nth, gate) in gates.iter().enumerate() {
            let subject = subject(gate);
            if let Some(subject) = subject.filter(|_| walk.taken & (1 << nth) != 0) {
                gate.give_back(&self.limits.inner, subject, now);
            }
        }
    }
}

impl Walk {
    /// Notes what the nth gate said; whether the way goes on.
    fn passes(&mut self, nth: usize, gate: &Gate, tally: Tally, tells: bool) -> bool {
        let bit = 1_u64 << nth;
        if tally.admitted {
            self.taken |= bit;
            if tells && gate.enforces() {
                fields::write_left(&gate.limit.name, tally.left, tally.reset, &mut self.passed.list);
            }
        } else {
            self.over |= bit;
        }
        tally.admitted || !gate.enforces()
    }

    /// Whether the nth gate was one of those on the way.
    fn asked(&self, nth: usize) -> bool {
        (self.taken | self.over) & (1 << nth) != 0
    }

    fn count(&self, gates: &[Gate]) {
        for (nth, gate) in gates.iter().enumerate() {
            if self.taken & (1 << nth) != 0 {
                gate.counts.admitted.inc();
            } else if self.over & (1 << nth) != 0 {
                gate.counts.would_refuse.inc();
            }
        }
    }
}

impl Passed {
    /// Adds what another of the same request is told.
    pub fn add(&mut self, other: &Self) {
        if !self.list.is_empty() && !other.list.is_empty() {
            self.list.extend_from_slice(b", ");
        }
        self.list.extend_from_slice(&other.list);
    }
}

impl ToOrigin {
    /// Admits the request to the origin, or does not; then it has cost nothing.
    ///
    /// # Errors
    /// The first limit that is used up.
    pub async fn admit(&self) -> Result<(), Refused> {
        let gates = &self.limits.origin;
        let walk = self.limits.walk(gates, &self.subjects, Walk::default()).await?;
        walk.count(gates);
        *self.passed.lock() = walk.passed;
        Ok(())
    }

    /// Whether it is to be charged for tokens.
    pub fn counts_tokens(&self) -> bool {
        self.limits.origin.iter().any(Gate::counts_tokens)
    }

    /// Charges it for tokens.
    pub fn charge(&self, tokens: u64) {
        let inner = &*self.limits.limits.inner;
        let now = inner.known.now(Instant::now());
        for (gate, subject) in self.limits.origin.iter().zip(&self.subjects) {
            if let Some(subject) = subject.filter(|_| gate.counts_tokens()) {
                gate.charge(inner, subject, now, tokens);
            }
        }
    }

    /// What it was told when it was admitted.
    pub fn passed(&self) -> Passed {
        self.passed.lock().clone()
    }
}

impl Refused {
    /// Writes what the answer tells of limits, `Retry-After` included.
    pub fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(http::header::RETRY_AFTER, self.wait.as_secs().into());
        tell(self.policy.as_ref(), &self.list, headers);
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the limit {:?} is used up; ask again in {} s", self.limit, self.wait.as_secs())
    }
}

impl std::error::Error for Refused {}

fn tell(policy: Option<&HeaderValue>, list: &[u8], headers: &mut HeaderMap) {
    let Some(policy) = policy else { return };
    headers.append(POLICY, policy.clone());
    if let Some(list) = HeaderValue::from_bytes(list).ok().filter(|list| !list.is_empty()) {
        headers.append(LEFT, list);
    }
}
