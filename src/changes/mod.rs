//! What backends say has changed: a stream in Redis into which they write, and from which the nodes purge.
//!
//! ```text
//!  XADD ─▶ {…}:stream ─▶ a node of the group ─▶ message ─▶ purge, in the fleet's log ─▶ XACK
//!                          │                       └─▶ not understood ─▶ {…}:rejected, XACK
//!                          └─ it dies, or is cut off: another claims what it held
//! ```
//!
//! Guarantees: a message that was taken from the stream is purged or rejected, whatever dies meanwhile; handled twice it
//! is one purge, for its id names it. A node handles a bounded number at once.

pub mod config;

mod consumer;
mod message;
mod metrics;
mod scripts;
mod stream;

pub use config::Config;
pub use consumer::{Consumer, Parts};
