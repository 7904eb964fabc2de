//! Tunnels that are opened: between CONNECT and the requests inside.
//!
//! The proxy asks here before it tunnels. What is opened is served by the data listener, with its limits, and handed to
//! the proxy as any request is, which knows of it that it came in a tunnel, and to whom.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rustls::{AlertDescription, ServerConfig};
use tokio::time::Instant;

use super::handler::ProxyHandler;
use crate::{
    config::Config,
    intercept::{Authority, Certificates, Error, Hosts, Metrics, Outcome, Store, config::Enabled},
    listener::{HandshakeError, Peer, Server},
    object::path::normalise_authority,
    proxy::{Guards, Interceptor, Opening},
};

/// Days before its end from which a start warns of it.
const WARNED: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often a line tells of one host.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Hosts that are told of in that time.
const TOLD_MAX: usize = 256;

/// Opens the tunnels of the hosts on the list.
pub(super) struct Interception {
    hosts: Hosts,
    ports: Vec<u16>,
    certificates: Certificates,
    idle_timeout: Duration,
    metrics: Metrics,
    told: Told,
    server: Arc<Server>,
}

impl Interception {
    /// As configured; `None` where no tunnel is to be opened.
    ///
    /// # Errors
    /// Where there is no authority and one is asked for, or the one there is cannot be used.
    pub(super) fn new(config: &Config, server: &Arc<Server>, registry: &mut Registry) -> Result<Option<Self>, Error> {
        let settings = &config.intercept;
        let store = Store::of(config.data_path());
        let wanted = match settings.enabled {
            Enabled::Auto => store.is_made(),
            Enabled::On => true,
            Enabled::Off => false,
        };
        if !wanted {
            return Ok(None);
        }
        let authority = Authority::load(&store)?;
        let hosts = settings.hosts().expect("a configuration that was loaded has valid hosts");
        let hosts = covered(hosts, &authority);
        let metrics = Metrics::register(registry);
        Ok(Some(Self {
            hosts,
            ports: settings.ports.clone(),
            certificates: Certificates::new(authority, settings, metrics.clone())?,
            idle_timeout: config.forward.tunnel_idle_timeout,
            metrics,
            told: Told::default(),
            server: Arc::clone(server),
        }))
    }

    /// For a request of `peer`.
    pub(super) fn of(self: &Arc<Self>, handler: &ProxyHandler, peer: &Arc<Peer>) -> Arc<dyn Interceptor> {
        Arc::new(OfClient { interception: Arc::clone(self), handler: handler.clone(), peer: Arc::clone(peer) })
    }

    async fn serve(
        &self,
        upgraded: OnUpgrade,
        tls: Arc<ServerConfig>,
        host: &str,
        authority: Arc<str>,
        guards: Guards,
        client: OfClient,
    ) {
        // The client has gone before its tunnel was there.
        let Ok(upgraded) = upgraded.await else { return };
        let OfClient { handler, peer, .. } = client;
        let secured = match self.server.secure(upgraded, tls, &peer, Box::new(guards)).await {
            Ok(secured) => secured,
            Err(error) => return self.failed(host, &error),
        };
        self.metrics.count(Outcome::Opened);
        let spoke = self.server.serve_inside(secured, &peer, authority, self.idle_timeout, handler).await;
        if !spoke {
            self.metrics.count(Outcome::Unused);
            if self.told.may(host) {
                tracing::info!(
                    host,
                    "a client has closed an intercepted connection without a request: if it reports a certificate it \
                     does not trust, `larder ca install-hint` says how it is told to"
                );
            }
        }
    }

    fn failed(&self, host: &str, error: &HandshakeError) {
        let outcome = match error {
            HandshakeError::Stopped => return,
            HandshakeError::TimedOut => Outcome::TimedOut,
            HandshakeError::Failed(error) if is_distrust(error) => Outcome::Distrusted,
            HandshakeError::Failed(_) => Outcome::Failed,
        };
        self.metrics.count(outcome);
        if self.told.may(host) {
            tracing::warn!(
                host,
                %error,
                "a client refuses the certificate of an intercepted connection, or speaks no TLS: `larder ca \
                 install-hint` says how programs are told to trust the CA; without the host in intercept.hosts, its \
                 connections pass untouched"
            );
        }
    }
}

/// Those that the authority may sign for. Clients would refuse what it signs for others.
fn covered(hosts: Hosts, authority: &Authority) -> Hosts {
    let about = authority.about();
    if about.not_after <= std::time::SystemTime::now() + WARNED {
        tracing::warn!(on = about.ends(), "the CA expires soon: `larder ca init --force` makes a new one");
    }
    let hosts = hosts.filtered(|host| {
        let covered = about.covers(host);
        if !covered {
            tracing::warn!(
                %host,
                "not intercepted: the CA was made before the host was on intercept.hosts, and may not sign for it; \
                 `larder ca init --force` makes one that may, which programs have to be told to trust"
            );
        }
        covered
    });
    tracing::info!(hosts = hosts.iter().count(), until = about.ends(), "tunnels of HTTPS_PROXY are intercepted");
    hosts
}

/// What a client says that does not take a certificate (RFC 8446 section 6.2).
fn is_distrust(error: &io::Error) -> bool {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, DecryptError,
        UnknownCA, UnsupportedCertificate,
    };
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(
        error,
        Some(rustls::Error::AlertReceived(
            UnknownCA
                | BadCertificate
                | CertificateUnknown
                | CertificateExpired
                | CertificateRevoked
                | UnsupportedCertificate
                | AccessDenied
                | DecryptError
        ))
    )
}

/// Interception as one request of a client meets it.
#[derive(Clone)]
struct OfClient {
    interception: Arc<Interception>,
    handler: ProxyHandler,
    peer: Arc<Peer>,
}

impl Interceptor for OfClient {
    fn opening(&self, host: &str, port: u16, tenant: Option<Arc<str>>) -> BoxFuture<'_, Option<Opening>> {
        let interception = &self.interception;
        if !interception.ports.contains(&port) || !interception.hosts.contain(host) {
            return futures_util::future::ready(None).boxed();
        }
        let host: Arc<str> = host.into();
        async move {
            let authority = normalise_authority("https", &format!("{host}:{port}")).ok()?.into();
            let tls = match interception.certificates.of(&host).await {
                Ok(tls) => tls,
                Err(error) => {
                    if interception.told.may(&host) {
                        tracing::error!(%host, %error, "not intercepted");
                    }
                    return None;
                }
            };
            let mut client = self.clone();
            client.handler.tenant = tenant;
            let open: Opening = Box::new(move |upgraded, guards| {
                let interception = Arc::clone(&client.interception);
                let server = Arc::clone(&interception.server);
                server.spawn_inside(async move {
                    interception.serve(upgraded, tls, &host, authority, guards, client).await;
                });
            });
            Some(open)
        }
        .boxed()
    }
}

/// Which hosts a line has told of lately.
#[derive(Default)]
struct Told(Mutex<HashMap<Box<str>, Instant>>);

impl Told {
    fn may(&self, host: &str) -> bool {
        let (now, mut told) = (Instant::now(), self.0.lock());
        if told.get(host).is_some_and(|at| now < *at + TOLD_EVERY) {
            return false;
        }
        told.retain(|_, at| now < *at + TOLD_EVERY);
        let room = told.len() < TOLD_MAX;
        if room {
            told.insert(host.into(), now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_is_told_of_once_a_minute() {
        let told = Told::default();
        assert!(told.may("a") && told.may("b"));
        assert!(!told.may("a"));
        tokio::time::advance(TOLD_EVERY).await;
        assert!(told.may("a") && !told.may("a"));
        assert!((1..TOLD_MAX).all(|number| told.may(&number.to_string())));
        assert!(!told.may("one more"), "bounded");
    }
}
