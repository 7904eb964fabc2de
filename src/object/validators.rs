//! Validators of a response (RFC 9110 section 8.8): entity tags and how they compare, modification dates, and the
//! conditions a cache makes of them.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        DATE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
    },
};

use super::{date, fields::trim, head::Head, time::Timestamp};

/// Entity tag and modification date.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`, as sent.
    pub etag: Option<EntityTag>,
    /// `Last-Modified`, parsed.
    pub last_modified: Option<Timestamp>,
    /// `Date`, parsed.
    pub date: Option<Timestamp>,
}

/// An entity tag, kept as it was sent so that it goes back to the origin unchanged, malformed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTag(HeaderValue);

/// An entity tag in a list, not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag<'a> {
    weak: bool,
    /// With its quotes; a malformed tag is all there is, and equals nothing but the same bytes.
    opaque: &'a [u8],
}

// === impl Validators ===

impl Validators {
    /// Those of a response with these fields. A field that is malformed or sent twice with different values is no
    /// validator.
    pub fn of(fields: &HeaderMap) -> Self {
        let time = |name| single(fields, &name).and_then(|value| date::parse(value.as_bytes()));
        Self {
            etag: single(fields, &ETAG).and_then(EntityTag::new),
            last_modified: time(LAST_MODIFIED),
            date: time(DATE),
        }
    }

    /// Those of a stored response.
    pub fn of_head(head: &Head) -> Self {
        let single = |name: &HeaderName| only(head.get_all(name));
        let time = |name| single(name).and_then(date::parse);
        Self {
            etag: single(&ETAG).and_then(EntityTag::from_bytes),
            last_modified: time(&LAST_MODIFIED),
            date: time(&DATE),
        }
    }

    /// Whether the origin can be asked if the response still holds.
    pub fn any(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    /// Whether both name the same bytes: equal strong entity tags or, where neither has a tag, equal modification dates
    /// that are strong.
    pub fn same_strong(&self, other: &Self) -> bool {
        match (&self.etag, &other.etag) {
            (Some(one), Some(other)) => one.tag().matches_strong(other.tag()),
            (None, None) => match (self.strong_last_modified(), other.strong_last_modified()) {
                (Some(one), Some(other)) => one == other,
                _ => false,
            },
            _ => false,
        }
    }

    /// The modification date if no second change can hide behind it: `Date` is at least one second later (section
    /// 8.8.2.2).
    pub fn strong_last_modified(&self) -> Option<Timestamp> {
        let modified = self.last_modified?;
        (self.date? >= modified.plus(Duration::from_secs(1))).then_some(modified)
    }
}

/// Makes a request one for validation of a stored response (RFC 9111 section 4.3.1).
///
/// The client's own conditions go, and with them `Range`: they speak of what the client holds, and the answer is to
/// serve all who wait for it.
pub fn add_conditions(stored: &Validators, request: &mut HeaderMap) {
    for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE] {
        request.remove(name);
    }
    if let Some(etag) = &stored.etag {
        request.insert(IF_NONE_MATCH, etag.value().clone());
    }
    if let Some(modified) = stored.last_modified {
        request.insert(IF_MODIFIED_SINCE, date::format(modified));
    }
}

/// The only line of that name; several are fine as long as they are equal.
pub(super) fn single<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    only(fields.get_all(name).iter())
}

fn only<T: PartialEq>(mut lines: impl Iterator<Item = T>) -> Option<T> {
    let first = lines.next()?;
    lines.all(|line| line == first).then_some(first)
}

// === impl EntityTag ===

impl EntityTag {
    /// A copy, so that it does not keep a connection's read buffer alive. An empty value is no tag.
    pub fn new(value: &HeaderValue) -> Option<Self> {
        Self::from_bytes(value.as_bytes())
    }

    fn from_bytes(value: &[u8]) -> Option<Self> {
        let value = trim(value);
        if value.is_empty() {
            return None;
        }
        HeaderValue::from_bytes(value).ok().map(Self)
    }

    /// As sent.
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// For comparison.
    pub fn tag(&self) -> Tag<'_> {
        Tag::whole(self.0.as_bytes())
    }
}

// === impl Tag ===

impl<'a> Tag<'a> {
    /// `value` as one tag.
    pub fn whole(value: &'a [u8]) -> Self {
        match value.strip_prefix(b"W/") {
            Some(opaque) if is_quoted(opaque) => Self { weak: true, opaque },
            _ => Self { weak: false, opaque: value },
        }
    }

    /// The tags of a list such as `If-None-Match`. A tag has no escapes, so this is not the list of quoted strings it
    /// looks like.
    pub fn list(line: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut rest = line;
        std::iter::from_fn(move || {
            let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
            let (tag, after) = rest[start..].split_at(length(&rest[start..]));
            rest = after;
            Some(Self::whole(trim(tag)))
        })
    }

    /// Weak comparison (section 8.8.3.2): the same but for strength.
    pub fn matches_weak(self, other: Tag<'_>) -> bool {
        self.opaque == other.opaque
    }

    /// Strong comparison: the same, neither weak nor malformed.
    pub fn matches_strong(self, other: Tag<'_>) -> bool {
        self.is_strong() && other.is_strong() && self.opaque == other.opaque
    }

    /// Whether it names bytes rather than meaning.
    pub fn is_strong(self) -> bool {
        !self.weak && is_quoted(self.opaque)
    }

    /// Whether it stands for any tag.
    pub fn is_any(self) -> bool {
        self.opaque == b"*"
    }
}

/// How long the tag is that `list` starts with: to its closing quote, or to the next comma if it is malformed.
fn length(list: &[u8]) -> usize {
    let prefix = if list.starts_with(b"W/") { 2 } else { 0 };
    let closing = match list[prefix..].split_first() {
        Some((b'"', rest)) => rest.iter().position(|&byte| byte == b'"').map(|at| prefix + at + 2),
        _ => None,
    };
    closing.or_else(|| list.iter().position(|&byte| byte == b',')).unwrap_or(list.len())
}

fn is_quoted(opaque: &[u8]) -> bool {
    matches!(opaque, [b'"', tag @ .., b'"'] if !tag.contains(&b'"'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::fields::tests::{any_value, map},
        *,
    };

    fn tag(text: &'static str) -> Tag<'static> {
        Tag::whole(text.as_bytes())
    }

    #[test]
    fn comparison_of_tags() {
        // RFC 9110 section 8.8.3.2, table 3.
        let table = [
            (r#"W/"1""#, r#"W/"1""#, false, true),
            (r#"W/"1""#, r#"W/"2""#, false, false),
            (r#"W/"1""#, r#""1""#, false, true),
            (r#""1""#, r#""1""#, true, true),
            ("abc", "abc", false, true),
            ("abc", r#""abc""#, false, false),
            (r#"w/"1""#, r#""1""#, false, false),
            (r#"w/"1""#, r#"w/"1""#, false, true),
            (r#"W\"1""#, r#"W\"1""#, false, true),
            (r#"W"1""#, r#"W/"1""#, false, false),
        ];
        for (one, other, strong, weak) in table {
            assert_eq!(tag(one).matches_strong(tag(other)), strong, "{one} {other}");
            assert_eq!(tag(one).matches_weak(tag(other)), weak, "{one} {other}");
            assert_eq!(tag(other).matches_strong(tag(one)), strong, "{other} {one}");
        }
    }

    #[test]
    fn lists_of_tags() {
        let list = |line: &'static str| Tag::list(line.as_bytes()).collect::<Vec<_>>();
        assert_eq!(list(r#" "1" ,,W/"2","a,b" ,"#), [tag(r#""1""#), tag(r#"W/"2""#), tag(r#""a,b""#)]);
        assert_eq!(list(r#""\", "b""#), [tag(r#""\""#), tag(r#""b""#)]);
        assert_eq!(list(r#"abc, "d"#), [tag("abc"), tag("\"d")]);
        assert_eq!(list("*"), [tag("*")]);
        assert!(list(" , ").is_empty());
    }

    #[test]
    fn validators_of_a_response() {
        let fields = map(&[
            ("etag", "W/\"1\""),
            ("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT"),
            ("date", "Wed, 01 Jan 2020 00:00:01 GMT"),
        ]);
        let found = Validators::of(&fields);
        assert_eq!(found.etag, EntityTag::new(&HeaderValue::from_static("W/\"1\"")));
        assert_eq!(found.last_modified, Some(Timestamp::from_secs(1_577_836_800)));
        assert_eq!(found.strong_last_modified(), found.last_modified);
        assert_eq!(Validators::of(&map(&[("etag", "\"1\""), ("etag", "\"2\"")])).etag, None);
        assert!(!Validators::of(&map(&[("etag", ""), ("last-modified", "yesterday")])).any());
    }

    #[test]
    fn strong_validators() {
        let of = |lines: &[(&'static str, &str)]| Validators::of(&map(lines));
        let (early, late) = ("Wed, 01 Jan 2020 00:00:00 GMT", "Wed, 01 Jan 2020 00:00:09 GMT");
        let strong = of(&[("etag", "\"1\""), ("last-modified", early), ("date", late)]);
        assert!(strong.same_strong(&of(&[("etag", "\"1\"")])));
        assert!(!strong.same_strong(&of(&[("etag", "W/\"1\"")])));
        assert!(!strong.same_strong(&of(&[("last-modified", early), ("date", late)])));
        let dated = of(&[("last-modified", early), ("date", late)]);
        assert!(dated.same_strong(&dated));
        assert!(!dated.same_strong(&of(&[("last-modified", early), ("date", early)])));
        assert!(!Validators::default().same_strong(&Validators::default()));
    }

    #[test]
    fn conditions_replace_the_clients() {
        let mut request = map(&[
            ("if-none-match", "\"client\""),
            ("if-match", "\"client\""),
            ("if-unmodified-since", "x"),
            ("if-range", "\"client\""),
            ("range", "bytes=0-1"),
            ("abc", "123"),
        ]);
        let stored = Validators::of(&map(&[("etag", "W/\"1\""), ("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT")]));
        add_conditions(&stored, &mut request);
        let expected =
            [("abc", "123"), ("if-none-match", "W/\"1\""), ("if-modified-since", "Wed, 01 Jan 2020 00:00:00 GMT")];
        assert_eq!(request, map(&expected));
    }

    proptest! {
        #[test]
        fn prop_a_head_has_those_of_its_fields(
            lines in proptest::collection::vec((0..3usize, any_value()), 0..5),
            dated: bool,
        ) {
            let names = [ETAG, LAST_MODIFIED, DATE];
            let mut fields = HeaderMap::new();
            for (name, value) in lines {
                fields.append(&names[name], value);
            }
            if dated {
                fields.append(DATE, HeaderValue::from_static("Wed, 01 Jan 2020 00:00:01 GMT"));
            }
            let head = Head::new(http::StatusCode::OK, &fields);
            prop_assert_eq!(Validators::of_head(&head), Validators::of(&fields));
        }

        #[test]
        fn any_tag_list_is_taken_apart(value in any_value()) {
            let tags = Tag::list(value.as_bytes()).count();
            prop_assert!(tags <= value.len());
            if let Some(etag) = EntityTag::new(&value) {
                prop_assert!(etag.tag().matches_weak(etag.tag()));
            }
        }

        #[test]
        fn a_well_formed_tag_is_found_in_a_list(opaque in "[!#-~]{0,8}", before in "(W/)?\"[!#-~]{0,4}\"") {
            let etag = format!("\"{opaque}\"");
            let list = format!("{before} , {etag}");
            prop_assert!(Tag::list(list.as_bytes()).any(|tag| tag.matches_strong(Tag::whole(etag.as_bytes()))));
        }
    }
}
