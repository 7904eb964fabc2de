//! The chunked transfer coding (RFC 9112, 7.1), taken off piece by piece. The data are not copied.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use memchr::memchr;

use super::{
    super::{
        error::{Error, Kind},
        upstream::Limits,
    },
    head,
};

/// Longest line in front of a chunk: a size, and extensions, which nobody reads.
const SIZE_LINE_MAX: usize = 4 * 1024;
/// Bytes of extensions in front of all chunks together: an origin must not send those instead of data for ever.
const EXTENSIONS_MAX: usize = 16 * 1024;
/// A size, as most chunks have it, with its line end.
const SIZE_LINE_PLAIN: usize = 18;

/// The end of a chunk's data, and the end of all, without trailers.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// How far the decoding has come.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of size lines beyond what sizes take.
    extensions: usize,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Before a size line.
    Size,
    /// Within the data of a chunk: so many bytes are left.
    Data(u64),
    /// Behind them, before the line end.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
}

/// What a step finds.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Data.
    Data(Bytes),
    /// More bytes are needed.
    More,
    /// The end, and the trailers if there are any.
    End(Option<HeaderMap>),
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { state: State::Size, extensions: 0 }
    }

    /// Takes the next piece from `buffer`.
    pub(super) fn next(&mut self, buffer: &mut BytesMut, limits: &Limits) -> Result<Step, Error> {
        loop {
            match self.state {
                State::Size => match self.size(buffer)? {
                    None => return Ok(Step::More),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Data(size),
                },
                State::Data(_) if buffer.is_empty() => return Ok(Step::More),
                State::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let left = left - here as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data(buffer.split_to(here).freeze()));
                }
                State::DataEnd => match buffer[..] {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(Error::new(Kind::TransferCoding)),
                },
                State::Trailers => return trailers(buffer, limits),
            }
        }
    }

    /// Whether nothing comes after the data that were just taken. Looked at so early, the last piece is known to be it.
    pub(super) fn ends(&self, buffer: &mut BytesMut) -> bool {
        let ends = matches!(self.state, State::DataEnd) && buffer.starts_with(LAST_CHUNK);
        if ends {
            buffer.advance(LAST_CHUNK.len());
        }
        ends
    }

    /// The size of the next chunk, if its line is here.
    fn size(&mut self, buffer: &mut BytesMut) -> Result<Option<u64>, Error> {
        let Some(end) = memchr(b'\n', &buffer[..buffer.len().min(SIZE_LINE_MAX)]) else {
            let too_long = buffer.len() >= SIZE_LINE_MAX;
            return if too_long { Err(Error::new(Kind::TransferCoding)) } else { Ok(None) };
        };
        let size = size(&buffer[..end]).ok_or_else(|| Error::new(Kind::TransferCoding))?;
        self.extensions += end.saturating_sub(SIZE_LINE_PLAIN);
        if self.extensions > EXTENSIONS_MAX {
            return Err(Error::new(Kind::TransferCoding));
        }
        buffer.advance(end + 1);
        Ok(Some(size))
    }
}

/// Reads a line `size [;extensions] CR`. A CR elsewhere, which others might take for the end of the line, is an error.
fn size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r")?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let extensions = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t')).map_or(&[][..], |at| &rest[at..]);
    if !(extensions.is_empty() || extensions[0] == b';') || memchr(b'\r', extensions).is_some() {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn trailers(buffer: &mut BytesMut, limits: &Limits) -> Result<Step, Error> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Step::End(None));
    }
    match head::end(buffer, 0) {
        Some(end) if end <= limits.head_bytes_max => {
            let trailers = head::parse_trailers(&buffer.split_to(end).freeze(), limits)?;
            Ok(Step::End(Some(trailers)))
        }
        None if buffer.len() < limits.head_bytes_max => Ok(Step::More),
        _ => Err(Error::new(Kind::TransferCoding)),
    }
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
            head_bytes_max: 1000,
            head_fields_max: 100,
            keep_max: std::time::Duration::ZERO,
        }
    }

    /// Data, number of trailers, and what is left over.
    type Decoded = (Vec<u8>, usize, Vec<u8>);

    /// What is found where the bytes come in the given pieces; nothing if it goes on.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Decoded>, Kind> {
        let (mut chunked, mut buffer, mut data) = (Chunked::new(), BytesMut::new(), Vec::new());
        let mut end = None;
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while end.is_none() {
                match chunked.next(&mut buffer, &limits()).map_err(|error| error.kind())? {
                    Step::Data(bytes) => data.extend_from_slice(&bytes),
                    Step::More => break,
                    Step::End(trailers) => end = Some(trailers.map_or(0, |trailers| trailers.len())),
                }
            }
        }
        Ok(end.map(|trailers| (data, trailers, buffer.to_vec())))
    }

    #[test]
    fn what_is_well_formed() {
        for (text, data, trailers, rest) in [
            ("0\r\n\r\n", "", 0, ""),
            ("3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "abcde", 0, ""),
            ("A\r\n0123456789\r\n000\r\n\r\nnext", "0123456789", 0, "next"),
            ("1\r\na\r\n0\r\nx: 1\r\ny: 2\r\n\r\nnext", "a", 2, "next"),
        ] {
            let expected = Some((data.as_bytes().to_vec(), trailers, rest.as_bytes().to_vec()));
            assert_eq!(decode([text.as_bytes()]), Ok(expected.clone()), "{text:?}");
            assert_eq!(decode(text.as_bytes().chunks(1)), Ok(expected), "{text:?} byte by byte");
            for cut in 0..text.len() - rest.len() {
                assert_eq!(decode([&text.as_bytes()[..cut]]), Ok(None), "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_broken() {
        let (long, many) = (format!("1;{}", "x".repeat(5000)), format!("1;{}\r\na\r\n", "x".repeat(2000)).repeat(20));
        let trailers = format!("0\r\nx: {}", "y".repeat(2000));
        for text in [
            "zz\r\nabc",
            "\r\n",
            "-1\r\na",
            "0x1\r\na",
            "1\na\r\n",
            "1;x\ny\r\na",
            "1;x\ry\r\na",
            "1\r\r\na",
            "1 1\r\na",
            "3\r\nabcdef\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "10000000000000000\r\na",
            "0\r\nno colon\r\n\r\n",
            &long,
            &many,
            &trailers,
        ] {
            assert_eq!(decode([text.as_bytes()]), Err(Kind::TransferCoding), "{:.40?}", text);
        }
    }

    proptest! {
        /// Whatever the pieces it comes in, a body is the same.
        #[test]
        fn prop_pieces_make_no_difference(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(1_usize..20, 1..60),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let (mut pieces, mut rest) = (Vec::new(), &wire[..]);
            for cut in cuts.iter().cycle() {
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(decode(pieces), Ok(Some((chunks.concat(), 0, Vec::new()))));
        }

        #[test]
        fn prop_garbage_is_an_error_or_data(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode([&bytes[..]]);
            let _ = decode([&b"5\r\nabcde\r\n"[..], &bytes]);
        }
    }
}
