//! Who serves language models, where, and in which protocol: what the built-in routes and the forward proxy know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::endpoint::Protocol;

/// `[providers]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Those that have a route, by name.
    pub routes: Vec<String>,
    /// What tokens cost, over the table that is compiled in.
    pub prices: BTreeMap<String, String>,
}

/// A provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider {
    /// Its name, which is that of its route; the route's path is a slash before it.
    pub name: &'static str,
    /// Where it is, without a path. `{}` stands for what a customer or a region has of its own: the path's next segment.
    pub base: &'static str,
    /// How it is spoken to; `None`: what it sends and gets is passed on.
    pub protocol: Option<Protocol>,
}

/// All that have a route of their own, as of November 2026.
pub const PROVIDERS: &[Provider] = &[
    provider("openai", "https://api.openai.com", Protocol::Openai),
    provider("anthropic", "https://api.anthropic.com", Protocol::Anthropic),
    provider("gemini", "https://generativelanguage.googleapis.com", Protocol::Gemini),
    provider("mistral", "https://api.mistral.ai", Protocol::Openai),
    provider("groq", "https://api.groq.com", Protocol::Openai),
    provider("openrouter", "https://openrouter.ai", Protocol::Openai),
    provider("deepseek", "https://api.deepseek.com", Protocol::Openai),
    provider("together", "https://api.together.xyz", Protocol::Openai),
    provider("fireworks", "https://api.fireworks.ai", Protocol::Openai),
    provider("xai", "https://api.x.ai", Protocol::Openai),
    provider("cerebras", "https://api.cerebras.ai", Protocol::Openai),
    provider("azure", "https://{}.openai.azure.com", Protocol::Openai),
    // Requests are signed and streams have a framing of their own: nothing of it is looked into.
    Provider { name: "bedrock", base: "https://bedrock-runtime.{}.amazonaws.com", protocol: None },
];

const fn provider(name: &'static str, base: &'static str, protocol: Protocol) -> Provider {
    Provider { name, base, protocol: Some(protocol) }
}

impl Provider {
    /// The one of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROVIDERS.iter().find(|provider| provider.name == name)
    }

    /// The one that answers at `host`, a name without a port in lower case.
    pub fn at(host: &str) -> Option<&'static Self> {
        PROVIDERS.iter().find(|provider| provider.is_at(host))
    }

    /// Its host, or a pattern of its hosts with a `{}` in it.
    pub fn host(&self) -> &'static str {
        self.base.strip_prefix("https://").unwrap_or(self.base)
    }

    /// Where it is for a customer or region with that name; `None` where that is no part of a host's name.
    pub fn base_of(&self, own: &str) -> Option<String> {
        is_label(own).then(|| self.base.replacen("{}", own, 1))
    }

    /// Whether there is a part in its host's name that its customers or regions have of their own.
    pub fn is_divided(&self) -> bool {
        self.base.contains("{}")
    }

    fn is_at(&self, host: &str) -> bool {
        match self.host().split_once("{}") {
            None => host == self.host(),
            Some((before, after)) => {
                let own = host.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                own.is_some_and(is_label)
            }
        }
    }
}

/// Letters, digits and hyphens: a label of a host's name (RFC 1123 section 2.1).
pub fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_host() {
        assert_eq!(Provider::at("api.openai.com").map(|provider| provider.name), Some("openai"));
        assert_eq!(Provider::at("my-resource.openai.azure.com").map(|provider| provider.name), Some("azure"));
        assert_eq!(Provider::at("bedrock-runtime.us-east-1.amazonaws.com").map(|it| it.name), Some("bedrock"));
        for host in [".openai.azure.com", "a.b.openai.azure.com", "openai.azure.com", "api.openai.com.evil.example", ""]
        {
            assert_eq!(Provider::at(host), None, "{host}");
        }
    }

    #[test]
    fn of_a_customer() {
        let azure = Provider::named("azure").expect("there");
        assert_eq!(azure.base_of("mine").as_deref(), Some("https://mine.openai.azure.com"));
        for own in ["", "a.b", "evil.example#", "-a", "a/b", "a@b", "ä"] {
            assert_eq!(azure.base_of(own), None, "{own}");
        }
        assert!(azure.is_divided() && !Provider::named("openai").expect("there").is_divided());
    }
}
