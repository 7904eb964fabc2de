//! The members of one `Cache-Control` line: `name`, `name=token` or `name="quoted string"`, separated by commas.
//!
//! A comma or name inside a quoted string is text. What does not follow the grammar is reported as such, not guessed
//! at: it may be a directive that would have forbidden something.

/// One directive as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// A token, in the case it came in.
    pub(super) name: &'a [u8],
    /// What follows `=`, without the quotes of a quoted string; its escapes are left in.
    pub(super) argument: Option<&'a [u8]>,
    /// What follows `;`: not part of `Cache-Control`, but of `Surrogate-Control`.
    pub(super) parameters: Option<&'a [u8]>,
}

/// Letters of the longest directive there is, `stale-while-revalidate`, and some.
const NAME_MAX: usize = 32;

impl Member<'_> {
    /// Gives `then` the name in lower case; of one longer than any directive, nothing.
    pub(super) fn lowercase<T>(&self, then: impl FnOnce(&[u8]) -> T) -> T {
        let mut letters = [0; NAME_MAX];
        let Some(lower) = letters.get_mut(..self.name.len()) else { return then(b"") };
        lower.copy_from_slice(self.name);
        lower.make_ascii_lowercase();
        then(lower)
    }

    /// Whether it is the directive of this name, which is given in lower case.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// A member that does not follow the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The members of a line. Empty ones are skipped, as any list allows.
pub(super) fn members(line: &[u8]) -> impl Iterator<Item = Result<Member<'_>, Malformed>> {
    split(line, b',').map(<[u8]>::trim_ascii).filter(|text| !text.is_empty()).map(member)
}

/// Splits at every `separator` outside of quoted strings.
pub(super) fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match position(text, separator) {
            Some(at) => {
                rest = Some(&text[at + 1..]);
                Some(&text[..at])
            }
            None => rest.take(),
        }
    })
}

/// Where the first `separator` outside of quoted strings stands.
fn position(text: &[u8], separator: u8) -> Option<usize> {
    if memchr::memchr(b'"', text).is_none() {
        return memchr::memchr(separator, text);
    }
    let (mut quoted, mut escaped) = (false, false);
    text.iter().position(|&byte| {
        let found = byte == separator && !quoted;
        quoted ^= byte == b'"' && !escaped;
        escaped = quoted && byte == b'\\' && !escaped;
        found
    })
}

fn member(text: &[u8]) -> Result<Member<'_>, Malformed> {
    let (text, parameters) = match position(text, b';') {
        Some(at) => (text[..at].trim_ascii_end(), Some(text[at + 1..].trim_ascii())),
        None => (text, None),
    };
    let (name, argument) = match memchr::memchr(b'=', text) {
        Some(at) => (&text[..at], Some(argument(&text[at + 1..])?)),
        None => (text, None),
    };
    if name.is_empty() || !name.iter().copied().all(is_tchar) {
        return Err(Malformed);
    }
    Ok(Member { name, argument, parameters })
}

/// A quoted string, or something that at least could not be mistaken for more than one token.
fn argument(text: &[u8]) -> Result<&[u8], Malformed> {
    if let Some(quoted) = text.strip_prefix(b"\"") {
        let content = quoted.strip_suffix(b"\"").ok_or(Malformed)?;
        return if is_quoted_content(content) { Ok(content) } else { Err(Malformed) };
    }
    let sound = !text.is_empty() && text.iter().all(|&byte| byte > b' ' && byte != b'"');
    if sound { Ok(text) } else { Err(Malformed) }
}

/// Whether no quote ends it early and no escape reaches beyond it.
fn is_quoted_content(content: &[u8]) -> bool {
    let mut escaped = false;
    let sound = content.iter().all(|&byte| {
        let sound = byte != b'"' || escaped;
        escaped = byte == b'\\' && !escaped;
        sound
    });
    sound && !escaped
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(line: &str) -> Vec<Result<String, Malformed>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let show = |member: Member<'_>| {
            let argument = member.argument.map_or(String::new(), |argument| format!("={}", text(argument)));
            let parameters = member.parameters.map_or(String::new(), |parameters| format!(";{}", text(parameters)));
            format!("{}{argument}{parameters}", text(member.name))
        };
        members(line.as_bytes()).map(|member| member.map(show)).collect()
    }

    #[test]
    fn well_formed() {
        let ok = |texts: &[&str]| texts.iter().map(|text| Ok((*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(written(""), []);
        assert_eq!(written(" , ,"), []);
        assert_eq!(written("a"), ok(&["a"]));
        assert_eq!(written("a=1,b, c=\"x\" ,"), ok(&["a=1", "b", "c=x"]));
        assert_eq!(written(r#"a="b, c=1", d"#), ok(&["a=b, c=1", "d"]));
        assert_eq!(written(r#"a="b\", c=1", d"#), ok(&[r#"a=b\", c=1"#, "d"]));
        assert_eq!(written(r#"a="b\\", d"#), ok(&[r"a=b\\", "d"]));
        assert_eq!(written("a='1'"), ok(&["a='1'"]));
        assert_eq!(written("a=b=c"), ok(&["a=b=c"]));
        assert_eq!(written("a=\"\""), ok(&["a="]));
        assert_eq!(written("max-age=3600;larder"), ok(&["max-age=3600;larder"]));
        assert_eq!(written("content=\"ESI/1.0;x\";a;b"), ok(&["content=ESI/1.0;x;a;b"]));
    }

    #[test]
    fn malformed() {
        for line in
            ["a =1", "a= 1", "a=", "=1", "a b", "a=\"1", "a=\"1\"2", "a=1\"2\"", "a=1 b", "\"a\"", "a=\"b\\\"", "ä"]
        {
            assert_eq!(written(line), [Err(Malformed)], "{line}");
        }
        assert_eq!(written("a=\"1, no-store").len(), 1, "an open quote swallows the rest, and says so");
    }

    proptest! {
        #[test]
        fn never_panics(line: Vec<u8>) {
            members(&line).for_each(drop);
        }

        #[test]
        fn nothing_is_lost(line in "[ab,;=\"\\\\ ]{0,24}") {
            let parts: Vec<&[u8]> = split(line.as_bytes(), b',').collect();
            prop_assert_eq!(parts.join(&b','), line.as_bytes());
        }
    }
}
