//! From a slot to its node, and on to where that one says the slot is.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use super::{
    Class,
    discover::{NODES_MAX, View},
    error::Error,
    node::{Context, Node},
    redirect::{Redirect, asking},
    topology::{Kind, Topology},
    url::Address,
    value,
};

/// Tries for one call: where the slot should be, where it has moved to, where it is on its way to.
const TRIES: usize = 3;
/// Nodes that have no slots, but that others sent calls to.
const STRANGERS_MAX: usize = 16;
/// How long such a node is kept after the last one.
const STRANGER_KEPT: Duration = Duration::from_secs(60);

/// The picture, and what all need to act on it.
pub(super) struct Shared {
    pub(super) context: Arc<Context>,
    pub(super) topology: ArcSwap<Topology>,
    /// Held while the picture is changed. With each, when it was last of use.
    strangers: Mutex<Vec<(Arc<Node>, Instant)>>,
}

impl Shared {
    pub(super) fn new(context: Context) -> Self {
        let topology = ArcSwap::from_pointee(Topology::unknown());
        Self { context: Arc::new(context), topology, strangers: Mutex::default() }
    }

    /// The node that has the slot, as far as is known.
    pub(super) fn node(&self, slot: u16) -> Result<Arc<Node>, Error> {
        self.topology.load().member(slot).map(|member| Arc::clone(&member.node)).ok_or(Error::Unconnected)
    }

    pub(super) fn is_up(&self) -> bool {
        self.topology.load().members.iter().any(|member| member.node.is_up())
    }

    /// Whether all nodes answer, and have all slots.
    pub(super) fn is_well(&self) -> bool {
        let topology = self.topology.load();
        topology.kind != Kind::Unknown
            && topology.members.iter().all(|member| member.node.is_up())
            && topology.is_covered()
    }

    /// The answer to a command about a slot.
    pub(super) async fn one(&self, class: Class, deadline: Instant, slot: u16, command: &Cmd) -> Result<Value, Error> {
        let mut node = self.node(slot)?;
        let mut answer = node.one(class, deadline, command).await?;
        for _ in 1..TRIES {
            answer = match Redirect::of(&answer, node.address()) {
                None => return self.judged(answer),
                Some(Redirect::Moved(slot, address)) => {
                    node = self.moved(slot, &address)?;
                    node.greeted(class, deadline).await;
                    node.one(class, deadline, command).await?
                }
                Some(Redirect::Ask(address)) => {
                    let there = self.stranger(&address)?;
                    there.greeted(class, deadline).await;
                    let asked = there.many(class, deadline, &asking(std::iter::once(command))).await?;
                    asked.into_iter().last().unwrap_or_default()
                }
            };
        }
        self.settle(&node, answer)
    }

    /// The answers to commands about a slot.
    pub(super) async fn many(
        &self,
        class: Class,
        deadline: Instant,
        slot: u16,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, Error> {
        if pipeline.is_transaction() {
            return Err(Error::Protocol("a transaction in a pipeline cannot follow its slot".to_owned()));
        }
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let mut node = self.node(slot)?;
        let mut answers = node.many(class, deadline, pipeline).await?;
        for _ in 1..TRIES {
            let Some(redirect) = answers.iter().find_map(|answer| Redirect::of(answer, node.address())) else { break };
            // Of a slot on the move, some keys are here and some there.
            let sent_on = answers.iter().map(|answer| Redirect::of(answer, node.address()).as_ref() == Some(&redirect));
            let sent_on: Vec<bool> = sent_on.collect();
            let commands =
                pipeline.cmd_iter().zip(&sent_on).filter(|(_, sent_on)| **sent_on).map(|(command, _)| command);
            let again = match redirect {
                Redirect::Moved(slot, address) => {
                    node = self.moved(slot, &address)?;
                    node.greeted(class, deadline).await;
                    let mut again = redis::pipe();
                    for command in commands {
                        again.add_command(command.clone());
                    }
                    node.many(class, deadline, &again).await?
                }
                Redirect::Ask(address) => {
                    let there = self.stranger(&address)?;
                    there.greeted(class, deadline).await;
                    let asked = there.many(class, deadline, &asking(commands)).await?;
                    asked.into_iter().skip(1).step_by(2).collect()
                }
            };
            let places = answers.iter_mut().zip(sent_on).filter(|(_, sent_on)| *sent_on).map(|(answer, _)| answer);
            for (place, answer) in places.zip(again) {
                *place = answer;
            }
        }
        if answers.iter().any(|answer| Redirect::of(answer, node.address()).is_some()) {
            self.context.suspect.notify_one();
            return Err(Error::Moved);
        }
        let elsewhere =
            |answer: &Value| matches!(answer, Value::ServerError(error) if Error::of_server(error).is_elsewhere());
        if answers.iter().any(elsewhere) {
            self.context.suspect.notify_one();
        }
        Ok(answers)
    }

    /// An answer after the last try.
    fn settle(&self, node: &Node, answer: Value) -> Result<Value, Error> {
        if Redirect::of(&answer, node.address()).is_some() {
            self.context.suspect.notify_one();
            return Err(Error::Moved);
        }
        self.judged(answer)
    }

    /// An answer that leads nowhere else.
    fn judged(&self, answer: Value) -> Result<Value, Error> {
        let answer = value::checked(answer);
        if answer.as_ref().is_err_and(Error::is_elsewhere) {
            self.context.suspect.notify_one();
        }
        answer
    }

    /// Takes note that a slot is at `address`, and has the rest asked for.
    fn moved(&self, slot: u16, address: &Address) -> Result<Arc<Node>, Error> {
        self.context.suspect.notify_one();
        let node = self.stranger(address)?;
        let _held = self.strangers.lock();
        let topology = self.topology.load_full();
        if topology.member(slot).is_none_or(|member| member.node.address() != address) {
            let mut changed = Topology::clone(&topology);
            changed.give(slot, &node);
            self.topology.store(Arc::new(changed));
        }
        Ok(node)
    }

    /// The node at `address`, whether it is known to have slots or not.
    fn stranger(&self, address: &Address) -> Result<Arc<Node>, Error> {
        let mut strangers = self.strangers.lock();
        let topology = self.topology.load();
        if let Some(node) = topology.node(address) {
            return Ok(Arc::clone(node));
        }
        if let Some((node, used)) = strangers.iter_mut().find(|(node, _)| node.address() == address) {
            *used = Instant::now();
            return Ok(Arc::clone(node));
        }
        if strangers.len() >= STRANGERS_MAX || topology.members.len() >= NODES_MAX {
            return Err(Error::Moved);
        }
        let node = Node::new(address.clone(), &self.context);
        strangers.push((Arc::clone(&node), Instant::now()));
        Ok(node)
    }

    /// Makes `view` the picture.
    pub(super) fn adopt(&self, view: &View) {
        let mut strangers = self.strangers.lock();
        let before = self.topology.load_full();
        let known: Vec<Arc<Node>> = strangers.iter().map(|(node, _)| Arc::clone(node)).collect();
        let after = before.renewed(view, &known, &self.context);
        strangers.retain(|(node, used)| used.elapsed() < STRANGER_KEPT && after.node(node.address()).is_none());
        let masters = |topology: &Topology| {
            let mut masters: Vec<String> =
                topology.members.iter().map(|member| member.node.address().to_string()).collect();
            masters.sort();
            masters
        };
        let (old, new) = (masters(&before), masters(&after));
        if old != new {
            tracing::info!(kind = ?after.kind, masters = new.join(" "), "Redis has these masters");
        }
        self.context.metrics.slots.set(after.counts().into_iter().map(u64::from).sum());
        self.topology.store(Arc::new(after));
    }
}
