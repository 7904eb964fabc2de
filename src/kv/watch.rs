//! The task that keeps the picture of Redis up to date: at intervals, and soon after anything that may have changed it.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Class, Shared,
    discover::{self, View},
    error::Error,
    topology::Kind,
    url::{Address, Form},
};

/// Between two questions, at least.
const APART: Duration = Duration::from_millis(100);
/// Between two questions while all is well.
const IDLE: Duration = Duration::from_secs(5);
/// The same while something is not.
const TROUBLED: Duration = Duration::from_millis(500);
/// How long one is waited for before another is asked as well.
const HEDGE: Duration = Duration::from_millis(100);
/// Who is asked at most for one answer.
const ASKED_MAX: usize = 8;
/// How often all may seem to have gone back in time before it is believed: a cluster that was made anew counts from 1.
const BEHIND_MAX: u32 = 5;

/// Failures in a row that are worth a word although nodes answer.
const FAILURES_SAID: u32 = 20;

/// See the module.
pub(super) struct Watch {
    shared: Arc<Shared>,
    form: Form,
    /// Whose turn it is to be asked first.
    turn: usize,
    /// Answers in a row that were older than what is known.
    behind: u32,
    /// Questions in a row without an answer that could be used.
    failures: u32,
    /// What has been said of them, to say it once.
    said: Said,
}

#[derive(Debug, Default)]
struct Said {
    unreachable: bool,
    unusable: bool,
}

impl Watch {
    pub(super) fn new(shared: Arc<Shared>, form: Form) -> Self {
        Self { shared, form, turn: 0, behind: 0, failures: 0, said: Said::default() }
    }

    pub(super) async fn run(mut self) {
        loop {
            let asked = Instant::now();
            let well = self.refresh().await;
            let next = asked + if well && self.shared.is_well() { IDLE } else { TROUBLED };
            sleep_until(asked + APART).await;
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.shared.context.suspect.notified() => {}
            }
        }
    }

    /// Asks, and adopts the answer. Returns whether there was one.
    async fn refresh(&mut self) -> bool {
        let metrics = self.shared.context.metrics.clone();
        match self.ask().await.and_then(|view| self.acceptable(view)) {
            Ok(view) => {
                metrics.refreshed("ok");
                self.shared.adopt(&view);
                self.failures = 0;
                let said = std::mem::take(&mut self.said);
                if said.unreachable || said.unusable {
                    tracing::info!(kind = ?view.kind, masters = view.masters.len(), "the nodes of Redis are known");
                }
                true
            }
            Err(error) => {
                metrics.refreshed("error");
                self.failures = self.failures.saturating_add(1);
                self.complain(&error);
                false
            }
        }
    }

    /// Says once what is wrong. That a known node is down is said by the node.
    fn complain(&mut self, error: &Error) {
        let blind = self.shared.topology.load().kind == Kind::Unknown
            || (self.failures >= FAILURES_SAID && self.shared.is_up());
        if matches!(error, Error::Protocol(_) | Error::Server { .. }) {
            if !std::mem::replace(&mut self.said.unusable, true) {
                tracing::warn!(reason = %error, "Redis cannot be used as it is");
            }
        } else if blind && !std::mem::replace(&mut self.said.unreachable, true) {
            tracing::warn!(reason = %error, "Redis is unreachable: its nodes are not known");
        }
    }

    fn acceptable(&self, view: View) -> Result<View, Error> {
        let Form::Direct(seeds) = &self.form else { return Ok(view) };
        match view.kind {
            Kind::Single if seeds.len() > 1 => {
                Err(Error::Protocol("several URLs are given, but the server is not part of a cluster".to_owned()))
            }
            Kind::Cluster if self.shared.context.connector.database() != 0 => {
                Err(Error::Protocol("a cluster has no database but 0".to_owned()))
            }
            _ => Ok(view),
        }
    }

    /// The first answer of those that may know, one after the other, without waiting long for any.
    async fn ask(&mut self) -> Result<View, Error> {
        self.turn = self.turn.wrapping_add(1);
        let known = self.shared.topology.load().epoch;
        let mut candidates = self.candidates().into_iter();
        let (mut asked, mut last, mut is_behind) = (FuturesUnordered::new(), Error::Unconnected, false);
        asked.extend(candidates.next().map(|address| ask(&self.shared, &self.form, address)));
        let answer = loop {
            let answer = tokio::select! {
                answer = asked.next() => answer,
                () = sleep(HEDGE), if candidates.len() > 0 => None,
            };
            match answer {
                Some(Ok(view)) if is_believed(view.epoch, known, self.behind) => break Ok(view),
                Some(Ok(_)) => is_behind = true,
                Some(Err(error)) => last = error,
                None => {}
            }
            asked.extend(candidates.next().map(|address| ask(&self.shared, &self.form, address)));
            if asked.is_empty() {
                break Err(last);
            }
        };
        drop(asked);
        self.behind = if answer.is_err() && is_behind { self.behind + 1 } else { 0 };
        answer
    }

    /// Who may know, best first: of nodes those that answer, then replicas, then who was named at the start.
    fn candidates(&self) -> Vec<Address> {
        let (mut all, named) = match &self.form {
            Form::Sentinel { sentinels, .. } => (Vec::new(), sentinels),
            Form::Direct(seeds) => (self.known(), seeds),
        };
        let mut named = named.clone();
        if !named.is_empty() {
            let first = self.turn % named.len();
            named.rotate_left(first);
        }
        all.extend(named);
        let mut seen = std::collections::HashSet::new();
        all.retain(|address| seen.insert(address.clone()));
        all.truncate(ASKED_MAX);
        all
    }

    fn known(&self) -> Vec<Address> {
        let topology = self.shared.topology.load();
        if topology.kind != Kind::Cluster {
            return Vec::new();
        }
        let up = topology.members.iter().filter(|member| member.node.is_up());
        let mut nodes: Vec<Address> = up.map(|member| member.node.address().clone()).collect();
        if !nodes.is_empty() {
            let first = self.turn % nodes.len();
            nodes.rotate_left(first);
        }
        // Room for others, in case that all of these hang.
        nodes.truncate(ASKED_MAX / 2);
        nodes.extend(topology.members.iter().filter_map(|member| member.replicas.first().cloned()).take(ASKED_MAX / 4));
        nodes
    }
}

/// Whether a picture of `epoch` counts, after so many answers in a row that were older than `known`: a node that was cut
/// off or paused still has the old one when it comes back.
fn is_believed(epoch: u64, known: u64, behind: u32) -> bool {
    epoch >= known || behind >= BEHIND_MAX
}

async fn ask(shared: &Shared, form: &Form, address: Address) -> Result<View, Error> {
    let connector = &shared.context.connector;
    match form {
        Form::Sentinel { master, .. } => discover::sentinel(connector, &address, master).await,
        Form::Direct(_) => {
            let topology = shared.topology.load_full();
            let line = topology.node(&address).and_then(|node| node.lane(Class::Control).line());
            discover::server(connector, &address, line).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_away_is_believed_only_if_nobody_knows_better() {
        assert!(is_believed(7, 7, 0) && is_believed(8, 7, 0));
        assert!(!is_believed(6, 7, 0) && !is_believed(6, 7, BEHIND_MAX - 1));
        assert!(is_believed(1, 7, BEHIND_MAX));
    }
}
