//! Sockets that are open before this process is: systemd, or whoever else starts it, hands them over (`LISTEN_FDS`, see
//! `sd_listen_fds(3)`), the one for clients first and the one for operators second.
//!
//! They stay open while one process ends and the next one starts: who connects meanwhile waits, and is not refused.

use std::{io, net::SocketAddr};

use listenfd::ListenFd;
use tokio::net::TcpListener;

use super::Error;
use crate::listener;

/// What was handed over.
pub(super) struct Sockets {
    inherited: ListenFd,
    taken: usize,
}

impl Sockets {
    /// Those of this process's environment; most often none.
    pub(super) fn from_env() -> Self {
        Self { inherited: ListenFd::from_env(), taken: 0 }
    }

    /// The next one that was handed over, or else one that listens on `address`, the setting `key`; and where it listens.
    pub(super) fn listen(
        &mut self,
        key: &'static str,
        address: SocketAddr,
    ) -> Result<(TcpListener, SocketAddr), Error> {
        let failed = |source| Error::Listen { address, key, source };
        let inherited = self.inherit().map_err(|source| Error::Inherited { key, source })?;
        let Some(listener) = inherited else {
            let listener = listener::bind(address).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            return Ok((listener, bound));
        };
        let bound = listener.local_addr().map_err(failed)?;
        if bound != address {
            tracing::info!(%bound, configured = %address, key, "listening on a socket that was handed over");
        }
        Ok((listener, bound))
    }

    fn inherit(&mut self) -> io::Result<Option<TcpListener>> {
        let index = self.taken;
        self.taken += 1;
        if index >= self.inherited.len() {
            return Ok(None);
        }
        let Some(listener) = self.inherited.take_tcp_listener(index)? else { return Ok(None) };
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Some)
    }
}
