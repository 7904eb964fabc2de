//! Where the URLs of a job come from: lists, and access logs.
//!
//! Logs are read leniently: a line that is not understood is counted and left out. Common and Combined log format are
//! understood, and JSON lines, Larder's own among them.

use std::collections::HashMap;

use serde_json::Value;
use url::Url;

/// What a log came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FromLog {
    /// URLs, most frequent first; among equals, the first seen first.
    pub urls: Vec<String>,
    /// Lines that count: GET or HEAD, answered with 2xx or 3xx.
    pub lines: usize,
    /// Lines left out for another method or status.
    pub others: usize,
    /// Lines that were not understood, or that name a path where no base is given.
    pub not_understood: usize,
}

/// The URLs of a list: one a line; empty lines and those that begin with `#` are left out.
pub fn url_list(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The URLs of an access log. Lines that name only a path are taken to be of `base`.
pub fn access_log(text: &str, base: Option<&Url>) -> FromLog {
    let mut found = FromLog::default();
    let mut counts: HashMap<String, (usize, usize)> = HashMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match Request::of(line).map(|request| (request.counts(), request.url(base))) {
            Some((true, Some(url))) => {
                let first_seen = found.lines;
                found.lines += 1;
                counts.entry(url).or_insert((0, first_seen)).0 += 1;
            }
            Some((false, _)) => found.others += 1,
            Some((true, None)) | None => found.not_understood += 1,
        }
    }
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_unstable_by_key(|(_, (count, first_seen))| (std::cmp::Reverse(*count), *first_seen));
    found.urls = ranked.into_iter().map(|(url, _)| url).collect();
    found
}

/// One line of a log.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: String,
    /// An absolute URL, or a path with its query.
    target: String,
    status: u16,
}

impl Request {
    fn of(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with('{') { Self::of_json(line) } else { Self::of_common(line) }
    }

    /// `host - - [date] "GET /path HTTP/1.1" 200 123 ...`, whatever stands before the first quote.
    fn of_common(line: &str) -> Option<Self> {
        let (_, quoted) = line.split_once('"')?;
        let end = closing_quote(quoted)?;
        let mut words = quoted[..end].split_ascii_whitespace();
        let (method, target) = (words.next()?, words.next()?);
        let status = quoted[end + 1..].split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self { method: method.to_owned(), target: target.replace("\\\"", "%22"), status })
    }

    fn of_json(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        // Log formats of some services keep the request in an object of its own.
        let request = line.get("request").filter(|request| request.is_object()).unwrap_or(&line);
        let text = |names: &[&str]| names.iter().find_map(|name| request.get(*name)?.as_str());
        let status = ["status", "status_code"].iter().find_map(|name| number(line.get(*name)?))?;
        let method = text(&["method", "request_method"])?.to_owned();
        let target = text(&["url", "uri", "request_uri", "target", "path"])?;
        let host = text(&["host", "authority"]).filter(|_| target.starts_with('/'));
        let target = match host {
            Some(host) => format!("{}://{host}{target}", text(&["scheme"]).unwrap_or("http")),
            None => target.to_owned(),
        };
        Some(Self { method, target, status })
    }

    /// Whether it says what clients read.
    fn counts(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD") && matches!(self.status, 200..=399)
    }

    fn url(&self, base: Option<&Url>) -> Option<String> {
        let url = if self.target.starts_with('/') {
            // Joined by hand: to `Url::join`, `//host/` would be another host.
            let base = base?;
            Url::parse(&format!("{}{}", base.origin().ascii_serialization(), self.target)).ok()?
        } else {
            Url::parse(&self.target).ok()?
        };
        is_http(&url).then(|| without_fragment(url).into())
    }
}

/// Whether it is one the gateway could fetch.
pub fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

fn without_fragment(mut url: Url) -> Url {
    url.set_fragment(None);
    url
}

fn closing_quote(quoted: &str) -> Option<usize> {
    let mut escaped = false;
    quoted.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// A number, or a number written as text.
fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Number(number) => number.as_u64()?.try_into().ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base() -> Url {
        Url::parse("https://shop.example:8443/ignored").expect("a URL")
    }

    #[test]
    fn a_list_has_comments_and_blanks() {
        let list = "\n# first\nhttp://a/1\r\n   http://a/2  \n\n";
        assert_eq!(url_list(list).collect::<Vec<_>>(), ["http://a/1", "http://a/2"]);
    }

    #[test]
    fn common_and_combined_lines() {
        let log = r#"
127.0.0.1 - - [21/Nov/2026:10:00:00 +0000] "GET /once HTTP/1.1" 200 12
127.0.0.1 - bob [21/Nov/2026:10:00:00 +0000] "GET /twice?a=1 HTTP/1.1" 200 12 "http://r/" "curl \"x\""
shop.example:80 127.0.0.1 - - [21/Nov/2026:10:00:00 +0000] "HEAD /twice?a=1 HTTP/2.0" 304 0
127.0.0.1 - - [21/Nov/2026:10:00:00 +0000] "POST /form HTTP/1.1" 200 1
127.0.0.1 - - [21/Nov/2026:10:00:00 +0000] "GET /missing HTTP/1.1" 404 1
127.0.0.1 - - [21/Nov/2026:10:00:00 +0000] "-" 400 0
127.0.0.1 - - [21/Nov/2026:10:00:00 +0000] "GET //evil.example/a HTTP/1.1" 200 1
127.0.0.1 - - [21/Nov/2026:10:00:00 +0000] "GET http://other.example/x#y HTTP/1.1" 200 1
garbage
"#;
        let found = access_log(log, Some(&base()));
        let expected = [
            "https://shop.example:8443/twice?a=1",
            "https://shop.example:8443/once",
            "https://shop.example:8443//evil.example/a",
            "http://other.example/x",
        ];
        assert_eq!(found.urls, expected);
        assert_eq!((found.lines, found.others, found.not_understood), (5, 2, 2));
    }

    #[test]
    fn a_path_without_base_is_not_understood() {
        let found = access_log(r#"- "GET /a HTTP/1.1" 200 1"#, None);
        assert_eq!(found, FromLog { not_understood: 1, ..FromLog::default() });
    }

    #[test]
    fn json_lines() {
        let log = r#"
{"method":"GET","url":"http://a.example/1","status":200,"cache":"hit"}
{"method":"GET","host":"b.example","path":"/2","status":200}
{"request":{"method":"GET","scheme":"https","host":"c.example","uri":"/3"},"status":"301"}
{"method":"GET","path":"/4","status":204}
{"method":"DELETE","url":"http://a.example/1","status":204}
{"level":"info","message":"started"}
{"method":"GET","url":"ftp://a.example/1","status":200}
{broken
"#;
        let found = access_log(log, Some(&base()));
        let expected =
            ["http://a.example/1", "http://b.example/2", "https://c.example/3", "https://shop.example:8443/4"];
        assert_eq!(found.urls, expected);
        assert_eq!((found.lines, found.others, found.not_understood), (4, 1, 3));
    }

    proptest! {
        #[test]
        fn no_log_makes_it_panic(log in "(?s).*", quoted in "[a-z\"\\\\ /{}:é]*") {
            let _ = access_log(&log, Some(&base()));
            let line = format!("1.1.1.1 - - \"{quoted}\" 200 1");
            let _ = access_log(&line, Some(&base()));
        }

        #[test]
        fn what_a_line_names_is_found(path in "/[a-zA-Z0-9/_-]{0,40}", status in 200_u16..400) {
            let line = format!("1.1.1.1 - - [x] \"GET {path} HTTP/1.1\" {status} 1");
            let found = access_log(&line, Some(&Url::parse("http://a.example").expect("a URL")));
            prop_assert_eq!(found.urls, vec![format!("http://a.example{path}")]);
        }
    }
}
