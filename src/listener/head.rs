//! Watches the bytes of a connection for Content-Length in request heads.
//!
//! A request with both Content-Length and Transfer-Encoding is an attack or a broken peer and must be refused, but
//! hyper removes the Content-Length of such a request before anyone can see it. So the lines of each head are looked
//! at as they are read; nothing is copied but the first bytes of a line.
//!
//! This is no second parser: where the bytes of two requests come together (pipelining) it loses its place, says so,
//! and hyper's own rule is left: Transfer-Encoding counts and the connection is closed after the response.

use memchr::memchr;

use super::link::{HeadSeen, Link};

const NAME: &[u8] = b"content-length:";

/// Follows one HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct HeadWatch {
    /// False once the place was lost, and for what is not HTTP/1.1.
    on: bool,
    /// The request before the head that is being read.
    after: u64,
    scan: Scan,
    /// Bytes read after the last head: body, or what should not be there.
    beyond: u64,
}

impl HeadWatch {
    pub(super) fn new(on: bool) -> Self {
        Self { on, after: 0, scan: Scan::default(), beyond: 0 }
    }

    /// `bytes` were read.
    pub(super) fn read(&mut self, link: &Link, bytes: &[u8]) {
        if !self.on {
            return;
        }
        let request = link.request();
        let head_is_due = if self.after == request { !self.scan.ended } else { self.next_head(link, request) };
        if !head_is_due {
            self.beyond += bytes.len() as u64;
            link.saw_body(self.beyond);
        } else if let Some(end) = self.scan.feed(bytes) {
            self.beyond = (bytes.len() - end) as u64;
            link.saw_body(self.beyond);
            link.saw_head(if self.scan.content_length { HeadSeen::ContentLength } else { HeadSeen::Plain });
        }
    }

    /// Whether the bytes that come now are the next head's; false while they are the current request's.
    fn next_head(&mut self, link: &Link, request: u64) -> bool {
        let body = link.body_length();
        if link.body_open() || body.is_some_and(|length| self.beyond < length) {
            return false;
        }
        self.on = request == self.after + 1 && body.is_none_or(|length| self.beyond == length);
        self.after = request;
        self.scan = Scan::default();
        self.beyond = 0;
        self.on
    }

    /// Whether the next byte begins a head, and it is certain that no byte of it has been read.
    pub(super) fn is_between_heads(&mut self, link: &Link) -> bool {
        let request = link.request();
        self.on && (self.after == request || self.next_head(link, request)) && self.scan.is_untouched()
    }

    /// A request went by that is not to be watched.
    pub(super) fn pass_by(&mut self, link: &Link) {
        self.after = link.request();
    }

    /// Stops looking.
    pub(super) fn stop(&mut self) {
        self.on = false;
    }
}

/// One head, line by line.
#[derive(Debug, Default)]
struct Scan {
    /// First bytes of the current line.
    start: [u8; NAME.len()],
    /// Length of the current line so far.
    length: usize,
    /// Whether a line that is not empty was seen: empty ones before the request line do not end a head.
    begun: bool,
    ended: bool,
    content_length: bool,
}

impl Scan {
    /// Takes `bytes`; the offset after the head's last byte, if that is among them.
    fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(end) = memchr(b'\n', &bytes[at..]) {
            self.extend(&bytes[at..at + end]);
            at += end + 1;
            self.end_line();
            if self.ended {
                return Some(at);
            }
        }
        self.extend(&bytes[at..]);
        None
    }

    fn is_untouched(&self) -> bool {
        !self.begun && self.length == 0
    }

    fn extend(&mut self, piece: &[u8]) {
        if self.length < NAME.len() {
            let taken = piece.len().min(NAME.len() - self.length);
            self.start[self.length..self.length + taken].copy_from_slice(&piece[..taken]);
        }
        self.length = self.length.saturating_add(piece.len());
    }

    fn end_line(&mut self) {
        let empty = self.length == 0 || (self.length == 1 && self.start[0] == b'\r');
        self.ended = empty && self.begun;
        self.begun |= !empty;
        self.content_length |= self.length >= NAME.len() && self.start.eq_ignore_ascii_case(NAME);
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(pieces: &[&[u8]]) -> (Option<usize>, bool) {
        let mut scan = Scan::default();
        let mut end = None;
        for piece in pieces {
            if end.is_none() {
                end = scan.feed(piece);
            }
        }
        (end, scan.content_length)
    }

    #[test]
    fn finds_the_field_and_the_end() {
        assert_eq!(scan(&[b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore"]), (Some(27), false));
        assert_eq!(scan(&[b"POST / HTTP/1.1\r\ncOntent-lenGth:5\r\n\r\nhello"]), (Some(37), true));
        assert_eq!(scan(&[b"\r\n\nPOST / HTTP/1.1\nContent-Length: 5\n\n"]), (Some(38), true));
        assert_eq!(scan(&[b"GET / HTTP/1.1\r\nX-Content-Length: 5\r\n"]), (None, false));
        assert!(!scan(&[b"GET / HTTP/1.1\r\nX: a\r\nContent-Length-X: 5\r\n\r\n"]).1);
    }

    /// A body that mentions the field is not a head that has it, and heads are told apart by the bodies' lengths.
    #[test]
    fn bodies_are_passed_over() {
        let link = Link::new(false);
        let mut watch = HeadWatch::new(true);
        watch.read(&link, b"POST / HTTP/1.1\r\ncontent-length: 20\r\n\r\n\r\ncontent-");
        assert_eq!(link.take_head_seen(), HeadSeen::ContentLength);
        link.begin(true, Some(20));
        watch.read(&link, b"length: 5\n");
        link.close_body(true);
        watch.read(&link, b"GET / HTTP/1.1\r\n");
        assert_eq!(link.take_head_seen(), HeadSeen::Unknown, "not complete");
        watch.read(&link, b"\r\n");
        assert_eq!(link.take_head_seen(), HeadSeen::Plain);
        link.begin(true, Some(0));
        watch.read(&link, b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(link.take_head_seen(), HeadSeen::ContentLength);
    }

    #[test]
    fn pipelining_ends_the_watch() {
        let link = Link::new(false);
        let mut watch = HeadWatch::new(true);
        watch.read(&link, b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
        assert_eq!(link.take_head_seen(), HeadSeen::Plain);
        link.begin(true, Some(0));
        link.begin(true, Some(0));
        watch.read(&link, b"POST /3 HTTP/1.1\r\nContent-Length: 1\r\n\r\n");
        assert_eq!(link.take_head_seen(), HeadSeen::Unknown);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(head in "[a-zA-Z:\r\n -]{0,200}(\nContent-Length: 1)?\r\n\r\n", cut in 0usize..200) {
            let bytes = head.as_bytes();
            let cut = cut.min(bytes.len());
            let (first, second) = bytes.split_at(cut);
            let whole = scan(&[bytes]);
            let pieces = scan(&[first, second]);
            prop_assert_eq!(whole.1, pieces.1);
            prop_assert_eq!(whole.0.is_some(), pieces.0.is_some());
        }
    }
}
