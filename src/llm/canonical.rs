//! What makes two bodies the same, however they are written (after RFC 8785): the order of members and blanks do not
//! count, numbers count by their value, strings by their characters, and everything else as it is.
//!
//! The canonical form is never written down as text: it goes straight into the hash, each value behind a byte that says
//! what it is and its length, so no two bodies look alike.

use super::{
    json::{Kind, Member, Value},
    number,
    path::{Path, Step},
};

/// Takes what a key is made of.
pub trait Sink {
    /// More bytes.
    fn put(&mut self, bytes: &[u8]);
}

/// What a value is to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Part of it, as it is.
    In,
    /// No part of it.
    Out,
    /// Part of it, as this text: masked, or what it stands for.
    As(String),
}

/// Says of each value what it is to the key.
pub trait Rules {
    /// Of a member or element at `path`. What is out takes all within it along.
    fn part(&self, path: &Path<'_>, value: &Value<'_>) -> Part;
}

impl Sink for blake3::Hasher {
    fn put(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Puts the canonical form of a body into `sink`.
pub fn write(body: &Value<'_>, rules: &impl Rules, sink: &mut impl Sink) {
    Writer { rules, sink }.value(body, None);
}

struct Writer<'w, R, S> {
    rules: &'w R,
    sink: &'w mut S,
}

impl<R: Rules, S: Sink> Writer<'_, R, S> {
    fn value(&mut self, value: &Value<'_>, path: Option<&Path<'_>>) {
        match &value.kind {
            Kind::Null => self.sink.put(b"n"),
            Kind::Bool(false) => self.sink.put(b"f"),
            Kind::Bool(true) => self.sink.put(b"t"),
            Kind::Number(text) => self.text(b"#", &number::canonical(text)),
            Kind::String(text) => self.text(b"\"", text),
            Kind::Array(elements) => self.array(elements, path),
            Kind::Object(members) => self.object(members, path),
        }
    }

    fn array(&mut self, elements: &[Value<'_>], path: Option<&Path<'_>>) {
        self.sink.put(b"[");
        for (index, element) in elements.iter().enumerate() {
            let path = step(path, Step::Index(index));
            let part = self.rules.part(&path, element);
            self.part(part, element, &path);
        }
        self.sink.put(b"]");
    }

    fn object(&mut self, members: &[Member<'_>], path: Option<&Path<'_>>) {
        let mut sorted: Vec<&Member<'_>> = members.iter().collect();
        sorted.sort_unstable_by(|one, other| one.name.as_bytes().cmp(other.name.as_bytes()));
        self.sink.put(b"{");
        for Member { name, value, .. } in sorted {
            let path = step(path, Step::Name(name));
            let part = self.rules.part(&path, value);
            if part != Part::Out {
                self.text(b":", name);
                self.part(part, value, &path);
            }
        }
        self.sink.put(b"}");
    }

    fn part(&mut self, part: Part, value: &Value<'_>, path: &Path<'_>) {
        match part {
            Part::In => self.value(value, Some(path)),
            Part::Out => {}
            // Another kind than a string: what stands for a text is never taken for that text.
            Part::As(text) => self.text(b"=", &text),
        }
    }

    fn text(&mut self, kind: &[u8; 1], text: &str) {
        self.sink.put(kind);
        self.sink.put(&(text.len() as u64).to_le_bytes());
        self.sink.put(text.as_bytes());
    }
}

fn step<'p>(path: Option<&'p Path<'p>>, step: Step<'p>) -> Path<'p> {
    match path {
        Some(path) => path.then(step),
        None => Path::first(step),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Leaves out members named `out`, and takes texts that begin with `~` for `masked`.
    struct Example;

    impl Rules for Example {
        fn part(&self, path: &Path<'_>, value: &Value<'_>) -> Part {
            match value.text() {
                _ if path.is(&[super::super::path::Part::Name("out")]) => Part::Out,
                Some(text) if text.starts_with('~') => Part::As("masked".to_owned()),
                _ => Part::In,
            }
        }
    }

    fn form(text: &str) -> Vec<u8> {
        let mut form = Vec::new();
        write(&Value::parse(text.as_bytes()).expect("JSON"), &Example, &mut form);
        form
    }

    #[test]
    fn order_and_blanks_do_not_count() {
        assert_eq!(
            form(r#"{"b":[1,{"y":2,"x":3}],"a":null}"#),
            form("{ \"a\" : null,\n \"b\":[1, {\"x\":3,\"y\":2}] }")
        );
        assert_ne!(form(r#"[1,2]"#), form(r#"[2,1]"#), "that of elements does");
        assert_eq!(form(r#""\u00e9\/""#), form(r#""é/""#));
        assert_ne!(form(r#"" a""#), form(r#""a""#));
        assert_ne!(form(r#""A""#), form(r#""a""#));
    }

    #[test]
    fn kinds_and_borders_count() {
        let different = [
            "null",
            "true",
            "false",
            "0",
            "\"\"",
            "\"0\"",
            "[]",
            "{}",
            "[[]]",
            "[{}]",
            "{\"a\":[]}",
            "{\"a\":{}}",
            "[\"a\",\"b\"]",
            "[\"ab\"]",
            "[\"a\"]",
            "{\"a\":\"b\"}",
            "[\"a\",[\"b\"]]",
            "[[\"a\"],\"b\"]",
            "[null]",
            "{\"a\":null}",
            "\"masked\"",
            "[\"~x\"]",
            "[\"masked\"]",
        ];
        for (index, one) in different.iter().enumerate() {
            for other in &different[..index] {
                assert_ne!(form(one), form(other), "{one} and {other}");
            }
        }
    }

    #[test]
    fn rules_are_kept() {
        assert_eq!(form(r#"{"out":{"deep":1},"a":1}"#), form(r#"{"a":1}"#));
        assert_ne!(form(r#"{"a":{"out":1}}"#), form(r#"{"a":{}}"#), "only where the rule says so");
        assert_eq!(form(r#"{"a":["~1"]}"#), form(r#"{"a":["~2"]}"#));
    }

    fn body() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            (0..3_i64).prop_map(Into::into),
            "[ab]{0,2}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
                prop::collection::hash_map("[ab]{0,1}", inner, 0..3)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Small bodies, many of which are nearly the same: they have one form if they are one value, and otherwise not.
        #[test]
        fn prop_forms_are_of_values(one in body(), other in body()) {
            prop_assert_eq!(form(&one.to_string()) == form(&other.to_string()), one == other);
        }
    }
}
