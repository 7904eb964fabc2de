//! Text from elsewhere, before a terminal gets it.

use std::fmt::Write;

/// Without what a terminal would take for a command, in one line.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|char| if is_for_terminals(char) { '\u{fffd}' } else { char }).collect()
}

/// As [`plain`], and lines stay lines.
pub(super) fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// The same JSON, with what a terminal would take for a command as escapes (RFC 8259 section 7). JSON has none of it
/// outside of strings, but for line ends and tabs, which are not to be in it.
pub(super) fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for char in json.chars() {
        if is_for_terminals(char) {
            // All of these are in the first plane.
            let _ = write!(escaped, "\\u{:04x}", u32::from(char));
        } else {
            escaped.push(char);
        }
    }
    escaped
}

/// Control characters, and those that change the order in which text is shown (`Bidi_Control` of Unicode).
fn is_for_terminals(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRICK: &str = "a\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{2066}b\u{e9}";

    #[test]
    fn a_terminal_gets_no_commands() {
        assert_eq!(plain(TRICK), "a\u{fffd}[2J\u{fffd}\u{fffd}31m\u{fffd}\u{fffd}b\u{e9}");
        assert_eq!(plain("a\nb"), "a\u{fffd}b");
        assert_eq!(plain_lines("a\nb\r\n"), "a\nb\u{fffd}\n");
    }

    #[test]
    fn json_says_the_same_escaped() {
        let json = serde_json::to_string(TRICK).expect("JSON");
        let escaped = escaped(&json);
        assert!(!escaped.chars().any(is_for_terminals), "{escaped:?}");
        assert_eq!(serde_json::from_str::<String>(&escaped).expect("JSON"), TRICK);
    }
}
