//! Settings of matching by meaning: `[llm.semantic]`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize, Serializer};

/// What is done with a stored answer to a similar question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing: none is looked for.
    Off,
    /// It is counted and told of, and the provider answers.
    Shadow,
    /// It is the answer.
    On,
}

/// A text that is shown to nobody.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// `[llm.semantic]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// See [`Mode`].
    pub mode: Mode,
    /// Cosine of the angle between two texts' vectors, from which on they are similar.
    pub threshold: f64,
    /// What makes vectors of texts: an endpoint that is spoken to as OpenAI's `/v1/embeddings`. Empty: `model_dir` does.
    pub url: String,
    /// The model it is asked for.
    pub model: String,
    /// The key it asks for. Empty: none.
    pub api_key: Secret,
    /// Directory of a static model (`model.safetensors`, `tokenizer.json`, `config.json`) that makes them here.
    pub model_dir: String,
    /// Characters of the longest text that is compared.
    pub window: usize,
    /// How long a vector is waited for.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Failures in a row after which none is asked for.
    pub failures_max: u32,
    /// And for how long.
    #[serde(with = "humantime_serde")]
    pub rest: Duration,
    /// Vectors that are kept for a route.
    pub entries_max: usize,
    /// Share of calls with a similar one that go to the provider all the same, so that both answers can be compared.
    pub verify_rate: f64,
    /// Cosine from which on two answers say the same.
    pub verify_threshold: f64,
    /// The latest comparisons that count.
    pub verify_samples: usize,
    /// Share of them that may fail; above it matching ends.
    pub error_rate_max: f64,
}

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(if self.is_empty() { "" } else { "***" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::from("sk-hush");
        assert_eq!((format!("{secret:?}"), secret.reveal()), ("***".to_owned(), "sk-hush"));
        assert_eq!(serde_json::to_string(&secret).expect("a text"), r#""***""#);
    }
}
