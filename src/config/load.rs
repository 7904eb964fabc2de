//! From sources to a configuration: defaults, file, environment, flags, each above the one before it.
//!
//! Every setting is tried alone on top of the defaults first. That costs some milliseconds at start and finds every
//! wrong value at once, each with its place, where reading the whole would stop at the first and know of no line.

use serde::de::DeserializeOwned;
use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use super::{
    Config, Derived, env,
    error::{Errors, Place, Problem},
    file,
    key_path::KeyPath,
    layer::{self, Layer, RouteSettings, Setting},
    locate::Source,
    mask, providers,
    route::{ResolvedRoute, Resolver},
    schema::{self, DEFAULTS},
    validate::{self, Finding},
};
use figment::{
    Figment,
    error::Kind,
    providers::Serialized,
    value::{Dict, Value},
};

/// Name of the route that `--upstream` makes.
pub const UPSTREAM_ROUTE: &str = "default";

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file, which must be there.
    pub file: Option<PathBuf>,
    /// The environment: names and values. Variables that do not begin with `LARDER_` count only for `data_dir`.
    pub env: Vec<(String, String)>,
    /// What flags say.
    pub overrides: Overrides,
}

impl Sources {
    /// With the environment of this process.
    pub fn from_process(file: Option<PathBuf>, overrides: Overrides) -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let env = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        Self { file, env, overrides }
    }
}

/// Settings from flags.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`.
    pub listen: Option<String>,
    /// `--admin`.
    pub admin: Option<String>,
    /// `--upstream`, all of them: one route for everything, after all others.
    pub upstream: Vec<String>,
    /// `--redis`, all of them.
    pub redis: Vec<String>,
    /// `--data-dir`.
    pub data_dir: Option<String>,
    /// `--admin-token`.
    pub admin_token: Option<String>,
    /// `--log`.
    pub log: Option<String>,
    /// `--tls-cert` and `--tls-key`: the one certificate of the data listener.
    pub tls: Option<(String, String)>,
}

/// Reads all sources; see [`Errors`] for what is told when they are wrong.
pub fn load(sources: &Sources) -> Result<Config, Errors> {
    let file = sources.file.as_deref().map(read).unwrap_or_default();
    assemble([file, env::layer(&sources.env), flags(&sources.overrides)], &sources.env)
}

/// Reads one text as if it were a file of this name, and nothing else.
pub(super) fn parse(name: &str, text: &str) -> Result<Config, Errors> {
    assemble([file::layer(&Source::new(name, text)), Layer::default(), Layer::default()], &[])
}

fn read(path: &Path) -> Layer {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => file::layer(&Source::new(&name, &text)),
        Err(error) => {
            let place = Place::File { name, at: None };
            let problem = Problem::new(place, &KeyPath::root(), format!("cannot be read: {error}"));
            Layer { problems: vec![problem], ..Layer::default() }
        }
    }
}

fn flags(overrides: &Overrides) -> Layer {
    let single = [
        ("--listen", KeyPath::root().key("listen").key("data"), &overrides.listen),
        ("--admin", KeyPath::root().key("listen").key("admin"), &overrides.admin),
        ("--data-dir", KeyPath::root().key("data_dir"), &overrides.data_dir),
        ("--admin-token", KeyPath::root().key("admin").key("token"), &overrides.admin_token),
        ("--log", KeyPath::root().key("log").key("format"), &overrides.log),
    ];
    let single = single
        .into_iter()
        .filter_map(|(flag, path, value)| Some(Setting::new(path, value.as_deref()?, Place::Flag(flag))));
    let redis = (!overrides.redis.is_empty()).then(|| {
        let path = KeyPath::root().key("l2").key("url");
        Setting::new(path, overrides.redis.clone(), Place::Flag("--redis"))
    });
    let tls = overrides.tls.as_ref().map(|(cert, key)| {
        let path = KeyPath::root().key("listen").key("tls").key("certificates");
        let files = Dict::from([("cert".to_owned(), cert.as_str().into()), ("key".to_owned(), key.as_str().into())]);
        Setting::new(path, vec![Value::from(files)], Place::Flag("--tls-cert"))
    });
    let settings = single.chain(redis).chain(tls).collect();
    let routes = (!overrides.upstream.is_empty()).then(|| vec![upstream_route(&overrides.upstream)]);
    Layer { settings, routes, ..Layer::default() }
}

fn upstream_route(upstream: &[String]) -> RouteSettings {
    let place = Place::Flag("--upstream");
    let setting = |key: &str, value: Value| Setting::new(KeyPath::root().key(key), value, place.clone());
    let settings = vec![setting("name", UPSTREAM_ROUTE.into()), setting("upstream", upstream.to_vec().into())];
    RouteSettings { path: KeyPath::root().key("route").named(UPSTREAM_ROUTE), place, settings }
}

fn assemble(layers: [Layer; 3], env: &[(String, String)]) -> Result<Config, Errors> {
    let [mut file, mut environment, mut flags] = layers;
    let routes = [environment.routes.take().or(file.routes.take()), flags.routes.take()];
    let mut problems = Vec::new();
    let (figment, settings) = layered([file, environment, flags], &mut problems);
    let (tree, mut config) = match (figment.extract::<Dict>(), figment.extract::<Config>()) {
        (Ok(tree), Ok(config)) => (tree, config),
        (Err(error), _) | (_, Err(error)) => {
            problems.push(Problem::new(Place::Default, &KeyPath::root(), error.to_string()));
            return Err(Errors::new(problems));
        }
    };
    config.origin.tls_ca_file.take_if(|file| file.as_os_str().is_empty());

    let findings = validate::config(&config);
    problems.extend(placed(&findings, &settings));
    let mut resolver = Resolver::new(&tree, &findings, &config);
    let mut routes: Vec<_> = routes.into_iter().flatten().flatten().filter_map(|route| resolver.add(route)).collect();
    routes.extend(providers::routes(&config.providers).filter_map(|route| resolver.add_unless_taken(route)));
    problems.append(&mut resolver.problems);
    let known: Vec<_> = resolver.routes.iter().chain(&resolver.unreached).map(|one| &one.route.name[..]).collect();
    problems.extend(placed(&validate::limited_routes(&config.limit, &known), &settings));
    problems.extend(placed(&validate::used_routes(&config.tenant, &resolver.routes), &settings));
    if !problems.is_empty() {
        return Err(Errors::new(problems));
    }
    let mut warnings = placed(&validate::lint(&config), &settings);
    warnings.extend(placed(&validate::lint_access(&config, &resolver.routes), &settings));
    warnings.append(&mut resolver.warnings);
    Ok(complete(config, (resolver.routes, resolver.unreached), warnings, with_routes(tree, routes), env))
}

/// All layers above the defaults, and the settings that made them.
fn layered(layers: [Layer; 3], problems: &mut Vec<Problem>) -> (Figment, Vec<Setting>) {
    let mut figment = Figment::from(Serialized::defaults(defaults()));
    let mut settings = Vec::new();
    for layer in layers {
        problems.extend(layer.problems);
        let good = tried(layer.settings, &KeyPath::root(), problems, probe);
        figment = figment.merge(Serialized::defaults(layer::tree(&good)));
        settings.extend(good);
    }
    (figment, settings)
}

fn with_routes(mut tree: Dict, routes: Vec<Value>) -> Dict {
    tree.insert("route".to_owned(), Value::from(routes));
    tree
}

fn complete(
    mut config: Config,
    (routes, unreached): (Vec<ResolvedRoute>, Vec<ResolvedRoute>),
    warnings: Vec<Problem>,
    tree: Dict,
    env: &[(String, String)],
) -> Config {
    config.route = routes.iter().map(|resolved| resolved.route.clone()).collect();
    let data_path = super::data_path(&config.data_dir, env);
    let masked = mask::mask(tree.clone());
    config.derived = Derived { routes, unreached, warnings, settings: tree, masked, data_path };
    config
}

/// The settings of `default.toml`.
fn defaults() -> &'static Dict {
    static SETTINGS: LazyLock<Dict> = LazyLock::new(|| {
        let table = Source::new("default.toml", DEFAULTS).parse().expect("compiled in, and parsed by a test");
        match file::value(&toml_edit::Item::Table(table)) {
            Value::Dict(_, defaults) => defaults,
            _ => unreachable!("a document is a table"),
        }
    });
    &SETTINGS
}

fn probe(setting: &Setting) -> Result<(), Refusal> {
    merged::<Config>(defaults(), &setting.tree()).map(drop)
}

/// Why something cannot be read.
pub(super) type Refusal = Box<figment::Error>;

/// `overrides` laid over `base`: tables are merged, anything else is replaced.
pub(super) fn merged<T: DeserializeOwned>(base: &Dict, overrides: &Dict) -> Result<T, Refusal> {
    let layers = Figment::from(Serialized::defaults(base)).merge(Serialized::defaults(overrides));
    layers.extract().map_err(Box::new)
}

/// What was found, each with the place of the setting that is to blame.
fn placed(findings: &[Finding], settings: &[Setting]) -> Vec<Problem> {
    let place = |finding: &Finding| finding.place(settings).unwrap_or(Place::Default);
    findings.iter().map(|finding| finding.problem(&KeyPath::root(), place(finding))).collect()
}

/// Settings that can be read each for itself; the others become problems.
pub(super) fn tried(
    settings: Vec<Setting>,
    prefix: &KeyPath,
    problems: &mut Vec<Problem>,
    probe: impl Fn(&Setting) -> Result<(), Refusal>,
) -> Vec<Setting> {
    let mut good = Vec::new();
    for setting in settings {
        match probe(&setting) {
            Ok(()) => good.push(setting),
            Err(error) => problems.push(refused(&setting, prefix, &error)),
        }
    }
    good
}

/// What is wrong with a setting that cannot be read.
fn refused(setting: &Setting, prefix: &KeyPath, error: &figment::Error) -> Problem {
    let (inside, value) = blamed(setting, &error.path);
    let place = setting.place(inside.steps());
    let path = setting.path.then(&inside);
    let message = if mask::is_secret(&path) { "expected a text".to_owned() } else { reason(&error.kind, value) };
    Problem::new(place, &prefix.then(&path), message)
}

/// The part of the value of `setting` that the path of an error leads to.
fn blamed<'a>(setting: &'a Setting, path: &[String]) -> (KeyPath, &'a Value) {
    let last = setting.path.keys().last();
    let inside = path.iter().skip_while(|step| Some(&step[..]) != last).skip(1);
    let mut found = (KeyPath::root(), &setting.value);
    for step in inside {
        let inner = match found.1 {
            Value::Array(_, list) => step.parse().ok().and_then(|index| Some((found.0.index(index), list.get(index)?))),
            Value::Dict(_, dict) => dict.get(step).map(|value| (found.0.key(step), value)),
            _ => None,
        };
        match inner {
            Some(inner) => found = inner,
            None => break,
        }
    }
    found
}

fn reason(kind: &Kind, value: &Value) -> String {
    match kind {
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("expected {}, found {actual}", in_words(expected))
        }
        Kind::UnknownVariant(text, variants) => {
            let list = variants.iter().map(|variant| format!("{variant:?}")).collect::<Vec<_>>().join(", ");
            let meant = schema::nearest(text, variants.iter().copied());
            let meant = meant.map(|variant| format!("; did you mean {variant:?}?")).unwrap_or_default();
            format!("{text:?} is none of {list}{meant}")
        }
        Kind::MissingField(field) => format!("`{field}` is missing"),
        Kind::Message(message) if message.contains("untagged enum") => "expected a text or a list of texts".to_owned(),
        Kind::Message(message) => match in_words(message) {
            known if known != message => format!("expected {known}, found {}", value.to_actual()),
            _ => format!("{message}, found {}", value.to_actual()),
        },
        other => other.to_string(),
    }
}

/// What the readers of sizes, durations, addresses and networks expect, or complain of, said for people.
fn in_words(expected: &str) -> &str {
    match expected {
        "parsable string" | "an integer or string" | "integer overflow" => "a size such as \"64KiB\"",
        "a duration" => "a duration such as \"30s\"",
        "socket address" | "invalid socket address syntax" => "an address such as \"127.0.0.1:8080\"",
        "IPv4 or IPv6 network address" | "invalid IP address syntax" => "a network such as \"10.0.0.0/8\"",
        name if name.starts_with("enum ") => "a text",
        expected => expected,
    }
}
