//! Checks of what holds for calls to language models.

use super::finding::{Finding, Table};
use crate::llm::{
    config::{Config, Mode},
    price::Price,
    provider::{self, PROVIDERS, Provider},
    scope::Groups,
    semantic::{self, Config as Semantic},
    volatile::Volatile,
};

/// `[llm]`, or what a route makes of it.
pub(in crate::config) fn llm(config: &Config) -> Vec<Finding> {
    let mut table = Table::new("llm");
    for (key, value) in [
        ("ttl", config.ttl),
        ("stale_if_error", config.stale_if_error),
        ("error_ttl", config.error_ttl),
        ("models_ttl", config.models_ttl),
        ("tools_ttl", config.tools_ttl),
        ("media_url_ttl", config.media_url_ttl),
    ] {
        table.lifetime(key, value);
    }
    for (index, status) in config.stale_if_error_status.iter().enumerate() {
        if !(400..=599).contains(status) {
            table.add_at("stale_if_error_status", index, format!("{status} is not within 400 to 599"));
        }
    }
    for (digits, name) in &config.groups {
        let path = table.at.key("groups").key(digits);
        if Groups::new([(&digits[..], &name[..])]).is_err() {
            let message = "not the SHA-256 of a credential, which has 64 hexadecimal digits";
            table.findings.push(Finding::new(path, message));
        } else if name.is_empty() {
            table.findings.push(Finding::new(path, "a group has a name"));
        }
    }
    for (index, rule) in config.volatile.iter().enumerate() {
        if let Err(error) = Volatile::parse(rule) {
            table.add_at("volatile", index, error.to_string());
        }
    }
    if config.mode != Mode::Cache && config.pack.as_os_str().is_empty() {
        table.add("pack", "a `mode` other than \"cache\" needs the path of a file here");
    }
    table.some_bytes("pack_bytes_max", config.pack_bytes_max);
    table.some_bytes("body_bytes_max", config.body_bytes_max);
    table.findings.extend(semantic(&config.semantic));
    table.findings
}

fn semantic(config: &Semantic) -> Vec<Finding> {
    let mut table = Table::new("llm");
    table.at = table.at.key("semantic");
    table.within("threshold", config.threshold, 0.5..=1.0);
    table.within("verify_threshold", config.verify_threshold, 0.0..=1.0);
    table.within("verify_rate", config.verify_rate, 0.0..=1.0);
    table.within("error_rate_max", config.error_rate_max, 0.0..=1.0);
    table.within("verify_samples", config.verify_samples, 1..=100_000);
    table.within("window", config.window, 1..=1_000_000);
    table.within("entries_max", config.entries_max, 1..=1_000_000);
    table.at_least_one("failures_max", config.failures_max);
    table.some_time("timeout", config.timeout);
    table.some_time("rest", config.rest);
    if !config.url.is_empty() && !is_endpoint(&config.url) {
        table.add("url", "not a URL such as http://127.0.0.1:11434/v1/embeddings");
    }
    if !config.url.is_empty() && !config.model_dir.is_empty() {
        table.add_either("url", "model_dir", "vectors come from a url or from a model_dir, not from both");
    }
    if config.mode != semantic::Mode::Off && config.url.is_empty() && config.model_dir.is_empty() {
        table.add("mode", "vectors come from somewhere: set url or model_dir");
    }
    if !config.url.is_empty() && config.model.is_empty() {
        table.add_either("model", "url", "an endpoint is asked for a model by its name");
    }
    if !config.api_key.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
        table.add("api_key", "a key has no blanks and nothing but ASCII");
    }
    table.findings
}

/// Where requests can be sent; the key is no part of it.
fn is_endpoint(url: &str) -> bool {
    let parts =
        url.parse::<http::Uri>().ok().and_then(|uri| Some((uri.scheme_str()?.to_owned(), uri.authority()?.clone())));
    parts.is_some_and(|(scheme, authority)| {
        matches!(&scheme[..], "http" | "https" | "h2c")
            && !authority.as_str().contains('@')
            && !authority.host().is_empty()
    })
}

/// `[providers]`.
pub(in crate::config) fn providers(config: &provider::Config) -> Vec<Finding> {
    let mut table = Table::new("providers");
    for (index, name) in config.routes.iter().enumerate() {
        if Provider::named(name).is_none() {
            let known: Vec<_> = PROVIDERS.iter().map(|provider| provider.name).collect();
            table.add_at("routes", index, format!("{name:?} is none of {}", known.join(", ")));
        }
    }
    for (model, price) in &config.prices {
        if let Err(error) = price.parse::<Price>() {
            let path = table.at.key("prices").key(model);
            table.findings.push(Finding::new(path, format!("{price:?} is {error}")));
        }
    }
    table.findings
}
