//! Who is let in: before the cache sees a request, it is known whom it is of, and what was presented is gone.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::{Proxied, Proxy, ProxyRoute};
use crate::tenants::{Denied, Lines, Tenant};

/// Not to be settled at once: a request that is refused, or that has to wait for it.
pub(super) struct NotAtOnce;

impl Proxy {
    /// Whom a request with these fields is of; `None`: the route asks nobody. Nothing is waited for.
    pub(super) fn admitted_at_once<'a>(
        &self,
        route: &ProxyRoute,
        lines: impl Fn(&HeaderName) -> Lines<'a>,
    ) -> Result<Option<Arc<Tenant>>, NotAtOnce> {
        let Some(gate) = &route.gate else { return Ok(None) };
        let tenant = self.inner.tenants.admit_at_once(gate, gate.presented(lines), &route.cache.name);
        tenant.map(Some).ok_or(NotAtOnce)
    }

    /// The same, whatever it takes, unless it `speaks_for` a tenant without a key. What was presented is taken off, whether it is right or wrong.
    pub(super) async fn admitted(
        &self,
        proxied: &Proxied,
        speaks_for: Option<&str>,
        headers: &mut HeaderMap,
    ) -> Result<Option<Arc<Tenant>>, Denied> {
        let Some(gate) = proxied.gate() else { return Ok(None) };
        let (tenants, route) = (&self.inner.tenants, &proxied.cache_route().name);
        let tenant = match speaks_for {
            Some(name) => tenants.named(name).admitted(route),
            None => tenants.admit(gate, gate.presented(|name| Lines::of(headers, name)), route).await,
        };
        gate.take_off(headers);
        tenant.map(Some)
    }
}
