//! Settings of the tier that nodes share.

use std::{fmt, io, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize};

use crate::kv;

/// `[l2]`: the tier in Redis, which all nodes share.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct L2Config {
    /// Where Redis is, as [`kv::Config::urls`] says it; none: no such tier.
    #[serde(deserialize_with = "one_or_many")]
    pub url: Vec<String>,
    /// What all keys in Redis begin with.
    pub namespace: String,
    /// User of Redis, where the URL names none.
    pub username: String,
    /// Its password.
    pub password: String,
    /// File with the password, in place of [`L2Config::password`].
    pub password_file: String,
    /// PEM file of authorities to trust in place of those of the system.
    pub tls_ca: String,
    /// PEM file of the certificate that is shown to Redis.
    pub tls_cert: String,
    /// PEM file of its key.
    pub tls_key: String,
    /// Whether certificates of Redis are verified.
    pub tls_verify: bool,
    /// See [`kv::Config::connect_timeout`].
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// See [`kv::Config::breaker_failures`].
    pub breaker_failures: u32,
    /// See [`kv::Config::breaker_pause`].
    #[serde(with = "humantime_serde")]
    pub breaker_pause: Duration,
    /// See [`kv::Config::in_flight_max`].
    pub in_flight_max: usize,
    /// How long a look-up may take before it counts as a miss.
    #[serde(with = "humantime_serde")]
    pub read_timeout: Duration,
    /// How long a write may take before it is given up.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// Content of one entry.
    pub object_bytes_max: ByteSize,
    /// Longer content is stored in pieces of so many bytes.
    pub piece_bytes: ByteSize,
    /// Whether what compresses well is compressed.
    pub compression: bool,
    /// Share of the time an entry is kept, added at random, so that what was stored together is not gone together.
    pub ttl_jitter: f64,
    /// Bytes of entries that wait to be written.
    pub queue_bytes_max: ByteSize,
    /// How long the claim of a node on a fill lasts without being renewed.
    #[serde(with = "humantime_serde")]
    pub fill_lease: Duration,
    /// How long a node waits for a fill under way on another one.
    #[serde(with = "humantime_serde")]
    pub follow_max: Duration,
    /// Whether all that is stored is enciphered, each entry under a key of its own.
    pub encrypt: bool,
}

/// Longest password in a file.
const PASSWORD_MAX: usize = 4096;

impl L2Config {
    /// Whether there is to be such a tier.
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// The URLs. What was parted at a comma between the hosts of one is put together again.
    pub fn urls(&self) -> Vec<String> {
        let mut urls: Vec<String> = Vec::new();
        for piece in self.url.iter().map(|piece| piece.trim()) {
            match urls.last_mut().filter(|_| !piece.contains("://")) {
                Some(url) => {
                    url.push(',');
                    url.push_str(piece);
                }
                None => urls.push(piece.to_owned()),
            }
        }
        urls
    }

    /// How Redis is reached, with the password that the file holds.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub fn kv(&self) -> io::Result<kv::Config> {
        let password = match &self.password_file[..] {
            "" => self.password.clone(),
            path => read_password(path)?,
        };
        Ok(kv::Config {
            urls: self.urls(),
            username: self.username.clone(),
            password,
            tls_ca: self.tls_ca.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            tls_verify: self.tls_verify,
            connect_timeout: self.connect_timeout,
            breaker_failures: self.breaker_failures,
            breaker_pause: self.breaker_pause,
            in_flight_max: self.in_flight_max,
        })
    }
}

impl fmt::Debug for L2Config {
    /// Without URLs and password: a URL may hold one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("L2Config").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// The first line of a file.
fn read_password(path: &str) -> io::Result<String> {
    let invalid = |reason: &'static str| io::Error::new(io::ErrorKind::InvalidData, reason);
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().next().unwrap_or_default();
    match line.len() {
        0 => Err(invalid("the first line is empty")),
        1..=PASSWORD_MAX => Ok(line.to_owned()),
        _ => Err(invalid("the first line is too long for a password")),
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(from)? {
        OneOrMany::One(url) if url.is_empty() => Vec::new(),
        OneOrMany::One(url) => vec![url],
        OneOrMany::Many(urls) => urls,
    })
}
