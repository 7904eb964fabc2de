//! Figures of Redis, for `/stats`.

use serde::Serialize;
use utoipa::ToSchema;

use super::topology::{Kind, Topology};

/// Redis as it is seen from here, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Stats {
    /// What kind it is.
    pub topology: Kind,
    /// Its masters.
    pub nodes: Vec<NodeStats>,
}

/// One master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeStats {
    /// Host and port.
    pub address: String,
    /// Whether it is connected and answers.
    pub up: bool,
    /// Whether calls fail at once because the last ones were not answered in time.
    pub breaker_open: bool,
    /// Slots it has; all 16384 where there is no cluster.
    pub slots: u32,
    /// Its replicas that are in order.
    pub replicas: usize,
}

impl Stats {
    pub(super) fn of(topology: &Topology) -> Self {
        let node = |(member, slots): (&super::topology::Member, u32)| NodeStats {
            address: member.node.address().to_string(),
            up: member.node.is_up(),
            breaker_open: member.node.is_open(),
            slots,
            replicas: member.replicas.len(),
        };
        let nodes = topology.members.iter().zip(topology.counts()).map(node).collect();
        Self { topology: topology.kind, nodes }
    }
}
