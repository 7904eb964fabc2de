//! A message of the stream, and the purge that it asks for. What is not understood in full is refused as a whole.

use redis::Value;
use serde::Deserialize;

use crate::{
    kv::value,
    object::time::Timestamp,
    proxy::purge::{Ack, Hold, PurgeError, PurgeRequest},
};

/// Why a message is rejected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("it was trimmed from the stream before it was handled")]
    Trimmed,
    #[error("`{0}` is no text in UTF-8")]
    NotText(String),
    #[error("`{0}` is no field of a change")]
    Unknown(String),
    #[error("`{0}` is neither \"1\", \"true\" or \"yes\" nor \"0\", \"false\" or \"no\"")]
    Flag(&'static str),
    #[error("`hold` is no duration such as \"5s\"")]
    Hold,
    #[error("`json` stands alone")]
    JsonAndMore,
    #[error("`json`: {0}")]
    Json(serde_json::Error),
    #[error(transparent)]
    Purge(PurgeError),
}

/// A message, as it came.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    /// The stream's id of it.
    pub(super) id: String,
    /// Names and values; `None`: there is nothing left of it.
    pub(super) fields: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Message {
    /// Reads one, as `XREADGROUP` and `XAUTOCLAIM` give it.
    pub(super) fn read(answer: Value) -> Option<Self> {
        let mut parts = value::array(answer).ok()?.into_iter();
        let id = value::text(&parts.next()?).ok()?.to_owned();
        let Some(Value::Array(flat)) = parts.next() else { return Some(Self { id, fields: None }) };
        let mut flat = flat.into_iter().map(|part| value::bytes(part).ok().flatten().unwrap_or_default());
        let mut fields = Vec::new();
        while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
            fields.push((name, value));
        }
        Some(Self { id, fields: Some(fields) })
    }

    /// When it was written, by the clock of Redis or of who wrote it.
    pub(super) fn at(&self) -> Option<Timestamp> {
        let (millis, _) = self.id.split_once('-')?;
        millis.parse().ok().map(Timestamp::from_millis)
    }

    /// The purge that it asks for.
    pub(super) fn request(&self) -> Result<PurgeRequest, Refused> {
        let fields = self.fields.as_ref().ok_or(Refused::Trimmed)?;
        let texts = fields.iter().map(|(name, value)| {
            let name = String::from_utf8_lossy(name).into_owned();
            match std::str::from_utf8(value) {
                Ok(value) => Ok((name, value)),
                Err(_) => Err(Refused::NotText(name)),
            }
        });
        let texts: Vec<(String, &str)> = texts.collect::<Result<_, _>>()?;
        let mut request = match texts.iter().find(|(name, _)| name == "json") {
            Some(_) if texts.len() > 1 => return Err(Refused::JsonAndMore),
            Some((_, json)) => serde_json::from_str(json).map_err(Refused::Json)?,
            None => of_fields(&texts)?,
        };
        // Nobody waits for an answer: it is done with once it is in the log.
        request.ack = Ack::Log;
        request.id.get_or_insert_with(|| format!("change {}", self.id));
        Ok(request)
    }
}

fn of_fields(texts: &[(String, &str)]) -> Result<PurgeRequest, Refused> {
    let mut request = PurgeRequest::default();
    for (name, value) in texts {
        match &name[..] {
            "tags" => request.tags.extend(words(value, |c| c.is_whitespace() || c == ',')),
            "urls" => request.urls.extend(words(value, char::is_whitespace)),
            "prefixes" => request.prefixes.extend(words(value, char::is_whitespace)),
            "hosts" => request.hosts.extend(words(value, char::is_whitespace)),
            "keys" => request.keys.extend(words(value, char::is_whitespace)),
            "all" => request.all = flag("all", value)?,
            "soft" => request.soft = flag("soft", value)?,
            "refresh" => request.refresh = flag("refresh", value)?,
            "hold" => request.hold = Some(hold(value)?),
            "id" => request.id = Some((*value).to_owned()),
            _ => return Err(Refused::Unknown(name.chars().take(64).collect())),
        }
    }
    Ok(request)
}

fn words(text: &str, is_between: impl Fn(char) -> bool) -> impl Iterator<Item = String> {
    text.split(is_between).filter(|word| !word.is_empty()).map(str::to_owned)
}

fn flag(name: &'static str, text: &str) -> Result<bool, Refused> {
    match text {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err(Refused::Flag(name)),
    }
}

/// With a unit, or a number of seconds.
fn hold(text: &str) -> Result<Hold, Refused> {
    let json = text.parse::<u64>().map_or_else(|_| serde_json::Value::from(text), serde_json::Value::from);
    Hold::deserialize(json).map_err(|_| Refused::Hold)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn message(fields: &[(&str, &str)]) -> Message {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        Message { id: "1700000000000-3".to_owned(), fields: Some(fields.collect()) }
    }

    fn refused(fields: &[(&str, &str)]) -> String {
        message(fields).request().expect_err("refused").to_string()
    }

    #[test]
    fn fields_name_what_has_changed() {
        let request = message(&[
            ("tags", "product-7, product-8 stock"),
            ("urls", "http://shop.example/7 http://shop.example/8?a=1,2"),
            ("hosts", "a.example"),
            ("soft", "1"),
            ("hold", "5"),
        ])
        .request()
        .expect("a request");
        let expected = PurgeRequest {
            tags: ["product-7", "product-8", "stock"].map(str::to_owned).to_vec(),
            urls: ["http://shop.example/7", "http://shop.example/8?a=1,2"].map(str::to_owned).to_vec(),
            hosts: vec!["a.example".to_owned()],
            soft: true,
            hold: Some(Hold(Duration::from_secs(5))),
            id: Some("change 1700000000000-3".to_owned()),
            ..PurgeRequest::default()
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn a_request_as_json() {
        let request = message(&[("json", r#"{"tags":["a"],"ack":"fleet","id":"deploy-7"}"#)]).request().expect("one");
        assert_eq!((request.ack, request.id.as_deref()), (Ack::Log, Some("deploy-7")));
        assert_eq!(refused(&[("json", "{}"), ("tags", "a")]), "`json` stands alone");
        assert!(refused(&[("json", r#"{"tag":"a"}"#)]).starts_with("`json`: unknown field `tag`"));
    }

    #[test]
    fn half_understood_is_not_understood() {
        assert_eq!(refused(&[("tags", "a"), ("urls ", "b")]), "`urls ` is no field of a change");
        assert!(refused(&[("all", "maybe")]).starts_with("`all` is neither"));
        assert_eq!(refused(&[("tags", "a"), ("hold", "soon")]), "`hold` is no duration such as \"5s\"");
        let other = Message { id: "1-1".to_owned(), fields: Some(vec![(b"tags".to_vec(), vec![0xff])]) };
        assert_eq!(other.request().expect_err("refused").to_string(), "`tags` is no text in UTF-8");
        let gone = Message { id: "1-1".to_owned(), fields: None };
        assert!(matches!(gone.request(), Err(Refused::Trimmed)));
    }

    #[test]
    fn read_as_redis_gives_it() {
        let bytes = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let one = Value::Array(vec![bytes("5-1"), Value::Array(vec![bytes("tags"), bytes("a")])]);
        let read = Message::read(one).expect("a message");
        assert_eq!((&read.id[..], read.at()), ("5-1", Some(Timestamp::from_millis(5))));
        assert_eq!(read.fields, Some(vec![(b"tags".to_vec(), b"a".to_vec())]));
        let gone = Message::read(Value::Array(vec![bytes("5-2"), Value::Nil])).expect("a message");
        assert_eq!(gone.fields, None);
        assert_eq!(Message::read(Value::Nil), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(fields: Vec<(Vec<u8>, Vec<u8>)>, id: String) {
            let message = Message { id, fields: Some(fields) };
            let _ = (message.at(), message.request());
        }

        #[test]
        fn tags_are_never_blank(text: String) {
            let request = message(&[("tags", &text)]).request().expect("tags are any text");
            prop_assert!(request.tags.iter().all(|tag| !tag.is_empty() && !tag.contains(',') && tag.trim() == tag));
        }
    }
}
