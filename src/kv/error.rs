//! Why a call to Redis has no answer.

use redis::{ErrorKind, RedisError};

/// See the variants; none of them is ever the fault of a client of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no connection to the node; nothing was sent.
    #[error("no connection to Redis")]
    Unconnected,
    /// There was no answer within the call's time.
    #[error("Redis did not answer in time")]
    Timeout,
    /// The node did not answer several calls in a row and is left alone for a moment; nothing was sent.
    #[error("Redis did not answer the last calls in time, and is left alone")]
    Open,
    /// Too many calls are under way; nothing was sent.
    #[error("too many calls to Redis are under way")]
    Busy,
    /// The key's slot is on the move, and was not found where it was said to be.
    #[error("the slot is not where Redis said it is")]
    Moved,
    /// Redis refused.
    #[error("Redis answered {code} {message}")]
    Server {
        /// The first word of its answer, such as `READONLY`.
        code: String,
        /// The rest.
        message: String,
    },
    /// The connection broke, or could not be made.
    #[error("connection to Redis: {0}")]
    Io(String),
    /// What came cannot be read, or is not what was asked for.
    #[error("answer of Redis: {0}")]
    Protocol(String),
}

impl Error {
    /// Its name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unconnected => "unconnected",
            Self::Timeout => "timeout",
            Self::Open => "open",
            Self::Busy => "busy",
            Self::Moved => "moved",
            Self::Server { .. } => "server",
            Self::Io(_) => "io",
            Self::Protocol(_) => "protocol",
        }
    }

    /// Whether it is an answer: the call arrived and was refused.
    pub fn is_server(&self) -> bool {
        matches!(self, Self::Server { .. })
    }

    /// The code of what Redis answered, if it did.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether certainly nothing was sent.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Unconnected | Self::Open | Self::Busy)
    }

    /// Whether the node is not, or not any more, one that takes this call: who is asked about it should say who is.
    pub(super) fn is_elsewhere(&self) -> bool {
        let codes = ["CLUSTERDOWN", "LOADING", "READONLY", "TRYAGAIN", "MASTERDOWN", "UNBLOCKED", "MOVED", "ASK"];
        self.code().is_some_and(|code| codes.contains(&code))
    }

    pub(super) fn of_server(error: &redis::ServerError) -> Self {
        Self::Server { code: error.code().to_owned(), message: error.details().unwrap_or_default().to_owned() }
    }
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        match redis::ServerError::try_from(error) {
            Ok(answered) => Self::of_server(&answered),
            Err(error) => match error.kind() {
                ErrorKind::Io => Self::Io(error.to_string()),
                _ => Self::Protocol(error.to_string()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_says_keeps_its_code() {
        let value = redis::parse_redis_value(b"-READONLY You can't write\r\n").expect("a value");
        let redis::Value::ServerError(error) = value else { panic!("{value:?}") };
        let error = Error::of_server(&error);
        assert_eq!((error.code(), error.name(), error.is_server()), (Some("READONLY"), "server", true));
        assert!(error.is_elsewhere() && !error.is_unsent());
    }

    #[test]
    fn a_broken_connection_is_told_from_garbage() {
        let broken = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(Error::from(broken).name(), "io");
        let garbage = redis::parse_redis_value(b"?\r\n").expect_err("garbage");
        assert_eq!(Error::from(garbage).name(), "protocol");
    }
}
