//! Upstreams that are made when they are first asked for: one for each host, up to a bound.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::origin::{self, TargetPolicy, Upstream, config::Config};

/// A bounded table of upstreams. The one used longest ago makes room.
pub(super) struct Hosts {
    origin: Config,
    policy: TargetPolicy,
    max: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_url: HashMap<String, Host>,
    /// Uses so far.
    uses: u64,
}

struct Host {
    upstream: Upstream,
    /// Which of the uses was its last.
    used: u64,
}

impl Hosts {
    pub(super) fn new(origin: Config, policy: TargetPolicy, max: usize) -> Self {
        Self { origin, policy, max, known: Mutex::default() }
    }

    pub(super) fn policy(&self) -> &TargetPolicy {
        &self.policy
    }

    pub(super) fn origin(&self) -> &Config {
        &self.origin
    }

    /// The upstream at a base URL.
    pub(super) fn upstream(&self, url: String) -> Result<Upstream, origin::Error> {
        let mut known = self.known.lock();
        let Known { by_url: hosts, uses } = &mut *known;
        *uses += 1;
        if let Some(host) = hosts.get_mut(&url) {
            host.used = *uses;
            return Ok(host.upstream.clone());
        }
        let upstream = Upstream::new(std::slice::from_ref(&url), self.origin.clone(), self.policy.clone())
            .map_err(origin::Error::unusable)?;
        if hosts.len() >= self.max
            && let Some(oldest) = hosts.iter().min_by_key(|(_, host)| host.used).map(|(url, _)| url.clone())
        {
            hosts.remove(&oldest);
        }
        hosts.insert(url, Host { upstream: upstream.clone(), used: *uses });
        Ok(upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Defaults {
        origin: Config,
    }

    #[test]
    fn the_host_used_longest_ago_makes_room() {
        let defaults = toml_edit::de::from_str(include_str!("../../config/default.toml")).expect("the defaults");
        let Defaults { origin } = defaults;
        let hosts = Hosts::new(Config { tls_ca_file: None, ..origin }, TargetPolicy::Any, 2);
        for host in ["a", "b", "a", "c"] {
            hosts.upstream(format!("http://{host}")).expect("an upstream");
        }
        let known = hosts.known.lock();
        let mut urls: Vec<_> = known.by_url.keys().map(String::as_str).collect();
        urls.sort_unstable();
        assert_eq!((urls, known.uses), (vec!["http://a", "http://c"], 4));
    }
}
