//! telemetry.

pub mod config;
