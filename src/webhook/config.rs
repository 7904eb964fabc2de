//! Settings of webhooks.

use std::{fmt, io, time::Duration};

use serde::{Deserialize, Serialize};

/// Longest token in a file.
const TOKEN_BYTES_MAX: usize = 4096;

/// Whose API is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Cloudflare's `purge_cache`.
    Cloudflare,
    /// Fastly's purge by surrogate key and by URL.
    Fastly,
    /// One call with the purge and its receipt.
    Json,
}

/// One of `[[webhook]]`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Unique; in logs and metrics.
    pub name: String,
    /// See [`Kind`].
    pub kind: Kind,
    /// Base of the API; empty: the kind's own.
    #[serde(default)]
    pub url: String,
    /// Cloudflare's id of the zone.
    #[serde(default)]
    pub zone: String,
    /// Fastly's id of the service.
    #[serde(default)]
    pub service: String,
    /// What the API asks for.
    #[serde(default)]
    pub token: String,
    /// File whose first line it is, in place of [`Config::token`].
    #[serde(default)]
    pub token_file: String,
    /// Key of the signature of a `json` call; empty: none.
    #[serde(default)]
    pub secret: String,
    /// Purges that wait.
    #[serde(default = "queue_max")]
    pub queue_max: usize,
    /// For so long a call is tried.
    #[serde(default = "retry_for", with = "humantime_serde")]
    pub retry_for: Duration,
}

const fn queue_max() -> usize {
    1000
}

const fn retry_for() -> Duration {
    Duration::from_mins(10)
}

impl Config {
    /// Where calls go.
    pub fn url(&self) -> &str {
        match self.kind {
            _ if !self.url.is_empty() => &self.url,
            Kind::Cloudflare => "https://api.cloudflare.com",
            Kind::Fastly => "https://api.fastly.com",
            Kind::Json => "",
        }
    }

    /// The token, from wherever it is.
    ///
    /// # Errors
    /// Where its file cannot be read, or has no token in its first line.
    pub fn load_token(&self) -> io::Result<String> {
        if self.token_file.is_empty() {
            return Ok(self.token.clone());
        }
        let text = std::fs::read_to_string(&self.token_file)?;
        let token = text.lines().next().unwrap_or_default().trim();
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its first line is no token"));
        }
        Ok(token.to_owned())
    }
}

impl fmt::Debug for Config {
    /// Without token and secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}
