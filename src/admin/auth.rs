//! Who may do what.
//!
//! With any token configured, every call but those of probes and documentation needs one. Without any, the listener is
//! on loopback (the configuration makes sure) and every process of the machine is let in; what remains to be kept out
//! then is a browser that a foreign page makes call us. Such calls either say where they come from (`Origin`,
//! `Sec-Fetch-Site`), or, after DNS rebinding, name a host in `Host` that is not this machine.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts, uri::Authority};
use subtle::{Choice, ConstantTimeEq};

use super::{
    config::{Config, Scope},
    problem::Problem,
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Where Fastly's clients put their token.
const FASTLY_KEY: HeaderName = HeaderName::from_static("fastly-key");

/// The tokens, as hashes. Clones are the same, also when others take their place.
#[derive(Clone)]
pub struct Auth {
    known: Arc<ArcSwap<Box<[Known]>>>,
}

struct Known {
    hash: blake3::Hash,
    caller: Caller,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token, for logs.
    pub name: Arc<str>,
    /// What it may do.
    pub scope: Scope,
}

impl Auth {
    /// From the tokens of the configuration.
    pub fn new(config: &Config) -> Self {
        Self { known: Arc::new(ArcSwap::from_pointee(known(config))) }
    }

    /// Takes the tokens of another configuration in the place of these.
    pub fn replace(&self, config: &Config) {
        self.known.store(Arc::new(known(config)));
    }

    /// Whether a token is needed at all.
    pub fn is_required(&self) -> bool {
        !self.known.load().is_empty()
    }

    /// Lets a call in that may do `needed`.
    ///
    /// # Errors
    /// The answer to give where it may not.
    pub fn admit(&self, head: &Parts, needed: Scope) -> Result<Caller, Problem> {
        if !self.is_required() {
            not_from_a_foreign_page(head)?;
            return Ok(Caller { name: "local".into(), scope: Scope::Operate });
        }
        let caller = self.caller(&head.headers)?;
        if caller.scope < needed {
            return Err(forbidden(format!(
                "token `{}` may {}, this needs {}",
                caller.name,
                word(caller.scope),
                word(needed)
            )));
        }
        Ok(caller)
    }

    /// Name of who calls, whatever it may do; empty: none that is known.
    pub(super) fn name_of(&self, headers: &HeaderMap) -> Arc<str> {
        if !self.is_required() {
            return "local".into();
        }
        self.caller(headers).map_or_else(|_| "".into(), |caller| caller.name)
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let Some(token) = token(headers) else {
            return Err(unauthorised("this needs a token: send `Authorization: Bearer <token>`"));
        };
        let hash = blake3::hash(token);
        // All of them, and each in constant time: how long it takes tells nothing about any token.
        let mut found = None;
        for known in self.known.load().iter() {
            let same: Choice = known.hash.as_bytes().ct_eq(hash.as_bytes());
            if bool::from(same) {
                found = Some(known.caller.clone());
            }
        }
        found.ok_or_else(|| unauthorised("the token is not one of `admin.token` and `admin.tokens`"))
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.known.load().iter().map(|known| &known.caller)).finish()
    }
}

fn known(config: &Config) -> Box<[Known]> {
    let known = |name: &str, token: &str, scope| Known {
        hash: blake3::hash(token.as_bytes()),
        caller: Caller { name: name.into(), scope },
    };
    let one = (!config.token.is_empty()).then(|| known("admin", &config.token, Scope::Operate));
    let named = config.tokens.iter().map(|token| known(&token.name, &token.token, token.scope));
    one.into_iter().chain(named).collect()
}

/// Middleware: lets through who may do `needed`, with a [`Caller`] among the extensions.
pub(super) async fn require(State((auth, needed)): State<(Auth, Scope)>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match auth.admit(&head, needed) {
        Ok(caller) => {
            head.extensions.insert(caller);
            next.run(Request::from_parts(head, body)).await
        }
        Err(problem) => refusal(problem),
    }
}

/// The answer to a call that was not let in.
pub(super) fn refusal(problem: Problem) -> Response {
    let challenge = problem.status == StatusCode::UNAUTHORIZED.as_u16();
    let mut response = problem.into_response();
    if challenge {
        let value = HeaderValue::from_static("Bearer realm=\"larder admin\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let fastly = || headers.get(FASTLY_KEY).map(HeaderValue::as_bytes);
    let Some(value) = headers.get(header::AUTHORIZATION) else { return fastly() };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn not_from_a_foreign_page(head: &Parts) -> Result<(), Problem> {
    let from_a_page = head.headers.contains_key(header::ORIGIN) || head.headers.contains_key(SEC_FETCH_SITE);
    match head.method.as_str() {
        // `Host` names what to purge here. No page of ours sends PURGE, and a browser cannot send it without `Origin`.
        "PURGE" if from_a_page => Err(forbidden("PURGE is not taken from a browser while no token is configured")),
        "PURGE" => Ok(()),
        _ => host_is_ours(head).and_then(|host| same_site(&head.headers, &head.method, host.as_ref())),
    }
}

/// The host a call names, if it names one: this machine by address or as `localhost`.
fn host_is_ours(head: &Parts) -> Result<Option<Authority>, Problem> {
    let unknown = |host: &str| {
        Err(forbidden(format!(
            "unknown host {host:?}: while no token is configured, call by address or as `localhost`, or configure \
             `admin.token`"
        )))
    };
    let authority = match (head.headers.get(header::HOST), head.uri.authority()) {
        (None, None) => return Ok(None),
        (Some(host), _) => Authority::try_from(host.as_bytes()).map_err(|_| host),
        (None, Some(authority)) => Ok(authority.clone()),
    };
    match authority {
        Ok(authority) if is_this_machine(authority.host()) => Ok(Some(authority)),
        Ok(authority) => unknown(authority.as_str()),
        Err(host) => unknown(&String::from_utf8_lossy(host.as_bytes())),
    }
}

/// By address: to rebind a name, a page has to have one.
fn is_this_machine(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
}

fn same_site(headers: &HeaderMap, method: &Method, host: Option<&Authority>) -> Result<(), Problem> {
    let fetched_from = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    let foreign_fetch = fetched_from.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    let foreign_origin = headers.get(header::ORIGIN).is_some_and(|origin| !is_origin_of(origin, host));
    if foreign_fetch || foreign_origin {
        return Err(forbidden(format!(
            "{method} from a page of another site: configure `admin.token` and send it, to call from there"
        )));
    }
    Ok(())
}

fn is_origin_of(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let authority = origin.as_bytes().strip_prefix(b"http://").or_else(|| origin.as_bytes().strip_prefix(b"https://"));
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host.as_str().as_bytes()),
        _ => false,
    }
}

fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Purge => "purge",
        Scope::Operate => "operate",
    }
}

fn unauthorised(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
}

fn forbidden(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::config::Token;

    fn auth(token: &str, tokens: &[(&str, Scope)]) -> Auth {
        let named = |&(token, scope): &(&str, Scope)| Token { name: format!("{token}'s"), token: token.into(), scope };
        Auth::new(&Config {
            token: token.to_owned(),
            tokens: tokens.iter().map(named).collect(),
            body_bytes_max: bytesize::ByteSize::mib(1),
            connections_max: 1,
            rate: "1/s".parse().expect("a rate"),
            failures_rate: "1/s".parse().expect("a rate"),
            tls: crate::tls::Config::default(),
        })
    }

    fn head(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri("/purge");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn status(auth: &Auth, head: &Parts, needed: Scope) -> u16 {
        auth.admit(head, needed).map_or_else(|problem| problem.status, |_| 200)
    }

    #[test]
    fn each_scope_includes_those_before() {
        let auth = auth("root", &[("r", Scope::Read), ("p", Scope::Purge), ("o", Scope::Operate)]);
        let expected = [
            ("r", [200, 403, 403]),
            ("p", [200, 200, 403]),
            ("o", [200, 200, 200]),
            ("root", [200, 200, 200]),
            ("other", [401, 401, 401]),
            ("", [401, 401, 401]),
        ];
        for (token, answers) in expected {
            let call = head("POST", &[("authorization", &format!("Bearer {token}"))]);
            let given = [Scope::Read, Scope::Purge, Scope::Operate].map(|needed| status(&auth, &call, needed));
            assert_eq!(given, answers, "{token:?}");
        }
    }

    #[test]
    fn the_token_comes_as_bearer_or_fastly_key() {
        let auth = auth("secret", &[]);
        let answer = |fields: &[(&str, &str)]| status(&auth, &head("POST", fields), Scope::Operate);
        assert_eq!(answer(&[]), 401);
        assert_eq!(answer(&[("authorization", "bearer secret")]), 200);
        assert_eq!(answer(&[("authorization", "Bearer  secret ")]), 200);
        assert_eq!(answer(&[("authorization", "Basic secret")]), 401);
        assert_eq!(answer(&[("authorization", "Bearer")]), 401);
        assert_eq!(answer(&[("authorization", "secret")]), 401);
        assert_eq!(answer(&[("fastly-key", "secret")]), 200);
        assert_eq!(answer(&[("fastly-key", "secre")]), 401);
        let caller = auth.admit(&head("GET", &[("fastly-key", "secret")]), Scope::Read).expect("admitted");
        assert_eq!(&*caller.name, "admin");
    }

    #[test]
    fn with_a_token_the_host_does_not_matter() {
        let auth = auth("secret", &[]);
        let fields = [("authorization", "Bearer secret"), ("host", "admin.example"), ("origin", "http://x.example")];
        assert_eq!(status(&auth, &head("POST", &fields), Scope::Purge), 200);
    }

    #[test]
    fn without_a_token_foreign_pages_are_kept_out() {
        let auth = auth("", &[]);
        let answer = |method: &str, fields: &[(&str, &str)]| status(&auth, &head(method, fields), Scope::Operate);
        for host in ["127.0.0.1:8081", "localhost:8081", "[::1]:8081", "LOCALHOST", "a.localhost", "10.0.0.1"] {
            assert_eq!(answer("POST", &[("host", host)]), 200, "{host}");
        }
        assert_eq!(answer("POST", &[]), 200, "no browser leaves it out");
        for host in ["evil.example", "evil.example:8081", "localhost.evil.example", "127.0.0.1.evil.example", "a b"] {
            assert_eq!(answer("GET", &[("host", host)]), 403, "{host}");
        }
        let from = |origin| answer("POST", &[("host", "localhost:8081"), ("origin", origin)]);
        assert_eq!(from("http://localhost:8081"), 200);
        for origin in ["http://evil.example", "null", "http://localhost:3000", ""] {
            assert_eq!(from(origin), 403, "{origin}");
        }
        let fetched = |site| answer("GET", &[("host", "localhost"), ("sec-fetch-site", site)]);
        assert_eq!([fetched("same-origin"), fetched("none")], [200, 200]);
        assert_eq!([fetched("cross-site"), fetched("same-site"), fetched("")], [403, 403, 403]);
    }

    #[test]
    fn a_purge_method_names_its_target_in_host() {
        let auth = auth("", &[]);
        let answer = |fields: &[(&str, &str)]| status(&auth, &head("PURGE", fields), Scope::Purge);
        assert_eq!(answer(&[("host", "shop.example")]), 200);
        assert_eq!(answer(&[("host", "shop.example"), ("origin", "http://shop.example")]), 403);
        assert_eq!(answer(&[("host", "shop.example"), ("sec-fetch-site", "same-origin")]), 403);
    }

    #[test]
    fn debug_shows_no_token() {
        assert!(!format!("{:?}", auth("secret", &[])).contains("secret"));
    }
}
