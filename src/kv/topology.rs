//! Which node has which slot, as last heard.
//!
//! One server, or the one master that Sentinels name, has all slots. Nodes live on from one picture to the next, with
//! their connections.

use std::{collections::HashMap, sync::Arc};

use super::{
    discover::View,
    node::{Context, Node},
    slot::SLOTS,
    url::Address,
};

/// What kind of Redis it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nobody has said yet.
    Unknown,
    /// One server.
    Single,
    /// One server, named by Sentinels.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}

/// A node and what is known of it.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) node: Arc<Node>,
    /// Its replicas that are in order.
    pub(super) replicas: Vec<Address>,
}

/// Slots without a node.
const NOBODY: u16 = u16::MAX;

/// See the module.
#[derive(Clone)]
pub(super) struct Topology {
    pub(super) kind: Kind,
    /// Which of two pictures is newer, where Redis counts.
    pub(super) epoch: u64,
    pub(super) members: Vec<Member>,
    /// Index into `members` by slot.
    slots: Box<[u16]>,
}

impl Topology {
    pub(super) fn unknown() -> Self {
        let slots = vec![NOBODY; usize::from(SLOTS)].into();
        Self { kind: Kind::Unknown, epoch: 0, members: Vec::new(), slots }
    }

    /// As `view` has it; nodes of `self` that are in it are kept.
    pub(super) fn renewed(&self, view: &View, strangers: &[Arc<Node>], context: &Arc<Context>) -> Self {
        let known = self.members.iter().map(|member| &member.node).chain(strangers);
        let known: HashMap<&Address, &Arc<Node>> = known.map(|node| (node.address(), node)).collect();
        let mut slots: Box<[u16]> = vec![NOBODY; usize::from(SLOTS)].into();
        let mut members = Vec::with_capacity(view.masters.len());
        for (index, master) in (0..NOBODY).zip(&view.masters) {
            let node = known.get(&master.address);
            let node = node.map_or_else(|| Node::new(master.address.clone(), context), |node| Arc::clone(node));
            members.push(Member { node, replicas: master.replicas.clone() });
            for range in &master.ranges {
                let (first, last) = (usize::from(*range.start()), usize::from(*range.end()));
                if let Some(slots) = slots.get_mut(first..=last) {
                    slots.fill(index);
                }
            }
        }
        Self { kind: view.kind, epoch: view.epoch, members, slots }
    }

    pub(super) fn member(&self, slot: u16) -> Option<&Member> {
        let index = self.slots.get(usize::from(slot))?;
        self.members.get(usize::from(*index))
    }

    /// Its node of that address.
    pub(super) fn node(&self, address: &Address) -> Option<&Arc<Node>> {
        self.members.iter().map(|member| &member.node).find(|node| node.address() == address)
    }

    /// Gives `slot` to `node`.
    pub(super) fn give(&mut self, slot: u16, node: &Arc<Node>) {
        let found = self.members.iter().position(|member| member.node.address() == node.address());
        let index = found.unwrap_or_else(|| {
            self.members.push(Member { node: Arc::clone(node), replicas: Vec::new() });
            self.members.len() - 1
        });
        if let (Some(slot), Ok(index)) = (self.slots.get_mut(usize::from(slot)), u16::try_from(index)) {
            *slot = index;
        }
    }

    /// Whether every slot has a node.
    pub(super) fn is_covered(&self) -> bool {
        !self.slots.contains(&NOBODY)
    }

    /// How many slots each member has.
    pub(super) fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.members.len()];
        for index in &self.slots {
            if let Some(count) = counts.get_mut(usize::from(*index)) {
                *count += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::{ops::RangeInclusive, time::Duration};

    use super::*;
    use crate::kv::{config::Config, connect::Connector, discover::Master, metrics::Metrics, url::Target};

    fn context() -> Arc<Context> {
        let config = Config {
            urls: vec!["redis://127.0.0.1:1".to_owned()],
            username: String::new(),
            password: String::new(),
            tls_ca: String::new(),
            tls_cert: String::new(),
            tls_key: String::new(),
            tls_verify: true,
            connect_timeout: Duration::from_secs(1),
            breaker_failures: 1,
            breaker_pause: Duration::from_secs(1),
            in_flight_max: 1,
        };
        let target = Target::of(&config.urls).expect("a URL");
        Arc::new(Context {
            connector: Connector::new(&config, &target).expect("nothing to read"),
            metrics: Metrics::new(&mut prometheus_client::registry::Registry::default()),
            runtime: tokio::runtime::Handle::current(),
            suspect: tokio::sync::Notify::new(),
            breaker_failures: 1,
            breaker_pause: Duration::from_secs(1),
            in_flight_max: 1,
        })
    }

    fn view(masters: &[(u16, RangeInclusive<u16>)]) -> View {
        let master = |(port, range): &(u16, RangeInclusive<u16>)| Master {
            address: at(*port),
            replicas: Vec::new(),
            ranges: vec![range.clone()],
        };
        View { kind: Kind::Cluster, epoch: 1, masters: masters.iter().map(master).collect() }
    }

    fn at(port: u16) -> Address {
        Address { host: "127.0.0.1".to_owned(), port }
    }

    #[tokio::test]
    async fn nodes_outlive_the_picture_they_are_in() {
        let context = context();
        let first = Topology::unknown().renewed(&view(&[(1, 0..=99), (2, 100..=16383)]), &[], &context);
        assert!(first.is_covered());
        assert_eq!(first.counts(), [100, 16284]);
        let second = first.renewed(&view(&[(2, 0..=9), (3, 10..=19)]), &[], &context);
        assert_eq!((second.counts(), second.is_covered()), (vec![10, 10], false));
        assert!(second.member(20).is_none() && second.node(&at(1)).is_none());
        let (before, after) = (first.node(&at(2)).expect("there"), second.node(&at(2)).expect("there"));
        assert!(Arc::ptr_eq(before, after));
    }

    #[tokio::test]
    async fn a_slot_that_moved_is_the_only_one_that_does() {
        let context = context();
        let mut topology = Topology::unknown().renewed(&view(&[(1, 0..=16383)]), &[], &context);
        let node = Node::new(at(2), &context);
        topology.give(7, &node);
        assert_eq!(topology.counts(), [16383, 1]);
        assert!(Arc::ptr_eq(&topology.member(7).expect("a node").node, &node));
        let known = Arc::clone(topology.node(&at(1)).expect("there"));
        topology.give(7, &known);
        assert_eq!(topology.counts(), [16384, 0]);
    }
}
