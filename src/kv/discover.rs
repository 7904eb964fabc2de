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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked() -> Address {
        at("asked", 1)
    }

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(Vec::new())])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
    }

    fn slots(ranges: Vec<Value>) -> Result<View, Error> {
        cluster(Value::Array(ranges), &text("cluster_state:ok\r\ncluster_current_epoch:7\r\n"), &asked())
    }

    #[test]
    fn ranges_of_one_master_are_one() {
        let (a, b, replica) = (node(text("a"), 1), node(text("b"), 2), node(text("c"), 3));
        let ranges = vec![
            range(0, 99, vec![a.clone(), replica.clone()]),
            range(100, 100, vec![b]),
            range(101, 16383, vec![a, replica]),
        ];
        let view = slots(ranges).expect("a cluster");
        assert_eq!((view.kind, view.epoch), (Kind::Cluster, 7));
        let a = Master { address: at("a", 1), replicas: vec![at("c", 3)], ranges: vec![0..=99, 101..=16383] };
        let b = Master { address: at("b", 2), replicas: Vec::new(), ranges: vec![100..=100] };
        assert_eq!(view.masters, [a, b]);
    }

    #[test]
    fn a_node_without_a_host_is_where_it_was_asked() {
        for host in [text(""), Value::Nil, text("?")] {
            let view = slots(vec![range(0, 1, vec![node(host, 9)])]).expect("a cluster");
            assert_eq!(view.masters[0].address, at("asked", 9));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let a = || node(text("a"), 1);
        for wrong in [
            vec![range(0, 16384, vec![a()])],
            vec![range(-1, 1, vec![a()])],
            vec![range(0, 1, vec![])],
            vec![range(0, 1, vec![node(text("a"), 0)])],
            vec![range(0, 1, vec![node(text("a"), 65536)])],
            vec![range(0, 1, vec![node(Value::BulkString(vec![0xff]), 1)])],
            vec![Value::Int(1)],
            vec![range(0, 0, vec![a()]); 16385],
            (0..1025).map(|port| range(0, 0, vec![node(text("a"), port + 1)])).collect(),
        ] {
            assert_eq!(slots(wrong).expect_err("cannot be").name(), "protocol");
        }
        assert_eq!(slots(Vec::new()).expect("a cluster without slots").masters, []);
    }

    #[test]
    fn a_server_without_a_cluster_is_one() {
        let disabled = Error::Server { code: "ERR".to_owned(), message: "cluster support disabled".to_owned() };
        let replica = Value::Array(vec![text("10.0.0.1"), text("7000"), text("14")]);
        let role = Value::Array(vec![text("master"), Value::Int(14), Value::Array(vec![replica])]);
        let view = single(&disabled, &asked(), role).expect("a server");
        assert_eq!((view.kind, view.masters.len()), (Kind::Single, 1));
        assert_eq!(view.masters[0].address, asked());
        assert_eq!(view.masters[0].replicas, [at("10.0.0.1", 7000)]);
        let noauth = Error::Server { code: "NOAUTH".to_owned(), message: String::new() };
        assert_eq!(single(&noauth, &asked(), Value::Nil), Err(noauth));
    }

    #[test]
    fn replicas_that_a_sentinel_doubts_do_not_count() {
        let replica = |flags: &str, link: &str| {
            let pairs = ["ip", "h", "port", "6", "flags", flags, "master-link-status", link];
            sound(&pairs.map(text), &asked())
        };
        assert_eq!(replica("slave", "ok"), Some(at("h", 6)));
        assert_eq!(replica("s_down,slave", "ok"), None);
        assert_eq!(replica("slave,disconnected", "ok"), None);
        assert_eq!(replica("slave", "err"), None);
        assert_eq!(sound(&[text("ip")], &asked()), None);
    }

    /// Anything a server may send.
    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            Just(Value::Okay),
            any::<i64>().prop_map(Value::Int),
            (0..20000i64).prop_map(Value::Int),
            any::<Vec<u8>>().prop_map(Value::BulkString),
            "[a-z:0-9]*".prop_map(Value::SimpleString),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Value::Array))
    }

    proptest! {
        #[test]
        fn prop_anything_is_read_or_refused(one in anything(), two in anything()) {
            let _ = cluster(one.clone(), &two, &asked());
            let _ = replicas_of_role(value::array(one).unwrap_or_default(), &asked());
            let _ = sound(&value::array(two).unwrap_or_default(), &asked());
        }
    }
}
