//! warm.

pub mod config;
