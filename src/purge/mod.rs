//! The purge log: what was purged, in which order, and since when.
//!
//! Each purge takes the next [`Position`](crate::object::scope::Position). A table of watermarks holds, per scope, the
//! last position that purged it; an entry carries the position its fill started from. Purging ten million responses by
//! tag is one record and one write to the table: nothing is looked for, nothing is walked.
//!
//! ```text
//!  append ──▶ writer thread: write-ahead file ──▶ fsync ──▶ watermarks ──▶ position ──▶ receipt
//!                            (one for all who wait)         hits read: position, then watermarks
//! ```
//!
//! What is guaranteed:
//! - After [`Log::append`] returned, no [`Log::standing`] or [`Log::verdict`] calls an older stamp untouched, now or
//!   after a restart (with `fsync` also after a power failure).
//! - Whoever sees a position sees the watermarks of all purges up to it.
//! - What cannot be remembered (too many scopes, a damaged file) errs on the side of purging more.

pub mod config;
pub mod fleet;
mod frame;
mod log;
mod mark;
mod metrics;
mod recent;
mod record;
mod recovery;
mod runs;
mod snapshot;
#[cfg(test)]
mod tests;
mod types;
mod wal;
mod watermarks;
mod wire;
mod writer;

pub use config::Config;
pub use fleet::{Ack, Fleet, FleetConfig};
pub use log::Log;
pub use runs::{InvalidRun, Run};
pub use types::{InvalidPurgeId, Mode, Purge, PurgeError, PurgeId, Receipt, Standing};
