//! The origin of the load tests: hyper on one thread, told by the path what to answer.
//!
//! `origin [ADDRESS]` (default `127.0.0.1:0`) prints `listening on http://ADDRESS` and serves until it is killed. What
//! follows the named segments of a path only makes it another key.
//!
//! | path | answer |
//! |---|---|
//! | `/b/BYTES/..` | storable for an hour |
//! | `/u/BYTES/..` | the same, with content no other path has, and nothing makes shorter |
//! | `/w/BYTES/..` | the same, of hexadecimal digits, as compressible as much text |
//! | `/t/TAG/BYTES/..` | the same, with `TAG` in `Surrogate-Key` and `xkey` |
//! | `/n/BYTES/..` | `no-store` |
//! | `/v/BYTES/..` | `max-age=0` with an entity tag; 304 to who has it |
//! | `/slow/MS/BYTES/..` | storable, after so many milliseconds |
//! | `/sse/MS/COUNT` | so many events, the first at once; each is the time it was made, in nanoseconds since 1970 |
//! | `/stats` | requests, connections and 304s so far; does not count itself |

use std::{
    convert::Infallible,
    error::Error,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpSocket,
    time::{MissedTickBehavior, interval, sleep},
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

const BYTES_MAX: usize = 64 * 1024 * 1024;
const ENTITY_TAG: HeaderValue = HeaderValue::from_static("\"5f3c1d9a7e\"");
const STORABLE: HeaderValue = HeaderValue::from_static("public, max-age=3600");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What an API's answer carries beside its lifetime and validator.
const FIELDS: [(HeaderName, HeaderValue); 4] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
    (header::LAST_MODIFIED, HeaderValue::from_static("Sat, 01 Nov 2025 10:00:00 GMT")),
    (HeaderName::from_static("x-request-id"), HeaderValue::from_static("0f8fad5b-d9cb-469f-a165-70867728950e")),
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
];

static REQUESTS: AtomicU64 = AtomicU64::new(0);
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
static NOT_MODIFIED: AtomicU64 = AtomicU64::new(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address.parse()?)?;
    // Thousands of streams are opened at once.
    let listener = socket.listen(16384)?;
    println!("listening on http://{}", listener.local_addr()?);
    let storage = Bytes::from(vec![b'x'; BYTES_MAX]);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        CONNECTIONS.fetch_add(1, Relaxed);
        let storage = storage.clone();
        let service = service_fn(move |request| answer(request, storage.clone()));
        // Without a timer, an unused connection stays: who closes is the gateway's decision.
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move { drop(connection.await) });
    }
}

async fn answer(request: Request<Incoming>, storage: Bytes) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/stats" {
        return Ok(stats());
    }
    REQUESTS.fetch_add(1, Relaxed);
    let known = request.headers().get(header::IF_NONE_MATCH).is_some_and(|tag| tag == ENTITY_TAG);
    if request.method() != Method::GET {
        // Read to its end, or the connection could not be used again.
        drop(request.into_body().collect().await);
    }
    Ok(dispatch(&path, known, &storage).await.unwrap_or_else(not_found))
}

/// `None` for a path that says nothing this origin knows.
async fn dispatch(path: &str, known: bool, storage: &Bytes) -> Option<Response<Body>> {
    let mut segments = path.split('/').skip(1);
    let mut next = || segments.next();
    match next()? {
        "b" => fixed(storage, next()?, STORABLE),
        "u" => unlike(path, next()?, false),
        "w" => unlike(path, next()?, true),
        "n" => fixed(storage, next()?, NO_STORE),
        "v" if known => Some(not_modified()),
        "v" => fixed(storage, next()?, HeaderValue::from_static("max-age=0")),
        "slow" => {
            sleep(Duration::from_millis(next()?.parse().ok()?)).await;
            fixed(storage, next()?, STORABLE)
        }
        "t" => {
            let tag = HeaderValue::from_str(next()?).ok()?;
            let mut response = fixed(storage, next()?, STORABLE)?;
            response.headers_mut().insert("surrogate-key", tag.clone());
            response.headers_mut().insert("xkey", tag);
            Some(response)
        }
        "sse" => Some(events(next()?.parse().ok()?, next()?.parse().ok()?)),
        _ => None,
    }
}

fn fixed(storage: &Bytes, size: &str, lifetime: HeaderValue) -> Option<Response<Body>> {
    let size: usize = size.parse().ok().filter(|size| *size <= BYTES_MAX)?;
    let mut response = Response::new(Full::new(storage.slice(..size)).boxed_unsync());
    *response.headers_mut() = fields(lifetime);
    Some(response)
}

/// Content made of the path.
fn unlike(path: &str, size: &str, digits: bool) -> Option<Response<Body>> {
    let size: usize = size.parse().ok().filter(|size| *size <= BYTES_MAX)?;
    let mut content = vec![0; size];
    blake3::Hasher::new().update(path.as_bytes()).finalize_xof().fill(&mut content);
    if digits {
        content.iter_mut().for_each(|byte| *byte = b"0123456789abcdef"[usize::from(*byte % 16)]);
    }
    let mut response = Response::new(Full::new(Bytes::from(content)).boxed_unsync());
    *response.headers_mut() = fields(STORABLE);
    Some(response)
}

fn fields(lifetime: HeaderValue) -> HeaderMap {
    let mut fields: HeaderMap = FIELDS.into_iter().collect();
    fields.insert(header::CACHE_CONTROL, lifetime);
    fields.insert(header::ETAG, ENTITY_TAG);
    fields
}

fn not_modified() -> Response<Body> {
    NOT_MODIFIED.fetch_add(1, Relaxed);
    let mut response = empty(StatusCode::NOT_MODIFIED);
    *response.headers_mut() = fields(HeaderValue::from_static("max-age=0"));
    response
}

fn not_found() -> Response<Body> {
    empty(StatusCode::NOT_FOUND)
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = status;
    response
}

fn events(milliseconds: u64, count: usize) -> Response<Body> {
    let mut ticks = interval(Duration::from_millis(milliseconds.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = stream::unfold(ticks, |mut ticks| async {
        ticks.tick().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Some((Ok(Frame::data(Bytes::from(format!("data: {now}\n\n")))), ticks))
    });
    let mut response = Response::new(StreamBody::new(events.take(count)).boxed_unsync());
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    response
}

fn stats() -> Response<Body> {
    let numbers = serde_json::json!({
        "requests": REQUESTS.load(Relaxed),
        "connections": CONNECTIONS.load(Relaxed),
        "not_modified": NOT_MODIFIED.load(Relaxed),
    });
    let mut response = Response::new(Full::from(numbers.to_string()).boxed_unsync());
    *response.headers_mut() = fields(NO_STORE);
    response
}
