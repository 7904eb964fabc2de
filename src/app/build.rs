//! From configuration to parts: what is made, in which order, and of what.

use std::{path::PathBuf, sync::Arc};

use prometheus_client::registry::Registry;

use super::{Error, disk, packs::Packs, secret};
use crate::{
    cache::{
        self, Cache, Clock, Spill,
        llm::{Models, semantic::Matchers},
    },
    config::{Config, ResolvedRoute},
    jwt::Issuers,
    kv::Kv,
    limit::{self, Limits},
    llm::question::Settings,
    origin::{Origins, TargetPolicy, Upstream},
    proxy::{
        self, Metrics, Proxy, ProxyRoute, Reached,
        config::{HostHeader, OneOrMany, RouteConfig},
        routes::RouteTable,
    },
    purge::{self, Fleet, fleet::Identity},
    store::{L1, L2, L3},
    telemetry::{AccessLog, Recent, trace::Tracer},
    tenants::{Access, Gate, Names, Tenants},
};

/// Name of the forward proxy where routes are named: in keys, metrics and logs.
const FORWARD: &str = "forward";

/// What stays for the life of a process, and proxies are made over.
pub(super) struct Ground {
    pub(super) cache: Cache,
    /// Redis, where there is one.
    pub(super) kv: Option<Kv>,
    packs: Packs,
    pub(super) limits: Limits,
    metrics: Metrics,
    matchers: Matchers,
    access: Option<AccessLog>,
    pub(super) tracer: Option<Tracer>,
    recent: Recent,
    names: Names,
    /// Of tokens: those that the gateway has for its life, whatever they are configured to be.
    pub(super) issuers: Issuers,
}

/// Makes all that is below the proxy.
pub(super) fn ground(config: &Config, access: Option<AccessLog>, registry: &mut Registry) -> Result<Ground, Error> {
    let data_dir = config.data_path();
    let directory = |source| Error::DataDir { path: data_dir.to_owned(), source };
    std::fs::create_dir_all(data_dir).map_err(directory)?;
    let log = purge::Log::open(&config.purge, data_dir, registry).map_err(|source| Error::PurgeLog(source.into()))?;
    let unreadable = |source| Error::Secret { path: secret::path(config), source };
    let secret = secret::load_or_make(config).map_err(unreadable)?;
    let clock = Clock::start();
    let (shared, kv) = shared_tier(config, &secret, &clock, &log, registry)?.unzip();
    let l3 = disk_tier(config, &secret, &clock, registry)?;
    let shared_limits = kv.clone().map(|kv| (kv, &config.l2.namespace[..]));
    let limits = Limits::new(&config.limits, shared_limits, secret, registry);
    let matchers = Matchers::register(registry);
    let cache = cache(config, secret, clock, log, (shared, l3), matchers.clone(), registry);
    let metrics = Metrics::register(registry);
    let packs = Packs::open(all_routes(config))?;
    let recent = Recent::new(&config.log);
    let (names, issuers) = (Names::default(), Issuers::none());
    Ok(Ground { cache, kv, packs, limits, metrics, matchers, access, recent, tracer: None, names, issuers })
}

fn all_routes(config: &Config) -> impl Iterator<Item = &ResolvedRoute> {
    config.routes().iter().chain(config.unreached_routes())
}

impl Ground {
    /// Whether the packs that are open are those that `config` names.
    pub(super) fn has_packs_of(&self, config: &Config) -> bool {
        self.packs.are_those_of(all_routes(config))
    }

    /// The proxy of `config`. Of the one that has answered so far, with its settings, routes that are the same go on with
    /// all they have: connections, and what they have learnt. Its limits are to be taken once it answers.
    pub(super) fn proxy(
        &self,
        config: &Config,
        earlier: Option<(&Proxy, &Config)>,
    ) -> Result<(Proxy, limit::Read), Error> {
        let (own, hosts_max) = (proxy::own_fields(&config.headers), config.forward.hosts_max);
        let kept = earlier.filter(|(_, before)| before.headers == config.headers);
        let kept = kept.filter(|(_, before)| before.forward.hosts_max == hosts_max);
        let of_before = |resolved: &ResolvedRoute| {
            let (proxy, before) = kept?;
            let index = before.routes().iter().position(|one| one == resolved)?;
            proxy.routes().iter().nth(index).map(|(_, route)| Arc::clone(route))
        };
        let read = self.limits.read(&config.limit);
        let limits = |route: &str| read.of(route, config.limits.fields);
        let table = |resolved: &[ResolvedRoute]| {
            let made = resolved.iter().map(|resolved| {
                let route = match of_before(resolved) {
                    Some(route) => route,
                    None => route(resolved, own.clone(), hosts_max, &self.packs, &self.metrics, &self.matchers)?,
                };
                Ok((resolved.matcher.clone(), route.limited(limits(&resolved.route.name))))
            });
            Ok::<_, Error>(RouteTable::new(made.collect::<Result<_, Error>>()?))
        };
        let (routes, unreached) = (table(config.routes())?, table(config.unreached_routes())?);
        let rules = cache::route::ResponseRules::default();
        let mut forward_route = cache::route::Route::new(FORWARD, None, config.cache.clone(), rules, own.clone());
        let forward_gate = Gate::of(&Access { clients: config.forward.clients_auth, ..config.access.clone() });
        if forward_gate.is_some() {
            forward_route = forward_route.with_tenants();
        }
        let parts = proxy::Parts {
            cache: self.cache.clone(),
            routes,
            unreached,
            forward_route: Arc::new(forward_route),
            forward_limits: limits(FORWARD),
            forward_gate,
            forward: config.forward.clone(),
            origin: config.origin.clone(),
            headers: config.headers.clone(),
            tenants: Tenants::new(&config.tenant, self.issuers.clone(), self.names.clone(), config.access.names_max),
            access: self.access.clone(),
            tracer: self.tracer.clone(),
            recent: self.recent.clone(),
            body_bytes_max: config.client.body_bytes_max.as_u64(),
        };
        Ok((Proxy::new(parts, self.metrics.clone(), earlier.map(|(proxy, _)| proxy)), read))
    }
}

/// What nodes share.
type Shared = (L2, Fleet);

/// The tier in Redis and the nodes that share it, if there is to be one. Nothing waits for Redis: it may come later.
fn shared_tier(
    config: &Config,
    secret: &[u8; 32],
    clock: &Clock,
    log: &purge::Log,
    registry: &mut Registry,
) -> Result<Option<(Shared, Kv)>, Error> {
    if !config.l2.is_on() {
        return Ok(None);
    }
    let password = |source| Error::RedisPassword { path: PathBuf::from(&config.l2.password_file), source };
    let kv = Kv::start(&config.l2.kv().map_err(password)?, registry).map_err(Error::Redis)?;
    let l2 = L2::new(&config.l2, kv.clone(), secret, registry);
    let identity = Identity { name: node_name(config), namespace: config.l2.namespace.clone(), secret: *secret };
    let (scopes_max, clock) = (config.purge.scopes_max, *clock);
    let fleet =
        Fleet::join(&config.fleet, identity, kv.clone(), log.clone(), scopes_max, move || clock.now(), registry);
    let fleet = fleet.map_err(|source| Error::PurgeLog(source.into()))?;
    Ok(Some(((l2, fleet), kv)))
}

/// What this node is called in lists.
pub(super) fn node_name(config: &Config) -> String {
    if !config.fleet.node.is_empty() {
        return config.fleet.node.clone();
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match config.listen.data.port() {
        0 => host,
        port => format!("{host}:{port}"),
    }
}

/// The disk tier, if there is to be one. The purge log is open by then: nothing is found here that it forbids.
fn disk_tier(config: &Config, secret: &[u8; 32], clock: &Clock, registry: &mut Registry) -> Result<Option<L3>, Error> {
    if config.l3.max_bytes.as_u64() == 0 {
        return Ok(None);
    }
    if config.l3.encrypt && secret::is_in_data_dir(config) {
        tracing::warn!(
            secret = ?secret::path(config),
            "l3.encrypt is on and the secret lies in the data directory: whoever takes that has both (secret_file)"
        );
    }
    let now = *clock;
    let directory = disk::directory(config);
    L3::open(&config.l3, &directory, secret, move || now.now(), registry).map(Some).map_err(Error::DiskTier)
}

fn cache(
    config: &Config,
    secret: [u8; 32],
    clock: Clock,
    log: purge::Log,
    (shared, l3): (Option<Shared>, Option<L3>),
    matchers: Matchers,
    registry: &mut Registry,
) -> Cache {
    let l1 = L1::new(&config.l1, registry);
    let (l2, fleet) = shared.unzip();
    let origins = Origins::new(registry);
    let spill = Spill::new(&config.data_path().join("spill"), config.fill.spill_bytes_max.as_u64());
    let spill = if config.l3.encrypt { spill.enciphered() } else { spill };
    let parts = cache::Parts {
        config: config.fill.clone(),
        name: config.headers.pseudonym.clone(),
        secret,
        clock,
        l1,
        l2,
        l3,
        log,
        fleet,
        origins,
        spill,
        prices: config.prices(),
        matchers,
    };
    Cache::new(parts, registry)
}

fn route(
    resolved: &ResolvedRoute,
    own: cache::route::OwnFields,
    hosts_max: usize,
    packs: &Packs,
    metrics: &Metrics,
    matchers: &Matchers,
) -> Result<Arc<ProxyRoute>, Error> {
    let ResolvedRoute { route, matcher, access, cache, origin, llm } = resolved;
    let urls = match &route.upstream {
        OneOrMany::One(url) => std::slice::from_ref(url),
        OneOrMany::Many(urls) => urls,
    };
    // A route's upstream is the operator's own word: wherever it leads is meant.
    let upstream = match urls {
        [template] if template.contains("{}") => Reached::divided(template, origin.clone(), hosts_max),
        _ => Upstream::new(urls, origin.clone(), TargetPolicy::Any)
            .map(Reached::One)
            .map_err(|error| Error::Upstream { route: route.name.clone(), reason: error.to_string() })?,
    };
    let (request_set, request_remove, response) = proxy::compile(&route.headers);
    let strip = matcher.path.as_ref().filter(|_| route.strip_path).map(|path| path.as_str().to_owned());
    let mut cache = cache::route::Route::new(&route.name, site(route), cache.clone(), response, own);
    let gate = Gate::of(access);
    if gate.is_some() {
        cache = cache.with_tenants();
    }
    if let Some(protocol) = route.protocol.model() {
        let settings = Settings::new(protocol, llm.clone());
        let packed = packs.of(&cache, &settings);
        let matcher = matchers.of(&route.name, &llm.semantic, origin);
        cache = cache.with_models(Models {
            settings,
            packed,
            upstream: urls.join(" ").into(),
            strip: strip.as_ref().map_or(0, |prefix| prefix.matches('/').count()),
            matcher: matcher.map_err(|source| Error::Semantic { route: route.name.clone(), source })?,
        });
    }
    let route =
        ProxyRoute::new(Arc::new(cache), upstream, strip, route.host_header, request_set, request_remove, metrics);
    Ok(Arc::new(route.behind(gate)))
}

/// The route's own site, where its answers cannot depend on the authority a client names.
fn site(route: &RouteConfig) -> Option<Arc<str>> {
    let blind = route.host.is_none() && route.host_header == HostHeader::Upstream;
    blind.then(|| format!("route:{}", route.name).into())
}
