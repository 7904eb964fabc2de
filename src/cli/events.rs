//! The events of `/requests/stream`, as they come.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// Longest event: far above what the gateway writes of a request.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// What comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A request, as JSON in one line.
    Request(String),
    /// So many did not fit.
    Dropped(u64),
    /// The gateway stops.
    End,
    /// The token has expired, or is no longer one.
    Refused,
}

/// A stream of events.
pub(super) struct Events {
    body: Incoming,
    parser: Parser,
}

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, parser: Parser::default() }
    }

    /// The next one; `None` when the stream has ended or broken off.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.next() {
                return Some(event);
            }
            let frame = self.body.frame().await?.ok()?;
            let data = frame.into_data().ok()?;
            if self.parser.rest.len() + data.len() > EVENT_BYTES_MAX {
                return None;
            }
            self.parser.rest.extend_from_slice(&data);
        }
    }
}

#[derive(Default)]
struct Parser {
    rest: BytesMut,
}

impl Parser {
    /// The next event that is here in full. Signs of life and what is not known are left out.
    fn next(&mut self) -> Option<Event> {
        loop {
            let end = self.rest.windows(2).position(|pair| pair == b"\n\n")?;
            let text = String::from_utf8_lossy(&self.rest[..end]).into_owned();
            self.rest.advance(end + 2);
            if let Some(event) = event(&text) {
                return Some(event);
            }
        }
    }
}

fn event(text: &str) -> Option<Event> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
    let data = field("data:")?;
    match field("event:") {
        None => Some(Event::Request(data.to_owned())),
        Some("dropped") => {
            let told: serde_json::Value = serde_json::from_str(data).ok()?;
            told["dropped"].as_u64().map(Event::Dropped)
        }
        Some("end") => Some(Event::End),
        Some("refused") => Some(Event::Refused),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_any_pieces() {
        let text = ": hello\n\nid: 1\ndata: {\"a\":1}\n\n:\n\nevent: dropped\ndata: {\"dropped\":7}\n\nevent: new\ndata: x\n\n\
                    event: end\ndata: {}\n\nevent: refused\ndata: {}\n\n";
        for size in [1, 3, 1000] {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                parser.rest.extend_from_slice(piece);
                events.extend(std::iter::from_fn(|| parser.next()));
            }
            let request = Event::Request("{\"a\":1}".to_owned());
            assert_eq!(events, [request, Event::Dropped(7), Event::End, Event::Refused], "{size}");
        }
    }
}
