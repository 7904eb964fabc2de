//! Diagnostic log lines: `tracing` events to standard error, as text or as JSON.

use std::io;

use thiserror::Error;
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::ParseError,
    fmt,
    layer::{Layer, SubscriberExt},
    reload,
    util::{SubscriberInitExt, TryInitError},
};

use super::config::{Config, Format};

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// `log.level` is neither a level nor a filter.
    #[error("log: invalid level {0:?}")]
    Level(String, #[source] ParseError),
    /// Someone else set up logging for this process.
    #[error("log: cannot be set up")]
    Setup(#[from] TryInitError),
    /// Logging has ended.
    #[error("log: level cannot be changed")]
    Reload(#[from] reload::Error),
}

/// What remains of setting up the log: its level can be changed while the process runs.
#[derive(Debug)]
pub struct Guard {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Sends this process's `tracing` events to standard error. Once per process.
pub fn init(config: &Config) -> Result<Guard, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&config.level)?);
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match config.format {
        Format::Pretty => lines.with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(Guard { filter: handle })
}

impl Guard {
    /// Changes what is logged; on an error it stays as it was.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        Ok(self.filter.reload(filter(level)?)?)
    }
}

/// Whether `level` is one that [`init`] would take.
pub fn check_level(level: &str) -> Result<(), LogError> {
    filter(level).map(|_| ())
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(level).map_err(|error| LogError::Level(level.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for level in ["info", "error", "larder::origin=debug,info", "off"] {
            check_level(level).unwrap_or_else(|error| panic!("{level}: {error}"));
        }
        let error = check_level("larder=loud").expect_err("no such level");
        assert_eq!(error.to_string(), "log: invalid level \"larder=loud\"");
    }
}
