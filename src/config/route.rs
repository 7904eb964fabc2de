//! Routes with everything that holds for them: what they override laid over `[cache]` and `[origin]`.

use std::fmt;

use figment::value::{Dict, Value};

use super::{
    error::Problem,
    key_path::KeyPath,
    layer::{self, RouteSettings, Setting},
    load::{self, Refusal, merged},
    validate::{self, Finding},
};
use crate::{
    cache::config::Policy,
    origin,
    proxy::{config::RouteConfig, routes::Matcher},
};

/// A route, ready to be built.
#[derive(Clone, PartialEq)]
pub struct ResolvedRoute {
    /// As configured.
    pub route: RouteConfig,
    /// Its host and path.
    pub matcher: Matcher,
    /// `[cache]` with what the route overrides.
    pub cache: Policy,
    /// `[origin]` with what the route overrides.
    pub origin: origin::config::Config,
}

impl fmt::Debug for ResolvedRoute {
    /// Without the fields it sets, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, matcher, cache, origin } = self;
        f.debug_struct("ResolvedRoute")
            .field("name", &route.name)
            .field("matcher", matcher)
            .field("upstream", &route.upstream)
            .field("cache", cache)
            .field("origin", origin)
            .finish_non_exhaustive()
    }
}

/// Takes routes in their order.
pub(super) struct Resolver<'a> {
    /// `[cache]` and `[origin]` as configured.
    cache: Dict,
    origin: Dict,
    /// What is wrong with them already, and not to be told again of each route.
    known: &'a [Finding],
    pub(super) routes: Vec<ResolvedRoute>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(tree: &Dict, known: &'a [Finding]) -> Self {
        let section = |name: &str| match tree.get(name) {
            Some(Value::Dict(_, section)) => section.clone(),
            _ => Dict::new(),
        };
        let (cache, origin) = (section("cache"), section("origin"));
        Self { cache, origin, known, routes: Vec::new(), problems: Vec::new(), warnings: Vec::new() }
    }

    /// Takes the next route. The answer is the route as configured, if it is sound.
    pub(super) fn add(&mut self, route: RouteSettings) -> Option<Value> {
        self.require(&route);
        let RouteSettings { path, place, settings } = route;
        let before = self.problems.len();
        let good =
            load::tried(settings, &path, &mut self.problems, |setting| probe(&self.cache, &self.origin, setting));
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

    fn require(&mut self, route: &RouteSettings) {
        for key in ["name", "upstream"] {
            if !route.settings.iter().any(|setting| setting.path.keys().eq([key])) {
                self.problems.push(Problem::new(route.place.clone(), &route.path, format!("`{key}` is missing")));
            }
        }
    }

    fn resolve(&self, route: RouteConfig) -> Result<ResolvedRoute, Refusal> {
        let cache = merged(&self.cache, &route.cache)?;
        let mut origin: origin::config::Config = merged(&self.origin, &route.origin)?;
        origin.tls_ca_file.take_if(|file| file.as_os_str().is_empty());
        // A pattern that is none is found by `validate`, and the route never used.
        let matcher = Matcher::parse(route.host.as_deref(), route.path.as_deref()).unwrap_or_default();
        Ok(ResolvedRoute { route, matcher, cache, origin })
    }

    fn findings(&self, resolved: &ResolvedRoute) -> Vec<Finding> {
        let mut findings = validate::route(&resolved.route);
        if self.routes.iter().any(|other| other.route.name == resolved.route.name) {
            findings.push(Finding::new(KeyPath::root().key("name"), "another route has this name"));
        }
        let sections = [validate::policy(&resolved.cache), validate::origin(&resolved.origin)];
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

/// Whether one setting of a route can be read.
fn probe(cache: &Dict, origin: &Dict, setting: &Setting) -> Result<(), Refusal> {
    let tree = setting.tree();
    match (setting.path.keys().next(), tree.values().next()) {
        (Some("cache"), Some(Value::Dict(_, overrides))) => merged::<Policy>(cache, overrides).map(drop),
        (Some("origin"), Some(Value::Dict(_, overrides))) => {
            merged::<origin::config::Config>(origin, overrides).map(drop)
        }
        _ => {
            let least = ["name", "upstream"].map(|key| (key.to_owned(), Value::from("")));
            merged::<RouteConfig>(&Dict::from(least), &tree).map(drop)
        }
    }
}
