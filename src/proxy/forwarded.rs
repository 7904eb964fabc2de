//! Telling the origin who the client is: `X-Forwarded-*` and `Forwarded` (RFC 7239).
//!
//! What a client outside the trusted networks says about itself was taken out when the request arrived: an origin that
//! builds links from `X-Forwarded-Host` would otherwise let anyone poison what is stored.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::config::Forwarded;
use crate::object::forwarded::{FOR, HOST, PROTO, without_host};

/// What is told of one request.
pub(super) struct Told<'a> {
    pub(super) address: IpAddr,
    pub(super) scheme: &'static str,
    /// The authority the client named; `None` where the answer must not depend on it, because the key does not.
    pub(super) host: Option<&'a str>,
}

/// Writes the fields into a request that leaves.
pub(super) fn apply(headers: &mut HeaderMap, mode: Forwarded, told: &Told<'_>) {
    if told.host.is_none() {
        // Trusted or not, what is not part of the key must not reach the origin.
        headers.remove(HOST);
        let without = headers.get_all(header::FORWARDED).iter().map(without_host).collect::<Vec<_>>();
        if !without.is_empty() {
            headers.remove(header::FORWARDED);
        }
        for line in without.into_iter().flatten() {
            headers.append(header::FORWARDED, line);
        }
    }
    if matches!(mode, Forwarded::XForwarded | Forwarded::Both) {
        x_forwarded(headers, told);
    }
    if matches!(mode, Forwarded::Rfc7239 | Forwarded::Both) {
        append(headers, header::FORWARDED, element(told));
    }
}

fn x_forwarded(headers: &mut HeaderMap, told: &Told<'_>) {
    append(headers, FOR, text(told.address));
    headers.entry(PROTO).or_insert_with(|| HeaderValue::from_static(told.scheme));
    if let Some(Ok(host)) = told.host.map(HeaderValue::from_str) {
        headers.entry(HOST).or_insert(host);
    }
}

/// As `to_string` has it. That is one of the dearer steps of a miss, because it can pad; most addresses are of four
/// numbers.
fn text(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let (mut text, mut number) = (String::with_capacity(15), itoa::Buffer::new());
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        text.push_str(number.format(octet));
    }
    text
}

/// One `forwarded-element` (RFC 7239 section 4).
fn element(told: &Told<'_>) -> String {
    let node = match told.address {
        IpAddr::V4(_) => text(told.address),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    match told.host {
        Some(host) => format!("for={node};host=\"{host}\";proto={}", told.scheme),
        None => format!("for={node};proto={}", told.scheme),
    }
}

/// Adds to the end of a list; several lines become one, as the fields' many readers expect.
fn append(headers: &mut HeaderMap, name: HeaderName, value: String) {
    let mut list = Vec::new();
    for line in headers.get_all(&name) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(value.as_bytes());
    if let Ok(list) = HeaderValue::from_maybe_shared(Bytes::from(list)) {
        headers.insert(name, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(mode: Forwarded, host: Option<&str>, sent: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, value.parse().expect("valid"));
        }
        let address = "192.0.2.7".parse().expect("an address");
        apply(&mut headers, mode, &Told { address, scheme: "http", host });
        headers
    }

    #[test]
    fn addresses_are_written_as_ever() {
        for address in ["0.0.0.0", "255.255.255.255", "192.0.2.10", "::1", "2001:db8::7"] {
            assert_eq!(text(address.parse().expect("an address")), address);
        }
    }

    #[test]
    fn the_client_is_told() {
        let headers = applied(Forwarded::Both, Some("shop.example"), &[]);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-host"], "shop.example");
        assert_eq!(headers["forwarded"], "for=192.0.2.7;host=\"shop.example\";proto=http");
    }

    #[test]
    fn a_trusted_proxy_is_extended() {
        let sent = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")];
        let headers = applied(Forwarded::XForwarded, Some("shop.example"), &sent);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn an_unkeyed_host_never_leaves() {
        let sent = [("x-forwarded-host", "evil.example"), ("forwarded", "host=evil.example")];
        let headers = applied(Forwarded::XForwarded, None, &sent);
        assert!(!headers.contains_key("x-forwarded-host") && !headers.contains_key("forwarded"));
        let sent = [("forwarded", "for=a;host=evil;proto=http, for=b; host=evil")];
        let headers = applied(Forwarded::XForwarded, None, &sent);
        assert_eq!(headers["forwarded"], "for=a;proto=http, for=b");
    }
}
