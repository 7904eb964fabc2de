//! Keeps credentials out of log lines.

use http::{HeaderName, header};

/// Stands where a secret was.
pub const MASK: &str = "***";

/// Whether a header field's value is a credential.
pub fn is_secret_field(name: &HeaderName) -> bool {
    matches!(*name, header::AUTHORIZATION | header::PROXY_AUTHORIZATION | header::COOKIE | header::SET_COOKIE)
        || is_secret_argument(name.as_str())
}

/// Whether a query argument's value is a credential, by its name: `key`, `api_key`, `accessToken`, `X-Amz-Signature`...
/// Rather one too many than one too few.
pub fn is_secret_argument(name: &str) -> bool {
    let mut decoded = [0; NAME_MAX];
    decode(name, &mut decoded).split(|byte| !byte.is_ascii_alphanumeric()).any(is_secret_word)
}

/// Gives `url` to `write` in pieces: without userinfo, and with [`MASK`] for the values of secret arguments.
pub fn url<'a>(url: &'a str, mut write: impl FnMut(&'a str)) {
    let (before, query) = match url.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (url, None),
    };
    without_userinfo(before, &mut write);
    let Some(query) = query else { return };
    write("?");
    for (index, argument) in query.split('&').enumerate() {
        if index > 0 {
            write("&");
        }
        self::argument(argument, &mut write);
    }
}

/// Longer names are cut: what ends in `key` after 64 bytes is not one.
const NAME_MAX: usize = 64;

/// Parts of a name that make it secret.
const WORDS: &[&str] = &["bearer", "jwt", "otp", "pass", "passphrase", "pwd", "session", "sessionid", "sid", "sig"];

/// Endings of such parts that do: `apikey`, `accessToken`.
const ENDINGS: &[&str] = &[
    "auth",
    "authorization",
    "credential",
    "credentials",
    "key",
    "passwd",
    "password",
    "secret",
    "signature",
    "token",
];

fn is_secret_word(word: &[u8]) -> bool {
    WORDS.iter().any(|secret| secret.as_bytes() == word) || ENDINGS.iter().any(|end| word.ends_with(end.as_bytes()))
}

fn without_userinfo<'a>(url: &'a str, write: &mut impl FnMut(&'a str)) {
    let Some(authority) = url.find("://").map(|scheme| scheme + 3) else { return write(url) };
    let end = url[authority..].find(['/', '#']).map_or(url.len(), |end| authority + end);
    match url[authority..end].rfind('@') {
        Some(at) => {
            write(&url[..authority]);
            write(&url[authority + at + 1..]);
        }
        None => write(url),
    }
}

/// One argument of a query. Some take `;` for a separator as well, so a name may follow one; a secret then goes on to
/// the end, since its value may contain one.
fn argument<'a>(argument: &'a str, write: &mut impl FnMut(&'a str)) {
    let mut start = 0;
    for part in argument.split(';') {
        if let Some((name, value)) = part.split_once('=')
            && is_secret_argument(name)
            && !value.is_empty()
        {
            write(&argument[..start + name.len() + 1]);
            return write(MASK);
        }
        start += part.len() + 1;
    }
    write(argument);
}

/// The name in lower case with its escapes resolved: `api%5FKey` is `api_key`.
fn decode<'a>(name: &str, out: &'a mut [u8; NAME_MAX]) -> &'a [u8] {
    let mut rest = name.as_bytes();
    let mut length = 0;
    while length < NAME_MAX && !rest.is_empty() {
        let (byte, taken) = match rest {
            [b'%', high, low, ..] => hex(*high, *low).map_or((b'%', 1), |byte| (byte, 3)),
            _ => (rest[0], 1),
        };
        out[length] = byte.to_ascii_lowercase();
        length += 1;
        rest = &rest[taken..];
    }
    &out[..length]
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(text: &str) -> String {
        let mut out = String::new();
        url(text, |piece| out.push_str(piece));
        out
    }

    #[test]
    fn secrets_are_masked() {
        for (given, shown) in [
            ("/a?x=1&key=abc", "/a?x=1&key=***"),
            ("/a?api_key=abc&x=1", "/a?api_key=***&x=1"),
            ("/a?accessToken=abc", "/a?accessToken=***"),
            ("/a?X-Amz-Signature=abc&X-Amz-Date=1", "/a?X-Amz-Signature=***&X-Amz-Date=1"),
            ("/a?X-Amz-Credential=abc", "/a?X-Amz-Credential=***"),
            ("/a?API%5fKEY=abc", "/a?API%5fKEY=***"),
            ("/a?%6Bey=abc", "/a?%6Bey=***"),
            ("/a?user[password]=abc", "/a?user[password]=***"),
            ("/a?x=1;token=a;b&y=2", "/a?x=1;token=***&y=2"),
            ("/a?sig=a=b?c", "/a?sig=***"),
            ("/a?key=", "/a?key="),
            ("https://user:pw@host:1/a?b=c", "https://host:1/a?b=c"),
            ("https://u@v:pw@host", "https://host"),
        ] {
            assert_eq!(masked(given), shown);
        }
    }

    #[test]
    fn the_rest_is_shown() {
        for text in [
            "/",
            "",
            "*",
            "/a@b",
            "/a?keyword=x&page=2",
            "/a?keys_only",
            "/a?",
            "/a?&&",
            "/a?b@c=1",
            "host:443",
            "https://host/@x",
            "/a?q=key",
            "/a?design=1",
            "/a?author=x",
            "/a?%zz=%",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn fields() {
        for name in ["authorization", "cookie", "set-cookie", "x-api-key", "x-goog-api-key", "x-auth-token", "api-key"]
        {
            assert!(is_secret_field(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["host", "accept", "cache-status", "etag", "x-request-id"] {
            assert!(!is_secret_field(&HeaderName::from_static(name)), "{name}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            masked(&text);
        }

        #[test]
        fn a_secret_is_never_shown(before in "[a-z=&;%]{0,20}", after in "[a-z=&;%]{0,20}") {
            let shown = masked(&format!("/p?{before}&token=S3CR3T&{after}"));
            prop_assert!(!shown.contains("S3CR3T"), "{}", shown);
        }
    }
}
