//! The admin plane: purge, warm, look, explain, over HTTP.
//!
//! ```text
//!  request ─▶ id ─▶ limits ─▶ audit ─▶ panics ─▶ size ─▶ PURGE? ─▶ route ─▶ token ─▶ deadline ─▶ handler
//! ```
//!
//! Errors are problem+json (RFC 9457) that name what was wrong and the way out. The paths and their meaning are in the
//! handlers, from where `/openapi.json`, `/docs` and `/` get them.

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, request};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    config::{Config, Scope},
    disk_task::DiskTasks,
    door::{Door, Remote},
    limits::Limits,
    openapi::Operation,
    problem::nearest,
};
use crate::{
    proxy::Live,
    purge as purge_log,
    telemetry::{Guard, Lines},
    tls::Acceptor,
    warm::{self as warm_jobs, Jobs, Refresher},
};

mod archive;
mod audit;
pub mod auth;
pub mod config;
mod console;
mod disk;
mod disk_task;
mod door;
mod entries;
mod explain;
mod foreign;
mod health;
mod idle;
mod json;
mod limits;
mod log_level;
mod metrics;
mod nodes;
mod openapi;
mod problem;
mod purge;
mod purge_compat;
mod reload;
mod requests;
mod stats;
#[cfg(test)]
mod tests;
mod warm;

pub use self::{
    auth::Auth,
    disk::DiskStats,
    disk_task::{Cleared, DiskCall, DiskState, DiskTask},
    explain::ExplainRequest,
    log_level::{LogLevel, LogLevelNow},
    problem::Problem,
    reload::{Change, Reload, Reloaded},
    warm::WarmRequest,
};

/// How long a call may take, from its head to the head of the answer. Waiting for a job has no deadline.
const DEADLINE: Duration = Duration::from_secs(60);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the admin plane is made of.
pub struct Parts {
    /// `[admin]`.
    pub config: Config,
    /// `[purge]`.
    pub purge: purge_log::config::Config,
    /// `[warm]`.
    pub warm: warm_jobs::Config,
    /// `[archive]`.
    pub archive: crate::archive::Config,
    /// The gateway it looks after.
    pub proxy: Live,
    /// Who may call.
    pub auth: Auth,
    /// What takes over configurations, if anything does.
    pub reload: Option<Arc<dyn Reload>>,
    /// The log whose level can be changed, if there is one.
    pub log: Option<Guard>,
    /// Where lines about calls go; none: among the diagnostic ones.
    pub audit: Option<Lines>,
    /// Every metric of the gateway.
    pub registry: Arc<Mutex<Registry>>,
    /// Those of the process it is.
    pub process: Registry,
    /// Cancelled when the gateway begins to drain.
    pub draining: CancellationToken,
    /// Whether and how handshakes are answered.
    pub tls: Arc<Acceptor>,
}

/// The admin plane; clones are the same one.
#[derive(Clone)]
pub struct Admin {
    shared: Arc<Shared>,
    body_bytes_max: usize,
    connections_max: usize,
    idle_timeout: Duration,
    tls: Arc<Acceptor>,
}

/// What handlers share.
struct Shared {
    auth: Auth,
    limits: Limits,
    proxy: Live,
    reload: Option<Arc<dyn Reload>>,
    log: Option<Guard>,
    /// What takes back the level that was set for a while.
    level_ends: Mutex<Option<JoinHandle<()>>>,
    audit: Option<Lines>,
    purge_config: purge_log::config::Config,
    jobs: Jobs,
    refresher: Refresher,
    disk_tasks: DiskTasks,
    archive: crate::archive::Config,
    /// Exports and imports that may begin.
    archives: Arc<tokio::sync::Semaphore>,
    /// Whoever looks through all that is stored, one after the other.
    surveys: tokio::sync::Mutex<()>,
    registry: Arc<Mutex<Registry>>,
    process: Registry,
    draining: CancellationToken,
}

impl Admin {
    /// Puts it together, and starts the queue of refreshes: to be called within a runtime.
    pub fn new(parts: Parts) -> Self {
        let Parts { config, purge, warm, archive, proxy, auth, reload, log, audit, registry, process, draining, tls } =
            parts;
        let metrics = warm_jobs::Metrics::register(&mut registry.lock());
        let fetch = warm_jobs::through(proxy.clone());
        let refresher = Refresher::start(
            Arc::clone(&fetch),
            metrics.clone(),
            purge.refresh_max,
            purge.refresh_rate,
            warm.concurrency,
            draining.clone(),
        );
        let shared = Shared {
            auth,
            limits: Limits::new(&config),
            proxy,
            reload,
            log,
            level_ends: Mutex::default(),
            audit,
            purge_config: purge,
            jobs: Jobs::new(warm, fetch, metrics, draining.clone()),
            refresher,
            disk_tasks: DiskTasks::new(draining.clone()),
            archive,
            archives: archive::permits(archive.jobs_max),
            surveys: tokio::sync::Mutex::default(),
            registry,
            process,
            draining,
        };
        let body_bytes_max = usize::try_from(config.body_bytes_max.as_u64()).unwrap_or(usize::MAX);
        let Config { connections_max, idle_timeout, .. } = config;
        Self { shared: Arc::new(shared), body_bytes_max, connections_max, idle_timeout, tls }
    }

    /// The queue of what is fetched again after purges.
    pub fn refresher(&self) -> Refresher {
        self.shared.refresher.clone()
    }

    /// Answers calls until `stop`; calls under way are finished.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let service = self.router().into_make_service_with_connect_info::<Remote>();
        let door = Door::new(listener, Arc::clone(&self.tls), self.connections_max, self.idle_timeout);
        let serving = axum::serve(door, service).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(%error, "admin plane ended");
        }
    }

    /// What answers `PURGE` on the data listener. It holds the admin plane weakly: the gateway it is given to is part
    /// of that, and neither would ever go.
    pub fn purge_answerer(&self) -> impl Fn(request::Parts) -> BoxFuture<'static, Response> + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.shared);
        move |head| {
            let shared = shared.upgrade();
            Box::pin(async move {
                match shared {
                    Some(shared) => shared.purge_of_client(&head).await,
                    None => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping").into_response(),
                }
            })
        }
    }

    /// Everything it answers.
    pub fn router(&self) -> Router {
        let (router, document) = documented(&self.shared.auth).split_for_parts();
        let document = serde_json::to_value(document).unwrap_or(Value::Null);
        let unknown = Arc::new(Unknown(openapi::operations(&document)));
        let other_method = Arc::clone(&unknown);
        router
            .merge(openapi::routes(&document))
            .merge(console::routes())
            .fallback(async move |uri: Uri| unknown.path(uri.path()))
            .method_not_allowed_fallback(async move |method: Method, uri: Uri| other_method.method(&method, uri.path()))
            .layer(middleware::from_fn_with_state(Arc::clone(&self.shared), purge_compat::purge_method))
            .with_state(Arc::clone(&self.shared))
            .layer(DefaultBodyLimit::max(self.body_bytes_max))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(middleware::from_fn_with_state(Arc::clone(&self.shared), audit::audit))
            .layer(middleware::from_fn_with_state(Arc::clone(&self.shared), limits::limit))
            .layer(PropagateRequestIdLayer::new(REQUEST_ID))
            .layer(SetRequestIdLayer::new(REQUEST_ID, RandomId))
            .layer(middleware::from_fn(idle::under_way))
    }
}

/// The routes, by what a caller has to be allowed.
fn documented(auth: &Auth) -> OpenApiRouter<Arc<Shared>> {
    let require = |needed| middleware::from_fn_with_state((auth.clone(), needed), auth::require);
    let deadline = || middleware::from_fn(deadline);
    let open = OpenApiRouter::new().routes(routes!(health::healthz)).routes(routes!(health::readyz));
    let read = OpenApiRouter::new()
        .routes(routes!(stats::stats))
        .routes(routes!(nodes::nodes))
        .routes(routes!(requests::requests))
        .routes(routes!(requests::stream))
        .routes(routes!(entries::entries))
        .routes(routes!(explain::by_query, explain::by_body))
        .routes(routes!(metrics::metrics))
        .routes(routes!(warm::list))
        .routes(routes!(warm::show))
        .routes(routes!(disk::stats))
        .routes(routes!(disk::show))
        .route_layer(deadline())
        .route_layer(require(Scope::Read));
    let purge = OpenApiRouter::new()
        .routes(routes!(purge::purge))
        .routes(routes!(purge_compat::fastly_key))
        .routes(routes!(purge_compat::fastly_keys))
        .routes(routes!(purge_compat::fastly_all))
        .routes(routes!(purge_compat::cloudflare))
        .route_layer(deadline())
        .route_layer(require(Scope::Purge));
    let operate = OpenApiRouter::new()
        .routes(routes!(warm::start))
        .routes(routes!(warm::cancel))
        .routes(routes!(reload::reload))
        .routes(routes!(log_level::show, log_level::change))
        .routes(routes!(disk::start))
        .routes(routes!(archive::export))
        .routes(routes!(archive::import))
        .routes(routes!(disk::stop))
        .route_layer(require(Scope::Operate));
    OpenApiRouter::with_openapi(openapi::Document::openapi()).merge(open).merge(read).merge(purge).merge(operate)
}

/// Middleware: gives up on a call that takes too long.
async fn deadline(request: Request, next: Next) -> Response {
    tokio::time::timeout(DEADLINE, next.run(request)).await.unwrap_or_else(|_| {
        let detail = "the call took too long; whether it took effect is not known";
        Problem::new(StatusCode::GATEWAY_TIMEOUT, detail).into_response()
    })
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the call failed inside; the log says where").into_response()
}

/// What is answered to calls of nothing.
struct Unknown(Vec<Operation>);

impl Unknown {
    fn path(&self, path: &str) -> Problem {
        let near = nearest(path, self.0.iter().map(|operation| operation.path.as_str()));
        let hint = near.map(|near| format!(": did you mean {near}?")).unwrap_or_default();
        let known = self.0.iter().map(|operation| format!("{} {}", operation.method, operation.path)).collect();
        Problem::new(StatusCode::NOT_FOUND, format!("there is no {path} here{hint}")).with_known(known)
    }

    fn method(&self, method: &Method, path: &str) -> Problem {
        let known = self.0.iter().filter(|operation| matches(&operation.path, path));
        let known = known.map(|operation| format!("{} {}", operation.method, operation.path)).collect();
        let detail = format!("{path} takes no {method}");
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).with_known(known)
    }
}

/// Whether `path` fits a template such as `/warm/{id}`.
fn matches(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(want), Some(segment)) if want == segment || want.starts_with('{') => {}
            _ => return false,
        }
    }
}

/// Makes ids for calls that bring none.
#[derive(Debug, Clone, Copy)]
struct RandomId;

impl MakeRequestId for RandomId {
    fn make_request_id<B>(&mut self, _: &http::Request<B>) -> Option<RequestId> {
        let id = getrandom::u64().ok()?;
        HeaderValue::from_str(&format!("{id:016x}")).ok().map(RequestId::new)
    }
}
