//! Who may do what.
//!
//! With any token configured, or an issuer of tokens with roles, every call but those of probes and documentation needs
//! one (RFC 6750). Without any, the listener is on loopback (the configuration makes sure) and every process of the
//! machine is let in, but no page of another site (`foreign.rs`).

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use subtle::{Choice, ConstantTimeEq};

use super::{
    config::{Config, Scope},
    foreign::not_from_a_foreign_page,
    problem::Problem,
};
use crate::jwt::{self, Issuers};

/// Where Fastly's clients put their token.
const FASTLY_KEY: HeaderName = HeaderName::from_static("fastly-key");

/// What is told to who brings no token, and before what is wrong with one (RFC 6750 section 3).
const CHALLENGE: &str = "Bearer realm=\"larder admin\"";

/// The tokens, as hashes, and whose signed tokens count. Clones are the same, also when others take their place.
#[derive(Clone)]
pub struct Auth {
    rules: Arc<ArcSwap<Rules>>,
    issuers: Issuers,
}

/// What one configuration says of who may call.
struct Rules {
    known: Box<[Known]>,
    /// Whether a token is needed at all. It is part of this, and not found out of tokens and issuers: while others take
    /// their place, there may be neither for a moment.
    is_required: bool,
}

struct Known {
    hash: blake3::Hash,
    name: Arc<str>,
    scope: Scope,
}

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Name of the token, or of who it was issued to with the issuer's in front of it (`staff/ann`); for logs.
    pub name: Arc<str>,
    /// What it may do; `None`: nothing.
    pub scope: Option<Scope>,
    token: Credential,
}

/// What a caller showed; `None`: nothing, while nothing was asked for.
#[derive(Clone)]
struct Credential(Option<Arc<[u8]>>);

/// Who calls, or why that is not known: found out once for each call.
#[derive(Clone)]
pub(super) struct Identified(Result<Caller, Refusal>);

/// The answer to a call that is not let in.
#[derive(Debug, Clone)]
pub struct Refusal {
    problem: Problem,
    /// `WWW-Authenticate`.
    challenge: Option<Box<str>>,
}

impl Auth {
    /// From the tokens of the configuration, and with these issuers.
    pub fn new(config: &Config, issuers: Issuers) -> Self {
        Self { rules: Arc::new(ArcSwap::from_pointee(Rules::new(config, &issuers))), issuers }
    }

    /// Takes the tokens and issuers of another configuration in the place of these. In between, a token is needed where
    /// one was needed before.
    pub fn replace(&self, config: &Config, issuers: jwt::Read) {
        self.issuers.take(issuers);
        self.rules.store(Arc::new(Rules::new(config, &self.issuers)));
    }

    /// Whether a token is needed at all.
    pub fn is_required(&self) -> bool {
        self.rules.load().is_required
    }

    /// Lets a call in that may do `needed`.
    ///
    /// # Errors
    /// The answer to give where it may not.
    pub async fn admit(&self, head: &Parts, needed: Scope) -> Result<Caller, Refusal> {
        match head.extensions.get::<Identified>() {
            Some(identified) => self.admit_as(identified.clone(), head, needed),
            None => self.admit_as(self.identify(&head.headers).await, head, needed),
        }
    }

    /// The same, where it is known who calls.
    ///
    /// # Errors
    /// The answer to give where it may not.
    pub(super) fn admit_as(&self, who: Identified, head: &Parts, needed: Scope) -> Result<Caller, Refusal> {
        let caller = who.0?;
        if caller.token.0.is_none() {
            not_from_a_foreign_page(head).map_err(Refusal::from)?;
        }
        if caller.scope >= Some(needed) {
            return Ok(caller);
        }
        let may = caller.scope.map_or("do nothing here", word);
        let detail = format!("token `{}` may {may}, this needs {}", caller.name, word(needed));
        let challenge = format!("{CHALLENGE}, error=\"insufficient_scope\", scope=\"{}\"", word(needed));
        Err(Refusal { problem: Problem::new(StatusCode::FORBIDDEN, detail), challenge: Some(challenge.into()) })
    }

    /// Who calls.
    pub(super) async fn identify(&self, headers: &HeaderMap) -> Identified {
        if !self.is_required() {
            return Identified(Ok(Caller {
                name: "local".into(),
                scope: Some(Scope::Operate),
                token: Credential(None),
            }));
        }
        match token(headers) {
            Some(token) => Identified(self.caller(token).await),
            None => Identified(Err(Refusal {
                problem: unauthorised("this needs a token: send `Authorization: Bearer <token>`"),
                challenge: Some(CHALLENGE.into()),
            })),
        }
    }

    /// Whether who was let in would be let in now: tokens expire, and configurations change.
    pub(super) async fn still_admits(&self, caller: &Caller, needed: Scope) -> bool {
        match &caller.token.0 {
            None => !self.is_required(),
            Some(token) => self.caller(token).await.is_ok_and(|caller| caller.scope >= Some(needed)),
        }
    }

    async fn caller(&self, token: &[u8]) -> Result<Caller, Refusal> {
        if let Some((name, scope)) = self.named(token) {
            return Ok(Caller { name, scope: Some(scope), token: Credential(Some(token.into())) });
        }
        if !self.issuers.have_roles() {
            return Err(Refusal::invalid("the token is not one of `admin.token` and `admin.tokens`"));
        }
        if !jwt::looks_like(token) {
            let detail = "the token is not one of `admin.token` and `admin.tokens`, and not signed by an issuer";
            return Err(Refusal::invalid(detail));
        }
        let claims = self.issuers.verified(token).await?;
        let name = format!("{}/{}", claims.issuer, claims.name).into();
        Ok(Caller { name, scope: claims.role.map(Scope::from), token: Credential(Some(token.into())) })
    }

    /// The token of the configuration that this one is.
    fn named(&self, token: &[u8]) -> Option<(Arc<str>, Scope)> {
        let hash = blake3::hash(token);
        // All of them, and each in constant time: how long it takes tells nothing about any token.
        let mut found = None;
        for known in &self.rules.load().known {
            let same: Choice = known.hash.as_bytes().ct_eq(hash.as_bytes());
            if bool::from(same) {
                found = Some((Arc::clone(&known.name), known.scope));
            }
        }
        found
    }
}

impl Rules {
    fn new(config: &Config, issuers: &Issuers) -> Self {
        let known = known(config);
        Self { is_required: !known.is_empty() || issuers.have_roles(), known }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.rules.load().known.iter().map(|known| (&known.name, known.scope))).finish()
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "***" } else { "none" })
    }
}

impl Identified {
    /// Whether it is known only because nobody was asked who he is.
    pub(super) fn was_not_asked(&self) -> bool {
        self.0.as_ref().is_ok_and(|caller| caller.token.0.is_none())
    }

    /// Whether what was shown is no token; also where nothing was.
    pub(super) fn is_wrong(&self) -> bool {
        self.0.as_ref().is_err_and(|refusal| refusal.status() == StatusCode::UNAUTHORIZED.as_u16())
    }

    /// Name of who calls, whatever it may do; empty: none that is known.
    pub(super) fn name(&self) -> Arc<str> {
        self.0.as_ref().map_or_else(|_| "".into(), |caller| Arc::clone(&caller.name))
    }
}

impl Refusal {
    /// 401, to a token that is wrong.
    fn invalid(detail: &str) -> Self {
        let challenge = format!("{CHALLENGE}, error=\"invalid_token\", error_description=\"{detail}\"");
        Self { problem: unauthorised(detail), challenge: Some(challenge.into()) }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.problem.status
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, challenge: None }
    }
}

impl From<jwt::Fault> for Refusal {
    fn from(fault: jwt::Fault) -> Self {
        match fault.is_unavailable() {
            true => Problem::new(StatusCode::SERVICE_UNAVAILABLE, fault.to_string()).into(),
            false => Self::invalid(&fault.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        let challenge = self.challenge.and_then(|challenge| HeaderValue::from_str(&challenge).ok());
        response.headers_mut().extend(challenge.map(|challenge| (header::WWW_AUTHENTICATE, challenge)));
        response
    }
}

fn known(config: &Config) -> Box<[Known]> {
    let known =
        |name: &str, token: &str, scope| Known { hash: blake3::hash(token.as_bytes()), name: name.into(), scope };
    let one = (!config.token.is_empty()).then(|| known("admin", &config.token, Scope::Operate));
    let named = config.tokens.iter().map(|token| known(&token.name, &token.token, token.scope));
    one.into_iter().chain(named).collect()
}

/// Middleware: lets through who may do `needed`, with a [`Caller`] among the extensions.
pub(super) async fn require(State((auth, needed)): State<(Auth, Scope)>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match auth.admit(&head, needed).await {
        Ok(caller) => {
            head.extensions.insert(caller);
            next.run(Request::from_parts(head, body)).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Whether a call shows anything that could be a token.
pub(super) fn shows_token(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || headers.contains_key(FASTLY_KEY)
}

fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let fastly = || headers.get(FASTLY_KEY).map(HeaderValue::as_bytes);
    let Some(value) = headers.get(header::AUTHORIZATION) else { return fastly() };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::admin::config::Token;

    fn config(token: &str, tokens: &[(&str, Scope)]) -> Config {
        let named = |&(token, scope): &(&str, Scope)| Token { name: format!("{token}'s"), token: token.into(), scope };
        Config {
            token: token.to_owned(),
            tokens: tokens.iter().map(named).collect(),
            body_bytes_max: bytesize::ByteSize::mib(1),
            connections_max: 1,
            idle_timeout: std::time::Duration::from_secs(1),
            rate: "1/s".parse().expect("a rate"),
            failures_rate: "1/s".parse().expect("a rate"),
            tls: crate::tls::Config::default(),
        }
    }

    fn auth(token: &str, tokens: &[(&str, Scope)]) -> Auth {
        Auth::new(&config(token, tokens), Issuers::none())
    }

    fn head(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri("/purge");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn status(auth: &Auth, head: &Parts, needed: Scope) -> u16 {
        auth.admit(head, needed).now_or_never().expect("at once").map_or_else(|refusal| refusal.status(), |_| 200)
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
        let head = head("GET", &[("fastly-key", "secret")]);
        let caller = auth.admit(&head, Scope::Read).now_or_never().expect("at once").expect("admitted");
        assert_eq!(&*caller.name, "admin");
        assert!(!format!("{caller:?}").contains("secret"));
    }

    #[test]
    fn with_a_token_the_host_does_not_matter() {
        let auth = auth("secret", &[]);
        let fields = [("authorization", "Bearer secret"), ("host", "admin.example"), ("origin", "http://x.example")];
        assert_eq!(status(&auth, &head("POST", &fields), Scope::Purge), 200);
    }

    #[tokio::test]
    async fn nobody_is_let_in_unasked_while_others_take_their_place() {
        let limits = "token_bytes_max = '8KiB'\nremembered_bytes_max = '64KiB'\nkeys_bytes_max = '64KiB'\n\
                      keys_max = 8\nkeys_tried_max = 8\nkeys_timeout = '5s'\nrefresh_min = '30s'\nkeys_max_age = '24h'\n";
        let issuer = "name = 'idp'\nissuer = 'idp'\nkeys = 'https://idp.example'\naudiences = ['larder']\n\
                      roles = { a = 'operate' }\n";
        let (limits, issuer) = (toml_edit::de::from_str(limits), toml_edit::de::from_str(issuer));
        let (limits, issuer) = (limits.expect("limits"), [issuer.expect("an issuer")]);
        let auth = auth("", &[]);
        assert!(!auth.is_required());
        let read = |issuers: &[_]| auth.issuers.read(&limits, issuers).expect("issuers");
        auth.replace(&config("", &[]), read(&issuer));
        assert!(auth.is_required());
        // A token takes the issuer's place: half of what `replace` does.
        auth.issuers.take(read(&[]));
        assert!(auth.is_required(), "the issuer is gone, and the token not there yet");
        auth.replace(&config("secret", &[]), read(&[]));
        assert!(auth.is_required());
        auth.replace(&config("", &[]), read(&[]));
        assert!(!auth.is_required());
    }

    #[test]
    fn debug_shows_no_token() {
        assert!(!format!("{:?}", auth("secret", &[])).contains("secret"));
    }
}
