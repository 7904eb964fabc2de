//! The configuration: every module's settings in one, from `default.toml`, a file, the environment and flags.
//!
//! Loading is all or nothing. What is wrong is told all at once, each problem with its file, line and column, variable
//! or flag, and unknown keys with the nearest known one. Reading a configuration binds no port and opens no other file.

mod diff;
mod env;
pub mod error;
mod file;
mod key_path;
mod layer;
mod load;
mod locate;
mod mask;
mod providers;
mod route;
mod schema;
mod validate;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::value::Dict;
use serde::Deserialize;

pub use self::{
    error::{Errors, Place, Problem},
    load::{Overrides, Sources, UPSTREAM_ROUTE, load},
    route::ResolvedRoute,
};
use crate::{
    admin, archive, cache, changes, intercept, jwt, limit, listener,
    llm::{self, price::Prices},
    origin,
    proxy::config::{ForwardConfig, HeadersConfig, RouteConfig},
    purge, store, telemetry, tenants, tls, warm, webhook,
};

/// What a command ends with when its configuration is wrong (`EX_USAGE` of sysexits.h).
pub const EXIT_CODE: u8 = 64;

/// `[listen]`: addresses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Where clients come in.
    pub data: SocketAddr,
    /// Where operators come in.
    pub admin: SocketAddr,
    /// Threads that serve clients; 0: one a core.
    pub workers: usize,
    /// TLS where clients come in.
    pub tls: tls::Config,
}

/// Everything that can be set.
///
/// Routes are resolved while loading: a change made to [`Config::access`], [`Config::cache`], [`Config::origin`] or
/// [`Config::llm`] afterwards is no change of [`Config::routes`].
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Directory for what survives a restart, as configured; see [`Config::data_path`].
    pub data_dir: String,
    /// File of the secret; empty: in the data directory, where it is made.
    pub secret_file: String,
    /// See [`Listen`].
    pub listen: Listen,
    /// Limits towards clients.
    pub client: listener::config::Config,
    /// Limits towards origins.
    pub origin: origin::config::Config,
    /// Whom routes answer.
    pub access: tenants::Access,
    /// What is stored, and for how long.
    pub cache: cache::config::Policy,
    /// Origin responses under way.
    pub fill: cache::config::FillConfig,
    /// The memory tier.
    pub l1: store::config::L1Config,
    /// The tier that nodes share.
    pub l2: store::L2Config,
    /// The disk tier.
    pub l3: store::L3Config,
    /// The purge log.
    pub purge: purge::config::Config,
    /// The purge log of all nodes.
    pub fleet: purge::FleetConfig,
    /// What backends say has changed.
    pub changes: changes::Config,
    /// Warm-up jobs.
    pub warm: warm::config::Config,
    /// Exports and imports.
    pub archive: archive::Config,
    /// The admin plane.
    pub admin: admin::config::Config,
    /// The forward proxy.
    pub forward: ForwardConfig,
    /// Tunnels that are opened.
    pub intercept: intercept::Config,
    /// Calls to language models.
    pub llm: llm::config::Config,
    /// Who serves them.
    pub providers: llm::provider::Config,
    /// Fields the gateway writes.
    pub headers: HeadersConfig,
    /// Logs.
    pub log: telemetry::config::Config,
    /// Traces.
    pub trace: telemetry::trace::Config,
    /// What holds for all limits.
    pub limits: limit::Config,
    /// How many requests of whom are admitted.
    #[serde(default)]
    pub limit: Vec<limit::LimitConfig>,
    /// Bounds of tokens that issuers sign.
    pub jwt: jwt::Limits,
    /// Issuers whose tokens are taken.
    #[serde(default)]
    pub issuer: Vec<jwt::Config>,
    /// Who is told apart.
    #[serde(default)]
    pub tenant: Vec<tenants::Config>,
    /// Who is told of purges.
    #[serde(default)]
    pub webhook: Vec<webhook::Config>,
    /// Routes as configured, in order.
    #[serde(default)]
    pub route: Vec<RouteConfig>,
    #[serde(skip)]
    derived: Derived,
}

/// What loading works out of the settings.
#[derive(Clone, Default, PartialEq)]
struct Derived {
    routes: Vec<ResolvedRoute>,
    unreached: Vec<ResolvedRoute>,
    warnings: Vec<Problem>,
    /// All settings as they were written.
    settings: Dict,
    /// The same without secrets.
    masked: Dict,
    data_path: PathBuf,
}

impl Config {
    /// The defaults alone.
    pub fn builtin() -> Self {
        Self::parse("default", "").expect("the defaults are valid, as a test makes sure")
    }

    /// The defaults and one text of TOML over them; `name` is what errors call it.
    pub fn parse(name: &str, text: &str) -> Result<Self, Errors> {
        load::parse(name, text)
    }

    /// Routes in order, each with `[access]`, `[cache]`, `[origin]` and `[llm]` as it overrides them; the built-in ones
    /// are the last.
    pub fn routes(&self) -> &[ResolvedRoute] {
        &self.derived.routes
    }

    /// Built-in routes whose paths others have taken: what is sent to their hosts through the forward proxy is theirs still.
    pub fn unreached_routes(&self) -> &[ResolvedRoute] {
        &self.derived.unreached
    }

    /// What tokens cost: the table that is compiled in, and what is configured over it.
    pub fn prices(&self) -> Prices {
        providers::prices(&self.providers)
    }

    /// What is allowed and surely not meant, such as a route that is never reached.
    pub fn warnings(&self) -> &[Problem] {
        &self.derived.warnings
    }

    /// The directory for what survives a restart.
    pub fn data_path(&self) -> &Path {
        &self.derived.data_path
    }

    /// All settings as they were loaded, as TOML, with `***` for secrets.
    pub fn masked_toml(&self) -> String {
        toml_edit::ser::to_string_pretty(&self.derived.masked).expect("texts, numbers, lists and tables are all TOML")
    }
}

impl fmt::Debug for Config {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("settings", &self.masked_toml()).finish_non_exhaustive()
    }
}

/// `configured`, or else where the system keeps state: of the user, or of the machine where there is no user.
fn data_path(configured: &str, env: &[(String, String)]) -> PathBuf {
    if !configured.is_empty() {
        return PathBuf::from(configured);
    }
    // Relative paths are to be ignored, says the XDG base directory specification.
    let directory = |name: &str| {
        let value = env.iter().find(|(key, _)| key == name).map(|(_, value)| PathBuf::from(value));
        value.filter(|path| path.is_absolute())
    };
    let home = || directory("HOME").filter(|home| home != Path::new("/")).map(|home| home.join(".local/state"));
    directory("XDG_STATE_HOME").or_else(home).unwrap_or_else(|| PathBuf::from("/var/lib")).join("larder")
}

#[cfg(test)]
mod tests;
