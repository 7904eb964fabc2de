//! Diagnostic log lines: `tracing` events to standard error or to the log file, as text or as JSON.

use std::{io, path::Path, path::PathBuf};

use thiserror::Error;
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::ParseError,
    fmt::{self, writer::BoxMakeWriter},
    layer::{Layer, SubscriberExt},
    reload,
    util::{SubscriberInitExt, TryInitError},
};

use super::{
    access::AccessLog,
    config::{Config, Format},
    lines::Lines,
    rotate::Rotating,
};

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// `log.level` is neither a level nor a filter.
    #[error("log: invalid level {0:?}")]
    Level(String, #[source] ParseError),
    /// A log file cannot be used.
    #[error("log: file {path:?}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No thread can be started.
    #[error("log: cannot start the thread that writes it")]
    Thread(#[source] io::Error),
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

/// The logs of a process, as those take them who write to them; none of them by default.
#[derive(Debug, Clone, Default)]
pub struct Logs {
    /// Of requests.
    pub access: Option<AccessLog>,
    /// All lines, where they go to a file; else the access lines.
    pub lines: Option<Lines>,
    /// Of calls of the admin plane, where that has a file of its own.
    pub audit: Option<Lines>,
}

impl Logs {
    /// Registers what is counted of their lines.
    pub fn register(&self, registry: &mut super::Registry) {
        for (name, lines) in [("access_log", &self.lines), ("audit_log", &self.audit)] {
            if let Some(lines) = lines {
                lines.register(name, registry);
            }
        }
    }

    /// Waits until everything queued so far has been written. Blocks the thread.
    pub fn flush(&self) {
        [&self.lines, &self.audit].into_iter().flatten().for_each(Lines::flush);
    }
}

/// Opens the logs, and sends this process's `tracing` events there. Once per process.
///
/// # Errors
/// Where a file cannot be used, or somebody else has set up logging.
pub fn init(config: &Config) -> Result<(Guard, Logs), LogError> {
    let file = (!config.file.is_empty()).then(|| lines("log", &config.file, config)).transpose()?;
    let audit = (!config.audit_file.is_empty()).then(|| lines("audit-log", &config.audit_file, config)).transpose()?;
    let guard = diagnostics(config, file.clone())?;
    let lines = match file {
        None if config.access => {
            let lines = Lines::new("access-log", config.queue_max, Box::new(io::stdout()));
            Some(lines.map_err(LogError::Thread)?)
        }
        file => file,
    };
    let access = lines.clone().filter(|_| config.access);
    let access = access.map(|lines| AccessLog::new(config.format, config.sample, lines));
    Ok((guard, Logs { access, lines, audit }))
}

fn lines(thread: &str, path: &str, config: &Config) -> Result<Lines, LogError> {
    let file = Rotating::open(Path::new(path), config.rotation());
    let file = file.map_err(|source| LogError::File { path: path.into(), source })?;
    Lines::new(thread, config.queue_max, Box::new(file)).map_err(LogError::Thread)
}

fn diagnostics(config: &Config, file: Option<Lines>) -> Result<Guard, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&config.level)?);
    let writer = match file {
        Some(lines) => BoxMakeWriter::new(move || lines.clone()),
        None => BoxMakeWriter::new(io::stderr),
    };
    let lines = fmt::layer().with_writer(writer);
    let lines = match config.format {
        Format::Pretty => lines.with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
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
