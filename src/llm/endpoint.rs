//! Which call of which protocol a request is, by its method and path.
//!
//! Providers serve the same calls below different paths (`/v1/chat/completions`, `/api/v1/chat/completions`,
//! `/openai/deployments/NAME/chat/completions`), so only the end of a path counts. What is not known here passes untouched.

use http::Method;
use serde::{Deserialize, Serialize};

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// OpenAI's, which most others speak too.
    Openai,
    /// Anthropic's.
    Anthropic,
    /// Google's Gemini.
    Gemini,
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST …/chat/completions`
    ChatCompletions,
    /// `POST …/responses`
    Responses,
    /// `POST …/completions`
    Completions,
    /// `POST …/embeddings`
    Embeddings,
    /// `POST …/moderations`
    Moderations,
    /// `POST …/rerank`
    Rerank,
    /// `POST …/audio/transcriptions` and `…/audio/translations`, multipart
    Transcriptions,
    /// `POST …/images/generations`
    Images,
    /// `POST …/messages`
    Messages,
    /// `POST …/messages/count_tokens`, `POST …:countTokens`
    CountTokens,
    /// `POST …:generateContent`
    GenerateContent,
    /// `POST …:streamGenerateContent`
    StreamGenerateContent,
    /// `POST …:embedContent`
    EmbedContent,
    /// `POST …:batchEmbedContents`
    BatchEmbedContents,
    /// `GET …/models` and `…/models/NAME`
    Models,
}

/// Ends of paths, the longer ones first where one is the end of another.
const OPENAI: [(&str, Endpoint); 9] = [
    ("/chat/completions", Endpoint::ChatCompletions),
    ("/completions", Endpoint::Completions),
    ("/responses", Endpoint::Responses),
    ("/embeddings", Endpoint::Embeddings),
    ("/moderations", Endpoint::Moderations),
    ("/rerank", Endpoint::Rerank),
    ("/audio/transcriptions", Endpoint::Transcriptions),
    ("/audio/translations", Endpoint::Transcriptions),
    ("/images/generations", Endpoint::Images),
];

const ANTHROPIC: [(&str, Endpoint); 2] =
    [("/messages/count_tokens", Endpoint::CountTokens), ("/messages", Endpoint::Messages)];

const GEMINI: [(&str, Endpoint); 5] = [
    (":generateContent", Endpoint::GenerateContent),
    (":streamGenerateContent", Endpoint::StreamGenerateContent),
    (":embedContent", Endpoint::EmbedContent),
    (":batchEmbedContents", Endpoint::BatchEmbedContents),
    (":countTokens", Endpoint::CountTokens),
];

impl Endpoint {
    /// The call, if it is one of those whose answers may be stored.
    pub fn of(protocol: Protocol, method: &Method, path: &str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let calls: &[_] = match protocol {
            Protocol::Openai => &OPENAI,
            Protocol::Anthropic => &ANTHROPIC,
            Protocol::Gemini => &GEMINI,
        };
        match *method {
            Method::POST => calls.iter().find(|(end, _)| path.ends_with(end)).map(|(_, call)| *call),
            Method::GET => is_models(path).then_some(Self::Models),
            _ => None,
        }
    }

    /// Whether an answer is always the same for the same request, whatever its parameters.
    pub fn is_deterministic(self) -> bool {
        matches!(
            self,
            Self::Embeddings
                | Self::Moderations
                | Self::Rerank
                | Self::CountTokens
                | Self::EmbedContent
                | Self::BatchEmbedContents
        )
    }
}

/// `…/models`, or one of them: a name has slashes with some providers (`meta-llama/llama-3`), and one more segment may
/// follow only after a version.
fn is_models(path: &str) -> bool {
    let Some((before, name)) = path.rsplit_once("/models") else { return false };
    let is_base =
        before.rsplit('/').next().is_some_and(|last| last.is_empty() || last.starts_with('v') || last == "openai");
    is_base && (name.is_empty() || name.starts_with('/')) && !name.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(protocol: Protocol, path: &str) -> Option<Endpoint> {
        Endpoint::of(protocol, &Method::POST, path)
    }

    #[test]
    fn by_the_end_of_the_path() {
        for path in [
            "/v1/chat/completions",
            "/chat/completions",
            "/api/v1/chat/completions/",
            "/openai/deployments/gpt/chat/completions",
        ] {
            assert_eq!(post(Protocol::Openai, path), Some(Endpoint::ChatCompletions), "{path}");
        }
        assert_eq!(post(Protocol::Openai, "/v1/completions"), Some(Endpoint::Completions));
        assert_eq!(post(Protocol::Openai, "/v1/responses/resp_1/cancel"), None);
        assert_eq!(post(Protocol::Anthropic, "/v1/messages/count_tokens"), Some(Endpoint::CountTokens));
        assert_eq!(post(Protocol::Anthropic, "/v1/messages/batches"), None);
        let gemini = "/v1beta/models/gemini-2.5-pro:streamGenerateContent";
        assert_eq!(post(Protocol::Gemini, gemini), Some(Endpoint::StreamGenerateContent));
        assert_eq!(post(Protocol::Anthropic, "/v1/chat/completions"), None);
        assert_eq!(Endpoint::of(Protocol::Openai, &Method::DELETE, "/v1/responses"), None);
    }

    #[test]
    fn models() {
        let get = |path| Endpoint::of(Protocol::Openai, &Method::GET, path);
        for path in ["/v1/models", "/models", "/v1/models/gpt-4o", "/api/v1/models", "/v1/models/meta-llama/llama-3"] {
            assert_eq!(get(path), Some(Endpoint::Models), "{path}");
        }
        for path in ["/v1/files", "/v1/fine/models", "/v1/modelsets", "/v1/responses/models_1"] {
            assert_eq!(get(path), None, "{path}");
        }
    }
}
