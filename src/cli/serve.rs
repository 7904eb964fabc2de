//! `larder serve`: the gateway, until it is told to stop.

use std::{io::Write, process::ExitCode};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    app::{self, Running, Source},
    config::{self, Config, Sources},
    telemetry::{self, Logs},
    tls,
};

/// What a command ends with when the gateway cannot start (`EX_UNAVAILABLE` of sysexits.h).
const UNAVAILABLE: u8 = 69;

/// Runs the gateway on the settings of `sources`.
pub(super) fn run(sources: &Sources) -> ExitCode {
    let config = match config::load(sources) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(config::EXIT_CODE);
        }
    };
    let (log, logs) = match telemetry::init(&config.log) {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("larder: {error}");
            return ExitCode::from(config::EXIT_CODE);
        }
    };
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    // For operators and background work; clients are served by threads of their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("larder: cannot start: {error}");
            return ExitCode::from(UNAVAILABLE);
        }
    };
    let again = sources.clone();
    let source = Source { read: Box::new(move || config::load(&again)), log: Some(log) };
    let code = runtime.block_on(serve(&config, logs.clone(), source));
    logs.flush();
    code
}

async fn serve(config: &Config, logs: Logs, source: Source) -> ExitCode {
    let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(mut terminated), Ok(mut interrupted), Ok(mut hung_up)] = signals else {
        eprintln!("larder: cannot listen for signals");
        return ExitCode::from(UNAVAILABLE);
    };
    let running = match app::start(config, logs, Some(source)).await {
        Ok(running) => running,
        Err(error) => {
            eprintln!("larder: {error}");
            return ExitCode::from(UNAVAILABLE);
        }
    };
    announce(&running, config);
    loop {
        tokio::select! {
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
            _ = hung_up.recv() => running.reload(),
        }
    }
    tracing::info!("stopping: requests under way may finish");
    running.stop().await;
    ExitCode::SUCCESS
}

/// Says what it listens on, and two lines to try.
fn announce(running: &Running, config: &Config) {
    let (data, admin) = (running.data, running.admin);
    let version = env!("CARGO_PKG_VERSION");
    let scheme = |tls: &tls::Config| if tls.is_on() { "https" } else { "http" };
    let (data, admin) =
        (format!("{}://{data}", scheme(&config.listen.tls)), format!("{}://{admin}", scheme(&config.admin.tls)));
    let mut text = format!("larder {version}\ndata listening on {data}\nadmin listening on {admin}\n");
    text.push_str(&match config.routes().first() {
        None => format!(
            "no routes: a forward proxy for loopback clients; --upstream URL makes it a reverse proxy\n\
             try: curl -x {data} -sSD- -o /dev/null http://example.com/   (twice: the second comes from memory)\n"
        ),
        Some(first) => {
            let path = first.route.path.as_deref().unwrap_or("/");
            format!("try: curl -sSD- -o /dev/null {data}{path}   (twice: see Cache-Status)\n")
        }
    });
    text.push_str(&format!("     curl -s {admin}/stats\n"));
    // Nobody to read it is no reason not to serve.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
