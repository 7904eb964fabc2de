//! Scripts that run in Redis: sent once in full where the server does not know them, by their digest from then on.

use std::sync::OnceLock;

use aws_lc_rs::digest;
use redis::Cmd;

/// A script; one `static` each.
#[derive(Debug)]
pub struct Script {
    code: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    /// Of that code, in Lua.
    pub const fn new(code: &'static str) -> Self {
        Self { code, digest: OnceLock::new() }
    }

    /// Runs it by its digest.
    pub(super) fn short(&self, keys: &[&[u8]], args: &[&[u8]]) -> Cmd {
        command("EVALSHA", self.digest(), keys, args)
    }

    /// Runs it, and has the server keep it. `SCRIPT LOAD` would be one more thing to go wrong.
    pub(super) fn whole(&self, keys: &[&[u8]], args: &[&[u8]]) -> Cmd {
        command("EVAL", self.code, keys, args)
    }

    fn digest(&self) -> &str {
        self.digest.get_or_init(|| {
            // Redis names scripts so; nothing depends on it being hard to forge.
            let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, self.code.as_bytes());
            digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}

fn command(name: &str, script: &str, keys: &[&[u8]], args: &[&[u8]]) -> Cmd {
    let size = keys.iter().chain(args).map(|arg| arg.len()).sum::<usize>();
    let mut command = Cmd::with_capacity(3 + keys.len() + args.len(), size + script.len() + 16);
    command.arg(name).arg(script).arg(keys.len());
    for arg in keys.iter().chain(args) {
        command.arg(*arg);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_digest_and_in_full() {
        static SCRIPT: Script = Script::new("return 1");
        assert_eq!(SCRIPT.digest(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        let packed = SCRIPT.whole(&[b"k"], &[b"a", b"b"]).get_packed_command();
        assert_eq!(packed, b"*6\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\na\r\n$1\r\nb\r\n");
        assert!(SCRIPT.short(&[], &[]).get_packed_command().starts_with(b"*3\r\n$7\r\nEVALSHA\r\n$40\r\ne0e1"));
    }
}
