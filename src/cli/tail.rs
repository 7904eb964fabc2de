//! `larder tail`: requests of a running gateway as they end.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde_json::Value;
use url::form_urlencoded;

use super::{
    admin_client::{AdminClient, Error},
    args::Tail,
    events::{Event, Events},
    plain::plain,
};

/// Time before a gateway that is gone is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Shows requests until Ctrl-C, or until nobody reads any more. A gateway that goes is waited for.
pub async fn run(args: Tail) -> Result<(), Error> {
    let client = AdminClient::new(&args.client)?;
    let path = path(&args);
    tokio::select! {
        ended = follow_for_ever(&client, &path, args.json) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn follow_for_ever(client: &AdminClient, path: &str, json: bool) -> Result<(), Error> {
    let mut known = false;
    let mut waiting = false;
    loop {
        match client.events(path).await {
            Ok(events) => {
                if waiting {
                    eprintln!("larder: the gateway is back");
                }
                (known, waiting) = (true, false);
                match follow(events, json).await? {
                    Followed::Gone => {}
                    // The next call is told why.
                    Followed::Refused => continue,
                    Followed::Enough => return Ok(()),
                }
            }
            Err(error) if !known || error.is_refusal() => return Err(error),
            Err(_) => {}
        }
        if !std::mem::replace(&mut waiting, true) {
            eprintln!("larder: the gateway has gone; waiting for it to return");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// How a stream ended.
enum Followed {
    /// The gateway has gone, or the connection.
    Gone,
    /// The token is none any more.
    Refused,
    /// Nobody reads what is shown.
    Enough,
}

/// Shows one stream to its end.
async fn follow(mut events: Events, json: bool) -> Result<Followed, Error> {
    while let Some(event) = events.next().await {
        let written = match event {
            Event::Request(line) if json => writeln!(io::stdout(), "{line}"),
            Event::Request(line) => writeln!(io::stdout(), "{}", shown(&line)),
            Event::Dropped(number) => {
                eprintln!("larder: {number} requests were too many to show");
                Ok(())
            }
            Event::End => return Ok(Followed::Gone),
            Event::Refused => return Ok(Followed::Refused),
        };
        if written.is_err() {
            return Ok(Followed::Enough);
        }
    }
    Ok(Followed::Gone)
}

fn path(args: &Tail) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let given = [("outcome", &args.outcome), ("route", &args.route), ("tenant", &args.tenant)];
    for (name, value) in given.into_iter().chain([("status", &args.status), ("path", &args.path)]) {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("/requests/stream?{}", query.finish())
}

/// One request in one line.
pub(super) fn shown(line: &str) -> String {
    let request: Value = serde_json::from_str(line).unwrap_or_default();
    let text = |field: &str| plain(request[field].as_str().unwrap_or_default());
    let time = text("time");
    let clock = time.split_once('T').map_or(&*time, |(_, clock)| clock.trim_end_matches('Z'));
    let detail = text("detail");
    let outcome = if detail.is_empty() { text("outcome") } else { format!("{} ({detail})", text("outcome")) };
    let tenant = text("tenant");
    let place = if tenant.is_empty() { text("route") } else { format!("{} {tenant}", text("route")) };
    let bytes = bytesize::ByteSize::b(request["bytes_sent"].as_u64().unwrap_or_default());
    let mut shown = format!(
        "{clock:<12}  {}  {outcome:<22}  {:>9.1} ms  {:>9}  {:<4} {}{}  [{}]",
        request["status"].as_u64().unwrap_or_default(),
        request["duration_ms"].as_f64().unwrap_or_default(),
        bytes.to_string(),
        text("method"),
        text("host"),
        text("target"),
        place,
    );
    let error = text("error");
    if !error.is_empty() {
        shown.push_str(&format!("  {error}"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_in_one_line() {
        let line = r#"{"time":"2026-01-02T03:04:05.678Z","method":"GET","target":"/a?b=1","host":"shop","status":200,
            "route":"web","outcome":"hit","detail":"L1","bytes_sent":2048,"duration_ms":0.25}"#;
        let expected = "03:04:05.678  200  hit (L1)                      0.2 ms    2.0 KiB  GET  shop/a?b=1  [web]";
        assert_eq!(shown(line), expected);
    }

    #[test]
    fn a_terminal_gets_no_commands() {
        let line = "{\"target\":\"/\\u001b[2J\\u009b1m\",\"error\":\"a\\nb\"}";
        let shown = shown(line);
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}
