//! What is found while settings are checked: a key, what is wrong with it, and whom to blame.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use bytesize::ByteSize;
use http::HeaderName;

use crate::config::{
    error::{Place, Problem},
    key_path::KeyPath,
    layer::{self, Setting},
};

/// Delta-seconds beyond 2^31 need not be told apart (RFC 9111 section 1.2.2).
pub(super) const LIFETIME_MAX: Duration = Duration::from_secs(1 << 31);

/// Something wrong, before it has a place.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Finding {
    /// The keys that may be to blame, first the one to name.
    pub(super) paths: Vec<KeyPath>,
    pub(super) message: String,
}

impl Finding {
    pub(in crate::config) fn new(path: KeyPath, message: impl Into<String>) -> Self {
        Self { paths: vec![path], message: message.into() }
    }

    /// The place of the first of its keys that anybody has set.
    pub(in crate::config) fn place(&self, settings: &[Setting]) -> Option<Place> {
        self.paths.iter().find_map(|path| layer::place_of(settings.iter(), path))
    }

    pub(in crate::config) fn problem(&self, prefix: &KeyPath, place: Place) -> Problem {
        Problem::new(place, &prefix.then(&self.paths[0]), &self.message[..])
    }
}

/// Collects what is found in one table.
pub(super) struct Table {
    pub(super) at: KeyPath,
    pub(super) findings: Vec<Finding>,
}

impl Table {
    pub(super) fn new(name: &str) -> Self {
        Self { at: KeyPath::root().key(name), findings: Vec::new() }
    }

    pub(super) fn add(&mut self, key: &str, message: impl Into<String>) {
        self.findings.push(Finding::new(self.at.key(key), message));
    }

    pub(super) fn add_at(&mut self, key: &str, index: usize, message: impl Into<String>) {
        self.findings.push(Finding::new(self.at.key(key).index(index), message));
    }

    pub(super) fn add_either(&mut self, key: &str, other: &str, message: impl Into<String>) {
        let paths = vec![self.at.key(key), self.at.key(other)];
        self.findings.push(Finding { paths, message: message.into() });
    }

    pub(super) fn within<T: PartialOrd + Display>(&mut self, key: &str, value: T, range: RangeInclusive<T>) {
        if !range.contains(&value) {
            self.add(key, format!("{value} is not within {} to {}", range.start(), range.end()));
        }
    }

    pub(super) fn at_least_one<T: PartialOrd + From<u8>>(&mut self, key: &str, value: T) {
        if value < T::from(1) {
            self.add(key, "must be 1 or more");
        }
    }

    pub(super) fn some_bytes(&mut self, key: &str, value: ByteSize) {
        if value.as_u64() == 0 {
            self.add(key, "must be more than no bytes");
        }
    }

    pub(super) fn some_time(&mut self, key: &str, value: Duration) {
        if value.is_zero() {
            self.add(key, "must be longer than 0s");
        }
    }

    pub(super) fn lifetime(&mut self, key: &str, value: Duration) {
        if value > LIFETIME_MAX {
            self.add(key, "must be 24855days (2^31 s) or less");
        }
    }

    pub(super) fn head(&mut self, bytes: ByteSize, fields: usize) {
        if !(8 << 10..=16 << 20).contains(&bytes.as_u64()) {
            self.add("head_bytes_max", "must be 8KiB to 16MiB");
        }
        self.within("head_fields_max", fields, 1..=10_000);
    }

    pub(super) fn field_names(&mut self, key: &str, names: &[String]) {
        for (index, name) in names.iter().enumerate().filter(|(_, name)| !is_field_name(name)) {
            self.add_at(key, index, format!("{name:?} is no name of a header field"));
        }
    }
}

/// Whether a header field can have this name.
pub(super) fn is_field_name(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok()
}

/// `token` of RFC 9110 section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let other = b"!#$%&'*+-.^_`|~";
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || other.contains(&byte))
}
