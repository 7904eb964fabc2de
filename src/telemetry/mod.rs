//! Logs: diagnostic lines to standard error, access lines to standard output, and what both must not show.
//!
//! Metrics need no module: each part registers its own with the [`Registry`] it is given.

pub mod access;
pub mod config;
mod escape;
mod line;
pub mod log;
pub mod mask;
pub mod recent;
pub mod time;

pub use prometheus_client::registry::Registry;

pub use self::{
    access::AccessLog,
    config::{Config, Format},
    line::{Cost, Line},
    log::{Guard, LogError, init},
    recent::Recent,
};
