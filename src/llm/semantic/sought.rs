//! The one text of a call that may be put in other words, and the frame around it.

use std::cell::RefCell;

use super::facts::Facts;
use crate::llm::{
    canonical::{self, Part, Rules},
    endpoint::Endpoint,
    fields::Fields,
    json::{Kind, Value},
    path::Path,
};

/// What a similar call is looked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    /// The text of the last message, which is the user's.
    pub text: String,
    /// A hash of everything else that the body means, and of the facts of the text.
    pub frame: [u8; 32],
}

/// Why a call is compared with none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsought {
    /// It does not end with one plain text of the user's: an image, a tool's result, several texts, or no text at all.
    NoText,
    /// The text is longer than the window. What is beyond it would not count, and might be all that matters.
    TooLong,
}

impl Unsought {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoText => "no-text",
            Self::TooLong => "too-long",
        }
    }
}

/// Whether calls of that kind can be compared by what they say.
pub fn is_comparable(endpoint: Endpoint) -> bool {
    matches!(
        endpoint,
        Endpoint::ChatCompletions
            | Endpoint::Messages
            | Endpoint::Responses
            | Endpoint::Completions
            | Endpoint::GenerateContent
            | Endpoint::StreamGenerateContent
    )
}

impl Sought {
    /// Of a call's content; a text has up to `window` characters.
    ///
    /// # Errors
    /// Where there is no one such text.
    pub fn of(endpoint: Endpoint, body: &[u8], fields: &Fields<'_>, window: usize) -> Result<Self, Unsought> {
        let body = Value::parse(body).map_err(|_| Unsought::NoText)?;
        let value = last_text(endpoint, &body).ok_or(Unsought::NoText)?;
        let without = Without { fields, at: value.span.start, text: RefCell::default() };
        let mut hash = blake3::Hasher::new();
        canonical::write(&body, &without, &mut hash);
        let text = without.text.into_inner().ok_or(Unsought::NoText)?;
        if text.trim().is_empty() {
            return Err(Unsought::NoText);
        }
        if text.chars().nth(window).is_some() {
            return Err(Unsought::TooLong);
        }
        hash.update(&Facts::of(&text).hash());
        Ok(Self { text, frame: *hash.finalize().as_bytes() })
    }
}

/// The rules of keys, but for one text, which is taken out.
struct Without<'f, 'v> {
    fields: &'f Fields<'v>,
    /// First byte of that text, quote included: no other value begins there.
    at: usize,
    /// The text, without what changes from call to call and means nothing.
    text: RefCell<Option<String>>,
}

impl Rules for Without<'_, '_> {
    fn part(&self, path: &Path<'_>, value: &Value<'_>) -> Part {
        let part = self.fields.part(path, value);
        if value.span.start != self.at {
            return part;
        }
        let text = match (&part, value.text()) {
            (Part::In, Some(text)) => text.to_owned(),
            (Part::As(text), Some(_)) => text.clone(),
            _ => return part,
        };
        self.text.replace(Some(text));
        Part::As(String::new())
    }
}

/// The text of the last message, where that is the user's and nothing but a text.
fn last_text<'b, 'a>(endpoint: Endpoint, body: &'b Value<'a>) -> Option<&'b Value<'a>> {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Messages => {
            let last = body.get("messages")?.elements().last().filter(|last| is_users(last, false))?;
            one_text(last.get("content")?)
        }
        Endpoint::Responses => {
            let input = body.get("input")?;
            if input.text().is_some() {
                return Some(input);
            }
            let last = input.elements().last().filter(|last| is_users(last, false))?;
            let is_message = last.get("type").is_none_or(|kind| kind.text() == Some("message"));
            one_text(last.get("content").filter(|_| is_message)?)
        }
        Endpoint::Completions => body.get("prompt").filter(|prompt| prompt.text().is_some()),
        Endpoint::GenerateContent | Endpoint::StreamGenerateContent => {
            let last = body.get("contents")?.elements().last().filter(|last| is_users(last, true))?;
            let [part] = last.get("parts")?.elements() else { return None };
            // A text with anything beside it is not only a text.
            let [member] = part.members() else { return None };
            (member.name == "text" && member.value.text().is_some()).then_some(&member.value)
        }
        _ => None,
    }
}

fn is_users(message: &Value<'_>, by_default: bool) -> bool {
    message.get("role").map_or(by_default, |role| role.text() == Some("user"))
}

/// A text, or a list of one block that is a text.
fn one_text<'b, 'a>(content: &'b Value<'a>) -> Option<&'b Value<'a>> {
    match &content.kind {
        Kind::String(_) => Some(content),
        Kind::Array(blocks) => {
            let [block] = &blocks[..] else { return None };
            let kind = block.get("type").and_then(Value::text)?;
            let text = block.get("text").filter(|text| text.text().is_some())?;
            matches!(kind, "text" | "input_text").then_some(text)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::llm::endpoint::Protocol;

    fn sought(endpoint: Endpoint, body: &serde_json::Value) -> Result<Sought, Unsought> {
        let protocol = match endpoint {
            Endpoint::Messages => Protocol::Anthropic,
            Endpoint::GenerateContent => Protocol::Gemini,
            _ => Protocol::Openai,
        };
        Sought::of(endpoint, body.to_string().as_bytes(), &Fields::new(protocol, &[]), 100)
    }

    fn text(endpoint: Endpoint, body: &serde_json::Value) -> Option<String> {
        sought(endpoint, body).ok().map(|sought| sought.text)
    }

    #[test]
    fn the_text_of_each_endpoint() {
        let user = |content: serde_json::Value| json!({ "messages": [{ "role": "user", "content": content }] });
        for (endpoint, body) in [
            (Endpoint::ChatCompletions, user(json!("hi"))),
            (Endpoint::ChatCompletions, user(json!([{ "type": "text", "text": "hi" }]))),
            (Endpoint::Messages, user(json!([{ "type": "text", "text": "hi", "cache_control": {} }]))),
            (Endpoint::Responses, json!({ "input": "hi" })),
            (Endpoint::Responses, json!({ "input": [{ "role": "user", "content": "hi" }] })),
            (
                Endpoint::Responses,
                json!({ "input": [{ "role": "user", "content": [{ "type": "input_text", "text": "hi" }] }] }),
            ),
            (Endpoint::Completions, json!({ "prompt": "hi" })),
            (Endpoint::GenerateContent, json!({ "contents": [{ "parts": [{ "text": "hi" }] }] })),
        ] {
            assert_eq!(text(endpoint, &body).as_deref(), Some("hi"), "{body}");
        }
    }

    #[test]
    fn what_has_no_one_text() {
        let message =
            |role: &str, content: serde_json::Value| json!({ "messages": [{ "role": role, "content": content }] });
        let image = json!({ "type": "image_url", "image_url": { "url": "https://e.example/" } });
        let one = json!({ "type": "text", "text": "hi" });
        for body in [
            message("assistant", json!("hi")),
            message("tool", json!("hi")),
            message("system", json!("hi")),
            message("user", json!([one, one])),
            message("user", json!([one, image])),
            message("user", json!([image])),
            message("user", json!([{ "type": "tool_result", "text": "hi" }])),
            message("user", json!(" ")),
            message("user", json!(null)),
            json!({ "messages": [] }),
            json!({}),
        ] {
            assert_eq!(sought(Endpoint::ChatCompletions, &body), Err(Unsought::NoText), "{body}");
        }
        assert_eq!(sought(Endpoint::Embeddings, &json!({ "input": "hi" })), Err(Unsought::NoText));
        let file = json!({ "contents": [{ "parts": [{ "text": "hi", "inlineData": {} }] }] });
        assert_eq!(sought(Endpoint::GenerateContent, &file), Err(Unsought::NoText));
        let output = json!({ "input": [{ "type": "function_call_output", "role": "user", "content": "hi" }] });
        assert_eq!(sought(Endpoint::Responses, &output), Err(Unsought::NoText));
    }

    #[test]
    fn a_text_beyond_the_window_is_refused() {
        let body = |length: usize| json!({ "prompt": "é".repeat(length) });
        assert!(sought(Endpoint::Completions, &body(100)).is_ok());
        assert_eq!(sought(Endpoint::Completions, &body(101)), Err(Unsought::TooLong));
    }

    #[test]
    fn an_earlier_message_of_the_same_text_stays() {
        let body = |first: &str, last: &str| json!({ "messages": [{ "role": "user", "content": first }, { "role": "user", "content": last }] });
        let frame = |first, last| sought(Endpoint::ChatCompletions, &body(first, last)).expect("a text").frame;
        assert_eq!(frame("same", "same"), frame("same", "other"));
        assert_ne!(frame("same", "same"), frame("other", "same"));
    }

    fn call() -> impl Strategy<Value = serde_json::Value> {
        let message = ("user|assistant", "[ab]{1,2}").prop_map(|(role, text)| json!({ "role": role, "content": text }));
        let earlier = prop::collection::vec(message, 0..3);
        let tools = prop::option::of("[ab]");
        (earlier, "[ab]", prop::option::of(0..3_i32), tools, "[a-c]{1,3}").prop_map(
            |(mut messages, model, temperature, tools, text)| {
                messages.push(json!({ "role": "user", "content": text }));
                let mut body = json!({ "model": model, "messages": messages });
                if let Some(temperature) = temperature {
                    body["temperature"] = temperature.into();
                }
                if let Some(tool) = tools {
                    body["tools"] = json!([{ "type": "function", "function": { "name": tool } }]);
                }
                body
            },
        )
    }

    /// Without the text of the last message.
    fn rest(mut body: serde_json::Value) -> serde_json::Value {
        let messages = body["messages"].as_array_mut().expect("messages");
        messages.last_mut().expect("one")["content"] = "".into();
        body
    }

    proptest! {
        /// Two calls have one frame just where they differ in nothing but the last text.
        #[test]
        fn prop_frames_are_of_everything_else(one in call(), other in call()) {
            let frame = |body| sought(Endpoint::ChatCompletions, body).expect("a text").frame;
            prop_assert_eq!(frame(&one) == frame(&other), rest(one.clone()) == rest(other.clone()));
        }

        #[test]
        fn prop_nothing_panics(body in ".{0,60}") {
            let _ = Sought::of(Endpoint::Responses, body.as_bytes(), &Fields::new(Protocol::Openai, &[]), 9);
        }
    }
}
