//! What can go wrong between here and an origin, as RFC 9209 names it.
//!
//! Every failure of a fetch ends as one [`Error`]: it knows its Proxy-Status type, the status a client gets where the
//! cache has nothing better, and whether the origin can have seen the request. Clones are cheap, so that all who
//! waited for one connection attempt can be told the same.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use http::StatusCode;

/// Any error, boxed.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The failure of a fetch.
#[derive(Debug, Clone, thiserror::Error)]
#[error("origin: {kind}")]
pub struct Error {
    kind: Kind,
    unseen: bool,
    /// Told to a request that waited for another one's connection attempt.
    echo: bool,
    source: Option<Source>,
}

/// What failed. The order is that of [`Kind::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The host name has no address.
    DnsError,
    /// The resolver did not answer in time.
    DnsTimeout,
    /// Every address of the host is one the policy forbids.
    Prohibited,
    /// No route to the host.
    Unroutable,
    /// The connection was refused.
    Refused,
    /// No connection in time, TLS included.
    ConnectTimeout,
    /// The connection ended before the response began.
    Terminated,
    /// Too many requests wait for a connection, or this one waited too long.
    ConnectionLimit,
    /// The upstream rests after failures in a row.
    Unavailable,
    /// TLS could not be agreed on.
    TlsProtocol,
    /// The origin's certificate is not to be trusted.
    TlsCertificate,
    /// The origin ended TLS with an alert.
    TlsAlert,
    /// No response head in time.
    HeadTimeout,
    /// Silence in the middle of the response body.
    BodyTimeout,
    /// The response ended early.
    Incomplete,
    /// The response head is larger than allowed.
    HeadTooLarge,
    /// The body's chunked framing is broken.
    TransferCoding,
    /// What came is not HTTP.
    Protocol,
    /// The request's own body failed while it was sent.
    RequestBody,
    /// A fault on this side.
    Internal,
}

/// A cause, kept behind an `Arc` so that errors can be cloned.
#[derive(Debug, Clone)]
struct Source(Arc<dyn StdError + Send + Sync>);

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 20] = [
        Self::DnsError,
        Self::DnsTimeout,
        Self::Prohibited,
        Self::Unroutable,
        Self::Refused,
        Self::ConnectTimeout,
        Self::Terminated,
        Self::ConnectionLimit,
        Self::Unavailable,
        Self::TlsProtocol,
        Self::TlsCertificate,
        Self::TlsAlert,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::Incomplete,
        Self::HeadTooLarge,
        Self::TransferCoding,
        Self::Protocol,
        Self::RequestBody,
        Self::Internal,
    ];

    /// The RFC 9209 error type.
    pub fn proxy_status(self) -> &'static str {
        match self {
            Self::DnsError => "dns_error",
            Self::DnsTimeout => "dns_timeout",
            Self::Prohibited => "destination_ip_prohibited",
            Self::Unroutable => "destination_ip_unroutable",
            Self::Refused => "connection_refused",
            Self::ConnectTimeout => "connection_timeout",
            Self::Terminated => "connection_terminated",
            Self::ConnectionLimit => "connection_limit_reached",
            Self::Unavailable => "destination_unavailable",
            Self::TlsProtocol => "tls_protocol_error",
            Self::TlsCertificate => "tls_certificate_error",
            Self::TlsAlert => "tls_alert_received",
            Self::HeadTimeout => "http_response_timeout",
            Self::BodyTimeout => "connection_read_timeout",
            Self::Incomplete => "http_response_incomplete",
            Self::HeadTooLarge => "http_response_header_section_size",
            Self::TransferCoding => "http_response_transfer_coding",
            Self::Protocol => "http_protocol_error",
            Self::RequestBody => "http_request_error",
            Self::Internal => "proxy_internal_error",
        }
    }

    /// The status a client is told where nothing stored can be served instead.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Prohibited => StatusCode::FORBIDDEN,
            Self::ConnectionLimit | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::DnsTimeout | Self::ConnectTimeout | Self::HeadTimeout | Self::BodyTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::RequestBody => StatusCode::BAD_REQUEST,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether it happens before a request can leave.
    fn before_request(self) -> bool {
        use Kind::*;
        matches!(
            self,
            DnsError
                | DnsTimeout
                | Prohibited
                | Unroutable
                | Refused
                | ConnectTimeout
                | ConnectionLimit
                | Unavailable
                | TlsCertificate
        )
    }

    /// Whether it says that the origin is ill, which is what a breaker counts.
    fn counts(self) -> bool {
        use Kind::*;
        matches!(
            self,
            DnsError
                | DnsTimeout
                | Unroutable
                | Refused
                | ConnectTimeout
                | TlsProtocol
                | TlsCertificate
                | TlsAlert
                | HeadTimeout
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DnsError => "the host name cannot be resolved",
            Self::DnsTimeout => "the resolver did not answer in time",
            Self::Prohibited => "the address is not allowed as a target",
            Self::Unroutable => "no route to the host",
            Self::Refused => "connection refused",
            Self::ConnectTimeout => "no connection in time",
            Self::Terminated => "connection closed before the response",
            Self::ConnectionLimit => "no free connection",
            Self::Unavailable => "resting after failures",
            Self::TlsProtocol => "TLS failed",
            Self::TlsCertificate => "certificate not accepted",
            Self::TlsAlert => "TLS alert received",
            Self::HeadTimeout => "no response head in time",
            Self::BodyTimeout => "silence in the response body",
            Self::Incomplete => "response ended early",
            Self::HeadTooLarge => "response head too large",
            Self::TransferCoding => "broken chunked coding",
            Self::Protocol => "not HTTP",
            Self::RequestBody => "the request's body failed",
            Self::Internal => "internal error",
        })
    }
}

impl Error {
    /// An error without a further cause.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, unseen: kind.before_request(), echo: false, source: None }
    }

    /// An error with its cause.
    pub(super) fn with(kind: Kind, cause: impl Into<BoxError>) -> Self {
        Self { source: Some(Source(Arc::from(cause.into()))), ..Self::new(kind) }
    }

    /// The same, where the request is known not to have reached the origin's logic.
    pub(super) fn into_unseen(self) -> Self {
        Self { unseen: true, ..self }
    }

    /// The same, for those who waited for the attempt that failed.
    pub(super) fn echo(&self) -> Self {
        Self { echo: true, ..self.clone() }
    }

    /// Whether a breaker counts it: it says that the origin is ill, and it says so for the first time.
    pub(super) fn counts(&self) -> bool {
        self.kind.counts() && !self.echo
    }

    /// An upstream that cannot be made at all.
    pub fn unusable(cause: impl Into<BoxError>) -> Self {
        Self::with(Kind::DnsError, cause)
    }

    /// What failed.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The RFC 9209 error type, for `Proxy-Status`.
    pub fn proxy_status(&self) -> &'static str {
        self.kind.proxy_status()
    }

    /// The status a client is told where nothing stored can be served instead.
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// Whether the origin cannot have acted on the request.
    pub fn unseen(&self) -> bool {
        self.unseen
    }

    /// A connection attempt that failed below TLS.
    pub(super) fn connecting(cause: io::Error) -> Self {
        let kind = match cause.kind() {
            io::ErrorKind::ConnectionRefused => Kind::Refused,
            io::ErrorKind::TimedOut => Kind::ConnectTimeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Kind::Unroutable,
            _ => Kind::Terminated,
        };
        Self::with(kind, cause).into_unseen()
    }

    /// A TLS handshake that failed.
    pub(super) fn securing(cause: io::Error) -> Self {
        let kind = tls_kind(&cause).unwrap_or(match cause.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Kind::Terminated,
            _ => Kind::TlsProtocol,
        });
        Self::with(kind, cause).into_unseen()
    }

    /// A failure between the request and the end of the response head; `heard` says whether any byte came.
    pub(super) fn awaiting_head(cause: hyper::Error, heard: bool) -> Self {
        let gone = if heard { Kind::Incomplete } else { Kind::Terminated };
        let kind = if cause.is_parse_too_large() {
            Kind::HeadTooLarge
        } else if cause.is_parse() {
            Kind::Protocol
        } else if cause.is_user() {
            Kind::Internal
        } else {
            wire_kind(&cause, gone).unwrap_or(gone)
        };
        let refused = refused(&cause);
        let error = Self::with(kind, cause);
        if refused { error.into_unseen() } else { error }
    }

    /// A connection that cannot be read on; `gone` where it has merely ended.
    pub(super) fn reading(cause: io::Error, gone: Kind) -> Self {
        let kind = wire_kind(&cause, gone).unwrap_or(gone);
        Self::with(kind, cause)
    }

    /// A failure in the middle of the response body.
    pub(super) fn reading_body(cause: hyper::Error) -> Self {
        let kind = match find::<io::Error>(&cause).map(io::Error::kind) {
            Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) if tls_kind(&cause).is_none() => {
                Kind::TransferCoding
            }
            _ => wire_kind(&cause, Kind::Incomplete).unwrap_or(Kind::Incomplete),
        };
        Self::with(kind, cause)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Source {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// Whether an HTTP/2 origin said itself that it did not process the request (RFC 9113, 8.7).
fn refused(cause: &hyper::Error) -> bool {
    find::<h2::Error>(cause).is_some_and(|error| {
        let orderly = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        orderly || (error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// Whether only one HTTP/2 stream failed, not its connection.
pub(super) fn is_stream_reset(cause: &hyper::Error) -> bool {
    find::<h2::Error>(cause).is_some_and(h2::Error::is_reset)
}

/// What the HTTP/2 or TLS layer below says, if it was one of them.
fn wire_kind(cause: &(dyn StdError + 'static), gone: Kind) -> Option<Kind> {
    if let Some(kind) = tls_kind(cause) {
        return Some(kind);
    }
    let error = find::<h2::Error>(cause)?;
    let protocol = error.is_library() || error.reason() == Some(h2::Reason::PROTOCOL_ERROR);
    Some(if protocol && !error.is_io() { Kind::Protocol } else { gone })
}

/// What rustls says, if it was rustls.
fn tls_kind(cause: &(dyn StdError + 'static)) -> Option<Kind> {
    find::<rustls::Error>(cause).map(|error| match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Kind::TlsCertificate,
        rustls::Error::AlertReceived(_) => Kind::TlsAlert,
        _ => Kind::TlsProtocol,
    })
}

/// The first cause of type `E`; looks into what an `io::Error` wraps, which its `source` skips.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_listed_in_their_own_order() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }

    #[test]
    fn a_cause_inside_an_io_error_is_found() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = Error::securing(io::Error::new(io::ErrorKind::InvalidData, tls));
        assert_eq!((error.proxy_status(), error.unseen()), ("tls_certificate_error", true));
        assert!(error.source().is_some());
        let plain = Error::securing(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(plain.kind(), Kind::Terminated);
    }
}
