//! Requests of the gateway's own: warm-up and refresh go the same way as clients' do.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use http::{HeaderMap, Method, Request, Response, Uri, Version};

use super::{Client, Proxy, Sent, resolve::ResolveError};
use crate::origin::RequestBody;

impl Proxy {
    /// Asks for `url` as a client on this machine would, for that `tenant` where there is one. The content is the
    /// caller's to read to its end, or to drop.
    ///
    /// # Errors
    /// Where `url` is not an absolute http or https URL.
    pub async fn fetch(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        tenant: Option<Arc<str>>,
    ) -> Result<Response<Sent>, ResolveError> {
        let resolved = self.resolve(url)?;
        let not_absolute = |reason: String| ResolveError::NotAbsolute { url: url.to_owned(), reason };
        // `Uri` takes no fragment, and a fragment is not sent.
        let without_fragment = url.split('#').next().unwrap_or(url);
        let uri: Uri =
            without_fragment.parse().map_err(|error: http::uri::InvalidUri| not_absolute(error.to_string()))?;
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let client = Client {
            address,
            scheme: resolved.target.scheme,
            within: None,
            tenant,
            interceptor: None,
            interim: None,
            hold: None,
            itself: true,
            fault: Arc::default(),
        };
        Ok(self.handle(request, client).await)
    }
}
