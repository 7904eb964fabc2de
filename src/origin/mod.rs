//! origin.

pub mod config;
