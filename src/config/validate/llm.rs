//! Checks of what holds for calls to language models.

use super::finding::{Finding, Table};
use crate::llm::{
    config::{Config, Mode},
    price::Price,
    provider::{self, PROVIDERS, Provider},
    scope::Groups,
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
    table.findings
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
