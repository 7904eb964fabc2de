//! The command line: what can be said on it, and what each command does.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use tokio::runtime::Runtime;

pub mod admin_client;
pub mod args;
pub mod ca;
mod ca_hint;
pub mod check;
pub mod demo;
mod demo_origin;
pub mod disk;
mod events;
pub mod explain;
pub mod export;
pub mod health;
pub mod import;
pub mod key;
mod listing;
pub mod log_level;
pub mod man;
pub mod nodes;
mod plain;
mod progress;
pub mod purge;
pub mod reload;
mod serve;
pub mod stats;
pub mod tail;
mod target;
pub mod top;
pub mod warm;

use args::{Cli, Command};

/// Runs the command of this process.
pub fn run() -> ExitCode {
    match Cli::parse().into_command() {
        Command::Serve(serve) => serve::run(&serve.sources()),
        Command::Check(check) => code(check::run(&check.sources(), &mut io::stdout(), &mut io::stderr())),
        Command::Completions { shell } => written(&man::completions(shell)),
        Command::Man(args) => match man::run(&args) {
            Ok(page) => written(&page),
            Err(error) => failed(&error),
        },
        Command::Key(args) => match key::run(&args) {
            Ok(text) => written(text.as_bytes()),
            Err(error) => failed(&error),
        },
        Command::Health(args) => finish(health::run(args)),
        Command::Purge(args) => finish(purge::run(args)),
        Command::Warm(args) => finish(warm::run(args)),
        Command::Export(args) => end(export::run(args)),
        Command::Import(args) => end(import::run(args)),
        Command::Explain(args) => finish(explain::run(args)),
        Command::Stats(args) => finish(stats::run(args)),
        Command::Top(args) => finish(top::run(args)),
        Command::Tail(args) => finish(tail::run(args)),
        Command::Reload(args) => finish(reload::run(args)),
        Command::LogLevel(args) => finish(log_level::run(args)),
        Command::Nodes(args) => finish(nodes::run(args)),
        Command::Disk(args) => end(disk::run(args)),
        Command::Ca(args) => match ca::run(&args) {
            Ok(code) => ExitCode::from(code),
            Err(error) => failed(&error),
        },
        Command::Demo(args) => finish(demo::run(args.keep)),
    }
}

/// Runs a command to its end, and tells what went wrong, down to the first cause.
fn finish<E: Error + 'static>(command: impl Future<Output = Result<(), E>>) -> ExitCode {
    end(async { command.await.map(|()| 0) })
}

/// As [`finish`], for a command that says what to end with.
fn end<E: Error + 'static>(command: impl Future<Output = Result<u8, E>>) -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let ended = runtime.block_on(command);
    // Nobody waits for a read of the standard input that nobody wants any more.
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn Error) -> ExitCode {
    let mut text = format!("larder: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    // A gateway, or a file, may have had a word in it.
    eprintln!("{}", plain::plain_lines(&text));
    ExitCode::FAILURE
}

/// Writes what was asked for; a reader that has seen enough, as `head` has, is no failure.
fn written(text: &[u8]) -> ExitCode {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => failed(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// An exit code; a reader that has gone away is no error of ours.
fn code(result: io::Result<u8>) -> ExitCode {
    result.map_or(ExitCode::FAILURE, ExitCode::from)
}
