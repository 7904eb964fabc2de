//! A fill that may be answered by what is stored for a similar call, and what is learned of one that was not.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;
use http::HeaderValue;

use super::{Matcher, Vector};
use crate::{
    cache::{
        Cache,
        call::Outgoing,
        exchange::Exchange,
        fetch::Fetch,
        fill::{Settled, Stored},
        llm::{self, Asking},
        lookup::Found,
        outcome::{Kind, Tier},
    },
    llm::{
        question::Representation,
        semantic::{
            Mode,
            sought::{self, Sought},
        },
    },
    object::{entry::Entry, key::Key},
};

/// What is known of a fill that goes to the provider, for when its answer is here.
pub(in crate::cache) struct Matching {
    matcher: Arc<Matcher>,
    frame: Key,
    vector: Vector,
    /// The stored answer to compare it with.
    compared: Option<Arc<Entry>>,
}

/// A stored answer to a similar call.
struct Similar {
    entry: Arc<Entry>,
    similarity: f32,
}

impl Asking {
    /// What looks for calls that are similar to this one, if any are to be looked for.
    pub(in crate::cache) fn matcher(&self) -> Option<&Arc<Matcher>> {
        let wanted = !self.question.controls.exact && sought::is_comparable(self.question.endpoint);
        self.models.matcher.as_ref().filter(|matcher| wanted && matcher.is_on())
    }

    /// Whether the answer to a similar call may be its answer.
    pub(in crate::cache) fn takes_similar(&self) -> bool {
        self.matcher().is_some_and(|matcher| matcher.config.mode == Mode::On)
    }
}

impl<O: Outgoing> Fetch<O> {
    /// Looks for the stored answer to a similar call. `true`: it answers, and the fill is at its end.
    pub(in crate::cache) async fn answered_by_similar(&mut self) -> bool {
        let exchange = Arc::clone(&self.exchange);
        let Some((asking, matcher)) = exchange.model.as_ref().and_then(|model| Some((model, model.matcher()?))) else {
            return false;
        };
        // What has an answer of its own that is only stale is to have that renewed.
        if self.start.candidate.is_some() {
            return false;
        }
        let body = exchange.body.as_deref().unwrap_or_default();
        let sought = match asking.models.settings.sought(&asking.question, body) {
            Ok(sought) => sought,
            Err(unsought) => {
                matcher.count(unsought.as_str());
                return false;
            }
        };
        let Some(frame) = exchange.frame(asking, &sought) else { return false };
        let Ok(vector) = matcher.vector(exchange.cache.origins(), &sought.text).await else {
            matcher.count("no-vector");
            return false;
        };
        let similar = exchange.similar(matcher, &frame, &vector).await;
        self.decide_on(
            similar,
            asking,
            matcher,
            Matching { matcher: Arc::clone(matcher), frame, vector, compared: None },
        )
    }

    fn decide_on(
        &mut self,
        similar: Option<Similar>,
        asking: &Asking,
        matcher: &Matcher,
        mut matching: Matching,
    ) -> bool {
        let Some(Similar { entry, similarity }) = similar else {
            matcher.count("miss");
            self.matching = Some(Box::new(matching));
            return false;
        };
        let shadow = matcher.config.mode == Mode::Shadow;
        // A lookup that only measures has both answers at hand each time.
        let drawn = f64::from(llm::chance()) / 2_f64.powi(32) < matcher.config.verify_rate;
        let sampled = shadow || drawn || !asking.takes_similar();
        if shadow || !sampled {
            matcher.hits.fetch_add(1, Relaxed);
        }
        let word = match (shadow, sampled) {
            (true, _) => "shadow",
            (false, true) => "verify",
            (false, false) => "hit",
        };
        matcher.count(word);
        let told = if word == "hit" { format!("{similarity:.3}") } else { format!("{similarity:.3}; {word}") };
        if let Ok(value) = HeaderValue::from_str(&told) {
            self.fill.tell_similar(value);
        }
        if sampled {
            matching.compared = Some(entry);
            self.matching = Some(Box::new(matching));
            return false;
        }
        self.permit = None;
        self.exchange.cache.metrics().fill_ended("semantic");
        let kind = Kind::Hit(Tier::of(&entry));
        let (leader, others) = (Arc::clone(&entry), Some(entry));
        self.fill.settle(Settled::Stored(Stored { leader, others, kind, status: None }));
        true
    }

    /// The provider's answer is stored: similar calls may have it from now on. Where a stored one would have been given in
    /// its place, both are compared, in a task that nobody waits for.
    pub(in crate::cache) fn learn(&mut self, body: &Bytes) {
        let Some(matching) = self.matching.take() else { return };
        let Matching { matcher, frame, vector, compared } = *matching;
        if !matcher.is_on() {
            return;
        }
        matcher.index.add(frame, self.exchange.key, &vector);
        matcher.note_vectors();
        let representation = self.exchange.model.as_ref().map(|model| model.question.representation);
        if let Some(stored) = compared {
            let (origins, new) = (self.exchange.cache.origins().clone(), body.clone());
            let stream = representation == Some(Representation::Sse);
            tokio::spawn(async move { matcher.compare(&origins, &stored.body(), &new, stream).await });
        }
    }
}

impl<O: Outgoing> Exchange<O> {
    /// The key of everything of a call but the text that may differ.
    fn frame(&self, asking: &Asking, sought: &Sought) -> Option<Key> {
        let mut question = asking.question.clone();
        let content = question.parts.iter_mut().find(|(name, _)| *name == "content")?;
        *content = ("frame", sought.frame.to_vec());
        let path = asking.models.path(&self.target.path);
        let place = (&*self.route, &self.method, &self.headers, self.target.query.as_deref());
        Some(self.cache.model_key(&asking.models, place, path, &question, None))
    }

    /// The nearest whose answer may be used for this request: it is looked up as if it had been asked for.
    async fn similar(&self, matcher: &Matcher, frame: &Key, vector: &[f32]) -> Option<Similar> {
        #[expect(clippy::cast_possible_truncation, reason = "a number below 1")]
        let near = matcher.index.nearest(frame, vector, matcher.config.threshold as f32);
        for near in near {
            let found =
                self.cache.part_of_answer(&self.route, &self.target, &self.headers, &near.key, &self.directives);
            if let Some(entry) = found.await {
                return Some(Similar { entry, similarity: near.similarity.min(1.0) });
            }
            if !self.cache.is_there(self, &near.key) {
                matcher.index.remove(&near.key);
                matcher.note_vectors();
            }
        }
        None
    }
}

impl Cache {
    /// Whether anything is stored under a key, whatever this request may have of it.
    fn is_there<O>(&self, exchange: &Exchange<O>, key: &Key) -> bool {
        let in_memory = !matches!(self.find(&exchange.route, key, &&exchange.headers, self.now()), Found::Nothing);
        in_memory || self.disk_for(&exchange.route).is_some_and(|disk| !disk.l3.lacks(key))
    }
}
