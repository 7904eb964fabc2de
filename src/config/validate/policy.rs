//! Checks of what may be stored and for how long.

use http::Method;

use super::finding::{Finding, LIFETIME_MAX, Table, is_field_name, is_token};
use crate::cache::config::{Policy, Query};

/// `[cache]`, or what a route makes of it.
pub(in crate::config) fn policy(policy: &Policy) -> Vec<Finding> {
    let mut table = Table::new("cache");
    methods(&mut table, &policy.methods);
    lifetimes(&mut table, policy);
    table.within("ttl_jitter", policy.ttl_jitter, 0.0..=0.5);
    table.within("heuristic_fraction", policy.heuristic_fraction, 0.0..=1.0);
    for (index, status) in policy.stale_if_error_status.iter().enumerate() {
        if !(500..=599).contains(status) {
            table.add_at("stale_if_error_status", index, format!("{status} is not within 500 to 599"));
        }
    }
    table.some_bytes("object_bytes_max", policy.object_bytes_max);
    table.at_least_one("variants_max", policy.variants_max as u64);
    key(&mut table, policy);
    table.field_names("tag_fields", &policy.tag_fields);
    table.findings
}

fn methods(table: &mut Table, methods: &[String]) {
    for (index, method) in methods.iter().enumerate() {
        if !matches!(&method[..], "GET" | "HEAD" | "QUERY" | "POST") {
            let upper = method.to_ascii_uppercase();
            let hint = if Method::from_bytes(upper.as_bytes()).is_ok() && upper != *method {
                ", and methods are in capitals"
            } else {
                ""
            };
            table.add_at("methods", index, format!("{method:?} is none of GET, HEAD, QUERY, POST{hint}"));
        }
    }
}

fn lifetimes(table: &mut Table, policy: &Policy) {
    for (key, value) in [
        ("default_ttl", policy.default_ttl),
        ("ttl_max", policy.ttl_max),
        ("heuristic_max", policy.heuristic_max),
        ("stale_while_revalidate", policy.stale_while_revalidate),
        ("stale_if_error", policy.stale_if_error),
        ("keep", policy.keep),
        ("hit_for_miss_ttl", policy.hit_for_miss_ttl),
        ("error_ttl", policy.error_ttl),
        ("purge_hold", policy.purge_hold),
        ("fenced_max", policy.fenced_max),
    ] {
        table.lifetime(key, value);
    }
    for (status, ttl) in &policy.status_ttl {
        let path = table.at.key("status_ttl").key(status);
        if !is_status_or_class(status) {
            let message = "not a final status (\"404\") or a class of them (\"5xx\")";
            table.findings.push(Finding::new(path, message));
        } else if *ttl > LIFETIME_MAX {
            table.findings.push(Finding::new(path, "must be 24855days (2^31 s) or less"));
        }
    }
}

fn is_status_or_class(text: &str) -> bool {
    match text.as_bytes() {
        [b'2'..=b'5', b'x', b'x'] => true,
        [b'2'..=b'9', rest @ ..] => rest.len() == 2 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn key(table: &mut Table, policy: &Policy) {
    if !policy.query_without.is_empty() && policy.query != Query::Sorted {
        table.add_either("query_without", "query", "needs query = \"sorted\"");
    }
    table.field_names("key_headers", &policy.key_headers);
    for (index, name) in policy.key_cookies.iter().enumerate().filter(|(_, name)| !is_token(name)) {
        table.add_at("key_cookies", index, format!("{name:?} is no name of a cookie"));
    }
    let partition = &policy.partition[..];
    let header = partition.strip_prefix("header:").is_some_and(is_field_name);
    if !header && !matches!(partition, "tenant" | "none" | "authorization") {
        let words = "\"tenant\", \"none\", \"authorization\", \"header:NAME\"";
        table.add("partition", format!("{partition:?} is none of {words}"));
    }
}
