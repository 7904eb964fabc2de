//! The command line: what can be said on it, and what each command does.

use std::{io, process::ExitCode};

use clap::{CommandFactory, Parser};

pub mod args;
pub mod check;
mod serve;

use args::{Cli, Command};

/// Runs the command of this process.
pub fn run() -> ExitCode {
    match Cli::parse().into_command() {
        Command::Serve(serve) => serve::run(&serve.sources()),
        Command::Check(check) => code(check::run(&check.sources(), &mut io::stdout(), &mut io::stderr())),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "larder", &mut io::stdout());
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

/// An exit code; a reader that has gone away is no error of ours.
fn code(result: io::Result<u8>) -> ExitCode {
    result.map_or(ExitCode::FAILURE, ExitCode::from)
}
