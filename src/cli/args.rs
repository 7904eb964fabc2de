//! What can be said on the command line.
//!
//! Without a command, `larder` serves: `larder --upstream URL` and `larder serve --upstream URL` are the same.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    Args, Parser, Subcommand, ValueEnum, ValueHint,
    builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser},
};
use clap_complete::Shell;
use http::{HeaderName, HeaderValue};

use crate::{
    cache::Outcome,
    config::{Overrides, Sources},
    proxy::purge::Ack,
};

/// Where the admin plane is unless it is configured elsewhere.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:8081";

/// An HTTP caching gateway.
#[derive(Debug, Parser)]
#[command(name = "larder", version, about, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// Absent: serve.
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

impl Cli {
    /// The command that was meant.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway (the default)
    Serve(Serve),
    /// Check a configuration: print its routes, or everything that is wrong with it
    Check(Check),
    /// Run a gateway with an origin of its own, to look around
    Demo(Demo),
    /// Make a running gateway forget what it has stored
    Purge(Purge),
    /// Have a running gateway fetch URLs ahead of their visitors
    Warm(Warm),
    /// Write what a running gateway has stored into a file, or list what is in one
    Export(Export),
    /// Have a running gateway store what is in a file of `larder export`
    Import(Import),
    /// Ask a running gateway what it would do with a request, and why
    Explain(Explain),
    /// Show what a running gateway has been doing
    Stats(Stats),
    /// Show what a running gateway is doing, live
    Top(Top),
    /// Show the requests of a running gateway as they end
    Tail(Tail),
    /// Show the nodes that share a running gateway's Redis, and how far each is
    Nodes(Stats),
    /// Have a running gateway take over its configuration as it is now, all of it or nothing
    Reload(Reload),
    /// Show what a running gateway logs, or change it
    LogLevel(LogLevel),
    /// Look after the disk tier, of a running gateway or of a directory that none uses
    Disk(Disk),
    /// Look after the certificate authority with which https calls through the proxy are opened and cached
    Ca(Ca),
    /// Make a key for a tenant, and print it with its hash
    Key(Key),
    /// Ask a running gateway whether requests should be sent to it; ends with 1 where they should not
    Health(Health),
    /// Print completions for a shell
    Completions {
        /// Which one
        shell: Shell,
    },
    /// Print the manual page, or write those of all commands into a directory
    Man(Man),
}

/// `larder serve`.
#[derive(Debug, Clone, Default, Args)]
pub struct Serve {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG", value_parser = path(), value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Where clients come in [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where operators come in [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Origin for every request no other route takes; several are taken in turn
    #[arg(long, value_name = "URL", env = "LARDER_UPSTREAM", value_delimiter = ',', value_hint = ValueHint::Url)]
    upstream: Vec<String>,
    /// Redis that several nodes share: one URL, or those of some nodes of a cluster
    #[arg(long, value_name = "URL", env = "LARDER_REDIS", hide_env_values = true, value_delimiter = ',', value_hint = ValueHint::Url)]
    redis: Vec<String>,
    /// Directory for what survives a restart
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data_dir: Option<String>,
    /// Token of the admin plane
    #[arg(long, value_name = "TOKEN", env = "LARDER_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// File of the certificate with which clients are served over TLS, and of those between it and an authority (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key", value_hint = ValueHint::FilePath)]
    tls_cert: Option<String>,
    /// File of its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", value_hint = ValueHint::FilePath)]
    tls_key: Option<String>,
    /// How log lines look [default: pretty]
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["pretty", "json"]))]
    log: Option<String>,
}

impl Serve {
    /// Where the configuration comes from, this process's environment included.
    pub fn sources(self) -> Sources {
        let Self { config, listen, admin, mut upstream, mut redis, data_dir, admin_token, tls_cert, tls_key, log } =
            self;
        // A variable that is set to nothing, as scripts and containers do, is none.
        upstream.retain(|url| !url.is_empty());
        redis.retain(|url| !url.is_empty());
        let admin_token = admin_token.filter(|token| !token.is_empty());
        let config = config.filter(|file| is_named(file));
        let tls = tls_cert.zip(tls_key);
        Sources::from_process(config, Overrides { listen, admin, upstream, redis, data_dir, admin_token, log, tls })
    }
}

/// `larder check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Configuration file (TOML); without one, the environment alone is checked
    #[arg(value_name = "FILE", env = "LARDER_CONFIG", value_parser = path(), value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
}

impl Check {
    /// Where the configuration comes from, this process's environment included.
    pub fn sources(self) -> Sources {
        Sources::from_process(self.file.filter(|file| is_named(file)), Overrides::default())
    }
}

/// `larder demo`.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// Stay, so that you can look around with curl
    #[arg(long)]
    pub keep: bool,
}

/// Which gateway a command talks to.
#[derive(Debug, Clone, Args)]
pub struct Client {
    /// Admin address of the gateway
    #[arg(long, value_name = "URL", env = "LARDER_ADMIN_URL", default_value = DEFAULT_ADMIN)]
    pub admin: String,
    /// Token of its admin plane
    #[arg(long, value_name = "TOKEN", env = "LARDER_ADMIN_TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
    /// Whom it is believed to be, over https.
    #[command(flatten)]
    pub tls: AdminTls,
}

/// How an admin plane is spoken to over https.
#[derive(Debug, Clone, Default, Args)]
pub struct AdminTls {
    /// File of authorities (PEM) that may vouch for an admin plane over https [default: those of the system]
    #[arg(long, value_name = "FILE", env = "LARDER_ADMIN_CA", value_hint = ValueHint::FilePath)]
    pub admin_ca: Option<PathBuf>,
    /// File of the certificate to show it (PEM), where it asks for one
    #[arg(long, value_name = "FILE", env = "LARDER_ADMIN_CERT", requires = "admin_key", value_hint = ValueHint::FilePath)]
    pub admin_cert: Option<PathBuf>,
    /// File of its key (PEM)
    #[arg(long, value_name = "FILE", env = "LARDER_ADMIN_KEY", requires = "admin_cert", value_hint = ValueHint::FilePath)]
    pub admin_key: Option<PathBuf>,
}

/// What a purge waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// This node; the others follow
    Local,
    /// The log of all nodes
    Log,
    /// All nodes
    Fleet,
}

impl From<Wait> for Ack {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Local => Self::Local,
            Wait::Log => Self::Log,
            Wait::Fleet => Self::Fleet,
        }
    }
}

/// `larder purge`.
#[derive(Debug, Args)]
pub struct Purge {
    /// What to forget.
    #[command(flatten)]
    pub what: Scopes,
    /// Make it stale instead: it is revalidated before it is served again, and still there if the origin fails
    #[arg(long)]
    pub soft: bool,
    /// Fetch what was purged again at once
    #[arg(long)]
    pub refresh: bool,
    /// Purge nothing: only count what would be
    #[arg(long)]
    pub dry_run: bool,
    /// For so long, store what is fetched again for no longer than the rest of this time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub hold: Option<Duration>,
    /// What to wait for, with several nodes
    #[arg(long, value_enum, default_value_t = Wait::Log)]
    pub ack: Wait,
    /// Which gateway.
    #[command(flatten)]
    pub client: Client,
}

/// What a purge names; at least one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Scopes {
    /// URLs, with all their variants
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub urls: Vec<String>,
    /// Everything that carries a tag
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Everything below a URL
    #[arg(long = "prefix", value_name = "URL", value_hint = ValueHint::Url)]
    pub prefixes: Vec<String>,
    /// Everything of a host
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// One key, as `larder explain` shows it
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,
    /// Everything
    #[arg(long)]
    pub all: bool,
}

/// `larder warm`.
#[derive(Debug, Args)]
pub struct Warm {
    /// What to fetch.
    #[command(flatten)]
    pub what: Urls,
    /// Fetches at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,
    /// Fetches a second at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Tenant for whom it is, where routes ask for one
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,
    /// Which gateway.
    #[command(flatten)]
    pub client: Client,
}

/// What a warm-up fetches; at least one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Urls {
    /// URLs
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub urls: Vec<String>,
    /// File with one URL a line; `-` is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Access log (common or combined format, or this gateway's own in JSON), most requested first
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub access_log: Option<PathBuf>,
    /// Where the paths of the access log are to be found, if it names paths only
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url, requires = "access_log")]
    pub base: Option<String>,
}

/// `larder export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The file, which only you can read, and which holds the answers in clear; `-` is standard output
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Show what is in the file, a line of JSON for each entry; no gateway is asked, and `-` is standard input
    #[arg(long)]
    pub list: bool,
    /// Only what is of a route
    #[arg(long = "route", value_name = "NAME")]
    pub routes: Vec<String>,
    /// Only a URL, with all its variants; this and the next four add up
    #[arg(long = "url", value_name = "URL", value_hint = ValueHint::Url)]
    pub urls: Vec<String>,
    /// Only what is below a URL
    #[arg(long = "prefix", value_name = "URL", value_hint = ValueHint::Url)]
    pub prefixes: Vec<String>,
    /// Only what carries a tag
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only what is of a host
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Only one key, as `larder explain` shows it
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,
    /// Only what is fresh
    #[arg(long)]
    pub fresh_only: bool,
    /// Do not compress the file (zstd)
    #[arg(long)]
    pub plain: bool,
    /// Which gateway.
    #[command(flatten)]
    pub client: Client,
}

/// `larder import`.
#[derive(Debug, Args)]
pub struct Import {
    /// A file that `larder export` wrote; `-` is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Store nothing: only count what would be
    #[arg(long)]
    pub dry_run: bool,
    /// Only what is of a route
    #[arg(long = "route", value_name = "NAME")]
    pub routes: Vec<String>,
    /// Take what another gateway exported; what was purged there after the export is yours to purge here
    #[arg(long)]
    pub foreign: bool,
    /// Store entries as stale: the origin is asked about each before it is used
    #[arg(long)]
    pub stale: bool,
    /// Which gateway.
    #[command(flatten)]
    pub client: Client,
}

/// `larder explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// URL as a client would ask for it
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub url: String,
    /// Header field of the request, `Name: value`
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = field)]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Tenant it is of, where its route asks for one
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Content of a call to a model, or `@FILE` that has it
    #[arg(short = 'd', long, value_name = "CONTENT", value_hint = ValueHint::FilePath)]
    pub data: Option<String>,
    /// Which gateway.
    #[command(flatten)]
    pub client: Client,
}

/// `larder stats` and `larder nodes`.
#[derive(Debug, Args)]
pub struct Stats {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Which gateway.
    #[command(flatten)]
    pub client: Client,
}

/// `larder top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Show the figures of one interval, and end
    #[arg(long)]
    pub once: bool,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub interval: Duration,
    /// Which gateway.
    #[command(flatten)]
    pub client: Client,
}

/// `larder tail`.
#[derive(Debug, Args)]
pub struct Tail {
    /// Only those with this outcome: hit, miss, ...
    #[arg(long, value_name = "OUTCOME", value_parser = PossibleValuesParser::new(Outcome::NAMES))]
    pub outcome: Option<String>,
    /// Only those of this route
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Only those of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only those with this status, or of this class: 404, 5xx
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,
    /// Only those with this path, or one that begins so: /a, '/v1/*'
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// As JSON, one request a line
    #[arg(long)]
    pub json: bool,
    /// Which gateway.
    #[command(flatten)]
    pub client: Client,
}

/// `larder key`.
#[derive(Debug, Args)]
pub struct Key {
    /// Print the hash of the key on the standard input instead
    #[arg(long)]
    pub hash: bool,
}

/// `larder reload`.
#[derive(Debug, Args)]
pub struct Reload {
    /// Only say what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Which gateway.
    #[command(flatten)]
    pub client: Client,
}

/// `larder log-level`.
#[derive(Debug, Args)]
pub struct LogLevel {
    /// error, warn, info, debug, trace, off, or a filter by module as log.level takes it; absent: show it
    #[arg(value_name = "FILTER")]
    pub level: Option<String>,
    /// Go back after so long
    #[arg(long = "for", value_name = "DURATION", requires = "level", value_parser = duration)]
    pub lasts: Option<Duration>,
    /// Which gateway.
    #[command(flatten)]
    pub client: Client,
}

/// `larder health`.
#[derive(Debug, Args)]
pub struct Health {
    /// Ask only whether the process lives; one that is stopping does
    #[arg(long)]
    pub live: bool,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub timeout: Duration,
    /// Admin address of the gateway
    #[arg(long, value_name = "URL", env = "LARDER_ADMIN_URL", default_value = DEFAULT_ADMIN)]
    pub admin: String,
    /// How, over https.
    #[command(flatten)]
    pub tls: AdminTls,
}

/// `larder man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for each command into this directory, which is made if it is missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

/// `larder disk`.
#[derive(Debug, Args)]
pub struct Disk {
    /// What to do.
    #[command(subcommand)]
    pub action: DiskAction,
}

/// What can be done to the disk tier.
#[derive(Debug, Subcommand)]
pub enum DiskAction {
    /// Show what it holds
    Stats(DiskPlace),
    /// Read everything, and remove what is not as it was written; ends with 65 where there was such
    Verify(DiskPlace),
    /// Remove content that nothing names, and entries without their content
    Gc(DiskPlace),
    /// Remove everything, whatever release wrote it
    Clear {
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Where.
        #[command(flatten)]
        place: DiskPlace,
    },
}

/// Which disk tier.
#[derive(Debug, Clone, Args)]
pub struct DiskPlace {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Configuration file (TOML) that says where the data directory is
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG", value_parser = path(), value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The data directory; if a gateway uses it, that one is asked
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<String>,
    /// Admin address of the gateway to ask [default: of the configuration]; without --data-dir, that one is asked in any
    /// case
    #[arg(long, value_name = "URL", env = "LARDER_ADMIN_URL")]
    admin: Option<String>,
    /// Token of its admin plane [default: of the configuration]
    #[arg(long, value_name = "TOKEN", env = "LARDER_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// Whom it is believed to be, over https.
    #[command(flatten)]
    pub tls: AdminTls,
}

impl DiskPlace {
    /// The gateway that was named. A variable that is set to nothing names none.
    pub fn admin(&self) -> Option<&str> {
        self.admin.as_deref().filter(|url| !url.is_empty())
    }

    /// The token that was given.
    pub fn admin_token(&self) -> Option<&str> {
        self.admin_token.as_deref().filter(|token| !token.is_empty())
    }

    /// Where the configuration comes from, this process's environment included.
    pub fn sources(&self) -> Sources {
        let config = self.config.clone().filter(|file| is_named(file));
        Sources::from_process(config, Overrides { data_dir: self.data_dir.clone(), ..Overrides::default() })
    }
}

/// `larder ca`.
#[derive(Debug, Args)]
pub struct Ca {
    /// What to do.
    #[command(subcommand)]
    pub action: CaAction,
}

/// What can be done with the authority.
#[derive(Debug, Subcommand)]
pub enum CaAction {
    /// Make it, for the hosts of intercept.hosts and no others
    Init {
        /// In place of the one there is, which programs then no longer need to trust
        #[arg(long)]
        force: bool,
        /// Where.
        #[command(flatten)]
        place: CaPlace,
    },
    /// Show where it is, what it may sign and until when
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Where.
        #[command(flatten)]
        place: CaPlace,
    },
    /// Say how programs are told to trust it
    InstallHint {
        /// Only what a shell has to run: `eval "$(larder ca install-hint --shell)"`
        #[arg(long)]
        shell: bool,
        /// Where.
        #[command(flatten)]
        place: CaPlace,
    },
}

/// Which authority.
#[derive(Debug, Clone, Args)]
pub struct CaPlace {
    /// Configuration file (TOML) that says where the data directory is, and which hosts are intercepted
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG", value_parser = path(), value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The data directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data_dir: Option<String>,
}

impl CaPlace {
    /// Where the configuration comes from, this process's environment included.
    pub fn sources(&self) -> Sources {
        let config = self.config.clone().filter(|file| is_named(file));
        Sources::from_process(config, Overrides { data_dir: self.data_dir.clone(), ..Overrides::default() })
    }
}

/// Takes an empty path too, which is none.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn is_named(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text).map_err(|error| format!("{error}, expected such as 30s"))
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected `Name: value`")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|error| error.to_string())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(Cli::into_command)
    }

    fn serve(line: &str) -> Overrides {
        match parse(line) {
            Ok(Command::Serve(serve)) => serve.sources().overrides,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serving_needs_no_word() {
        for line in ["larder --upstream http://a --upstream http://b", "larder serve --upstream http://a,http://b"] {
            assert_eq!(serve(line).upstream, ["http://a", "http://b"], "{line}");
        }
        assert_eq!(serve("larder --log json").log.as_deref(), Some("json"));
        assert!(serve("larder").listen.is_none());
        assert!(serve("larder --upstream= --admin-token=").upstream.is_empty());
        assert_eq!(serve("larder --admin-token=").admin_token, None);
        let Ok(Command::Serve(serve)) = parse("larder --config=") else { panic!("serve") };
        assert_eq!(serve.sources().file, None);
        assert!(parse("larder --log xml").is_err());
        assert!(parse("larder --upstream http://a stats").is_err());
    }

    #[test]
    fn a_purge_names_something() {
        assert!(parse("larder purge --soft").is_err());
        let Ok(Command::Purge(purge)) = parse("larder purge http://h/a --tag x --tag y --hold 5m --refresh") else {
            panic!("a purge")
        };
        assert_eq!((purge.what.urls.len(), purge.what.tags.len()), (1, 2));
        assert_eq!(purge.hold, Some(Duration::from_secs(300)));
        assert_eq!(purge.client.admin, "http://127.0.0.1:8081");
        assert!(matches!(parse("larder purge --all"), Ok(Command::Purge(purge)) if purge.what.all));
        assert!(parse("larder purge --all --hold soon").is_err());
    }

    #[test]
    fn a_disk_tier_is_looked_after() {
        assert!(parse("larder disk").is_err());
        assert!(parse("larder disk stats --yes").is_err());
        let Ok(Command::Disk(Disk { action: DiskAction::Clear { yes: true, place } })) =
            parse("larder disk clear --yes --json --data-dir /d --config=")
        else {
            panic!("clear")
        };
        assert!(place.json && place.sources().file.is_none());
        assert_eq!(place.sources().overrides.data_dir.as_deref(), Some("/d"));
    }

    #[test]
    fn an_authority_is_made_and_shown() {
        assert!(parse("larder ca").is_err());
        let Ok(Command::Ca(Ca { action: CaAction::Init { force: true, place } })) =
            parse("larder ca init --force --data-dir /d --config=")
        else {
            panic!("init")
        };
        assert!(place.sources().file.is_none());
        assert_eq!(place.sources().overrides.data_dir.as_deref(), Some("/d"));
        assert!(matches!(parse("larder ca show --json"), Ok(Command::Ca(_))));
        assert!(matches!(parse("larder ca install-hint --shell"), Ok(Command::Ca(_))));
        assert!(parse("larder ca show --force").is_err());
    }

    #[test]
    fn a_warm_up_fetches_something() {
        assert!(parse("larder warm").is_err());
        assert!(parse("larder warm http://h/ --concurrency 0").is_err());
        assert!(matches!(parse("larder warm --file - --rate 5 --no-wait"), Ok(Command::Warm(_))));
    }

    #[test]
    fn a_probe_needs_no_token() {
        let Ok(Command::Health(health)) = parse("larder health --timeout 500ms") else { panic!("health") };
        assert_eq!((health.live, health.timeout), (false, Duration::from_millis(500)));
        assert_eq!(health.admin, DEFAULT_ADMIN);
        assert!(parse("larder health --admin-token x").is_err());
    }

    #[test]
    fn fields_of_an_explained_request() {
        let line = ["larder", "explain", "http://h/", "--header", "Accept: text/html", "-H", "X-Empty:"];
        let Ok(Command::Explain(explain)) = Cli::try_parse_from(line).map(Cli::into_command) else { panic!("explain") };
        assert_eq!(explain.headers[0].0, "accept");
        assert_eq!(explain.headers[0].1, "text/html");
        assert_eq!(explain.headers[1].1, "");
        assert!(parse("larder explain http://h/ -H nothing").is_err());
    }
}
