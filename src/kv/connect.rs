//! One connection: made, greeted and proven by an answer; then a task of its own drives it until it breaks or is dropped.

use std::time::Duration;

use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, Value, aio::MultiplexedConnection};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::{
    config::{Config, ConfigError},
    error::Error,
    tls,
    url::{Address, Target},
    value,
};

/// How connections are made.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Option<TlsConnector>,
    username: String,
    password: String,
    database: u32,
    /// Messages between callers and the task that writes.
    queue: usize,
    timeout: Duration,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Calls: with name and password, in the database.
    Calls,
    /// Asking who is where: in no database, which a cluster would refuse.
    Topology,
    /// The same of a Sentinel that wants no password.
    Anonymous,
}

/// Anyone may send on it, at any time. A copy does not keep it alive.
#[derive(Debug, Clone)]
pub(super) struct Line(MultiplexedConnection);

/// Drives a connection; it ends with it, and takes it along when dropped: calls under way fail at once.
pub(super) type Driver = AbortOnDropHandle<()>;

impl Connector {
    pub(super) fn new(config: &Config, target: &Target) -> Result<Self, ConfigError> {
        let own = |from_url: &str, set: &str| if from_url.is_empty() { set.to_owned() } else { from_url.to_owned() };
        Ok(Self {
            tls: target.tls.then(|| tls::connector(config)).transpose()?,
            username: own(&target.username, &config.username),
            password: own(&target.password, &config.password),
            database: target.database,
            queue: config.in_flight_max.clamp(1, 1 << 16),
            timeout: config.connect_timeout,
        })
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn database(&self) -> u32 {
        self.database
    }

    /// A connection on which the server has answered, or why there is none; on the runtime it is called in.
    pub(super) async fn open(&self, address: &Address, purpose: Purpose) -> Result<(Line, Driver), Error> {
        let opened = timeout(self.timeout, async {
            let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(broken)?;
            stream.set_nodelay(true).map_err(broken)?;
            match &self.tls {
                None => self.greet(stream, purpose).await,
                Some(tls) => {
                    let name = ServerName::try_from(address.host.clone()).map_err(broken)?;
                    self.greet(tls.connect(name, stream).await.map_err(broken)?, purpose).await
                }
            }
        });
        opened.await.unwrap_or(Err(Error::Timeout))
    }

    async fn greet<S>(&self, stream: S, purpose: Purpose) -> Result<(Line, Driver), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Deadlines are the callers'.
        let settings = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(self.queue);
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, settings).await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        let line = Line(connection);
        let (greeting, needed) = self.greeting(purpose);
        let mut answers = line.clone().many(&greeting).await?.into_iter();
        for answer in answers.by_ref().take(needed) {
            value::checked(answer)?;
        }
        permitted(answers.next_back().unwrap_or_default())?;
        Ok((line, driver))
    }

    /// Says who is here, and asks for a sign of life; with how many commands at its start must be obeyed.
    ///
    /// Not left to the client library, which keeps to itself why a server refuses.
    fn greeting(&self, purpose: Purpose) -> (Pipeline, usize) {
        let mut greeting = redis::pipe();
        if purpose != Purpose::Anonymous && !(self.username.is_empty() && self.password.is_empty()) {
            let auth = greeting.cmd("AUTH");
            if !self.username.is_empty() {
                auth.arg(&self.username);
            }
            auth.arg(&self.password);
        }
        if purpose == Purpose::Calls && self.database != 0 {
            greeting.cmd("SELECT").arg(self.database);
        }
        let needed = greeting.len();
        greeting.cmd("CLIENT").arg("SETNAME").arg("larder").cmd("PING");
        (greeting, needed)
    }
}

impl Line {
    /// The answer to one command; what Redis refuses is an answer.
    pub(super) async fn one(mut self, command: &Cmd) -> Result<Value, Error> {
        Ok(self.0.send_packed_command(command).await?)
    }

    /// The answers to all commands, one by one.
    pub(super) async fn many(mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        let count = pipeline.len();
        let values = self.0.send_packed_commands(pipeline, 0, count).await?;
        if values.len() == count { Ok(values) } else { Err(Error::Protocol("answers are missing".to_owned())) }
    }

    /// Whether it takes commands. One that may not PING may still be of use.
    pub(super) async fn ping(self) -> Result<(), Error> {
        permitted(self.one(&redis::cmd("PING")).await?)
    }
}

fn permitted(answer: Value) -> Result<(), Error> {
    match value::checked(answer) {
        Err(error) if error.code() != Some("NOPERM") => Err(error),
        _ => Ok(()),
    }
}

fn broken(error: impl ToString) -> Error {
    Error::Io(error.to_string())
}

#[cfg(test)]
impl Line {
    /// Over a stream that is there already, without a greeting.
    pub(super) async fn over<S>(stream: S) -> (Self, Driver)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let settings = AsyncConnectionConfig::new().set_response_timeout(None);
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let made = MultiplexedConnection::new_with_config(&info, stream, settings).await;
        let (connection, driver) = made.expect("nothing is said");
        (Self(connection), AbortOnDropHandle::new(tokio::spawn(driver)))
    }
}
