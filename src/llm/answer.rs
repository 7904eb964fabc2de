//! Whether an answer is whole and worth keeping, and what it used: read from its bytes as they pass.
//!
//! A status of 200 says little here: streams break off, errors come inside of them, and what a filter cut short is no answer.
//! Only what ends as its protocol says it ends, with no error in it, is stored.

use super::{
    endpoint::{Endpoint, Protocol},
    events::{Event, Splitter},
    json::{Kind, Value},
};

/// Longest event that is looked into; a longer one makes its stream one that is not stored.
pub const EVENT_BYTES_MAX: usize = 16 << 20;

/// Why an answer is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The end its protocol has was not seen.
    Incomplete,
    /// It tells of an error.
    Error,
    /// It was refused, or a filter cut it short.
    Filtered,
    /// It ended at a limit that the request did not set.
    CutShort,
    /// It cannot be read.
    Unreadable,
}

/// Tokens an answer says it cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Those of the request, those read from the provider's own cache included.
    pub input: u64,
    /// Of these, those read from the provider's own cache.
    pub cached: u64,
    /// Those of the answer.
    pub output: u64,
}

/// What an answer that has passed was.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What it says that it cost.
    pub usage: Usage,
    /// The model that gave it.
    pub model: Option<Box<str>>,
    /// Whether it may be stored.
    pub fit: Result<(), Unfit>,
    /// Whether it came as server-sent events.
    pub stream: bool,
}

/// Watches one answer pass.
#[derive(Debug)]
pub struct Watcher {
    protocol: Protocol,
    endpoint: Endpoint,
    /// Whether the request set a limit to the answer's length.
    limited: bool,
    stream: Option<Stream>,
    usage: Usage,
    /// Of a stream, how many have come.
    events: u64,
    model: Option<Box<str>>,
    unfit: Option<Unfit>,
    ended: bool,
    /// Whether any choice ended in a way that says why.
    finished: bool,
}

#[derive(Debug, Default)]
struct Stream {
    splitter: Splitter,
    /// An event that has begun.
    event: Vec<u8>,
}

impl Unfit {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Error => "error-within",
            Self::Filtered => "filtered",
            Self::CutShort => "cut-short",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Watcher {
    /// Of an answer to that call; `stream`: it comes as server-sent events.
    pub fn new(protocol: Protocol, endpoint: Endpoint, stream: bool, limited: bool) -> Self {
        let stream = stream.then(Stream::default);
        Self {
            protocol,
            endpoint,
            limited,
            stream,
            usage: Usage::default(),
            events: 0,
            model: None,
            unfit: None,
            ended: false,
            finished: false,
        }
    }

    /// The next bytes of a stream; those of other answers are looked at when they are whole.
    pub fn piece(&mut self, piece: &[u8]) {
        let Some(mut stream) = self.stream.take() else { return };
        let mut start = 0;
        for end in stream.splitter.ends(piece) {
            stream.event.extend_from_slice(&piece[start..end]);
            start = end;
            self.event(&stream.event);
            stream.event.clear();
        }
        stream.event.extend_from_slice(&piece[start..]);
        if stream.event.len() > EVENT_BYTES_MAX {
            self.unfit(Unfit::Unreadable);
            stream.event.clear();
        }
        self.stream = Some(stream);
    }

    /// Whether it comes as server-sent events, so that nothing need be kept of it.
    pub fn is_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// How many events of a stream have come.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Whether it is known by now that it will not be stored.
    pub fn is_unfit(&self) -> bool {
        self.unfit.is_some()
    }

    /// What came of it; `whole` is the content of an answer that is no stream.
    pub fn end(mut self, whole: Option<&[u8]>) -> Seen {
        if let (None, Some(whole)) = (&self.stream, whole) {
            self.whole(whole);
        }
        let fit = match self.unfit {
            Some(unfit) => Err(unfit),
            None if self.has_ended() => Ok(()),
            None => Err(Unfit::Incomplete),
        };
        Seen { usage: self.usage, model: self.model, fit, stream: self.stream.is_some() }
    }

    fn whole(&mut self, whole: &[u8]) {
        // Transcriptions come as plain text, subtitles or JSON, as was asked for.
        let any_text = self.endpoint == Endpoint::Transcriptions;
        match Value::parse(whole) {
            // Gemini's streams without `alt=sse` are a list of messages.
            Ok(Value { kind: Kind::Array(messages), .. }) => {
                messages.iter().for_each(|message| self.message(message));
                self.ended = self.finished;
            }
            Ok(answer) => {
                self.message(&answer);
                self.ended = true;
            }
            Err(_) if any_text && std::str::from_utf8(whole).is_ok() => self.ended = true,
            Err(_) => self.unfit(Unfit::Unreadable),
        }
    }

    /// Gemini has no mark for the end of a stream: it is where a reason was given.
    fn has_ended(&self) -> bool {
        self.ended || (self.protocol == Protocol::Gemini && self.finished)
    }

    fn unfit(&mut self, unfit: Unfit) {
        self.unfit.get_or_insert(unfit);
    }

    fn event(&mut self, bytes: &[u8]) {
        let Some(Event { name, data }) = Event::parse(bytes) else { return };
        self.events += 1;
        if data.trim() == "[DONE]" {
            self.ended = true;
            return;
        }
        if name == "error" {
            return self.unfit(Unfit::Error);
        }
        let Ok(message) = Value::parse(data.as_bytes()) else { return self.unfit(Unfit::Unreadable) };
        match message.get("type").and_then(Value::text).unwrap_or(name) {
            "response.completed" | "message_stop" => self.ended = true,
            "response.failed" | "error" => self.unfit(Unfit::Error),
            "response.incomplete" => self.incomplete(message.get("response")),
            _ => {}
        }
        let inner =
            message.get("response").or_else(|| message.get("message")).filter(|inner| !inner.members().is_empty());
        self.message(inner.unwrap_or(&message));
        if let Some(delta) = message.get("delta") {
            self.reason(delta);
        }
    }

    /// A whole answer, or one piece of a stream, in any of the protocols: their fields do not get in each other's way.
    fn message(&mut self, message: &Value<'_>) {
        if message.get("error").is_some_and(|error| !error.is_null()) {
            self.unfit(Unfit::Error);
        }
        if message.get("status").and_then(Value::text) == Some("incomplete") {
            self.incomplete(Some(message));
        }
        for name in ["choices", "candidates"] {
            message.get(name).map(Value::elements).unwrap_or_default().iter().for_each(|choice| self.reason(choice));
        }
        self.reason(message);
        if let Some(model) = message.get("model").or_else(|| message.get("modelVersion")).and_then(Value::text) {
            self.model.get_or_insert_with(|| model.into());
        }
        for name in ["usage", "usageMetadata"] {
            if let Some(usage) = message.get(name) {
                self.usage(usage);
            }
        }
        let blocked = message.get("promptFeedback").and_then(|feedback| feedback.get("blockReason"));
        if blocked.is_some_and(|reason| !reason.is_null()) {
            self.unfit(Unfit::Filtered);
        }
    }

    /// Why an answer, or one of several, ended.
    fn reason(&mut self, choice: &Value<'_>) {
        let reason = ["finish_reason", "stop_reason", "finishReason"].iter().find_map(|name| choice.get(name)?.text());
        let Some(reason) = reason else { return };
        self.finished = true;
        match reason {
            "content_filter" | "refusal" => self.unfit(Unfit::Filtered),
            "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "IMAGE_SAFETY" => {
                self.unfit(Unfit::Filtered);
            }
            "length" | "max_tokens" | "MAX_TOKENS" if !self.limited => self.unfit(Unfit::CutShort),
            "pause_turn" | "MALFORMED_FUNCTION_CALL" | "OTHER" | "error" => self.unfit(Unfit::Incomplete),
            _ => {}
        }
    }

    /// A response of OpenAI's that is not complete says why.
    fn incomplete(&mut self, response: Option<&Value<'_>>) {
        let reason = response.and_then(|response| response.get("incomplete_details")?.get("reason")?.text());
        match reason {
            Some("max_output_tokens") if self.limited => self.ended = true,
            Some("max_output_tokens") => self.unfit(Unfit::CutShort),
            Some("content_filter") => self.unfit(Unfit::Filtered),
            _ => self.unfit(Unfit::Incomplete),
        }
    }

    /// Counts grow in a stream; the last one counts.
    fn usage(&mut self, usage: &Value<'_>) {
        let number = |names: &[&str]| names.iter().find_map(|name| usage.get(name)?.whole());
        let nested = |name: &str| usage.get(name).and_then(|details| details.get("cached_tokens")?.whole());
        let input = number(&["prompt_tokens", "input_tokens", "promptTokenCount"]);
        let output = number(&["completion_tokens", "output_tokens", "candidatesTokenCount"]);
        // Anthropic counts what it had cached apart from the rest.
        let apart = usage.get("cache_read_input_tokens").and_then(Value::whole);
        let created = usage.get("cache_creation_input_tokens").and_then(Value::whole).unwrap_or(0);
        let within = nested("prompt_tokens_details").or_else(|| nested("input_tokens_details"));
        let within = within.or_else(|| number(&["cachedContentTokenCount"]));
        if let Some(input) = input {
            self.usage.input = input.saturating_add(apart.unwrap_or(0)).saturating_add(created);
        }
        if let Some(cached) = apart.or(within) {
            self.usage.cached = cached;
        }
        if let Some(output) = output {
            let thoughts = number(&["thoughtsTokenCount"]).unwrap_or(0);
            self.usage.output = output.saturating_add(thoughts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seen: Seen) -> Result<Usage, Unfit> {
        seen.fit.map(|()| seen.usage)
    }

    fn whole(protocol: Protocol, body: &str) -> Result<Usage, Unfit> {
        of(Watcher::new(protocol, Endpoint::ChatCompletions, false, false).end(Some(body.as_bytes())))
    }

    fn stream(protocol: Protocol, limited: bool, events: &[&str]) -> Result<Usage, Unfit> {
        let mut watcher = Watcher::new(protocol, Endpoint::ChatCompletions, true, limited);
        for event in events {
            let bytes = format!("data: {event}\n\n");
            let (one, other) = bytes.as_bytes().split_at(bytes.len() / 2);
            watcher.piece(one);
            watcher.piece(other);
        }
        of(watcher.end(None))
    }

    #[test]
    fn whole_answers() {
        let answer = r#"{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":7,
            "prompt_tokens_details":{"cached_tokens":3}}}"#;
        assert_eq!(whole(Protocol::Openai, answer), Ok(Usage { input: 5, cached: 3, output: 7 }));
        let answer = r#"{"type":"message","stop_reason":"end_turn","usage":{"input_tokens":2,"output_tokens":9,
            "cache_read_input_tokens":100,"cache_creation_input_tokens":10}}"#;
        assert_eq!(whole(Protocol::Anthropic, answer), Ok(Usage { input: 112, cached: 100, output: 9 }));
        assert_eq!(whole(Protocol::Openai, r#"{"error":{"message":"overloaded"}}"#), Err(Unfit::Error));
        assert_eq!(whole(Protocol::Openai, r#"{"error":null,"choices":[]}"#), Ok(Usage::default()));
        assert_eq!(
            whole(Protocol::Openai, r#"{"choices":[{"finish_reason":"content_filter"}]}"#),
            Err(Unfit::Filtered)
        );
        assert_eq!(whole(Protocol::Openai, r#"{"choices":[{"finish_reason":"length"}]}"#), Err(Unfit::CutShort));
        assert_eq!(whole(Protocol::Openai, r#"{"choices":["#), Err(Unfit::Unreadable));
        assert_eq!(whole(Protocol::Gemini, r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#), Err(Unfit::Filtered));
    }

    #[test]
    fn a_stream_is_whole_when_its_protocol_says_so() {
        let openai =
            [r#"{"choices":[{"delta":{"content":"a"}}]}"#, r#"{"choices":[{"finish_reason":"stop"}]}"#, "[DONE]"];
        assert_eq!(stream(Protocol::Openai, false, &openai), Ok(Usage::default()));
        assert_eq!(stream(Protocol::Openai, false, &openai[..2]), Err(Unfit::Incomplete));
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        let with_usage = [openai[0], openai[1], usage, "[DONE]"];
        assert_eq!(stream(Protocol::Openai, false, &with_usage), Ok(Usage { input: 1, cached: 0, output: 2 }));
        let anthropic = [
            r#"{"type":"message_start","message":{"stop_reason":null,"usage":{"input_tokens":3,"output_tokens":1}}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":8}}"#,
            r#"{"type":"message_stop"}"#,
        ];
        assert_eq!(stream(Protocol::Anthropic, false, &anthropic), Ok(Usage { input: 3, cached: 0, output: 8 }));
        assert_eq!(stream(Protocol::Anthropic, false, &anthropic[..2]), Err(Unfit::Incomplete));
        let responses = [
            r#"{"type":"response.completed","response":{"status":"completed","usage":{"input_tokens":4,"output_tokens":6}}}"#,
        ];
        assert_eq!(stream(Protocol::Openai, false, &responses), Ok(Usage { input: 4, cached: 0, output: 6 }));
        let gemini = [r#"{"candidates":[{"content":{}}]}"#, r#"{"candidates":[{"finishReason":"STOP"}]}"#];
        assert_eq!(stream(Protocol::Gemini, false, &gemini), Ok(Usage::default()));
        assert_eq!(stream(Protocol::Gemini, false, &gemini[..1]), Err(Unfit::Incomplete));
    }

    #[test]
    fn errors_within_a_stream() {
        let error = r#"{"error":{"message":"no"}}"#;
        assert_eq!(stream(Protocol::Openai, false, &[error, "[DONE]"]), Err(Unfit::Error));
        let overloaded = r#"{"type":"error","error":{"type":"overloaded_error"}}"#;
        assert_eq!(stream(Protocol::Anthropic, false, &[overloaded]), Err(Unfit::Error));
        let refused = [r#"{"type":"message_delta","delta":{"stop_reason":"refusal"}}"#, r#"{"type":"message_stop"}"#];
        assert_eq!(stream(Protocol::Anthropic, false, &refused), Err(Unfit::Filtered));
        let failed = r#"{"type":"response.failed","response":{"error":{"code":"x"}}}"#;
        assert_eq!(stream(Protocol::Openai, false, &[failed]), Err(Unfit::Error));
    }

    #[test]
    fn a_limit_counts_where_the_request_set_it() {
        let cut = [r#"{"choices":[{"finish_reason":"length"}]}"#, "[DONE]"];
        assert_eq!(stream(Protocol::Openai, true, &cut), Ok(Usage::default()));
        assert_eq!(stream(Protocol::Openai, false, &cut), Err(Unfit::CutShort));
        let incomplete =
            [r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"}}}"#];
        assert_eq!(stream(Protocol::Openai, true, &incomplete), Ok(Usage::default()));
        assert_eq!(stream(Protocol::Openai, false, &incomplete), Err(Unfit::CutShort));
    }
}
