//! Calls to language models: what is asked decides whether an answer may be stored, and under which key; and an answer is
//! stored when it has ended as its protocol says.
//!
//! They take the same way as every other request, through the same tiers and fills. What differs is here: the key is made
//! of what the body means ([`crate::llm`]), the route's word counts and not the provider's `Cache-Control`, and what is
//! stored and saved is counted in tokens.

use std::{borrow::Cow, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use self::accounts::{Accounts, Bill};
use self::{
    due::Due,
    packed::{Taken, taped},
    watched::{Payer, watched},
};
use super::{
    Cache, asked,
    call::{Answer, Call, Outgoing},
    exchange::Exchange,
    failure::Failure,
    key_body,
    outcome::Forward,
    refused::Refused,
    route::Route,
};
use crate::{
    llm::{
        answer::Watcher,
        answered,
        config::{Identity, Mode, Pace},
        controls::{Controls, Dialect},
        endpoint::Endpoint,
        question::{Asked, Question, Representation, Settings, Why},
        scope,
    },
    object::{
        directives::RequestDirectives,
        key::{Key, KeyBuilder},
        verdict::{Reason, RuleMode, Rules},
    },
    origin::RequestBody,
};

pub mod accounts;
mod batch;
mod due;
mod explain;
mod misses;
mod overheard;
mod paced;
mod packed;
mod renamed;
pub mod semantic;
mod watched;

pub(super) use self::{
    due::Length,
    misses::Misses,
    semantic::{Matching, SEMANTIC},
};
pub use self::{overheard::Overheard, paced::Paced, packed::Packed};

/// Errors that the same call would meet again.
const LASTING: [u16; 4] = [400, 404, 413, 422];

/// How long the answer that says so is everybody's who asks at the same time, where errors are not stored.
const ERROR_SHARED: Duration = Duration::from_secs(1);

/// An answer on its way.
type Answering<'a> = Pin<Box<dyn Future<Output = Result<Answer, Arc<Failure>>> + Send + 'a>>;

/// What a route lays down for calls to models.
#[derive(Debug)]
pub struct Models {
    /// See [`Settings`].
    pub settings: Settings,
    /// Where calls go, as keys name it.
    pub upstream: Box<str>,
    /// Segments of the path that end here.
    pub strip: usize,
    /// What is recorded, or was.
    pub packed: Option<Arc<Packed>>,
    /// What looks for similar calls, where they are to be looked for.
    pub matcher: Option<Arc<semantic::Matcher>>,
}

/// One call on its way, beside what every request has.
pub(super) struct Asking {
    pub(super) question: Question,
    pub(super) models: Arc<Models>,
    /// Lifetimes of its answer.
    pub(super) rules: Rules,
    pub(super) bill: Bill,
    /// Keys under which the answers of its inputs are stored, each for itself.
    pub(super) inputs: Option<Vec<Key>>,
    /// Whether its client wants to know why it is not answered from here.
    pub(super) tell: bool,
}

impl Models {
    /// The path as the provider gets it, a prefix of its own aside.
    fn path<'a>(&self, path: &'a str) -> &'a str {
        path.match_indices('/').nth(self.strip).map_or("/", |(place, _)| &path[place..])
    }
}

impl Cache {
    /// Answers a request to a provider of models. As a type of its own: the compiler would otherwise go through all that
    /// is within each time that it is named.
    pub(super) fn call_model<O: Outgoing>(&self, call: Call<O>, models: Arc<Models>) -> Answering<'_> {
        Box::pin(self.answer_model(call, models))
    }

    async fn answer_model<O: Outgoing>(&self, mut call: Call<O>, models: Arc<Models>) -> Result<Answer, Arc<Failure>> {
        let path = Arc::clone(&call.target.path);
        let path = models.path(&path);
        let settings = &models.settings;
        let Some(endpoint) = Endpoint::of(settings.protocol, &call.method, path).filter(|_| !call.route.bypass())
        else {
            let asked = length(&call.headers).unwrap_or(0);
            return self.pass_model(call, &models, Why::OtherCall, asked).await;
        };
        let body = std::mem::replace(&mut call.body, RequestBody::Empty);
        let body = key_body::collect(body, settings.config.body_bytes_max.as_u64()).await;
        let body = match body.map_err(|error| Arc::new(Failure::RequestBody(error)))? {
            Ok(body) => body,
            Err(rest) => {
                call.body = rest;
                let least = settings.config.body_bytes_max.as_u64();
                let asked = length(&call.headers).unwrap_or(least);
                return self.pass_model(call, &models, Why::TooLarge, asked).await;
            }
        };
        let query = call.target.query.clone();
        let tenant = call.target.tenant.clone();
        let (query_sent, whose) = (query.as_deref(), tenant.as_deref().map(|tenant| &*tenant.name));
        let asked = Asked { endpoint, path, query: query_sent, tenant: whose, fields: &call.headers, body: &body };
        // What is recorded is the same each time.
        let chance = if models.packed.is_some() { 0 } else { chance() };
        let question = match settings.question(&asked, chance) {
            Ok(question) => question,
            Err(why) => {
                let asked = body.len() as u64;
                call.body = content(&call.method, body);
                return self.pass_model(call, &models, why, asked).await;
            }
        };
        // A credential in the query is for the provider alone: it is no part of a URL that anything here names.
        call.target.query = query.as_deref().and_then(scope::without_credential).map(|query| match query {
            Cow::Borrowed(query) => query.into(),
            Cow::Owned(query) => query.into(),
        });
        let mut directives = self.directives_of(&call, &question.controls);
        let tell = explain::is_asked(&call.headers);
        let bill = self.accounts().bill(&call.route.name, question.model.as_deref(), tenant.as_deref());
        let bill = bill.charged_to(call.outgoing.charge().map(|charge| Due::new(charge, body.len() as u64)));
        let taping = match &models.packed {
            None => None,
            Some(packed) => match packed.take(settings, &call, path, &body, &question)? {
                Taken::Answered(recorded) => {
                    let pace = question.controls.pace.unwrap_or(settings.config.replay);
                    return Ok(dressed(
                        self.recorded(&recorded),
                        &bill,
                        pace,
                        settings.config.identity,
                        &question.controls.dialects,
                    ));
                }
                Taken::ToBeRecorded(taping) => Some(taping),
            },
        };
        directives.no_cache |= settings.config.mode == Mode::Record;
        if settings.config.controls {
            Controls::consume(&mut call.headers);
        }
        let rules = rules(&call.route, &models, &question);
        let place = (&*call.route, &call.method, &call.headers, call.target.query.as_deref());
        let key = self.model_key(&models, place, path, &question, None);
        if let (Some(inputs), Ok(_), None) = (&question.inputs, &question.lifetime, &question.cut) {
            let keys =
                inputs.each.iter().map(|(_, input)| self.model_key(&models, place, path, &question, Some(input)));
            let keys = keys.collect();
            let asking = Asking { question, models, rules, bill, inputs: None, tell };
            let parts: Answering<'_> = Box::pin(self.ask_in_parts(call, asking, keys, body, directives));
            return Ok(taped(parts.await?, taping));
        }
        let body = without(body, &question);
        let asking = Asking { question, models, rules, bill, inputs: None, tell };
        Ok(taped(self.ask(call, asking, key, body, directives).await?, taping))
    }

    /// Passes a call on that says nothing; unless nothing is to be passed on. Limits on tokens hold for it all the same:
    /// its client chooses whether it can be read. `asked` is how many bytes it has.
    async fn pass_model<O: Outgoing>(
        &self,
        mut call: Call<O>,
        models: &Models,
        why: Why,
        asked: u64,
    ) -> Result<Answer, Arc<Failure>> {
        if let Some(packed) = models.packed.as_ref().filter(|_| models.settings.config.mode == Mode::Replay) {
            return Err(Arc::new(packed.unreadable(why)));
        }
        // What is only looked up takes no tokens, also where it tells what another call took.
        let due = call.outgoing.charge().filter(|_| !call.method.is_safe()).map(|charge| Due::new(charge, asked));
        if due.is_some() {
            call.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let answer = self.pass(call, Forward::Bypass, Some(why.as_str())).await?;
        let Some(due) = due else { return Ok(answer) };
        let stream = watched::streams(answer.response.headers());
        let watcher = Watcher::new(models.settings.protocol, Endpoint::ChatCompletions, stream, false);
        Ok(watched(answer, watcher, Payer::Due(due)))
    }

    fn ask<O: Outgoing>(
        &self,
        call: Call<O>,
        asking: Asking,
        key: Key,
        body: Bytes,
        directives: RequestDirectives,
    ) -> Answering<'_> {
        Box::pin(self.asked(call, asking, key, body, directives))
    }

    async fn asked<O: Outgoing>(
        &self,
        mut call: Call<O>,
        asking: Asking,
        key: Key,
        body: Bytes,
        directives: RequestDirectives,
    ) -> Result<Answer, Arc<Failure>> {
        let why = asking.question.lifetime.err().or(directives.no_store.then_some(Why::Client));
        let tell = asking.tell;
        let (dialects, bill) = (asking.question.controls.dialects.clone(), asking.bill.clone());
        let config = &asking.models.settings.config;
        let (pace, identity) = (asking.question.controls.pace.unwrap_or(config.replay), config.identity);
        let answer = match why {
            Some(_) if directives.only_if_cached => return Err(Arc::new(Failure::OnlyIfCached)),
            Some(why) => {
                let watcher = asking.watcher(asking.question.representation);
                call.body = content(&call.method, body);
                call.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
                let answer = self.pass(call, Forward::Bypass, Some(why.as_str())).await?;
                watched(answer, watcher, Payer::Bill(bill.clone()))
            }
            None => {
                let method = call.method.clone();
                let body = (method != Method::GET).then_some(body);
                let exchange = Exchange {
                    cache: self.clone(),
                    method: method.clone(),
                    route: call.route,
                    target: call.target,
                    headers: call.headers,
                    // Conditions and ranges make no sense here.
                    asked: asked::Asked::default(),
                    directives,
                    key,
                    body,
                    outgoing: call.outgoing,
                    model: Some(asking),
                };
                let exchange = Arc::new(exchange);
                let answer = Arc::clone(&exchange).run(method).await?;
                match (&exchange.model, &exchange.body) {
                    (Some(asking), Some(body)) if !answer.outcome.is_hit() => {
                        let path = asking.models.path(&exchange.target.path);
                        self.told_of_miss(answer, asking, path, body, tell)
                    }
                    _ => answer,
                }
            }
        };
        Ok(dressed(answer, &bill, pace, identity, &dialects))
    }

    fn directives_of<O>(&self, call: &Call<O>, controls: &Controls) -> RequestDirectives {
        let asked = asked::Asked::of(&call.headers);
        let mut directives = self.directives(&call.route, &&call.headers, asked);
        if controls.takes_max_age {
            directives.max_age = None;
        }
        directives.no_cache |= controls.no_cache;
        directives.no_store |= controls.no_store;
        directives.max_age = controls.max_age.or(directives.max_age);
        directives
    }

    /// The key of a call, or of one of its inputs.
    fn model_key(
        &self,
        models: &Models,
        (route, method, headers, query): (&Route, &Method, &HeaderMap, Option<&str>),
        path: &str,
        question: &Question,
        input: Option<&[u8; 32]>,
    ) -> Key {
        let mut key = KeyBuilder::new("llm");
        key.field(&self.scope_of(question));
        key.field(models.upstream.as_bytes()).field(method.as_str().as_bytes()).field(path.as_bytes());
        key.optional(query.map(str::as_bytes));
        for (name, bytes) in &question.parts {
            key.field(name.as_bytes()).field(bytes);
        }
        if let Some(input) = input {
            key.field(b"input").field(input);
        }
        for name in &route.key_headers {
            for value in headers.get_all(name) {
                key.optional(Some(value.as_bytes()));
            }
            key.optional(None);
        }
        key.finish_keyed(self.secret())
    }

    pub(super) fn accounts(&self) -> &Accounts {
        &self.inner.accounts
    }

    fn misses(&self) -> &Misses {
        &self.inner.misses
    }
}

/// The same answer with what it saved, in the words and at the pace that were asked for.
fn dressed(mut answer: Answer, bill: &Bill, pace: Pace, identity: Identity, dialects: &[Dialect]) -> Answer {
    if answer.outcome.is_hit() {
        bill.saved(answer.response.headers_mut());
        if identity == Identity::Fresh {
            answer = renamed::renamed(answer);
        }
        answer = Paced::over(answer, pace);
    }
    told(answer, bill, dialects)
}

/// The same answer with what it will have cost, in the words that were asked for.
fn told(mut answer: Answer, bill: &Bill, dialects: &[Dialect]) -> Answer {
    answer.response.extensions_mut().insert(bill.receipt());
    let stored = answer.outcome.is_hit() || answer.outcome.collapsed;
    let fields = answer.response.headers_mut();
    for (name, value) in dialects.iter().filter_map(|dialect| dialect.answer(stored)) {
        fields.insert(name, value);
    }
    answer
}

/// What of a call's content goes to the provider.
fn without(body: Bytes, question: &Question) -> Bytes {
    match &question.cut {
        Some(cut) => [&body[..cut.start], &body[cut.end..]].concat().into(),
        None => body,
    }
}

/// What a request says of the length of its content.
fn length(fields: &HeaderMap) -> Option<u64> {
    fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn content(method: &Method, body: Bytes) -> RequestBody {
    if *method == Method::GET && body.is_empty() { RequestBody::Empty } else { RequestBody::Bytes(body) }
}

/// A number that nobody can foresee.
fn chance() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness one and the same of several answers is picked.
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

fn rules(route: &Route, models: &Models, question: &Question) -> Rules {
    let config = &models.settings.config;
    let error = if config.error_ttl.is_zero() { ERROR_SHARED } else { config.error_ttl };
    let lasting = LASTING.into_iter().map(|status| (status.to_string(), error));
    Rules {
        mode: RuleMode::Force,
        default_ttl: question.lifetime.unwrap_or_default(),
        status_ttl: lasting.collect(),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: config.stale_if_error,
        keep: Duration::ZERO,
        ..route.rules.clone()
    }
}

impl Asking {
    fn watcher(&self, representation: Representation) -> Watcher {
        let stream = representation == Representation::Sse;
        let protocol = self.models.settings.protocol;
        Watcher::new(protocol, self.question.endpoint, stream, self.question.limited)
    }

    /// An answer that goes past the cache, watched for what it cost.
    pub(super) fn heard(&self, answer: Answer) -> Answer {
        let stream = watched::streams(answer.response.headers());
        let watcher = self.watcher(if stream { Representation::Sse } else { Representation::Json });
        watched(answer, watcher, Payer::Bill(self.bill.clone()))
    }

    /// Watches an answer with that head; an error where it is not to be stored, whatever its content is.
    pub(super) fn watch(&self, status: StatusCode, fields: &HeaderMap) -> Result<Watcher, Refused> {
        let coding = fields.get(header::CONTENT_ENCODING).filter(|coding| *coding != "identity");
        if coding.is_some() {
            return Err(Refused::Coded);
        }
        let content_type = fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let streams = content_type.starts_with("text/event-stream");
        if status != StatusCode::OK {
            return Ok(self.watcher(Representation::Json));
        }
        if streams != (self.question.representation == Representation::Sse) {
            return Err(Refused::OtherForm);
        }
        Ok(self.watcher(self.question.representation))
    }

    /// Whether an answer with that status is stored when it has ended well; of errors, those who ask meanwhile have it too.
    pub(super) fn keeps(&self, status: StatusCode) -> bool {
        let lasting = LASTING.contains(&status.as_u16()) && !self.models.settings.config.error_ttl.is_zero();
        status == StatusCode::OK || lasting
    }

    /// What an answer with that status is judged by; an error where nothing can be made of it.
    pub(super) fn rules_for(&self, status: StatusCode) -> Result<Cow<'_, Rules>, Refused> {
        if status == StatusCode::OK {
            return Ok(Cow::Borrowed(&self.rules));
        }
        if !status.is_client_error() && !status.is_server_error() {
            return Err(Reason::Status.into());
        }
        let mut rules = self.rules.clone();
        rules.status_ttl.entry(status.as_str().to_owned()).or_insert(ERROR_SHARED);
        Ok(Cow::Owned(rules))
    }

    /// Whether a stored answer may take the place of one with that status.
    pub(super) fn stands_in_for(&self, status: StatusCode) -> bool {
        self.models.settings.config.stale_if_error_status.contains(&status.as_u16())
    }
}

/// Whether a field of an answer is for who asked first alone. How long to wait is for all whom an error tells to.
pub(super) fn is_withheld(name: &str, status: StatusCode) -> bool {
    let waits = status.is_client_error() || status.is_server_error();
    answered::is_of_one_exchange(name) && !(waits && name.starts_with("retry-after")) && name != "date"
}
