//! Checks of one route by itself.

use http::{HeaderValue, Uri};

use super::{
    UNVERIFIED,
    finding::{Finding, Table, is_field_name},
};
use crate::{
    cache::config::Mode,
    config::{key_path::KeyPath, route::ResolvedRoute},
    object::path::normalise_authority,
    proxy::{
        config::{HeaderRules, OneOrMany, RouteConfig},
        routes::{HostPattern, PathPrefix},
    },
};

/// Names that logs and metrics use for what is no route.
const RESERVED_NAMES: [&str; 3] = ["admin", "forward", "none"];

/// Fields that frame messages, or that other settings are there for.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A route by itself, without what it overrides. Paths begin at the route.
pub(in crate::config) fn route(route: &RouteConfig) -> Vec<Finding> {
    let mut table = Table { at: KeyPath::root(), findings: Vec::new() };
    if RESERVED_NAMES.contains(&&route.name[..]) {
        table.add("name", format!("{:?} is reserved", route.name));
    } else if !is_route_name(&route.name) {
        table.add("name", "a name is 1 to 64 letters, digits, `.`, `_`, `-`");
    }
    if let Some(Err(error)) = route.host.as_ref().map(|host| host.parse::<HostPattern>()) {
        table.add("host", error.to_string());
    }
    if let Some(Err(error)) = route.path.as_ref().map(|path| path.parse::<PathPrefix>()) {
        table.add("path", error.to_string());
    }
    upstreams(&mut table, &route.upstream);
    table.findings.extend(header_rules(&route.headers));
    table.findings
}

fn upstreams(table: &mut Table, upstream: &OneOrMany) {
    match upstream {
        OneOrMany::One(url) => {
            if let Err(message) = upstream_url(url) {
                table.add("upstream", message);
            }
        }
        OneOrMany::Many(urls) if urls.is_empty() => table.add("upstream", "at least one URL is needed"),
        OneOrMany::Many(urls) => {
            for (index, url) in urls.iter().enumerate() {
                if let Err(message) = upstream_url(url) {
                    table.add_at("upstream", index, message);
                }
            }
        }
    }
}

/// Messages do not repeat the URL, which may hold a password.
fn upstream_url(text: &str) -> Result<(), &'static str> {
    const EXAMPLE: &str = "not a URL such as http://127.0.0.1:9000";
    // `{}` stands for a label of the host's name.
    let divided =
        text.split_once("://").is_some_and(|(_, rest)| rest.split('/').next() == Some(rest) && rest.contains("{}"));
    let text = &if divided { text.replacen("{}", "x", 1) } else { text.to_owned() };
    let uri: Uri = text.parse().map_err(|_| EXAMPLE)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(EXAMPLE) };
    if !matches!(scheme, "http" | "https" | "h2c") {
        return Err("the scheme of an upstream is http, https or h2c");
    }
    if authority.as_str().contains('@') {
        return Err("an upstream has no user and password; set Authorization in headers.request_set");
    }
    if uri.query().is_some() || text.contains('#') {
        return Err("an upstream has no query and no fragment");
    }
    let authority = normalise_authority(scheme, authority.as_str()).map_err(|_| EXAMPLE)?;
    if authority.ends_with(":0") { Err("an upstream has a port other than 0") } else { Ok(()) }
}

fn header_rules(rules: &HeaderRules) -> Vec<Finding> {
    let mut table = Table::new("headers");
    let set = [("request_set", &rules.request_set), ("response_set", &rules.response_set)];
    for (key, name, value) in
        set.iter().flat_map(|(key, fields)| fields.iter().map(|(name, value)| (*key, name, value)))
    {
        let path = table.at.key(key).key(name);
        let message = name_problem(name).or_else(|| HeaderValue::from_str(value).err().map(|_| NO_VALUE.to_owned()));
        table.findings.extend(message.map(|message| Finding::new(path, message)));
    }
    for (key, names) in [("request_remove", &rules.request_remove), ("response_remove", &rules.response_remove)] {
        for (index, message) in names.iter().enumerate().filter_map(|(index, name)| Some((index, name_problem(name)?)))
        {
            table.add_at(key, index, message);
        }
    }
    table.findings
}

const NO_VALUE: &str = "a value of a header field has no line breaks and no control characters";

fn name_problem(name: &str) -> Option<String> {
    if !is_field_name(name) {
        return Some(format!("{name:?} is no name of a header field"));
    }
    let framing = FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name));
    framing.then(|| match &name.to_ascii_lowercase()[..] {
        "host" => "use host_header for Host".to_owned(),
        _ => format!("{name} is up to the gateway, which frames messages on both sides"),
    })
}

pub(super) fn is_route_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(known)
}

/// What is allowed in a route, and surely not meant.
pub(in crate::config) fn lint_route(resolved: &ResolvedRoute) -> Vec<Finding> {
    let mut found = Vec::new();
    let root = KeyPath::root();
    let ResolvedRoute { route, cache, .. } = resolved;
    if route.strip_path && route.path.is_none() {
        found.push(Finding::new(root.key("strip_path"), "there is no path to take off"));
    }
    if cache.mode == Mode::Force && cache.default_ttl.is_zero() {
        let paths = vec![root.key("cache").key("mode"), root.key("cache").key("default_ttl")];
        found.push(Finding { paths, message: "\"force\" stores nothing while default_ttl is 0s".to_owned() });
    }
    if route.origin.get("tls_verify").is_some_and(|value| value.to_bool() == Some(false)) {
        found.push(Finding::new(root.key("origin").key("tls_verify"), UNVERIFIED));
    }
    found
}
