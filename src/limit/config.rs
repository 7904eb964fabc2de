//! Settings of limits.

use std::{fmt, str::FromStr, time::Duration};

use http::HeaderName;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::gcra::Rate;

/// Largest number in a rate.
const COUNT_MAX: u64 = 1_000_000_000;

/// `[limits]`: what holds for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Callers that are known at once, all limits together.
    pub callers_max: usize,
    /// How long Redis may take to say whether there is something left.
    #[serde(with = "humantime_serde")]
    pub redis_timeout: Duration,
    /// Whether answers tell how much is left (`RateLimit`).
    pub fields: bool,
}

/// What requests are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Per {
    /// Not at all: all of a route together.
    Route,
    /// The client's address; of IPv6 its network of 64 bits, which one client has all of.
    Address,
    /// A field of the request; all that have none count together.
    Field(HeaderName),
    /// The tenant a request is of; those of none count together.
    Tenant,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Count {
    /// Every request, hits included.
    Requests,
    /// Only what goes to the origin.
    Origin,
    /// Tokens of answers of models, once they are known.
    Tokens,
}

/// Where it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// Each node for itself.
    Memory,
    /// All nodes together.
    Redis,
}

/// What becomes of a limit over Redis while Redis does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// Each node keeps it for itself, at the same rate.
    Local,
    /// Everything is admitted.
    Open,
}

/// How many in how long: `100/min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Speed {
    /// How many.
    pub count: u64,
    /// In how long.
    pub period: Duration,
}

/// One of `[[limit]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LimitConfig {
    /// Unique; in metrics, and what clients are told it is called.
    pub name: String,
    /// Names of the routes it holds for; empty: all.
    #[serde(default)]
    pub routes: Vec<String>,
    /// See [`Per`].
    #[serde(default = "per_route")]
    pub per: Per,
    /// See [`Speed`].
    pub rate: Speed,
    /// How many may come at once; 0: as many as the rate names.
    #[serde(default)]
    pub burst: u64,
    /// See [`Count`].
    #[serde(default = "requests")]
    pub count: Count,
    /// See [`Over`].
    #[serde(default = "memory")]
    pub over: Over,
    /// See [`Fallback`].
    #[serde(default = "local")]
    pub fallback: Fallback,
    /// How many a node takes from Redis at once.
    #[serde(default = "one")]
    pub batch: u64,
    /// Networks whose clients it does not hold for.
    #[serde(default)]
    pub exempt: Vec<IpNet>,
    /// Whether anything is refused; otherwise it is only counted what would be.
    #[serde(default = "yes")]
    pub enforce: bool,
}

const fn per_route() -> Per {
    Per::Route
}

const fn requests() -> Count {
    Count::Requests
}

const fn memory() -> Over {
    Over::Memory
}

const fn local() -> Fallback {
    Fallback::Local
}

const fn one() -> u64 {
    1
}

const fn yes() -> bool {
    true
}

impl LimitConfig {
    /// As it is kept.
    pub fn rate(&self) -> Rate {
        self.rate.rate(self.burst)
    }

    /// Whether it holds for the route of that name.
    pub fn holds_for(&self, route: &str) -> bool {
        self.routes.is_empty() || self.routes.iter().any(|name| name == route)
    }
}

impl Speed {
    /// As it is kept; `burst` 0 is the number it names.
    pub fn rate(&self, burst: u64) -> Rate {
        Rate::new(self.count, self.period, if burst == 0 { self.count } else { burst })
    }
}

impl FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXAMPLE: &str = "a rate such as \"100/min\": a number, and one of s, min, h, day";
        let (count, unit) = text.split_once('/').ok_or(EXAMPLE)?;
        let count: u64 = count.trim().parse().map_err(|_| EXAMPLE)?;
        let period = match unit.trim() {
            "s" => Duration::from_secs(1),
            "min" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            "day" => Duration::from_hours(24),
            _ => return Err(EXAMPLE),
        };
        if (1..=COUNT_MAX).contains(&count) { Ok(Self { count, period }) } else { Err("a rate of 1 to 1000000000") }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period.as_secs() {
            1 => "s",
            60 => "min",
            3600 => "h",
            _ => "day",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl FromStr for Per {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "route" => Ok(Self::Route),
            "address" => Ok(Self::Address),
            "tenant" => Ok(Self::Tenant),
            _ => text.strip_prefix("field:").and_then(|name| name.parse().ok()).map(Self::Field).ok_or(
                "\"route\", \"address\", \"tenant\", or \"field:\" and the name of a field such as \"field:x-client\"",
            ),
        }
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route => f.write_str("route"),
            Self::Address => f.write_str("address"),
            Self::Tenant => f.write_str("tenant"),
            Self::Field(name) => write!(f, "field:{name}"),
        }
    }
}

/// What is written as a text in one's own words.
macro_rules! as_text {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|wanted| de::Error::custom(format!("expected {wanted}")))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

as_text!(Speed);
as_text!(Per);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_texts() {
        for (text, count, seconds) in [("1/s", 1, 1), ("100/min", 100, 60), ("5 / h", 5, 3600), ("7/day", 7, 86400)] {
            let speed: Speed = text.parse().expect("a rate");
            assert_eq!((speed.count, speed.period.as_secs()), (count, seconds));
            assert_eq!(speed.to_string(), text.replace(' ', ""));
        }
        for text in ["", "100", "/min", "0/s", "-1/s", "1/week", "1.5/s", "1000000001/s", "1/s/s"] {
            assert!(text.parse::<Speed>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn subjects_are_texts() {
        for text in ["route", "address", "tenant", "field:x-client"] {
            assert_eq!(text.parse::<Per>().expect("one").to_string(), text);
        }
        for text in ["", "ip", "field:", "field:a b", "Route"] {
            assert!(text.parse::<Per>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_burst_is_what_the_rate_names_unless_it_is_said() {
        let speed: Speed = "60/min".parse().expect("a rate");
        assert_eq!((speed.rate(0).burst(), speed.rate(5).burst()), (60, 5));
        assert_eq!(speed.rate(5).interval(), 1_000_000_000);
    }
}
