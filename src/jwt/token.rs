//! The parts of a token (RFC 7515 section 7.1), before anything in them is believed.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Map, Value};

use super::fault::Fault;

/// What a token says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    /// What it claims to be signed with.
    pub(super) alg: String,
    /// Which key it claims to be signed with.
    pub(super) kid: Option<String>,
    /// Whether it asks for extensions, of which none is known here.
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// A token, taken apart.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) head: Head,
    pub(super) claims: Map<String, Value>,
    /// What is signed.
    pub(super) message: &'a [u8],
    /// In base64url.
    pub(super) signature: &'a str,
}

/// Whether these bytes have the form of a JWT rather than of a token that somebody has made up: three parts of
/// base64url with dots between them. The last may be empty.
pub fn looks_like(token: &[u8]) -> bool {
    split(token).is_some()
}

fn split(token: &[u8]) -> Option<[&str; 3]> {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let text = std::str::from_utf8(token).ok()?;
    let mut parts = text.split('.');
    let [head, claims, signature] = [parts.next()?, parts.next()?, parts.next()?];
    let whole = parts.next().is_none() && !head.is_empty() && !claims.is_empty();
    (whole && token.iter().all(|byte| is_base64url(*byte) || *byte == b'.')).then_some([head, claims, signature])
}

impl<'a> Token<'a> {
    /// Takes it apart.
    ///
    /// # Errors
    /// Where it is no JWT, is not signed, or asks for extensions.
    pub(super) fn parse(token: &'a [u8]) -> Result<Self, Fault> {
        let [head, claims, signature] = split(token).ok_or(Fault::Malformed)?;
        let message = &token[..head.len() + 1 + claims.len()];
        let head: Head = object(head)?;
        if head.alg.eq_ignore_ascii_case("none") {
            return Err(Fault::Unsigned);
        }
        if head.crit {
            return Err(Fault::Critical);
        }
        Ok(Self { head, claims: object(claims)?, message, signature })
    }
}

/// Whatever it is: also `null` asks for something.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

fn object<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, Fault> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| Fault::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::jwt::testing::encoded;

    fn fault(token: &str) -> Option<Fault> {
        Token::parse(token.as_bytes()).err()
    }

    #[test]
    fn three_parts_of_base64url() {
        for token in ["a.b.c", "eyJ-_.e30.", "a.b."] {
            assert!(looks_like(token.as_bytes()), "{token}");
        }
        for token in ["", "a", "a.b", "a.b.c.d", ".b.c", "a..c", "a.b.c=", "a.b.c d", "a.b.\u{e9}", "..", "sk-a/b.c.d"]
        {
            assert!(!looks_like(token.as_bytes()), "{token}");
        }
        assert!(!looks_like(b"a.b.\xff"));
    }

    #[test]
    fn taken_apart() {
        let text = format!("{}.{}.c2ln", encoded(r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#), encoded(r#"{"a":1}"#));
        let token = Token::parse(text.as_bytes()).expect("a token");
        assert_eq!((token.head.alg.as_str(), token.head.kid.as_deref()), ("ES256", Some("k")));
        assert_eq!((token.claims["a"].as_u64(), token.signature), (Some(1), "c2ln"));
        assert_eq!(token.message, text.rsplit_once('.').expect("parts").0.as_bytes());
    }

    #[test]
    fn what_is_none_is_told_apart() {
        let with = |head: &str| fault(&format!("{}.{}.", encoded(head), encoded("{}")));
        assert_eq!(with(r#"{"alg":"none"}"#), Some(Fault::Unsigned));
        assert_eq!(with(r#"{"alg":"nOnE"}"#), Some(Fault::Unsigned));
        assert_eq!(with(r#"{"alg":"ES256","crit":["b64"],"b64":false}"#), Some(Fault::Critical));
        assert_eq!(with(r#"{"alg":"ES256","crit":null}"#), Some(Fault::Critical));
        for head in ["", "[]", "{}", r#"{"alg":1}"#, r#"{"alg":"ES256","kid":7}"#, r#"{"alg":"ES256","alg":"none"}"#] {
            assert_eq!(with(head), Some(Fault::Malformed), "{head}");
        }
        let good = encoded(r#"{"alg":"ES256"}"#);
        for claims in ["W10", "e30=", "e", "%%"] {
            assert_eq!(fault(&format!("{good}.{claims}.")), Some(Fault::Malformed), "{claims}");
        }
        let deep = encoded(format!("{{\"a\":{}", "[".repeat(5000)));
        assert_eq!(fault(&format!("{good}.{deep}.")), Some(Fault::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Token::parse(&bytes);
        }

        #[test]
        fn no_parts_make_it_panic(head in ".*", claims in ".*", signature in "[A-Za-z0-9_-]*") {
            let text = format!("{}.{}.{signature}", encoded(&head), encoded(&claims));
            let _ = Token::parse(text.as_bytes());
        }
    }
}
