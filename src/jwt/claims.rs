//! What a token with the right signature has to claim, and what it says of who brings it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value};

use super::{
    config::{Config, Role},
    fault::Fault,
};

/// Longest name that is used, in bytes; what is longer is cut. It goes into logs.
const NAME_BYTES_MAX: usize = 256;

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Name of the issuer, as configured.
    pub issuer: Arc<str>,
    /// Who it is, as the issuer names them.
    pub name: Arc<str>,
    /// The words of the issuer's claim with roles.
    pub roles: Vec<String>,
    /// The highest of them on the admin plane, if any means something there.
    pub role: Option<Role>,
    /// From when on the token is refused.
    pub until: SystemTime,
}

impl Claims {
    /// What a token of the issuer `config` says at `now`.
    ///
    /// # Errors
    /// Where it is not for this gateway, not for this time, or does not say whose it is.
    pub(super) fn of(config: &Config, claims: &Map<String, Value>, now: SystemTime) -> Result<Self, Fault> {
        is_for_us(config, claims)?;
        let until = times(config.leeway, claims, now)?;
        let name = claims.get(&config.name_claim).or_else(|| find(claims, &config.name_claim));
        let name = name.and_then(Value::as_str).filter(|name| !name.is_empty()).ok_or(Fault::Nameless)?;
        let name = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
        let roles = find(claims, &config.roles_claim).map(words).unwrap_or_default();
        let role = roles.iter().filter_map(|word| config.roles.get(word)).max().copied();
        Ok(Self { issuer: config.name.as_str().into(), name: name.into(), roles, role, until })
    }
}

fn is_for_us(config: &Config, claims: &Map<String, Value>) -> Result<(), Fault> {
    let is_one = |one: &Value| one.as_str().is_some_and(|one| config.audiences.iter().any(|ours| ours == one));
    let ours = match claims.get("aud") {
        None => return Err(Fault::Missing("aud")),
        Some(Value::Array(all)) => all.iter().any(is_one),
        Some(one) => is_one(one),
    };
    ours.then_some(()).ok_or(Fault::Audience)
}

/// Until when it is valid, if it is at `now`.
fn times(leeway: Duration, claims: &Map<String, Value>, now: SystemTime) -> Result<SystemTime, Fault> {
    let until = time(claims, "exp")?.ok_or(Fault::Missing("exp"))?;
    let until = until.checked_add(leeway).ok_or(Fault::Form("exp"))?;
    if until <= now {
        return Err(Fault::Expired);
    }
    let is_to_come = |time: Option<SystemTime>| time.is_some_and(|time| time > now + leeway);
    if is_to_come(time(claims, "nbf")?) {
        return Err(Fault::NotYet);
    }
    if is_to_come(time(claims, "iat")?) {
        return Err(Fault::IssuedInFuture);
    }
    Ok(until)
}

/// A `NumericDate` (RFC 7519 section 2): seconds since 1970, with or without a fraction.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<SystemTime>, Fault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let since = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    time.map(Some).ok_or(Fault::Form(name))
}

/// The claim of that name, or what the path through objects leads to: names of claims may have dots in them.
fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// The words of a text, or the texts of a list.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::jwt::testing::config;

    const NOW: u64 = 1_000_000;

    fn of(config: &Config, claims: Value) -> Result<Claims, Fault> {
        let Value::Object(claims) = claims else { panic!("an object") };
        Claims::of(config, &claims, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW))
    }

    /// Claims that are taken, but for what `other` says; what is null there is left out.
    fn with(other: Value) -> Result<Claims, Fault> {
        let mut claims = json!({ "sub": "ann", "aud": "larder", "exp": NOW + 60 });
        let (Value::Object(all), Value::Object(other)) = (&mut claims, other) else { panic!("objects") };
        all.extend(other);
        all.retain(|_, value| !value.is_null());
        of(&config(""), claims)
    }

    #[test]
    fn each_fault() {
        let fault = |other: Value| with(other.clone()).err().unwrap_or_else(|| panic!("taken: {other}"));
        assert_eq!(fault(json!({ "aud": null })), Fault::Missing("aud"));
        for aud in [json!("other"), json!(["other"]), json!([]), json!(7), json!({ "larder": 1 }), json!("larder2")] {
            assert_eq!(fault(json!({ "aud": aud })), Fault::Audience);
        }
        assert_eq!(fault(json!({ "exp": null })), Fault::Missing("exp"));
        for exp in [json!("soon"), json!(-1), json!(1e300), json!([])] {
            assert_eq!(fault(json!({ "exp": exp })), Fault::Form("exp"));
        }
        assert_eq!(fault(json!({ "exp": NOW - 30 })), Fault::Expired);
        assert_eq!(fault(json!({ "exp": 0 })), Fault::Expired);
        assert_eq!(fault(json!({ "nbf": NOW + 31 })), Fault::NotYet);
        assert_eq!(fault(json!({ "nbf": "x" })), Fault::Form("nbf"));
        assert_eq!(fault(json!({ "iat": NOW + 31 })), Fault::IssuedInFuture);
        assert_eq!(fault(json!({ "iat": true })), Fault::Form("iat"));
        for sub in [json!(null), json!(""), json!(7)] {
            assert_eq!(fault(json!({ "sub": sub })), Fault::Nameless);
        }
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let claims = with(json!({ "exp": NOW - 29, "nbf": NOW + 30, "iat": 1_000_029.5, "aud": ["a", "larder"] }));
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + 1);
        assert_eq!(claims.expect("taken").until, until, "the leeway counts");
    }

    #[test]
    fn roles_are_words_or_a_list_under_a_name_or_a_path() {
        let roles = |path: &str, claims: Value| {
            let config = Config { roles_claim: path.to_owned(), ..config("roles = { a = 'read', b = 'purge' }") };
            let mut all = json!({ "sub": "ann", "aud": "larder", "exp": NOW + 60 });
            all.as_object_mut().expect("an object").extend(claims.as_object().expect("an object").clone());
            let claims = of(&config, all).expect("taken");
            (claims.roles.join(","), claims.role)
        };
        assert_eq!(roles("scope", json!({ "scope": "a  x b" })), ("a,x,b".to_owned(), Some(Role::Purge)));
        assert_eq!(roles("r", json!({ "r": ["a", 7, "with blanks"] })), ("a,with blanks".to_owned(), Some(Role::Read)));
        assert_eq!(roles("r.s.t", json!({ "r": { "s": { "t": "a" } } })), ("a".to_owned(), Some(Role::Read)));
        assert_eq!(roles("https://x.example/r", json!({ "https://x.example/r": ["b"] })).1, Some(Role::Purge));
        for other in [json!({}), json!({ "r": 7 }), json!({ "r": { "s": 7 } }), json!({ "r": "c" })] {
            assert_eq!(roles("r", other).1, None);
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let claims = with(json!({ "sub": "\u{e9}".repeat(500) })).expect("taken");
        assert_eq!(claims.name.len(), NAME_BYTES_MAX);
    }
}
