//! What a request asks for, from its request line and `Host` (RFC 9112 section 3.2, RFC 9113 section 8.3.1).

use std::borrow::Cow;

use http::{HeaderMap, Uri, Version, header};

use super::rescue::Refusal;
use crate::object::path::normalise_authority;

/// Scheme and authority of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestTarget<'a> {
    pub(super) scheme: &'static str,
    /// Normalised: lower-case, default port left out.
    pub(super) authority: Cow<'a, str>,
    /// Whether the request line names the authority in HTTP/1: what a client sends to a proxy.
    pub(super) absolute: bool,
}

impl<'a> RequestTarget<'a> {
    pub(super) fn of(
        uri: &'a Uri,
        version: Version,
        headers: &'a HeaderMap,
        came_by: &'static str,
    ) -> Result<Self, Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(Refusal::BadTarget("more than one Host field"));
        }
        let scheme = match uri.scheme_str() {
            None => came_by,
            Some("http") => "http",
            Some("https") => "https",
            Some(_) => return Err(Refusal::BadTarget("a scheme other than http and https")),
        };
        // An absolute target overrides Host (RFC 9112 section 3.2.2).
        let named = match (uri.authority(), host) {
            (Some(authority), _) if authority.as_str().contains('@') => {
                return Err(Refusal::BadTarget("userinfo in the authority"));
            }
            (Some(authority), _) => authority.as_str(),
            (None, Some(host)) => host.to_str().map_err(|_| Refusal::BadTarget("a Host field that is not a host"))?,
            (None, None) if version == Version::HTTP_10 => "",
            (None, None) => return Err(Refusal::BadTarget("no Host field")),
        };
        let authority = if named.is_empty() {
            Cow::Borrowed("")
        } else {
            normalise_authority(scheme, named).map_err(|_| Refusal::BadTarget("a Host field that is not a host"))?
        };
        let absolute = uri.authority().is_some() && version < Version::HTTP_2;
        // What a client of an HTTP/2 connection calls https without TLS came over this connection all the same.
        let scheme = if absolute { scheme } else { came_by };
        Ok(Self { scheme, authority, absolute })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str, host: &[&str]) -> Result<(&'static str, String, bool), Refusal> {
        let uri = uri.parse().expect("a target");
        let mut headers = HeaderMap::new();
        for host in host {
            headers.append(header::HOST, host.parse().expect("valid"));
        }
        let target = RequestTarget::of(&uri, Version::HTTP_11, &headers, "http")?;
        Ok((target.scheme, target.authority.into_owned(), target.absolute))
    }

    #[test]
    fn forms() {
        assert_eq!(target("/a", &["Shop.Example:80"]), Ok(("http", "shop.example".to_owned(), false)));
        assert_eq!(target("http://a.example/x", &["b.example"]), Ok(("http", "a.example".to_owned(), true)));
        assert_eq!(target("https://a.example:443/", &[]), Ok(("https", "a.example".to_owned(), true)));
    }

    #[test]
    fn refusals() {
        assert!(target("/a", &[]).is_err());
        assert!(target("/a", &["a", "b"]).is_err());
        assert!(target("/a", &["a b"]).is_err());
        assert!(target("http://user@a.example/", &[]).is_err());
    }
}
