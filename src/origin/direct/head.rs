//! Heads on the wire (RFC 9112): the request's is written, the response's read.
//!
//! The lines are taken apart by the parser that hyper uses; what the framing fields mean is decided here, by section 6.3.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use httparse::Header;
use memchr::memchr_iter;

use super::super::{
    error::{Error, Kind},
    upstream::Limits,
};

/// Fields that find room without asking the allocator.
const FIELDS_INLINE: usize = 100;

/// The head of a response, interim or final.
#[derive(Debug)]
pub(in crate::origin) struct Head {
    pub(in crate::origin) status: StatusCode,
    pub(in crate::origin) version: Version,
    pub(in crate::origin) headers: HeaderMap,
}

/// How the end of some content is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// Where the head that begins in `bytes` ends, unless it goes on; what lies before `from` was looked at before.
pub(super) fn end(bytes: &[u8], from: usize) -> Option<usize> {
    // A line may end in LF alone (section 2.2), and the blank line may have come in two reads.
    let from = from.saturating_sub(2);
    memchr_iter(b'\n', &bytes[from..]).map(|at| from + at + 1).find_map(|next| match bytes[next..] {
        [b'\n', ..] => Some(next + 1),
        [b'\r', b'\n', ..] => Some(next + 2),
        _ => None,
    })
}

/// Takes off what some origins send after a response, and no response begins with.
pub(super) fn skip_blank_lines(buffer: &mut BytesMut) {
    let blank = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if blank > 0 {
        let _ = buffer.split_to(blank);
    }
}

/// Reads a whole response head.
pub(super) fn parse(bytes: &Bytes, limits: &Limits) -> Result<Head, Error> {
    let mut inline = [const { MaybeUninit::uninit() }; FIELDS_INLINE];
    let mut allocated = Vec::new();
    let room: &mut [MaybeUninit<Header<'_>>] = match limits.head_fields_max {
        few @ ..=FIELDS_INLINE => &mut inline[..few],
        many => {
            allocated.resize_with(many, MaybeUninit::uninit);
            &mut allocated
        }
    };
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, room);
    match parsed {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Error::new(Kind::Protocol)),
        Err(httparse::Error::TooManyHeaders) => return Err(Error::new(Kind::HeadTooLarge)),
        Err(cause) => return Err(Error::with(Kind::Protocol, cause)),
    }
    let (Some(code), Some(minor)) = (response.code, response.version) else { return Err(Error::new(Kind::Protocol)) };
    Ok(Head {
        status: StatusCode::from_u16(code).map_err(|cause| Error::with(Kind::Protocol, cause))?,
        version: if minor == 1 { Version::HTTP_11 } else { Version::HTTP_10 },
        headers: fields(bytes, response.headers)?,
    })
}

/// Reads the fields behind the last chunk, with the blank line that ends them.
pub(super) fn parse_trailers(bytes: &Bytes, limits: &Limits) -> Result<HeaderMap, Error> {
    let mut room = vec![httparse::EMPTY_HEADER; limits.head_fields_max.min(FIELDS_INLINE)];
    match httparse::parse_headers(bytes, &mut room) {
        Ok(httparse::Status::Complete((_, found))) => fields(bytes, found),
        Ok(httparse::Status::Partial) => Err(Error::new(Kind::TransferCoding)),
        Err(cause) => Err(Error::with(Kind::TransferCoding, cause)),
    }
}

/// The values share `bytes`.
fn fields(bytes: &Bytes, found: &[Header<'_>]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(found.len());
    for field in found {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|cause| Error::with(Kind::Protocol, cause))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        let value = value.map_err(|cause| Error::with(Kind::Protocol, cause))?;
        headers.try_append(name, value).map_err(|cause| Error::with(Kind::HeadTooLarge, cause))?;
    }
    Ok(headers)
}

/// How the content of a final response to `method` ends (RFC 9112, 6.3).
pub(super) fn framing(head: &Head, method: &Method) -> Result<Framing, Error> {
    let without_content = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if without_content || *method == Method::HEAD {
        return Ok(Framing::Length(0));
    }
    if let Some(last) = head.headers.get_all(TRANSFER_ENCODING).iter().next_back() {
        if head.version == Version::HTTP_10 {
            return Err(Error::new(Kind::Protocol));
        }
        let coding = last.as_bytes().rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
        return Ok(if coding.eq_ignore_ascii_case(b"chunked") { Framing::Chunked } else { Framing::Close });
    }
    Ok(length(&head.headers)?.map_or(Framing::Close, Framing::Length))
}

/// The length that all values agree on. One that is repeated is taken for the same.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut agreed = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for item in value.as_bytes().split(|&byte| byte == b',') {
            let item = item.trim_ascii();
            let digits = !item.is_empty() && item.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(item).ok().filter(|_| digits).and_then(|item| item.parse().ok());
            let number: u64 = number.ok_or_else(|| Error::new(Kind::Protocol))?;
            if agreed.is_some_and(|agreed| agreed != number) {
                return Err(Error::new(Kind::Protocol));
            }
            agreed = Some(number);
        }
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> Limits {
        Limits {
            connections_max: 1,
            idle_max: 1,
            streams_max: 1,
            head_bytes_max: 1 << 16,
            head_fields_max: 100,
            keep_max: std::time::Duration::ZERO,
        }
    }

    fn head(text: &str) -> Head {
        parse(&Bytes::copy_from_slice(text.as_bytes()), &limits()).expect(text)
    }

    #[test]
    fn a_head_ends_with_a_blank_line() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nabc", Some(19)),
            ("HTTP/1.1 200 OK\na: b\n\nabc", Some(22)),
            ("HTTP/1.1 200 OK\n\r\nabc", Some(18)),
            ("HTTP/1.1 200 OK\r\na: b\r\n", None),
            ("HTTP/1.1 200 OK\r\n\r", None),
            ("", None),
        ] {
            assert_eq!(end(text.as_bytes(), 0), expected, "{text:?}");
            // However it is cut, the blank line is not missed.
            for cut in 0..text.len() {
                let seen = end(&text.as_bytes()[..cut], 0).or_else(|| end(text.as_bytes(), cut));
                assert_eq!(seen, expected, "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn the_framing_is_that_of_the_rules() {
        use Framing::*;
        for (fields, expected) in [
            ("content-length: 5\r\n", Some(Length(5))),
            ("content-length: 5\r\ncontent-length: 5\r\n", Some(Length(5))),
            ("content-length: 5, 5\r\n", Some(Length(5))),
            ("content-length: 5\r\ncontent-length: 6\r\n", None),
            ("content-length: 5, 6\r\n", None),
            ("content-length: +5\r\n", None),
            ("content-length: \r\n", None),
            ("content-length: 18446744073709551616\r\n", None),
            ("transfer-encoding: chunked\r\n", Some(Chunked)),
            ("transfer-encoding: gzip, Chunked\r\n", Some(Chunked)),
            ("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n", Some(Chunked)),
            ("transfer-encoding: chunked, gzip\r\n", Some(Close)),
            ("", Some(Close)),
        ] {
            let head = head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
            assert_eq!(framing(&head, &Method::GET).ok(), expected, "{fields:?}");
            assert_eq!(framing(&head, &Method::HEAD).ok(), Some(Length(0)), "{fields:?}");
        }
        let old = head("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        assert!(framing(&old, &Method::GET).is_err());
        for status in ["204 No Content", "304 Not Modified"] {
            let head = head(&format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\n"));
            assert_eq!(framing(&head, &Method::GET).ok(), Some(Length(0)), "{status}");
        }
    }

    proptest! {
        #[test]
        fn prop_garbage_is_an_error_or_a_head(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from([&b"HTTP/1.1 200 OK\r\n"[..], &bytes].concat());
            if let Some(end) = end(&bytes, 0) {
                prop_assert!(end <= bytes.len());
                if let Ok(head) = parse(&bytes.slice(..end), &limits()) {
                    let _ = framing(&head, &Method::GET);
                }
                let _ = parse_trailers(&bytes.slice(..end), &limits());
            }
        }
    }
}
