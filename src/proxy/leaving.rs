//! How a request leaves for its origin: the client's end-to-end fields, and what a proxy adds to them.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header,
    uri::{PathAndQuery, Uri},
};

use super::{
    Proxy,
    client::Client,
    config::HostHeader,
    forwarded::{self, Told},
    proxied::Proxied,
};
use crate::{
    cache::{Charge, Departure, Outgoing},
    limit::{Refused, ToOrigin},
    object::fields,
    origin,
    tenants::{Gate, LARDER_KEY},
};

/// Tells origins that `Surrogate-Control` is understood, and by what name it can be targeted (W3C Edge Architecture).
const SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");
/// Fields that a request gets on its way, at most.
const ADDED: usize = 12;
pub(super) const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// One request on its way out.
pub(super) struct Leaving {
    pub(super) proxy: Proxy,
    pub(super) proxied: Proxied,
    pub(super) client: Client,
    pub(super) scheme: &'static str,
    pub(super) authority: Arc<str>,
    /// As the client wrote it: what the origin gets is not normalised.
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) request_id: Option<HeaderValue>,
    /// What it costs to go to the origin, where that is counted.
    pub(super) to_origin: Option<Arc<ToOrigin>>,
}

impl Outgoing for Leaving {
    fn departure(&self, client: &HeaderMap) -> Result<Departure, origin::Error> {
        let upstream = self.proxy.upstream(&self.proxied, self.scheme, &self.authority, self.uri.path())?;
        // Made anew with room for what is added: a copy would be too small, and then hold what does not leave.
        let mut headers = HeaderMap::try_with_capacity(client.len() + ADDED).unwrap_or_default();
        let keeps_key = self.proxied.gate().is_some_and(Gate::forwards_credentials);
        for (name, value) in client {
            // A key is for nobody else, also where nobody has asked for it.
            let is_own = !keeps_key && *name == LARDER_KEY;
            if !fields::is_hop_by_hop(name) && !matches!(*name, header::HOST | header::EXPECT) && !is_own {
                headers.append(name, value.clone());
            }
        }
        // What `Connection` names is gone since the request arrived.
        if wants_trailers(client) {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        self.add_proxy_fields(&mut headers);
        if let Proxied::Route(route) = &self.proxied {
            route.apply_request_rules(&mut headers);
        }
        let (path_and_query, host) = (self.path_and_query(), self.host());
        let span = self.span(&mut headers, path_and_query.path(), host.as_ref(), &upstream);
        Ok(Departure { upstream, path_and_query, host, headers, span })
    }

    fn interim(&self, status: StatusCode, fields: &HeaderMap) {
        if let Some(interim) = &self.client.interim
            && self.version == Version::HTTP_11
        {
            interim.send(status, fields);
        }
    }

    async fn admitted(&self) -> Result<(), Refused> {
        match &self.to_origin {
            Some(to_origin) => to_origin.admit().await,
            None => Ok(()),
        }
    }

    fn charge(&self) -> Option<Charge> {
        let to_origin = self.to_origin.clone().filter(|to_origin| to_origin.counts_tokens())?;
        Some(Arc::new(move |tokens| to_origin.charge(tokens)))
    }
}

/// Whether the client takes trailers (RFC 9110 section 10.1.4); what else `TE` says ends here.
fn wants_trailers(headers: &HeaderMap) -> bool {
    let members = headers.get_all(header::TE).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    members.map(<[u8]>::trim_ascii).any(|member| member.eq_ignore_ascii_case(b"trailers"))
}

impl Leaving {
    pub(super) fn add_proxy_fields(&self, headers: &mut HeaderMap) {
        headers.append(header::VIA, self.proxy.via(self.version));
        headers.append(CDN_LOOP, self.proxy.loop_mark());
        headers.append(SURROGATE_CAPABILITY, HeaderValue::from_static("larder=\"Surrogate/1.0\""));
        let config = self.proxy.headers_config();
        let told = Told {
            address: self.client.address,
            scheme: self.client.scheme,
            host: self.proxied.depends_on_authority().then_some(&*self.authority),
        };
        forwarded::apply(headers, config.forwarded, &told);
        if let (Some(name), Some(id)) = (self.proxy.request_ids().field(), &self.request_id) {
            headers.insert(name, id.clone());
        }
    }

    pub(super) fn host(&self) -> Option<HeaderValue> {
        match &self.proxied {
            Proxied::Route(route) if route.host_header == HostHeader::Client => {
                HeaderValue::from_str(&self.authority).ok()
            }
            _ => None,
        }
    }

    pub(super) fn path_and_query(&self) -> PathAndQuery {
        let whole = self.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        match &self.proxied {
            Proxied::Route(route) => route.stripped(&whole),
            Proxied::Forward(_) => whole,
        }
    }
}
