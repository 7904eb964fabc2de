//! What tests of the modules above are made of.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{
    entry::{Entry, Unpacked},
    freshness::{Flags, Freshness},
    head::Head,
    key::Key,
    scope::{Position, Scope},
    time::Timestamp,
};

/// An empty 200 under `key` that is fresh for ever.
pub(crate) fn entry(key: Key, stamp: Position, scopes: &[Scope]) -> Entry {
    unpacked(key, stamp, scopes).pack()
}

/// The same, to be changed.
pub(crate) fn unpacked(key: Key, stamp: Position, scopes: &[Scope]) -> Unpacked {
    let never = Timestamp::NEVER;
    Unpacked {
        key,
        primary: key,
        stamp,
        scopes: scopes.into(),
        url: "http://shop.example/".into(),
        tags: "".into(),
        head: Head::new(StatusCode::OK, &HeaderMap::new()),
        body: Bytes::new(),
        elsewhere: None,
        part: None,
        freshness: Freshness {
            born: Timestamp::EPOCH,
            fresh_until: never,
            swr_until: never,
            sie_until: never,
            keep_until: never,
            flags: Flags::default(),
        },
        stored: Timestamp::EPOCH,
        fill_millis: 0,
        hits: 0,
    }
}
