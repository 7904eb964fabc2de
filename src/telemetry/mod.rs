//! Logs: diagnostic lines to standard error, access lines to standard output, or both to a file, and what they must not
//! show.
//!
//! Metrics of the process are here; each part registers its own with the [`Registry`] it is given.

pub mod access;
pub mod config;
mod escape;
mod kept;
mod line;
pub mod lines;
pub mod log;
pub mod mask;
mod of_request;
pub mod process;
pub mod recent;
pub mod rotate;
pub mod time;
pub mod trace;

pub use prometheus_client::registry::Registry;

pub use self::{
    access::AccessLog,
    config::{Config, Format},
    line::{Cost, Line},
    lines::Lines,
    log::{AUDIT, Guard, LogError, Logs, check_level, init},
    recent::Recent,
};
