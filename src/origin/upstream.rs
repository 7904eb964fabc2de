//! An upstream: the base URLs of one origin, taken in turn, those that rest left out.

use std::{
    hash::{Hash, Hasher},
    io,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderValue, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::{
    breaker::{Admission, Breaker},
    config::Config,
    target::TargetPolicy,
    tls::Tls,
};

/// One or many base URLs that give the same answers. Cheap to clone; clones share turns and breakers.
#[derive(Debug, Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bases: Box<[Base]>,
    turn: AtomicUsize,
    config: Config,
}

/// Why an upstream cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// There is no base URL.
    #[error("an upstream needs at least one URL")]
    Empty,
    /// A base URL is malformed or has a part that it cannot have.
    #[error("upstream URL {url:?}: {reason}")]
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file of certificate authorities cannot be used.
    #[error("certificate authorities {path:?}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
}

/// One base URL.
#[derive(Debug)]
pub(super) struct Base {
    /// Where connections go.
    pub(super) endpoint: Arc<Endpoint>,
    /// Where connections for upgrades go: the same without HTTP/2.
    pub(super) h1_endpoint: Arc<Endpoint>,
    /// `http` or `https`, for HTTP/2's `:scheme`.
    pub(super) scheme: Scheme,
    /// For HTTP/2's `:authority`.
    pub(super) authority: Authority,
    /// For HTTP/1's `Host`.
    pub(super) host: HeaderValue,
    /// Path before each request's path; empty or `/…` without a slash at its end.
    prefix: Box<str>,
    breaker: Breaker,
}

/// Where and how to connect; connections are shared by requests whose endpoints are equal.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) transport: Transport,
    /// A name, or an address without brackets.
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) policy: TargetPolicy,
    pub(super) limits: Limits,
}

/// What is spoken above TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transport {
    /// HTTP/1 in the clear.
    Plain,
    /// HTTP/2 in the clear, agreed on beforehand.
    PriorKnowledge,
    /// TLS; the protocol is agreed on there. Boxed: it is the rare large one.
    Secure(Box<Secure>),
}

/// TLS and the name to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Secure {
    pub(super) tls: Tls,
    pub(super) name: ServerName<'static>,
}

/// Limits of one origin's connections. Part of the identity: routes with other limits have connections of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) connections_max: usize,
    pub(super) idle_max: usize,
    pub(super) streams_max: usize,
    pub(super) head_bytes_max: usize,
    pub(super) head_fields_max: usize,
    /// How long an unused connection is kept at most.
    pub(super) keep_max: Duration,
}

// === impl Upstream ===

impl Upstream {
    /// An upstream of `urls` (`http`, `https`, or `h2c` for HTTP/2 in the clear), each with an optional path prefix.
    pub fn new(urls: &[String], config: Config, policy: TargetPolicy) -> Result<Self, UpstreamError> {
        if urls.is_empty() {
            return Err(UpstreamError::Empty);
        }
        let config = bounded(config);
        let bases = urls.iter().map(|url| Base::new(url, &config, &policy)).collect::<Result<_, _>>()?;
        Ok(Self { shared: Arc::new(Shared { bases, turn: AtomicUsize::new(0), config }) })
    }

    /// Whether `authority` is that of one of its base URLs.
    pub fn is_named(&self, authority: &str) -> bool {
        self.shared.bases.iter().any(|base| base.authority.as_str().eq_ignore_ascii_case(authority))
    }

    /// Scheme and authority of the one origin whose every path it leads to; `None` where there are several, or a path.
    pub fn whole(&self) -> Option<(&str, &str)> {
        let [base] = &*self.shared.bases else { return None };
        base.prefix.is_empty().then(|| (base.scheme.as_str(), base.authority.as_str()))
    }

    /// Whether a base URL has a path that requests are to stay below.
    pub fn has_path(&self) -> bool {
        self.shared.bases.iter().any(|base| !base.prefix.is_empty())
    }

    /// The settings it was built with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The next base URL that does not rest, other than `avoid` if there is another.
    pub(super) fn pick(&self, avoid: Option<usize>) -> Option<(usize, &Base, Admission<'_>)> {
        let bases = &self.shared.bases;
        let first = if bases.len() == 1 { 0 } else { self.shared.turn.fetch_add(1, Ordering::Relaxed) };
        let indices = (0..bases.len()).map(|step| first.wrapping_add(step) % bases.len());
        for index in indices {
            if avoid == Some(index) {
                continue;
            }
            if let Some(admission) = bases[index].breaker.admit(Instant::now) {
                return Some((index, &bases[index], admission));
            }
        }
        None
    }
}

// === impl Base ===

impl Base {
    fn new(url: &str, config: &Config, policy: &TargetPolicy) -> Result<Self, UpstreamError> {
        let parsed = BaseUrl::parse(url).map_err(|reason| UpstreamError::Url { url: url.to_owned(), reason })?;
        let transport = parsed.transport(config)?;
        let h1_transport = match &transport {
            Transport::Secure(secure) => {
                let secure = Secure { tls: secure.tls.without_h2(), name: secure.name.clone() };
                Transport::Secure(Box::new(secure))
            }
            Transport::Plain | Transport::PriorKnowledge => Transport::Plain,
        };
        let endpoint = |transport| {
            let (policy, limits) = (policy.clone(), Limits::new(config));
            Arc::new(Endpoint { transport, host: parsed.host.clone(), port: parsed.port, policy, limits })
        };
        Ok(Self {
            scheme: if matches!(transport, Transport::Secure(_)) { Scheme::HTTPS } else { Scheme::HTTP },
            endpoint: endpoint(transport),
            h1_endpoint: endpoint(h1_transport),
            host: HeaderValue::from_str(parsed.authority.as_str()).expect("an authority is a valid field value"),
            authority: parsed.authority,
            prefix: parsed.prefix,
            breaker: Breaker::new(config.breaker_failures, config.breaker_rest),
        })
    }

    /// Gives `put` the target of a request for `path`, piece by piece.
    pub(super) fn with_target(&self, path: &PathAndQuery, put: &mut impl FnMut(&[u8])) {
        if path != "*" {
            put(self.prefix.as_bytes());
        }
        put(path.as_str().as_bytes());
    }

    /// The same in one piece.
    pub(super) fn target(&self, path: &PathAndQuery) -> PathAndQuery {
        if self.prefix.is_empty() || path == "*" {
            return path.clone();
        }
        let path = path.as_str();
        let mut target = BytesMut::with_capacity(self.prefix.len() + path.len());
        target.put_slice(self.prefix.as_bytes());
        target.put_slice(path.as_bytes());
        PathAndQuery::from_maybe_shared(target.freeze()).expect("a path after a path prefix is a path")
    }
}

/// No deadline lies further away than a year: the clock's arithmetic cannot overflow.
fn bounded(mut config: Config) -> Config {
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
    for duration in [
        &mut config.connect_timeout,
        &mut config.head_timeout,
        &mut config.body_idle_timeout,
        &mut config.queue_timeout,
        &mut config.pool_idle_timeout,
        &mut config.breaker_rest,
    ] {
        *duration = LONGEST.min(*duration);
    }
    config
}

/// A base URL, taken apart.
struct BaseUrl {
    scheme: &'static str,
    host: Box<str>,
    port: u16,
    authority: Authority,
    prefix: Box<str>,
}

impl BaseUrl {
    fn parse(url: &str) -> Result<Self, &'static str> {
        let uri = Uri::from_maybe_shared(Bytes::copy_from_slice(url.as_bytes())).map_err(|_| "is not a URL")?;
        let (scheme, default_port) = match uri.scheme_str() {
            Some("http") => ("http", 80),
            Some("h2c") => ("h2c", 80),
            Some("https") => ("https", 443),
            _ => return Err("must begin with http://, https:// or h2c://"),
        };
        let authority = uri.authority().ok_or("has no host")?.clone();
        if authority.as_str().contains('@') {
            return Err("must not contain credentials");
        }
        if uri.query().is_some() {
            return Err("must not contain a query");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("has no host");
        }
        let port = match &authority.as_str()[authority.host().len()..] {
            "" => default_port,
            port => port.trim_start_matches(':').parse().map_err(|_| "has an invalid port")?,
        };
        let (host, prefix) = (host.into(), uri.path().trim_end_matches('/').into());
        Ok(Self { scheme, host, port, authority, prefix })
    }

    fn transport(&self, config: &Config) -> Result<Transport, UpstreamError> {
        match self.scheme {
            "https" => {
                let tls = Tls::new(config.tls_verify, config.h2, config.tls_ca_file.as_deref());
                let tls = tls.map_err(|source| {
                    let path = config.tls_ca_file.clone().unwrap_or_default();
                    UpstreamError::Authorities { path, source }
                })?;
                let name = self.server_name()?;
                Ok(Transport::Secure(Box::new(Secure { tls, name })))
            }
            "h2c" => Ok(Transport::PriorKnowledge),
            _ => Ok(Transport::Plain),
        }
    }

    fn server_name(&self) -> Result<ServerName<'static>, UpstreamError> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(ServerName::from(address));
        }
        ServerName::try_from(self.host.to_string()).map_err(|_| UpstreamError::Url {
            url: format!("https://{}", self.authority),
            reason: "has a host that no certificate can name",
        })
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Whether a connection may turn out to speak HTTP/2.
    pub(super) fn may_speak_h2(&self) -> bool {
        match &self.transport {
            Transport::Plain => false,
            Transport::PriorKnowledge => true,
            Transport::Secure(secure) => secure.tls.offers_h2(),
        }
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port
            && self.host == other.host
            && self.transport == other.transport
            && self.policy == other.policy
            && self.limits == other.limits
    }
}

impl Eq for Endpoint {}

impl Hash for Endpoint {
    /// What nearly always tells endpoints apart.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.host.hash(state);
        self.port.hash(state);
    }
}

impl Limits {
    fn new(config: &Config) -> Self {
        Self {
            connections_max: config.connections_max.clamp(1, 1 << 20),
            idle_max: config.pool_idle_max,
            streams_max: config.h2_streams_max.clamp(1, 1 << 20),
            head_bytes_max: usize::try_from(config.head_bytes_max.as_u64()).unwrap_or(usize::MAX).clamp(1024, 1 << 26),
            head_fields_max: config.head_fields_max.clamp(1, 1 << 15),
            keep_max: config.pool_idle_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(urls: &[&str]) -> Result<Upstream, UpstreamError> {
        let urls = urls.iter().map(ToString::to_string).collect::<Vec<_>>();
        Upstream::new(&urls, super::super::tests::config(), TargetPolicy::Any)
    }

    fn target(url: &str, path: &'static str) -> String {
        let upstream = upstream(&[url]).expect("a valid URL");
        upstream.shared.bases[0].target(&PathAndQuery::from_static(path)).to_string()
    }

    #[test]
    fn prefixes_come_before_paths() {
        assert_eq!(target("http://o", "/a?b"), "/a?b");
        assert_eq!(target("http://o/", "/a?b"), "/a?b");
        assert_eq!(target("http://o/v1/", "/a?b"), "/v1/a?b");
        assert_eq!(target("http://o/v1", "*"), "*");
    }

    #[test]
    fn hosts_and_ports_are_taken_apart() {
        let upstream = upstream(&["https://[::1]:8443/x"]).expect("a valid URL");
        let base = &upstream.shared.bases[0];
        assert_eq!((&*base.endpoint.host, base.endpoint.port), ("::1", 8443));
        assert_eq!(base.host, "[::1]:8443");
        assert!(base.endpoint.may_speak_h2() && !base.h1_endpoint.may_speak_h2());
        assert!(base.endpoint != base.h1_endpoint);
    }

    #[test]
    fn bad_urls_are_refused_with_a_reason() {
        for (url, reason) in [
            ("ftp://o", "must begin with"),
            ("o:80", "must begin with"),
            ("/path", "must begin with"),
            ("http://user:pw@o", "credentials"),
            ("http://o/?q", "query"),
            ("http://o:99999", "port"),
            ("http://", "not a URL"),
        ] {
            let error = upstream(&[url]).expect_err(url).to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
        assert!(matches!(upstream(&[]), Err(UpstreamError::Empty)));
    }

    #[test]
    fn bases_are_taken_in_turn_and_the_avoided_one_left_out() {
        let upstream = upstream(&["http://a", "http://b", "http://c"]).expect("valid URLs");
        let picked = |avoid| upstream.pick(avoid).map(|(index, ..)| index);
        assert_eq!((picked(None), picked(None), picked(None), picked(None)), (Some(0), Some(1), Some(2), Some(0)));
        assert_eq!(picked(Some(1)), Some(2));
    }
}
