//! Settings of what surrounds every request: routes, forward proxy, header fields.

use std::{collections::BTreeMap, fmt, time::Duration};

use figment::value::Dict;
use serde::{Deserialize, Serialize};

use crate::{llm::endpoint, tenants::Clients};

/// One origin or several.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// `upstream = "http://127.0.0.1:9000"`.
    One(String),
    /// `upstream = ["http://10.0.0.1", "http://10.0.0.2"]`, taken in turn.
    Many(Vec<String>),
}

/// What an origin is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Any HTTP API.
    Http,
    /// Calls to language models, as OpenAI and most others take them.
    Openai,
    /// As Anthropic takes them.
    Anthropic,
    /// As Gemini takes them.
    Gemini,
}

impl Protocol {
    /// In which calls to models are made, if it is one.
    pub fn model(self) -> Option<endpoint::Protocol> {
        match self {
            Self::Http => None,
            Self::Openai => Some(endpoint::Protocol::Openai),
            Self::Anthropic => Some(endpoint::Protocol::Anthropic),
            Self::Gemini => Some(endpoint::Protocol::Gemini),
        }
    }
}

/// Which authority the origin sees in `Host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostHeader {
    /// The upstream's own.
    Upstream,
    /// The one the client sent.
    Client,
}

/// Header fields a route adds or removes.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderRules {
    /// Set on requests to the origin.
    pub request_set: BTreeMap<String, String>,
    /// Removed from requests to the origin.
    pub request_remove: Vec<String>,
    /// Set on responses, before they are stored.
    pub response_set: BTreeMap<String, String>,
    /// Removed from responses, before they are stored.
    pub response_remove: Vec<String>,
}

impl fmt::Debug for HeaderRules {
    /// Without the values it sets: an origin's credentials are given to it here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request_set, request_remove, response_set, response_remove } = self;
        f.debug_struct("HeaderRules")
            .field("request_set", &request_set.keys())
            .field("request_remove", request_remove)
            .field("response_set", &response_set.keys())
            .field("response_remove", response_remove)
            .finish()
    }
}

/// `[[route]]`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Unique; in logs, metrics and keys.
    pub name: String,
    /// `shop.example`, `*.example`, with a port or without; absent: any host.
    #[serde(default)]
    pub host: Option<String>,
    /// Path prefix, at a segment boundary; absent: any path.
    #[serde(default)]
    pub path: Option<String>,
    /// Whether `path` is taken off before the request goes to the origin.
    #[serde(default)]
    pub strip_path: bool,
    /// Where requests go.
    pub upstream: OneOrMany,
    /// See [`Protocol`].
    #[serde(default = "http")]
    pub protocol: Protocol,
    /// See [`HostHeader`].
    #[serde(default = "upstream")]
    pub host_header: HostHeader,
    /// See [`HeaderRules`].
    #[serde(default)]
    pub headers: HeaderRules,
    /// What differs from `[access]`.
    #[serde(default)]
    pub access: Dict,
    /// What differs from `[cache]`.
    #[serde(default)]
    pub cache: Dict,
    /// What differs from `[origin]`.
    #[serde(default)]
    pub origin: Dict,
    /// What differs from `[llm]`.
    #[serde(default)]
    pub llm: Dict,
}

impl fmt::Debug for RouteConfig {
    /// Without the values of `llm`, of which one may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, host, path, strip_path, upstream, protocol, host_header, headers, .. } = self;
        let Self { access, cache, origin, llm, .. } = self;
        f.debug_struct("RouteConfig")
            .field("name", name)
            .field("host", host)
            .field("path", path)
            .field("strip_path", strip_path)
            .field("upstream", upstream)
            .field("protocol", protocol)
            .field("host_header", host_header)
            .field("headers", headers)
            .field("access", access)
            .field("cache", cache)
            .field("origin", origin)
            .field("llm", &llm.keys())
            .finish()
    }
}

fn http() -> Protocol {
    Protocol::Http
}

fn upstream() -> HostHeader {
    HostHeader::Upstream
}

/// `[forward]`: the forward proxy, for requests no route matches.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Networks whose clients may use it.
    pub clients: Vec<ipnet::IpNet>,
    /// Whether they are asked for a key (`Proxy-Authorization`).
    pub clients_auth: Clients,
    /// Private, loopback and link-local targets that are allowed all the same: networks, checked after resolution.
    pub targets_allowed: Vec<ipnet::IpNet>,
    /// Ports CONNECT may go to.
    pub connect_ports: Vec<u16>,
    /// Tunnels open at once, those of upgraded connections included.
    pub tunnels_max: usize,
    /// How long a tunnel may pass no byte either way.
    #[serde(with = "humantime_serde")]
    pub tunnel_idle_timeout: Duration,
    /// Hosts seen at once, each with a pool of connections.
    pub hosts_max: usize,
}

/// How the client is told to the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarded {
    /// `X-Forwarded-For`, `-Proto`, `-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    /// Both.
    Both,
    /// Not at all.
    Off,
}

/// `[headers]`: fields the gateway itself writes.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HeadersConfig {
    /// Name in `Via`, `CDN-Loop`, `Cache-Status` and `Proxy-Status`.
    pub pseudonym: String,
    /// See [`Forwarded`].
    pub forwarded: Forwarded,
    /// Networks whose `Forwarded` and `X-Forwarded-*` are believed and extended; others' are replaced.
    pub trusted: Vec<ipnet::IpNet>,
    /// Field that carries the request id, taken or made; empty: none.
    pub request_id: String,
    /// Whether responses carry `X-Cache: HIT` or `MISS` beside `Cache-Status`.
    pub x_cache: bool,
}
