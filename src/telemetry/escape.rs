//! Text that others wrote, made fit to stand in a log line.
//!
//! No line ends, control characters or direction marks come through: a line stays one line, in a file as on a
//! terminal.

use std::fmt::{self, Write};

/// Appends `text` as the inside of a JSON string. Control characters beyond those that JSON names are escaped as
/// well: a terminal that shows the line must not obey it.
pub(super) fn escape_json(text: &str, out: &mut Vec<u8>) {
    if is_plain(text) {
        return out.extend_from_slice(text.as_bytes());
    }
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            // All of them are in the basic plane: four digits do.
            character if is_unsafe(character) => drop(write!(Text(out), "\\u{:04x}", u32::from(character))),
            character => push(character, out),
        }
    }
}

/// Appends `text` for a person's eyes.
pub(super) fn escape(text: &str, out: &mut Vec<u8>) {
    if is_plain(text) {
        return out.extend_from_slice(text.as_bytes());
    }
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            character if is_unsafe(character) => drop(write!(Text(out), "\\u{{{:x}}}", u32::from(character))),
            character => push(character, out),
        }
    }
}

/// Text that stands for itself, as almost all does.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

/// Control characters, line separators, and what reverses the direction of what follows.
pub(super) fn is_unsafe(character: char) -> bool {
    let separates = matches!(character, '\u{2028}' | '\u{2029}');
    let reverses = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || separates || reverses
}

fn push(character: char, out: &mut Vec<u8>) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// A vector as a place for formatted text.
pub(super) struct Text<'a>(pub(super) &'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
