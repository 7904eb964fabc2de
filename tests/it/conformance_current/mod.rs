//! Rules that the public conformance suite of today checks and its packaged edition does not, or checks with messages
//! that no server could send: interim responses, targeted cache control, must-understand, valid parts, normalised
//! variants, lists of fields that a 304 updates, status codes beyond the registry.

mod dates;
mod freshening;
mod interim;
mod parts;
mod status;
mod targeted;
mod variants;

use std::time::Duration;

use crate::support::{
    gateway,
    gateway::Gateway,
    origin,
    origin::{Reply, reply},
};

/// A gateway before an origin that answers `/a` with `first`, and later with `again`.
async fn stored(first: Reply, again: Reply) -> (origin::Origin, Gateway) {
    let origin = origin::new().route("/a", [first, again]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    (origin, gateway)
}

/// Whether the second of two equal requests is answered from the cache.
async fn reused(first: Reply) -> bool {
    let again = reply("again").cache_control("no-store");
    let (origin, gateway) = stored(first, again).await;
    gateway.get("/a").await;
    let second = gateway.get("/a").await;
    assert_eq!(second.cache().hit, origin.requests("/a") == 1, "{:?}", second.cache());
    second.cache().hit
}

fn at(seconds: i64) -> String {
    let now = std::time::SystemTime::now();
    let offset = Duration::from_secs(seconds.unsigned_abs());
    httpdate::fmt_http_date(if seconds < 0 { now - offset } else { now + offset })
}
