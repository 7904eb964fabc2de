//! What an answer says: its text, and the tools it calls, without all that differs each time.

use crate::llm::{
    events::{Event, Splitter},
    json::Value,
};

/// The text of an answer in any of the protocols; `None` where it says nothing, or cannot be read.
pub fn said(content: &[u8], stream: bool) -> Option<String> {
    let mut said = String::new();
    if stream {
        let (mut splitter, mut start) = (Splitter::default(), 0);
        for end in splitter.ends(content) {
            event(&content[start..end], &mut said);
            start = end;
        }
    } else {
        let answer = Value::parse(content).ok()?;
        match answer.elements() {
            [] => message(&answer, &mut said),
            // Gemini's streams without `alt=sse` are a list.
            messages => messages.iter().for_each(|one| message(one, &mut said)),
        }
    }
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    (!said.is_empty()).then_some(said)
}

fn event(bytes: &[u8], said: &mut String) {
    let Some(Event { data, .. }) = Event::parse(bytes) else { return };
    let Ok(value) = Value::parse(data.as_bytes()) else { return };
    match value.get("delta") {
        // OpenAI's responses: the text itself, or a tool's arguments.
        Some(delta) if delta.text().is_some() => put(Some(delta), said),
        // Anthropic's.
        Some(delta) => ["text", "partial_json"].iter().for_each(|name| put(delta.get(name), said)),
        None => {}
    }
    put(value.get("content_block").and_then(|block| block.get("name")), said);
    for name in ["choices", "candidates"] {
        elements(value.get(name)).iter().for_each(|choice| one_choice(choice, said));
    }
}

fn message(answer: &Value<'_>, said: &mut String) {
    for name in ["choices", "candidates"] {
        elements(answer.get(name)).iter().for_each(|choice| one_choice(choice, said));
    }
    blocks(answer.get("content"), said);
    for item in elements(answer.get("output")) {
        call(item, said);
        blocks(item.get("content"), said);
    }
}

fn one_choice(choice: &Value<'_>, said: &mut String) {
    put(choice.get("text"), said);
    for within in ["message", "delta"].iter().filter_map(|name| choice.get(name)) {
        blocks(within.get("content"), said);
        for tool in elements(within.get("tool_calls")) {
            tool.get("function").inspect(|function| call(function, said));
        }
    }
    if let Some(content) = choice.get("content") {
        blocks(content.get("parts"), said);
    }
}

/// A text, or a list of what has one.
fn blocks(content: Option<&Value<'_>>, said: &mut String) {
    put(content, said);
    for block in elements(content) {
        put(block.get("text"), said);
        call(block, said);
        block.get("functionCall").inspect(|function| call(function, said));
    }
}

/// A tool's name and arguments.
fn call(function: &Value<'_>, said: &mut String) {
    put(function.get("name"), said);
    put(function.get("arguments"), said);
    for arguments in ["input", "args"].iter().filter_map(|name| function.get(name)) {
        arguments.members().iter().for_each(|argument| put(Some(&argument.value), said));
    }
}

fn elements<'b, 'a>(value: Option<&'b Value<'a>>) -> &'b [Value<'a>] {
    value.map(Value::elements).unwrap_or_default()
}

fn put(value: Option<&Value<'_>>, said: &mut String) {
    if let Some(text) = value.and_then(Value::text) {
        said.push_str(text);
    }
}

/// How much two texts have in common, from 0 to 1, by their words alone: the cosine of how often each has which.
pub fn likeness_by_words(one: &str, other: &str) -> f64 {
    let count = |text: &str| {
        let mut counts = std::collections::HashMap::<String, f64>::new();
        let words = text.split(|one: char| !one.is_alphanumeric()).filter(|word| !word.is_empty());
        words.for_each(|word| *counts.entry(word.to_lowercase()).or_default() += 1.0);
        counts
    };
    let (one, other) = (count(one), count(other));
    let length = |counts: &std::collections::HashMap<String, f64>| counts.values().map(|n| n * n).sum::<f64>().sqrt();
    let common: f64 = one.iter().filter_map(|(word, n)| Some(n * other.get(word)?)).sum();
    let lengths = length(&one) * length(&other);
    if lengths > 0.0 { common / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_answers() {
        for answer in [
            r#"{"id":"1","choices":[{"message":{"content":"two  words"}}]}"#,
            r#"{"choices":[{"text":"two words"}]}"#,
            r#"{"content":[{"type":"text","text":"two "},{"type":"text","text":"words"}]}"#,
            r#"{"output":[{"type":"message","content":[{"type":"output_text","text":"two words"}]}]}"#,
            r#"{"candidates":[{"content":{"parts":[{"text":"two words"}]}}]}"#,
            r#"[{"candidates":[{"content":{"parts":[{"text":"two "}]}}]},{"candidates":[{"content":{"parts":[{"text":"words"}]}}]}]"#,
        ] {
            assert_eq!(said(answer.as_bytes(), false).as_deref(), Some("two words"), "{answer}");
        }
        for answer in ["", "{", "{}", r#"{"choices":[]}"#] {
            assert_eq!(said(answer.as_bytes(), false), None, "{answer}");
        }
        let tool = br#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"x","function":{"name":"f","arguments":"{1}"}}]}}]}"#;
        assert_eq!(said(tool, false).as_deref(), Some("f{1}"));
    }

    #[test]
    fn streams() {
        let stream = |events: &[&str]| events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>();
        for events in [
            &[
                r#"{"choices":[{"delta":{"content":"two "}}]}"#,
                r#"{"choices":[{"delta":{"content":"words"}}]}"#,
                "[DONE]",
            ][..],
            &[r#"{"type":"content_block_delta","delta":{"text":"two "}}"#, r#"{"delta":{"text":"words"}}"#],
            &[r#"{"type":"response.output_text.delta","delta":"two words"}"#, r#"{"type":"response.completed"}"#],
            &[r#"{"candidates":[{"content":{"parts":[{"text":"two words"}]}}]}"#],
        ] {
            assert_eq!(said(stream(events).as_bytes(), true).as_deref(), Some("two words"), "{events:?}");
        }
    }

    #[test]
    fn words_in_common() {
        assert!((likeness_by_words("a b c", "C, b; a!") - 1.0).abs() < 1e-9);
        assert!(likeness_by_words("a b", "c d").abs() < 1e-9);
        assert!(likeness_by_words("", "").abs() < 1e-9);
        assert!((likeness_by_words("a b", "a c") - 0.5).abs() < 1e-9);
    }
}
