//! Settings of tenants: `[[tenant]]`, `[access]`, and a route's `access` table.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whom a route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clients {
    /// Anybody: nobody is asked who he is.
    Any,
    /// Tenants: a key or a token is needed.
    Tenants,
}

/// `[access]`, and a route's `access` table.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// See [`Clients`].
    pub clients: Clients,
    /// Request fields that may carry a key or a token; the first of them that does counts.
    pub fields: Vec<String>,
    /// Names of the issuers whose tokens are taken.
    pub issuers: Vec<String>,
    /// Whether the origin sees what was presented.
    pub forward_credentials: bool,
    /// Tenants known by their tokens alone that metrics tell apart; further ones are counted together.
    pub names_max: usize,
}

/// One of `[[tenant]]`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Unique; in logs, metrics and keys.
    pub name: String,
    /// What its clients show.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The same as `sha256:` and hexadecimal digits.
    #[serde(default)]
    pub key_hashes: Vec<String>,
    /// Whose tokens are its own: an issuer's name, `/`, and a name in it, or `*` for all of that issuer.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// Routes it may use; empty: all.
    #[serde(default)]
    pub routes: Vec<String>,
}

impl fmt::Debug for Config {
    /// Without its keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, subjects, routes, .. } = self;
        let tenant = &mut f.debug_struct("Config");
        tenant.field("name", name).field("subjects", subjects).field("routes", routes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_key() {
        let keys = vec!["lk-0123456789abcdef".to_owned()];
        let tenant = Config { name: "search".into(), keys, key_hashes: vec![], subjects: vec![], routes: vec![] };
        let shown = format!("{tenant:?}");
        assert!(shown.contains("search") && !shown.contains("0123456789"), "{shown}");
    }
}
