//! A request that says no more than most do, read where it lies: a GET of HTTP/1.1 in origin form, with one `Host`,
//! without content and without a word about the connection but that it stays.
//!
//! This is no second opinion on what a request means. The lines are taken apart by the parser that hyper uses, and
//! whatever is unusual is left to hyper, which then reads it as if nobody had looked before.

use std::mem::MaybeUninit;

use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::{Header, Status};

/// Most fields of such a request.
const FIELDS_MAX: usize = 48;
/// Longest name of a field that anyone asks for by [`Plain::noted`].
const NOTED_MAX: usize = 20;

/// Room for the fields of a request. Nothing is written there before there is a field: that would be more bytes than
/// most requests have.
pub struct Slots<'a>([MaybeUninit<Header<'a>>; FIELDS_MAX]);

impl Default for Slots<'_> {
    fn default() -> Self {
        Self([const { MaybeUninit::uninit() }; FIELDS_MAX])
    }
}

/// A plain request.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a> {
    /// Path and query as sent.
    pub target: &'a str,
    /// `Host` as sent.
    pub host: &'a str,
    fields: &'a [Header<'a>],
}

impl<'a> Plain<'a> {
    /// The request at the start of `bytes`, and how many of them it takes; `None` where it is not plain, or not all of
    /// it is there.
    pub fn parse(bytes: &'a [u8], slots: &'a mut Slots<'a>) -> Option<(Self, usize)> {
        // Most of what is not plain shows it here.
        if !bytes.starts_with(b"GET /") {
            return None;
        }
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(bytes, &mut slots.0);
        let Ok(Status::Complete(length)) = parsed else { return None };
        if request.version != Some(1) || !bytes[..length].ends_with(b"\r\n\r\n") {
            return None;
        }
        let target = request.path.filter(|target| target.bytes().all(is_plain))?;
        let fields: &'a [Header<'a>] = request.headers;
        let mut host = None;
        for field in fields {
            match Role::of(field) {
                Role::Host if host.is_none() => host = Some(std::str::from_utf8(field.value).ok()?),
                Role::Host | Role::Unusual => return None,
                Role::Any => {}
            }
        }
        Some((Self { target, host: host?, fields }, length))
    }

    /// Path as sent.
    pub fn path(&self) -> &'a str {
        self.split().0
    }

    /// Query as sent, without `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.split().1
    }

    fn split(&self) -> (&'a str, Option<&'a str>) {
        match memchr::memchr(b'?', self.target.as_bytes()) {
            Some(at) => (&self.target[..at], Some(&self.target[at + 1..])),
            None => (self.target, None),
        }
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether it has none; it has a `Host`.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Gives `note` the names of its fields in lower case, those aside that are longer than any that is asked for.
    pub fn noted(&self, mut note: impl FnMut(&[u8])) {
        for field in self.fields {
            let mut lower = [0; NOTED_MAX];
            if let Some(lower) = lower.get_mut(..field.name.len()) {
                lower.copy_from_slice(field.name.as_bytes());
                lower.make_ascii_lowercase();
                note(lower);
            }
        }
    }

    /// The value of the first field of that name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The values of all fields of that name, whatever its case.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Its fields as a map.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.fields.len());
        for field in self.fields {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            // The parser lets nothing through that a map would not take.
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
                map.append(name, value);
            }
        }
        map
    }
}

/// What a field means for whether a request is plain.
enum Role {
    Host,
    /// It concerns the connection or announces content.
    Unusual,
    Any,
}

impl Role {
    fn of(field: &Header<'_>) -> Self {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            4 if is("host") => Self::Host,
            6 if is("expect") => Self::Unusual,
            7 if is("upgrade") => Self::Unusual,
            10 if is("connection") && !field.value.trim_ascii().eq_ignore_ascii_case(b"keep-alive") => Self::Unusual,
            14 if is("content-length") => Self::Unusual,
            14 if is("http2-settings") => Self::Unusual,
            17 if is("transfer-encoding") => Self::Unusual,
            _ => Self::Any,
        }
    }
}

/// Whether a target with this character is what every reader of URLs takes it for.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Target, host, number of fields and length of a plain request.
    fn parsed(text: &str) -> Option<(String, String, usize, usize)> {
        let mut slots = Slots::default();
        let (plain, length) = Plain::parse(text.as_bytes(), &mut slots)?;
        Some((plain.target.to_owned(), plain.host.to_owned(), plain.len(), length))
    }

    #[test]
    fn plain_requests() {
        let text = "GET /a?b=c HTTP/1.1\r\nHost: x.example\r\naccept: */*\r\n\r\nGET";
        assert_eq!(parsed(text), Some(("/a?b=c".to_owned(), "x.example".to_owned(), 2, text.len() - 3)));
        assert!(parsed("GET / HTTP/1.1\r\nhost: x\r\nConnection: Keep-Alive\r\n\r\n").is_some());
        let mut slots = Slots::default();
        let bytes = b"GET /a?b?c HTTP/1.1\r\nhost: x\r\nX-Id: 1\r\nx-id: 2\r\n\r\n";
        let (plain, _) = Plain::parse(bytes, &mut slots).expect("plain");
        assert_eq!((plain.path(), plain.query(), plain.get("x-ID")), ("/a", Some("b?c"), Some(&b"1"[..])));
        assert_eq!(plain.to_map().get_all("x-id").iter().count(), 2);
        let mut names = Vec::new();
        plain.noted(|name| names.push(name.to_owned()));
        assert_eq!(names, [&b"host"[..], b"x-id", b"x-id"]);
    }

    #[test]
    fn everything_else_is_left_alone() {
        for text in [
            "",
            "GET / HTTP/1.1\r\nhost: x\r\n",
            "GET / HTTP/1.0\r\nhost: x\r\n\r\n",
            "HEAD / HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET http://x/ HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, x-a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\nUpgrade: h2c\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET /a\"b HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET /\u{e4} HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET / HTTP/1.1\nhost: x\n\n",
            "GET / HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n",
        ] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
        let many = |count| format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(count - 1));
        assert!(parsed(&many(FIELDS_MAX)).is_some() && parsed(&many(FIELDS_MAX + 1)).is_none());
    }

    proptest! {
        #[test]
        fn prop_what_is_plain_is_what_it_says(
            target in "/[a-zA-Z0-9%?&=./~#\"-]{0,30}",
            lines in proptest::collection::vec("(host|x-a|accept|content-length|connection): ?[ -~]{0,20}", 0..6),
            more in "[ -~\r\n]{0,40}",
        ) {
            let head = format!("GET {target} HTTP/1.1\r\n{}\r\n", lines.iter().map(|line| format!("{line}\r\n")).collect::<String>());
            let text = format!("{head}{more}");
            let mut slots = Slots::default();
            if let Some((plain, length)) = Plain::parse(text.as_bytes(), &mut slots) {
                prop_assert_eq!(length, head.len());
                prop_assert_eq!(plain.target, &target);
                let fields = plain.to_map();
                prop_assert_eq!(fields.len(), lines.len());
                let uri: http::Uri = target.parse().expect("plain targets are targets");
                prop_assert_eq!((uri.path(), uri.query()), (plain.path(), plain.query()));
                prop_assert_eq!(fields["host"].as_bytes(), plain.host.as_bytes());
            }
        }

        #[test]
        fn prop_garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = [b"GET /", &bytes[..]].concat();
            let mut slots = Slots::default();
            if let Some((plain, length)) = Plain::parse(&text, &mut slots) {
                prop_assert!(length <= text.len() && !plain.is_empty());
            }
        }
    }
}
