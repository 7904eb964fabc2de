//! `Vary` (RFC 9111 section 4.1): which request fields chose a response, and the key they make with the primary one.

use http::{
    HeaderMap, HeaderName,
    header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY},
};

pub use super::variants::{Variant, Variants};
use super::{
    fields::{combined, members},
    key::{Key, KeyBuilder},
    normalise,
};

/// Names in one `Vary`; with more, the response is taken to depend on everything.
pub const VARY_FIELDS_MAX: usize = 32;

/// What a response depends on beside its primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// Nothing.
    None,
    /// Anything: it answers no other request.
    Any,
    /// These request fields: sorted, each once.
    Fields(Box<[HeaderName]>),
}

impl Vary {
    /// Of a response with these fields. `*` counts wherever it stands, and so does what is no field name: nobody can
    /// tell whether two requests agree in it.
    pub fn of(response: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for name in response.get_all(VARY).iter().flat_map(|line| members(line.as_bytes())) {
            match HeaderName::from_bytes(name) {
                Ok(name) if name != "*" => names.push(name),
                _ => return Self::Any,
            }
        }
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        match names.len() {
            0 => Self::None,
            1..=VARY_FIELDS_MAX => Self::Fields(names.into()),
            _ => Self::Any,
        }
    }

    /// The fields, none where it is [`Vary::None`] or [`Vary::Any`].
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(fields) => fields,
            Self::None | Self::Any => &[],
        }
    }
}

/// How requests are compared in the fields of a `Vary`.
#[derive(Debug, Clone, Copy)]
pub struct Comparing<'a> {
    /// Key of the hash: the fields may be credentials.
    pub secret: &'a [u8; 32],
    /// Whether Accept-Encoding and Accept-Language are compared by meaning.
    pub normalise: bool,
}

/// The key of the variant that `request` chooses, given the `fields` of [`Vary::Fields`].
///
/// Lines are combined and blanks around commas do not count; absent differs from empty.
pub fn variant_key(primary: &Key, fields: &[HeaderName], request: &HeaderMap, by: Comparing<'_>) -> Key {
    let mut builder = KeyBuilder::new("variant");
    builder.field(primary.as_bytes());
    for name in fields {
        builder.field(name.as_str().as_bytes());
        add_value(&mut builder, name, request, by.normalise);
    }
    builder.finish_keyed(by.secret)
}

/// As [`variant_key`], Accept-Language left out; `None` if it is not among `fields`.
pub(super) fn any_language_key(
    primary: &Key,
    fields: &[HeaderName],
    request: &HeaderMap,
    by: Comparing<'_>,
) -> Option<Key> {
    if !by.normalise || !fields.contains(&ACCEPT_LANGUAGE) {
        return None;
    }
    let mut builder = KeyBuilder::new("variant of any language");
    builder.field(primary.as_bytes());
    for name in fields.iter().filter(|&name| *name != ACCEPT_LANGUAGE) {
        builder.field(name.as_str().as_bytes());
        add_value(&mut builder, name, request, by.normalise);
    }
    Some(builder.finish_keyed(by.secret))
}

/// Appends the value of one field. The marks keep a normalised value apart from one that could not be understood and is
/// compared as it is.
fn add_value(builder: &mut KeyBuilder, name: &HeaderName, request: &HeaderMap, normalise: bool) {
    let value = combined(request, name);
    let Some(text) = value.as_deref() else {
        builder.optional(None);
        return;
    };
    if normalise
        && *name == ACCEPT_ENCODING
        && let Some(encodings) = normalise::encodings(text)
    {
        builder.field(b"encodings").field(&[encodings.bits()]);
        return;
    }
    if normalise
        && *name == ACCEPT_LANGUAGE
        && let Some(languages) = normalise::Languages::parse(text)
    {
        builder.field(b"languages").field(languages.canonical().as_bytes());
        return;
    }
    builder.optional(Some(text));
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::fields::tests::{any_value, map},
        *,
    };

    const BY: Comparing<'_> = Comparing { secret: &[9; 32], normalise: true };

    fn of(lines: &[&str]) -> Vary {
        Vary::of(&map(&lines.iter().map(|line| ("vary", *line)).collect::<Vec<_>>()))
    }

    fn fields(names: &[&'static str]) -> Vary {
        Vary::Fields(names.iter().map(|name| HeaderName::from_static(name)).collect())
    }

    #[test]
    fn a_star_anywhere_is_any() {
        for lines in [
            &["*"][..],
            &["*, *"],
            &["*", "*"],
            &[", *"],
            &["", "*"],
            &["*, Foo"],
            &["Foo, *"],
            &["Foo", "Bar ,\t*"],
            &["not a name"],
        ] {
            assert_eq!(of(lines), Vary::Any, "{lines:?}");
        }
        let many: Vec<_> = (0..=VARY_FIELDS_MAX).map(|number| format!("f{number}")).collect();
        assert_eq!(of(&[&many.join(",")]), Vary::Any);
        assert_ne!(of(&[&many[1..].join(",")]), Vary::Any);
    }

    #[test]
    fn names_are_a_set() {
        assert_eq!(of(&[]), Vary::None);
        assert_eq!(of(&["", " , "]), Vary::None);
        assert_eq!(of(&["Foo, bar", "BAR,,baz"]), fields(&["bar", "baz", "foo"]));
    }

    fn key(names: &[&'static str], request: &[(&'static str, &str)]) -> Key {
        variant_key(&Key::from_bytes([7; 32]), fields(names).fields(), &map(request), BY)
    }

    #[test]
    fn requests_that_choose_the_same_variant() {
        let all = ["bar", "baz", "foo"];
        type Request<'a> = &'a [(&'static str, &'a str)];
        let same: [(&[&'static str], Request<'_>, Request<'_>); 12] = [
            (&["foo"], &[("foo", "1"), ("other", "2")], &[("foo", "1"), ("other", "3")]),
            (&["bar", "foo"], &[("foo", "1"), ("bar", "abc")], &[("bar", "abc"), ("foo", "1")]),
            (&all, &[("foo", "1"), ("baz", "789")], &[("foo", "1"), ("baz", "789")]),
            (&["foo"], &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")]),
            (&["foo"], &[("foo", "1,2")], &[("foo", " 1, 2 ")]),
            (&["accept-language"], &[("accept-language", "en, de")], &[("accept-language", "de, en")]),
            (&["accept-language"], &[("accept-language", "en, de")], &[("accept-language", "eN, De")]),
            (&["accept-language"], &[("accept-language", "en, de")], &[("accept-language", " en ,   de")]),
            (&["accept-language"], &[("accept-language", "de;q=0.1, en")], &[("accept-language", "en, de;q=0.7")]),
            (&["accept-encoding"], &[("accept-encoding", "gzip, br")], &[("accept-encoding", "br;q=0.9,GZIP")]),
            (&["accept-encoding"], &[("accept-encoding", "gzip")], &[("accept-encoding", "x-gzip, br;q=0")]),
            (&["accept-encoding"], &[("accept-encoding", "")], &[("accept-encoding", "identity")]),
        ];
        for (names, one, other) in same {
            assert_eq!(key(names, one), key(names, other), "{one:?} {other:?}");
        }
        let different: [(&[&'static str], Request<'_>, Request<'_>); 10] = [
            (&["foo"], &[("foo", "1")], &[("foo", "2")]),
            (&["foo"], &[], &[("foo", "1")]),
            (&["foo"], &[], &[("foo", "")]),
            (&["bar", "foo"], &[("foo", "1"), ("bar", "2")], &[("foo", "2"), ("bar", "1")]),
            (&["bar", "foo"], &[("foo", "1")], &[]),
            (&all, &[("foo", "1"), ("bar", "abc4"), ("baz", "789")], &[("foo", "1"), ("bar", "abc"), ("baz", "789")]),
            (&["accept-encoding"], &[("accept-encoding", "gzip")], &[("accept-encoding", "gzip, br")]),
            (&["accept-encoding"], &[], &[("accept-encoding", "")]),
            (&["accept-language"], &[("accept-language", "de, en;q=0.5")], &[("accept-language", "en, de;q=0.5")]),
            (&["accept-language"], &[("accept-language", "de")], &[("accept-language", "de, en;q=0")]),
        ];
        for (names, one, other) in different {
            assert_ne!(key(names, one), key(names, other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn the_list_of_names_is_part_of_the_key() {
        assert_ne!(key(&["foo"], &[("foo", "1")]), key(&["bar"], &[("bar", "1")]));
        assert_ne!(key(&["foo"], &[("foo", "1")]), key(&["bar", "foo"], &[("foo", "1")]));
        assert_ne!(
            variant_key(&Key::from_bytes([1; 32]), &[], &HeaderMap::new(), BY),
            variant_key(&Key::from_bytes([2; 32]), &[], &HeaderMap::new(), BY)
        );
    }

    #[test]
    fn values_cannot_be_tried_out_without_the_secret() {
        let request = map(&[("authorization", "Basic dTpw"), ("accept-language", "en")]);
        let names = fields(&["accept-language", "authorization"]);
        let keys = |secret| {
            let by = Comparing { secret, ..BY };
            let key = variant_key(&Key::from_bytes([7; 32]), names.fields(), &request, by);
            (key, any_language_key(&Key::from_bytes([7; 32]), names.fields(), &request, by).expect("a language"))
        };
        let (one, other) = (keys(&[1; 32]), keys(&[2; 32]));
        assert!(one.0 != other.0 && one.1 != other.1);
    }

    #[test]
    fn without_normalising_bytes_count() {
        let raw = |value| {
            let request = map(&[("accept-language", value)]);
            variant_key(&Key::from_bytes([7; 32]), &[ACCEPT_LANGUAGE], &request, Comparing { normalise: false, ..BY })
        };
        assert_ne!(raw("en, de"), raw("de, en"));
        assert_eq!(raw("en, de"), raw("en ,de"));
    }

    proptest! {
        #[test]
        fn any_vary_and_any_request(varies in vec(any_value(), 0..3), values in vec(any_value(), 0..3)) {
            let mut response = HeaderMap::new();
            varies.into_iter().for_each(|value| { response.append(VARY, value); });
            let names = Vary::of(&response);
            prop_assert!(names.fields().len() <= VARY_FIELDS_MAX);
            for name in [ACCEPT_ENCODING, ACCEPT_LANGUAGE] {
                let mut request = HeaderMap::new();
                values.iter().for_each(|value| { request.append(&name, value.clone()); });
                let key = |request: &HeaderMap| {
                    variant_key(&Key::from_bytes([0; 32]), std::slice::from_ref(&name), request, BY)
                };
                prop_assert_eq!(key(&request) == key(&HeaderMap::new()), values.is_empty());
            }
        }
    }
}
