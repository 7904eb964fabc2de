//! A load generator for what wrk and h2load cannot do; one thread, HTTP/1.1, one JSON object on standard output.
//!
//! In URLs `{}` stands for a number: another one for each request. Latencies are in microseconds.

mod chunked;
mod client;
mod gauge;
mod histogram;
mod idle;
mod keys;
mod open;
mod slow;
mod sse;
mod stampede;

use std::error::Error;

use clap::{Parser, Subcommand};

use crate::client::Target;

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Requests at a fixed rate whatever the server does; latency from the moment each one was due
    Open(open::Options),
    /// Every key once, in order: fills a cache
    Fill(keys::Fill),
    /// Keys by Zipf's law, over and over, as fast as they are answered
    Zipf(keys::Zipf),
    /// Many clients ask for one thing at the same moment
    Stampede(stampede::Options),
    /// Many event streams; events are the time they were made, in nanoseconds since 1970
    Sse(sse::Options),
    /// Many clients that read slowly
    Slow(slow::Options),
    /// Many kept-alive connections, few of which ask for anything
    Idle(idle::Options),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let result = tokio::task::LocalSet::new()
        .run_until(async {
            match Cli::parse().mode {
                Mode::Open(options) => open::run(options).await,
                Mode::Fill(options) => keys::fill(options).await,
                Mode::Zipf(options) => keys::zipf(options).await,
                Mode::Stampede(options) => stampede::run(options).await,
                Mode::Sse(options) => sse::run(options).await,
                Mode::Slow(options) => slow::run(options).await,
                Mode::Idle(options) => idle::run(options).await,
            }
        })
        .await?;
    println!("{result}");
    Ok(())
}

/// What a URL on the command line is taken for.
fn target(url: &str) -> Result<Target, String> {
    Target::parse(url).ok_or_else(|| format!("{url} is not of the form http://IP:PORT/PATH"))
}
