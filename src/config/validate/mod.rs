//! What the types of settings cannot say: ranges, names, and settings that contradict each other.
//!
//! Nothing here stops at the first finding, and nothing opens a file or a socket.

mod finding;
mod jwt;
mod limits;
mod llm;
mod policy;
mod route;
mod tenant;

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive, time::Duration};

use self::finding::{Table, is_field_name, is_token};
pub(super) use self::{
    finding::Finding,
    limits::limited_routes,
    llm::{llm, providers},
    policy::policy,
    route::{lint_route, route},
    tenant::{access, lint_access, packed, tenants, used_issuers, used_routes},
};
use super::{Config, key_path::KeyPath};
use crate::{
    admin, archive, cache, changes, intercept, listener, origin as origins, purge::FleetConfig, store, telemetry, tls,
    warm, webhook,
};

/// Everything but routes.
pub(super) fn config(config: &Config) -> Vec<Finding> {
    [
        listen(config),
        client(&config.client),
        origin(&config.origin),
        access(&config.access),
        used_issuers(&config.access, &config.issuer),
        tenants(&config.tenant, &config.issuer),
        policy(&config.cache),
        fill(&config.fill),
        memory_tier(config),
        shared_tier(&config.l2),
        disk_tier(&config.l3),
        purge(config),
        fleet(&config.fleet),
        stream_of_changes(&config.changes),
        jwt::limits(&config.jwt),
        jwt::issuers(config),
        webhooks(&config.webhook),
        warm_up(&config.warm),
        archives(&config.archive),
        admin_plane(&config.admin),
        forward(config),
        interception(&config.intercept),
        llm(&config.llm),
        providers(&config.providers),
        headers(config),
        limits::limits(config),
        log(&config.log),
        trace(&config.trace),
    ]
    .concat()
}

fn listen(config: &Config) -> Vec<Finding> {
    let mut table = Table::new("listen");
    let (data, admin) = (config.listen.data, config.listen.admin);
    if data == admin && data.port() != 0 {
        table.add_either("admin", "data", format!("both listeners are at {data}"));
    }
    if !is_loopback(admin.ip()) && !has_callers(config) {
        let message =
            format!("{admin} is not on loopback, so admin.token, admin.tokens or an issuer with roles is needed");
        table.add("admin", message);
    }
    table.within("workers", config.listen.workers as u64, 0..=1024);
    table.findings.extend(certificates(&table.at, &config.listen.tls));
    table.findings
}

/// `tls` of the table at `at`.
fn certificates(at: &KeyPath, tls: &tls::Config) -> Vec<Finding> {
    let at = at.key("tls");
    let mut found = Vec::new();
    for (index, one) in tls.certificates.iter().enumerate() {
        for (key, file) in [("cert", &one.cert), ("key", &one.key)] {
            if file.as_os_str().is_empty() {
                let path = at.key("certificates").index(index).key(key);
                found.push(Finding::new(path, "names no file: a certificate and its key come together"));
            }
        }
    }
    if !tls.client_ca.is_empty() && !tls.is_on() {
        let message = "clients can only be asked for certificates where TLS is spoken (certificates)";
        found.push(Finding::new(at.key("client_ca"), message));
    }
    found
}

/// Whether the admin plane asks who calls.
fn has_callers(config: &Config) -> bool {
    let has_roles = config.issuer.iter().any(|issuer| !issuer.roles.is_empty());
    has_roles || !config.admin.token.is_empty() || !config.admin.tokens.is_empty()
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn client(client: &listener::config::Config) -> Vec<Finding> {
    let mut table = Table::new("client");
    table.at_least_one("connections_max", client.connections_max as u64);
    table.head(client.head_bytes_max, client.head_fields_max);
    table.some_time("head_timeout", client.head_timeout);
    table.some_time("idle_timeout", client.idle_timeout);
    table.some_time("body_idle_timeout", client.body_idle_timeout);
    table.some_time("write_timeout", client.write_timeout);
    table.at_least_one("h2_streams_max", client.h2_streams_max);
    table.findings
}

/// `[origin]`, or what a route makes of it.
pub(super) fn origin(origin: &origins::config::Config) -> Vec<Finding> {
    let mut table = Table::new("origin");
    table.some_time("connect_timeout", origin.connect_timeout);
    table.some_time("head_timeout", origin.head_timeout);
    table.some_time("body_idle_timeout", origin.body_idle_timeout);
    table.at_least_one("connections_max", origin.connections_max as u64);
    table.within("retries", origin.retries, 0..=10);
    table.head(origin.head_bytes_max, origin.head_fields_max);
    table.at_least_one("h2_streams_max", origin.h2_streams_max as u64);
    table.at_least_one("breaker_failures", origin.breaker_failures);
    table.findings
}

fn fill(fill: &cache::config::FillConfig) -> Vec<Finding> {
    let mut table = Table::new("fill");
    table.some_bytes("memory_bytes_max", fill.memory_bytes_max);
    let (one, all) = (fill.memory_bytes_max, fill.memory_total_bytes_max);
    if one > all {
        let message = format!("{one} is above memory_total_bytes_max, which is {all}");
        table.add_either("memory_bytes_max", "memory_total_bytes_max", message);
    }
    table.at_least_one("fills_max", fill.fills_max as u64);
    table.some_time("follow_timeout", fill.follow_timeout);
    table.findings
}

fn memory_tier(config: &Config) -> Vec<Finding> {
    let mut table = Table::new("l1");
    table.some_bytes("max_bytes", config.l1.max_bytes);
    let share = config.l1.object_share_max;
    if !(share > 0.0 && share <= 1.0) {
        table.add("object_share_max", format!("{share} is not above 0.0 and up to 1.0"));
    }
    table.findings
}

fn shared_tier(l2: &store::L2Config) -> Vec<Finding> {
    let mut table = Table::new("l2");
    let schemes = ["redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://"];
    if l2.urls().iter().any(|url| !schemes.iter().any(|scheme| url.starts_with(scheme))) {
        // It may hold a password, so it is not repeated here.
        table.add("url", "a URL begins with redis://, rediss://, redis+sentinel:// or rediss+sentinel://");
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if l2.namespace.is_empty() || l2.namespace.len() > 64 || !l2.namespace.bytes().all(is_plain) {
        let message = format!("{:?} is not 1 to 64 letters, digits, `.`, `_`, `-`", l2.namespace);
        table.add("namespace", message);
    }
    if !l2.password.is_empty() && !l2.password_file.is_empty() {
        table.add_either("password_file", "password", "there is a password and a file of one");
    }
    if l2.tls_cert.is_empty() != l2.tls_key.is_empty() {
        table.add_either("tls_cert", "tls_key", "a certificate and its key come together");
    }
    table.some_time("connect_timeout", l2.connect_timeout);
    table.at_least_one("breaker_failures", l2.breaker_failures);
    table.some_time("breaker_pause", l2.breaker_pause);
    table.at_least_one("in_flight_max", l2.in_flight_max as u64);
    table.some_time("read_timeout", l2.read_timeout);
    table.some_time("write_timeout", l2.write_timeout);
    if !(1..=64 << 20).contains(&l2.object_bytes_max.as_u64()) {
        table.add("object_bytes_max", "must be 1B to 64MiB");
    }
    if !(64 << 10..=16 << 20).contains(&l2.piece_bytes.as_u64()) {
        table.add("piece_bytes", "must be 64KiB to 16MiB");
    }
    table.within("ttl_jitter", l2.ttl_jitter, 0.0..=0.5);
    table.some_bytes("queue_bytes_max", l2.queue_bytes_max);
    let (one, all) = (l2.object_bytes_max, l2.queue_bytes_max);
    if one > all {
        // As much would never be written.
        let message = format!("{one} is above queue_bytes_max, which is {all}");
        table.add_either("object_bytes_max", "queue_bytes_max", message);
    }
    if !(Duration::from_secs(1)..=Duration::from_mins(1)).contains(&l2.fill_lease) {
        table.add("fill_lease", "must be 1s to 1min");
    }
    table.findings
}

fn disk_tier(l3: &store::L3Config) -> Vec<Finding> {
    let mut table = Table::new("l3");
    table.within("entries_max", l3.entries_max, 1..=100_000_000);
    table.some_bytes("object_bytes_max", l3.object_bytes_max);
    table.at_least_one("queue_max", l3.queue_max as u64);
    table.some_bytes("queue_bytes_max", l3.queue_bytes_max);
    table.within("threads", l3.threads, 1..=256);
    table.some_time("lookup_timeout", l3.lookup_timeout);
    table.some_bytes("index_memory_bytes", l3.index_memory_bytes);
    if l3.encrypt && l3.readable_index {
        table.add_either("encrypt", "readable_index", "nothing can be both enciphered and readable".to_owned());
    }
    table.findings
}

fn purge(config: &Config) -> Vec<Finding> {
    let mut table = Table::new("purge");
    table.at_least_one("scopes_max", config.purge.scopes_max as u64);
    table.at_least_one("call_scopes_max", config.purge.call_scopes_max as u64);
    table.at_least_one("refresh_rate", config.purge.refresh_rate);
    table.findings
}

fn fleet(fleet: &FleetConfig) -> Vec<Finding> {
    let mut table = Table::new("fleet");
    let within = |value: Duration, range: RangeInclusive<u64>| range.contains(&(value.as_millis() as u64));
    if !within(fleet.lease, 100..=60_000) {
        table.add("lease", "must be 100ms to 60s");
    }
    if !within(fleet.confirm_timeout, 1..=60_000) {
        table.add("confirm_timeout", "must be 1ms to 60s");
    }
    if fleet.ack_timeout < 2 * fleet.lease || fleet.ack_timeout > Duration::from_secs(600) {
        table.add_either("ack_timeout", "lease", "must be two leases to 10m");
    }
    table.within("queue_max", fleet.queue_max as u64, 1..=100_000);
    table.within("log_max", fleet.log_max as u64, 2_000..=1_000_000);
    if fleet.node.len() > 128 || fleet.node.contains('\n') {
        table.add("node", "at most 128 bytes in one line");
    }
    table.findings
}

fn stream_of_changes(changes: &changes::Config) -> Vec<Finding> {
    let mut table = Table::new("changes");
    table.within("batch_max", changes.batch_max, 1..=1000);
    if !(Duration::from_millis(100)..=Duration::from_hours(1)).contains(&changes.claim_after) {
        table.add("claim_after", "must be 100ms to 1h");
    }
    table.at_least_one("stream_max", changes.stream_max as u64);
    table.at_least_one("rejected_max", changes.rejected_max as u64);
    table.findings
}

fn webhooks(webhooks: &[webhook::Config]) -> Vec<Finding> {
    let (mut found, mut names) = (Vec::new(), BTreeSet::new());
    for (index, one) in webhooks.iter().enumerate() {
        let mut add = |key: &str, message: &str| {
            found.push(Finding::new(KeyPath::root().key("webhook").index(index).key(key), message));
        };
        if one.name.is_empty() || !names.insert(&one.name) {
            add("name", "empty, or the name of another webhook");
        }
        if !(one.url().starts_with("http://") || one.url().starts_with("https://")) {
            add("url", "a URL begins with http:// or https://");
        }
        let is_id = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        if !is_id(&one.zone) || (one.kind == webhook::Kind::Cloudflare && one.zone.is_empty()) {
            add("zone", "Cloudflare's id of the zone is needed: letters and digits");
        }
        if !is_id(&one.service) || (one.kind == webhook::Kind::Fastly && one.service.is_empty()) {
            add("service", "Fastly's id of the service is needed: letters and digits");
        }
        let has_token = !one.token.is_empty() || !one.token_file.is_empty();
        if !one.token.bytes().all(|byte| byte.is_ascii_graphic()) {
            add("token", "a token has no blanks and nothing but ASCII");
        }
        if one.kind != webhook::Kind::Json && !has_token {
            add("token", "a token, or a file of one, is needed");
        }
        if !one.token.is_empty() && !one.token_file.is_empty() {
            add("token_file", "there is a token and a file of one");
        }
        if !(1..=100_000).contains(&one.queue_max) {
            add("queue_max", "must be 1 to 100000");
        }
    }
    found
}

fn warm_up(warm: &warm::config::Config) -> Vec<Finding> {
    let mut table = Table::new("warm");
    table.at_least_one("urls_max", warm.urls_max as u64);
    table.at_least_one("jobs_max", warm.jobs_max as u64);
    table.at_least_one("concurrency", warm.concurrency as u64);
    if warm.concurrency > warm.concurrency_max {
        let message = format!("{} is above concurrency_max, which is {}", warm.concurrency, warm.concurrency_max);
        table.add_either("concurrency", "concurrency_max", message);
    }
    table.findings
}

fn archives(archive: &archive::Config) -> Vec<Finding> {
    let mut table = Table::new("archive");
    table.at_least_one("jobs_max", archive.jobs_max as u64);
    table.at_least_one("concurrency", archive.concurrency as u64);
    table.some_time("idle_timeout", archive.idle_timeout);
    table.findings
}

fn admin_plane(admin: &admin::config::Config) -> Vec<Finding> {
    let mut table = Table::new("admin");
    let sendable = |token: &str| token.bytes().all(|byte| byte.is_ascii_graphic());
    if !sendable(&admin.token) {
        table.add("token", "a token has no blanks and nothing but ASCII");
    }
    let mut names = BTreeSet::new();
    for (index, token) in admin.tokens.iter().enumerate() {
        let path = |key: &str| table.at.key("tokens").index(index).key(key);
        let mut found = Vec::new();
        if token.name.is_empty() || !names.insert(&token.name) {
            found.push(Finding::new(path("name"), "empty, or the name of another token"));
        }
        if token.token.is_empty() || !sendable(&token.token) {
            found.push(Finding::new(path("token"), "a token is not empty, has no blanks and nothing but ASCII"));
        }
        table.findings.extend(found);
    }
    table.some_bytes("body_bytes_max", admin.body_bytes_max);
    table.at_least_one("connections_max", admin.connections_max as u64);
    table.some_time("idle_timeout", admin.idle_timeout);
    table.findings.extend(certificates(&table.at, &admin.tls));
    table.findings
}

fn forward(config: &Config) -> Vec<Finding> {
    let mut table = Table::new("forward");
    for (index, _) in config.forward.connect_ports.iter().enumerate().filter(|(_, port)| **port == 0) {
        table.add_at("connect_ports", index, "0 is no port");
    }
    table.some_time("tunnel_idle_timeout", config.forward.tunnel_idle_timeout);
    table.at_least_one("hosts_max", config.forward.hosts_max as u64);
    table.findings
}

fn interception(intercept: &intercept::Config) -> Vec<Finding> {
    let mut table = Table::new("intercept");
    for (index, host) in intercept.hosts.iter().enumerate() {
        if let Err(error) = host.parse::<intercept::Pattern>() {
            table.add_at("hosts", index, format!("{host:?} is {error}"));
        }
    }
    for (index, _) in intercept.ports.iter().enumerate().filter(|(_, port)| **port == 0) {
        table.add_at("ports", index, "0 is no port");
    }
    table.within("certificates_max", intercept.certificates_max, 1..=100_000);
    let hours = |hours: u64| Duration::from_secs(60 * 60 * hours);
    if !(hours(1)..=hours(24 * 397)).contains(&intercept.certificate_lifetime) {
        table.add("certificate_lifetime", "must be 1h to 397days");
    }
    table.findings
}

fn headers(config: &Config) -> Vec<Finding> {
    let mut table = Table::new("headers");
    let headers = &config.headers;
    if !is_token(&headers.pseudonym) {
        table.add("pseudonym", format!("{:?} is not a name of letters, digits, `.`, `_`, `-`", headers.pseudonym));
    }
    if !headers.request_id.is_empty() && !is_field_name(&headers.request_id) {
        table.add("request_id", format!("{:?} is no name of a header field", headers.request_id));
    }
    table.findings
}

fn log(log: &telemetry::config::Config) -> Vec<Finding> {
    let mut table = Table::new("log");
    if telemetry::check_level(&log.level).is_err() {
        table.add("level", format!("{:?} is no level (error, warn, info, debug, trace) and no filter", log.level));
    }
    table.at_least_one("queue_max", log.queue_max as u64);
    if !(0.0..=1.0).contains(&log.sample) {
        table.add("sample", "must be 0.0 to 1.0");
    }
    table.within("keep", log.keep as u64, 0..=1000);
    if !log.file.is_empty() && log.file == log.audit_file {
        table.add("audit_file", "must be another file than `log.file`: each is rotated by itself");
    }
    table.within("recent_max", log.recent_max as u64, 0..=100_000);
    table.within("streams_max", log.streams_max as u64, 0..=1000);
    table.within("stream_queue_max", log.stream_queue_max as u64, 1..=1_000_000);
    table.findings
}

fn trace(trace: &telemetry::trace::Config) -> Vec<Finding> {
    let mut table = Table::new("trace");
    let is_url = trace.endpoint.starts_with("http://") || trace.endpoint.starts_with("https://");
    if !trace.endpoint.is_empty() && !is_url {
        table.add("endpoint", "a URL begins with http:// or https://");
    }
    if !(0.0..=1.0).contains(&trace.sample) {
        table.add("sample", "must be 0.0 to 1.0");
    }
    if let Some(name) = trace.headers.keys().find(|name| !is_field_name(name)) {
        table.add("headers", format!("{name:?} is no name of a header field"));
    }
    table.within("queue_max", trace.queue_max as u64, 1..=1_000_000);
    if !(Duration::from_millis(100)..=Duration::from_mins(1)).contains(&trace.timeout) {
        table.add("timeout", "must be 100ms to 1m");
    }
    table.findings
}

/// What is allowed outside of routes, and surely not meant.
pub(super) fn lint(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    if config.cache.purge_method && !has_callers(config) {
        let path = KeyPath::root().key("cache").key("purge_method");
        found
            .push(Finding::new(path, "PURGE asks for a token, and there is none in [admin], and no issuer with roles"));
    }
    if config.l2.is_on() && !config.l2.tls_verify {
        found.push(Finding::new(KeyPath::root().key("l2").key("tls_verify"), UNVERIFIED));
    }
    if config.l2.is_on() && config.secret_file.is_empty() {
        let message = "nodes share nothing unless they have one secret, and this one makes its own (secret_file)";
        found.push(Finding::new(KeyPath::root().key("secret_file"), message));
    }
    if !config.origin.tls_verify {
        found.push(Finding::new(KeyPath::root().key("origin").key("tls_verify"), UNVERIFIED));
    }
    found.extend(unreached_ports(config));
    found.extend(limits::lint(config));
    found
}

/// Without 443, which is there by default and left behind where `forward.connect_ports` is changed.
fn unreached_ports(config: &Config) -> Option<Finding> {
    let mut ports = config.intercept.ports.iter().filter(|port| **port != 443);
    let port = ports.find(|port| !config.forward.connect_ports.contains(port))?;
    let path = KeyPath::root().key("intercept").key("ports");
    Some(Finding::new(path, format!("CONNECT to port {port} is not allowed (forward.connect_ports)")))
}

const UNVERIFIED: &str = "certificates are not verified: anybody on the way can read and change what is said";
