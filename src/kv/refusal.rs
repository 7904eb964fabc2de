//! Whether Redis is gone for everybody, as far as one can tell from here.
//!
//! A refused connection says that the host is there and no server is. A connection that is not answered says nothing.

use std::{collections::HashSet, io, time::Duration};

use futures_util::future::join_all;
use tokio::{net::TcpStream, time::timeout};

use super::{topology::Topology, url::Address};

/// A host that is there refuses at once.
const WITHIN: Duration = Duration::from_millis(250);

/// Servers asked at most: where more are known, nobody can say.
const ASKED_MAX: usize = 64;

/// Whether all servers that are known, replicas among them, refuse connections.
pub(super) async fn is_complete(topology: &Topology, seeds: &[Address]) -> bool {
    let members = topology.members.iter();
    let nodes = members.flat_map(|member| std::iter::once(member.node.address()).chain(&member.replicas));
    let servers: HashSet<&Address> = nodes.chain(seeds).collect();
    if servers.is_empty() || servers.len() > ASKED_MAX {
        return false;
    }
    join_all(servers.into_iter().map(refuses)).await.into_iter().all(|refuses| refuses)
}

async fn refuses(address: &Address) -> bool {
    let connecting = TcpStream::connect((address.host.as_str(), address.port));
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    matches!(timeout(WITHIN, connecting).await, Ok(Err(error)) if refused(&error))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn taken() -> (TcpListener, Address) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        (listener, Address { host: "127.0.0.1".into(), port })
    }

    #[tokio::test]
    async fn one_that_listens_is_enough() {
        let ((one, first), (other, second)) = (taken().await, taken().await);
        let servers = [first, second];
        assert!(!is_complete(&Topology::unknown(), &servers).await);
        drop(one);
        assert!(!is_complete(&Topology::unknown(), &servers).await);
        drop(other);
        assert!(is_complete(&Topology::unknown(), &servers).await);
        assert!(!is_complete(&Topology::unknown(), &[]).await, "nobody was asked");
    }
}
