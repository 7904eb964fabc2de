//! Field lines as such: which ones end at this hop (RFC 9110 section 7.6.1), and how a list is taken apart (section
//! 5.6.1).

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
    },
};

/// Fields that concern this connection or this proxy alone, whether or not `Connection` names them. `Trailer` is not
/// one of them: it describes the message and travels with it.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHORIZATION,
];

/// What `Connection` cannot take out, whatever it names: whom the message is for, how long it is, and where it has been.
const ESSENTIAL: [HeaderName; 3] = [HOST, CONTENT_LENGTH, HeaderName::from_static("cdn-loop")];

/// Options of `Connection` that name no field, or one that ends at this hop anyway.
const OPTIONS: [&[u8]; 4] = [b"keep-alive", b"close", b"te", b"upgrade"];

/// Removes what must neither be forwarded nor stored: the fields above and those that `Connection` names.
///
/// Whatever depends on a field that `Connection` may name (storability on `Cache-Control`, say) has to be decided
/// before or after this in full, not half and half.
pub fn strip_hop_by_hop(fields: &mut HeaderMap) {
    // Most messages have none of them; one pass over the names costs less than to look each of them up.
    if !fields.keys().any(is_hop_by_hop) {
        return;
    }
    for name in nominated(fields) {
        fields.remove(name);
    }
    for name in &HOP_BY_HOP {
        fields.remove(name);
    }
}

/// Whether a field ends at this hop by its name.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// Removes what `Connection` names, and leaves the fields above for whoever answers to them.
///
/// For a request as it arrives: the origin will not see those fields, so neither may a key be made of them.
pub fn strip_nominated(fields: &mut HeaderMap) {
    for name in nominated(fields) {
        if !HOP_BY_HOP.contains(&name) {
            fields.remove(name);
        }
    }
}

/// Whether `Connection` may name an end-to-end field.
pub fn nominates(fields: &HeaderMap) -> bool {
    let mut names = fields.get_all(CONNECTION).iter().flat_map(|line| members(line.as_bytes()));
    names.any(|name| !OPTIONS.iter().any(|option| option.eq_ignore_ascii_case(name)))
}

/// The names in `Connection`. `close` is an option that names no field.
fn nominated(fields: &HeaderMap) -> Vec<HeaderName> {
    let names = fields.get_all(CONNECTION).iter().flat_map(|line| members(line.as_bytes()));
    let names = names.filter_map(|name| HeaderName::from_bytes(name).ok());
    names.filter(|name| name != "close" && !ESSENTIAL.contains(name)).collect()
}

/// The members of one line of a list, without blanks around them; empty ones are left out, commas in quoted strings do
/// not separate.
pub fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    let pieces = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = comma(rest).unwrap_or(rest.len());
        let piece = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(trim(piece))
    });
    pieces.filter(|piece| !piece.is_empty())
}

/// Where the first comma outside quoted strings is.
fn comma(bytes: &[u8]) -> Option<usize> {
    let mut quotes = Quotes::default();
    bytes.iter().position(|&byte| !quotes.inside(byte) && byte == b',')
}

/// Without blanks at either end.
pub fn trim(bytes: &[u8]) -> &[u8] {
    let Some(first) = bytes.iter().position(|&byte| !is_blank(byte)) else { return &[] };
    let last = bytes.iter().rposition(|&byte| !is_blank(byte)).unwrap_or(first);
    &bytes[first..=last]
}

/// All lines of a field as one value, blanks around its commas removed; `None` if there is no line.
///
/// Two requests with the same value here say the same (RFC 9111 section 4.1), whatever the field means. Blanks within
/// quoted strings may mean something and stay.
pub(super) fn combined<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = fields.get_all(name).iter().map(|line| line.as_bytes());
    let first = lines.next()?;
    let second = lines.next();
    if second.is_none() && !first.contains(&b',') {
        return Some(Cow::Borrowed(trim(first)));
    }
    let mut value = Vec::with_capacity(first.len());
    push_line(&mut value, first);
    for line in second.into_iter().chain(lines) {
        value.push(b',');
        push_line(&mut value, line);
    }
    Some(Cow::Owned(value))
}

fn push_line(value: &mut Vec<u8>, line: &[u8]) {
    let mut quotes = Quotes::default();
    let mut member = true;
    for &byte in trim(line) {
        let inside = quotes.inside(byte);
        if !inside && byte == b',' {
            let kept = value.iter().rposition(|&byte| !is_blank(byte)).map_or(0, |last| last + 1);
            value.truncate(kept);
            value.push(b',');
            member = true;
        } else if !(member && is_blank(byte)) {
            value.push(byte);
            member = false;
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Follows quoted strings byte by byte.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    /// Takes the next byte and says whether it belongs to a quoted string, its quotes included.
    fn inside(&mut self, byte: u8) -> bool {
        let was_open = self.open;
        if self.escaped {
            self.escaped = false;
        } else if was_open && byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.open = !was_open;
        }
        was_open || self.open
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http::HeaderValue;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// A map of the given lines.
    pub(in crate::object) fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |&(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).expect("a valid value"))
        };
        let mut map = HeaderMap::new();
        for (name, value) in lines.iter().map(line) {
            map.append(name, value);
        }
        map
    }

    /// Any field value a parser can meet, biased towards what separates and quotes.
    pub(in crate::object) fn any_value() -> impl Strategy<Value = HeaderValue> {
        let byte = prop_oneof![
            4 => proptest::sample::select(b" ,;=\"\\*/-0159WwAbq.\t".as_slice()),
            1 => any::<u8>(),
        ];
        let visible = |byte: &u8| *byte == b'\t' || (*byte >= 32 && *byte != 127);
        vec(byte.prop_filter("allowed in a value", visible), 0..40)
            .prop_map(|bytes| HeaderValue::from_bytes(&bytes).expect("only allowed bytes"))
    }

    #[test]
    fn connection_and_what_it_names_are_stripped() {
        let mut fields = map(&[
            ("connection", "a, B ,close"),
            ("connection", "\t, x-c,keep-alive, not a name"),
            ("a", "1"),
            ("a", "2"),
            ("b", "2"),
            ("x-c", "3"),
            ("close", "stays"),
            ("c", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic x"),
            ("proxy-authentication-info", "x"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("trailer", "expires"),
            ("set-cookie", "a=b"),
            ("content-range", "bytes 0-1/2"),
        ]);
        strip_hop_by_hop(&mut fields);
        let left = [
            ("close", "stays"),
            ("c", "3"),
            ("trailer", "expires"),
            ("set-cookie", "a=b"),
            ("content-range", "bytes 0-1/2"),
        ];
        assert_eq!(fields, map(&left));
    }

    #[test]
    fn connection_cannot_name_what_the_message_needs() {
        let mut fields = map(&[("connection", "host, Content-Length, cdn-loop, x"), ("host", "a"), ("x", "1")]);
        fields.extend(map(&[("content-length", "5"), ("cdn-loop", "b")]));
        strip_hop_by_hop(&mut fields);
        assert_eq!(fields, map(&[("host", "a"), ("content-length", "5"), ("cdn-loop", "b")]));
    }

    #[test]
    fn what_is_nominated_goes_and_the_connections_own_fields_stay() {
        let mut fields = map(&[
            ("connection", "upgrade, Authorization"),
            ("connection", "keep-alive, x-tenant"),
            ("upgrade", "websocket"),
            ("keep-alive", "timeout=5"),
            ("authorization", "a"),
            ("x-tenant", "b"),
            ("accept", "c"),
        ]);
        assert!(nominates(&fields));
        strip_nominated(&mut fields);
        assert_eq!(fields.len(), 5);
        for stays in ["connection", "upgrade", "keep-alive", "accept"] {
            assert!(fields.contains_key(stays), "{stays}");
        }
        for options in ["", "keep-alive", "Close", "TE, close", " ,Upgrade"] {
            assert!(!nominates(&map(&[("connection", options)])), "{options}");
        }
        assert!(nominates(&map(&[("connection", "close"), ("connection", "te, cookie")])));
        assert!(!nominates(&map(&[])));
    }

    #[test]
    fn members_of_a_list() {
        let of = |line: &'static str| members(line.as_bytes()).collect::<Vec<_>>();
        assert_eq!(of(" a ,, b\t,"), [b"a", b"b"]);
        assert_eq!(of(r#"a="x, \", y" , b"#), [br#"a="x, \", y""#.as_slice(), b"b"]);
        assert!(of(" , ,").is_empty());
        assert!(of("").is_empty());
    }

    #[test]
    fn lines_combine_into_one_value() {
        let value = |lines: &[(&'static str, &str)]| {
            combined(&map(lines), &HeaderName::from_static("foo")).map(Cow::into_owned)
        };
        assert_eq!(value(&[("bar", "1")]), None);
        assert_eq!(value(&[("foo", "")]), Some(vec![]));
        assert_eq!(value(&[("foo", "1, 2")]), value(&[("foo", "1"), ("foo", "2")]));
        assert_eq!(value(&[("foo", "1,2")]), value(&[("foo", " 1 ,\t2 ")]));
        assert_ne!(value(&[("foo", "1 2")]), value(&[("foo", "12")]));
        assert_ne!(value(&[("foo", "\"1, 2\"")]), value(&[("foo", "\"1,2\"")]));
        assert_ne!(value(&[("foo", "1")]), value(&[("foo", "1"), ("foo", "")]));
    }

    proptest! {
        #[test]
        fn stripping_never_panics_and_removes_connection(values in vec(any_value(), 0..4)) {
            let mut fields = map(&[("te", "x"), ("a", "1")]);
            values.into_iter().for_each(|value| { fields.append(CONNECTION, value); });
            strip_hop_by_hop(&mut fields);
            prop_assert!(!fields.contains_key(CONNECTION) && !fields.contains_key(TE));
        }

        #[test]
        fn combining_twice_changes_nothing(value in any_value()) {
            let name = HeaderName::from_static("foo");
            let once = |value: HeaderValue| {
                combined(&HeaderMap::from_iter([(name.clone(), value)]), &name).map(Cow::into_owned).unwrap_or_default()
            };
            let first = once(value);
            let again = once(HeaderValue::from_bytes(&first).expect("nothing is added to a value but commas"));
            prop_assert_eq!(first, again);
        }
    }
}
