//! Origins: the client side of the gateway.
//!
//! [`Origins`] sends an [`OriginRequest`] to an [`Upstream`] and returns the response head as soon as it is there, with
//! a body that follows. It keeps connections, bounds them and the requests that wait for them, retries what the origin
//! cannot have acted on, and rests upstreams that fail. Every failure is an [`Error`] with its Proxy-Status type; a body
//! ends cleanly only if the origin ended it. What a response means, and whether it is stored, is for others.
//!
//! ```text
//!  send ─▶ upstream ─▶ breaker ─▶ pools ─▶ pool ─▶ connect ─▶ target policy, tls
//!                                           │         h1 (direct, tasked), h2 ─▶ io
//!                                        exchange ─▶ response ─▶ body
//! ```

mod body;
mod breaker;
pub mod config;
mod connect;
mod direct;
mod error;
mod exchange;
mod h1;
mod h2;
mod io;
mod metrics;
mod pieces;
mod pool;
mod pools;
mod request;
mod response;
mod target;
mod tasked;
mod tls;
mod upstream;
mod wire;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::{net::TcpStream, time::Instant};

pub use self::{
    body::OriginBody,
    config::Config,
    error::{BoxError, Error, Kind},
    request::{Interim, OriginRequest, RequestBody},
    response::{OriginResponse, Timing},
    target::TargetPolicy,
    upstream::{Upstream, UpstreamError},
};

use self::{
    breaker::Admission,
    exchange::{Again, Failure, exchange},
    metrics::{BreakerState, Metrics},
    pool::Need,
    pools::Pools,
    request::{Load, Template},
    upstream::Base,
};

/// All connections to origins. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Origins {
    pools: Arc<Pools>,
    metrics: Arc<Metrics>,
}

impl Origins {
    /// No connections yet.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Arc::new(Metrics::register(registry));
        Self { pools: Arc::new(Pools::new(Arc::clone(&metrics))), metrics }
    }

    /// Sends a request and waits for the final response head. Dropping the future cancels the request.
    pub async fn send(&self, upstream: &Upstream, request: OriginRequest) -> Result<OriginResponse, Error> {
        let result = self.try_in_turn(upstream, request).await;
        match &result {
            Ok(response) => self.metrics.answered(response.timing.wait),
            Err(error) => self.metrics.failed(error.kind()),
        }
        result
    }

    /// A TCP connection to `host`, for a tunnel. It does not count among the origin's connections.
    pub async fn connect_tunnel(
        &self,
        host: &str,
        port: u16,
        policy: &TargetPolicy,
        timeout: Duration,
    ) -> Result<TcpStream, Error> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        connect::open(host, port, policy, Instant::now() + timeout).await
    }

    /// Tries base URLs in turn until one answers or none may be tried any more.
    async fn try_in_turn(&self, upstream: &Upstream, request: OriginRequest) -> Result<OriginResponse, Error> {
        let (template, mut load) = request.split();
        let mut retries = upstream.config().retries;
        let (mut avoid, mut fresh) = (None, false);
        let mut last = Error::new(Kind::Unavailable);
        loop {
            let Some((index, base, admission)) = upstream.pick(avoid) else { return Err(last) };
            if admission.is_probe() {
                self.metrics.breaker(BreakerState::Probing);
            }
            let result = self.attempt(base, upstream.config(), &template, load, fresh).await;
            self.note(admission, &result);
            let Failure { error, again } = match result {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            match again {
                _ if retries == 0 => return Err(error),
                None => return Err(error),
                Some(Again::Elsewhere(back)) => (load, avoid) = (*back, Some(index)),
                Some(Again::Fresh(back)) => {
                    self.metrics.retries.inc();
                    (load, avoid, fresh) = (*back, None, true);
                }
            }
            retries -= 1;
            last = error;
        }
    }

    async fn attempt(
        &self,
        base: &Base,
        config: &Config,
        template: &Template,
        load: Load,
        fresh: bool,
    ) -> Result<OriginResponse, Failure> {
        let endpoint = if template.upgrade { &base.h1_endpoint } else { &base.endpoint };
        let tasked = template.upgrade || matches!(load.body, RequestBody::Stream(_));
        let need = Need { fresh, sure: !load.method.is_idempotent(), tasked };
        let lease = match self.pools.get(endpoint).lease(config, need).await {
            Ok(lease) => lease,
            Err(error) => return Err(Failure::unconnected(error, load)),
        };
        if lease.reused {
            self.metrics.reused.inc();
        }
        exchange(lease, base, config, template, load).await
    }

    /// Tells the breaker how it went.
    fn note(&self, admission: Admission<'_>, result: &Result<OriginResponse, Failure>) {
        let entered = match result {
            Ok(_) => admission.succeeded(),
            Err(failure) if failure.error.counts() => admission.failed(Instant::now()),
            Err(_) => None,
        };
        if let Some(state) = entered {
            self.metrics.breaker(state);
        }
    }
}
