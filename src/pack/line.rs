//! One recorded call, as a line.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

/// A call and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// Name of the route it came by.
    pub route: String,
    /// The call.
    pub request: Request,
    /// The answer.
    pub response: Response,
}

/// A call, without what is nobody's business: credentials, and fields that mean nothing for the answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its path, as the provider gets it.
    pub path: String,
    /// Its query, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Fields that the answer depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<(String, String)>,
    /// Its content.
    pub content: Content,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its fields, but for those of one exchange.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<(String, String)>,
    /// How long the provider took, in milliseconds.
    #[serde(default)]
    pub took_ms: u64,
    /// Its content: of a stream, all events.
    pub content: Content,
}

/// Bytes: as text where they are some.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Text.
    Text(String),
    /// Anything, in base64 (RFC 4648 section 4).
    Base64(String),
}

impl Content {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(BASE64_STANDARD.encode(bytes)),
        }
    }

    /// The bytes; `None` where it is no base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.clone().into_bytes()),
            Self::Base64(text) => BASE64_STANDARD.decode(text).ok(),
        }
    }
}

/// With the end of the line.
pub(super) fn written(recording: &Recording) -> Vec<u8> {
    let mut line = serde_json::to_vec(recording).expect("texts and numbers");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_stay_what_they_are_and_a_line_is_one(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            answer in "\\PC{0,60}|[\r\n\"\\\\ ]{0,9}",
        ) {
            let recording = Recording {
                route: "r".into(),
                request: Request {
                    method: "POST".into(),
                    path: "/".into(),
                    query: Some("a=b".into()),
                    fields: vec![],
                    content: Content::of(&body),
                },
                response: Response { status: 200, fields: vec![], took_ms: 1, content: Content::of(answer.as_bytes()) },
            };
            let line = written(&recording);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let read: Recording = serde_json::from_slice(&line).expect("a line");
            prop_assert_eq!(read.request.content.bytes(), Some(body));
            prop_assert_eq!(read.response.content.bytes(), Some(answer.into_bytes()));
        }
    }
}
