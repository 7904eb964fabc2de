//! One fetch, to the last byte, and what it came to.
//!
//! The verdict is read from the gateway's own member of `Cache-Status` (RFC 9211), the last one: members of caches
//! nearer to the origin stand before it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;

use crate::proxy::Live;

/// What a fetch came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The origin answered, and the response is stored.
    Stored,
    /// It was fresh already.
    Fresh,
    /// The origin answered, and the response may not be stored.
    NotStorable,
    /// No answer, half an answer, or an error status.
    Failed(String),
}

impl Fetched {
    /// One word, for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Fresh => "fresh",
            Self::NotStorable => "not-storable",
            Self::Failed(_) => "failed",
        }
    }
}

/// One URL, to be fetched with GET.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Absolute.
    pub url: String,
    /// Request header fields.
    pub headers: HeaderMap,
    /// The tenant for whom it is, where its route asks for one. It goes before a key in the fields.
    pub tenant: Option<Arc<str>>,
}

/// Fetches one URL.
pub type Fetcher = Arc<dyn Fn(Wanted) -> BoxFuture<'static, Fetched> + Send + Sync>;

/// Fetches through the stack that serves clients.
pub fn through(proxy: Live) -> Fetcher {
    Arc::new(move |wanted| {
        let proxy = proxy.current();
        Box::pin(async move {
            let Wanted { url, headers, tenant } = wanted;
            let (head, body) = match proxy.fetch(Method::GET, &url, headers, tenant).await {
                Ok(response) => response.into_parts(),
                Err(error) => return Fetched::Failed(error.to_string()),
            };
            match drained(body).await {
                Ok(()) => outcome(head.status, &head.headers),
                Err(error) => Fetched::Failed(format!("the body broke off: {error}")),
            }
        })
    })
}

async fn drained<B: Body>(body: B) -> Result<(), B::Error> {
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// The parameters of `Cache-Status` that matter here.
#[derive(Debug, Default)]
struct CacheStatus {
    hit: bool,
    stored: bool,
    collapsed: bool,
}

fn outcome(status: StatusCode, headers: &HeaderMap) -> Fetched {
    let cache = cache_status(headers);
    match status {
        _ if cache.hit => Fetched::Fresh,
        // The response another request was already fetching: stored by that one.
        _ if cache.stored || cache.collapsed => Fetched::Stored,
        status if status.is_client_error() || status.is_server_error() => Fetched::Failed(format!("status {status}")),
        _ => Fetched::NotStorable,
    }
}

fn cache_status(headers: &HeaderMap) -> CacheStatus {
    let Some(line) = headers.get_all("cache-status").iter().next_back() else { return CacheStatus::default() };
    let Ok(list) = sfv::Parser::new(line.as_bytes()).parse::<sfv::List>() else { return CacheStatus::default() };
    let Some(sfv::ListEntry::Item(member)) = list.last() else { return CacheStatus::default() };
    let has = |name: &str| {
        let mut values = member.params.iter().filter(|(key, _)| key.as_str() == name);
        values.any(|(_, value)| value.as_boolean() == Some(true))
    };
    CacheStatus { hit: has("hit"), stored: has("stored"), collapsed: has("collapsed") }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn of(status: u16, lines: &[&'static str]) -> Fetched {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("cache-status", http::HeaderValue::from_static(line));
        }
        outcome(StatusCode::from_u16(status).expect("a status"), &headers)
    }

    #[test]
    fn the_last_member_says_what_happened() {
        assert_eq!(of(200, &["larder; hit; ttl=30; detail=L1"]), Fetched::Fresh);
        assert_eq!(of(200, &["larder; fwd=uri-miss; ttl=60; stored"]), Fetched::Stored);
        assert_eq!(of(200, &["larder; fwd=uri-miss; collapsed"]), Fetched::Stored);
        assert_eq!(of(200, &["cdn; hit", "larder; fwd=uri-miss; detail=no-store"]), Fetched::NotStorable);
        assert_eq!(of(200, &["cdn; hit, larder; fwd=uri-miss; stored"]), Fetched::Stored);
        assert_eq!(of(404, &["larder; fwd=uri-miss; stored"]), Fetched::Stored);
        assert!(matches!(of(502, &["larder; fwd=uri-miss"]), Fetched::Failed(_)));
        assert_eq!(of(200, &[]), Fetched::NotStorable);
        assert_eq!(of(200, &["((("]), Fetched::NotStorable);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_noticed() {
        let frames: [Result<Frame<Bytes>, &str>; 2] = [Ok(Frame::data(Bytes::from_static(b"a"))), Err("reset")];
        assert_eq!(drained(StreamBody::new(futures_util::stream::iter(frames))).await, Err("reset"));
    }
}
