//! The memory tier takes what it says it weighs. In a process of its own: what is measured is all that a process takes.

use larder::store::EvictionPolicy;

#[path = "../examples/fill.rs"]
#[allow(dead_code, reason = "its entry point")]
mod fill;

/// The same with a million entries, in half a minute: `cargo run --example fill 1000000 256 4 900000000`.
#[test]
fn the_limit_of_l1_is_one_of_resident_memory() {
    let found = fill::measure(EvictionPolicy::S3Fifo, 64 << 20, 280_000, 256).expect("measured");
    let ratio = found["resident_to_weight"].as_f64().expect("a number");
    assert!((0.85..=1.15).contains(&ratio), "{found:#}");
    let bookkeeping = found["bookkeeping_each"].as_f64().expect("a number");
    assert!(bookkeeping < 460.0, "{found:#}");
}
