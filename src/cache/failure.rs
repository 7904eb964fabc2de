//! Why no answer, or no complete answer, could be given.

use http::StatusCode;

use crate::{limit::Refused, origin, store::l3::ContentError};

/// A failure as a client sees it; shared by all that waited for the same fill.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The origin could not be reached, or broke off.
    #[error(transparent)]
    Origin(#[from] origin::Error),
    /// The origin was to be asked, and a limit of what may be asked is used up.
    #[error(transparent)]
    Limited(#[from] Refused),
    /// `only-if-cached`, and it is not (RFC 9111 section 5.2.1.7).
    #[error("the request asks for a stored response only, and none can be used")]
    OnlyIfCached,
    /// Only what was recorded is answered, and this was not.
    #[error("this call was not recorded: {0}; llm.mode = \"record\" or \"auto\" records it")]
    NotRecorded(String),
    /// The file that held the older part of the body cannot be read.
    #[error("the part of the body that was spilled to a file cannot be read back")]
    Spill,
    /// Stored content proved damaged, or its disk failed, after the answer had begun.
    #[error(transparent)]
    Disk(ContentError),
    /// The fill was given up: nobody reads it and it cannot be stored.
    #[error("the transfer was given up")]
    GivenUp,
    /// A provider's answer is not to what it was asked.
    #[error("the provider's answer is no list of what it was asked for")]
    OtherAnswer,
    /// The content of the request broke off before it could be sent.
    #[error("the content of the request broke off")]
    RequestBody(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Failure {
    /// Status of the answer, where one can still be given.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Origin(error) => error.status(),
            Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::OnlyIfCached | Self::NotRecorded(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Spill | Self::Disk(_) | Self::GivenUp | Self::OtherAnswer => StatusCode::BAD_GATEWAY,
            Self::RequestBody(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// `error` parameter of Proxy-Status (RFC 9209 section 2.3), where one fits.
    pub fn proxy_status(&self) -> Option<&'static str> {
        match self {
            Self::Origin(error) => Some(error.proxy_status()),
            Self::Limited(_) => Some("http_request_denied"),
            Self::OnlyIfCached | Self::NotRecorded(_) => None,
            Self::Spill | Self::Disk(_) => Some("proxy_internal_error"),
            Self::GivenUp => Some("connection_terminated"),
            Self::OtherAnswer => Some("http_protocol_error"),
            Self::RequestBody(_) => Some("http_request_error"),
        }
    }

    /// Whether the origin surely has not seen the request.
    pub fn unseen(&self) -> bool {
        match self {
            Self::Origin(error) => error.unseen(),
            _ => false,
        }
    }

    /// Short name for metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OnlyIfCached => "only_if_cached",
            Self::NotRecorded(_) => "not_recorded",
            Self::Limited(_) => "limited",
            _ => self.proxy_status().unwrap_or("other"),
        }
    }
}
