//! Wiring: from a configuration to a running gateway, and back to a stopped one.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::FutureExt;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod build;
pub mod disk;
mod handler;
mod intercept;
mod jwt;
mod packs;
mod reload;
mod secret;
mod sockets;
mod tls;
mod workers;

pub use self::reload::{Reader, Source};
use self::{
    handler::ProxyHandler, intercept::Interception, jwt::Keys, reload::Reloader, sockets::Sockets, tls::Certificates,
    workers::Workers,
};
use crate::{
    admin::{self, Admin, Auth},
    changes::{self, Consumer},
    config::Config,
    jwt::Issuers,
    kv,
    listener::Server,
    otlp::{self, Exporter},
    proxy::Live,
    store,
    telemetry::{Logs, process, trace::Tracer},
    webhook::{self, Webhooks},
};

/// How long stopping waits for changes that are in hand.
const CONSUMER_STOP_MAX: Duration = Duration::from_secs(2);

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error("data directory {path:?}: {source}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The secret cannot be used.
    #[error("secret {path:?}: {source}")]
    Secret {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The purge log cannot be opened.
    #[error("{0}")]
    PurgeLog(Box<dyn std::error::Error + Send + Sync>),
    /// Redis cannot be reached as configured.
    #[error(transparent)]
    Redis(kv::ConfigError),
    /// The file of Redis's password cannot be used.
    #[error("password of Redis {path:?}: {source}")]
    RedisPassword {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The disk tier cannot be opened.
    #[error("{0}")]
    DiskTier(store::l3::OpenError),
    /// Tunnels are to be opened, and cannot be.
    #[error(transparent)]
    Intercept(#[from] crate::intercept::Error),
    /// A file of recorded calls cannot be used.
    #[error(transparent)]
    Pack(#[from] crate::pack::Error),
    /// A route's upstream cannot be used.
    #[error("route {route:?}: {reason}")]
    Upstream {
        /// Name of the route.
        route: String,
        /// Why.
        reason: String,
    },
    /// Similar calls of a route cannot be looked for.
    #[error("route {route:?}: {source}")]
    Semantic {
        /// Name of the route.
        route: String,
        /// Why.
        source: crate::cache::llm::semantic::Error,
    },
    /// The keys of an issuer of tokens cannot be used.
    #[error(transparent)]
    Issuer(#[from] crate::jwt::Error),
    /// A webhook cannot be used.
    #[error("webhook {name:?}: {source}")]
    Webhook {
        /// Its name.
        name: String,
        /// Why.
        source: webhook::Error,
    },
    /// TLS cannot be served.
    #[error(transparent)]
    Tls(#[from] crate::tls::Error),
    /// The collector of traces cannot be used.
    #[error("trace.endpoint: {0}")]
    Trace(#[source] otlp::Error),
    /// A thread cannot be started.
    #[error("cannot start the threads that serve clients (listen.workers): {0}")]
    Workers(std::io::Error),
    /// A socket that was handed over cannot be used.
    #[error("the socket that was handed over for {key} (LISTEN_FDS) is none to listen on: {source}")]
    Inherited {
        /// The setting it stands for.
        key: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key}): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting.
        key: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// A running gateway.
pub struct Running {
    /// Where clients come in.
    pub data: SocketAddr,
    /// Where operators come in.
    pub admin: SocketAddr,
    proxy: Live,
    reloader: Option<Arc<Reloader>>,
    stop: CancellationToken,
    stop_admin: CancellationToken,
    serving: Workers,
    administering: JoinHandle<()>,
    consuming: Option<JoinHandle<()>>,
    webhooks: Arc<Webhooks>,
    exporter: Option<Exporter>,
}

/// Starts a gateway. `logs` is where lines go; with a `source`, its configuration can be read again.
///
/// # Errors
/// Where an address, the data directory or an upstream cannot be used. Nothing is left running then.
pub async fn start(config: &Config, logs: Logs, source: Option<Source>) -> Result<Running, Error> {
    let mut registry = Registry::with_prefix("larder");
    let mut process = Registry::default();
    process::register(&mut process);
    let mut sockets = Sockets::from_env();
    let (data_listener, data) = sockets.listen("listen.data", config.listen.data)?;
    let (admin_listener, admin) = sockets.listen("listen.admin", config.listen.admin)?;
    logs.register(&mut registry);
    let mut ground = build::ground(config, logs.access.clone(), &mut registry)?;
    let traced = (!config.trace.endpoint.is_empty()).then(|| Tracer::new(&config.trace));
    ground.tracer = traced.as_ref().map(|(tracer, _)| tracer.clone());
    let keys = Keys::new(config, ground.cache.origins());
    let issuers = Issuers::new(&config.jwt, &config.issuer, Arc::clone(&keys) as _, &mut registry)?;
    ground.issuers = issuers.clone();
    let (proxy, limits) = ground.proxy(config, None)?;
    ground.limits.take(limits);
    let proxy = Live::new(proxy);
    let (kv, auth) = (ground.kv.clone(), Auth::new(&config.admin, issuers.clone()));
    let certificates = Certificates::new(config, &mut registry)?;
    let server = Server::new(config.client.clone(), &mut registry).with_tls(certificates.data());
    let server = Arc::new(server);
    let interception = Interception::new(config, &server, &mut registry)?.map(Arc::new);
    let (stop, stop_admin) = (CancellationToken::new(), CancellationToken::new());
    let registry = Arc::new(Mutex::new(registry));
    let log = source.as_ref().and_then(|source| source.log.clone());
    let reloader = source.map(|source| {
        let (live, auth, current) = (proxy.clone(), auth.clone(), Mutex::new(config.clone()));
        Arc::new(Reloader {
            source,
            ground,
            live,
            auth,
            issuers,
            keys,
            certificates: Arc::clone(&certificates),
            current,
        })
    });
    let admin_plane = Admin::new(admin::Parts {
        config: config.admin.clone(),
        purge: config.purge.clone(),
        warm: config.warm.clone(),
        archive: config.archive,
        proxy: proxy.clone(),
        auth,
        reload: reloader.clone().map(|reloader| reloader as _),
        log,
        audit: logs.audit.clone(),
        registry: Arc::clone(&registry),
        process,
        draining: stop.clone(),
        tls: certificates.admin(),
    });
    let exporter = traced.map(|(tracer, ended)| {
        let (live, mut registry) = (proxy.now(), registry.lock());
        Exporter::start(&config.trace, (&tracer, ended), (&config.origin, live.cache().origins()), &mut registry)
    });
    let exporter = exporter.transpose().map_err(Error::Trace)?;
    let webhooks =
        Webhooks::start(&config.webhook, &config.origin, proxy.now().cache().origins(), &mut registry.lock());
    let webhooks = Arc::new(webhooks.map_err(|(name, source)| Error::Webhook { name, source })?);
    let told = Arc::clone(&webhooks);
    proxy.now().tell_purges(Box::new(move |request, receipt| told.tell(request, receipt)));
    let consuming = kv.filter(|_| config.changes.stream).map(|kv| {
        let parts = changes::Parts {
            config: config.changes.clone(),
            purge: config.purge.clone(),
            kv,
            namespace: config.l2.namespace.clone(),
            node: build::node_name(config),
            proxy: proxy.clone(),
            refresher: admin_plane.refresher(),
        };
        Consumer::start(parts, &mut registry.lock(), stop.clone())
    });
    let answer_purge = admin_plane.purge_answerer();
    proxy.now().answer_purges(Box::new(move |head| Box::pin(answer_purge(head).then(handler::collected))));
    let (handler, stopped) = (ProxyHandler { proxy: proxy.clone(), interception, tenant: None }, stop.clone());
    let serving = Workers::start(config.listen.workers, data_listener, &server, &handler, &stopped);
    let serving = serving.map_err(Error::Workers)?;
    let (warming, stopped, max) = (proxy.current(), stop.clone(), config.l3.preload_max);
    tokio::spawn(async move { stopped.run_until_cancelled(warming.preload(max)).await });
    let stopped = stop_admin.clone();
    tokio::spawn(async move { stopped.run_until_cancelled(certificates.watch()).await });
    let stopped = stop_admin.clone();
    let administering = tokio::spawn(async move {
        admin_plane.serve(admin_listener, stopped).await;
    });
    Ok(Running {
        data,
        admin,
        proxy,
        reloader,
        stop,
        stop_admin,
        serving,
        administering,
        consuming,
        webhooks,
        exporter,
    })
}

impl Running {
    /// The proxy that answers.
    pub fn proxy(&self) -> &Live {
        &self.proxy
    }

    /// Takes the configuration over as it is now, and says in the log what came of it.
    pub fn reload(&self) {
        if let Some(reloader) = &self.reloader {
            reload::reload_and_say(reloader);
        }
    }

    /// Stops: no new connections, requests under way finish within `client.drain_timeout`. The admin plane answers
    /// until then, so that it can be watched.
    pub async fn stop(self) {
        self.stop.cancel();
        self.serving.ended().await;
        if let Some(consuming) = self.consuming {
            // What it does not finish, another node does, or this one when it is back.
            let _ = tokio::time::timeout(CONSUMER_STOP_MAX, consuming).await;
        }
        if let Some(fleet) = self.proxy.now().cache().fleet() {
            fleet.leave().await;
        }
        if let Some(l2) = self.proxy.now().cache().l2() {
            l2.flush().await;
        }
        self.stop_admin.cancel();
        // A task that panicked has stopped as well.
        let _ = self.administering.await;
        self.webhooks.stop().await;
        if let Some(exporter) = self.exporter {
            exporter.stop().await;
        }
    }
}
