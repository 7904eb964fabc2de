//! The proxy that answers now: a reload puts another one in its place.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Proxy;

/// Holds the proxy that answers now. Copies hold the same.
#[derive(Clone)]
pub struct Live {
    current: Arc<ArcSwap<Proxy>>,
}

impl Live {
    /// With the first one.
    pub fn new(proxy: Proxy) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(proxy)) }
    }

    /// The one that answers now; to be let go soon.
    pub fn now(&self) -> Guard<Arc<Proxy>> {
        self.current.load()
    }

    /// The same, to be kept for a request.
    pub fn current(&self) -> Proxy {
        Proxy::clone(&self.current.load())
    }

    /// From now on `proxy` answers; what the one before has begun, it finishes.
    pub fn replace(&self, proxy: Proxy) {
        self.current.store(Arc::new(proxy));
    }
}
