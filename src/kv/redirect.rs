//! `MOVED` and `ASK`: a node of a cluster says who has a slot.

use redis::{Cmd, Pipeline, ServerErrorKind, Value};

use super::{
    slot::SLOTS,
    url::{self, Address},
};

/// Where to go instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot is there now.
    Moved(u16, Address),
    /// The slot is on its way there; this key is there already, or nowhere.
    Ask(Address),
}

impl Redirect {
    /// What `answer`, of the node at `asked`, says of it.
    pub(super) fn of(answer: &Value, asked: &Address) -> Option<Self> {
        let Value::ServerError(error) = answer else { return None };
        let kind = error.kind().filter(|kind| matches!(kind, ServerErrorKind::Moved | ServerErrorKind::Ask))?;
        let (slot, address) = error.details()?.split_once(' ')?;
        let slot = slot.parse().ok().filter(|slot| *slot < SLOTS)?;
        let address = url::announced(address.trim(), asked)?;
        Some(if kind == ServerErrorKind::Moved { Self::Moved(slot, address) } else { Self::Ask(address) })
    }
}

/// `commands`, each with leave to touch a slot that is still arriving.
pub(super) fn asking<'a>(commands: impl Iterator<Item = &'a Cmd>) -> Pipeline {
    let mut pipeline = redis::pipe();
    for command in commands {
        pipeline.cmd("ASKING").add_command(command.clone());
    }
    pipeline
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(line: &str) -> Option<Redirect> {
        let asked = Address { host: "asked".to_owned(), port: 1 };
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).ok()?;
        Redirect::of(&value, &asked)
    }

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn says_where_to() {
        assert_eq!(of("MOVED 3999 127.0.0.1:6381"), Some(Redirect::Moved(3999, at("127.0.0.1", 6381))));
        assert_eq!(of("MOVED 1 :6381"), Some(Redirect::Moved(1, at("asked", 6381))));
        assert_eq!(of("ASK 3999 ::1:6381"), Some(Redirect::Ask(at("::1", 6381))));
        assert_eq!(of("ERR 3999 127.0.0.1:6381"), None);
        assert_eq!(of("MOVED 16384 127.0.0.1:6381"), None);
        assert_eq!(of("MOVED 1"), None);
    }

    proptest! {
        #[test]
        fn prop_garbage_never_panics(rest in "[^\r\n]*") {
            let _ = (of(&format!("MOVED {rest}")), of(&format!("ASK {rest}")), of(&rest));
        }
    }
}
