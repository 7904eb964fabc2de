//! JSON as it was written (RFC 8259): each value with its place in the text, numbers as text, members in their order.
//!
//! Keys are made of it and fields are cut out of it, so nothing may be lost or guessed: a text that two readers could take
//! for different things (a name twice, bytes that are no UTF-8, half a surrogate pair) is an error.

use std::{borrow::Cow, collections::HashSet, ops::Range};

use memchr::memchr2;

/// Arrays and objects within each other. Requests have a dozen; what has more is no request to a model.
pub const DEPTH_MAX: usize = 128;

/// Up to so many names are compared with each other; more go through a table.
const COMPARED_MAX: usize = 16;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Value<'a> {
    /// Its bytes in the text.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// As it is written.
    Number(&'a str),
    /// Without its quotes and escapes.
    String(Cow<'a, str>),
    /// In order.
    Array(Vec<Value<'a>>),
    /// In the order they are written; no name comes twice.
    Object(Vec<Member<'a>>),
}

/// A member of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Member<'a> {
    /// Its name, without quotes and escapes.
    pub name: Cow<'a, str>,
    /// First byte of the name's text, the quote.
    pub start: usize,
    /// Its value.
    pub value: Value<'a>,
}

/// Why a text is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not usable as JSON at byte {at}: {why}")]
pub struct Invalid {
    /// The byte.
    pub at: usize,
    /// What is wrong there.
    pub why: &'static str,
}

impl<'a> Value<'a> {
    /// Parses a text that is one value.
    ///
    /// # Errors
    /// Where it is not JSON, or JSON that can be read in two ways, or nested deeper than [`DEPTH_MAX`].
    pub fn parse(text: &'a [u8]) -> Result<Self, Invalid> {
        let text = std::str::from_utf8(text)
            .map_err(|error| Invalid { at: error.valid_up_to(), why: "these bytes are not UTF-8" })?;
        let mut parser = Parser { text, at: 0, depth: 0 };
        parser.blanks();
        let value = parser.value()?;
        parser.blanks();
        if parser.at < text.len() { Err(parser.invalid("something follows the value")) } else { Ok(value) }
    }

    /// The member of that name, of an object that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.members().iter().find(|member| member.name == name).map(|member| &member.value)
    }

    /// The members of an object; none of anything else.
    pub fn members(&self) -> &[Member<'a>] {
        match &self.kind {
            Kind::Object(members) => members,
            _ => &[],
        }
    }

    /// The elements of an array; none of anything else.
    pub fn elements(&self) -> &[Self] {
        match &self.kind {
            Kind::Array(elements) => elements,
            _ => &[],
        }
    }

    /// A string's text.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is `true`.
    pub fn is_true(&self) -> bool {
        self.kind == Kind::Bool(true)
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    /// A number that is a whole one from 0 to the largest there is.
    pub fn whole(&self) -> Option<u64> {
        match self.kind {
            Kind::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A number, rounded.
    pub fn number(&self) -> Option<f64> {
        match self.kind {
            Kind::Number(text) => text.parse().ok(),
            _ => None,
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn invalid(&self, why: &'static str) -> Invalid {
        Invalid { at: self.at, why }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<Value<'a>, Invalid> {
        let start = self.at;
        let kind = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => Kind::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => Kind::Number(self.number()?),
            Some(b't') => self.word("true", Kind::Bool(true))?,
            Some(b'f') => self.word("false", Kind::Bool(false))?,
            Some(b'n') => self.word("null", Kind::Null)?,
            Some(_) => return Err(self.invalid("no value starts like this")),
            None => return Err(self.invalid("the text ends where a value should be")),
        };
        Ok(Value { span: start..self.at, kind })
    }

    fn nested(&mut self, parse: impl FnOnce(&mut Self) -> Result<Kind<'a>, Invalid>) -> Result<Kind<'a>, Invalid> {
        if self.depth == DEPTH_MAX {
            return Err(self.invalid("nested too deeply"));
        }
        self.depth += 1;
        self.at += 1;
        let kind = parse(self)?;
        self.depth -= 1;
        Ok(kind)
    }

    fn array(&mut self) -> Result<Kind<'a>, Invalid> {
        let mut elements = Vec::new();
        self.list(b']', |parser| {
            elements.push(parser.value()?);
            Ok(())
        })?;
        Ok(Kind::Array(elements))
    }

    fn object(&mut self) -> Result<Kind<'a>, Invalid> {
        let mut members = Vec::new();
        self.list(b'}', |parser| {
            members.push(parser.member()?);
            Ok(())
        })?;
        match repeated(&members) {
            Some(member) => Err(Invalid { at: member.start, why: "this name comes twice in its object" }),
            None => Ok(Kind::Object(members)),
        }
    }

    /// What stands between brackets, of which the first has been read; separated by commas.
    fn list(&mut self, end: u8, mut one: impl FnMut(&mut Self) -> Result<(), Invalid>) -> Result<(), Invalid> {
        self.blanks();
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(());
        }
        loop {
            one(self)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == end => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => return Err(self.invalid("neither a comma nor the closing bracket")),
                None => return Err(self.invalid("the text ends within brackets")),
            }
            self.blanks();
        }
    }

    fn member(&mut self) -> Result<Member<'a>, Invalid> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.invalid("a member's name is missing"));
        }
        let name = self.string()?;
        self.blanks();
        if self.peek() != Some(b':') {
            return Err(self.invalid("a colon is missing"));
        }
        self.at += 1;
        self.blanks();
        Ok(Member { name, start, value: self.value()? })
    }

    fn word(&mut self, word: &'static str, kind: Kind<'a>) -> Result<Kind<'a>, Invalid> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.invalid("no value starts like this"));
        }
        self.at += word.len();
        Ok(kind)
    }

    fn number(&mut self) -> Result<&'a str, Invalid> {
        let start = self.at;
        self.skip(b"-");
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.skip(b".") {
            self.digits()?;
        }
        if self.skip(b"eE") {
            self.skip(b"+-");
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<(), Invalid> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.invalid("a digit is missing")) } else { Ok(()) }
    }

    /// Passes one byte, if it is one of these.
    fn skip(&mut self, any: &[u8]) -> bool {
        let found = self.peek().is_some_and(|byte| any.contains(&byte));
        self.at += usize::from(found);
        found
    }

    /// What stands between quotes, of which the first is next.
    fn string(&mut self) -> Result<Cow<'a, str>, Invalid> {
        self.at += 1;
        let mut unescaped = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(end) = memchr2(b'"', b'\\', rest.as_bytes()) else {
                self.at = self.text.len();
                return Err(self.invalid("the text ends within a string"));
            };
            let plain = &rest[..end];
            if let Some(control) = plain.bytes().position(|byte| byte < b' ') {
                self.at += control;
                return Err(self.invalid("a control character in a string"));
            }
            self.at += end;
            let closed = self.peek() == Some(b'"');
            if closed && unescaped.is_empty() {
                self.at += 1;
                return Ok(Cow::Borrowed(plain));
            }
            unescaped.push_str(plain);
            if closed {
                self.at += 1;
                return Ok(Cow::Owned(unescaped));
            }
            unescaped.push(self.escape()?);
        }
    }

    /// The character of an escape sequence, of which the backslash is next.
    fn escape(&mut self) -> Result<char, Invalid> {
        self.at += 1;
        let Some(byte) = self.peek() else { return Err(self.invalid("the text ends within a string")) };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.code_point(),
            _ => {
                self.at -= 1;
                return Err(self.invalid("there is no such escape sequence"));
            }
        })
    }

    fn code_point(&mut self) -> Result<char, Invalid> {
        const HALF: &str = "half a surrogate pair";
        let start = self.at;
        let first = self.unit()?;
        let mut units = vec![first];
        if (0xd800..0xdc00).contains(&first) {
            if !self.text[self.at..].starts_with("\\u") {
                return Err(Invalid { at: start, why: HALF });
            }
            self.at += 2;
            units.push(self.unit()?);
        }
        match char::decode_utf16(units).next() {
            Some(Ok(character)) => Ok(character),
            _ => Err(Invalid { at: start, why: HALF }),
        }
    }

    fn unit(&mut self) -> Result<u16, Invalid> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let mut unit = 0;
        for digit in digits {
            let Some(value) = char::from(*digit).to_digit(16) else { break };
            unit = unit * 16 + value;
            self.at += 1;
        }
        if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(self.invalid("four hexadecimal digits are missing"));
        }
        Ok(u16::try_from(unit).unwrap_or(u16::MAX))
    }
}

/// A member whose name another one before it has.
fn repeated<'m, 'a>(members: &'m [Member<'a>]) -> Option<&'m Member<'a>> {
    if members.len() <= COMPARED_MAX {
        let earlier = |index: usize| &members[..index];
        let twice = |(index, member): &(usize, &Member<'_>)| earlier(*index).iter().any(|one| one.name == member.name);
        return members.iter().enumerate().find(twice).map(|(_, member)| member);
    }
    let mut names = HashSet::with_capacity(members.len());
    members.iter().find(|member| !names.insert(&*member.name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn why(text: &str) -> (usize, &'static str) {
        let Err(Invalid { at, why }) = Value::parse(text.as_bytes()) else { panic!("{text} is taken") };
        (at, why)
    }

    #[test]
    fn every_value_knows_its_place() {
        let text = r#" { "a" : [1, -2.50e+3 ,"x\ny"], "b":{} } "#;
        let value = Value::parse(text.as_bytes()).expect("JSON");
        let shown = |value: &Value<'_>| text[value.span.clone()].to_owned();
        assert_eq!(shown(&value), text.trim());
        let list = value.get("a").expect("there");
        assert_eq!(list.elements().iter().map(shown).collect::<Vec<_>>(), ["1", "-2.50e+3", r#""x\ny""#]);
        assert_eq!(list.elements()[2].text(), Some("x\ny"));
        assert_eq!(&text[value.members()[1].start..value.members()[1].value.span.end], r#""b":{}"#);
    }

    #[test]
    fn escapes() {
        let value = Value::parse(br#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#).expect("JSON");
        assert_eq!(value.text(), Some("\"\\/\u{8}\u{c}\n\r\té😀"));
    }

    #[test]
    fn what_can_be_read_two_ways_is_refused() {
        assert_eq!(why(r#"{"a":1,"b":2,"a":3}"#), (13, "this name comes twice in its object"));
        assert_eq!(why(r#"{"a":1,"\u0061":3}"#).1, "this name comes twice in its object");
        let many: Vec<_> = (0..20).map(|n| format!(r#""{n}":0"#)).chain([r#""7":1"#.to_owned()]).collect();
        assert_eq!(why(&format!("{{{}}}", many.join(","))).1, "this name comes twice in its object");
        assert_eq!(why(r#""\ud83d""#).1, "half a surrogate pair");
        assert_eq!(why(r#""\ude00""#).1, "half a surrogate pair");
        assert_eq!(Value::parse(b"\"\xff\"").expect_err("no UTF-8").at, 1);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[1,]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "tru",
            "nul",
            "NaN",
            "1 2",
            "\"a\nb\"",
            r#""\x""#,
            r#""\u12g4""#,
            r#""\u12"#,
            "'a'",
            "[1 2]",
            r#"{1:2}"#,
            "\u{feff}{}",
        ] {
            assert!(Value::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Value::parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(why(&nested(DEPTH_MAX + 1)), (DEPTH_MAX, "nested too deeply"));
        assert!(Value::parse("[".repeat(1 << 20).as_bytes()).is_err());
    }

    /// As another reader has it.
    fn plain(value: &Value<'_>) -> serde_json::Value {
        match &value.kind {
            Kind::Null => serde_json::Value::Null,
            Kind::Bool(value) => (*value).into(),
            Kind::Number(text) => serde_json::from_str(text).expect("a number"),
            Kind::String(text) => (**text).into(),
            Kind::Array(elements) => elements.iter().map(plain).collect(),
            Kind::Object(members) => {
                members.iter().map(|member| (member.name.to_string(), plain(&member.value))).collect()
            }
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            (-1e9..1e9).prop_map(|number: f64| number.into()),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn prop_read_as_others_read_it(value in json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.expect("serializable");
            let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            prop_assert_eq!(plain(&Value::parse(text.as_bytes()).expect("JSON")), read);
        }

        #[test]
        fn prop_no_bytes_make_it_panic(text: Vec<u8>) {
            let _ = Value::parse(&text);
        }

        /// Nothing is taken that another strict reader refuses.
        #[test]
        fn prop_no_more_than_json(text in r#"[\[\]{}",:0-9eE.+\-tfn\\u a]{0,24}"#) {
            if Value::parse(text.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{text}");
            }
        }
    }
}
