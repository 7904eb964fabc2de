//! The forward proxy: who may use it, where it may go, and an upstream for each host it goes to.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::Semaphore;

use super::{client::Client, config::ForwardConfig, hosts::Hosts, rescue::Refusal};
use crate::origin::{self, TargetPolicy, Upstream};

/// The forward proxy's state.
pub(super) struct Forward {
    config: ForwardConfig,
    hosts: Hosts,
    tunnels: Arc<Semaphore>,
}

impl Forward {
    pub(super) fn new(config: ForwardConfig, origin: origin::config::Config) -> Self {
        let policy = TargetPolicy::Public { allowed: config.targets_allowed.clone() };
        let tunnels = Arc::new(Semaphore::new(config.tunnels_max));
        let hosts = Hosts::new(origin, policy, config.hosts_max);
        Self { config, hosts, tunnels }
    }

    /// Itself, where these are its settings.
    pub(super) fn of(self: &Arc<Self>, config: &ForwardConfig, origin: &origin::config::Config) -> Option<Arc<Self>> {
        (self.config == *config && self.hosts.origin() == origin).then(|| Arc::clone(self))
    }

    pub(super) fn config(&self) -> &ForwardConfig {
        &self.config
    }

    pub(super) fn policy(&self) -> &TargetPolicy {
        self.hosts.policy()
    }

    pub(super) fn connect_timeout(&self) -> std::time::Duration {
        self.hosts.origin().connect_timeout
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
        self.hosts.upstream(format!("{scheme}://{authority}"))
    }
}

/// An IPv4 address that came as IPv6 is the IPv4 address.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
