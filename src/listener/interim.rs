//! Interim responses (102, 103) of an HTTP/1.1 connection.
//!
//! hyper's server can send none, so they are rendered here and written by [`Io`](super::io::Io) when no other byte is
//! on its way for the same request. They are hints: one that comes too late, or finds the socket full, is dropped.
//! HTTP/2 offers no way in, and HTTP/1.0 does not know them: there they are dropped as well.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};

use super::link::Link;

/// Sends interim responses to one client; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Interim {
    link: Option<Arc<Link>>,
    /// The request it belongs to; `None`: whichever is current.
    request: Option<u64>,
}

impl Interim {
    /// One that drops everything.
    pub fn none() -> Self {
        Self::default()
    }

    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link: Some(link), request: None }
    }

    /// The connection it belongs to.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.clone()
    }

    /// The same for the current request only: what is sent after its response has begun goes nowhere, whatever
    /// request the connection has come to by then. To be called by the handler before it hands the value on.
    #[must_use]
    pub fn bind(&self) -> Self {
        Self { link: self.link.clone(), request: self.link.as_ref().map(|link| link.request()) }
    }

    /// Whether [`Interim::send`] would do anything at all.
    pub fn is_open(&self) -> bool {
        self.open_link().is_some()
    }

    /// Sends `status` with `headers`, hop-by-hop fields and those that frame a message left out. 100 and 101 are the
    /// connection's own and never sent; nor is anything that is not 1xx.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        if !status.is_informational() || matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return;
        }
        if let Some((link, request)) = self.open_link() {
            link.offer(request, |out| render(status, headers, out));
        }
    }

    fn open_link(&self) -> Option<(&Link, u64)> {
        let link = self.link.as_deref()?;
        let request = self.request.unwrap_or_else(|| link.request());
        link.accepts_interim(request).then_some((link, request))
    }
}

/// Appends the head of an interim response.
fn render(status: StatusCode, headers: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers.iter().filter(|(name, _)| !is_hop_by_hop(name, headers)) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn is_hop_by_hop(name: &HeaderName, headers: &HeaderMap) -> bool {
    let fixed = matches!(*name, CONNECTION | CONTENT_LENGTH | TE | TRAILER | TRANSFER_ENCODING | UPGRADE)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "proxy-authenticate" | "proxy-authorization");
    fixed || named_in_connection(name, headers)
}

fn named_in_connection(name: &HeaderName, headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn renders_end_to_end_fields_only() {
        let mut headers = HeaderMap::new();
        headers.append(header::LINK, HeaderValue::from_static("</a.css>; rel=preload"));
        headers.append(header::LINK, HeaderValue::from_static("</b.js>; rel=preload"));
        headers.insert(CONNECTION, HeaderValue::from_static("close, X-Hop"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("7"));
        headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        let mut out = Vec::new();
        render(StatusCode::EARLY_HINTS, &headers, &mut out);
        assert_eq!(
            String::from_utf8(out).expect("ASCII"),
            "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n"
        );
    }

    #[test]
    fn only_the_current_request_while_it_is_handled() {
        let link = Arc::new(Link::new(false));
        let interim = Interim::new(Arc::clone(&link));
        let send = |interim: &Interim, status| {
            interim.send(status, &HeaderMap::new());
            let mut out = Vec::new();
            link.take_offered(link.request(), &mut out);
            !out.is_empty()
        };
        assert!(!send(&interim, StatusCode::EARLY_HINTS), "no request yet");
        link.begin(true, Some(0));
        let first = interim.bind();
        assert!(send(&first, StatusCode::EARLY_HINTS));
        assert!(send(&interim, StatusCode::PROCESSING));
        assert!(!send(&interim, StatusCode::CONTINUE));
        assert!(!send(&interim, StatusCode::SWITCHING_PROTOCOLS));
        assert!(!send(&interim, StatusCode::OK));
        link.respond();
        assert!(!send(&first, StatusCode::EARLY_HINTS), "the response has begun");
        link.finish(false);
        link.begin(true, Some(0));
        assert!(!send(&first, StatusCode::EARLY_HINTS), "another request");
        assert!(send(&interim, StatusCode::EARLY_HINTS));
        link.begin(false, Some(0));
        assert!(!send(&interim, StatusCode::EARLY_HINTS), "HTTP/1.0");
    }

    /// One that raced with its request's end is not taken for the next request's.
    #[test]
    fn what_was_offered_for_another_request_is_gone() {
        let link = Link::new(false);
        link.begin(true, Some(0));
        link.begin(true, Some(0));
        link.offer(1, |out| out.push(b'x'));
        let mut out = Vec::new();
        link.take_offered(2, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn what_waits_for_the_socket_is_bounded() {
        let link = Arc::new(Link::new(false));
        link.begin(true, Some(0));
        let interim = Interim::new(Arc::clone(&link));
        let mut headers = HeaderMap::new();
        headers.insert("x", HeaderValue::from_bytes(&[b'x'; 5000]).expect("valid"));
        for _ in 0..100 {
            interim.send(StatusCode::EARLY_HINTS, &headers);
        }
        let mut out = Vec::new();
        link.take_offered(1, &mut out);
        assert!(out.len() > 10_000 && out.len() <= 16 * 1024, "{}", out.len());
        assert!(out.ends_with(b"x\r\n\r\n"), "whole heads only");
    }
}
