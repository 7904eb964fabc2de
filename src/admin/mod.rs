//! admin.

pub mod config;
