//! Who sent a request, as far as the proxy needs to know.

use std::net::IpAddr;

use crate::origin::Interim;

/// The peer of a request.
#[derive(Clone)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// How it came: `http` or `https`.
    pub scheme: &'static str,
    /// Where interim responses go; `None` where the protocol of the connection has no way to send them.
    pub interim: Option<Interim>,
}

/// What a client did wrong with the content of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientFault {
    /// More of it than allowed.
    #[error("the request content is larger than client.body_bytes_max")]
    TooLarge,
    /// Slower than allowed.
    #[error("the request content came too slowly")]
    TooSlow,
    /// It broke off.
    #[error("the request content broke off")]
    Broken,
}
