//! Purges as callers write them: what a request names becomes scopes, and the scopes go to the purge log.
//!
//! Whatever cannot be understood in full is refused as a whole: half a purge that answers 200 is worse than none.

use std::{fmt, io, sync::Arc, time::Duration};

use http::HeaderName;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

use super::{Proxy, ResolveError, Resolved};
use crate::{
    object::{
        key::{InvalidKey, Key},
        scope::Scope,
    },
    purge::{self, PurgeId},
};

/// Bytes of one tag.
pub const TAG_BYTES_MAX: usize = 1024;

/// Bytes of a caller's own name for a purge.
const ID_BYTES_MAX: usize = 256;

/// Longest hold a call may ask for.
pub const HOLD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What to purge, and how. At least one selector has to be given.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeRequest {
    /// Absolute URLs, as a client of the gateway names them. All variants of each go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["http://shop.example/products/7"]))]
    pub urls: Vec<String>,
    /// Keys, as `explain` shows them: 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Tags, as the origin gave them in `Surrogate-Key`, `Cache-Tag` and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["product-7"]))]
    pub tags: Vec<String>,
    /// Path prefixes at a segment boundary: `http://shop.example/products` or `shop.example/products`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Whole hosts: `shop.example`, `shop.example:8080`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Everything. Stands alone.
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
    /// Make stale instead of unusable: revalidated on the next request, and still there if the origin fails.
    #[serde(skip_serializing_if = "is_false")]
    pub soft: bool,
    /// Fetch the most asked-for of what was purged again.
    #[serde(skip_serializing_if = "is_false")]
    pub refresh: bool,
    /// What the reply waits for; on a single node all three mean: durable and applied here.
    pub ack: Ack,
    /// For so long after the purge, nothing of what it names is stored for longer than the rest of it: `"5s"`, or
    /// seconds. For origins whose own replicas lag behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5s")]
    pub hold: Option<Hold>,
    /// A name of the caller's own for this purge: said again, it is the same purge and not another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What the reply to a purge waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ack {
    /// Applied on this node.
    Local,
    /// Durable in the log.
    #[default]
    Log,
    /// Applied on every live node.
    Fleet,
}

/// A duration written as `"1m 30s"` or as a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold(pub Duration);

/// How a purge treats what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Unusable at once.
    Hard,
    /// Stale at once.
    Soft,
}

/// Proof of a purge: from the moment it was given, this node serves nothing of what was named.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Receipt {
    /// Identity of the purge.
    pub id: String,
    /// Its number in the purge log.
    pub seq: u64,
    /// See [`Mode`].
    pub mode: Mode,
    /// How many things it named: a host is one, whatever sites it has.
    pub scopes: usize,
    /// What was waited for.
    pub ack: Ack,
    /// Milliseconds from the call until it was durable and applied.
    pub duration_ms: f64,
    /// What became of `refresh`, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
}

/// What became of `refresh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Refresh {
    /// URLs that wait to be fetched again.
    pub queued: usize,
}

/// A purge that took place.
#[derive(Debug)]
pub struct Purged {
    /// Proof of it.
    pub receipt: Receipt,
    /// The most asked-for URLs it named, if `refresh` was asked for: for the caller to fetch again.
    pub refresh: Vec<String>,
}

/// A purge that did not take place.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// Nothing was named.
    #[error("the purge names nothing: give `urls`, `keys`, `tags`, `prefixes`, `hosts`, or `\"all\": true`")]
    Empty,
    /// `all` beside something else.
    #[error("`all` purges everything and stands alone: leave out the other selectors, or `all`")]
    AllAndMore,
    /// More scopes than one call may name.
    #[error("the purge names {given} scopes, one call may name {max}: split it, or use a tag, prefix or host")]
    TooMany {
        /// Scopes named.
        given: usize,
        /// Scopes allowed.
        max: usize,
    },
    /// Not a tag.
    #[error("`tags`: {0}")]
    Tag(&'static str),
    /// Not a key.
    #[error("`keys`: {key:?} is not a key")]
    Key {
        /// As given.
        key: String,
        /// Why.
        source: InvalidKey,
    },
    /// Not a URL a client could ask for.
    #[error("`urls`: {0}; write it as in \"http://shop.example/products/7\"")]
    Url(ResolveError),
    /// Not a prefix.
    #[error("`prefixes`: {0:?} is not a host with a path such as \"shop.example/products\"")]
    Prefix(String),
    /// Not a host.
    #[error("`hosts`: {0:?} is not a host such as \"shop.example\" or \"shop.example:8080\"")]
    Host(String),
    /// A hold nobody can mean.
    #[error("`hold`: at most 24 hours")]
    HoldTooLong,
    /// An id nobody can mean.
    #[error("`id`: one to 256 bytes")]
    Id,
    /// `PURGE` with a path alone.
    #[error("PURGE without a host: give an absolute URL, or `Host`")]
    NoHost,
    /// A header field with bytes that are no text.
    #[error("`{0}` has bytes no tag can have")]
    FieldBytes(HeaderName),
    /// The log did not take it; nothing of it was applied.
    #[error(transparent)]
    Log(#[from] purge::PurgeError),
    /// No identity could be made for it.
    #[error("no random bytes for the id of the purge: {0}")]
    Random(#[from] io::Error),
}

impl PurgeError {
    /// The field of the request that was wrong; `None`: the request was fine.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Log(purge::PurgeError::IdReused(_)) | Self::Id => Some("id"),
            Self::Empty | Self::TooMany { .. } | Self::NoHost | Self::Log(_) | Self::Random(_) => None,
            Self::AllAndMore => Some("all"),
            Self::Tag(_) | Self::FieldBytes(_) => Some("tags"),
            Self::Key { .. } => Some("keys"),
            Self::Url(_) => Some("urls"),
            Self::Prefix(_) => Some("prefixes"),
            Self::Host(_) => Some("hosts"),
            Self::HoldTooLong => Some("hold"),
        }
    }

    /// Whether asking otherwise would help; else the gateway failed.
    pub fn is_callers(&self) -> bool {
        !matches!(self, Self::Random(_) | Self::Log(purge::PurgeError::Write { .. } | purge::PurgeError::Closed))
    }
}

/// Purges what `request` names. `who` asked for it is noted in the log file.
///
/// # Errors
/// Where the request cannot be understood in full, or the log does not take it. Nothing is purged then.
pub async fn purge(
    proxy: &Proxy,
    config: &purge::config::Config,
    request: &PurgeRequest,
    who: &str,
) -> Result<Purged, PurgeError> {
    let plan = plan(request, proxy, config.call_scopes_max)?;
    // Before the purge: what it makes unusable may leave the cache at once.
    let refresh = if request.refresh { proxy.cache().popular(&plan.scopes, config.refresh_max) } else { Vec::new() };
    let mode = if request.soft { Mode::Soft } else { Mode::Hard };
    let receipt = proxy
        .cache()
        .purge_log()
        .append(purge::Purge {
            id: id(request.id.as_deref())?,
            at: proxy.cache().now(),
            mode: mode.into(),
            scopes: plan.scopes,
            hold: plan.hold,
            note: format!("{who}: {}", summary(request)),
        })
        .await?;
    let receipt = Receipt {
        id: receipt.id.to_string(),
        seq: receipt.seq,
        mode,
        scopes: plan.named,
        ack: request.ack,
        duration_ms: millis(receipt.duration),
        refresh: None,
    };
    Ok(Purged { receipt, refresh })
}

/// Scopes and hold of a request.
#[derive(Debug, PartialEq)]
struct Plan {
    /// Things the caller named.
    named: usize,
    scopes: Vec<Scope>,
    hold: Duration,
}

/// Where what a request names leads.
trait Directory {
    fn place(&self, url: &str) -> Result<Place, ResolveError>;
    fn sites(&self, authority: &str) -> Vec<Arc<str>>;
    fn hold_max(&self) -> Duration;
}

struct Place {
    authority: Arc<str>,
    site: Arc<str>,
    path: Arc<str>,
    url: Scope,
    hold: Duration,
}

impl Directory for Proxy {
    fn place(&self, url: &str) -> Result<Place, ResolveError> {
        let Resolved { target, route } = self.resolve(url)?;
        let url = target.url_scope(&route);
        Ok(Place {
            authority: target.authority,
            site: target.site,
            path: target.normal_path,
            url,
            hold: route.policy.purge_hold,
        })
    }

    fn sites(&self, authority: &str) -> Vec<Arc<str>> {
        self.sites_of_host(authority)
    }

    fn hold_max(&self) -> Duration {
        let routes = self.routes().iter().map(|(_, route)| &route.cache).chain([&self.inner.forward_route.cache]);
        routes.map(|route| route.policy.purge_hold).max().unwrap_or_default()
    }
}

fn plan(request: &PurgeRequest, directory: &impl Directory, scopes_max: usize) -> Result<Plan, PurgeError> {
    let named = [&request.urls, &request.keys, &request.tags, &request.prefixes, &request.hosts];
    let given: usize = named.iter().map(|list| list.len()).sum();
    match (request.all, given) {
        (false, 0) => return Err(PurgeError::Empty),
        (true, 1..) => return Err(PurgeError::AllAndMore),
        (_, given) if given > scopes_max => return Err(PurgeError::TooMany { given, max: scopes_max }),
        _ => {}
    }
    let mut planner = Planner { directory, scopes: Vec::with_capacity(given), hold: Duration::ZERO };
    if request.all {
        planner.scopes.push(Scope::everything());
    }
    request.urls.iter().try_for_each(|url| planner.url(url))?;
    request.keys.iter().try_for_each(|key| planner.key(key))?;
    request.tags.iter().try_for_each(|tag| planner.tag(tag))?;
    request.prefixes.iter().try_for_each(|prefix| planner.prefix(prefix))?;
    request.hosts.iter().try_for_each(|host| planner.host(host))?;
    let everywhere = request.all || !(request.keys.is_empty() && request.tags.is_empty() && request.hosts.is_empty());
    let configured = if everywhere { directory.hold_max() } else { planner.hold };
    let mut scopes = planner.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.len() > scopes_max {
        return Err(PurgeError::TooMany { given: scopes.len(), max: scopes_max });
    }
    let named = given.max(1);
    Ok(Plan { named, scopes, hold: hold(request.hold, configured)? })
}

fn hold(asked: Option<Hold>, configured: Duration) -> Result<Duration, PurgeError> {
    match asked {
        Some(Hold(hold)) if hold > HOLD_MAX => Err(PurgeError::HoldTooLong),
        Some(Hold(hold)) => Ok(hold),
        None => Ok(configured),
    }
}

struct Planner<'a, D> {
    directory: &'a D,
    scopes: Vec<Scope>,
    /// The longest hold of the routes of the URLs and prefixes.
    hold: Duration,
}

impl<D: Directory> Planner<'_, D> {
    fn url(&mut self, url: &str) -> Result<(), PurgeError> {
        let place = self.directory.place(url).map_err(PurgeError::Url)?;
        self.hold = self.hold.max(place.hold);
        self.scopes.push(place.url);
        Ok(())
    }

    fn key(&mut self, text: &str) -> Result<(), PurgeError> {
        let key: Key = text.parse().map_err(|source| PurgeError::Key { key: text.to_owned(), source })?;
        self.scopes.push(Scope::key(&key));
        Ok(())
    }

    fn tag(&mut self, tag: &str) -> Result<(), PurgeError> {
        match tag {
            "" => return Err(PurgeError::Tag("an empty tag names nothing")),
            tag if tag.len() > TAG_BYTES_MAX => return Err(PurgeError::Tag("a tag has at most 1024 bytes")),
            tag if tag.trim() != tag => return Err(PurgeError::Tag("a tag has no blanks round it")),
            tag if tag.chars().any(char::is_control) => {
                return Err(PurgeError::Tag("a tag has no control characters"));
            }
            tag => self.scopes.push(Scope::tag(b"", tag)),
        }
        Ok(())
    }

    /// Of every site its host has: whatever scheme clients come by, and whichever of the host's routes answers.
    fn prefix(&mut self, text: &str) -> Result<(), PurgeError> {
        let refused = || PurgeError::Prefix(text.to_owned());
        let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (authority, path) = after_scheme.split_at(after_scheme.find('/').unwrap_or(after_scheme.len()));
        if !is_authority(authority) || path.contains(['?', '#']) {
            return Err(refused());
        }
        for place in self.places(authority, path).ok_or_else(refused)? {
            let sites = self.directory.sites(&place.authority).into_iter().chain([place.site]);
            self.scopes.extend(sites.map(|site| Scope::prefix(&site, &place.path)));
            self.hold = self.hold.max(place.hold);
        }
        Ok(())
    }

    fn host(&mut self, host: &str) -> Result<(), PurgeError> {
        let refused = || PurgeError::Host(host.to_owned());
        if !is_authority(host) {
            return Err(refused());
        }
        for place in self.places(host, "/").ok_or_else(refused)? {
            self.scopes.extend(self.directory.sites(&place.authority).iter().map(|site| Scope::site(site)));
        }
        Ok(())
    }

    /// By either scheme, as the two have different default ports.
    fn places(&self, authority: &str, path: &str) -> Option<[Place; 2]> {
        let place = |scheme: &str| self.directory.place(&format!("{scheme}://{authority}{path}")).ok();
        Some([place("http")?, place("https")?])
    }
}

fn is_authority(text: &str) -> bool {
    !text.contains('@') && text.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.host().is_empty())
}

/// What was named, for people who read the log file: counts, and the first few where they are no secrets. URLs can be.
fn summary(request: &PurgeRequest) -> String {
    const SHOWN: usize = 3;
    if request.all {
        return "everything".to_owned();
    }
    let counted = [("urls", request.urls.len()), ("keys", request.keys.len()), ("prefixes", request.prefixes.len())];
    let listed = [("tags", &request.tags), ("hosts", &request.hosts)];
    let counted = counted.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}"));
    let listed = listed.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| {
        let shown: Vec<&str> = list.iter().take(SHOWN).map(String::as_str).collect();
        let more = if list.len() > SHOWN { ", ..." } else { "" };
        format!("{} {name} ({}{more})", list.len(), shown.join(", "))
    });
    counted.chain(listed).collect::<Vec<_>>().join(", ")
}

/// What tells a purge from others: the caller's own name for it, or one that nobody else has.
fn id(named: Option<&str>) -> Result<PurgeId, PurgeError> {
    match named {
        None => Ok(PurgeId::random()?),
        Some(name) if (1..=ID_BYTES_MAX).contains(&name.len()) => Ok(PurgeId::named(name)),
        Some(_) => Err(PurgeError::Id),
    }
}

/// Milliseconds, to the microsecond.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

// === impl Mode ===

impl From<Mode> for purge::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Hard => Self::Hard,
            Mode::Soft => Self::Soft,
        }
    }
}

// === impl Hold ===

impl Serialize for Hold {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Hold {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(HoldVisitor)
    }
}

struct HoldVisitor;

impl de::Visitor<'_> for HoldVisitor {
    type Value = Hold;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"5s\", or a number of seconds")
    }

    fn visit_u64<E: de::Error>(self, secs: u64) -> Result<Hold, E> {
        Ok(Hold(Duration::from_secs(secs)))
    }

    fn visit_f64<E: de::Error>(self, secs: f64) -> Result<Hold, E> {
        Duration::try_from_secs_f64(secs).map(Hold).map_err(|_| E::invalid_value(de::Unexpected::Float(secs), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Hold, E> {
        humantime::parse_duration(text).map(Hold).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers for every host, with the site of its scheme; paths are taken as they are.
    struct AnyHost;

    impl Directory for AnyHost {
        fn place(&self, url: &str) -> Result<Place, ResolveError> {
            let absolute = || ResolveError::NotAbsolute { url: url.to_owned(), reason: String::new() };
            let (scheme, rest) = url.split_once("://").ok_or_else(absolute)?;
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
            let authority = authority.trim_end_matches(if scheme == "http" { ":80" } else { ":443" });
            let site: Arc<str> = format!("{scheme}://{authority}").into();
            Ok(Place {
                authority: authority.into(),
                url: Scope::url(&site, path, query),
                site,
                path: path.into(),
                hold: Duration::from_secs(2),
            })
        }

        fn sites(&self, authority: &str) -> Vec<Arc<str>> {
            vec![format!("http://{authority}").into(), format!("https://{authority}").into()]
        }

        fn hold_max(&self) -> Duration {
            Duration::from_secs(9)
        }
    }

    fn planned(json: &str) -> Result<Plan, PurgeError> {
        let request: PurgeRequest = serde_json::from_str(json).expect("a purge request");
        plan(&request, &AnyHost, 10)
    }

    fn scopes(json: &str) -> Vec<Scope> {
        planned(json).expect("a plan").scopes
    }

    fn sorted(mut scopes: Vec<Scope>) -> Vec<Scope> {
        scopes.sort_unstable();
        scopes
    }

    #[test]
    fn each_selector_names_its_scopes() {
        assert_eq!(scopes(r#"{"all":true}"#), [Scope::everything()]);
        assert_eq!(scopes(r#"{"tags":["a b"]}"#), [Scope::tag(b"", "a b")]);
        assert_eq!(
            scopes(r#"{"urls":["http://shop.example/a?b=1"]}"#),
            [Scope::url("http://shop.example", "/a", Some("b=1"))]
        );
        let both = |scope: fn(&str) -> Scope| sorted(vec![scope("http://shop.example"), scope("https://shop.example")]);
        assert_eq!(scopes(r#"{"hosts":["shop.example"]}"#), both(Scope::site));
        let prefix = both(|site| Scope::prefix(site, "/a"));
        assert_eq!(scopes(r#"{"prefixes":["shop.example/a"]}"#), prefix);
        assert_eq!(scopes(r#"{"prefixes":["https://shop.example/a/"]}"#), prefix);
        let default_port = scopes(r#"{"hosts":["shop.example:80"]}"#);
        assert!(default_port.contains(&Scope::site("http://shop.example")), "port 80 is no port for http");
        assert!(default_port.contains(&Scope::site("http://shop.example:80")), "and one for https");
        let key = Key::from_bytes([7; 32]);
        assert_eq!(scopes(&format!(r#"{{"keys":["{key}"]}}"#)), [Scope::key(&key)]);
        assert_eq!(scopes(r#"{"tags":["a","a"]}"#).len(), 1);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let field = |json: &str| planned(json).expect_err("a refusal").field();
        assert!(matches!(planned("{}"), Err(PurgeError::Empty)));
        assert!(matches!(planned(r#"{"soft":true,"tags":[]}"#), Err(PurgeError::Empty)));
        assert_eq!(field(r#"{"all":true,"tags":["a"]}"#), Some("all"));
        for tag in ["", " a", "a\\n", "a\\u0000b"] {
            assert_eq!(field(&format!(r#"{{"tags":["ok","{tag}"]}}"#)), Some("tags"), "{tag:?}");
        }
        assert_eq!(field(&format!(r#"{{"tags":["{}"]}}"#, "x".repeat(1025))), Some("tags"));
        assert_eq!(field(r#"{"urls":["/a"]}"#), Some("urls"));
        assert_eq!(field(r#"{"keys":["12"]}"#), Some("keys"));
        for prefix in ["", "/a", "http:///a", "shop.example/a?b", "user@shop.example/a"] {
            assert_eq!(field(&format!(r#"{{"prefixes":["{prefix}"]}}"#)), Some("prefixes"), "{prefix:?}");
        }
        for host in ["", "a/b", "http://a", "user@a", ":80"] {
            assert_eq!(field(&format!(r#"{{"hosts":["{host}"]}}"#)), Some("hosts"), "{host:?}");
        }
        assert_eq!(field(r#"{"all":true,"hold":"25h"}"#), Some("hold"));
    }

    #[test]
    fn a_call_names_only_so_many_scopes() {
        let tags: Vec<String> = (0..11).map(|n| format!("t{n}")).collect();
        let request = PurgeRequest { tags, ..PurgeRequest::default() };
        assert!(matches!(plan(&request, &AnyHost, 10), Err(PurgeError::TooMany { given: 11, max: 10 })));
        assert!(plan(&request, &AnyHost, 11).is_ok());
    }

    #[test]
    fn the_hold_is_the_calls_or_the_routes() {
        let hold = |json: &str| planned(json).expect("a plan").hold.as_millis();
        assert_eq!(hold(r#"{"urls":["http://a/"]}"#), 2000);
        assert_eq!(hold(r#"{"tags":["a"]}"#), 9000);
        assert_eq!(hold(r#"{"tags":["a"],"hold":"1m 30s"}"#), 90_000);
        assert_eq!(hold(r#"{"tags":["a"],"hold":0}"#), 0);
        assert_eq!(hold(r#"{"tags":["a"],"hold":1.5}"#), 1500);
        for bad in ["-1", "-1.5", "\"soon\"", "true", "1e300"] {
            let json = format!(r#"{{"tags":["a"],"hold":{bad}}}"#);
            assert!(serde_json::from_str::<PurgeRequest>(&json).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_survives_being_written_and_read() {
        let json = r#"{"tags":["a"],"soft":true,"ack":"fleet","hold":"5s"}"#;
        let request: PurgeRequest = serde_json::from_str(json).expect("a purge request");
        assert_eq!(serde_json::to_string(&request).expect("JSON"), json);
        assert!(serde_json::from_str::<PurgeRequest>(r#"{"tag":["a"]}"#).is_err());
    }

    #[test]
    fn the_note_shows_no_url() {
        let json = r#"{"urls":["http://a/?token=secret"],"tags":["a","b","c","d"]}"#;
        let request: PurgeRequest = serde_json::from_str(json).expect("a purge request");
        assert_eq!(summary(&request), "1 urls, 4 tags (a, b, c, ...)");
    }

    #[test]
    fn a_callers_id_is_the_same_each_time() {
        let id = |name| id(name).expect("an id");
        assert_eq!(id(Some("deploy-7")), id(Some("deploy-7")));
        assert_ne!(id(None), id(None));
        assert!(matches!(super::id(Some("")), Err(PurgeError::Id)));
    }
}
