//! A stored answer under an id of its own, for who tells calls apart by the ids of their answers.
//!
//! The provider's id is replaced wherever it stands, by one that looks like it and is as long. All other bytes stay.

use bytes::Bytes;
use memchr::memmem;

use crate::{
    cache::{body::Body, call::Answer},
    llm::{
        events::{Event, Splitter},
        json::Value,
    },
};

/// Shorter ones might stand elsewhere by chance.
const SHORTEST: usize = 12;

/// The same answer under another id, where it has one and is in memory.
pub(super) fn renamed(mut answer: Answer) -> Answer {
    answer.response = answer.response.map(|body| match body {
        Body::Full(content) => Body::Full(under_another_id(content)),
        other => other,
    });
    answer
}

fn under_another_id(content: Bytes) -> Bytes {
    let Some(id) = id(&content).filter(|id| id.len() >= SHORTEST) else { return content };
    let mut random = vec![0; id.len()];
    if getrandom::fill(&mut random).is_err() {
        return content;
    }
    let new = like(id.as_bytes(), &random);
    let mut renamed = content.to_vec();
    for place in memmem::find_iter(&content, id.as_bytes()) {
        renamed[place..place + new.len()].copy_from_slice(&new);
    }
    renamed.into()
}

/// The id that the answer, or the first event that has one, says of itself.
fn id(content: &[u8]) -> Option<String> {
    if let Ok(answer) = Value::parse(content) {
        return named(&answer);
    }
    let mut start = 0;
    for end in Splitter::default().ends(content) {
        let event = Event::parse(&content[start..end]);
        let message = event.as_ref().and_then(|event| Value::parse(event.data.as_bytes()).ok());
        if let Some(id) = message.as_ref().and_then(named) {
            return Some(id);
        }
        start = end;
    }
    None
}

fn named(answer: &Value<'_>) -> Option<String> {
    let inner = || ["response", "message"].iter().find_map(|name| answer.get(name)?.get("id"));
    let id = answer.get("id").or_else(|| answer.get("responseId")).or_else(inner)?;
    let text = id.text()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.bytes().all(is_plain).then(|| text.to_owned())
}

/// An id of the same form: what stands before its last sign, such as `chatcmpl-`, is what it is an id of.
fn like(id: &[u8], random: &[u8]) -> Vec<u8> {
    let kind = id.iter().position(|byte| matches!(byte, b'-' | b'_')).map_or(0, |sign| sign + 1);
    let pick = |letters: &[u8], random: u8| letters[usize::from(random) % letters.len()];
    let other = |(place, (&byte, &random)): (usize, (&u8, &u8))| match byte {
        _ if place < kind => byte,
        b'0'..=b'9' => pick(b"0123456789", random),
        b'a'..=b'f' => pick(b"abcdef", random),
        b'g'..=b'z' => pick(b"ghijklmnopqrstuvwxyz", random),
        b'A'..=b'Z' => pick(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", random),
        sign => sign,
    };
    id.iter().zip(random).enumerate().map(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(text: &str) -> String {
        String::from_utf8(under_another_id(Bytes::copy_from_slice(text.as_bytes())).to_vec()).expect("text")
    }

    fn id_of(text: &str) -> String {
        id(text.as_bytes()).expect("an id")
    }

    #[test]
    fn wherever_it_stands() {
        for text in [
            r#"{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","choices":[]}"#,
            "data: {\"id\":\"chatcmpl-B9MBs8Cjcv\"}\n\ndata: {\"id\":\"chatcmpl-B9MBs8Cjcv\",\"x\":1}\n\ndata: [DONE]\n\n",
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_01XFDUDYJgAACzvnptvVoYEL\"}}\n\n",
            r#"{"responseId":"a6FdaMTgHJK4kdUP","candidates":[]}"#,
        ] {
            let (old, new) = (id_of(text), renamed(text));
            assert_ne!(id_of(&new), old, "{text}");
            assert_eq!((new.len(), new.matches(&old).count()), (text.len(), 0), "{text}");
            assert_eq!(new.replace(&id_of(&new), &old), text, "all else stays");
            let kind = old.find(['-', '_']).map_or("", |sign| &old[..=sign]);
            assert!(id_of(&new).starts_with(kind));
        }
    }

    #[test]
    fn what_has_none_stays() {
        for text in
            ["", "{}", "hello", r#"{"id":"short"}"#, r#"{"id":7}"#, r#"{"id":"with a blank in it"}"#, "data: x\n\n"]
        {
            assert_eq!(renamed(text), text);
        }
    }
}
