//! listener.

pub mod config;
