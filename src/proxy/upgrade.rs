//! CONNECT (RFC 9110 section 9.3.6) and `Upgrade` (section 7.8): requests that end in a tunnel.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header, request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::{
    Proxy,
    leaving::Leaving,
    rescue::{self, Refusal},
    tunnel::{self, Guards, Place},
};
use crate::{
    cache::{Answer, Body, Call, Failure, Forward, Outcome, Outgoing, Upgrade, target::Target},
    origin::RequestBody,
};

type Answered = Result<Answer, Response<Body>>;

/// Whether the request asks for another protocol on its connection.
pub(super) fn wanted(head: &request::Parts) -> bool {
    let upgrades = |line: &HeaderValue| {
        line.as_bytes().split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    head.headers.contains_key(header::UPGRADE)
        && head.version == http::Version::HTTP_11
        && head.headers.get_all(header::CONNECTION).iter().any(upgrades)
        // h2c by upgrade is no more (RFC 9113 section 3.1); the request is served as it is.
        && !head.headers.get_all(header::UPGRADE).iter().any(names_h2c)
}

/// A tunnel of HTTP/2 would carry requests past the routes and the cache.
fn names_h2c(line: &HeaderValue) -> bool {
    line.as_bytes().split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

impl Proxy {
    /// CONNECT: a tunnel to where the client says, if it may; that of a `tenant`, where one was asked for.
    pub(super) async fn connect(
        &self,
        head: &mut request::Parts,
        tenant: Option<Arc<str>>,
        leaving: &Leaving,
    ) -> Answered {
        let (host, port) = self.connect_target(head).map_err(|refusal| rescue::refusal(&refusal, self.name()))?;
        let place = self.place_for_tunnel().map_err(|refusal| rescue::refusal(&refusal, self.name()))?;
        let guards = Guards::new(Some(place), leaving.client.hold.clone());
        if let Some(interceptor) = &leaving.client.interceptor
            && let Some(open) = interceptor.opening(&host.to_ascii_lowercase(), port, tenant).await
        {
            if let Some(upgraded) = head.extensions.remove::<OnUpgrade>() {
                open(upgraded, guards);
            }
            tracing::debug!(client = %leaving.client.address, host, port, "tunnel intercepted");
            return Ok(Answer { response: Response::new(Body::Empty), outcome: Outcome::forwarded(Forward::Method) });
        }
        // What is said in a tunnel that is opened here pays for itself.
        if let Err(refused) = leaving.admitted().await {
            return Ok(self.limited(&refused));
        }
        let forward = self.forward();
        let connecting =
            self.cache().origins().connect_tunnel(&host, port, forward.policy(), forward.connect_timeout());
        let origin = connecting.await.map_err(|error| rescue::failure(&Failure::Origin(error), self.name()))?;
        if let Some(upgraded) = head.extensions.remove::<OnUpgrade>() {
            tokio::spawn(tunnel::relay(upgraded, origin, forward.config().tunnel_idle_timeout, guards));
        }
        tracing::debug!(client = %leaving.client.address, host, port, "tunnel opened");
        Ok(Answer { response: Response::new(Body::Empty), outcome: Outcome::forwarded(Forward::Method) })
    }

    fn connect_target(&self, head: &request::Parts) -> Result<(String, u16), Refusal> {
        let authority = head.uri.authority().ok_or(Refusal::BadTarget("CONNECT without host and port"))?;
        let port = authority.port_u16().ok_or(Refusal::BadTarget("CONNECT without a port"))?;
        if !self.forward().config().connect_ports.contains(&port) {
            return Err(Refusal::ConnectPort(port));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok((host, port))
    }

    /// `Upgrade`: the request goes to the origin as it is; a 101 turns both connections into a tunnel.
    pub(super) async fn upgrade(
        &self,
        mut head: request::Parts,
        body: RequestBody,
        target: Target,
        leaving: Leaving,
    ) -> Answered {
        // Without a connection to hand over, the wish is ignored (RFC 9110 section 7.8).
        let Some(client) = head.extensions.remove::<OnUpgrade>() else {
            return self.answer(head, body, target, leaving).await;
        };
        // Before the origin is asked: a connection it has switched could only be thrown away.
        let place = match leaving.client.within {
            // It has the place of the tunnel that it is in.
            Some(_) => None,
            None => Some(self.place_for_tunnel().map_err(|refusal| rescue::refusal(&refusal, self.name()))?),
        };
        let route = Arc::clone(leaving.proxied.cache_route());
        let fault = Arc::clone(&leaving.client.fault);
        let call = Call { route, target, method: head.method, headers: head.headers, body, outgoing: leaving };
        let upgrade = match self.cache().upgrade(call).await {
            Ok(upgrade) => upgrade,
            Err(failure) => return Ok(self.failed(&failure, fault.get())),
        };
        let (headers, origin) = match upgrade {
            Upgrade::Switched { headers, connection } => (headers, connection),
            Upgrade::Declined(answer) => return Ok(answer),
        };
        let idle = self.forward().config().tunnel_idle_timeout;
        // Upgrades are HTTP/1.1's, and its connection is the tunnel.
        let guards = Guards::new(place, None);
        tokio::spawn(async move {
            if let Ok(origin) = origin.await {
                tunnel::relay(client, TokioIo::new(origin), idle, guards).await;
            }
        });
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        Ok(Answer { response, outcome: Outcome::forwarded(Forward::Bypass) })
    }

    /// A place among the tunnels, of either kind.
    fn place_for_tunnel(&self) -> Result<Place, Refusal> {
        let permit = Arc::clone(self.forward().tunnels()).try_acquire_owned().map_err(|_| Refusal::Tunnels)?;
        Ok((permit, self.inner.metrics.tunnel()))
    }
}
