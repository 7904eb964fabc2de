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
        self.take_over(dry_run).unwrap_or_else(|refused| refused)
    }
}

impl Reloader {
    /// As [`Reload::reload`]; what nothing was taken over for is the error.
    fn take_over(&self, dry_run: bool) -> Result<Reloaded, Reloaded> {
        let mut current = self.current.lock();
        let read = (self.source.read)().map_err(invalid)?;
        let mut changes = current.changes(&read);
        if !self.ground.has_packs_of(&read) {
            // Which file is recorded into is settled when it is opened.
            changes.iter_mut().filter(|change| change.setting.contains(".pack")).for_each(needs_restart);
            changes.iter_mut().filter(|change| change.setting.ends_with("llm.mode")).for_each(needs_restart);
        }
        if changes.iter().any(|change| change.needs_restart) {
            return Err(Reloaded::NeedsRestart(changes));
        }
        // Their files may have changed where no setting has.
        let certificates = self.certificates.read(&read).map_err(invalid)?;
        let issuers = self.issuers.read(&read.jwt, &read.issuer).map_err(invalid)?;
        let same = changes.is_empty();
        let done = Reloaded::Done { changes, warnings: warnings(&read) };
        if dry_run {
            return Ok(done);
        }
        if same {
            self.issuers.take(issuers);
            self.certificates.take(certificates);
            return Ok(done);
        }
        let earlier = self.live.current();
        let (proxy, limits) = self.ground.proxy(&read, Some((&earlier, &current))).map_err(invalid)?;
        if let Some(log) = &self.source.log
            && read.log.level != current.log.level
        {
            log.set_level(&read.log.level).map_err(invalid)?;
        }
        // From here on nothing can fail.
        self.keys.replace(&read);
        self.auth.replace(&read.admin, issuers);
        self.ground.limits.take(limits);
        self.certificates.take(certificates);
        self.live.replace(proxy);
        *current = read;
        Ok(done)
    }
}

fn invalid(error: impl ToString) -> Reloaded {
    Reloaded::Invalid(error.to_string())
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
            tracing::info!(changed = Change::settings(&changes).join(" "), "configuration reloaded");
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        Reloaded::NeedsRestart(changes) => {
            let settings = Change::fixed(&changes).join(" ");
            tracing::error!(settings, "configuration not reloaded: these settings need a restart");
        }
        Reloaded::Invalid(error) => tracing::error!(%error, "configuration not reloaded"),
    }
}
