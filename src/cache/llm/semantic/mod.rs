//! Answers to calls that say what an answered call said, in other words. Off by default.
//!
//! ```text
//!  the exact key misses ─▶ the one text that may differ ─▶ its vector ─▶ the nearest within the frame
//!     ─▶ still stored, fresh, not purged ─▶ the answer      (or only told: shadow; or compared: a sample)
//!     └─▶ the provider's answer is stored ─▶ the vector goes into the index
//! ```
//!
//! It is part of a fill: who asks the same at the same time waits for one vector, and what a fill must not do (start from
//! something purged, answer whom it does not fit) is decided where it is for all fills. The frame is a key like every other,
//! so that what keys keep apart is apart here.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use http::HeaderName;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde::Serialize;
use utoipa::ToSchema;

use self::{
    embedder::{Embedder, Loaded, NoVector, Vector},
    index::Index,
    verify::Verdicts,
};
use crate::{
    llm::semantic::{Config, Mode, facts::Facts, said},
    origin::{self, Origins, UpstreamError},
};

mod embedder;
mod index;
mod matching;
mod verify;

pub(in crate::cache) use self::matching::Matching;

/// How similar the call was whose answer was given, or would have been.
pub(in crate::cache) const SEMANTIC: HeaderName = HeaderName::from_static("x-larder-semantic");

/// Characters of answers in which a number or a "no" is what is said.
const SHORT_ANSWER: usize = 100;

/// Why similar calls of a route cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint's URL is none.
    #[error("llm.semantic.url is not a URL such as http://127.0.0.1:11434/v1/embeddings")]
    Url,
    /// It cannot be reached that way.
    #[error("llm.semantic.url: {0}")]
    Upstream(#[from] UpstreamError),
    /// The key cannot be sent.
    #[error("llm.semantic.api_key cannot be sent in a header field")]
    Key,
    /// The model cannot be read.
    #[error("llm.semantic.model_dir {directory:?}: {reason}")]
    Model {
        /// The directory.
        directory: String,
        /// Why.
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRoute {
    route: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Looked {
    route: Arc<str>,
    result: &'static str,
}

/// Those of all routes. Copies share everything.
#[derive(Debug, Clone, Default)]
pub struct Matchers {
    /// Those of routes that a reload has replaced are gone.
    all: Arc<Mutex<Vec<Weak<Matcher>>>>,
    loaded: Arc<Loaded>,
    metrics: Metrics,
}

#[derive(Debug, Clone, Default)]
struct Metrics {
    results: Family<Looked, Counter>,
    vectors: Family<OfRoute, Gauge>,
    off: Family<OfRoute, Gauge>,
}

/// What looks for similar calls of one route.
pub struct Matcher {
    route: Arc<str>,
    config: Config,
    embedder: Embedder,
    index: Index,
    verdicts: Mutex<Verdicts>,
    /// Whether too many answers were wrong.
    off: AtomicBool,
    hits: AtomicU64,
    compared: AtomicU64,
    differed: AtomicU64,
    metrics: Metrics,
}

/// Figures of answers to similar calls, of one route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SimilarStats {
    /// The route.
    pub route: String,
    /// "shadow" or "on", as configured.
    pub mode: &'static str,
    /// Whether it has ended because too many answers differed from the provider's; until the gateway is started again.
    pub switched_off: bool,
    /// Vectors in memory.
    pub vectors: u64,
    /// Answers given, or in shadow mode those that would have been.
    pub hits: u64,
    /// Answers compared with the provider's.
    pub compared: u64,
    /// Of these, those that said something else.
    pub differed: u64,
}

impl Matchers {
    /// None yet.
    pub fn register(registry: &mut Registry) -> Self {
        let matchers = Self::default();
        let Metrics { results, vectors, off } = &matchers.metrics;
        registry.register("llm_semantic", "calls for which a similar one was looked for, by result", results.clone());
        registry.register("llm_semantic_vectors", "vectors of answered calls in memory", vectors.clone());
        registry.register(
            "llm_semantic_off",
            "1: matching has ended, too many answers differed from the provider's",
            off.clone(),
        );
        matchers
    }

    /// One for a route, if it is to have one.
    ///
    /// # Errors
    /// Where nothing can make vectors as it is configured.
    pub fn of(&self, route: &str, config: &Config, origin: &origin::Config) -> Result<Option<Arc<Matcher>>, Error> {
        if config.mode == Mode::Off {
            return Ok(None);
        }
        let matcher = Arc::new(Matcher {
            route: route.into(),
            embedder: Embedder::new(config, origin, &self.loaded)?,
            index: Index::new(config.entries_max),
            verdicts: Mutex::new(Verdicts::new(config.verify_samples, config.error_rate_max)),
            off: AtomicBool::new(false),
            hits: AtomicU64::new(0),
            compared: AtomicU64::new(0),
            differed: AtomicU64::new(0),
            metrics: self.metrics.clone(),
            config: config.clone(),
        });
        matcher.gauge(&self.metrics.off).set(0);
        let mut all = self.all.lock();
        all.retain(|matcher| matcher.strong_count() > 0);
        all.push(Arc::downgrade(&matcher));
        drop(all);
        Ok(Some(matcher))
    }

    /// Figures at this moment.
    pub fn stats(&self) -> Vec<SimilarStats> {
        self.all.lock().iter().filter_map(Weak::upgrade).map(|matcher| matcher.stats()).collect()
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher").field("route", &self.route).field("config", &self.config).finish_non_exhaustive()
    }
}

impl Matcher {
    /// Whether similar calls are looked for at all.
    pub(super) fn is_on(&self) -> bool {
        !self.off.load(Relaxed)
    }

    fn count(&self, result: &'static str) {
        self.metrics.results.get_or_create(&Looked { route: Arc::clone(&self.route), result }).inc();
    }

    fn gauge(&self, family: &Family<OfRoute, Gauge>) -> Gauge {
        family.get_or_create_owned(&OfRoute { route: Arc::clone(&self.route) })
    }

    fn note_vectors(&self) {
        self.gauge(&self.metrics.vectors).set(i64::try_from(self.index.len()).unwrap_or(i64::MAX));
    }

    async fn vector(&self, origins: &Origins, text: &str) -> Result<Vector, NoVector> {
        self.embedder.vector(origins, text).await
    }

    /// Compares a stored answer with the provider's own.
    async fn compare(&self, origins: &Origins, stored: &[u8], new: &[u8], stream: bool) {
        let (Some(stored), Some(new)) = (said::said(stored, stream), said::said(new, stream)) else { return };
        let Ok(likeness) = self.likeness(origins, &stored, &new).await else { return };
        let differs = likeness < self.config.verify_threshold;
        self.compared.fetch_add(1, Relaxed);
        self.differed.fetch_add(u64::from(differs), Relaxed);
        self.count(if differs { "differed" } else { "agreed" });
        let too_bad = self.verdicts.lock().note(differs);
        if too_bad && self.config.mode == Mode::On && !self.off.swap(true, Relaxed) {
            self.gauge(&self.metrics.off).set(1);
            self.index.clear();
            self.note_vectors();
            tracing::warn!(
                route = %self.route,
                "answers to similar calls are switched off: too many differed from the provider's (llm.semantic.error_rate_max)"
            );
        }
    }

    /// How much two answers say the same. What is longer than the window is compared by its words.
    async fn likeness(&self, origins: &Origins, one: &str, other: &str) -> Result<f64, NoVector> {
        if one == other {
            return Ok(1.0);
        }
        let longest = one.chars().count().max(other.chars().count());
        if longest <= SHORT_ANSWER && !Facts::of(one).agrees(&Facts::of(other)) {
            return Ok(0.0);
        }
        if longest > self.config.window {
            return Ok(said::likeness_by_words(one, other));
        }
        let (one, other) = (self.vector(origins, one).await?, self.vector(origins, other).await?);
        Ok(index::cosine(&one, &other).into())
    }

    fn stats(&self) -> SimilarStats {
        SimilarStats {
            route: self.route.to_string(),
            mode: if self.config.mode == Mode::On { "on" } else { "shadow" },
            switched_off: !self.is_on(),
            vectors: self.index.len() as u64,
            hits: self.hits.load(Relaxed),
            compared: self.compared.load(Relaxed),
            differed: self.differed.load(Relaxed),
        }
    }
}
