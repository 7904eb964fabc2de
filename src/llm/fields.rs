//! Which fields of a body are no part of its key, and which make a call one that no cache may answer.
//!
//! Every field not named here is part of the key, those nobody has heard of included: a list of what counts would miss the
//! next parameter, and then two different requests would share an answer.

use std::cell::Cell;

use super::{
    canonical::{self, Rules},
    controls,
    endpoint::Protocol,
    json::Value,
    media,
    path::{
        Part::{self, Each, Name},
        Path,
    },
    volatile::Volatile,
};

/// What a body's key is made of.
#[derive(Debug)]
pub struct Fields<'v> {
    /// How the provider is spoken to.
    pub protocol: Protocol,
    /// Texts that mean nothing.
    pub volatile: &'v [Volatile],
    /// Whether the inputs have keys of their own.
    pub apart: bool,
    /// Whether a document at a URL was met, which may change.
    pub names_url: Cell<bool>,
    /// Whether something was met that only who owns it can name: a file, a store of vectors.
    pub names_file: Cell<bool>,
}

/// Why a call goes to its provider whatever is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stateful {
    /// The provider keeps the answer for later calls.
    Stored,
    /// The answer is made later.
    Background,
    /// The call goes on from what the provider has kept.
    Continued,
    /// A tool looks at the world, which changes.
    Tool,
}

/// Who asks, what they are billed as, and how the answer is to come (the representation has a place of its own in the key).
const OPENAI: &[&[Part]] = &[
    &[Name("stream")],
    // Part of the representation, where there is a stream.
    &[Name("stream_options")],
    &[Name("user")],
    &[Name("safety_identifier")],
    &[Name("metadata")],
    &[Name("prompt_cache_key")],
    &[Name("prompt_cache_retention")],
    &[Name("prompt_cache_options")],
    &[Name("service_tier")],
    // Anthropic's marks, which gateways that speak both take.
    &[Name("messages"), Each, Name("cache_control")],
    &[Name("messages"), Each, Name("content"), Each, Name("cache_control")],
    &[Name("tools"), Each, Name("cache_control")],
];

/// The marks say what the provider is to remember of a prompt: they change its price and nothing else.
const ANTHROPIC: &[&[Part]] = &[
    &[Name("stream")],
    &[Name("metadata")],
    &[Name("service_tier")],
    &[Name("cache_control")],
    &[Name("system"), Each, Name("cache_control")],
    &[Name("messages"), Each, Name("content"), Each, Name("cache_control")],
    &[Name("messages"), Each, Name("content"), Each, Name("content"), Each, Name("cache_control")],
    &[Name("tools"), Each, Name("cache_control")],
];

const GEMINI: &[&[Part]] = &[&[Name("labels")]];

/// Tools that run where the model does and look at what changes. Names begin so; dates of versions follow.
const TOOLS: [&str; 12] = [
    "web_search",
    "web_fetch",
    "file_search",
    "code_interpreter",
    "code_execution",
    "computer",
    "mcp",
    "image_generation",
    "google_search",
    "googleSearch",
    "url_context",
    "codeExecution",
];

/// Names of members that hold what only its owner can name.
const OWNED: [&str; 6] = ["file_id", "file_ids", "vector_store_ids", "container_id", "fileUri", "file_uri"];

impl<'v> Fields<'v> {
    /// Of bodies in that protocol.
    pub fn new(protocol: Protocol, volatile: &'v [Volatile]) -> Self {
        Self { protocol, volatile, apart: false, names_url: Cell::new(false), names_file: Cell::new(false) }
    }

    fn text(&self, path: &Path<'_>, text: &str) -> canonical::Part {
        if media::is_url(path, text) {
            self.names_url.set(true);
        }
        if let Some(digest) = media::digest(path, text) {
            return canonical::Part::As(digest);
        }
        let masked = self.volatile.iter().find_map(|volatile| volatile.masked(path, text));
        masked.map_or(canonical::Part::In, canonical::Part::As)
    }
}

impl Rules for Fields<'_> {
    fn part(&self, path: &Path<'_>, value: &Value<'_>) -> canonical::Part {
        let out = match self.protocol {
            Protocol::Openai => OPENAI,
            Protocol::Anthropic => ANTHROPIC,
            Protocol::Gemini => GEMINI,
        };
        if path.depth() <= DEEPEST && out.iter().any(|pattern| path.is(pattern)) {
            return canonical::Part::Out;
        }
        // What LiteLLM's clients say to their gateway.
        if path.is(&[Name("cache")]) && controls::is_control(value) {
            return canonical::Part::Out;
        }
        if self.apart && (path.is(&[Name("input")]) || path.is(&[Name("requests")])) {
            return canonical::Part::Out;
        }
        if path.name().is_some_and(|name| OWNED.contains(&name)) {
            self.names_file.set(true);
        }
        value.text().map_or(canonical::Part::In, |text| self.text(path, text))
    }
}

/// Steps of the longest pattern.
const DEEPEST: usize = 7;

impl Stateful {
    /// The first reason a body gives.
    pub fn of(body: &Value<'_>) -> Option<Self> {
        let is_set = |name| body.get(name).is_some_and(|value| !value.is_null());
        let is_true = |name| body.get(name).is_some_and(Value::is_true);
        if is_true("background") {
            Some(Self::Background)
        } else if is_set("previous_response_id") || is_set("conversation") || is_set("container") || is_set("thread") {
            Some(Self::Continued)
        } else if is_true("store") {
            Some(Self::Stored)
        } else if is_set("web_search_options") || is_set("mcp_servers") || tools(body).any(looks_outside) {
            Some(Self::Tool)
        } else {
            None
        }
    }

    /// The reason in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "store",
            Self::Background => "background",
            Self::Continued => "continued",
            Self::Tool => "server-tool",
        }
    }
}

fn tools<'b>(body: &'b Value<'b>) -> impl Iterator<Item = &'b Value<'b>> {
    body.get("tools").map(Value::elements).unwrap_or_default().iter()
}

/// OpenAI and Anthropic name a tool by its type, Gemini by the one member it has.
fn looks_outside(tool: &Value<'_>) -> bool {
    let named = |name: &str| TOOLS.iter().any(|known| name.starts_with(known));
    match tool.get("type").and_then(Value::text) {
        Some(kind) => named(kind),
        None => tool.members().iter().any(|member| named(&member.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(protocol: Protocol, body: &str) -> Vec<u8> {
        let mut form = Vec::new();
        canonical::write(&Value::parse(body.as_bytes()).expect("JSON"), &Fields::new(protocol, &[]), &mut form);
        form
    }

    /// Whether two bodies, given without their braces, have one key.
    fn same(protocol: Protocol, one: &str, other: &str) -> bool {
        form(protocol, &format!("{{{one}}}")) == form(protocol, &format!("{{{other}}}"))
    }

    #[test]
    fn what_is_no_part_of_the_key() {
        let bare = r#""model":"m","messages":[]"#;
        for more in [
            r#""user":"u""#,
            r#""stream":true"#,
            r#""stream_options":{"include_usage":true}"#,
            r#""metadata":{"a":"b"}"#,
            r#""prompt_cache_key":"k""#,
            r#""service_tier":"flex""#,
            r#""cache":{"ttl":1}"#,
            r#""safety_identifier":"x""#,
        ] {
            assert!(same(Protocol::Openai, bare, &format!("{more},{bare}")), "{more}");
        }
    }

    #[test]
    fn everything_else_is() {
        let bare = r#""model":"m""#;
        for more in [
            r#""temperature":0"#,
            r#""reasoning_effort":"low""#,
            r#""num_ctx":1"#,
            r#""heard_of_by_nobody":1"#,
            r#""seed":1"#,
            r#""n":2"#,
            r#""a":{"user":"u"}"#,
            r#""tools":[{"input_schema":{"properties":{"cache_control":{}}}}]"#,
        ] {
            for protocol in [Protocol::Openai, Protocol::Anthropic, Protocol::Gemini] {
                assert!(!same(protocol, bare, &format!("{more},{bare}")), "{more}");
            }
        }
        assert!(!same(Protocol::Anthropic, bare, &format!(r#"{bare},"user":"u""#)), "it means nothing there");
    }

    #[test]
    fn marks_are_left_out_where_they_are_marks() {
        let marked = r#""system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}]"#;
        assert!(same(Protocol::Anthropic, marked, r#""system":[{"type":"text","text":"s"}]"#));
        let schema = |mark: &str| format!(r#""tools":[{{"name":"t","input_schema":{{"properties":{{{mark}}}}}}}]"#);
        assert!(!same(Protocol::Anthropic, &schema(r#""cache_control":{}"#), &schema("")), "a property of that name");
    }

    #[test]
    fn what_the_provider_keeps_or_looks_up_is_not_answered_from_here() {
        let of = |body: &str| Stateful::of(&Value::parse(body.as_bytes()).expect("JSON"));
        assert_eq!(of(r#"{"store":true}"#), Some(Stateful::Stored));
        assert_eq!(of(r#"{"store":false,"background":null,"previous_response_id":null}"#), None);
        assert_eq!(of(r#"{"previous_response_id":"r"}"#), Some(Stateful::Continued));
        assert_eq!(of(r#"{"background":true,"store":true}"#), Some(Stateful::Background));
        for tool in [r#"{"type":"web_search_20250305"}"#, r#"{"type":"mcp"}"#, r#"{"google_search":{}}"#] {
            assert_eq!(of(&format!(r#"{{"tools":[{tool}]}}"#)), Some(Stateful::Tool), "{tool}");
        }
        assert_eq!(of(r#"{"tools":[{"type":"function","function":{"name":"web_search"}}]}"#), None);
        assert_eq!(of(r#"{"tools":[{"functionDeclarations":[]}]}"#), None);
    }
}
