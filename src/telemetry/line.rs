//! One access line: what it says and how it looks.
//!
//! What a client sent cannot end the line, begin another, or reach a terminal as a control sequence, and credentials
//! in the URL are masked. Long values are cut, so that a line has a largest size.

use std::{
    fmt::Write as _,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use http::Version;

use super::{
    config::Format,
    escape::{Text, escape, escape_json},
    mask, time,
    trace::TraceId,
};

/// Bytes shown of the URL, and of any other value.
const TARGET_MAX: usize = 2048;
const VALUE_MAX: usize = 256;

/// What happened to one request.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// When the request head had been read.
    pub time: SystemTime,
    /// The request's id, from the client or ours.
    pub request_id: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The method.
    pub method: &'a str,
    /// The request target as the client sent it: path and query, or a whole URL. Masked here.
    pub target: &'a str,
    /// The authority asked for.
    pub host: &'a str,
    /// The protocol towards the client.
    pub version: Version,
    /// The status sent.
    pub status: u16,
    /// The route's name.
    pub route: &'a str,
    /// The tenant it is of, where that was asked.
    pub tenant: Option<&'a str>,
    /// What the cache did, in one word.
    pub outcome: &'static str,
    /// More about it: the tier that answered or the reason why none did.
    pub detail: &'a str,
    /// Bytes of the response body sent.
    pub bytes_sent: u64,
    /// Until the response's end.
    pub duration: Duration,
    /// Until its head.
    pub ttfb: Duration,
    /// Time the origin took, if it was asked.
    pub origin: Option<Duration>,
    /// The trace it belongs to.
    pub trace_id: Option<TraceId>,
    /// The client program.
    pub user_agent: Option<&'a str>,
    /// Why it failed, if it did.
    pub error: Option<&'a str>,
    /// What it cost, if it was a call to a model.
    pub cost: Option<Cost<'a>>,
}

/// What a call to a model cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost<'a> {
    /// The model's name.
    pub model: &'a str,
    /// `billed`, or `saved` where the provider was not asked.
    pub account: &'static str,
    /// Tokens of the request.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Their price, where it is known.
    pub dollars: Option<f64>,
}

impl Line<'_> {
    /// Appends the line with its line feed.
    pub(super) fn format(&self, format: Format, out: &mut Vec<u8>) {
        match format {
            Format::Json => self.json(out),
            Format::Pretty => self.pretty(out),
        }
        out.push(b'\n');
    }

    fn json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(&time::rfc3339(self.time));
        out.push(b'"');
        let mut json = Json { out };
        json.text("request_id", self.request_id);
        json.key("client");
        // Writing to a vector cannot fail.
        let _ = write!(Text(json.out), "\"{}\"", self.client);
        json.text("method", self.method);
        json.key("target");
        json.out.push(b'"');
        target(self.target, |piece| escape_json(piece, json.out));
        json.out.push(b'"');
        json.text("host", self.host);
        json.text("version", version(self.version));
        json.number("status", u64::from(self.status));
        json.text("route", self.route);
        if let Some(tenant) = self.tenant {
            json.text("tenant", tenant);
        }
        json.text("outcome", self.outcome);
        json.text("detail", self.detail);
        json.number("bytes_sent", self.bytes_sent);
        json.millis("duration_ms", self.duration);
        json.millis("ttfb_ms", self.ttfb);
        if let Some(origin) = self.origin {
            json.millis("origin_ms", origin);
        }
        if let Some(trace) = &self.trace_id {
            json.key("trace_id");
            let _ = write!(Text(json.out), "\"{trace}\"");
        }
        for (key, value) in [("user_agent", self.user_agent), ("error", self.error)] {
            if let Some(value) = value {
                json.text(key, value);
            }
        }
        if let Some(cost) = &self.cost {
            json.cost(cost);
        }
        out.push(b'}');
    }

    fn pretty(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&time::rfc3339(self.time));
        out.push(b' ');
        left(out, 7, |out| escape(cut(self.method, VALUE_MAX), out));
        integer(u64::from(self.status), out);
        out.push(b' ');
        left(out, 12, |out| out.extend_from_slice(self.outcome.as_bytes()));
        right(out, 10, |out| {
            millis(self.duration, out);
            out.extend_from_slice(b"ms");
        });
        right(out, 10, |out| {
            integer(self.bytes_sent, out);
            out.push(b'B');
        });
        out.push(b' ');
        if self.target.starts_with('/') {
            escape(cut(self.host, VALUE_MAX), out);
        }
        target(self.target, |piece| escape(piece, out));
        self.pretty_rest(out);
    }

    fn pretty_rest(&self, out: &mut Vec<u8>) {
        let named = [("route", self.route), ("tenant", self.tenant.unwrap_or("")), ("detail", self.detail)];
        let optional = [("agent", self.user_agent), ("error", self.error)];
        let _ = write!(Text(out), " client={}", self.client);
        for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
            pair(name, value, out);
        }
        if let Some(origin) = self.origin {
            out.extend_from_slice(b" origin=");
            millis(origin, out);
            out.extend_from_slice(b"ms");
        }
        pair("id", self.request_id, out);
        if let Some(trace) = &self.trace_id {
            let _ = write!(Text(out), " trace={trace}");
        }
        for (name, value) in optional {
            if let Some(value) = value {
                pair(name, value, out);
            }
        }
        if let Some(cost) = &self.cost {
            pair("model", cost.model, out);
            let _ = write!(Text(out), " {}={}+{}", cost.account, cost.input_tokens, cost.output_tokens);
            if let Some(dollars) = cost.dollars {
                let _ = write!(Text(out), " usd={dollars:.8}");
            }
        }
    }
}

/// The members of an object after its first.
struct Json<'a> {
    out: &'a mut Vec<u8>,
}

impl Json<'_> {
    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.out.push(b'"');
        escape_json(cut(value, VALUE_MAX), self.out);
        self.out.push(b'"');
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        integer(value, self.out);
    }

    fn millis(&mut self, key: &str, value: Duration) {
        self.key(key);
        millis(value, self.out);
    }

    fn cost(&mut self, cost: &Cost<'_>) {
        self.text("model", cost.model);
        self.text("account", cost.account);
        self.number("input_tokens", cost.input_tokens);
        self.number("output_tokens", cost.output_tokens);
        if let Some(dollars) = cost.dollars {
            self.key("usd");
            let _ = write!(Text(self.out), "{dollars:.8}");
        }
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// The URL in pieces, masked and cut.
fn target<'a>(target: &'a str, mut write: impl FnMut(&'a str)) {
    let shown = cut(target, TARGET_MAX);
    mask::url(shown, &mut write);
    if shown.len() < target.len() {
        write("...");
    }
}

/// The first `max` bytes or fewer, whole characters.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

fn pair(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    let value = cut(value, VALUE_MAX);
    // Quoted where it would otherwise look like several.
    let quoted = value.is_empty() || value.bytes().any(|byte| matches!(byte, b' ' | b'"' | b'='));
    if quoted {
        out.push(b'"');
    }
    escape(value, out);
    if quoted {
        out.push(b'"');
    }
}

fn integer(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds with three places.
fn millis(value: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    integer(micros / 1000, out);
    let rest = (micros % 1000) as u16;
    let digit = |number: u16| b'0' + (number % 10) as u8;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

/// What `write` appends, filled up to `width` and a space.
fn left(out: &mut Vec<u8>, width: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let end = out.len().max(start + width) + 1;
    out.resize(end, b' ');
}

/// What `write` appends, moved to the right of `width`, with a space before it.
fn right(out: &mut Vec<u8>, width: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let written = out.len() - start;
    let space = width.saturating_sub(written) + 1;
    out.resize(out.len() + space, b' ');
    out[start..].rotate_right(space);
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::{super::escape::is_unsafe, *};

    pub(in crate::telemetry) fn line() -> Line<'static> {
        Line {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            request_id: "r-1",
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            method: "GET",
            target: "/v1/items?page=2&key=hidden",
            host: "api.example",
            version: Version::HTTP_11,
            status: 200,
            route: "api",
            tenant: None,
            outcome: "hit",
            detail: "l1",
            bytes_sent: 1234,
            duration: Duration::from_micros(1067),
            ttfb: Duration::from_micros(900),
            origin: None,
            trace_id: None,
            user_agent: Some("curl/8.5"),
            error: None,
            cost: None,
        }
    }

    fn text(line: Line<'_>, format: Format) -> String {
        let mut out = Vec::new();
        line.format(format, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn as_json() {
        let expected = concat!(
            r#"{"time":"2023-11-14T22:13:20.123Z","request_id":"r-1","client":"192.0.2.1","method":"GET","#,
            r#""target":"/v1/items?page=2&key=***","host":"api.example","version":"HTTP/1.1","status":200,"#,
            r#""route":"api","outcome":"hit","detail":"l1","bytes_sent":1234,"duration_ms":1.067,"ttfb_ms":0.900,"#,
            r#""user_agent":"curl/8.5"}"#,
            "\n"
        );
        assert_eq!(text(line(), Format::Json), expected);
    }

    #[test]
    fn for_people() {
        assert_eq!(
            text(line(), Format::Pretty),
            "2023-11-14T22:13:20.123Z GET     200 hit              1.067ms      1234B \
             api.example/v1/items?page=2&key=*** client=192.0.2.1 route=api detail=l1 id=r-1 agent=curl/8.5\n"
        );
        let failed = Line {
            method: "PROPFIND",
            target: "http://u:p@x.example/",
            origin: Some(Duration::from_secs(2)),
            error: Some("origin: connection refused"),
            ..line()
        };
        let text = text(failed, Format::Pretty);
        assert!(text.contains("PROPFIND 200 hit"), "{text}");
        assert!(text.contains(" http://x.example/ client="), "{text}");
        assert!(
            text.contains(r#" origin=2000.000ms id=r-1 agent=curl/8.5 error="origin: connection refused""#),
            "{text}"
        );
    }

    #[test]
    fn a_tenant_is_told_where_there_is_one() {
        let of = Line { tenant: Some("search"), ..line() };
        assert!(text(of, Format::Json).contains(r#""route":"api","tenant":"search","outcome":"hit""#));
        assert!(text(of, Format::Pretty).contains(" route=api tenant=search detail=l1 "));
    }

    #[test]
    fn nothing_can_forge_a_line() {
        let forged = Line { user_agent: Some("x\r\n2023 GET \u{1b}[2J\u{9b}\u{202e}\" y"), ..line() };
        let pretty = text(forged, Format::Pretty);
        assert!(pretty.ends_with("agent=\"x\\u{d}\\u{a}2023 GET \\u{1b}[2J\\u{9b}\\u{202e}\\\" y\"\n"), "{pretty}");
    }

    #[test]
    fn long_values_are_cut() {
        let long = format!("/{}", "ä".repeat(10_000));
        let json = text(Line { target: &long, user_agent: Some(&long), ..line() }, Format::Json);
        assert!(json.len() < 3000, "{}", json.len());
        serde_json::from_str::<serde_json::Value>(&json).expect("JSON");
    }

    proptest! {
        #[test]
        fn json_is_one_line_and_reads_back(target in any::<String>(), host in any::<String>(), agent in any::<String>(),
                                           status in any::<u16>(), bytes in any::<u64>(), micros in any::<u64>()) {
            let line = Line {
                target: &target, host: &host, user_agent: Some(&agent), status, bytes_sent: bytes,
                duration: Duration::from_micros(micros), ..line()
            };
            let json = text(line, Format::Json);
            prop_assert_eq!(json.matches(['\n', '\r']).count(), 1);
            prop_assert!(!json.trim_end_matches('\n').chars().any(is_unsafe));
            let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            prop_assert_eq!(value["host"].as_str(), Some(cut(&host, VALUE_MAX)));
            prop_assert_eq!(value["user_agent"].as_str(), Some(cut(&agent, VALUE_MAX)));
            prop_assert_eq!(value["status"].as_u64(), Some(u64::from(status)));
            prop_assert_eq!(value["bytes_sent"].as_u64(), Some(bytes));
            prop_assert!(value["duration_ms"].is_number());
        }

        #[test]
        fn pretty_is_one_line(target in any::<String>(), method in any::<String>(), error in any::<String>()) {
            let line = Line { target: &target, method: &method, error: Some(&error), ..line() };
            let pretty = text(line, Format::Pretty);
            prop_assert!(pretty.ends_with('\n'));
            prop_assert!(!pretty.trim_end_matches('\n').chars().any(is_unsafe));
        }
    }
}
