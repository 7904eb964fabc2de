//! What a request asks for, as the cache names it: the parts of its key, and its URL.

use std::{borrow::Cow, fmt::Write, ops::Deref, sync::Arc};

use http::{HeaderMap, Method, header};

use super::route::{Class, Partition, Route};
use crate::object::{
    forwarded,
    key::{Key, KeyBuilder},
    path::normalise_path,
    scope::Scope,
};
use crate::tenants::Tenant;

/// Scheme, authority, path and query of a request, normalised; and the site that its key and scopes name.
#[derive(Debug, Clone)]
pub struct Target {
    /// `http` or `https`: how the client came.
    pub scheme: &'static str,
    /// Host and port as the client named them, lower-case, default port left out.
    pub authority: Arc<str>,
    /// Path as the client wrote it. Keys hold these very bytes: were `/a/../b` stored as `/b`, whoever gets an origin
    /// to answer the one differently could put that answer in the place of the other.
    pub path: Arc<str>,
    /// Path with dot segments and needless percent-encoding resolved, as purges name it: here too much is safe.
    pub normal_path: Arc<str>,
    /// Query as sent, without `?`.
    pub query: Option<Arc<str>>,
    /// What keys and scopes name: the route's own site, or scheme and authority.
    pub site: Arc<str>,
    /// Whether forwarding fields of the request tell of a URL in front of a trusted proxy. The origin is told of it, so
    /// the key holds it.
    pub forwarded: bool,
    /// Whom the request is of, where that was asked.
    pub tenant: Option<Arc<Tenant>>,
}

impl Target {
    /// The site of an authority where the route has none of its own.
    pub fn site_of(scheme: &str, authority: &str) -> String {
        [scheme, "://", authority].concat()
    }

    /// From the parts of a request; `normal` is the normalised `path`.
    pub fn new(
        route: &Route,
        scheme: &'static str,
        authority: &str,
        path: &str,
        normal: &str,
        query: Option<&str>,
    ) -> Self {
        let path: Arc<str> = path.into();
        let normal_path = if *path == *normal { Arc::clone(&path) } else { normal.into() };
        let site = route.site.clone().unwrap_or_else(|| Self::site_of(scheme, authority).into());
        let (authority, query) = (authority.into(), query.map(Into::into));
        Self { scheme, authority, path, normal_path, query, site, forwarded: false, tenant: None }
    }

    /// Of CONNECT, which names nothing but an authority.
    pub fn of_authority(authority: &str) -> Self {
        let empty: Arc<str> = "".into();
        let (path, normal_path, site) = (Arc::clone(&empty), Arc::clone(&empty), empty);
        let (scheme, authority) = ("https", authority.into());
        Self { scheme, authority, path, normal_path, query: None, site, forwarded: false, tenant: None }
    }

    /// The URL as a client names it.
    pub fn url(&self) -> String {
        let query = self.query.as_ref().map_or(0, |query| query.len() + 1);
        let mut url = String::with_capacity(self.scheme.len() + 3 + self.authority.len() + self.path.len() + query);
        // Writing to a String cannot fail.
        let _ = write!(url, "{}://{}{}", self.scheme, self.authority, self.path);
        if let Some(query) = &self.query {
            url.push('?');
            url.push_str(query);
        }
        url
    }

    /// The primary key of a request for this.
    pub fn key(
        &self,
        route: &Route,
        secret: &[u8; 32],
        request: &HeaderMap,
        class: Class,
        content: Option<Content<'_>>,
    ) -> Key {
        self.view().key(route, secret, &request, class, content)
    }

    fn view(&self) -> View<'_> {
        let (query, forwarded) = (self.query.as_deref(), self.forwarded);
        View { scheme: self.scheme, path: &self.path, query, site: &self.site, forwarded, tenant: self.tenant() }
    }

    /// Name of the tenant that it is of.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref().map(|tenant| &*tenant.name)
    }

    /// What `reference`, a `Location` or `Content-Location`, names if it is of the same origin (RFC 9111 section 4.4).
    ///
    /// An origin behind a gateway may name itself instead: `is_own` tells its authorities.
    pub fn relative(&self, reference: &str, is_own: impl Fn(&str) -> bool) -> Option<Self> {
        let base = url::Url::parse(&self.url()).ok()?;
        let other = base.join(reference).ok()?;
        (other.origin() == base.origin() || is_own(other.authority())).then(|| Self {
            path: other.path().into(),
            normal_path: normalise_path(other.path()).into(),
            query: other.query().map(Into::into),
            ..self.clone()
        })
    }

    /// The scope of its URL. The query is the one of the key: what shares an entry is purged together.
    pub fn url_scope(&self, route: &Route) -> Scope {
        Scope::url(&self.site, &self.normal_path, route.key_query(self.query.as_deref()).as_deref())
    }

    /// Scopes known before the response is: the URL first, then everything, the site, the key, the path's prefixes.
    pub fn scopes(&self, route: &Route, key: &Key) -> Arc<[Scope]> {
        let url = self.url_scope(route);
        let site = route.site_scope.unwrap_or_else(|| Scope::site(&self.site));
        let first = [url, Scope::everything(), site, Scope::key(key)];
        first.into_iter().chain(Scope::prefixes(&self.site, &self.normal_path)).collect()
    }

    /// The partition a request falls into by its fields, as tags are scoped by it; empty: shared.
    pub fn partition(route: &Route, secret: &[u8; 32], request: &HeaderMap) -> Vec<u8> {
        let mut bytes = Vec::new();
        partition(route, secret, &request, |value| bytes.extend_from_slice(value.unwrap_or_default()));
        bytes
    }
}

/// Method and content of a request whose key holds both.
pub type Content<'a> = (&'a Method, &'a [u8]);

/// What of a target a key is made of, borrowed: a hit owns nothing.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// See [`Target::scheme`].
    pub scheme: &'static str,
    /// See [`Target::path`].
    pub path: &'a str,
    /// See [`Target::query`].
    pub query: Option<&'a str>,
    /// See [`Target::site`].
    pub site: &'a str,
    /// See [`Target::forwarded`].
    pub forwarded: bool,
    /// See [`Target::tenant`].
    pub tenant: Option<&'a str>,
}

impl View<'_> {
    /// The primary key of a request for this. Of its fields, only those are looked at that the route makes part of it.
    pub fn key(
        &self,
        route: &Route,
        secret: &[u8; 32],
        request: &impl Deref<Target = HeaderMap>,
        class: Class,
        content: Option<Content<'_>>,
    ) -> Key {
        let mut key = KeyBuilder::new("http");
        key.field(route.name.as_bytes()).field(self.scheme.as_bytes());
        // A route's own site says nothing that its name does not.
        key.optional(route.site.is_none().then_some(self.site.as_bytes())).field(self.path.as_bytes());
        key.optional(route.key_query(self.query).as_deref().map(str::as_bytes));
        match self.tenant.filter(|_| route.by_tenant) {
            None => partition(route, secret, request, |value| {
                key.optional(value);
            }),
            Some(tenant) => partition(route, secret, request, |value| {
                key.optional(Some(&of_tenant(tenant, value, secret)));
            }),
        }
        for name in &route.key_headers {
            key.optional(combined(request, name).as_deref());
        }
        for cookie in &route.policy.key_cookies {
            add_cookies(&mut key, request, cookie);
        }
        if class == Class::WithBody {
            key.field(b"content");
            if let Some((method, body)) = content {
                key.field(method.as_str().as_bytes()).field(blake3::hash(body).as_bytes());
            }
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
                key.optional(combined(request, &name).as_deref());
            }
        }
        if self.forwarded {
            forwarded::add_to_key(&mut key, request, route.site.is_none());
        }
        // Listed fields and cookies may be credentials.
        key.finish_keyed(secret)
    }
}

/// The method under which a class is stored.
pub(super) fn stored_method(class: Class, method: &Method) -> Method {
    if class == Class::WithBody { method.clone() } else { Method::GET }
}

/// Gives `then` a keyed hash of what keeps this request's responses apart, so that no credential is written anywhere.
fn partition(
    route: &Route,
    secret: &[u8; 32],
    request: &impl Deref<Target = HeaderMap>,
    then: impl FnOnce(Option<&[u8]>),
) {
    match &route.partition {
        Partition::None => then(None),
        Partition::Field(name) => match combined(request, name) {
            None => then(Some(b"")),
            Some(value) => then(Some(blake3::keyed_hash(secret, &value).as_bytes())),
        },
    }
}

/// What keeps a tenant's responses apart, and within them the value of a field where the route says so. No value of a field
/// is the same: it is hashed by itself.
fn of_tenant(tenant: &str, value: Option<&[u8]>, secret: &[u8; 32]) -> [u8; 32] {
    let mut parts = KeyBuilder::new("tenant");
    parts.field(tenant.as_bytes()).optional(value);
    *parts.finish_keyed(secret).as_bytes()
}

/// All lines of a field as one value (RFC 9110 section 5.3).
fn combined<'a>(request: &'a HeaderMap, name: &http::HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = request.get_all(name).iter();
    let first = lines.next()?;
    let mut value = Cow::Borrowed(first.as_bytes());
    for line in lines {
        let joined = value.to_mut();
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line.as_bytes());
    }
    Some(value)
}

/// Adds the values of all cookies of this name, in their order: which one an origin takes is its own affair, and so are
/// blanks.
fn add_cookies(key: &mut KeyBuilder, request: &HeaderMap, name: &str) {
    for pair in request.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b';')) {
        let Some(equals) = pair.iter().position(|&byte| byte == b'=') else { continue };
        if pair[..equals].trim_ascii() == name.as_bytes() {
            key.optional(Some(pair[equals + 1..].trim_ascii()));
        }
    }
    key.optional(None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(lines: &[&'static str], name: &str) -> Key {
        let mut request = HeaderMap::new();
        for line in lines {
            request.append(header::COOKIE, http::HeaderValue::from_static(line));
        }
        let mut key = KeyBuilder::new("test");
        add_cookies(&mut key, &request, name);
        key.finish()
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let german = cookies(&["lang=de"], "lang");
        assert_eq!(cookies(&["xlang=en; lang=de; lang2=fr"], "lang"), german);
        assert_eq!(cookies(&["a=b", "\tlang = de ;c=d"], "lang"), german);
        assert_eq!(cookies(&["lang=de"], "la"), cookies(&[], "la"));
        assert_ne!(cookies(&["lang="], "lang"), cookies(&[], "lang"));
    }

    #[test]
    fn all_cookies_of_a_name_count_in_their_order() {
        let both = cookies(&["lang=de; lang=en"], "lang");
        assert_eq!(cookies(&["lang=de", "lang=en"], "lang"), both);
        assert_ne!(cookies(&["lang=en; lang=de"], "lang"), both);
        assert_ne!(cookies(&["lang=de"], "lang"), both);
    }
}
