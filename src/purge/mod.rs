//! purge.

pub mod config;
