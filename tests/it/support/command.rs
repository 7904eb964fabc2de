//! The commands of the binary, run to their end.

use std::{
    ffi::OsStr,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::within;

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Its output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// It ended with that code, and said so much on one of the streams.
    #[track_caller]
    pub(crate) fn assert(&self, code: i32, said: &str) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stdout.contains(said) || self.stderr.contains(said), "not {said:?}: {self:?}");
        self
    }
}

/// Runs `larder` with these arguments and without variables of its own, not on a terminal.
pub(crate) async fn larder<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LARDER_")) {
        command.env_remove(name);
    }
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
    let endless = Endless(Pid::from_child(&child));
    let run = tokio::task::spawn_blocking(move || child.wait_with_output().expect("its output"));
    let output = within("a command to end", run).await.expect("no panic");
    std::mem::forget(endless);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A command that does not end by itself ends with the test that waits for it, which could not end either.
struct Endless(Pid);

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}
