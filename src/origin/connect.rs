//! From a host name to a byte stream: resolution, the target policy, TCP, TLS.
//!
//! Addresses are tried in the resolver's order, the next one a quarter of a second after the last or as soon as that
//! has failed; the first to connect wins. Only addresses that the policy permits are tried.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    error::{Error, Kind},
    io::Stream,
    target::TargetPolicy,
    upstream::{Endpoint, Secure, Transport},
};

/// Head start of an address before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses tried of one host.
const ADDRESSES_MAX: usize = 16;

/// What a new connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    H1,
    H2,
}

/// A byte stream to `endpoint`, and what is spoken on it.
pub(super) async fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<(Stream, Spoken), Error> {
    let tcp = open(&endpoint.host, endpoint.port, &endpoint.policy, deadline).await?;
    match &endpoint.transport {
        Transport::Plain => Ok((Stream::Plain(tcp), Spoken::H1)),
        Transport::PriorKnowledge => Ok((Stream::Plain(tcp), Spoken::H2)),
        Transport::Secure(secure) => in_time(deadline, Kind::ConnectTimeout, encrypt(tcp, secure)).await,
    }
}

/// A TCP connection to `host`, to an address that `policy` permits.
pub(super) async fn open(host: &str, port: u16, policy: &TargetPolicy, deadline: Instant) -> Result<TcpStream, Error> {
    let mut addresses = in_time(deadline, Kind::DnsTimeout, resolve(host, port)).await?;
    addresses.retain(|address| policy.permits(address.ip()));
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() {
        return Err(Error::new(Kind::Prohibited));
    }
    let tcp = in_time(deadline, Kind::ConnectTimeout, race(addresses)).await?;
    // Without it a request in two writes could wait for an acknowledgement. Its failure costs only that.
    let _ = tcp.set_nodelay(true);
    Ok(tcp)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = lookup_host((host, port)).await.map_err(|cause| Error::with(Kind::DnsError, cause))?;
    let addresses = found.collect::<Vec<_>>();
    if addresses.is_empty() { Err(Error::new(Kind::DnsError)) } else { Ok(addresses) }
}

/// The first of `addresses` to connect; the last error if none does.
async fn race(addresses: Vec<SocketAddr>) -> Result<TcpStream, Error> {
    let mut waiting = addresses.into_iter();
    let mut tried = FuturesUnordered::new();
    let mut error = Error::new(Kind::Unroutable);
    loop {
        if let Some(address) = waiting.next() {
            tried.push(TcpStream::connect(address));
        }
        let stagger = if waiting.len() > 0 { STAGGER } else { Duration::MAX };
        match timeout(stagger, tried.next()).await {
            Ok(Some(Ok(tcp))) => return Ok(tcp),
            Ok(Some(Err(cause))) => error = Error::connecting(cause),
            Ok(None) => return Err(error),
            Err(_elapsed) => {}
        }
    }
}

async fn encrypt(tcp: TcpStream, secure: &Secure) -> Result<(Stream, Spoken), Error> {
    let connector = TlsConnector::from(secure.tls.config());
    let stream = connector.connect(secure.name.clone(), tcp).await.map_err(Error::securing)?;
    let spoken = if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Spoken::H2 } else { Spoken::H1 };
    Ok((Stream::Secure(Box::new(stream)), spoken))
}

/// `step`, unless `deadline` passes first.
pub(super) async fn in_time<T>(
    deadline: Instant,
    late: Kind,
    step: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout_at(deadline, step).await.unwrap_or_else(|_elapsed| Err(Error::new(late).into_unseen()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn the_policy_judges_what_names_resolve_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let public = TargetPolicy::Public { allowed: Vec::new() };
        for host in ["localhost", "127.0.0.1", "::ffff:127.0.0.1"] {
            let error = open(host, port, &public, soon()).await.expect_err(host);
            assert_eq!(error.kind(), Kind::Prohibited, "{host}");
        }
        let allowed = TargetPolicy::Public { allowed: vec!["127.0.0.0/8".parse().unwrap()] };
        open("127.0.0.1", port, &allowed, soon()).await.expect("an allowed network");
    }

    #[tokio::test]
    async fn the_next_address_is_tried_after_a_failure() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let open = listener.local_addr().unwrap();
        assert_eq!(race(vec![closed, open]).await.expect("the second").peer_addr().unwrap(), open);
        assert_eq!(race(vec![closed]).await.expect_err("nobody listens").kind(), Kind::Refused);
    }

    #[tokio::test]
    async fn an_unknown_host_is_a_dns_error() {
        let error = open("no-such-host.invalid", 80, &TargetPolicy::Any, soon()).await.expect_err("reserved name");
        assert!(matches!(error.kind(), Kind::DnsError | Kind::DnsTimeout), "{error}");
        assert!(error.unseen());
    }
}
