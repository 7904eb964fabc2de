//! Asking who is where: servers for themselves and their cluster, Sentinels for the master.

use std::{ops::RangeInclusive, time::Duration};

use redis::Value;
use tokio::time::timeout;

use super::{
    connect::{Connector, Line, Purpose},
    error::Error,
    slot::SLOTS,
    topology::Kind,
    url::{self, Address},
    value,
};

/// Nodes of a cluster, at most.
pub(super) const NODES_MAX: usize = 1024;
/// Replicas of one node that are told apart.
const REPLICAS_MAX: usize = 64;
/// How long an answer over a connection that is there may take.
const ANSWER: Duration = Duration::from_millis(500);

/// Who is where, as one server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) kind: Kind,
    /// The cluster's or the Sentinels' own count of changes; 0 of a single server.
    pub(super) epoch: u64,
    pub(super) masters: Vec<Master>,
}

/// A node that takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) address: Address,
    pub(super) replicas: Vec<Address>,
    pub(super) ranges: Vec<RangeInclusive<u16>>,
}

/// What a server says of itself and of its cluster; over `line` if there is one.
pub(super) async fn server(connector: &Connector, address: &Address, line: Option<Line>) -> Result<View, Error> {
    let mut question = redis::pipe();
    question.cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("INFO").cmd("ROLE");
    let answers = match line {
        Some(line) => timeout(ANSWER, line.many(&question)).await,
        None => {
            let (line, _driver) = connector.open(address, Purpose::Topology).await?;
            timeout(ANSWER, line.many(&question)).await
        }
    };
    let Ok([slots, info, role]) = <[Value; 3]>::try_from(answers.unwrap_or(Err(Error::Timeout))?) else {
        return Err(Error::Protocol("answers are missing".to_owned()));
    };
    match slots {
        Value::ServerError(refused) => single(&Error::of_server(&refused), address, role),
        slots => cluster(slots, &info, address),
    }
}

/// A server that knows of no cluster; or that may not tell, which calls will show.
fn single(refused: &Error, address: &Address, role: Value) -> Result<View, Error> {
    if !matches!(refused.code(), Some("ERR" | "NOPERM")) {
        return Err(refused.clone());
    }
    let replicas = value::array(role).map(|role| replicas_of_role(role, address)).unwrap_or_default();
    let master = Master { address: address.clone(), replicas, ranges: vec![0..=SLOTS - 1] };
    Ok(View { kind: Kind::Single, epoch: 0, masters: vec![master] })
}

/// The replicas in `ROLE`'s answer of a master: `master`, offset, then host, port and offset of each.
fn replicas_of_role(role: Vec<Value>, asked: &Address) -> Vec<Address> {
    let mut role = role.into_iter();
    let (Some(name), _, Some(replicas)) = (role.next(), role.next(), role.next()) else { return Vec::new() };
    if value::text(&name) != Ok("master") {
        return Vec::new();
    }
    let replicas = value::array(replicas).unwrap_or_default().into_iter().take(REPLICAS_MAX);
    replicas.filter_map(|replica| endpoint(&value::array(replica).ok()?, asked)).collect()
}

/// `CLUSTER SLOTS`: of each range the first and last slot, then the nodes, the master first.
fn cluster(slots: Value, info: &Value, asked: &Address) -> Result<View, Error> {
    let wrong = |what: &str| Error::Protocol(format!("CLUSTER SLOTS: {what}"));
    let ranges = value::array(slots)?;
    if ranges.len() > usize::from(SLOTS) {
        return Err(wrong("more ranges than slots"));
    }
    let mut masters: Vec<Master> = Vec::new();
    let mut at = std::collections::HashMap::new();
    for range in ranges {
        let mut parts = value::array(range)?.into_iter();
        let (Some(first), Some(last), Some(master)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("a range without a node"));
        };
        let bound = |value: &Value| {
            u16::try_from(value::int(value)?).ok().filter(|slot| *slot < SLOTS).ok_or_else(|| wrong("no slot"))
        };
        let range = bound(&first)?..=bound(&last)?;
        let address = endpoint(&value::array(master)?, asked).ok_or_else(|| wrong("a node without an address"))?;
        let index = *at.entry(address.clone()).or_insert(masters.len());
        if index == masters.len() {
            if index == NODES_MAX {
                return Err(wrong("too many nodes"));
            }
            let replicas = parts.take(REPLICAS_MAX).filter_map(|replica| endpoint(&value::array(replica).ok()?, asked));
            masters.push(Master { address, replicas: replicas.collect(), ranges: Vec::new() });
        }
        masters[index].ranges.push(range);
    }
    Ok(View { kind: Kind::Cluster, epoch: current_epoch(info), masters })
}

/// Host and port, where a list begins with them.
fn endpoint(node: &[Value], asked: &Address) -> Option<Address> {
    let [host, port, ..] = node else { return None };
    let port = u16::try_from(value::int(port).ok()?).ok().filter(|port| *port != 0)?;
    let host = if *host == Value::Nil { "" } else { value::text(host).ok()? };
    Some(url::at(host, port, asked))
}

/// `CLUSTER INFO`'s count of fail-overs and other changes.
fn current_epoch(info: &Value) -> u64 {
    let lines = value::text(info).unwrap_or_default().lines();
    let mut epochs = lines.filter_map(|line| line.strip_prefix("cluster_current_epoch:")?.trim().parse().ok());
    epochs.next().unwrap_or(0)
}

/// Who a Sentinel says is the master of that name, if that one says so too.
pub(super) async fn sentinel(connector: &Connector, asked: &Address, name: &str) -> Result<View, Error> {
    let answer = match ask_sentinel(connector, asked, name, Purpose::Anonymous).await {
        Err(error) if error.code() == Some("NOAUTH") => ask_sentinel(connector, asked, name, Purpose::Topology).await,
        answer => answer,
    };
    let view = answer?;
    confirm(connector, &view.masters[0].address).await?;
    Ok(view)
}

async fn ask_sentinel(connector: &Connector, asked: &Address, name: &str, purpose: Purpose) -> Result<View, Error> {
    let (line, _driver) = connector.open(asked, purpose).await?;
    let mut question = redis::pipe();
    for about in ["GET-MASTER-ADDR-BY-NAME", "MASTER", "REPLICAS"] {
        question.cmd("SENTINEL").arg(about).arg(name);
    }
    let answers = timeout(ANSWER, line.many(&question)).await.unwrap_or(Err(Error::Timeout))?;
    let Ok([address, master, replicas]) = <[Value; 3]>::try_from(answers) else {
        return Err(Error::Protocol("answers are missing".to_owned()));
    };
    let unknown = || Error::Protocol(format!("the Sentinel at {asked} knows no master of the name {name:?}"));
    let address = endpoint(&value::array(address)?, asked).ok_or_else(unknown)?;
    let epoch = value::array(master).ok().and_then(|master| value::int(value::field(&master, "config-epoch")?).ok());
    let replicas = value::array(replicas).unwrap_or_default().into_iter().take(REPLICAS_MAX);
    let replicas = replicas.filter_map(|replica| sound(&value::array(replica).ok()?, asked)).collect();
    let master = Master { address, replicas, ranges: vec![0..=SLOTS - 1] };
    let epoch = epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0);
    Ok(View { kind: Kind::Sentinel, epoch, masters: vec![master] })
}

/// The address of a replica that the Sentinel finds nothing wrong with.
fn sound(replica: &[Value], asked: &Address) -> Option<Address> {
    let field = |name| value::text(value::field(replica, name)?).ok();
    let wrong = ["s_down", "o_down", "disconnected"];
    if field("flags")?.split(',').any(|flag| wrong.contains(&flag)) || field("master-link-status") == Some("err") {
        return None;
    }
    let port = field("port")?.parse().ok().filter(|port| *port != 0)?;
    Some(url::at(field("ip")?, port, asked))
}

/// Asks a server whether it is a master: a Sentinel may be the last one to hear that it is not.
async fn confirm(connector: &Connector, address: &Address) -> Result<(), Error> {
    let (line, _driver) = connector.open(address, Purpose::Topology).await?;
    let role = timeout(ANSWER, line.one(&redis::cmd("ROLE"))).await.unwrap_or(Err(Error::Timeout))?;
    match value::array(role) {
        Ok(role) if role.first().is_some_and(|role| value::text(role) == Ok("master")) => Ok(()),
        // Not allowed to ask: calls will show.
        Err(error) if error.code() == Some("NOPERM") => Ok(()),
        Ok(_) => Err(Error::Protocol(format!("{address} is named as the master and says it is none"))),
        Err(error) => Err(error),
    }
}
