//! A purge as its caller writes it.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

use crate::purge;

/// What to purge, and how. At least one selector has to be given.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeRequest {
    /// Absolute URLs, as a client of the gateway names them. All variants of each go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["http://shop.example/products/7"]))]
    pub urls: Vec<String>,
    /// Keys, as `explain` shows them: 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Tags, as the origin gave them in `Surrogate-Key`, `Cache-Tag` and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["product-7"]))]
    pub tags: Vec<String>,
    /// Path prefixes at a segment boundary: `http://shop.example/products` or `shop.example/products`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Whole hosts: `shop.example`, `shop.example:8080`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Everything. Stands alone.
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
    /// Make stale instead of unusable: revalidated on the next request, and still there if the origin fails.
    #[serde(skip_serializing_if = "is_false")]
    pub soft: bool,
    /// Fetch the most asked-for of what was purged again.
    #[serde(skip_serializing_if = "is_false")]
    pub refresh: bool,
    /// Purge nothing: only count what would be.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// What the reply waits for. Without other nodes all three mean: durable and applied here.
    pub ack: Ack,
    /// For so long after the purge, nothing of what it names is stored for longer than the rest of it: `"5s"`, or
    /// seconds. For origins whose own replicas lag behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5s")]
    pub hold: Option<Hold>,
    /// A name of the caller's own for this purge: said again, it is the same purge and not another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What the reply to a purge waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ack {
    /// Durable and applied on this node; other nodes have it as soon as Redis takes it.
    Local,
    /// In the log of all nodes, on a replica of Redis where there is one, and applied on this node.
    #[default]
    Log,
    /// Applied on every live node; one that cannot be reached has nothing to serve any more.
    Fleet,
}

impl From<Ack> for purge::Ack {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Local => Self::Local,
            Ack::Log => Self::Log,
            Ack::Fleet => Self::Fleet,
        }
    }
}

/// A duration written as `"1m 30s"` or as a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold(pub Duration);

// === impl Hold ===

impl Serialize for Hold {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Hold {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(HoldVisitor)
    }
}

struct HoldVisitor;

impl de::Visitor<'_> for HoldVisitor {
    type Value = Hold;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"5s\", or a number of seconds")
    }

    fn visit_u64<E: de::Error>(self, secs: u64) -> Result<Hold, E> {
        Ok(Hold(Duration::from_secs(secs)))
    }

    fn visit_f64<E: de::Error>(self, secs: f64) -> Result<Hold, E> {
        Duration::try_from_secs_f64(secs).map(Hold).map_err(|_| E::invalid_value(de::Unexpected::Float(secs), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Hold, E> {
        humantime::parse_duration(text).map(Hold).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_being_written_and_read() {
        let json = r#"{"tags":["a"],"soft":true,"ack":"fleet","hold":"5s"}"#;
        let request: PurgeRequest = serde_json::from_str(json).expect("a purge request");
        assert_eq!(serde_json::to_string(&request).expect("JSON"), json);
        assert!(serde_json::from_str::<PurgeRequest>(r#"{"tag":["a"]}"#).is_err());
    }
}
