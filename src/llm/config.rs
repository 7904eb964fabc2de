//! Settings of calls to models: `[llm]`, and a route's `llm` table.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize, de};

use super::semantic;

/// Which answers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Store {
    /// Those of calls that ask for no chance: temperature 0, a seed, embeddings, moderations, rankings, counts.
    Auto,
    /// All.
    Always,
    /// None.
    Never,
}

/// Whose calls share answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Those with the same credential.
    Credential,
    /// Those with the same credential that name the same end user.
    EndUser,
    /// All.
    Shared,
}

/// What is done with calls beside what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing.
    Cache,
    /// All go to the provider, and are recorded into the pack.
    Record,
    /// All are answered from the pack; what is not there is an error, and nobody is asked.
    Replay,
    /// What is in the pack is answered from there, and what is not is recorded.
    Auto,
}

/// Whose id a stored answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The one the provider gave it.
    Original,
    /// Another one each time.
    Fresh,
}

/// How fast a stored stream is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// At once.
    Instant,
    /// Spread over the time the provider took.
    Original,
    /// So many events a second: most carry one token.
    Events(f64),
}

/// `[llm]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// See [`Store`].
    pub store: Store,
    /// What differs from it for models by name: `"o3*" = "always"`.
    pub models: BTreeMap<String, Store>,
    /// Lifetime of an answer.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// How long after its lifetime an answer may stand in when the provider fails.
    #[serde(with = "humantime_serde")]
    pub stale_if_error: Duration,
    /// Statuses with which it fails, beside `cache.stale_if_error_status`.
    pub stale_if_error_status: Vec<u16>,
    /// Lifetime of an error that the same call would meet again (400, 404, 413, 422); zero: not stored.
    #[serde(with = "humantime_serde")]
    pub error_ttl: Duration,
    /// Lifetime of lists of models; zero: not stored.
    #[serde(with = "humantime_serde")]
    pub models_ttl: Duration,
    /// Lifetime of an answer for which the provider looks things up; zero: not stored.
    #[serde(with = "humantime_serde")]
    pub tools_ttl: Duration,
    /// Lifetime at most of an answer about a document at a URL, which may change.
    #[serde(with = "humantime_serde")]
    pub media_url_ttl: Duration,
    /// See [`Scope`].
    pub scope: Scope,
    /// Groups that share answers, by the SHA-256 of their credentials in hexadecimal digits.
    pub groups: BTreeMap<String, String>,
    /// Part of every key: another name starts with an empty cache.
    pub namespace: String,
    /// Whether fields of requests may say what is stored and for how long.
    pub controls: bool,
    /// Texts that change from call to call and mean nothing: a JSON pointer, where `*` is any element, a blank, and a
    /// regular expression. What it matches is left out of keys, never of what is sent.
    pub volatile: Vec<String>,
    /// See [`Pace`].
    pub replay: Pace,
    /// See [`Identity`].
    pub identity: Identity,
    /// See [`Mode`].
    pub mode: Mode,
    /// The file that calls are recorded into and answered from; empty: none.
    pub pack: PathBuf,
    /// Largest it may become. It is held in memory.
    pub pack_bytes_max: ByteSize,
    /// Largest request that is looked into; larger ones pass.
    pub body_bytes_max: ByteSize,
    /// Answers to calls that say the same in other words.
    pub semantic: semantic::Config,
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused =
            || format!("{text:?} is none of \"instant\", \"original\" and a number of events such as \"50/s\"");
        match text {
            "instant" => Ok(Self::Instant),
            "original" => Ok(Self::Original),
            _ => {
                let rate: f64 = text.strip_suffix("/s").unwrap_or(text).trim().parse().map_err(|_| refused())?;
                if (0.1..=100_000.0).contains(&rate) { Ok(Self::Events(rate)) } else { Err(refused()) }
            }
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instant => f.write_str("instant"),
            Self::Original => f.write_str("original"),
            Self::Events(rate) => write!(f, "{rate}/s"),
        }
    }
}

impl<'de> Deserialize<'de> for Pace {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Pace {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Config {
    /// The policy for a model, by the longest name or beginning of one that fits.
    pub fn store_of(&self, model: Option<&str>) -> Store {
        let fits = |pattern: &str, model: &str| match pattern.strip_suffix('*') {
            Some(beginning) => model.starts_with(beginning),
            None => model == pattern,
        };
        let fitting = self.models.iter().filter(|(pattern, _)| model.is_some_and(|model| fits(pattern, model)));
        fitting.max_by_key(|(pattern, _)| pattern.len()).map_or(self.store, |(_, store)| *store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paces() {
        assert_eq!("instant".parse(), Ok(Pace::Instant));
        assert_eq!("50/s".parse(), Ok(Pace::Events(50.0)));
        assert_eq!("12.5".parse(), Ok(Pace::Events(12.5)));
        for wrong in ["", "fast", "0/s", "-1", "nan", "inf", "1e9"] {
            assert!(wrong.parse::<Pace>().is_err(), "{wrong}");
        }
    }
}
