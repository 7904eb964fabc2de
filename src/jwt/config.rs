//! Settings of issuers of tokens.

use std::{collections::BTreeMap, time::Duration};

use bytesize::ByteSize;
pub use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};

/// What the admin plane lets who has a role do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look.
    Read,
    /// Also purge.
    Purge,
    /// Everything.
    Operate,
}

/// `[jwt]`: bounds of all issuers.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Size of a token.
    pub token_bytes_max: ByteSize,
    /// Memory for tokens that have been verified.
    pub remembered_bytes_max: ByteSize,
    /// Size of a file or an answer with keys.
    pub keys_bytes_max: ByteSize,
    /// Keys of one issuer.
    pub keys_max: usize,
    /// Keys that one token is tried with.
    pub keys_tried_max: usize,
    /// How long a URL may take to answer.
    #[serde(with = "humantime_serde")]
    pub keys_timeout: Duration,
    /// How long passes at least before a URL is asked again.
    #[serde(with = "humantime_serde")]
    pub refresh_min: Duration,
    /// How long keys are used when a URL does not answer.
    #[serde(with = "humantime_serde")]
    pub keys_max_age: Duration,
}

impl Limits {
    /// Where there is no issuer.
    pub(super) const fn none() -> Self {
        Self {
            token_bytes_max: ByteSize(0),
            remembered_bytes_max: ByteSize(0),
            keys_bytes_max: ByteSize(0),
            keys_max: 0,
            keys_tried_max: 0,
            keys_timeout: Duration::ZERO,
            refresh_min: Duration::ZERO,
            keys_max_age: Duration::ZERO,
        }
    }
}

/// One of `[[issuer]]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Unique; in logs and metrics, and in front of the names in its tokens.
    pub name: String,
    /// What `iss` has to be, to the letter.
    pub issuer: String,
    /// Where its keys are: path of a JWK Set or of public keys as PEM, or the URL of a JWK Set.
    pub keys: String,
    /// One of these has to be in `aud`.
    pub audiences: Vec<String>,
    /// What tokens may be signed with.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// How far its clock and this machine's may be apart.
    #[serde(default = "leeway", with = "humantime_serde")]
    pub leeway: Duration,
    /// The claim that says who somebody is.
    #[serde(default = "name_claim")]
    pub name_claim: String,
    /// The claim with roles: its name, or a path through objects with dots between the names.
    #[serde(default = "roles_claim")]
    pub roles_claim: String,
    /// What the words in it mean on the admin plane; empty: tokens of this issuer mean nothing there.
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
    /// How often a URL is asked again.
    #[serde(default = "refresh", with = "humantime_serde")]
    pub refresh: Duration,
}

/// All that need no shared secret.
fn algorithms() -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    vec![ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512]
}

const fn leeway() -> Duration {
    Duration::from_secs(30)
}

fn name_claim() -> String {
    "sub".to_owned()
}

fn roles_claim() -> String {
    "roles".to_owned()
}

const fn refresh() -> Duration {
    Duration::from_mins(15)
}

impl Config {
    /// Whether its keys are asked for over the network.
    pub fn is_remote(&self) -> bool {
        self.keys.starts_with("https://") || self.keys.starts_with("http://")
    }
}
