//! `PURGE` on the data listener, where a route takes it. Who may, and what it means, is the admin plane's to say.

use std::sync::OnceLock;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Response, request};

use super::{
    Proxied, Proxy,
    purge::{PurgeRequest, Receipt},
};
use crate::cache::Body;

/// Answers a `PURGE`, from its head.
pub type PurgeAnswerer = Box<dyn Fn(request::Parts) -> BoxFuture<'static, Response<Bytes>> + Send + Sync>;

/// Hears of every purge that was called for on this node, once it is acknowledged.
pub type PurgeListener = Box<dyn Fn(&PurgeRequest, &Receipt) + Send + Sync>;

/// Who is asked and told, whichever proxy answers.
#[derive(Default)]
pub(super) struct Hooks {
    purges: OnceLock<PurgeAnswerer>,
    purged: OnceLock<PurgeListener>,
}

impl Proxy {
    /// From now on `listener` hears of purges; the first one given counts.
    pub fn tell_purges(&self, listener: PurgeListener) {
        let _ = self.inner.hooks.purged.set(listener);
    }

    pub(super) fn tell(&self, request: &PurgeRequest, receipt: &Receipt) {
        if let Some(listener) = self.inner.hooks.purged.get() {
            listener(request, receipt);
        }
    }

    /// From now on `answerer` answers `PURGE` on routes that take it; the first one given counts.
    pub fn answer_purges(&self, answerer: PurgeAnswerer) {
        // A second one would be a mistake of the wiring, and the first is as good.
        let _ = self.inner.hooks.purges.set(answerer);
    }

    pub(super) fn takes_purge(&self, method: &Method, proxied: &Proxied) -> bool {
        method.as_str() == "PURGE"
            && proxied.cache_route().policy.purge_method
            && self.inner.hooks.purges.get().is_some()
    }

    pub(super) async fn purged(&self, head: request::Parts) -> Response<Body> {
        match self.inner.hooks.purges.get() {
            Some(answer) => answer(head).await.map(Body::Full),
            None => Response::new(Body::Empty),
        }
    }
}
