//! All issuers: which of them a token is of, and what of it is remembered.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use quick_cache::{Weighter, sync::Cache};

use super::{
    claims::Claims,
    config::{Algorithm, Config, Limits},
    fault::Fault,
    metrics::Metrics,
    source::{Failure, Fetch, Found, Source},
    token::Token,
};
use crate::telemetry::Registry;

/// A guess, good to an order of magnitude: what a remembered token takes.
const REMEMBERED_BYTES: u64 = 512;

/// The keys of an issuer cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("issuer {name:?}: keys {keys:?}: {reason}")]
pub struct Error {
    /// Its name.
    pub name: String,
    /// Its setting.
    pub keys: String,
    /// Why not.
    pub reason: String,
}

/// Issuers whose tokens are taken. Clones are the same, also when others take their place.
#[derive(Clone)]
pub struct Issuers(Arc<Inner>);

struct Inner {
    fetch: Arc<dyn Fetch>,
    metrics: Metrics,
    state: ArcSwap<State>,
}

/// Issuers as configured, and what was verified by them.
struct State {
    limits: Limits,
    issuers: Vec<Issuer>,
    remembered: Cache<[u8; 32], Remembered, Weigher>,
}

struct Issuer {
    config: Config,
    source: Arc<Source>,
}

/// A token that was verified.
#[derive(Clone)]
struct Remembered {
    claims: Arc<Claims>,
    /// Its place among the issuers.
    issuer: usize,
    /// The set of keys that verified it: with another, it has to be verified again.
    keys: u64,
}

#[derive(Clone)]
struct Weigher;

impl Weighter<[u8; 32], Remembered> for Weigher {
    fn weight(&self, _: &[u8; 32], one: &Remembered) -> u64 {
        let roles: usize = one.claims.roles.iter().map(|role| role.len() + size_of::<String>()).sum();
        REMEMBERED_BYTES + (one.claims.name.len() + roles) as u64
    }
}

/// Where nothing is fetched.
struct Nowhere;

impl Fetch for Nowhere {
    fn get(&self, _: &str, _: usize, _: Duration) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Err("nothing is fetched here".to_owned()) })
    }
}

/// Issuers that were read and can be used.
pub struct Read {
    /// `None`: they are as they were.
    state: Option<State>,
    /// What the files of those hold that stay.
    files: Vec<(Arc<Source>, Found)>,
}

impl Issuers {
    /// As configured, with all files read. Those behind URLs are asked from now on by `fetch`; nobody waits for them
    /// here. To be called within a runtime, which keeps the keys up to date.
    ///
    /// # Errors
    /// Where a file cannot be used.
    pub fn new(
        limits: &Limits,
        configs: &[Config],
        fetch: Arc<dyn Fetch>,
        registry: &mut Registry,
    ) -> Result<Self, Error> {
        let state = ArcSwap::from_pointee(State::new(limits, Vec::new()));
        let issuers = Self(Arc::new(Inner { fetch, metrics: Metrics::register(registry), state }));
        issuers.take(issuers.read(limits, configs)?);
        Ok(issuers)
    }

    /// None at all, for good: where tokens are static.
    pub fn none() -> Self {
        let limits = Limits::none();
        let state = ArcSwap::from_pointee(State::new(&limits, Vec::new()));
        Self(Arc::new(Inner { fetch: Arc::new(Nowhere), metrics: Metrics::default(), state }))
    }

    /// Makes ready what is configured, and changes nothing. What has its keys from where it had them before keeps them;
    /// files are read again.
    ///
    /// # Errors
    /// Where a file cannot be used.
    pub fn read(&self, limits: &Limits, configs: &[Config]) -> Result<Read, Error> {
        let now = self.0.state.load();
        let (mut issuers, mut files) = (Vec::with_capacity(configs.len()), Vec::new());
        for config in configs {
            let failed = |failure: Failure| Error {
                name: config.name.clone(),
                keys: config.keys.clone(),
                reason: failure.to_string(),
            };
            let mut earlier = now.issuers.iter().map(|issuer| &issuer.source);
            let earlier = earlier.find(|source| source.is_of_issuer(&config.name));
            let source = match earlier.filter(|source| source.is_of(config, limits)) {
                Some(source) => {
                    let found = source.read_anew().map_err(failed)?;
                    files.extend(found.map(|found| (Arc::clone(source), found)));
                    Arc::clone(source)
                }
                None => {
                    let earlier = earlier.map(|source| &**source);
                    let made = Source::new(config, limits, earlier, &self.0.fetch, &self.0.metrics);
                    Arc::new(made.map_err(failed)?)
                }
            };
            issuers.push(Issuer { config: config.clone(), source });
        }
        let is_same = now.limits == *limits && now.issuers.iter().map(|issuer| &issuer.config).eq(configs);
        Ok(Read { state: (!is_same).then(|| State::new(limits, issuers)), files })
    }

    /// Takes others in the place of these from now on. What was remembered is forgotten, unless they are the same. To
    /// be called within a runtime, as [`Issuers::new`].
    pub fn take(&self, read: Read) {
        read.files.into_iter().for_each(|(source, found)| source.take(found));
        let Some(state) = read.state else { return };
        state.issuers.iter().for_each(|issuer| issuer.source.begin());
        self.0.state.store(Arc::new(state));
    }

    /// [`Issuers::read`] and [`Issuers::take`] in one.
    ///
    /// # Errors
    /// Where a file cannot be used; nothing is changed then.
    pub fn replace(&self, limits: &Limits, configs: &[Config]) -> Result<(), Error> {
        self.take(self.read(limits, configs)?);
        Ok(())
    }

    /// Whether there are none, so that no token is right.
    pub fn is_empty(&self) -> bool {
        self.0.state.load().issuers.is_empty()
    }

    /// Whether there is one of that name.
    pub fn know(&self, name: &str) -> bool {
        self.0.state.load().issuers.iter().any(|issuer| issuer.config.name == name)
    }

    /// Whether tokens of any of them mean something on the admin plane.
    pub fn have_roles(&self) -> bool {
        self.0.state.load().issuers.iter().any(|issuer| !issuer.config.roles.is_empty())
    }

    /// What a token says that was verified before, with the keys its issuer still has, and is valid still. No signature
    /// is checked: for who may not wait. `None`: ask [`Issuers::verified`].
    pub fn remembered(&self, token: &[u8]) -> Option<Arc<Claims>> {
        let state = self.0.state.load();
        if state.issuers.is_empty() || token.len() > state.token_bytes_max() {
            return None;
        }
        let known = state.remembered.get(blake3::hash(token).as_bytes())?;
        let is_valid = state.issuers.get(known.issuer)?.source.held().number == known.keys;
        (is_valid && SystemTime::now() < known.claims.until).then_some(known.claims)
    }

    /// What a token says. Where it names a key that is not known, this waits until its issuer has been asked once more,
    /// which happens once for all who wait, and seldom.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn verified(&self, token: &[u8]) -> Result<Arc<Claims>, Fault> {
        if let Some(claims) = self.remembered(token) {
            return Ok(claims);
        }
        let state = self.0.state.load_full();
        let (issuer, result) = state.verified(token).await;
        let name = issuer.map_or("", |issuer| issuer.config.name.as_str());
        self.0.metrics.verified(name, result.as_ref().err().copied());
        result
    }
}

impl State {
    fn new(limits: &Limits, issuers: Vec<Issuer>) -> Self {
        let bytes = limits.remembered_bytes_max.as_u64();
        let items = usize::try_from(bytes / REMEMBERED_BYTES).unwrap_or(usize::MAX);
        let remembered = Cache::with_weighter(if issuers.is_empty() { 0 } else { items }, bytes, Weigher);
        Self { limits: limits.clone(), issuers, remembered }
    }

    fn token_bytes_max(&self) -> usize {
        usize::try_from(self.limits.token_bytes_max.as_u64()).unwrap_or(usize::MAX)
    }

    /// Also whose token it claims to be, where that is known.
    async fn verified(&self, bytes: &[u8]) -> (Option<&Issuer>, Result<Arc<Claims>, Fault>) {
        if bytes.len() > self.token_bytes_max() {
            return (None, Err(Fault::TooLong));
        }
        let token = match Token::parse(bytes) {
            Ok(token) => token,
            Err(fault) => return (None, Err(fault)),
        };
        let Some(named) = token.claims.get("iss") else { return (None, Err(Fault::Missing("iss"))) };
        let is_named = |issuer: &Issuer| named.as_str() == Some(&issuer.config.issuer);
        let Some(index) = self.issuers.iter().position(is_named) else { return (None, Err(Fault::UnknownIssuer)) };
        let issuer = &self.issuers[index];
        let result = issuer.verified(&token).await.map(|(claims, keys)| {
            let claims = Arc::new(claims);
            let known = Remembered { claims: Arc::clone(&claims), issuer: index, keys };
            self.remembered.insert(*blake3::hash(bytes).as_bytes(), known);
            claims
        });
        (Some(issuer), result)
    }
}

impl Issuer {
    /// What a token says, and the number of the keys that say that it is true.
    async fn verified(&self, token: &Token<'_>) -> Result<(Claims, u64), Fault> {
        let algorithm: Algorithm = token.head.alg.parse().map_err(|_| Fault::Algorithm)?;
        if !self.config.algorithms.contains(&algorithm) {
            return Err(Fault::Algorithm);
        }
        let keys = match self.signed(token, algorithm) {
            Err(Fault::UnknownKey | Fault::Unavailable) => {
                self.source.look_again().await;
                self.signed(token, algorithm)?
            }
            signed => signed?,
        };
        Ok((Claims::of(&self.config, &token.claims, SystemTime::now())?, keys))
    }

    /// Whether a key of those there are signed it; their number.
    fn signed(&self, token: &Token<'_>, algorithm: Algorithm) -> Result<u64, Fault> {
        let held = self.source.held();
        let keys = held.keys.as_ref().ok_or(Fault::Unavailable)?;
        keys.verify(token, algorithm, self.source.tried_max()).map(|()| held.number)
    }
}

impl std::fmt::Debug for Issuers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.state.load().issuers.iter().map(|issuer| &issuer.config.name)).finish()
    }
}

#[cfg(test)]
mod tests;
