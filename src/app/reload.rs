//! Taking over a configuration while the gateway runs: all of it, or nothing.
//!
//! What can change without a new process are the rules by which requests are answered (`config/diff.rs`). They are made
//! anew, and put in the place of the old ones in one step: requests under way end by the rules they began with, no
//! connection is touched, and what is stored stays. A route whose settings are the same stays the same route.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{build::Ground, jwt::Keys, tls::Certificates};
use crate::{
    admin::{Auth, Change, Reload, Reloaded},
    config::{Config, Errors},
    jwt::Issuers,
    proxy::Live,
    telemetry::Guard,
};

/// Reads the configuration anew.
pub type Reader = Box<dyn Fn() -> Result<Config, Errors> + Send + Sync>;

/// Where a running gateway's configuration comes from, if it is to be read again.
pub struct Source {
    /// See [`Reader`].
    pub read: Reader,
    /// The log, whose level may change.
    pub log: Option<Guard>,
}

/// Takes over configurations. Calls are served one after the other.
pub(super) struct Reloader {
    pub(super) source: Source,
    pub(super) ground: Ground,
    pub(super) live: Live,
    pub(super) auth: Auth,
    pub(super) issuers: Issuers,
    pub(super) keys: Arc<Keys>,
    pub(super) certificates: Arc<Certificates>,
    /// As taken over last.
    pub(super) current: Mutex<Config>,
}

impl Reload for Reloader {
    fn reload(&self, dry_run: bool) -> Reloaded {
        let mut current = self.current.lock();
        let read = match (self.source.read)() {
            Ok(read) => read,
            Err(errors) => return Reloaded::Invalid(errors.to_string()),
        };
        let mut changes = current.changes(&read);
        if !self.ground.has_packs_of(&read) {
            // Which file is recorded into is settled when it is opened.
            changes.iter_mut().filter(|change| change.setting.contains(".pack")).for_each(needs_restart);
            changes.iter_mut().filter(|change| change.setting.ends_with("llm.mode")).for_each(needs_restart);
        }
        if changes.iter().any(|change| change.needs_restart) {
            return Reloaded::NeedsRestart(changes);
        }
        // Their files may have changed where no setting has.
        let certificates = match self.certificates.read(&read) {
            Ok(certificates) => certificates,
            Err(error) => return Reloaded::Invalid(error.to_string()),
        };
        let issuers = match self.issuers.read(&read.jwt, &read.issuer) {
            Ok(issuers) => issuers,
            Err(error) => return Reloaded::Invalid(error.to_string()),
        };
        if dry_run {
            return Reloaded::Done { changes, warnings: warnings(&read) };
        }
        if changes.is_empty() {
            self.issuers.take(issuers);
            self.certificates.take(certificates);
            return Reloaded::Done { changes, warnings: warnings(&read) };
        }
        let earlier = self.live.current();
        let (proxy, limits) = match self.ground.proxy(&read, Some((&earlier, &current))) {
            Ok(made) => made,
            Err(error) => return Reloaded::Invalid(error.to_string()),
        };
        if let Some(log) = &self.source.log
            && read.log.level != current.log.level
            && let Err(error) = log.set_level(&read.log.level)
        {
            return Reloaded::Invalid(error.to_string());
        }
        // From here on nothing can fail.
        self.keys.replace(&read);
        self.auth.replace(&read.admin, issuers);
        self.ground.limits.take(limits);
        self.certificates.take(certificates);
        self.live.replace(proxy);
        let warnings = warnings(&read);
        *current = read;
        Reloaded::Done { changes, warnings }
    }
}

fn needs_restart(change: &mut Change) {
    change.needs_restart = true;
}

fn warnings(config: &Config) -> Vec<String> {
    config.warnings().iter().map(ToString::to_string).collect()
}

/// Takes the configuration over, and says in the log what came of it.
pub(super) fn reload_and_say(reloader: &Arc<Reloader>) {
    match reloader.reload(false) {
        Reloaded::Done { changes, warnings } => {
            let changed: Vec<_> = changes.iter().map(|change| change.setting.as_str()).collect();
            tracing::info!(changed = changed.join(" "), "configuration reloaded");
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        Reloaded::NeedsRestart(changes) => {
            let fixed = changes.iter().filter(|change| change.needs_restart);
            let fixed: Vec<_> = fixed.map(|change| change.setting.as_str()).collect();
            tracing::error!(settings = fixed.join(" "), "configuration not reloaded: these settings need a restart");
        }
        Reloaded::Invalid(error) => tracing::error!(%error, "configuration not reloaded"),
    }
}
