//! The origin of `larder demo`: something slow, something that streams, something that changes.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    response::IntoResponse,
    routing::get,
};
use futures_util::{StreamExt, stream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, sync::DropGuard};

const SLOW: Duration = Duration::from_millis(300);
const EVENTS: u32 = 10;
const EVENT_EVERY: Duration = Duration::from_millis(50);
const TAGS: &str = "surrogate-key";

/// A running origin; it ends when this is dropped.
pub(super) struct Origin {
    address: SocketAddr,
    calls: Arc<AtomicU64>,
    _running: DropGuard,
}

impl Origin {
    /// Starts one on a free port.
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let calls = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let serving = axum::serve(listener, router(Arc::clone(&calls)));
        tokio::spawn(stop.clone().run_until_cancelled_owned(serving.into_future()));
        Ok(Self { address, calls, _running: stop.drop_guard() })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests it has seen.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }
}

fn router(calls: Arc<AtomicU64>) -> Router {
    let counter = Arc::new(AtomicU64::new(0));
    let counted = move || async move { count(counter.fetch_add(1, Relaxed) + 1) };
    let call = axum::middleware::from_fn(move |request: axum::extract::Request, next: axum::middleware::Next| {
        calls.fetch_add(1, Relaxed);
        next.run(request)
    });
    Router::new().route("/slow", get(slow)).route("/events", get(events)).route("/counter", get(counted)).layer(call)
}

/// An answer that takes its time, good for a minute.
async fn slow() -> impl IntoResponse {
    tokio::time::sleep(SLOW).await;
    let fields = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "max-age=60")];
    (fields, "{\"answer\":42,\"thought\":\"for 300 ms\"}\n")
}

/// Ten events, one after the other, good for a minute.
async fn events() -> impl IntoResponse {
    let events = stream::iter(0..EVENTS).then(|number| async move {
        if number > 0 {
            tokio::time::sleep(EVENT_EVERY).await;
        }
        Ok::<_, Infallible>(Bytes::from(format!("data: {{\"event\":{number}}}\n\n")))
    });
    let fields = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "max-age=60")];
    (fields, Body::from_stream(events))
}

/// A number that is good for an hour, unless someone says otherwise.
fn count(number: u64) -> impl IntoResponse {
    let fields = [(CONTENT_TYPE.as_str(), "application/json"), (CACHE_CONTROL.as_str(), "max-age=3600")];
    (fields, [(TAGS, "counter")], format!("{{\"count\":{number}}}\n"))
}
