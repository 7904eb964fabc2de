//! Paths and authorities in the one form that routes, keys and purges compare (RFC 3986 section 6.2.2 and 6.2.3).
//!
//! Two spellings of one URL become the same text, and no spelling hides where a path really leads: dot segments are
//! resolved after `%2e` has been decoded. Reserved characters stay encoded (`/a%2Fb` is not `/a/b`), empty segments
//! stay (`/a//b` is not `/a/b`), and a `%` that starts no escape stays as it is. What goes to the origin is what the
//! client sent; this form is for comparing only.

use std::{borrow::Cow, net::Ipv6Addr};

/// The path without its query, normalised: escapes of unreserved characters decoded, other escapes in upper case, dot
/// segments removed. The empty path is `/`; what does not begin with a slash (`*`) stays as it is.
///
/// Normalising twice changes nothing.
pub fn normalise_path(path: &str) -> Cow<'_, str> {
    if path.is_empty() {
        return Cow::Borrowed("/");
    }
    if !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    match decode_unreserved(path) {
        Cow::Borrowed(path) => remove_dot_segments(path),
        Cow::Owned(path) => Cow::Owned(remove_dot_segments(&path).into_owned()),
    }
}

fn decode_unreserved(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    // Where the last `%` that starts no escape stands. A decoded digit right behind it would make an escape of it.
    let mut stray = None;
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(byte) = escape(rest.as_bytes()) else {
            stray = Some(out.len());
            out.push('%');
            rest = &rest[1..];
            continue;
        };
        let completes = byte.is_ascii_hexdigit() && stray.is_some_and(|stray| out.len() - stray <= 2);
        if is_unreserved(byte) && !completes {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend(rest[1..3].chars().map(|digit| digit.to_ascii_uppercase()));
        }
        rest = &rest[3..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The byte that an escape at the start of `text` stands for.
fn escape(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(1)? << 4 | digit(2)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether any server could find a dot segment in this path: one that decodes `%2e` first, or `%2f` and `%5c` as well,
/// that takes `\` for a slash, or that resolves `..` before it has taken `;parameters` off.
pub fn has_dot_segments(path: &str) -> bool {
    let is_dot_segment = |dots: Option<usize>| matches!(dots, Some(1 | 2));
    // Of the segment begun; `None` once it has something else.
    let mut dots = Some(0);
    let mut rest = path.as_bytes();
    while let Some(&first) = rest.first() {
        let escaped = if first == b'%' { escape(rest) } else { None };
        match escaped.unwrap_or(first) {
            b'.' => dots = dots.map(|dots| dots + 1),
            b'/' | b'\\' | b';' if is_dot_segment(dots) => return true,
            b'/' | b'\\' => dots = Some(0),
            _ => dots = None,
        }
        rest = &rest[if escaped.is_some() { 3 } else { 1 }..];
    }
    is_dot_segment(dots)
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash.
fn remove_dot_segments(path: &str) -> Cow<'_, str> {
    if !path[1..].split('/').any(|segment| matches!(segment, "." | "..")) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.truncate(out.rfind('/').unwrap_or(0));
                }
                if segments.peek().is_none() {
                    out.push('/');
                }
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    Cow::Owned(out)
}

/// A text that is not a host with an optional port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a host with an optional port")]
pub struct InvalidAuthority;

/// `host[:port]` in lower case, without the port if it is empty or the default of `scheme`; IPv6 addresses in their
/// shortest form. User information is refused.
pub fn normalise_authority<'a>(scheme: &str, authority: &'a str) -> Result<Cow<'a, str>, InvalidAuthority> {
    if is_plain(authority) {
        return Ok(Cow::Borrowed(authority));
    }
    let (host, port) = split_authority(authority)?;
    let port = port.filter(|port| Some(*port) != default_port(scheme));
    let canonical = canonical_host(host)?;
    if let Cow::Borrowed(host) = canonical {
        match port {
            None => return Ok(Cow::Borrowed(host)),
            Some(port) if is_decimal_of(&authority[host.len() + 1..], port) => return Ok(Cow::Borrowed(authority)),
            Some(_) => {}
        }
    }
    Ok(Cow::Owned(match port {
        Some(port) => format!("{canonical}:{port}"),
        None => canonical.into_owned(),
    }))
}

/// Whether it is what most requests name: a lower-case host, with a port of four digits or more or without one. That is
/// normal as it stands, and looked at on every hit.
fn is_plain(authority: &str) -> bool {
    let bytes = authority.as_bytes();
    let plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
    let host = bytes.iter().take_while(|byte| plain(byte)).count();
    match bytes.get(host..) {
        Some([]) => host > 0,
        // At most 59999, so that it is a port; at least 1000, so that it is the default of no scheme.
        Some([b':', b'1'..=b'9', rest @ ..]) => {
            let digits = rest.iter().all(u8::is_ascii_digit);
            host > 0 && digits && (rest.len() == 3 || (rest.len() == 4 && bytes[host + 1] < b'6'))
        }
        _ => false,
    }
}

/// The host, with the brackets of an IPv6 address, and the port.
fn split_authority(authority: &str) -> Result<(&str, Option<u16>), InvalidAuthority> {
    let host_end = if authority.starts_with('[') {
        authority.find(']').ok_or(InvalidAuthority)? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(host_end);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return Err(InvalidAuthority),
        Some("") => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(port.parse().map_err(|_| InvalidAuthority)?)
        }
        Some(_) => return Err(InvalidAuthority),
    };
    Ok((host, port))
}

fn canonical_host(host: &str) -> Result<Cow<'_, str>, InvalidAuthority> {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').ok_or(InvalidAuthority)?;
        let address: Ipv6Addr = address.parse().map_err(|_| InvalidAuthority)?;
        let canonical = format!("[{address}]");
        return Ok(if canonical == host { Cow::Borrowed(host) } else { Cow::Owned(canonical) });
    }
    if host.is_empty() || !host.bytes().all(is_reg_name) {
        return Err(InvalidAuthority);
    }
    let upper = host.bytes().any(|byte| byte.is_ascii_uppercase());
    Ok(if upper { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) })
}

/// `reg-name` of RFC 3986 section 3.2.2, by the byte.
fn is_reg_name(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

fn is_decimal_of(text: &str, port: u16) -> bool {
    (text == "0" || !text.starts_with('0')) && text.parse() == Ok(port)
}

fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("ws") {
        Some(80)
    } else if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss") {
        Some(443)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths() {
        for (raw, normal) in [
            ("", "/"),
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a//b", "/a//b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e", "/"),
            ("/%7euser/%41", "/~user/A"),
            ("/a%2fb", "/a%2Fb"),
            ("/..%2fa", "/..%2Fa"),
            ("/100%", "/100%"),
            ("/%zz%6", "/%zz%6"),
            ("/%%34%31", "/%%341"),
            ("/%4%31", "/%4%31"),
            ("/%%2e%2e/a", "/%../a"),
            ("/.well-known", "/.well-known"),
            ("/é/%C3%a9", "/é/%C3%A9"),
        ] {
            assert_eq!(normalise_path(raw), normal, "{raw}");
        }
    }

    #[test]
    fn dot_segments_in_any_spelling() {
        for path in [
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/.",
            "/%2e%2E/b",
            "/.%2e",
            "/a/..%2fb",
            "/a%2F../b",
            "/a/..%5cb",
            "/a\\..\\b",
            "/a/..;/b",
            "/a/..;x=1",
            "/%2e;b",
            "/..%3b/a",
        ] {
            assert!(has_dot_segments(path), "{path}");
        }
        for path in [
            "",
            "/",
            "*",
            "//",
            "/a//b",
            "/...",
            "/..a",
            "/a..",
            "/.well-known",
            "/a.b/c",
            "/a;..",
            "/a%2fb",
            "/%2e%2e%2e",
            "/100%",
            "/%",
            "/a%2",
            "/%252e%252e/a",
            "/é/..é",
        ] {
            assert!(!has_dot_segments(path), "{path}");
        }
    }

    #[test]
    fn normal_paths_are_not_copied() {
        assert!(matches!(normalise_path("/a/b.c/.well-known"), Cow::Borrowed(_)));
    }

    #[test]
    fn authorities() {
        for (scheme, raw, normal) in [
            ("http", "shop.example", Ok("shop.example")),
            ("http", "Shop.EXAMPLE:80", Ok("shop.example")),
            ("http", "shop.example:443", Ok("shop.example:443")),
            ("HTTPS", "shop.example:443", Ok("shop.example")),
            ("https", "shop.example:", Ok("shop.example")),
            ("https", "shop.example:0443", Ok("shop.example")),
            ("http", "shop.example:08080", Ok("shop.example:8080")),
            ("http", "[::1]:8080", Ok("[::1]:8080")),
            ("http", "[0:0::1]", Ok("[::1]")),
            ("http", "[::FFFF:10.0.0.1]:80", Ok("[::ffff:10.0.0.1]")),
            ("http", "127.0.0.1:80", Ok("127.0.0.1")),
            ("http", "", Err(InvalidAuthority)),
            ("http", ":80", Err(InvalidAuthority)),
            ("http", "user@shop.example", Err(InvalidAuthority)),
            ("http", "shop.example:65536", Err(InvalidAuthority)),
            ("http", "shop.example:+80", Err(InvalidAuthority)),
            ("http", "shop.example:80:80", Err(InvalidAuthority)),
            ("http", "::1", Err(InvalidAuthority)),
            ("http", "[::1", Err(InvalidAuthority)),
            ("http", "[::1]8080", Err(InvalidAuthority)),
            ("http", "[fe80::1%25eth0]", Err(InvalidAuthority)),
            ("http", "shop example", Err(InvalidAuthority)),
            ("http", "shop/example", Err(InvalidAuthority)),
        ] {
            assert_eq!(normalise_authority(scheme, raw).as_deref(), normal.as_deref(), "{raw}");
        }
    }

    #[test]
    fn normal_authorities_are_not_copied() {
        for authority in ["shop.example", "shop.example:80", "shop.example:8080", "[::1]:8080"] {
            assert!(matches!(normalise_authority("http", authority), Ok(Cow::Borrowed(_))), "{authority}");
        }
    }

    /// What a server makes of a path that decodes every escape of a dot before it resolves dot segments.
    fn resolved(path: &str) -> Vec<String> {
        let mut stack = Vec::new();
        for segment in path.replace("%2e", ".").replace("%2E", ".").split('/').skip(1) {
            match segment {
                "." => {}
                ".." => drop(stack.pop()),
                segment => stack.push(segment.to_owned()),
            }
        }
        stack
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in "/[a-c/.%0-9A-Fé]{0,24}") {
            let once = normalise_path(&path).into_owned();
            prop_assert_eq!(normalise_path(&once), &once[..]);
        }

        #[test]
        fn anything_goes(path in any::<String>(), authority in any::<String>()) {
            normalise_path(&path);
            has_dot_segments(&path);
            if let Ok(once) = normalise_authority("https", &authority) {
                let twice = normalise_authority("https", &once).map(Cow::into_owned);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
            }
        }

        #[test]
        fn without_dot_segments_segments_stay_in_their_place(path in "/[ab/.%2eEfF]{0,24}") {
            if !has_dot_segments(&path) {
                prop_assert_eq!(normalise_path(&path).matches('/').count(), path.matches('/').count());
            }
        }

        #[test]
        fn no_spelling_hides_where_a_path_leads(
            segments in proptest::collection::vec("(a|b|\\.|%2e|%2E|\\.\\.|%2e\\.|\\.%2E|%2E%2e|\\.a|)", 1..8),
        ) {
            let path = format!("/{}", segments.join("/"));
            let normal = normalise_path(&path);
            let expected = resolved(&path);
            let found: Vec<&str> = normal.split('/').skip(1).collect();
            // A dot segment at the end leaves a slash, which the reference does not keep.
            let found = if found.len() > expected.len() { &found[..found.len() - 1] } else { &found[..] };
            prop_assert_eq!(found, &expected[..]);
        }
    }
}
