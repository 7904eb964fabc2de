//! Server-sent events as bytes (HTML Living Standard section 9.2): where one ends, and what its data is. Nothing is
//! changed: a stream is sent on, and replayed, in the very bytes it came in.

use std::borrow::Cow;

/// Finds the ends of events in a stream that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct Splitter {
    /// Whether the line that is being read has begun.
    in_line: bool,
    /// Whether the last byte was a carriage return, to which a line feed may belong.
    after_return: bool,
}

impl Splitter {
    /// Offsets in `piece` behind each event that ends in it. An event ends behind the blank line that closes it; of the
    /// two bytes of a line break that a piece may cut in two, the second belongs to the event as well.
    pub fn ends(&mut self, piece: &[u8]) -> Vec<usize> {
        let mut ends: Vec<usize> = Vec::new();
        for (index, byte) in piece.iter().enumerate() {
            let second = *byte == b'\n' && std::mem::take(&mut self.after_return);
            self.after_return = *byte == b'\r';
            match byte {
                b'\n' if second => {
                    // The break of a line that has ended already.
                    if ends.last() == Some(&index) {
                        ends.pop();
                        ends.push(index + 1);
                    }
                }
                b'\n' | b'\r' => {
                    if !std::mem::take(&mut self.in_line) {
                        ends.push(index + 1);
                    }
                }
                _ => self.in_line = true,
            }
        }
        ends
    }
}

/// One event's name and data, as its reader gets them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its `event` field; empty: none.
    pub name: &'a str,
    /// Its `data` fields, joined by line feeds.
    pub data: Cow<'a, str>,
}

impl<'a> Event<'a> {
    /// From the bytes of one event; `None` where they hold no data, as comments do that only keep a connection alive, or are
    /// no UTF-8.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (mut name, mut data) = ("", None::<Cow<'a, str>>);
        for line in lines(text) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match (field, &mut data) {
                ("event", _) => name = value,
                ("data", None) => data = Some(Cow::Borrowed(value)),
                ("data", Some(data)) => {
                    let data = data.to_mut();
                    data.push('\n');
                    data.push_str(value);
                }
                _ => {}
            }
        }
        Some(Self { name, data: data? })
    }
}

/// Lines, which end with LF, CRLF or CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The events of a stream that comes in pieces of these sizes.
    fn split(stream: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
        let (mut splitter, mut events, mut current) = (Splitter::default(), Vec::new(), Vec::new());
        let (mut rest, mut sizes) = (stream, sizes.iter().copied().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
            let mut start = 0;
            for end in splitter.ends(piece) {
                current.extend_from_slice(&piece[start..end]);
                events.push(std::mem::take(&mut current));
                start = end;
            }
            current.extend_from_slice(&piece[start..]);
            rest = after;
        }
        if !current.is_empty() {
            events.push(current);
        }
        events
    }

    fn data(stream: &[u8], sizes: &[usize]) -> Vec<String> {
        split(stream, sizes)
            .iter()
            .filter_map(|event| Event::parse(event))
            .map(|event| event.data.into_owned())
            .collect()
    }

    #[test]
    fn events_end_with_a_blank_line() {
        let stream = b"event: a\ndata: 1\n\n: ping\n\ndata: 2\r\ndata:3\r\n\r\ndata: [DONE]\r\r";
        for sizes in [&[1000][..], &[1], &[7], &[3, 1, 2]] {
            assert_eq!(data(stream, sizes), ["1", "2\n3", "[DONE]"], "{sizes:?}");
            assert_eq!(split(stream, sizes).concat(), stream, "{sizes:?}");
        }
        let events = split(stream, &[1000]);
        assert_eq!(events.len(), 4);
        assert_eq!(Event::parse(&events[0]).expect("an event").name, "a");
    }

    #[test]
    fn what_has_no_data_is_no_event() {
        for bytes in [&b": comment\n\n"[..], b"event: a\n\n", b"\n", b"id: 1\n\n", b"data: \xff\n\n"] {
            assert_eq!(Event::parse(bytes), None, "{bytes:?}");
        }
        assert_eq!(Event::parse(b"data\n\n").expect("empty data").data, "");
        assert_eq!(Event::parse(b"data:  two blanks\n\n").expect("data").data, " two blanks");
    }

    proptest! {
        #[test]
        fn prop_pieces_do_not_count(
            stream in prop::collection::vec(prop::sample::select(&b"\r\nda:t x"[..]), 0..60),
            sizes in prop::collection::vec(1..9_usize, 1..6),
        ) {
            prop_assert_eq!(split(&stream, &sizes).concat(), stream.clone());
            prop_assert_eq!(data(&stream, &sizes), data(&stream, &[1000]));
        }
    }
}
