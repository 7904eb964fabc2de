//! Spans: what was done, from when to when, and as part of what.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use prometheus_client::metrics::counter::Counter;
use tokio::{sync::mpsc, time::Instant};

use super::{
    config::Config,
    context::{Parent, SpanId, TraceId},
};

/// Longest text of an attribute, in bytes.
const TEXT_MAX: usize = 1024;

/// Where spans go. Clones are the same.
#[derive(Debug, Clone)]
pub struct Tracer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sample: f64,
    queue: mpsc::Sender<Ended>,
    dropped: Counter,
}

/// What a span is to who made the request (the numbers are those of OTLP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Part of the work of another.
    Internal = 1,
    /// The answer to a request.
    Server = 2,
    /// A request of our own.
    Client = 3,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(mut text: String) -> Self {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        Self::Text(text.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// A span as it is exported.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Itself.
    pub own: Parent,
    /// The span it is part of.
    pub parent: Option<SpanId>,
    /// What was done.
    pub name: &'static str,
    /// See [`Kind`].
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// What else is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// A span of another trace, perhaps, that it has to do with.
    pub link: Option<Parent>,
    /// Whether it failed.
    pub failed: bool,
}

/// The wall clock at one moment; all spans of a request here count from the same.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    instant: Instant,
    nanos: u64,
}

impl Anchor {
    fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
    }

    fn nanos(&self, at: Instant) -> u64 {
        let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        match at.checked_duration_since(self.instant) {
            Some(after) => self.nanos.saturating_add(nanos(after)),
            None => self.nanos.saturating_sub(nanos(self.instant.duration_since(at))),
        }
    }
}

/// A span, for those that are part of it.
#[derive(Debug, Clone)]
pub struct Context {
    tracer: Tracer,
    own: Parent,
    anchor: Anchor,
}

/// A span that has not ended; it does when it is dropped.
#[derive(Debug)]
pub struct Span {
    context: Context,
    parent: Option<SpanId>,
    name: &'static str,
    kind: Kind,
    start: Instant,
    attributes: Vec<(&'static str, Value)>,
    link: Option<Parent>,
    failed: bool,
}

impl Tracer {
    /// One whose spans come out of the other end.
    pub fn new(config: &Config) -> (Self, mpsc::Receiver<Ended>) {
        let (queue, ended) = mpsc::channel(config.queue_max.max(1));
        (Self { shared: Arc::new(Shared { sample: config.sample, queue, dropped: Counter::default() }) }, ended)
    }

    /// Spans that found no room in the queue.
    pub fn dropped(&self) -> &Counter {
        &self.shared.dropped
    }

    /// The first span of this service in a trace: its parent's, or a new one. Recorded where its parent is, or by chance
    /// where there is none. `None` where there is no randomness to make ids of.
    pub fn span(&self, parent: Option<Parent>, name: &'static str, kind: Kind, start: Instant) -> Option<Span> {
        let trace = parent.map_or_else(TraceId::make, |parent| Some(parent.trace))?;
        let sampled = parent.map_or_else(|| self.samples(&trace), |parent| parent.sampled);
        let own = Parent { trace, span: SpanId::make()?, sampled };
        let context = Context { tracer: self.clone(), own, anchor: Anchor::now() };
        Some(Span::new(context, parent.map(|parent| parent.span), name, kind, start))
    }

    /// By the trace's number, so that all who have the same share decide the same.
    fn samples(&self, trace: &TraceId) -> bool {
        // 53 bits are what the share can be told in.
        let place = (trace.number() & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64;
        place < self.shared.sample
    }
}

impl Context {
    /// The span, as its children name it.
    pub fn own(&self) -> Parent {
        self.own
    }

    /// A span that is part of it, where it is recorded.
    pub fn child(&self, name: &'static str, kind: Kind) -> Option<Span> {
        self.child_since(name, kind, Instant::now())
    }

    /// As [`Context::child`], for one that began earlier.
    pub fn child_since(&self, name: &'static str, kind: Kind, start: Instant) -> Option<Span> {
        if !self.own.sampled {
            return None;
        }
        let context = Self { own: Parent { span: SpanId::make()?, ..self.own }, ..self.clone() };
        Some(Span::new(context, Some(self.own.span), name, kind, start))
    }
}

impl Span {
    fn new(context: Context, parent: Option<SpanId>, name: &'static str, kind: Kind, start: Instant) -> Self {
        Self { context, parent, name, kind, start, attributes: Vec::new(), link: None, failed: false }
    }

    /// For those that are part of it.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whether it is recorded.
    pub fn is_recorded(&self) -> bool {
        self.context.own.sampled
    }

    /// Says more about it.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if self.is_recorded() {
            self.attributes.push((name, value.into()));
        }
    }

    /// Says what it has to do with.
    pub fn link(&mut self, other: Parent) {
        self.link = Some(other);
    }

    /// Says that it failed.
    pub fn fail(&mut self) {
        self.failed = true;
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !self.is_recorded() {
            return;
        }
        let anchor = self.context.anchor;
        let start = anchor.nanos(self.start);
        let ended = Ended {
            own: self.context.own,
            parent: self.parent,
            name: self.name,
            kind: self.kind,
            start,
            end: anchor.nanos(Instant::now()).max(start),
            attributes: std::mem::take(&mut self.attributes),
            link: self.link,
            failed: self.failed,
        };
        let shared = &self.context.tracer.shared;
        if shared.queue.try_send(ended).is_err() {
            shared.dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::within, *};

    fn tracer(sample: f64, queue_max: usize) -> (Tracer, mpsc::Receiver<Ended>) {
        Tracer::new(&Config {
            endpoint: String::new(),
            sample,
            headers: Default::default(),
            queue_max,
            timeout: Duration::from_secs(1),
            service_name: String::new(),
        })
    }

    fn root(tracer: &Tracer, parent: Option<Parent>) -> Span {
        tracer.span(parent, "root", Kind::Server, Instant::now()).expect("randomness")
    }

    #[tokio::test]
    async fn children_are_within_their_parents() {
        let (tracer, mut ended) = tracer(1.0, 10);
        let span = root(&tracer, None);
        let context = span.context().clone();
        within::spanned(Some(span), async {
            tokio::task::yield_now().await;
            drop(within::child("child", Kind::Internal));
        })
        .await;
        assert!(within::child("none", Kind::Internal).is_none(), "it is left again");
        let (child, root) = (ended.recv().await.expect("a span"), ended.recv().await.expect("a span"));
        assert_eq!((child.parent, child.own.trace), (Some(root.own.span), context.own().trace));
        assert_eq!((root.parent, root.own), (None, context.own()));
        assert!(root.start <= child.start && child.start <= child.end && child.end <= root.end);
    }

    #[test]
    fn recorded_where_the_parent_is_and_else_by_chance() {
        let (never, _ended) = tracer(0.0, 10);
        let (always, _ended) = tracer(1.0, 10);
        let parent = root(&always, None).context().own();
        assert!(root(&never, Some(parent)).is_recorded() && !root(&never, None).is_recorded());
        let unsampled = Parent { sampled: false, ..parent };
        assert!(!root(&always, Some(unsampled)).is_recorded());
        assert!(root(&always, Some(unsampled)).context().child("child", Kind::Internal).is_none());
        let (half, _ended) = tracer(0.5, 10);
        let count = (0..1000).filter(|_| root(&half, None).is_recorded()).count();
        assert!((400..600).contains(&count), "{count}");
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (tracer, _ended) = tracer(1.0, 2);
        (0..5).for_each(|_| drop(root(&tracer, None)));
        assert_eq!(tracer.dropped().get(), 3);
    }
}
