//! Calls that are recorded into a pack, and answered from it: for tests that run without a provider.
//!
//! A pack is for whoever has it: whose call it was is no part of what makes two of its calls the same, so that what was
//! recorded with one credential is answered to another, or to none. Where tenants do not share, the configuration takes no
//! pack.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use parking_lot::RwLock;
use tokio::time::Instant;

use super::{
    LASTING, accounts,
    overheard::{Listener, Overheard},
};
use crate::{
    cache::{
        CACHE_STATUS, Cache,
        body::Body,
        call::{Answer, Call},
        failure::Failure,
        outcome::{Kind, Outcome, Tier},
        route::Route,
    },
    llm::{
        answer::{Seen, Unfit, Watcher},
        answered,
        config::Mode,
        controls::Controls,
        endpoint::Endpoint,
        outline::Outline,
        question::{self, Asked, Question, Representation, Settings},
    },
    object::{
        fields,
        key::{Key, KeyBuilder},
    },
    pack::{Content, Pack, Recording, Request},
};

/// Differences that an error tells.
const TOLD_MAX: usize = 5;

/// Fields of an answer that are made anew whenever it is given.
const MADE_ANEW: [HeaderName; 5] =
    [header::CONTENT_LENGTH, header::AGE, header::VARY, CACHE_STATUS, HeaderName::from_static("proxy-status")];

/// A route's part of a pack.
#[derive(Debug)]
pub struct Packed {
    mode: Mode,
    route: Arc<str>,
    pack: Arc<Pack>,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    answers: HashMap<Key, Arc<Recorded>>,
    /// For whom nothing answers.
    outlines: HashMap<Key, Outline>,
}

/// An answer as it is given again.
#[derive(Debug)]
pub(super) struct Recorded {
    status: StatusCode,
    fields: HeaderMap,
    content: Bytes,
}

/// What becomes of a call.
pub(super) enum Taken {
    Answered(Arc<Recorded>),
    ToBeRecorded(Box<Taping>),
}

/// A call whose answer is to be recorded.
pub(super) struct Taping {
    packed: Arc<Packed>,
    call: Tape,
    watcher: Watcher,
    begun: Instant,
}

/// A call as it is found and recorded.
struct Tape {
    key: Key,
    outline: Outline,
    request: Request,
}

/// A call as it came, with what it asks.
struct Came<'a> {
    method: &'a Method,
    path: &'a str,
    /// Without a credential.
    query: Option<&'a str>,
    fields: &'a HeaderMap,
    body: &'a [u8],
    question: &'a Question,
}

impl Packed {
    /// The part of `route` of what was recorded into `pack`.
    pub fn new(route: &Route, settings: &Settings, pack: Arc<Pack>, recordings: &[Recording]) -> Self {
        let (mode, name) = (settings.config.mode, Arc::clone(&route.name));
        let mut known = Known::default();
        for recording in recordings.iter().filter(|recording| *recording.route == *name) {
            match read(recording, settings, &route.key_headers) {
                Some((call, recorded)) => known.learn(&call, Arc::new(recorded)),
                None => {
                    let Request { method, path, .. } = &recording.request;
                    tracing::warn!(pack = ?pack.path(), route = %name, method, path, "a recorded call cannot be read");
                }
            }
        }
        Self { mode, route: name, pack, known: RwLock::new(known) }
    }

    /// What becomes of a call.
    ///
    /// # Errors
    /// Where it was not recorded, and only what was recorded is answered.
    pub(super) fn take<O>(
        self: &Arc<Self>,
        settings: &Settings,
        call: &Call<O>,
        path: &str,
        body: &[u8],
        question: &Question,
    ) -> Result<Taken, Arc<Failure>> {
        let query = call.target.query.as_deref();
        let came = Came { method: &call.method, path, query, fields: &call.headers, body, question };
        let tape = tape(settings, &came, &call.route.key_headers);
        let known = self.known.read().answers.get(&tape.key).filter(|_| self.mode != Mode::Record).cloned();
        match known {
            Some(recorded) => Ok(Taken::Answered(recorded)),
            None if self.mode == Mode::Replay => Err(Arc::new(self.lacking(&tape))),
            None => Ok(Taken::ToBeRecorded(Box::new(Taping {
                packed: Arc::clone(self),
                call: tape,
                watcher: watcher(settings, question),
                begun: Instant::now(),
            }))),
        }
    }

    /// Why a call cannot be answered.
    fn lacking(&self, call: &Tape) -> Failure {
        let known = self.known.read();
        let nearest = known.outlines.values().max_by_key(|outline| call.outline.likeness(outline));
        let told = match nearest {
            None => "nothing was recorded by this route".to_owned(),
            Some(outline) => {
                let differences = call.outline.differences(outline);
                let told: Vec<_> = differences.iter().take(TOLD_MAX).map(ToString::to_string).collect();
                format!("as against the most similar of {} recorded calls: {}", known.answers.len(), told.join(", "))
            }
        };
        self.failure(&format!("{} {}: {told}", call.request.method, call.request.path))
    }

    /// Why a call that cannot even be read cannot be answered.
    pub(super) fn unreadable(&self, why: question::Why) -> Failure {
        self.failure(&format!("a call of this kind is not recorded ({})", why.as_str()))
    }

    fn failure(&self, told: &str) -> Failure {
        let path: &Path = self.pack.path();
        Failure::NotRecorded(format!("{told}; route {}, pack {path:?}", self.route))
    }

    fn record(&self, call: Tape, status: StatusCode, fields: &HeaderMap, content: Bytes, took: Duration, seen: &Seen) {
        let request = call.request.clone();
        let response = crate::pack::Response {
            status: status.as_u16(),
            fields: texts(fields, |name| !is_left_out(name)),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            content: Content::of(&content),
        };
        let recording = Recording { route: self.route.to_string(), request, response };
        // Some KiB into the page cache: no reason to keep the client from its last byte for longer than that takes.
        if let Err(error) = self.pack.append(&recording) {
            tracing::warn!(%error, route = %self.route, "a call was not recorded");
            return;
        }
        let fields = kept(fields, seen, took);
        self.known.write().learn(&call, Arc::new(Recorded { status, fields, content }));
    }
}

impl Known {
    fn learn(&mut self, call: &Tape, recorded: Arc<Recorded>) {
        self.outlines.insert(call.key, call.outline.clone());
        self.answers.insert(call.key, recorded);
    }
}

fn watcher(settings: &Settings, question: &Question) -> Watcher {
    let streams = question.representation == Representation::Sse;
    Watcher::new(settings.protocol, question.endpoint, streams, question.limited)
}

fn tape(settings: &Settings, came: &Came<'_>, counted: &[HeaderName]) -> Tape {
    let Came { method, path, query, fields, body, question } = came;
    let mut key = KeyBuilder::new("llm pack");
    key.field(method.as_str().as_bytes()).field(path.as_bytes()).optional(query.map(str::as_bytes));
    for (name, bytes) in &question.parts {
        key.field(name.as_bytes()).field(bytes);
    }
    for (_, input) in question.inputs.iter().flat_map(|inputs| &inputs.each) {
        key.field(b"input").field(input);
    }
    for name in counted {
        for value in fields.get_all(name) {
            key.optional(Some(value.as_bytes()));
        }
        key.optional(None);
    }
    let says = |name: &HeaderName| {
        *name == header::CONTENT_TYPE
            || question::API_FIELDS.contains(&name.as_str())
            || Controls::keeps_apart(name.as_str())
            || counted.contains(name)
    };
    let request = Request {
        method: method.to_string(),
        path: (*path).to_owned(),
        query: query.map(str::to_owned),
        fields: texts(fields, says),
        content: Content::of(body),
    };
    Tape { key: key.finish(), outline: settings.outline(question, path, body), request }
}

/// A recording as it is found and given; `None` where it is no call of this route's kind.
fn read(recording: &Recording, settings: &Settings, counted: &[HeaderName]) -> Option<(Tape, Recorded)> {
    let Recording { request, response, .. } = recording;
    let method: Method = request.method.parse().ok()?;
    let (path, query) = (&*request.path, request.query.as_deref());
    let (fields, body) = (map(&request.fields)?, request.content.bytes()?);
    let endpoint = Endpoint::of(settings.protocol, &method, path)?;
    let question =
        settings.question(&Asked { endpoint, path, query, tenant: None, fields: &fields, body: &body }, 0).ok()?;
    let came = Came { method: &method, path, query, fields: &fields, body: &body, question: &question };
    let tape = tape(settings, &came, counted);
    let (status, content) = (StatusCode::from_u16(response.status).ok()?, Bytes::from(response.content.bytes()?));
    let mut watcher = watcher(settings, &question);
    watcher.piece(&content);
    let seen = watcher.end(Some(&content));
    let fields = kept(&map(&response.fields)?, &seen, Duration::from_millis(response.took_ms));
    Some((tape, Recorded { status, fields, content }))
}

/// The fields of an answer that is given again.
fn kept(fields: &HeaderMap, seen: &Seen, took: Duration) -> HeaderMap {
    let mut kept: HeaderMap = fields
        .iter()
        .filter(|(name, _)| !is_left_out(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(usage) = accounts::usage_field(&seen.usage, took) {
        kept.insert(accounts::USAGE, usage);
    }
    kept
}

fn is_left_out(name: &HeaderName) -> bool {
    fields::is_hop_by_hop(name) || MADE_ANEW.contains(name) || answered::is_of_one_exchange(name.as_str())
}

fn texts(fields: &HeaderMap, keeps: impl Fn(&HeaderName) -> bool) -> Vec<(String, String)> {
    let kept = fields.iter().filter(|(name, _)| keeps(name));
    kept.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned()))).collect()
}

fn map(fields: &[(String, String)]) -> Option<HeaderMap> {
    let parsed = fields.iter().map(|(name, value)| Some((name.parse().ok()?, value.parse::<HeaderValue>().ok()?)));
    parsed.collect()
}

impl Cache {
    /// A recorded answer.
    pub(super) fn recorded(&self, recorded: &Recorded) -> Answer {
        let outcome = Outcome::of(Kind::Hit(Tier::Pack));
        let mut response = Response::new(Body::Full(recorded.content.clone()));
        *response.status_mut() = recorded.status;
        *response.headers_mut() = recorded.fields.clone();
        response.headers_mut().append(CACHE_STATUS, outcome.cache_status(self.name()));
        Answer { response, outcome }
    }
}

/// An answer that is recorded.
struct Coming {
    taping: Box<Taping>,
    status: StatusCode,
    fields: HeaderMap,
    content: BytesMut,
}

/// The same answer; recorded when it has ended well, if it is to be.
pub(super) fn taped(mut answer: Answer, taping: Option<Box<Taping>>) -> Answer {
    let Some(taping) = taping else { return answer };
    let (status, fields) = (answer.response.status(), answer.response.headers().clone());
    if status == StatusCode::OK || LASTING.contains(&status.as_u16()) {
        let coming = Coming { taping, status, fields, content: BytesMut::new() };
        answer.response = answer.response.map(|body| Overheard::body(body, coming));
    }
    answer
}

impl Listener for Coming {
    fn note(&mut self, data: &[u8]) -> bool {
        let fits = (self.content.len() + data.len()) as u64 <= self.taping.packed.pack.bytes_max();
        if fits {
            self.taping.watcher.piece(data);
            self.content.extend_from_slice(data);
        }
        fits
    }

    fn end(self: Box<Self>) {
        let Self { taping, status, fields, content } = *self;
        let Taping { packed, call, watcher, begun } = *taping;
        let seen = watcher.end(Some(&content));
        let whole = matches!(seen.fit, Ok(()) | Err(Unfit::CutShort | Unfit::Filtered));
        if whole || status != StatusCode::OK {
            packed.record(call, status, &fields, content.freeze(), begun.elapsed(), &seen);
        }
    }

    fn left(self: Box<Self>) {
        let Self { taping, status, fields, content } = *self;
        let Taping { packed, call, watcher, begun } = *taping;
        if !watcher.is_stream() || status != StatusCode::OK {
            return;
        }
        // The stream itself says whether that was all.
        let seen = watcher.end(Some(&content));
        if seen.fit.is_ok() {
            packed.record(call, status, &fields, content.freeze(), begun.elapsed(), &seen);
        }
    }
}
