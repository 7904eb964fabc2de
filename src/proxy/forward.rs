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
    hosts: Mutex<HashMap<String, Host>>,
    tunnels: Arc<Semaphore>,
}

struct Host {
    upstream: Upstream,
    /// Order of use; the host used longest ago makes room.
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
        let used = hosts.values().map(|host| host.used).max().unwrap_or(0) + 1;
        if let Some(host) = hosts.get_mut(&url) {
            host.used = used;
            return Ok(host.upstream.clone());
        }
        let upstream = Upstream::new(std::slice::from_ref(&url), self.origin.clone(), self.policy.clone())
            .map_err(origin::Error::unusable)?;
        if hosts.len() >= self.config.hosts_max
            && let Some(oldest) = hosts.iter().min_by_key(|(_, host)| host.used).map(|(url, _)| url.clone())
        {
            hosts.remove(&oldest);
        }
        hosts.insert(url, Host { upstream: upstream.clone(), used });
        Ok(upstream)
    }
}

/// An IPv4 address that came as IPv6 is the IPv4 address.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
