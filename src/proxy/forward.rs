//! The forward proxy: who may use it, where it may go, and an upstream for each host it goes to.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{client::Client, config::ForwardConfig, rescue::Refusal};
use crate::origin::{self, TargetPolicy, Upstream};

/// The forward proxy's state.
pub(super) struct Forward {
    config: ForwardConfig,
    origin: origin::config::Config,
    policy: TargetPolicy,
    hosts: Mutex<Hosts>,
    tunnels: Arc<Semaphore>,
}

#[derive(Default)]
struct Hosts {
    by_url: HashMap<String, Host>,
    /// Uses so far.
    uses: u64,
}

struct Host {
    upstream: Upstream,
    /// Which of the uses was its last; the host used longest ago makes room.
    used: u64,
}

impl Forward {
    pub(super) fn new(config: ForwardConfig, origin: origin::config::Config) -> Self {
        let policy = TargetPolicy::Public { allowed: config.targets_allowed.clone() };
        let tunnels = Arc::new(Semaphore::new(config.tunnels_max));
        Self { config, origin, policy, hosts: Mutex::default(), tunnels }
    }

    pub(super) fn config(&self) -> &ForwardConfig {
        &self.config
    }

    pub(super) fn policy(&self) -> &TargetPolicy {
        &self.policy
    }

    pub(super) fn connect_timeout(&self) -> std::time::Duration {
        self.origin.connect_timeout
    }

    pub(super) fn tunnels(&self) -> &Arc<Semaphore> {
        &self.tunnels
    }

    /// Whether `client` may use the proxy.
    pub(super) fn admits(&self, client: &Client) -> Result<(), Refusal> {
        if !self.config.enabled {
            return Err(Refusal::ForwardOff);
        }
        let address = canonical(client.address);
        if self.config.clients.iter().any(|network| network.contains(&address)) {
            Ok(())
        } else {
            Err(Refusal::ForwardClient)
        }
    }

    /// The upstream for a host.
    pub(super) fn upstream(&self, scheme: &str, authority: &str) -> Result<Upstream, origin::Error> {
        let url = format!("{scheme}://{authority}");
        let mut hosts = self.hosts.lock();
        let Hosts { by_url: hosts, uses } = &mut *hosts;
        *uses += 1;
        if let Some(host) = hosts.get_mut(&url) {
            host.used = *uses;
            return Ok(host.upstream.clone());
        }
        let upstream = Upstream::new(std::slice::from_ref(&url), self.origin.clone(), self.policy.clone())
            .map_err(origin::Error::unusable)?;
        if hosts.len() >= self.config.hosts_max
            && let Some(oldest) = hosts.iter().min_by_key(|(_, host)| host.used).map(|(url, _)| url.clone())
        {
            hosts.remove(&oldest);
        }
        hosts.insert(url, Host { upstream: upstream.clone(), used: *uses });
        Ok(upstream)
    }
}

/// An IPv4 address that came as IPv6 is the IPv4 address.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Defaults {
        forward: ForwardConfig,
        origin: origin::config::Config,
    }

    #[test]
    fn the_host_used_longest_ago_makes_room() {
        let defaults = toml_edit::de::from_str(include_str!("../../config/default.toml")).expect("the defaults");
        let Defaults { forward, origin } = defaults;
        let origin = origin::config::Config { tls_ca_file: None, ..origin };
        let forward = Forward::new(ForwardConfig { hosts_max: 2, ..forward }, origin);
        for host in ["a", "b", "a", "c"] {
            forward.upstream("http", host).expect("an upstream");
        }
        let hosts = forward.hosts.lock();
        let mut known: Vec<_> = hosts.by_url.keys().map(String::as_str).collect();
        known.sort_unstable();
        assert_eq!((known, hosts.uses), (vec!["http://a", "http://c"], 4));
    }
}
