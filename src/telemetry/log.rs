//! Diagnostic log lines: `tracing` events to standard error or to the log file, as text or as JSON.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use thiserror::Error;
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{self, format::JsonFields, writer::BoxMakeWriter},
    layer::{Layer, SubscriberExt},
    reload,
    util::{SubscriberInitExt, TryInitError},
};

use super::{
    access::AccessLog,
    config::{Config, Format},
    lines::Lines,
    of_request::OfRequest,
    rotate::Rotating,
};

/// The target of lines about calls of the admin plane.
pub const AUDIT: &str = "larder::audit";

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// Neither a level nor a filter.
    #[error("log: {0:?} is no level (error, warn, info, debug, trace, off) and no filter")]
    Level(String),
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

/// What remains of setting up the log: its level can be changed while the process runs. Clones are the same.
#[derive(Debug, Clone)]
pub struct Guard {
    filter: reload::Handle<EnvFilter, Registry>,
    levels: Arc<Mutex<Levels>>,
}

/// What is logged now, and for how long.
#[derive(Debug)]
struct Levels {
    current: String,
    /// What it goes back to.
    settled: String,
    /// How often it was changed: what is to end a change has to know whether it is still that one.
    changes: u64,
}

/// A change that is to be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passing(u64);

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
        Format::Pretty => lines.event_format(OfRequest::text(fmt::format().with_ansi(false))).boxed(),
        Format::Json => {
            let format = fmt::format().json().flatten_event(true).with_current_span(false).with_span_list(false);
            lines.fmt_fields(JsonFields::new()).event_format(OfRequest::json(format)).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    let level = config.level.clone();
    let levels = Levels { current: level.clone(), settled: level, changes: 0 };
    Ok(Guard { filter: handle, levels: Arc::new(Mutex::new(levels)) })
}

impl Guard {
    /// What is logged now; and what it goes back to, where that is something else.
    pub fn level(&self) -> (String, Option<String>) {
        let levels = self.levels.lock();
        let settled = (levels.settled != levels.current).then(|| levels.settled.clone());
        (levels.current.clone(), settled)
    }

    /// Changes what is logged for good.
    ///
    /// # Errors
    /// Where that is no level and no filter; it stays as it was then.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let mut levels = self.levels.lock();
        self.apply(&mut levels, level)?;
        level.clone_into(&mut levels.settled);
        Ok(())
    }

    /// Changes what is logged until [`Guard::take_back`].
    ///
    /// # Errors
    /// As [`Guard::set_level`].
    pub fn set_level_for_now(&self, level: &str) -> Result<Passing, LogError> {
        let mut levels = self.levels.lock();
        self.apply(&mut levels, level)?;
        Ok(Passing(levels.changes))
    }

    /// Goes back to what was set for good, unless something else has been set since.
    pub fn take_back(&self, passing: Passing) -> bool {
        let mut levels = self.levels.lock();
        let settled = levels.settled.clone();
        levels.changes == passing.0 && self.apply(&mut levels, &settled).is_ok()
    }

    fn apply(&self, levels: &mut Levels, level: &str) -> Result<(), LogError> {
        self.filter.reload(filter(level)?)?;
        level.clone_into(&mut levels.current);
        levels.changes += 1;
        Ok(())
    }
}

/// Whether `level` is one that [`init`] would take.
///
/// # Errors
/// Where it is not.
pub fn check_level(level: &str) -> Result<(), LogError> {
    filter(level).map(|_| ())
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let wrong = || LogError::Level(level.to_owned());
    // A single word that is no level would be taken for the name of a module.
    let is_level = matches!(level, "off" | "error" | "warn" | "info" | "debug" | "trace");
    if !is_level && !level.contains(['=', ',']) {
        return Err(wrong());
    }
    let filter = EnvFilter::builder().parse(level).map_err(|_| wrong())?;
    if level.contains(AUDIT) {
        return Ok(filter);
    }
    // What operators do is told at every level, unless the filter names it.
    let audit = format!("{AUDIT}=info").parse().map_err(|_| wrong())?;
    Ok(filter.add_directive(audit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for level in ["info", "error", "larder::origin=debug,info", "off"] {
            check_level(level).unwrap_or_else(|error| panic!("{level}: {error}"));
        }
        for level in ["larder=loud", "loud", "", "Info "] {
            let error = check_level(level).expect_err("no such level").to_string();
            assert!(error.starts_with(&format!("log: {level:?} is no level")), "{error}");
        }
    }

    #[test]
    fn a_passing_level_is_taken_back_once_and_not_over_another() {
        let (_layer, handle) = reload::Layer::new(filter("info").expect("a level"));
        let levels = Levels { current: "info".to_owned(), settled: "info".to_owned(), changes: 0 };
        let guard = Guard { filter: handle, levels: Arc::new(Mutex::new(levels)) };
        let first = guard.set_level_for_now("debug").expect("a level");
        assert_eq!(guard.level(), ("debug".to_owned(), Some("info".to_owned())));
        let second = guard.set_level_for_now("trace").expect("a level");
        assert!(!guard.take_back(first) && guard.take_back(second) && !guard.take_back(second));
        assert_eq!(guard.level(), ("info".to_owned(), None));
        let passing = guard.set_level_for_now("debug").expect("a level");
        guard.set_level("warn").expect("a level");
        assert!(!guard.take_back(passing));
        assert_eq!(guard.level(), ("warn".to_owned(), None));
    }
}
