//! What is in an archive, a line of JSON for each entry.

use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use super::plain::escaped;
use crate::{
    archive::{EntryHead, Item},
    object::{codec, time::Timestamp},
    telemetry::mask,
};

/// One entry.
#[derive(Debug, Serialize)]
struct Line {
    /// With the values of secret arguments masked.
    url: String,
    route: String,
    status: u16,
    bytes: u64,
    /// Since the origin made it.
    age_seconds: f64,
    /// Of freshness left; negative: so long stale.
    ttl_seconds: f64,
    #[serde(skip_serializing_if = "String::is_empty")]
    tags: String,
    /// Whether others of the same URL differ by request fields.
    variant: bool,
    /// Whether it is a part of a representation.
    part: bool,
    hits: u32,
    /// The primary key.
    key: String,
}

/// The entry that is being read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    line: Option<String>,
}

impl Listing {
    /// The line of an entry that is whole.
    pub(super) fn line(&mut self, item: Item) -> Option<String> {
        match item {
            Item::Entry(head) => {
                // Nobody has looked yet whose words these are.
                self.line = described(&head, SystemTime::now().into()).as_deref().map(escaped);
                None
            }
            Item::Whole => self.line.take(),
            Item::Header(_) | Item::Content(_) | Item::Dropped | Item::End(_) => None,
        }
    }
}

fn described(head: &EntryHead, now: Timestamp) -> Option<String> {
    let entry = match codec::decode_head(&head.head, Bytes::new()) {
        Ok(entry) => entry,
        Err(error) => return serde_json::to_string(&serde_json::json!({ "unreadable": error.to_string() })).ok(),
    };
    let mut url = String::new();
    mask::url(entry.url(), |piece| url.push_str(piece));
    let freshness = entry.freshness();
    let line = Line {
        url,
        route: head.route.clone(),
        status: entry.head.status.as_u16(),
        bytes: head.length,
        age_seconds: freshness.age(now).as_secs_f64(),
        ttl_seconds: freshness.ttl(now).as_secs_f64() - now.since(freshness.fresh_until).as_secs_f64(),
        tags: entry.tags().to_owned(),
        variant: !head.variant.is_empty(),
        part: entry.part().is_some(),
        hits: entry.hits.load(std::sync::atomic::Ordering::Relaxed),
        key: entry.primary().to_string(),
    };
    serde_json::to_string(&line).ok()
}
