//! Interception of TLS: an authority of this machine's own, whom it may speak for, and the certificates it signs.
//!
//! A program that is told to use the gateway for https (`HTTPS_PROXY`) has it connect to a host and then speaks TLS with
//! that host: there is nothing for a cache to see. For the hosts of a list, the gateway answers the handshake itself
//! instead, with a certificate of an authority that the user has made (`larder ca init`) and has told those programs to
//! trust. That authority cannot speak for any other host, and its key never leaves the data directory.
//!
//! Nothing here opens a connection: who serves what is spoken inside is `app/intercept.rs`.

mod authority;
mod bundle;
mod certificates;
pub mod config;
mod hosts;
mod metrics;
mod store;

pub use self::{
    authority::{About, Authority, Error},
    bundle::{Bundled, bundle},
    certificates::Certificates,
    config::Config,
    hosts::{Hosts, Pattern, PatternError},
    metrics::{Metrics, Outcome},
    store::Store,
};
