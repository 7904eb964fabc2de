//! A response of an origin.

use std::time::Duration;

use http::{HeaderMap, StatusCode, Version};
use hyper::upgrade::OnUpgrade;

use super::body::OriginBody;

/// The final response head, and a body that may still be coming.
#[derive(Debug)]
pub struct OriginResponse {
    /// Final status; 101 only where an upgrade was asked for.
    pub status: StatusCode,
    /// All fields as they came, hop-by-hop ones included; without `Content-Length` where a transfer coding overrides it.
    pub headers: HeaderMap,
    /// What the origin speaks.
    pub version: Version,
    /// Body.
    pub body: OriginBody,
    /// With status 101: the connection, once it is handed over. It no longer counts among the origin's connections.
    pub upgrade: Option<OnUpgrade>,
    /// Where the time went.
    pub timing: Timing,
}

/// Where the time until the response head went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// To open the connection; nothing if it was open.
    pub connect: Option<Duration>,
    /// From the request sent to the response head.
    pub wait: Duration,
}
