//! Where a request meets the limits of its route, and what it is told of them.

use std::{net::IpAddr, sync::Arc};

use http::HeaderMap;
use tokio::time::Instant;

use super::{Proxy, ProxyRoute, rescue};
use crate::{
    cache::{Answer, Kind, Outcome},
    limit::{Begun, Caller, Fields, Passed, Refused, RouteLimits, ToOrigin},
    object::forwarded::FOR,
};

/// Who asks, as a connection and a request tell it.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    /// Address of the connection.
    pub(super) peer: IpAddr,
    /// Name of the tenant it is of.
    pub(super) tenant: Option<&'a str>,
    pub(super) fields: &'a dyn Fields,
}

impl Proxy {
    /// Admits a request, or does not.
    pub(super) async fn within(
        &self,
        limits: &RouteLimits,
        who: Who<'_>,
        begun: Option<Begun>,
    ) -> Result<Passed, Refused> {
        limits.admit(&self.caller(limits, who), begun).await
    }

    /// Takes what the client's address costs, where it is to be asked whom the request is of.
    pub(super) async fn begun(
        &self,
        limits: Option<&Arc<RouteLimits>>,
        peer: IpAddr,
        fields: &HeaderMap,
    ) -> Result<Option<Begun>, Refused> {
        let Some(limits) = limits.filter(|limits| limits.begins_with_address()) else { return Ok(None) };
        let who = Who { peer, tenant: None, fields };
        limits.begin(&self.caller(limits, who)).await.map(Some)
    }

    /// Admits a hit, if that takes no more than a look; `None`: [`Proxy::handle`] is to say.
    pub(super) fn within_at_once(&self, route: &ProxyRoute, who: Who<'_>, at: Instant) -> Option<Passed> {
        let Some(limits) = &route.limits else { return Some(Passed::default()) };
        limits.at_once(&self.caller(limits, who), at)
    }

    /// What it costs a request to go to the origin.
    pub(super) fn to_origin(&self, limits: &Arc<RouteLimits>, who: Who<'_>) -> Option<Arc<ToOrigin>> {
        if !limits.counts_origin() {
            return None;
        }
        limits.to_origin(&self.caller(limits, who)).map(Arc::new)
    }

    /// The answer to who asks too much.
    pub(super) fn limited(&self, refused: &Refused) -> Answer {
        let outcome = Outcome { detail: Some("limit"), ..Outcome::of(Kind::Limited) };
        self.synthesised(rescue::limited(refused, self.name()), outcome)
    }

    fn caller<'a>(&self, limits: &RouteLimits, who: Who<'a>) -> Caller<'a> {
        let Who { peer, tenant, fields } = who;
        let address = if limits.by_address() { self.client_behind(fields, peer) } else { peer };
        Caller { address, tenant, fields }
    }

    /// The client behind proxies that are trusted: of the addresses they tell, the last that is none of theirs. What
    /// stands before it is that client's own word.
    pub(super) fn client_behind(&self, fields: &dyn Fields, peer: IpAddr) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        // The last that is not trusted so far; as long as all are, the first.
        let (mut client, mut first) = (None, None);
        fields.each(&FOR, &mut |line| {
            for told in line.split(|&byte| byte == b',') {
                let address = std::str::from_utf8(told.trim_ascii()).ok().and_then(address_of);
                let Some(address) = address else {
                    // A proxy that does not say whom it got this from speaks for nobody before it.
                    (client, first) = (None, None);
                    continue;
                };
                first = first.or(Some(address));
                if !self.trusts(address) {
                    client = Some(address);
                }
            }
        });
        client.or(first).unwrap_or(peer)
    }
}

/// An address, with a port or without.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse().ok().map(|socket: std::net::SocketAddr| socket.ip());
    text.parse().ok().or_else(with_port).or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::address_of;

    #[test]
    fn addresses_as_proxies_write_them() {
        for text in ["192.0.2.1", "192.0.2.1:80"] {
            assert_eq!(address_of(text), Some([192, 0, 2, 1].into()), "{text}");
        }
        for text in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443"] {
            assert_eq!(address_of(text), "2001:db8::1".parse().ok(), "{text}");
        }
        assert_eq!([address_of("unknown"), address_of(""), address_of("_hidden")], [None; 3]);
    }
}
