//! Tags an origin gives its responses, for purges to name them by.

use http::{HeaderMap, HeaderName};

/// A response with more tags than may be kept: a purge of the ones left out would miss it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} tags")]
pub struct TooMany(pub usize);

/// The distinct tags of a response, read from `tag_fields` in that order, at most `max`.
///
/// `Surrogate-Key` and `xkey` separate them by blanks, `Cache-Tag` and its kin by commas; `Cache-Groups` is a
/// Structured Field list of strings (RFC 9875) and ignored as a whole when it is not. Fields of unknown syntax may use
/// blanks and commas. Bytes that are no UTF-8 are replaced, as a purge could not name them.
pub fn of(response: &HeaderMap, tag_fields: &[HeaderName], max: usize) -> Result<Vec<String>, TooMany> {
    let mut tags = Vec::new();
    for name in tag_fields {
        match name.as_str() {
            "cache-groups" => groups(response, name, &mut tags, max)?,
            "surrogate-key" | "xkey" => split(response, name, is_blank, &mut tags, max)?,
            "cache-tag" | "edge-cache-tag" | "cdn-tag" => split(response, name, |c| c == ',', &mut tags, max)?,
            _ => split(response, name, |c| c == ',' || is_blank(c), &mut tags, max)?,
        }
    }
    Ok(tags)
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

fn split(
    response: &HeaderMap,
    name: &HeaderName,
    separator: fn(char) -> bool,
    tags: &mut Vec<String>,
    max: usize,
) -> Result<(), TooMany> {
    for line in response.get_all(name) {
        let line = String::from_utf8_lossy(line.as_bytes());
        for tag in line.split(separator) {
            add(tag.trim_matches(is_blank), tags, max)?;
        }
    }
    Ok(())
}

fn groups(response: &HeaderMap, name: &HeaderName, tags: &mut Vec<String>, max: usize) -> Result<(), TooMany> {
    let lines: Vec<_> = response.get_all(name).iter().map(|line| line.as_bytes()).collect();
    let value = lines.join(&b","[..]);
    let Ok(list) = sfv::Parser::new(&value).parse::<sfv::List>() else { return Ok(()) };
    let group = |entry: &sfv::ListEntry| match entry {
        sfv::ListEntry::Item(item) => item.bare_item.as_string().map(|text| text.as_str().to_owned()),
        sfv::ListEntry::InnerList(_) => None,
    };
    let groups: Option<Vec<_>> = list.iter().map(group).collect();
    groups.unwrap_or_default().iter().try_for_each(|group| add(group, tags, max))
}

fn add(tag: &str, tags: &mut Vec<String>, max: usize) -> Result<(), TooMany> {
    if tag.is_empty() || tags.iter().any(|known| known == tag) {
        return Ok(());
    }
    if tags.len() >= max {
        return Err(TooMany(max));
    }
    tags.push(tag.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::fields::tests::{any_value, map},
        *,
    };

    const FIELDS: [HeaderName; 5] = [
        HeaderName::from_static("surrogate-key"),
        HeaderName::from_static("xkey"),
        HeaderName::from_static("cache-tag"),
        HeaderName::from_static("cache-groups"),
        HeaderName::from_static("x-tags"),
    ];

    fn tags(lines: &[(&'static str, &str)], max: usize) -> Result<Vec<String>, TooMany> {
        of(&map(lines), &FIELDS, max)
    }

    #[test]
    fn each_field_has_its_syntax() {
        let table: [(&'static str, &str, &[&str]); 9] = [
            ("surrogate-key", " a,b  c\ta,b", &["a,b", "c"]),
            ("xkey", "a b", &["a", "b"]),
            ("cache-tag", "a b, c,,", &["a b", "c"]),
            ("cache-groups", r#""a, b";x=1, "c""#, &["a, b", "c"]),
            ("cache-groups", r#""a", token"#, &[]),
            ("cache-groups", r#""a", ("b")"#, &[]),
            ("cache-groups", r#""a", ,"#, &[]),
            ("x-tags", "a, b c", &["a", "b", "c"]),
            ("other", "a", &[]),
        ];
        for (name, value, expected) in table {
            assert_eq!(
                tags(&[(name, value)], 9).as_deref(),
                Ok(&expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn lines_and_fields_add_up_without_repeats() {
        let lines = [("xkey", "b"), ("surrogate-key", "a b"), ("surrogate-key", "c"), ("cache-groups", r#""a""#)];
        assert_eq!(tags(&lines, 3), Ok(vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(tags(&lines, 2), Err(TooMany(2)));
        let split = [("cache-groups", r#""a""#), ("cache-groups", r#""b""#)];
        assert_eq!(tags(&split, 2), Ok(vec!["a".into(), "b".into()]));
    }

    proptest! {
        #[test]
        fn any_value_gives_bounded_tags(value in any_value(), field in 0..FIELDS.len(), max in 0..4usize) {
            let response = HeaderMap::from_iter([(FIELDS[field].clone(), value)]);
            match of(&response, &FIELDS, max) {
                Ok(tags) => prop_assert!(tags.len() <= max && tags.iter().all(|tag| !tag.is_empty())),
                Err(error) => prop_assert_eq!(error, TooMany(max)),
            }
        }
    }
}
