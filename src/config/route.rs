//! Routes with everything that holds for them: what they override laid over `[cache]` and `[origin]`.

use std::fmt;

use figment::value::{Dict, Value};

use super::{
    Config,
    error::Problem,
    key_path::KeyPath,
    layer::{self, RouteSettings, Setting},
    load::{self, Refusal, merged},
    validate::{self, Finding},
};
use crate::{
    cache::config::Policy,
    jwt, llm, origin,
    proxy::{config::RouteConfig, routes::Matcher},
    tenants,
};

/// A route, ready to be built.
#[derive(Clone, PartialEq)]
pub struct ResolvedRoute {
    /// As configured.
    pub route: RouteConfig,
    /// Its host and path.
    pub matcher: Matcher,
    /// `[access]` with what the route overrides.
    pub access: tenants::Access,
    /// `[cache]` with what the route overrides.
    pub cache: Policy,
    /// `[origin]` with what the route overrides.
    pub origin: origin::config::Config,
    /// `[llm]` with what the route overrides.
    pub llm: llm::config::Config,
}

impl fmt::Debug for ResolvedRoute {
    /// Without the fields it sets, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, matcher, access, cache, origin, llm } = self;
        f.debug_struct("ResolvedRoute")
            .field("name", &route.name)
            .field("matcher", matcher)
            .field("upstream", &route.upstream)
            .field("access", access)
            .field("cache", cache)
            .field("origin", origin)
            .field("llm", llm)
            .finish_non_exhaustive()
    }
}

/// What routes override.
struct Sections {
    access: Dict,
    cache: Dict,
    origin: Dict,
    llm: Dict,
}

/// Takes routes in their order.
pub(super) struct Resolver<'a> {
    /// `[access]`, `[cache]`, `[origin]` and `[llm]` as configured.
    sections: Sections,
    /// What is wrong with them already, and not to be told again of each route.
    known: &'a [Finding],
    /// Whose tokens routes can take.
    issuers: Vec<jwt::Config>,
    /// Whether clients of the forward proxy are of tenants.
    proxy_asks: bool,
    pub(super) routes: Vec<ResolvedRoute>,
    /// Routes that gave way.
    pub(super) unreached: Vec<ResolvedRoute>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(tree: &Dict, known: &'a [Finding], config: &Config) -> Self {
        let section = |name: &str| match tree.get(name) {
            Some(Value::Dict(_, section)) => section.clone(),
            _ => Dict::new(),
        };
        let (access, cache) = (section("access"), section("cache"));
        let sections = Sections { access, cache, origin: section("origin"), llm: section("llm") };
        let (routes, unreached, problems, warnings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let proxy_asks = config.forward.clients_auth == tenants::Clients::Tenants;
        let issuers = config.issuer.clone();
        Self { sections, known, issuers, proxy_asks, routes, unreached, problems, warnings }
    }

    /// Takes the next route. The answer is the route as configured, if it is sound.
    pub(super) fn add(&mut self, route: RouteSettings) -> Option<Value> {
        self.require(&route);
        let RouteSettings { path, place, settings } = route;
        let before = self.problems.len();
        let good = load::tried(settings, &path, &mut self.problems, |setting| probe(&self.sections, setting));
        let tree = layer::tree(&good);
        // Without its name or its upstream it is no route, which has been said.
        let route: RouteConfig = Value::from(tree.clone()).deserialize().ok()?;
        let resolved = match self.resolve(route) {
            Ok(resolved) => resolved,
            Err(error) => {
                self.problems.push(Problem::new(place, &path, error.to_string()));
                return None;
            }
        };
        let problem = |finding: &Finding| finding.problem(&path, finding.place(&good).unwrap_or_else(|| place.clone()));
        let findings = self.findings(&resolved);
        self.problems.extend(findings.iter().map(problem));
        self.warnings.extend(self.lint(&resolved).iter().map(problem));
        let sound = self.problems.len() == before;
        self.routes.push(resolved);
        sound.then(|| Value::from(tree))
    }

    /// As [`Resolver::add`], for a route that gives way: to one of its name, and to one that takes all its requests.
    pub(super) fn add_unless_taken(&mut self, route: RouteSettings) -> Option<Value> {
        let giving: RouteConfig = Value::from(layer::tree(&route.settings)).deserialize().ok()?;
        let matcher = Matcher::parse(None, giving.path.as_deref()).ok()?;
        let taken = |other: &ResolvedRoute| other.route.name == giving.name || other.matcher.covers(&matcher);
        if !self.routes.iter().any(taken) {
            return self.add(route);
        }
        self.unreached.extend(self.resolve(giving));
        None
    }

    fn require(&mut self, route: &RouteSettings) {
        for key in ["name", "upstream"] {
            if !route.settings.iter().any(|setting| setting.path.keys().eq([key])) {
                self.problems.push(Problem::new(route.place.clone(), &route.path, format!("`{key}` is missing")));
            }
        }
    }

    fn resolve(&self, route: RouteConfig) -> Result<ResolvedRoute, Refusal> {
        let Sections { access, cache, origin, llm } = &self.sections;
        let (cache, llm) = (merged(cache, &route.cache)?, merged(llm, &route.llm)?);
        let access = merged(access, &route.access)?;
        let mut origin: origin::config::Config = merged(origin, &with_patience(&route))?;
        origin.tls_ca_file.take_if(|file| file.as_os_str().is_empty());
        // A pattern that is none is found by `validate`, and the route never used.
        let matcher = Matcher::parse(route.host.as_deref(), route.path.as_deref()).unwrap_or_default();
        Ok(ResolvedRoute { route, matcher, access, cache, origin, llm })
    }

    fn findings(&self, resolved: &ResolvedRoute) -> Vec<Finding> {
        let mut findings = validate::route(&resolved.route);
        if self.routes.iter().any(|other| other.route.name == resolved.route.name) {
            findings.push(Finding::new(KeyPath::root().key("name"), "another route has this name"));
        }
        let sections = [
            validate::access(&resolved.access),
            validate::used_issuers(&resolved.access, &self.issuers),
            validate::policy(&resolved.cache),
            validate::origin(&resolved.origin),
            validate::llm(&resolved.llm),
            validate::packed(resolved, self.proxy_asks),
        ];
        findings.extend(sections.into_iter().flatten().filter(|finding| !self.known.contains(finding)));
        findings
    }

    fn lint(&self, resolved: &ResolvedRoute) -> Vec<Finding> {
        let mut findings = validate::lint_route(resolved);
        if let Some(earlier) = self.routes.iter().find(|earlier| earlier.matcher.covers(&resolved.matcher)) {
            let message = format!("never reached: route {:?} before it takes all its requests", earlier.route.name);
            findings.push(Finding::new(KeyPath::root(), message));
        }
        findings
    }
}

/// What a route overrides of `[origin]`. A model thinks for minutes before the first byte of an answer, and between two
/// pieces of one.
fn with_patience(route: &RouteConfig) -> Dict {
    let mut origin = route.origin.clone();
    if route.protocol.model().is_some() {
        for key in ["head_timeout", "body_idle_timeout"] {
            origin.entry(key.to_owned()).or_insert_with(|| Value::from("10m"));
        }
    }
    origin
}

/// Whether one setting of a route can be read.
fn probe(sections: &Sections, setting: &Setting) -> Result<(), Refusal> {
    let tree = setting.tree();
    match (setting.path.keys().next(), tree.values().next()) {
        (Some("access"), Some(Value::Dict(_, overrides))) => {
            merged::<tenants::Access>(&sections.access, overrides).map(drop)
        }
        (Some("cache"), Some(Value::Dict(_, overrides))) => merged::<Policy>(&sections.cache, overrides).map(drop),
        (Some("origin"), Some(Value::Dict(_, overrides))) => {
            merged::<origin::config::Config>(&sections.origin, overrides).map(drop)
        }
        (Some("llm"), Some(Value::Dict(_, overrides))) => {
            merged::<llm::config::Config>(&sections.llm, overrides).map(drop)
        }
        _ => {
            let least = ["name", "upstream"].map(|key| (key.to_owned(), Value::from("")));
            merged::<RouteConfig>(&Dict::from(least), &tree).map(drop)
        }
    }
}
