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
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&self.login(purpose), stream, settings).await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        let line = Line(connection);
        line.hello().await?;
        Ok((line, driver))
    }

    fn login(&self, purpose: Purpose) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
        if purpose != Purpose::Anonymous {
            if !self.username.is_empty() {
                info = info.set_username(&self.username);
            }
            if !self.password.is_empty() {
                info = info.set_password(&self.password);
            }
        }
        if purpose == Purpose::Calls { info.set_db(self.database.into()) } else { info }
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

    /// Says who is here, which need not be allowed, and asks for a sign of life.
    async fn hello(&self) -> Result<(), Error> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("CLIENT").arg("SETNAME").arg("larder").cmd("PING");
        let mut answers = self.clone().many(&pipeline).await?;
        permitted(answers.pop().unwrap_or(Value::Nil))
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
