//! proxy.

pub mod config;
