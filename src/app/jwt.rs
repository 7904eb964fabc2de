//! How the keys of issuers of tokens are fetched: as origins are reached, with their trust.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};

use crate::{
    config::Config,
    jwt::Fetch,
    origin::{self, OriginRequest, Origins, RequestBody, TargetPolicy, Upstream},
};

/// Fetches keys.
pub(super) struct Keys {
    origins: Origins,
    /// `[origin]`, as taken over last.
    origin: ArcSwap<origin::Config>,
}

impl Keys {
    pub(super) fn new(config: &Config, origins: &Origins) -> Arc<Self> {
        Arc::new(Self { origins: origins.clone(), origin: ArcSwap::from_pointee(config.origin.clone()) })
    }

    /// Reaches them as `config` says from now on.
    pub(super) fn replace(&self, config: &Config) {
        self.origin.store(Arc::new(config.origin.clone()));
    }
}

impl Fetch for Keys {
    fn get(&self, url: &str, bytes_max: usize, timeout: Duration) -> BoxFuture<'static, Result<Bytes, String>> {
        let origins = self.origins.clone();
        // Made anew each time, which is seldom: it reads the file of authorities.
        let reached = upstream(url, &self.origin.load(), timeout);
        Box::pin(async move {
            let (upstream, path) = reached?;
            let response = origins.send(&upstream, request(path)).await.map_err(|error| error.to_string())?;
            if response.status != StatusCode::OK {
                return Err(format!("it answered {}", response.status));
            }
            let body = Limited::new(response.body, bytes_max).collect().await;
            let body =
                body.map_err(|error| format!("its answer breaks off or is too large (jwt.keys_bytes_max): {error}"))?;
            Ok(body.to_bytes())
        })
    }
}

fn upstream(url: &str, origin: &origin::Config, timeout: Duration) -> Result<(Upstream, PathAndQuery), String> {
    let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("it is no URL".to_owned());
    };
    let origin = origin::Config {
        connect_timeout: origin.connect_timeout.min(timeout),
        head_timeout: timeout,
        body_idle_timeout: timeout,
        queue_timeout: origin.queue_timeout.min(timeout),
        // Whoever could put his keys in the place of these would be anybody.
        tls_verify: true,
        ..origin.clone()
    };
    // The operator's own word: wherever it leads is meant.
    let upstream = Upstream::new(&[format!("{scheme}://{authority}")], origin, TargetPolicy::Any);
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    Ok((upstream.map_err(|error| error.to_string())?, path))
}

fn request(path: PathAndQuery) -> OriginRequest {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    OriginRequest {
        method: Method::GET,
        path_and_query: path,
        host: None,
        headers,
        body: RequestBody::Empty,
        interim: None,
        upgrade: false,
    }
}
