//! What a call asks, as far as a cache has to know: what its key is made of, whether its answer may be stored and for how
//! long, and what of it does not go to the provider.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use http::{HeaderMap, Method, header};

use super::{
    canonical,
    config::{Config, Scope, Store},
    controls::{self, Controls},
    embeddings,
    endpoint::{Endpoint, Protocol},
    fields::{Fields, Stateful},
    form,
    json::{Kind, Value},
    outline::Outline,
    scope::{self, Groups},
    semantic::{Sought, Unsought},
    volatile::{self, Volatile},
};

#[cfg(test)]
mod tests;

/// What a route lays down, in the form that decisions need.
#[derive(Debug)]
pub struct Settings {
    /// How its provider is spoken to.
    pub protocol: Protocol,
    /// As configured.
    pub config: Config,
    volatile: Vec<Volatile>,
    groups: Groups,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What it calls.
    pub endpoint: Endpoint,
    /// Its path, from which models may be told.
    pub path: &'a str,
    /// Its query.
    pub query: Option<&'a str>,
    /// The tenant it is of.
    pub tenant: Option<&'a str>,
    /// Its fields.
    pub fields: &'a HeaderMap,
    /// Its content.
    pub body: &'a [u8],
}

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Representation {
    /// Whole.
    Json,
    /// As server-sent events.
    Sse,
}

/// What a call asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// What it calls.
    pub endpoint: Endpoint,
    /// How its answer comes.
    pub representation: Representation,
    /// The model's name.
    pub model: Option<Box<str>>,
    /// Whether it sets a limit to the length of its answer.
    pub limited: bool,
    /// Whose it is. Holds credentials: for a keyed hash alone.
    pub scope: Vec<u8>,
    /// What its key is made of beside whose it is and where it goes, in order.
    pub parts: Vec<(&'static str, Vec<u8>)>,
    /// Lifetime of its answer; an error where it is not to be stored.
    pub lifetime: Result<Duration, Why>,
    /// What it says of the cache.
    pub controls: Controls,
    /// The inputs of which each has an answer of its own, where there are several.
    pub inputs: Option<Inputs>,
    /// Bytes of its content that are for a gateway and do not go to the provider.
    pub cut: Option<Range<usize>>,
}

/// Inputs of which each has an answer of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// The list of them in the content.
    pub list: Range<usize>,
    /// Each: its place in the content, and a hash of what it says.
    pub each: Vec<(Range<usize>, [u8; 32])>,
}

/// Why a call passes: nothing stored answers it, and its answer is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its content cannot be read, or can be read in two ways.
    Unreadable,
    /// Its content is neither JSON nor a form, or is compressed.
    OtherContent,
    /// It is larger than what is looked into.
    TooLarge,
    /// The provider keeps something of it.
    Stateful(Stateful),
    /// Another answer to it may be wanted each time.
    Chance,
    /// The route stores none.
    Never,
    /// Its client wants none stored.
    Client,
    /// Nothing is stored of what it calls.
    Lifetime,
    /// It is no call of a kind that is known.
    OtherCall,
}

impl Settings {
    /// From settings that the configuration has validated; of others, rules that are none are left out.
    pub fn new(protocol: Protocol, config: Config) -> Self {
        let own = config.volatile.iter().filter_map(|rule| Volatile::parse(rule).ok());
        let volatile = volatile::KNOWN.iter().cloned().chain(own).collect();
        let groups = Groups::new(config.groups.iter().map(|(digest, name)| (&digest[..], &name[..])));
        Self { protocol, volatile, groups: groups.unwrap_or_default(), config }
    }

    /// What a request asks. `chance` is any number, see [`Controls::of`].
    ///
    /// # Errors
    /// Where its content says nothing about it.
    pub fn question(&self, asked: &Asked<'_>, chance: u32) -> Result<Question, Why> {
        let controls = if self.config.controls { Controls::of(asked.fields, chance) } else { Controls::default() };
        if asked.fields.contains_key(header::CONTENT_ENCODING) {
            return Err(Why::OtherContent);
        }
        let content_type = asked.fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let draft = Draft { settings: self, asked, controls };
        match asked.endpoint {
            Endpoint::Models => Ok(draft.list()),
            _ if is(content_type, "multipart/form-data") => draft.form(content_type),
            // Some clients name no type at all.
            _ if content_type.is_empty() || is(content_type, "application/json") => draft.json(),
            _ => Err(Why::OtherContent),
        }
    }

    /// What a call says, to be compared with others.
    pub fn outline(&self, question: &Question, path: &str, body: &[u8]) -> Outline {
        let fields = Fields::new(self.protocol, &self.volatile);
        // Of a list of models there is no body, and of a form nothing that could be told apart.
        let body = Value::parse(body).ok();
        let others = question.parts.iter().filter(|(name, _)| body.is_none() || !matches!(*name, "content" | "input"));
        let others = others.map(|(name, bytes)| (*name, &bytes[..]));
        Outline::of(body.as_ref(), &fields, others.chain([("path", path.as_bytes())]))
    }

    /// What a similar call is looked for by.
    ///
    /// # Errors
    /// Where none is to be looked for, because of what it asks.
    pub fn sought(&self, question: &Question, body: &[u8]) -> Result<Sought, Unsought> {
        let fields = Fields::new(self.protocol, &self.volatile);
        Sought::of(question.endpoint, body, &fields, self.config.semantic.window)
    }
}

fn is(content_type: &str, media: &str) -> bool {
    content_type.split(';').next().is_some_and(|found| found.trim().eq_ignore_ascii_case(media))
}

/// A question while it is read.
struct Draft<'a> {
    settings: &'a Settings,
    asked: &'a Asked<'a>,
    controls: Controls,
}

impl Draft<'_> {
    fn list(self) -> Question {
        let lifetime = Some(self.settings.config.models_ttl).filter(|ttl| !ttl.is_zero()).ok_or(Why::Lifetime);
        let lifetime = self.permitted(lifetime);
        self.question(None, Representation::Json, Vec::new(), lifetime, false, None)
    }

    fn form(mut self, content_type: &str) -> Result<Question, Why> {
        let parts = form::parts(content_type, self.asked.body).ok_or(Why::Unreadable)?;
        let value = |name: &str| {
            let part = parts.iter().find(|part| part.name() == Some(name))?;
            std::str::from_utf8(part.content).ok().map(str::trim)
        };
        let mut hash = blake3::Hasher::new();
        for part in &parts {
            for bytes in [part.fields, part.content] {
                hash.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
            }
        }
        let model = value("model").map(Into::into);
        let sure = value("temperature").is_none_or(|text| text.parse() == Ok(0.0));
        let lifetime = self.lifetime(model.as_deref(), sure && self.asked.endpoint == Endpoint::Transcriptions);
        let representation = if value("stream") == Some("true") { Representation::Sse } else { Representation::Json };
        let lifetime = self.permitted(lifetime);
        let parts = vec![("content", hash.finalize().as_bytes().to_vec())];
        Ok(self.question(model, representation, parts, lifetime, false, None))
    }

    fn json(mut self) -> Result<Question, Why> {
        let (settings, asked) = (self.settings, self.asked);
        let body = Value::parse(asked.body).map_err(|_| Why::Unreadable)?;
        if !matches!(body.kind, Kind::Object(_)) {
            return Err(Why::Unreadable);
        }
        let cut = self.take_control(&body);
        let mut fields = Fields::new(settings.protocol, &settings.volatile);
        let lists = matches!(asked.endpoint, Endpoint::Embeddings | Endpoint::BatchEmbedContents);
        let mut inputs = lists.then(|| inputs(&body, &fields)).flatten();
        fields.apart = inputs.is_some();
        let mut hash = blake3::Hasher::new();
        canonical::write(&body, &fields, &mut hash);
        let mut parts = vec![("content", hash.finalize().as_bytes().to_vec())];
        if let Some(one) = inputs.take_if(|inputs| inputs.each.len() == 1) {
            parts.push(("input", one.each[0].1.to_vec()));
        }
        let representation = representation(asked, &body);
        if let (Representation::Sse, Some(options)) = (representation, body.get("stream_options")) {
            let mut form = Vec::new();
            canonical::write(options, &fields, &mut form);
            parts.push(("stream options", form));
        }
        let model = model(asked, &body);
        let lifetime = match Stateful::of(&body) {
            None => self.lifetime(model.as_deref(), asks_for_no_chance(&body)),
            Some(Stateful::Tool) if !settings.config.tools_ttl.is_zero() => {
                self.lifetime(model.as_deref(), asks_for_no_chance(&body)).map(|ttl| ttl.min(settings.config.tools_ttl))
            }
            Some(stateful) => Err(Why::Stateful(stateful)),
        };
        let url = fields.names_url.get();
        let lifetime = lifetime.map(|ttl| if url { ttl.min(settings.config.media_url_ttl) } else { ttl });
        let lifetime = self.permitted(lifetime);
        let mut question = self.question(model, representation, parts, lifetime, is_limited(&body), cut);
        question.inputs = inputs;
        if settings.config.scope == Scope::EndUser {
            scope::of_end_user(&body, &mut question.scope);
        }
        if settings.config.scope == Scope::Shared && fields.names_file.get() {
            question.scope = scope::of_credential(asked.tenant, asked.fields, asked.query, &settings.groups);
        }
        Ok(question)
    }

    /// What is said to a gateway in the body itself.
    fn take_control(&mut self, body: &Value<'_>) -> Option<Range<usize>> {
        let cache = body.get("cache").filter(|cache| self.settings.config.controls && controls::is_control(cache))?;
        self.controls.note_body(cache);
        member_span(body, "cache")
    }

    /// Lifetime of an answer that is stored if the policy is `always`, or if `sure`, that no chance is asked for.
    fn lifetime(&mut self, model: Option<&str>, sure: bool) -> Result<Duration, Why> {
        let config = &self.settings.config;
        let policy = config.store_of(model);
        let policy = if policy == Store::Never { policy } else { self.controls.store.unwrap_or(policy) };
        let sure = sure || self.asked.endpoint.is_deterministic();
        match policy {
            Store::Never => Err(Why::Never),
            Store::Auto if !sure => Err(Why::Chance),
            Store::Auto | Store::Always => Ok(self.controls.ttl.unwrap_or(config.ttl)),
        }
    }

    /// As the client has it.
    fn permitted(&self, lifetime: Result<Duration, Why>) -> Result<Duration, Why> {
        let lifetime = lifetime?;
        if self.controls.passes() || self.controls.no_store {
            Err(Why::Client)
        } else if lifetime.is_zero() {
            Err(Why::Lifetime)
        } else {
            Ok(lifetime)
        }
    }

    fn question(
        self,
        model: Option<Box<str>>,
        representation: Representation,
        content: Vec<(&'static str, Vec<u8>)>,
        lifetime: Result<Duration, Why>,
        limited: bool,
        cut: Option<Range<usize>>,
    ) -> Question {
        let Self { settings, asked, controls } = self;
        let scope = match settings.config.scope {
            Scope::Shared => Vec::new(),
            Scope::Credential | Scope::EndUser => {
                scope::of_credential(asked.tenant, asked.fields, asked.query, &settings.groups)
            }
        };
        let kind: &[u8] = if representation == Representation::Sse { b"sse" } else { b"json" };
        let mut parts = vec![
            ("namespace", settings.config.namespace.clone().into_bytes()),
            ("client's namespace", controls.apart.clone()),
            ("representation", kind.to_vec()),
        ];
        parts.extend(api_fields(asked.fields));
        parts.extend(content);
        Question {
            endpoint: asked.endpoint,
            representation,
            model,
            limited,
            scope,
            parts,
            lifetime,
            controls,
            inputs: None,
            cut,
        }
    }
}

fn inputs(body: &Value<'_>, fields: &Fields<'_>) -> Option<Inputs> {
    let (inputs, list) = embeddings::inputs(body)?;
    let each = inputs.into_iter().map(|input| {
        let mut hash = blake3::Hasher::new();
        canonical::write(input, fields, &mut hash);
        (input.span.clone(), *hash.finalize().as_bytes())
    });
    Some(Inputs { list, each: each.collect() })
}

/// The bytes of a member of `body`, with the comma that belongs to it.
fn member_span(body: &Value<'_>, name: &str) -> Option<Range<usize>> {
    let members = body.members();
    let place = members.iter().position(|member| member.name == name)?;
    let (start, end) = (members[place].start, members[place].value.span.end);
    Some(match (members.get(place + 1), place.checked_sub(1)) {
        (Some(next), _) => start..next.start,
        (None, Some(before)) => members[before].value.span.end..end,
        (None, None) => start..end,
    })
}

fn representation(asked: &Asked<'_>, body: &Value<'_>) -> Representation {
    let by_query = asked.endpoint == Endpoint::StreamGenerateContent
        && asked.query.is_some_and(|query| query.split('&').any(|argument| argument == "alt=sse"));
    if by_query || body.get("stream").is_some_and(Value::is_true) { Representation::Sse } else { Representation::Json }
}

/// The model: what the body says, or else the path.
fn model(asked: &Asked<'_>, body: &Value<'_>) -> Option<Box<str>> {
    let in_path = || {
        let after = ["/models/", "/deployments/"].iter().find_map(|before| asked.path.split_once(before))?.1;
        after.split(['/', ':']).next().filter(|name| !name.is_empty())
    };
    body.get("model").and_then(Value::text).or_else(in_path).map(Into::into)
}

/// Whether the same answer will do: temperature 0, or a seed. One that is left out is not 0.
fn asks_for_no_chance(body: &Value<'_>) -> bool {
    let inner = body.get("generationConfig").or_else(|| body.get("generation_config"));
    [Some(body), inner].into_iter().flatten().any(|within| {
        let cold = within.get("temperature").and_then(Value::number) == Some(0.0);
        cold || within.get("seed").is_some_and(|seed| !seed.is_null())
    })
}

fn is_limited(body: &Value<'_>) -> bool {
    const LIMITS: [&str; 6] = [
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens_to_sample",
        "maxOutputTokens",
        "max_new_tokens",
    ];
    let inner = body.get("generationConfig").or_else(|| body.get("generation_config"));
    let has = |within: &Value<'_>| LIMITS.iter().any(|name| within.get(name).is_some_and(|limit| !limit.is_null()));
    [Some(body), inner].into_iter().flatten().any(has)
}

/// Fields that say in which version of an interface is spoken.
pub const API_FIELDS: [&str; 3] = ["anthropic-version", "anthropic-beta", "openai-beta"];

/// What they say; of lists, their members in order.
fn api_fields(fields: &HeaderMap) -> Vec<(&'static str, Vec<u8>)> {
    let exact = fields.get("anthropic-version").map(|value| ("anthropic-version", value.as_bytes().to_vec()));
    let sets = ["anthropic-beta", "openai-beta"].into_iter().filter_map(|name| {
        let lines = fields.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
        let members: BTreeSet<String> = lines.flat_map(|line| members(&line)).collect();
        (!members.is_empty()).then(|| (name, members.into_iter().collect::<Vec<_>>().join(",").into_bytes()))
    });
    exact.into_iter().chain(sets).collect()
}

fn members(line: &str) -> Vec<String> {
    line.split(',').map(|member| member.trim().to_owned()).filter(|member| !member.is_empty()).collect()
}

impl Endpoint {
    /// Whether the method and the path alone tell that no cache has a say.
    pub fn is_list(self, method: &Method) -> bool {
        self == Self::Models && *method == Method::GET
    }
}

impl Why {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "body-unreadable",
            Self::OtherContent => "content-type",
            Self::TooLarge => "body-too-large",
            Self::Stateful(stateful) => stateful.as_str(),
            Self::Chance => "not-deterministic",
            Self::Never => "store-never",
            Self::Client => "client-no-store",
            Self::Lifetime => "no-lifetime",
            Self::OtherCall => "other-call",
        }
    }
}
