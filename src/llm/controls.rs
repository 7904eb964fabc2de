//! What a client says of the cache in fields of its request: Larder's own, and those that clients of other gateways send
//! already. Each is answered in its own words.
//!
//! `Cache-Control` is not among them; it means what RFC 9111 says, but where Helicone is spoken, whose `max-age` says how
//! long an answer is to be kept.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    config::{Pace, Store},
    json::Value,
};

/// A way of speaking of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Cloudflare's AI Gateway.
    Cloudflare,
    /// Helicone.
    Helicone,
    /// Portkey.
    Portkey,
    /// Braintrust.
    Braintrust,
    /// LiteLLM: a member of the body.
    LiteLlm,
    /// The Semantic Router of vLLM.
    Vllm,
    /// Bifrost.
    Bifrost,
    /// Higress.
    Higress,
}

/// Fields that end here. They are no part of any key.
const CONSUMED: [&str; 23] = [
    "x-larder-ttl",
    "x-larder-store",
    "x-larder-namespace",
    "x-larder-key",
    "x-larder-replay",
    "x-larder-explain",
    "x-larder-semantic",
    "cf-aig-skip-cache",
    "cf-aig-cache-ttl",
    "cf-aig-cache-key",
    "helicone-cache-enabled",
    "helicone-cache-seed",
    "helicone-cache-bucket-max-size",
    "x-portkey-cache",
    "x-portkey-cache-force-refresh",
    "x-portkey-cache-namespace",
    "x-bt-use-cache",
    "x-bt-cache-ttl",
    "x-vsr-cache-control",
    "x-bf-cache-key",
    "x-bf-cache-ttl",
    "x-bf-cache-no-store",
    "x-higress-skip-ai-cache",
];

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Controls {
    /// Nothing stored may answer; what comes is stored all the same.
    pub no_cache: bool,
    /// What comes is not stored.
    pub no_store: bool,
    /// An answer may be no older, in seconds.
    pub max_age: Option<u64>,
    /// `Cache-Control: max-age` was a lifetime and no age.
    pub takes_max_age: bool,
    /// What is stored, whatever the route's policy says but `never`.
    pub store: Option<Store>,
    /// Lifetime of what comes.
    pub ttl: Option<Duration>,
    /// What keeps it apart from other calls, beside whose it is.
    pub apart: Vec<u8>,
    /// How fast a stored stream is to come.
    pub pace: Option<Pace>,
    /// The answer to a similar call will not do.
    pub exact: bool,
    /// Words to answer in.
    pub dialects: Vec<Dialect>,
}

impl Controls {
    /// From the fields of a request. `chance` is any number: of several answers one is picked by it.
    pub fn of(fields: &HeaderMap, chance: u32) -> Self {
        let mut controls = Self::default();
        let asked = CONSUMED.iter().filter_map(|name| Some((*name, text(fields.get(*name)?)?)));
        for (name, value) in asked {
            controls.note(name, value, chance);
        }
        if controls.speaks(Dialect::Helicone) {
            controls.takes_max_age = true;
            let lines = fields.get_all(http::header::CACHE_CONTROL).iter().filter_map(text);
            let ages = lines.flat_map(|line| line.split(',')).filter_map(|it| it.trim().strip_prefix("max-age="));
            controls.ttl = ages.filter_map(seconds).next().or(controls.ttl);
        }
        controls
    }

    fn note(&mut self, name: &str, value: &str, chance: u32) {
        let yes = matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "on" | "yes");
        match name {
            "x-larder-ttl" | "cf-aig-cache-ttl" | "x-bt-cache-ttl" | "x-bf-cache-ttl" => {
                self.ttl = seconds(value).or_else(|| humantime_serde::re::humantime::parse_duration(value).ok());
                self.opt_in();
            }
            "x-larder-store" | "x-bt-use-cache" => match value {
                "always" => self.store = Some(Store::Always),
                "auto" => self.store = Some(Store::Auto),
                "never" => self.pass(),
                _ => {}
            },
            "x-larder-namespace"
            | "x-larder-key"
            | "cf-aig-cache-key"
            | "helicone-cache-seed"
            | "x-portkey-cache-namespace"
            | "x-bf-cache-key" => {
                self.keep_apart(name, value);
                if matches!(name, "cf-aig-cache-key" | "x-bf-cache-key") {
                    self.opt_in();
                }
            }
            "x-larder-semantic" => self.exact = matches!(&value.to_ascii_lowercase()[..], "off" | "false" | "0" | "no"),
            "x-larder-replay" => self.pace = value.parse().ok(),
            "cf-aig-skip-cache" | "x-higress-skip-ai-cache" if yes => self.pass(),
            "helicone-cache-enabled" if yes => self.opt_in(),
            "helicone-cache-enabled" => self.pass(),
            "helicone-cache-bucket-max-size" => {
                let size = value.parse().unwrap_or(1).clamp(1, 20);
                self.keep_apart(name, &(chance % size).to_string());
            }
            "x-portkey-cache" if matches!(value, "simple" | "semantic") => self.opt_in(),
            "x-portkey-cache-force-refresh" if yes => self.no_cache = true,
            "x-bf-cache-no-store" if yes => self.no_store = true,
            "x-vsr-cache-control" => value.split(',').for_each(|directive| self.vllm(directive.trim())),
            _ => {}
        }
        let dialect = [
            ("cf-aig-", Dialect::Cloudflare),
            ("helicone-", Dialect::Helicone),
            ("x-portkey-", Dialect::Portkey),
            ("x-bt-", Dialect::Braintrust),
            ("x-vsr-", Dialect::Vllm),
            ("x-bf-", Dialect::Bifrost),
            ("x-higress-", Dialect::Higress),
        ];
        if let Some((_, dialect)) = dialect.into_iter().find(|(beginning, _)| name.starts_with(beginning)) {
            self.speak(dialect);
        }
    }

    fn vllm(&mut self, directive: &str) {
        match directive.split_once('=') {
            Some(("ttl", value)) => self.ttl = seconds(value),
            Some(("max-age", value)) => self.max_age = value.parse().ok(),
            _ => match directive {
                "no-cache" => self.no_cache = true,
                "no-store" => self.no_store = true,
                "bypass" => self.pass(),
                _ => {}
            },
        }
    }

    /// What LiteLLM's clients say in the member `cache` of a body.
    pub fn note_body(&mut self, cache: &Value<'_>) {
        let is_true = |name| cache.get(name).is_some_and(Value::is_true);
        self.no_cache |= is_true("no-cache");
        self.no_store |= is_true("no-store");
        if let Some(ttl) = cache.get("ttl").and_then(Value::number).filter(|ttl| *ttl >= 0.0) {
            self.ttl = Duration::try_from_secs_f64(ttl).ok();
        }
        if let Some(age) = cache.get("s-maxage").or_else(|| cache.get("s-max-age")).and_then(Value::whole) {
            self.max_age = Some(age);
        }
        if let Some(namespace) = cache.get("namespace").and_then(Value::text) {
            self.keep_apart("cache.namespace", namespace);
        }
        if is_true("use-cache") {
            self.opt_in();
        }
        self.speak(Dialect::LiteLlm);
    }

    /// Whether the cache is to be left out.
    pub fn passes(&self) -> bool {
        self.no_cache && self.no_store
    }

    /// Whether that way of speaking was used.
    pub fn speaks(&self, dialect: Dialect) -> bool {
        self.dialects.contains(&dialect)
    }

    /// Who asks for the cache in so many words gets it.
    fn opt_in(&mut self) {
        self.store.get_or_insert(Store::Always);
    }

    fn pass(&mut self) {
        (self.no_cache, self.no_store) = (true, true);
    }

    fn speak(&mut self, dialect: Dialect) {
        if !self.speaks(dialect) {
            self.dialects.push(dialect);
        }
    }

    fn keep_apart(&mut self, name: &str, value: &str) {
        for part in [name, value] {
            self.apart.extend_from_slice(&(part.len() as u64).to_le_bytes());
            self.apart.extend_from_slice(part.as_bytes());
        }
    }

    /// Whether a field of that name, in lower case, may keep calls apart that ask the same.
    pub fn keeps_apart(name: &str) -> bool {
        const APART: [&str; 7] = [
            "x-larder-namespace",
            "x-larder-key",
            "cf-aig-cache-key",
            "helicone-cache-seed",
            "helicone-cache-bucket-max-size",
            "x-portkey-cache-namespace",
            "x-bf-cache-key",
        ];
        APART.contains(&name)
    }

    /// Takes out of a request what ends here.
    pub fn consume(fields: &mut HeaderMap) {
        for name in CONSUMED {
            fields.remove(name);
        }
    }
}

/// Whether the member `cache` is what LiteLLM's clients say to their gateway, and nothing for a provider.
pub fn is_control(cache: &Value<'_>) -> bool {
    const KNOWN: [&str; 7] = ["ttl", "s-maxage", "s-max-age", "no-cache", "no-store", "namespace", "use-cache"];
    let members = cache.members();
    !members.is_empty() && members.iter().all(|member| KNOWN.contains(&&*member.name))
}

impl Dialect {
    /// How the answer says whether it was stored before.
    pub fn answer(self, hit: bool) -> Option<(HeaderName, HeaderValue)> {
        let (name, stored, new) = match self {
            Self::Cloudflare => ("cf-aig-cache-status", "HIT", "MISS"),
            Self::Helicone => ("helicone-cache", "HIT", "MISS"),
            Self::Portkey => ("x-portkey-cache-status", "HIT", "MISS"),
            Self::Braintrust => ("x-bt-cached", "HIT", "MISS"),
            Self::Vllm => ("x-vsr-cache-hit", "true", "false"),
            Self::Higress => ("x-cache-status", "hit", "miss"),
            Self::LiteLlm | Self::Bifrost => return None,
        };
        Some((HeaderName::from_static(name), HeaderValue::from_static(if hit { stored } else { new })))
    }
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(str::trim)
}

fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls(fields: &[(&'static str, &'static str)]) -> Controls {
        let fields =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Controls::of(&fields.collect(), 7)
    }

    #[test]
    fn nothing_asked() {
        assert_eq!(controls(&[("cache-control", "no-cache")]), Controls::default());
    }

    #[test]
    fn lifetimes() {
        for (name, value) in [("x-larder-ttl", "1m"), ("cf-aig-cache-ttl", "60"), ("x-bt-cache-ttl", "60")] {
            let controls = controls(&[(name, value)]);
            assert_eq!(controls.ttl, Some(Duration::from_secs(60)), "{name}");
            assert_eq!(controls.store, Some(Store::Always), "{name}");
        }
        let helicone = controls(&[("helicone-cache-enabled", "true"), ("cache-control", "public, max-age=60")]);
        assert_eq!((helicone.ttl, helicone.takes_max_age), (Some(Duration::from_secs(60)), true));
    }

    #[test]
    fn left_out() {
        for (name, value) in [
            ("cf-aig-skip-cache", "true"),
            ("helicone-cache-enabled", "false"),
            ("x-bt-use-cache", "never"),
            ("x-larder-store", "never"),
            ("x-vsr-cache-control", "bypass"),
            ("x-higress-skip-ai-cache", "on"),
        ] {
            assert!(controls(&[(name, value)]).passes(), "{name}");
        }
        let refresh = controls(&[("x-portkey-cache-force-refresh", "true")]);
        assert!(refresh.no_cache && !refresh.no_store);
        assert!(!controls(&[("cf-aig-skip-cache", "false")]).passes());
    }

    #[test]
    fn what_is_only_similar_can_be_refused() {
        assert!(controls(&[("x-larder-semantic", "Off")]).exact);
        assert!(!controls(&[("x-larder-semantic", "on")]).exact && !controls(&[]).exact);
    }

    #[test]
    fn kept_apart() {
        let apart = |fields: &[(&'static str, &'static str)]| controls(fields).apart;
        let all = [
            apart(&[]),
            apart(&[("x-larder-namespace", "a")]),
            apart(&[("x-larder-namespace", "b")]),
            apart(&[("x-larder-key", "a")]),
            apart(&[("helicone-cache-seed", "a")]),
            apart(&[("cf-aig-cache-key", "a")]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
        assert_eq!(
            apart(&[("helicone-cache-bucket-max-size", "3")]),
            apart(&[("helicone-cache-bucket-max-size", "6")])
        );
    }

    #[test]
    fn in_a_body() {
        let body = Value::parse(br#"{"no-cache":true,"ttl":1.5,"s-maxage":9,"namespace":"n"}"#).expect("JSON");
        let mut controls = Controls::default();
        controls.note_body(&body);
        assert!(controls.no_cache && !controls.no_store && !controls.apart.is_empty());
        assert_eq!((controls.ttl, controls.max_age), (Some(Duration::from_millis(1500)), Some(9)));
    }
}
