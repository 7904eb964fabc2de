//! Whose tunnels are opened: names, and all names below a name.

use std::{fmt, net::IpAddr, str::FromStr};

use rustls::pki_types::DnsName;

/// Why a text is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a host to intercept: `api.example`, or `*.example` for every name below it; no address and no port")]
pub struct PatternError;

/// `api.example`, or `*.example` for every name below it (not `example` itself).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    below: bool,
    /// In lower case.
    name: Box<str>,
}

impl Pattern {
    /// The name, without a star: what an authority has to be allowed to sign for.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn matches(&self, host: &str) -> bool {
        if self.below { is_below(host, &self.name) } else { host == &*self.name }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if is_host(name) { Ok(Self { below, name: name.to_ascii_lowercase().into() }) } else { Err(PatternError) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

/// A list of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Pattern>);

impl Hosts {
    /// Whether `host` is one of them. In lower case, without a port.
    pub fn contain(&self, host: &str) -> bool {
        // A name below another one may be any text as far as that is concerned.
        self.0.iter().any(|pattern| pattern.matches(host)) && is_host(host)
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that `keep` likes.
    #[must_use]
    pub fn filtered(self, keep: impl FnMut(&Pattern) -> bool) -> Self {
        Self(self.0.into_iter().filter(keep).collect())
    }
}

impl FromIterator<Pattern> for Hosts {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

/// Whether `host` ends with a dot and `name`, with something before.
pub(super) fn is_below(host: &str, name: &str) -> bool {
    host.strip_suffix(name).and_then(|rest| rest.strip_suffix('.')).is_some_and(|labels| !labels.is_empty())
}

/// A name that a certificate can be for: no address, no star, no dot at its end.
fn is_host(name: &str) -> bool {
    let dotted = name.starts_with('.') || name.ends_with('.');
    !dotted && name.parse::<IpAddr>().is_err() && DnsName::try_from_str(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(patterns: &[&str]) -> Hosts {
        patterns.iter().map(|pattern| pattern.parse::<Pattern>().expect("a pattern")).collect()
    }

    #[test]
    fn names_and_what_is_below_them() {
        let hosts = hosts(&["API.openai.com", "*.openai.azure.com"]);
        for host in ["api.openai.com", "mine.openai.azure.com", "a.b.openai.azure.com"] {
            assert!(hosts.contain(host), "{host}");
        }
        for host in [
            "openai.com",
            "eu.api.openai.com",
            "api.openai.com.",
            "api.openai.com.evil.example",
            "openai.azure.com",
            ".openai.azure.com",
            "evilopenai.azure.com",
            "a..openai.azure.com",
            "a b.openai.azure.com",
            "*.openai.azure.com",
            "",
        ] {
            assert!(!hosts.contain(host), "{host}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for text in
            ["", "*", "*.", "127.0.0.1", "[::1]", "::1", "a.example:443", "https://a.example", "a.*.b", "a.", "a b"]
        {
            assert_eq!(text.parse::<Pattern>(), Err(PatternError), "{text}");
        }
        assert_eq!("*.A.example".parse::<Pattern>().expect("a pattern").to_string(), "*.a.example");
    }
}
