//! The least an HTTP server can do: hyper on one thread, every request answered with the same body from memory.
//!
//! The yardstick for load tests. `bare [ADDRESS [BYTES [h1|h2]]]` (default `127.0.0.1:0 1024 h1`) prints
//! `listening on http://ADDRESS` and serves until it is killed.

use std::{convert::Infallible, error::Error};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// What an API's answer carries, and a lifetime so that caches keep it.
const FIELDS: [(&str, &str); 6] = [
    ("content-type", "application/json"),
    ("cache-control", "public, max-age=3600"),
    ("etag", "\"5f3c1d9a7e\""),
    ("last-modified", "Sat, 01 Nov 2025 10:00:00 GMT"),
    ("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
    ("access-control-allow-origin", "*"),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let size = arguments.next().map_or(Ok(1024), |size| size.parse())?;
    let h2 = arguments.next().is_some_and(|protocol| protocol == "h2");
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let fields: HeaderMap =
        FIELDS.iter().map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value))).collect();
    let body = Bytes::from(vec![b'x'; size]);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (fields, body) = (fields.clone(), body.clone());
        let service = service_fn(move |_: Request<Incoming>| {
            let mut response = Response::new(Full::new(body.clone()));
            *response.headers_mut() = fields.clone();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let io = TokioIo::new(stream);
        // A client that leaves is no event worth a word here.
        if h2 {
            let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service);
            tokio::spawn(async move { drop(connection.await) });
        } else {
            let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service);
            tokio::spawn(async move { drop(connection.await) });
        }
    }
}
