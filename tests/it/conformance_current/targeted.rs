//! Targeted cache control (RFC 9213).

use std::time::Duration;

use super::{at, reused, stored};
use crate::support::{
    origin::{Reply, reply},
    outlive,
};

fn targeted(value: &str) -> Reply {
    reply("hello").header("cdn-cache-control", value)
}

#[tokio::test]
async fn a_targeted_lifetime_is_used() {
    for value in ["max-age=3600", "max-age=2147483648", "max-age=99999999999", "foobar, max-age=3600"] {
        assert!(reused(targeted(value)).await, "{value}");
    }
    for (name, value) in [("cache-control", "max-age=0"), ("expires", "0"), ("cache-control", "no-store")] {
        assert!(reused(targeted("max-age=3600").header(name, value)).await, "{name}: {value}");
    }
    assert!(reused(targeted("max-age=3600").header("expires", &at(-10_000))).await);
}

#[tokio::test]
async fn a_targeted_refusal_is_obeyed() {
    for value in ["max-age=0", "private", "no-store", "private, max-age=60", "no-store, max-age=60"] {
        assert!(!reused(targeted(value).max_age(10_000).header("expires", &at(10_000))).await, "{value}");
    }
    assert!(!reused(targeted("no-cache").max_age(10_000)).await);
}

#[tokio::test]
async fn the_age_counts_against_a_targeted_lifetime() {
    assert!(!reused(targeted("max-age=3600").header("age", "7200")).await);
    assert!(reused(targeted("max-age=3600").header("age", "1800")).await);
}

#[tokio::test]
async fn a_targeted_lifetime_ends() {
    let first = targeted("max-age=1").max_age(3600);
    let (origin, gateway) = stored(first, reply("new")).await;
    let first = gateway.get("/a").await;
    outlive(first.end_at, Duration::from_secs(1)).await;
    gateway.get("/a").await.assert_ok("new");
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn a_targeted_field_that_is_no_dictionary_is_ignored() {
    for value in ["max-age=10000, &&&&&", "max-age=\"10000\"", "max-age =100", "max-age= 100", "max-age=1.5"] {
        assert!(!reused(targeted(value).cache_control("no-store")).await, "{value}");
        assert!(reused(targeted(value).max_age(3600)).await, "{value} with another lifetime");
    }
}

#[tokio::test]
async fn the_more_targeted_field_wins() {
    let first = reply("hello").header("larder-cache-control", "max-age=60").header("cdn-cache-control", "no-store");
    assert!(reused(first.cache_control("no-store")).await);
    let first = reply("hello").header("larder-cache-control", "no-store").header("cdn-cache-control", "max-age=60");
    assert!(!reused(first.max_age(60)).await);
    let first = targeted("no-store").header("surrogate-control", "max-age=60");
    assert!(!reused(first.max_age(60)).await);
    assert!(reused(reply("hello").header("surrogate-control", "max-age=60").cache_control("no-store")).await);
}
