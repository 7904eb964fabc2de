//! Settings of the cache: what may be stored and for how long (`[cache]`, overridable by route), and how fills behave
//! (`[fill]`).

use std::{collections::BTreeMap, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// What a route does with the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// As RFC 9111 says.
    Standard,
    /// Neither read nor written.
    Bypass,
    /// Every cacheable status is stored for `default_ttl`, whatever the origin's Cache-Control says
    /// (`Vary: *` and `Authorization` without partition still count).
    Force,
}

/// What becomes of a fill whose last client has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientGone {
    /// It is finished and stored.
    Finish,
    /// It is cancelled.
    Cancel,
}

/// What a route does with a tier beside memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Read, and written a moment after memory.
    WriteBehind,
    /// Read, and written before the last byte of a response goes to the client.
    WriteThrough,
    /// Neither read nor written.
    Off,
}

/// How soon a purge called for on another node is obeyed on this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coherence {
    /// When it arrives, if it does: what is stored lives out its freshness.
    Ttl,
    /// Within milliseconds; within `fleet.lease` whatever happens.
    Event,
    /// At once: each request asks Redis whether there was one.
    Strict,
}

/// What becomes of stored responses while nobody can say whether they were purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fenced {
    /// The origin confirms each before it is used.
    Revalidate,
    /// They are left alone: all requests go to the origin.
    Bypass,
    /// They are used, for `fenced_max`.
    Serve,
}

/// Who obeys an unsafe request to a URL that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invalidate {
    /// The node it came through.
    Node,
    /// All nodes.
    Fleet,
}

/// How the query takes part in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// Byte for byte as sent.
    AsSent,
    /// Arguments in sorted order.
    Sorted,
    /// Not at all.
    Ignore,
}

/// `[cache]` and a route's `cache` table.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// See [`Mode`].
    pub mode: Mode,
    /// Methods that may be answered from the cache. GET, HEAD, QUERY; POST with its body in the key.
    pub methods: Vec<String>,
    /// Lifetime where neither the origin nor a heuristic gives one; zero: not stored.
    #[serde(with = "humantime_serde")]
    pub default_ttl: Duration,
    /// Upper bound of every lifetime.
    #[serde(with = "humantime_serde")]
    pub ttl_max: Duration,
    /// Share of a lifetime taken off at random, 0.0 to 0.5, so that what was stored together does not expire together.
    pub ttl_jitter: f64,
    /// Heuristic lifetime as a share of Date − Last-Modified (RFC 9111 section 4.2.2); 0 turns heuristics off.
    pub heuristic_fraction: f64,
    /// Upper bound of a heuristic lifetime.
    #[serde(with = "humantime_serde")]
    pub heuristic_max: Duration,
    /// Lifetimes by status for responses without explicit freshness: `"404" = "10s"`, `"5xx" = "1s"`.
    #[serde(with = "durations_by_name")]
    pub status_ttl: BTreeMap<String, Duration>,
    /// Served stale for so long while a refresh runs, where the origin does not say (RFC 5861).
    #[serde(with = "humantime_serde")]
    pub stale_while_revalidate: Duration,
    /// Served stale for so long when the origin fails, where the origin does not say (RFC 5861).
    #[serde(with = "humantime_serde")]
    pub stale_if_error: Duration,
    /// Statuses of the origin that count as failing.
    pub stale_if_error_status: Vec<u16>,
    /// How long an expired entry with a validator is kept beyond its stale windows, to be revalidated.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
    /// Size of a body that may be stored, on top of the share each tier allows.
    pub object_bytes_max: ByteSize,
    /// The tier that nodes share: see [`Use`].
    pub l2: Use,
    /// The disk tier: see [`Use`].
    pub l3: Use,
    /// See [`Coherence`].
    pub coherence: Coherence,
    /// See [`Fenced`].
    pub fenced: Fenced,
    /// For so long stored responses are used where `fenced` is `serve`.
    #[serde(with = "humantime_serde")]
    pub fenced_max: Duration,
    /// See [`Invalidate`].
    pub unsafe_invalidates: Invalidate,
    /// Variants of one key (RFC 9111 section 4.1); the least recently stored one makes room.
    pub variants_max: usize,
    /// Whether Accept-Encoding and Accept-Language are compared by meaning, not by byte.
    pub vary_normalise: bool,
    /// See [`Query`].
    pub query: Query,
    /// Query arguments left out of the key, `utm_*` patterns allowed. Needs `query = "sorted"`.
    pub query_without: Vec<String>,
    /// Request fields that are part of the key beside `Vary`.
    pub key_headers: Vec<String>,
    /// Request cookies that are part of the key.
    pub key_cookies: Vec<String>,
    /// Size of a request body that may be part of a key (QUERY, POST).
    pub key_body_bytes_max: ByteSize,
    /// Whose responses are kept apart: `none`, `authorization`, or `header:<name>`.
    pub partition: String,
    /// Response fields that carry tags.
    pub tag_fields: Vec<String>,
    /// Whether those fields are kept from clients.
    pub tag_fields_hidden: bool,
    /// Tags of one entry; further ones make the response not storable, so that a purge never misses it.
    pub tags_max: usize,
    /// Whether identical requests under way share one origin request.
    pub coalesce: bool,
    /// How long a key that proved not storable sends its requests to the origin side by side.
    #[serde(with = "humantime_serde")]
    pub hit_for_miss_ttl: Duration,
    /// How long a failure to reach the origin is answered again to the same request without a new try.
    #[serde(with = "humantime_serde")]
    pub error_ttl: Duration,
    /// See [`ClientGone`].
    pub client_gone: ClientGone,
    /// Whether `Cache-Control` of requests is obeyed (no-cache, no-store, max-age, only-if-cached, ...).
    pub request_directives: bool,
    /// Whether `PURGE` on the data listener is obeyed; it asks for a token of the admin plane.
    pub purge_method: bool,
    /// For so long after a purge, what it named is not stored for longer than the rest of it.
    #[serde(with = "humantime_serde")]
    pub purge_hold: Duration,
}

/// `[fill]`: origin responses under way.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FillConfig {
    /// Bytes of one body held in memory while it arrives; beyond that it spills to a file.
    pub memory_bytes_max: ByteSize,
    /// Bytes of all bodies held in memory while they arrive or are read on; beyond that they spill at once.
    pub memory_total_bytes_max: ByteSize,
    /// Bytes of all spilled bodies together; beyond that a fill runs at the pace of its slowest reader.
    pub spill_bytes_max: ByteSize,
    /// Readers of one fill; one more goes to the origin by itself.
    pub followers_max: usize,
    /// Fills under way; one more request goes through uncached.
    pub fills_max: usize,
    /// How long a follower waits for the head before it goes to the origin by itself.
    #[serde(with = "humantime_serde")]
    pub follow_timeout: Duration,
}

/// Durations as text, by name.
mod durations_by_name {
    use std::{collections::BTreeMap, time::Duration};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize, Serialize)]
    struct Text(#[serde(with = "humantime_serde")] Duration);

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Duration>, D::Error> {
        let texts = BTreeMap::<String, Text>::deserialize(from)?;
        Ok(texts.into_iter().map(|(name, Text(duration))| (name, duration)).collect())
    }

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<String, Duration>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(map.iter().map(|(name, duration)| (name, Text(*duration))))
    }
}
