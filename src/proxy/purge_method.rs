//! `PURGE` as Varnish, Squid and Fastly take it: a request that becomes a [`PurgeRequest`].

use http::{
    HeaderMap, HeaderName, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery},
};

use super::purge::{PurgeError, PurgeRequest};

const SOFT_PURGE: HeaderName = HeaderName::from_static("fastly-soft-purge");
/// Header fields that carry tags, and what stands between two.
const TAG_FIELDS: [(HeaderName, char); 3] = [
    (HeaderName::from_static("surrogate-key"), ' '),
    (HeaderName::from_static("xkey"), ' '),
    (HeaderName::from_static("cache-tag"), ','),
];

/// What a `PURGE` asks for: tags, where it names some; else its target.
///
/// # Errors
/// Where it names nothing that can be understood.
pub fn request_of(head: &Parts) -> Result<PurgeRequest, PurgeError> {
    let mut request = PurgeRequest::default();
    add_header_fields(&head.headers, &mut request)?;
    if request.tags.is_empty() {
        request.urls = target_urls(head)?;
    }
    Ok(request)
}

/// The URLs a `PURGE` targets: its absolute form, or else its path on `Host`, by either scheme.
fn target_urls(head: &Parts) -> Result<Vec<String>, PurgeError> {
    // In HTTP/2 every target looks absolute, and its scheme only says how the caller came here.
    if head.version < Version::HTTP_2 && head.uri.scheme().is_some() {
        return Ok(vec![head.uri.to_string()]);
    }
    let named = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = named.or(head.uri.authority().map(Authority::as_str)) else {
        return Err(PurgeError::NoHost);
    };
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    Ok(["http", "https"].map(|scheme| format!("{scheme}://{host}{path}")).into())
}

/// Tags and softness from header fields.
///
/// # Errors
/// Where a tag has bytes no tag can have.
pub fn add_header_fields(headers: &HeaderMap, request: &mut PurgeRequest) -> Result<(), PurgeError> {
    for (name, separator) in &TAG_FIELDS {
        for line in headers.get_all(name) {
            let text = line.to_str().map_err(|_| PurgeError::FieldBytes(name.clone()))?;
            let tags = text.split(*separator).map(str::trim).filter(|tag| !tag.is_empty());
            request.tags.extend(tags.map(str::to_owned));
        }
    }
    request.soft |= is_soft(headers);
    Ok(())
}

/// Whether `Fastly-Soft-Purge` asks for staleness instead.
pub fn is_soft(headers: &HeaderMap) -> bool {
    headers.get(SOFT_PURGE).is_some_and(|value| value == "1" || value.as_bytes().eq_ignore_ascii_case(b"true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &str, fields: &[(&str, &str)]) -> Result<PurgeRequest, PurgeError> {
        let mut request = http::Request::builder().method("PURGE").uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request_of(&request.body(()).expect("a request").into_parts().0)
    }

    fn urls(urls: &[&str]) -> PurgeRequest {
        PurgeRequest { urls: urls.iter().map(|&url| url.to_owned()).collect(), ..PurgeRequest::default() }
    }

    fn tags(tags: &[&str]) -> PurgeRequest {
        PurgeRequest { tags: tags.iter().map(|&tag| tag.to_owned()).collect(), ..PurgeRequest::default() }
    }

    #[test]
    fn purge_names_its_target() {
        assert_eq!(of("http://shop.example/a?b=1", &[]).expect("a purge"), urls(&["http://shop.example/a?b=1"]));
        let by_proxy = of("https://shop.example/a", &[("host", "127.0.0.1:8081")]);
        assert_eq!(by_proxy.expect("a purge"), urls(&["https://shop.example/a"]), "the absolute form overrules Host");
        let by_host = urls(&["http://shop.example:8080/a?b=1", "https://shop.example:8080/a?b=1"]);
        assert_eq!(of("/a?b=1", &[("host", "shop.example:8080")]).expect("a purge"), by_host);
        assert!(matches!(of("/a", &[]), Err(PurgeError::NoHost)));
    }

    #[test]
    fn tags_in_header_fields_come_before_the_target() {
        let host = ("host", "shop.example");
        assert_eq!(of("/", &[host, ("surrogate-key", "a  b")]).expect("a purge"), tags(&["a", "b"]));
        assert_eq!(of("/", &[host, ("xkey", "a"), ("xkey", "b c")]).expect("a purge"), tags(&["a", "b", "c"]));
        assert_eq!(of("/", &[host, ("cache-tag", "a b, c,")]).expect("a purge"), tags(&["a b", "c"]));
        assert!(of("/", &[host, ("xkey", "\u{e9}")]).is_err());
    }

    #[test]
    fn softly_where_asked_for() {
        let soft = |value| of("http://a/", &[("fastly-soft-purge", value)]).expect("a request").soft;
        assert!(soft("1") && soft("true"));
        assert!(!soft("0"));
    }
}
