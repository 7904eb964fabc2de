//! Who sent a request, as far as the proxy needs to know.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::tunnel::Guards;

/// Takes interim responses for the client of a request under way.
pub trait InterimSink: Send + Sync {
    /// Sends one, if the connection can.
    fn send(&self, status: StatusCode, fields: &HeaderMap);
}

/// Opens the tunnels of some hosts, so that the requests in them come here.
pub trait Interceptor: Send + Sync {
    /// What opens the tunnel to `host`, a name in lower case or an address, for a `tenant` where one was asked for; `None`
    /// where it is to pass untouched.
    fn opening(&self, host: &str, port: u16, tenant: Option<Arc<str>>) -> BoxFuture<'_, Option<Opening>>;
}

/// Takes over the connection of a CONNECT, and holds for as long as it is open what belongs to it.
pub type Opening = Box<dyn FnOnce(OnUpgrade, Guards) + Send>;

/// The peer of a request.
#[derive(Clone)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// How it came: `http` or `https`.
    pub scheme: &'static str,
    /// The authority of the tunnel that it came in, where that was opened. It named no other host in the handshake, and
    /// was allowed to use the forward proxy when it asked for the tunnel.
    pub within: Option<Arc<str>>,
    /// The tenant it speaks for without a key: that of its tunnel, where that was opened; or of a request of the gateway's
    /// own, the one that an operator names.
    pub tenant: Option<Arc<str>>,
    /// What opens tunnels, where it may ask for one.
    pub interceptor: Option<Arc<dyn Interceptor>>,
    /// Where interim responses go; `None` where the protocol of the connection has no way to send them.
    pub interim: Option<Arc<dyn InterimSink>>,
    /// Keeps its connection open as long as a tunnel in it lives; `None` where nothing else could end it.
    pub hold: Option<Arc<dyn Send + Sync>>,
    /// Whether it is the gateway itself, for which no limit holds.
    pub itself: bool,
    /// What went wrong with the content of its request, once it has: the origin's side only sees that it broke off.
    pub fault: Arc<OnceLock<ClientFault>>,
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
