//! A configuration file that remembers where everything in it stands.

use std::{ops::Range, sync::Arc};

use toml_edit::{Document, Item, Table, TableLike, TomlError};

use super::{
    error::{Place, Problem},
    key_path::{KeyPath, Step},
    mask,
};

/// Name and text of a file, for turning offsets into lines.
#[derive(Debug, Clone)]
pub(super) struct Source {
    name: Arc<str>,
    text: Arc<str>,
}

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Its tables, each with its place.
    pub(super) fn parse(&self) -> Result<Table, Problem> {
        match Document::parse(&*self.text) {
            Ok(document) => Ok(document.into_table()),
            Err(error) => Err(self.syntax(&error)),
        }
    }

    /// The place of a span; of the file as a whole where there is none.
    pub(super) fn place(&self, span: Option<Range<usize>>) -> Place {
        let at = span.map(|span| line_and_column(&self.text, span.start));
        Place::File { name: self.name.to_string(), at }
    }

    /// The place of `key` in `table`.
    pub(super) fn place_of_key(&self, table: &dyn TableLike, key: &str) -> Place {
        let span = table.key(key).and_then(toml_edit::Key::span).or_else(|| table.get(key).and_then(Item::span));
        self.place(span)
    }

    /// The place of what `steps` lead to inside `item`, or of what is nearest to it.
    pub(super) fn place_in(&self, item: &Item, steps: &[Step]) -> Place {
        self.place(span_in(item, steps))
    }

    fn syntax(&self, error: &TomlError) -> Problem {
        let place = self.place(error.span());
        let mut message = error.message().trim_end().replace('\n', ", ");
        let line = match place {
            Place::File { at: Some((line, column)), .. } => self.text.lines().nth(line - 1).map(|text| (text, column)),
            _ => None,
        };
        // A line of a secret is not repeated into a log, nor one of a list of them.
        let statement = error.span().map_or(&*self.text, |span| statement_at(&self.text, span.start));
        if let Some((line, column)) = line.filter(|_| !mask::may_hold_secret(statement)) {
            message = format!("{message}\n  | {line}\n  | {:>column$}", '^');
        }
        Problem::new(place, &KeyPath::root(), message)
    }
}

fn span_in(item: &Item, steps: &[Step]) -> Option<Range<usize>> {
    let inner = match steps.first() {
        Some(Step::Key(key)) => item.get(key.as_str()).and_then(|item| span_in(item, &steps[1..])),
        // Not `Item::get`: an element of a list of values is no `Item`.
        Some(Step::Index(index)) => match item {
            Item::ArrayOfTables(tables) => {
                let table = tables.get(*index)?;
                match steps.get(1) {
                    Some(Step::Key(key)) => table.get(key).and_then(Item::span).or_else(|| table.span()),
                    _ => table.span(),
                }
            }
            _ => item.as_array().and_then(|array| array.get(*index)).and_then(|value| {
                let inner = match (steps.get(1), value.as_inline_table()) {
                    (Some(Step::Key(key)), Some(table)) => table.get(key).and_then(toml_edit::Value::span),
                    _ => None,
                };
                inner.or_else(|| value.span())
            }),
        },
        Some(Step::Named(_)) | None => None,
    };
    inner.or_else(|| item.span())
}

/// Line and column of a byte, counted in characters from 1.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The line of a byte, with what is above it of the same statement.
fn statement_at(text: &str, offset: usize) -> &str {
    let line = text.get(..offset).unwrap_or(text).rfind('\n').map_or(0, |at| at + 1);
    let end = text[line..].find('\n').map_or(text.len(), |length| line + length);
    &text[open_statement(&text.as_bytes()[..line])..end]
}

/// Where the statement begins that goes on behind `text`, which is TOML so far: above, where a list or a text there has
/// not ended.
fn open_statement(text: &[u8]) -> usize {
    let (mut start, mut depth, mut at) = (0, 0_usize, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'\n' if depth == 0 => start = at + 1,
            _ => {}
        }
        at += match byte {
            b'#' => text[at..].iter().position(|byte| *byte == b'\n').unwrap_or(text.len() - at),
            b'"' | b'\'' => quoted(&text[at..]),
            _ => 1,
        };
    }
    start
}

/// Length of the quoted text that `text` begins with. One of a line ends with it, also where its quote is missing.
fn quoted(text: &[u8]) -> usize {
    let quote = text[0];
    let is_long = text.starts_with(&[quote; 3]);
    let end = if is_long { &text[..3] } else { &text[..1] };
    let mut at = end.len();
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' if quote == b'"' => at += 1,
            b'\n' if !is_long => return at,
            _ if text[at..].starts_with(end) => return at + end.len(),
            _ => {}
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize) -> Place {
        Place::File { name: "test.toml".to_owned(), at: Some((line, column)) }
    }

    #[test]
    fn places() {
        let text = "[a]\nb = [\"ä\", \"x\"]\n\n[[c]]\nd = 1\n[[c]]\nd = 2\ne = [{ f = 1 }]\n";
        let source = Source::new("test.toml", text);
        let root = source.parse().expect("a document");
        let b = &root["a"]["b"];
        assert_eq!(source.place_in(b, &[]), at(2, 5));
        assert_eq!(source.place_in(b, KeyPath::root().index(1).steps()), at(2, 11));
        assert_eq!(source.place_in(b, KeyPath::root().index(7).steps()), at(2, 5));
        assert_eq!(source.place_in(&root["c"], KeyPath::root().index(1).key("d").steps()), at(7, 5));
        assert_eq!(source.place_in(&root["c"], KeyPath::root().index(1).key("x").steps()), at(6, 1));
        let second = root["c"].as_array_of_tables().and_then(|tables| tables.get(1)).expect("a table");
        assert_eq!(source.place_in(&second["e"], KeyPath::root().index(0).key("f").steps()), at(8, 12));
        assert_eq!(source.place_of_key(second, "d"), at(7, 1));
    }

    #[test]
    fn syntax_errors_show_their_line() {
        let error = Source::new("test.toml", "[a]\nb = = 1\n").parse().expect_err("no TOML");
        assert_eq!(error.place, at(2, 5));
        assert!(error.message.ends_with("\n  | b = = 1\n  |     ^"), "{error}");
    }

    #[test]
    fn syntax_errors_show_no_secret() {
        for hidden in [
            "[admin]\ntoken = \"abc\n",
            "[l2]\nurl = \"redis://:abc@redis\n",
            "[[tenant]]\nkeys = [\n  'lk-abc\n]\n",
            "[[tenant]]\nkeys = [ # [two]\n  'lk-1',\n  lk-abc==,\n]\n",
            "[[tenant]]\nkeys = [\n  'lk-1', # ]\n  lk-abc==,\n]\n",
            "tenant = [\n  { name = 'a', keys = [\n    'lk-1' 'lk-abc'\n  ] },\n]\n",
            "[admin]\ntoken = \"\"\"\nabc \\q\n\"\"\"\n",
            "[[tenant]]\nkeys = [\n  'lk-1'\nname = 'abc'\n",
        ] {
            let error = Source::new("test.toml", hidden).parse().expect_err("no TOML");
            assert!(!error.message.contains("abc"), "{hidden}: {error}");
        }
    }

    #[test]
    fn what_stands_behind_secrets_is_shown() {
        let keys = "[[tenant]]\nkeys = [\n  'lk-1',\n  'lk-2', # ]\n]\n";
        for (before, line) in [(keys, "name = = 1"), (keys, "[b"), ("token = '''\nx\n'''\n", "b = = 1"), ("", "b 1")] {
            let error = Source::new("test.toml", &format!("{before}{line}\n")).parse().expect_err("no TOML");
            assert!(error.message.contains(&format!("\n  | {line}\n")), "{error}");
        }
    }
}
