//! Whose call it is: what of a request keeps its answers apart from those of others.
//!
//! What is given here holds credentials. It goes into a keyed hash and nowhere else.

use std::{borrow::Cow, collections::HashMap};

use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};

use super::json::Value;

/// Fields that carry a provider's credential.
const CREDENTIALS: [&str; 4] = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// Fields that say on whose account a credential is used, where it is good for several.
const ACCOUNTS: [&str; 5] = [
    "openai-organization",
    "openai-project",
    "x-goog-user-project",
    "anthropic-workspace-id",
    "anthropic-user-profile-id",
];

/// The argument in which Gemini takes a credential.
const KEY_ARGUMENT: &str = "key";

/// Groups by the SHA-256 of their credentials.
#[derive(Debug, Clone, Default)]
pub struct Groups(HashMap<[u8; 32], Box<str>>);

impl Groups {
    /// From hexadecimal digits and names.
    ///
    /// # Errors
    /// The text that is no SHA-256.
    pub fn new<'a>(groups: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, &'a str> {
        let group = |(digits, name): (&'a str, &'a str)| Ok((digest(digits).ok_or(digits)?, name.into()));
        groups.into_iter().map(group).collect::<Result<_, _>>().map(Self)
    }

    /// The group a credential belongs to.
    fn of(&self, credential: &[u8]) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(without_scheme(credential)).into();
        self.0.get(&digest).map(|name| &**name)
    }
}

fn digest(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (digits.len() == 64).then_some(bytes)
}

/// `Bearer sk-1` is the credential `sk-1`.
fn without_scheme(credential: &[u8]) -> &[u8] {
    match credential.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii(),
        _ => credential,
    }
}

/// The tenant of a request, its credentials and what they are used for, each behind its length; or the group that the
/// credentials belong to. With a key of the gateway's own, which is gone by then, the tenant is all that is left.
pub fn of_credential(tenant: Option<&str>, fields: &HeaderMap, query: Option<&str>, groups: &Groups) -> Vec<u8> {
    let lines =
        |name: &'static str| fields.get_all(HeaderName::from_static(name)).iter().map(move |value| (name, value));
    let credentials: Vec<_> = CREDENTIALS.into_iter().flat_map(lines).collect();
    let argument = credential_argument(query);
    let first = credentials.first().map(|(_, value)| value.as_bytes()).or(argument.map(str::as_bytes));
    let mut scope = Vec::new();
    let mut put = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), value] {
            scope.extend_from_slice(&(part.len() as u64).to_le_bytes());
            scope.extend_from_slice(part);
        }
    };
    if let Some(tenant) = tenant {
        put("tenant", tenant.as_bytes());
    }
    match first.and_then(|credential| groups.of(credential)) {
        Some(group) => put("group", group.as_bytes()),
        None => {
            credentials.iter().for_each(|(name, value)| put(name, value.as_bytes()));
            if let Some(argument) = argument {
                put(KEY_ARGUMENT, argument.as_bytes());
            }
        }
    }
    ACCOUNTS.into_iter().flat_map(lines).for_each(|(name, value)| put(name, value.as_bytes()));
    scope
}

/// The end user a body names, each name behind its length.
pub fn of_end_user(body: &Value<'_>, scope: &mut Vec<u8>) {
    let metadata = body.get("metadata").and_then(|metadata| metadata.get("user_id"));
    for (name, value) in [("user", body.get("user")), ("safety", body.get("safety_identifier")), ("metadata", metadata)]
    {
        if let Some(user) = value.and_then(Value::text) {
            for part in [name, user] {
                scope.extend_from_slice(&(part.len() as u64).to_le_bytes());
                scope.extend_from_slice(part.as_bytes());
            }
        }
    }
}

fn credential_argument(query: Option<&str>) -> Option<&str> {
    query?.split('&').find_map(|argument| argument.strip_prefix(KEY_ARGUMENT)?.strip_prefix('='))
}

/// The query without the credential it may hold: as keys, purges and logs see it.
pub fn without_credential(query: &str) -> Option<Cow<'_, str>> {
    let is_credential = |argument: &str| argument.split('=').next() == Some(KEY_ARGUMENT);
    if !query.split('&').any(is_credential) {
        return Some(Cow::Borrowed(query));
    }
    let left: Vec<_> = query.split('&').filter(|argument| !is_credential(argument)).collect();
    (!left.is_empty()).then(|| Cow::Owned(left.join("&")))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn scope(fields: &[(&'static str, &'static str)], query: Option<&str>, groups: &Groups) -> Vec<u8> {
        let fields =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        of_credential(None, &fields.collect(), query, groups)
    }

    #[test]
    fn tenants_are_apart_and_so_are_the_credentials_they_bring() {
        let of = |tenant: Option<&str>, fields: &[(&'static str, &'static str)]| {
            let fields =
                fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            of_credential(tenant, &fields.collect(), None, &Groups::default())
        };
        let own = [("authorization", "Bearer a")];
        let all = [of(None, &[]), of(Some("a"), &[]), of(Some("b"), &[]), of(Some("a"), &own), of(Some("b"), &own)];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }

    #[test]
    fn credentials_are_apart() {
        let none = Groups::default();
        let all = [
            scope(&[], None, &none),
            scope(&[("authorization", "Bearer a")], None, &none),
            scope(&[("authorization", "Bearer b")], None, &none),
            scope(&[("x-api-key", "Bearer a")], None, &none),
            scope(&[("authorization", "Bearer a"), ("openai-project", "p")], None, &none),
            scope(&[("authorization", "Bearer a"), ("openai-organization", "p")], None, &none),
            scope(&[], Some("alt=sse&key=a"), &none),
            scope(&[], Some("key=b"), &none),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
        assert_eq!(scope(&[], Some("key=a"), &none), scope(&[], Some("x=1&key=a"), &none));
    }

    #[test]
    fn groups_share() {
        let digests = ["sk-1", "sk-2"]
            .map(|key| Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let groups = Groups::new(digests.iter().map(|digest| (&digest[..], "team"))).expect("digests");
        let one = scope(&[("authorization", "Bearer sk-1")], None, &groups);
        assert_eq!(one, scope(&[("x-api-key", "sk-2")], None, &groups));
        assert_eq!(one, scope(&[], Some("key=sk-1"), &groups));
        assert_ne!(one, scope(&[("authorization", "Bearer sk-3")], None, &groups));
        assert_ne!(one, scope(&[("authorization", "Bearer sk-1"), ("openai-project", "p")], None, &groups));
        assert_eq!(Groups::new([("12", "team")]).err(), Some("12"));
    }

    #[test]
    fn a_query_without_its_credential() {
        assert_eq!(without_credential("alt=sse&key=secret").as_deref(), Some("alt=sse"));
        assert_eq!(without_credential("key=secret"), None);
        assert_eq!(without_credential("monkey=1").as_deref(), Some("monkey=1"));
    }
}
