//! Forwarding fields: what a proxy tells of the request it got, as `X-Forwarded-*` and as `Forwarded` (RFC 7239).
//!
//! Some of it is the client's address. The rest says which URL the client asked for, and origins make links of it.

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

use super::{fields, key::KeyBuilder};

/// Addresses of the client and of the proxies on the way.
pub const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Scheme the client used.
pub const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `Host` the client sent.
pub const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Port the client used.
pub const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Adds to a key what these fields say of the URL; without the host, where the origin does not get to see it.
pub fn add_to_key(key: &mut KeyBuilder, request: &HeaderMap, with_host: bool) {
    key.field(b"forwarded");
    for name in [PROTO, PORT] {
        key.optional(fields::combined(request, &name).as_deref());
    }
    key.optional(if with_host { fields::combined(request, &HOST) } else { None }.as_deref());
    for line in request.get_all(FORWARDED) {
        for (pair, end) in pairs(line) {
            if !is_named(pair, b"for=") && !is_named(pair, b"by=") && (with_host || !is_named(pair, b"host=")) {
                key.optional(Some(pair.trim_ascii()));
            }
            if end == Some(b',') {
                key.optional(Some(b","));
            }
        }
        key.optional(Some(b","));
    }
    key.optional(None);
}

/// A line of `Forwarded` without its `host` parameters; `None` if nothing is left.
pub fn without_host(line: &HeaderValue) -> Option<HeaderValue> {
    let mut kept: Vec<u8> = Vec::with_capacity(line.len());
    for (pair, end) in pairs(line) {
        let is_host = is_named(pair, b"host=");
        if !is_host {
            kept.extend_from_slice(pair);
        }
        // A separator stays only between what stays: `a;host=b` is `a`, and elements stay apart.
        match end {
            Some(b',') => trimmed(&mut kept).push(b','),
            Some(b';') if !is_host => kept.push(b';'),
            _ => {}
        }
    }
    trimmed(&mut kept);
    HeaderValue::from_bytes(&kept).ok().filter(|line| !line.is_empty())
}

/// The pairs of a line of `Forwarded`, each with the `;` or `,` behind it.
fn pairs(line: &HeaderValue) -> impl Iterator<Item = (&[u8], Option<u8>)> {
    let mut rest = line.as_bytes();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = pair_end(rest);
        let found = (&rest[..end], rest.get(end).copied());
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(found)
    })
}

fn is_named(pair: &[u8], name: &[u8]) -> bool {
    pair.trim_ascii_start().get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

fn trimmed(list: &mut Vec<u8>) -> &mut Vec<u8> {
    while list.last().is_some_and(|byte| matches!(byte, b';' | b' ')) {
        list.pop();
    }
    list
}

/// Where the first `;` or `,` outside quotes is, or the end.
fn pair_end(text: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (place, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' | b',' if !quoted => return place,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{fields::tests::map, key::Key},
        *,
    };

    fn key(with_host: bool, lines: &[(&'static str, &str)]) -> Key {
        let mut key = KeyBuilder::new("test");
        add_to_key(&mut key, &map(lines), with_host);
        key.finish()
    }

    #[test]
    fn keys_hold_the_url_and_not_the_client() {
        let one = |name, value| key(true, &[(name, value)]);
        assert_ne!(one("x-forwarded-proto", "https"), one("x-forwarded-proto", "http"));
        assert_ne!(one("x-forwarded-port", "443"), one("x-forwarded-proto", "443"));
        assert_ne!(one("x-forwarded-host", "a"), one("x-forwarded-host", "b"));
        assert_eq!(one("x-forwarded-for", "192.0.2.1"), one("x-forwarded-for", "192.0.2.2"));
        assert_eq!(one("forwarded", "for=a;proto=http"), one("forwarded", "For=\"b,c\"; proto=http;by=d"));
        assert_ne!(one("forwarded", "for=a;proto=http"), one("forwarded", "for=a;proto=https"));
        assert_ne!(one("forwarded", "for=a;proto=http"), one("forwarded", "for=a, for=b;proto=http"));
        assert_ne!(one("forwarded", "host=a"), one("forwarded", "host=b"));
    }

    #[test]
    fn a_host_that_stays_here_is_not_in_the_key() {
        let one = |name, value| key(false, &[(name, value)]);
        assert_eq!(one("x-forwarded-host", "a"), one("x-forwarded-host", "b"));
        assert_eq!(one("forwarded", "host=a;proto=http"), one("forwarded", "Host=b;proto=http"));
        assert_ne!(one("forwarded", "proto=https"), one("forwarded", "proto=http"));
    }

    #[test]
    fn hosts_are_taken_out() {
        let without = |line: &str| without_host(&line.parse().expect("a value"));
        assert_eq!(without("host=evil"), None);
        let line = "for=a;Host=\"e;v,il\";proto=http, for=b; host=evil";
        assert_eq!(without(line).expect("the rest"), "for=a;proto=http, for=b");
    }
}
