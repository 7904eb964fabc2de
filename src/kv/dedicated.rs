//! A connection for one caller alone: for what blocks, or must stay on one connection.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Value};
use tokio::time::{Instant, timeout_at};

use super::{
    Shared,
    connect::{Driver, Line, Purpose},
    error::Error,
    redirect::Redirect,
    script::Script,
    slot::slot,
    url::Address,
    value,
};

/// See the module. It ends when dropped, also on the server, whatever it was waiting for there.
pub struct Dedicated {
    shared: Arc<Shared>,
    slot: u16,
    address: Address,
    name: String,
    line: Line,
    _driver: Driver,
}

impl Dedicated {
    pub(super) async fn open(shared: &Arc<Shared>, key: &[u8], within: Duration) -> Result<Self, Error> {
        let deadline = Instant::now() + within;
        let slot = slot(key);
        let address = shared.node(slot)?.address().clone();
        let (context, to) = (Arc::clone(&shared.context), address.clone());
        // Where all other connections are, so that it lives no shorter.
        let opening = shared.context.runtime.spawn(async move { context.connector.open(&to, Purpose::Calls).await });
        let opening = tokio_util::task::AbortOnDropHandle::new(opening);
        let (line, driver) = match timeout_at(deadline, opening).await {
            Ok(Ok(opened)) => opened.inspect_err(|_| shared.context.suspect.notify_one())?,
            Ok(Err(_)) => return Err(Error::Unconnected),
            Err(_) => return Err(Error::Timeout),
        };
        let name = address.to_string();
        Ok(Self { shared: Arc::clone(shared), slot, address, name, line, _driver: driver })
    }

    /// The answer to one command. After [`Error::Timeout`] its answer may still come: it is not taken for the next one's,
    /// but stands before it. After [`Error::Moved`] and [`Error::Io`] there is no use in this connection any more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call(&mut self, within: Duration, command: &Cmd) -> Result<Value, Error> {
        self.until(Instant::now() + within, command).await
    }

    /// The answer of a script.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(
        &mut self,
        within: Duration,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<Value, Error> {
        let deadline = Instant::now() + within;
        match self.until(deadline, &script.short(keys, args)).await {
            Err(error) if error.code() == Some("NOSCRIPT") => self.until(deadline, &script.whole(keys, args)).await,
            answer => answer,
        }
    }

    /// The server it leads to.
    pub fn address(&self) -> &str {
        &self.name
    }

    /// Whether the key it was opened for is, as last heard, still there.
    pub fn is_current(&self) -> bool {
        self.shared.node(self.slot).is_ok_and(|node| *node.address() == self.address)
    }

    async fn until(&self, deadline: Instant, command: &Cmd) -> Result<Value, Error> {
        let answer = timeout_at(deadline, self.line.clone().one(command)).await.unwrap_or(Err(Error::Timeout))?;
        if Redirect::of(&answer, &self.address).is_some() {
            self.shared.context.suspect.notify_one();
            return Err(Error::Moved);
        }
        let answer = value::checked(answer);
        if answer.as_ref().is_err_and(Error::is_elsewhere) {
            self.shared.context.suspect.notify_one();
        }
        answer
    }
}

impl std::fmt::Debug for Dedicated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dedicated").field("address", &self.name).finish_non_exhaustive()
    }
}
