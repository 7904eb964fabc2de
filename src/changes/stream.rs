//! The stream in Redis, as one consumer of the group sees it.

use std::time::Duration;

use redis::{Cmd, Pipeline, Value};

use super::{config::Config, message::Message, scripts};
use crate::kv::{Class, Dedicated, Error, Kv, value};

/// The consumer group of all nodes.
const GROUP: &str = "larder";

/// For how long a read waits for news.
const BLOCK: Duration = Duration::from_secs(1);

/// For how long a call is waited for.
const WITHIN: Duration = Duration::from_secs(2);

/// Without a word for so long, a consumer that holds nothing has gone.
const GONE_AFTER: Duration = Duration::from_secs(60 * 60);

/// Bytes of a rejected message that are kept.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// Which messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that this consumer has and did not acknowledge.
    Own,
    /// Those nobody has; they are waited for.
    New,
}

/// See the module.
pub(super) struct Stream {
    kv: Kv,
    stream: Vec<u8>,
    rejected: Vec<u8>,
    consumer: String,
    /// Where the next look for messages of others begins.
    cursor: String,
}

impl Stream {
    pub(super) fn new(kv: Kv, namespace: &str, consumer: String) -> Self {
        let name = |what: &str| format!("{namespace}:{{{namespace}.changes}}:{what}").into_bytes();
        Self { kv, stream: name("stream"), rejected: name("rejected"), consumer, cursor: "0-0".to_owned() }
    }

    /// A connection for reading, and a group to read with: from the first message on, for what was written before any
    /// gateway ran counts too.
    pub(super) async fn open(&self) -> Result<Dedicated, Error> {
        let mut connection = self.kv.dedicated(&self.stream, WITHIN).await?;
        let create = command("XGROUP", &["CREATE".as_bytes(), &self.stream, GROUP.as_bytes(), b"0", b"MKSTREAM"]);
        match connection.call(WITHIN, &create).await {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error),
            _ => Ok(connection),
        }
    }

    pub(super) async fn read(
        &self,
        connection: &mut Dedicated,
        which: Which,
        count: usize,
    ) -> Result<Vec<Message>, Error> {
        let mut read = command("XREADGROUP", &["GROUP".as_bytes(), GROUP.as_bytes(), self.consumer.as_bytes()]);
        read.arg("COUNT").arg(count);
        if which == Which::New {
            read.arg("BLOCK").arg(u64::try_from(BLOCK.as_millis()).unwrap_or(1));
        }
        read.arg("STREAMS").arg(&self.stream).arg(if which == Which::New { ">" } else { "0" });
        let streams = value::array(connection.call(BLOCK + WITHIN, &read).await?)?;
        // [[stream, [message, …]]]
        let Some(Value::Array(mut pair)) = streams.into_iter().next() else { return Ok(Vec::new()) };
        messages(pair.pop().unwrap_or(Value::Nil))
    }

    /// Takes over messages that others have had for longer than `after`.
    pub(super) async fn claim(&mut self, after: Duration, count: usize) -> Result<Vec<Message>, Error> {
        let after = after.as_millis().to_string();
        let parts =
            [&self.stream[..], GROUP.as_bytes(), self.consumer.as_bytes(), after.as_bytes(), self.cursor.as_bytes()];
        let mut claim = command("XAUTOCLAIM", &parts);
        claim.arg("COUNT").arg(count);
        let mut answer = value::array(self.call(&claim).await?)?.into_iter();
        let cursor = answer.next().unwrap_or(Value::Nil);
        value::text(&cursor)?.clone_into(&mut self.cursor);
        messages(answer.next().unwrap_or(Value::Nil))
    }

    /// Has them done with.
    pub(super) async fn acknowledge(&self, ids: &[String]) -> Result<(), Error> {
        let mut ack = command("XACK", &[&self.stream[..], GROUP.as_bytes()]);
        ack.arg(ids);
        self.call(&ack).await.map(|_| ())
    }

    /// Puts a message aside, and has it done with.
    pub(super) async fn reject(&self, message: &Message, reason: &str, max: usize) -> Result<(), Error> {
        let mut add = command("XADD", &[&self.rejected[..], b"MAXLEN", b"~"]);
        add.arg(max).arg("*").arg("message").arg(&message.id).arg("reason").arg(reason);
        let mut room = KEPT_BYTES_MAX;
        for (name, value) in message.fields.iter().flatten() {
            let Some(left) = room.checked_sub(name.len() + value.len()) else { break };
            room = left;
            add.arg(name).arg(value);
        }
        let ack = command("XACK", &[&self.stream[..], GROUP.as_bytes(), message.id.as_bytes()]);
        let mut both = Pipeline::new();
        both.add_command(add).add_command(ack);
        let answers = self.kv.pipeline(Class::Control, WITHIN, &self.stream, &both).await?;
        answers.into_iter().try_for_each(|answer| value::checked(answer).map(|_| ()))
    }

    /// Removes what nobody needs any more. How many messages are held by consumers.
    pub(super) async fn tidy(&self, config: &Config) -> Result<u64, Error> {
        let (max, gone) = (config.stream_max.to_string(), GONE_AFTER.as_millis().to_string());
        let args = [GROUP.as_bytes(), max.as_bytes(), gone.as_bytes()];
        let held = self.kv.run(Class::Control, WITHIN, &scripts::TIDY, &[&self.stream], &args).await?;
        Ok(u64::try_from(value::int(&held)?).unwrap_or_default())
    }

    /// Takes this consumer out of the group, if it holds nothing. Where it does, others will claim it.
    pub(super) async fn leave(&self) -> Result<(), Error> {
        let args = [GROUP.as_bytes(), self.consumer.as_bytes()];
        let within = Duration::from_millis(500);
        self.kv.run(Class::Control, within, &scripts::LEAVE, &[&self.stream], &args).await.map(|_| ())
    }

    async fn call(&self, command: &Cmd) -> Result<Value, Error> {
        self.kv.call(Class::Control, WITHIN, &self.stream, command).await
    }
}

fn command(name: &str, parts: &[&[u8]]) -> Cmd {
    let mut command = Cmd::new();
    command.arg(name).arg(parts);
    command
}

fn messages(answer: Value) -> Result<Vec<Message>, Error> {
    Ok(value::array(answer)?.into_iter().filter_map(Message::read).collect())
}
