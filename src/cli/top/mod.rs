//! `larder top`: what a running gateway is doing, live.
//!
//! Rates and ratios are those between two looks. The screen is drawn with a few control sequences, on the terminal's
//! other screen, which goes again at the end.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    admin_client::{AdminClient, Error},
    args::Top,
};

mod latency;
mod view;

use latency::Latency;

/// Requests that failed lately, as many as are shown.
const FAILED: &str = "/requests?outcome=error&limit=8";
/// Lines where the terminal does not say how many it has.
const SIZE: (usize, usize) = (100, 40);

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// What was found at one look.
struct Sample {
    at: Instant,
    stats: Value,
    latency: Latency,
    failed: Vec<Value>,
}

/// Shows figures until Ctrl-C; with `--once`, those of one interval.
pub async fn run(args: Top) -> Result<(), Error> {
    let client = AdminClient::new(&args.client)?;
    let before = look(&client).await?;
    if args.once || !io::stdout().is_terminal() {
        tokio::time::sleep(args.interval).await;
        print!("{}", view::screen(&client.to_string(), &before, &look(&client).await?, (SIZE.0, usize::MAX)));
        return Ok(());
    }
    print(ENTER);
    let ended = tokio::select! {
        ended = redraw(&client, before, args.interval) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    print(LEAVE);
    ended
}

/// Draws again and again. A gateway that goes is waited for, unless it refuses.
async fn redraw(client: &AdminClient, mut before: Sample, interval: Duration) -> Result<(), Error> {
    loop {
        tokio::time::sleep(interval).await;
        let size = size();
        match look(client).await {
            Ok(now) => {
                draw(&view::screen(&client.to_string(), &before, &now, size), size);
                before = now;
            }
            Err(error) if error.is_refusal() => return Err(error),
            Err(error) => draw(&format!("{error}\n\nwaiting for it to return\n"), size),
        }
    }
}

async fn look(client: &AdminClient) -> Result<Sample, Error> {
    let stats = client.get("/stats").await?;
    let metrics = client.text(Method::GET, "/metrics", Bytes::new()).await?;
    let mut failed: Value = client.get(FAILED).await?;
    let failed = failed["requests"].as_array_mut().map(std::mem::take).unwrap_or_default();
    Ok(Sample { at: Instant::now(), stats, latency: Latency::of(&metrics), failed })
}

fn draw(screen: &str, (width, height): (usize, usize)) {
    let mut text = String::from("\x1b[H");
    for line in screen.lines().take(height.saturating_sub(1)) {
        text.extend(line.chars().take(width));
        text.push_str("\x1b[K\r\n");
    }
    text.push_str("\x1b[J");
    print(&text);
}

fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => SIZE,
    }
}

/// A terminal that has gone takes the process with it.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
