//! Telling others what was purged: Cloudflare, Fastly, or whoever takes JSON.
//!
//! ```text
//!  a purge called for on this node, acknowledged ─▶ queue of each webhook ─▶ calls ─▶ its API, again until it answers
//! ```
//!
//! A node tells only of purges that were called for on it, so each leaves the fleet once. Guarantees: purges and calls of
//! one webhook keep their order, one call at a time; queues, calls and time are bounded, and what is given up is counted.
//! A purge never waits for a webhook.

mod calls;
pub mod config;
mod metrics;
mod sender;

pub use config::{Config, Kind};
pub use sender::{Error, Webhooks};
