//! Where two calls differ: for those who expected an answer to be stored and wonder why it was not.
//!
//! An outline holds no text of a call: each value is a hash, long texts are one for every piece of them.

use std::{fmt, ops::Range};

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    canonical::{self, Part, Rules},
    json::{Kind, Value},
    path::{Path, Step},
};

/// Values of one call that are told apart; what comes after them is taken for one.
const VALUES_MAX: usize = 4096;

/// Bytes of a text that have one hash.
const PIECE: usize = 64;

/// Differences that are told.
const DIFFERENCES_MAX: usize = 20;

/// What a call says, as hashes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outline {
    /// JSON pointers in the order of names, each with the hashes of what is there.
    values: Vec<(Box<str>, Box<[u32]>)>,
}

/// A place where one call says something else than another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Difference {
    /// JSON pointer into the body; or the name of another part of the key.
    pub at: String,
    /// `changed`, `added` or `missing`, in this call as against the other.
    pub how: &'static str,
    /// Of texts: bytes, of which one is the first that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<(usize, usize)>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at, self.how)?;
        match self.bytes {
            Some((from, to)) => write!(f, " within bytes {from} to {to}"),
            None => Ok(()),
        }
    }
}

impl Outline {
    /// Of a body, as its key sees it, and of the other parts of the key.
    pub fn of<'p>(
        body: Option<&Value<'_>>,
        rules: &impl Rules,
        others: impl IntoIterator<Item = (&'p str, &'p [u8])>,
    ) -> Self {
        let mut values: Vec<_> =
            others.into_iter().map(|(name, bytes)| (name.into(), Box::from([hash(bytes)]))).collect();
        if let Some(body) = body {
            Walk { rules, values: &mut values }.value(body, None);
        }
        values.sort_unstable();
        Self { values }
    }

    /// How many places say the same in both.
    pub fn likeness(&self, other: &Self) -> usize {
        self.pairs(other).filter(|(one, other, _)| one.is_some() && one == other).count()
    }

    /// Where `self` differs from `other`, the first of them.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let differ = self.pairs(other).filter(|(one, other, _)| one != other);
        let tell = |(one, other, at): (Option<&[u32]>, Option<&[u32]>, &str)| Difference {
            at: at.to_owned(),
            how: match (one, other) {
                (Some(_), None) => "added",
                (None, Some(_)) => "missing",
                _ => "changed",
            },
            bytes: one.zip(other).filter(|(one, _)| one.len() > 1).map(|(one, other)| {
                let Range { start, end } = first_other(one, other);
                (start, end)
            }),
        };
        differ.map(tell).take(DIFFERENCES_MAX).collect()
    }

    /// What both say at each place that either has.
    fn pairs<'o>(
        &'o self,
        other: &'o Self,
    ) -> impl Iterator<Item = (Option<&'o [u32]>, Option<&'o [u32]>, &'o str)> + use<'o> {
        let (mut one, mut other) = (self.values.iter().peekable(), other.values.iter().peekable());
        std::iter::from_fn(move || {
            let order = match (one.peek(), other.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return None,
            };
            let a = if order.is_le() { one.next() } else { None };
            let b = if order.is_ge() { other.next() } else { None };
            let (at, _) = a.or(b)?;
            Some((a.map(|(_, hashes)| &**hashes), b.map(|(_, hashes)| &**hashes), &**at))
        })
    }
}

/// Bytes among which is the first that is not the same. The first hash of a text is that of its kind.
fn first_other(one: &[u32], other: &[u32]) -> Range<usize> {
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count().saturating_sub(1);
    same * PIECE..(same + 1) * PIECE
}

struct Walk<'w, R> {
    rules: &'w R,
    values: &'w mut Vec<(Box<str>, Box<[u32]>)>,
}

impl<R: Rules> Walk<'_, R> {
    fn value(&mut self, value: &Value<'_>, path: Option<&Path<'_>>) {
        match &value.kind {
            Kind::Object(members) if !members.is_empty() => {
                for member in members {
                    self.inner(&member.value, path, Step::Name(&member.name));
                }
            }
            Kind::Array(elements) if !elements.is_empty() => {
                for (index, element) in elements.iter().enumerate() {
                    self.inner(element, path, Step::Index(index));
                }
            }
            Kind::String(text) => self.text(path, text),
            _ => {
                let mut form = Vec::new();
                canonical::write(value, self.rules, &mut form);
                self.put(path, Box::from([hash(&form)]));
            }
        }
    }

    fn inner(&mut self, value: &Value<'_>, path: Option<&Path<'_>>, step: Step<'_>) {
        let path = match path {
            Some(path) => path.then(step),
            None => Path::first(step),
        };
        match self.rules.part(&path, value) {
            Part::In => self.value(value, Some(&path)),
            Part::Out => {}
            Part::As(text) => self.text(Some(&path), &text),
        }
    }

    fn text(&mut self, path: Option<&Path<'_>>, text: &str) {
        let kind = std::iter::once(hash(b"text"));
        self.put(path, kind.chain(text.as_bytes().chunks(PIECE).map(hash)).collect());
    }

    fn put(&mut self, path: Option<&Path<'_>>, hashes: Box<[u32]>) {
        if self.values.len() < VALUES_MAX {
            let at = path.map(ToString::to_string).unwrap_or_default();
            self.values.push((at.into(), hashes));
        }
    }
}

fn hash(bytes: &[u8]) -> u32 {
    let mut first = [0; 4];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..4]);
    u32::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{endpoint::Protocol, fields::Fields};

    fn outline(body: &str) -> Outline {
        let body = Value::parse(body.as_bytes()).expect("JSON");
        Outline::of(Some(&body), &Fields::new(Protocol::Openai, &[]), [("path", &b"/v1"[..])])
    }

    fn told(one: &str, other: &str) -> Vec<String> {
        outline(one).differences(&outline(other)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_differs() {
        assert_eq!(told(r#"{"a":1,"b":["x"],"user":"u"}"#, r#"{"b":["x"],"a":1.0}"#), [""; 0]);
    }

    #[test]
    fn places_are_named() {
        assert_eq!(told(r#"{"temperature":0}"#, r#"{"temperature":1}"#), ["/temperature changed"]);
        assert_eq!(told(r#"{"seed":1,"a":{}}"#, r#"{"top_p":1,"a":{}}"#), ["/seed added", "/top_p missing"]);
        let long =
            |at: usize| format!(r#"{{"messages":[{{"content":"{}!{}"}}]}}"#, "x".repeat(at), "x".repeat(300 - at));
        assert_eq!(told(&long(100), &long(200)), ["/messages/0/content changed within bytes 64 to 128"]);
        assert_eq!(told(r#"{"a~/b":1}"#, r#"{"a~/b":2}"#), ["/a~0~1b changed"]);
    }

    #[test]
    fn the_most_alike() {
        let asked = outline(r#"{"a":1,"b":2,"c":3}"#);
        let near = asked.likeness(&outline(r#"{"a":1,"b":2,"c":4}"#));
        let far = asked.likeness(&outline(r#"{"a":2,"b":3,"c":4}"#));
        assert!(near > far, "{near} {far}");
    }
}
