//! cache.

pub mod config;
