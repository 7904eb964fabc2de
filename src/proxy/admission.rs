//! Who is let in: before the cache sees a request, it is known whom it is of, and what was presented is gone.
//!
//! A client of the forward proxy shows its key to that, with the request or with the CONNECT of its tunnel, and speaks
//! for its tenant from then on: what else it brings is for the hosts it calls.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, header};

use super::{Proxied, Proxy, ProxyRoute, rescue::Refusal};
use crate::tenants::{Denied, Gate, Lines, Presented, Tenant};

/// Not to be settled at once: a request that is refused, or that has to wait for it.
pub(super) struct NotAtOnce;

/// What is known of a request's client before its fields are looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known<'a> {
    /// The tenant it speaks for without a key.
    pub(super) speaks_for: Option<&'a str>,
    /// Whether it came to the forward proxy.
    pub(super) forwarded: bool,
}

impl Proxy {
    /// Whom a request with these fields is of; `None`: the route asks nobody. Nothing is waited for.
    pub(super) fn admitted_at_once<'a>(
        &self,
        route: &ProxyRoute,
        speaks_for: Option<&str>,
        lines: impl Fn(&HeaderName) -> Lines<'a>,
    ) -> Result<Option<Arc<Tenant>>, NotAtOnce> {
        let Some(gate) = &route.gate else { return Ok(None) };
        let (tenants, name) = (&self.inner.tenants, &route.cache.name);
        let tenant = match speaks_for {
            Some(tenant) => tenants.spoken_for(tenant).and_then(|tenant| tenant.admitted(name)).ok(),
            None => tenants.admit_at_once(gate, gate.presented(lines), name),
        };
        tenant.map(Some).ok_or(NotAtOnce)
    }

    /// The same, whatever it takes. What was presented to the gateway is taken off, whether it is right or wrong.
    pub(super) async fn admitted(
        &self,
        proxied: &Proxied,
        known: Known<'_>,
        headers: &mut HeaderMap,
    ) -> Result<Option<Arc<Tenant>>, Refusal> {
        let (tenants, route) = (&self.inner.tenants, &proxied.cache_route().name);
        let spoken_for = match (known.speaks_for, &self.inner.forward_route.gate) {
            // Where nobody is asked, it does not matter.
            (Some(name), _) if proxied.gate().is_none() => tenants.spoken_for(name).ok(),
            (Some(name), _) => Some(tenants.spoken_for(name)?),
            (None, Some(gate)) if known.forwarded => Some(self.of_the_proxy(gate, headers).await?),
            (None, _) => None,
        };
        let gate = match proxied {
            Proxied::Route(route) => route.gate.as_ref(),
            // Who may use it has been asked.
            Proxied::Forward(_) => None,
        };
        let Some(gate) = gate else { return Ok(spoken_for) };
        let presented = gate.presented(|name| Lines::of(headers, name));
        let tenant = match spoken_for {
            Some(tenant) => {
                let brings_a_key = tenants.admit_at_once(gate, presented, route).is_some();
                if brings_a_key {
                    gate.take_off(headers);
                }
                tenant.admitted(route)
            }
            None => {
                let tenant = tenants.admit(gate, presented, route).await;
                gate.take_off(headers);
                tenant
            }
        };
        Ok(Some(tenant?))
    }

    /// The tenant that shows its key to the forward proxy.
    async fn of_the_proxy(&self, gate: &Gate, headers: &HeaderMap) -> Result<Arc<Tenant>, Refusal> {
        let lines = Lines::of(headers, &header::PROXY_AUTHORIZATION);
        let key = proxy_key(lines).map_err(Refusal::ForwardDenied)?;
        let route = &self.inner.forward_route.cache.name;
        let tenant = self.inner.tenants.admit(gate, Presented::Credential(&key), route).await;
        tenant.map_err(Refusal::ForwardDenied)
    }
}

/// The key in `Proxy-Authorization`: the password of `Basic`, which is what clients know of proxies, or a bearer token.
fn proxy_key(lines: Lines<'_>) -> Result<Vec<u8>, Denied> {
    let line = match lines {
        Lines::None => return Err(Denied::Missing),
        Lines::Several => return Err(Denied::Unknown),
        Lines::One(line) => line,
    };
    let blank = line.iter().position(|&byte| byte == b' ').ok_or(Denied::Unknown)?;
    let (scheme, rest) = (&line[..blank], line[blank..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"Bearer") {
        return Ok(rest.to_vec());
    }
    let pair = scheme.eq_ignore_ascii_case(b"Basic").then(|| BASE64_STANDARD.decode(rest).ok()).flatten();
    let pair = pair.ok_or(Denied::Unknown)?;
    let colon = pair.iter().position(|&byte| byte == b':').ok_or(Denied::Unknown)?;
    Ok(pair[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_for_the_proxy() {
        let key = |line: &'static str| proxy_key(Lines::One(line.as_bytes()));
        assert_eq!(key("Basic c2VhcmNoOmxrLWE6Yg=="), Ok(b"lk-a:b".to_vec()), "whatever the name before it");
        assert_eq!(key("bearer  lk-a "), Ok(b"lk-a".to_vec()));
        for wrong in ["", "Basic", "Basic !", "Basic c2VhcmNo", "Digest lk-a", "lk-a"] {
            assert_eq!(key(wrong), Err(Denied::Unknown), "{wrong}");
        }
        assert_eq!((proxy_key(Lines::None), proxy_key(Lines::Several)), (Err(Denied::Missing), Err(Denied::Unknown)));
    }
}
