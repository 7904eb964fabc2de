//! A programmable origin on a port of its own: routes with scripted replies, and a record of everything it received.
//!
//! ```ignore
//! let origin = origin::new().route("/a", "hello").max_age(60).run().await;
//! assert_eq!(origin.requests("/a"), 1);
//! ```
//!
//! What no well-behaved server can send (interim responses, lies about lengths, resets) is for [`super::raw`].

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::{
    reply::{ReplyBody, response},
    within,
};

pub(crate) use super::reply::{Reply, reply};

/// An origin without routes: every request is answered 404.
pub(crate) fn new() -> Builder {
    Builder { routes: Vec::new(), h2: false, forgetful: false }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    /// Empty until all of it has arrived.
    pub(crate) body: Bytes,
}

impl Seen {
    /// The first line of that name as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a field value of visible characters"))
    }
}

type Handler = Arc<dyn Fn(&Seen, usize) -> Reply + Send + Sync>;

/// What a route answers: one after the other, the last one for good; or whatever a function says.
#[derive(Clone)]
pub(crate) enum Script {
    Replies(Vec<Reply>),
    Handler(Handler),
}

impl From<Reply> for Script {
    fn from(reply: Reply) -> Self {
        Self::Replies(vec![reply])
    }
}

impl From<&'static str> for Script {
    fn from(body: &'static str) -> Self {
        reply(body).into()
    }
}

impl<const N: usize> From<[Reply; N]> for Script {
    fn from(replies: [Reply; N]) -> Self {
        Self::Replies(replies.into())
    }
}

/// An origin that is being described. What follows a route is said of that route.
pub(crate) struct Builder {
    routes: Vec<(String, Script)>,
    h2: bool,
    forgetful: bool,
}

impl Builder {
    /// Requests for `target` (a path, or a path with a query) are answered with `script`.
    pub(crate) fn route(mut self, target: &str, script: impl Into<Script>) -> Self {
        self.routes.push((target.to_owned(), script.into()));
        self
    }

    /// Requests for `target` are answered with what `handler` makes of the request and of the number of requests
    /// for it before this one.
    pub(crate) fn handler(
        mut self,
        target: &str,
        handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.routes.push((target.to_owned(), Script::Handler(Arc::new(handler))));
        self
    }

    pub(crate) fn max_age(self, seconds: u64) -> Self {
        self.each(|reply| reply.max_age(seconds))
    }

    pub(crate) fn cache_control(self, value: &str) -> Self {
        self.each(|reply| reply.cache_control(value))
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.each(|reply| reply.header(name, value))
    }

    pub(crate) fn status(self, status: u16) -> Self {
        self.each(|reply| reply.status(status))
    }

    /// Speaks HTTP/2 without TLS, with prior knowledge.
    pub(crate) fn h2(mut self) -> Self {
        self.h2 = true;
        self
    }

    /// Keeps no record: for more requests than can be looked through.
    pub(crate) fn forgetful(mut self) -> Self {
        self.forgetful = true;
        self
    }

    fn each(mut self, change: impl Fn(Reply) -> Reply) -> Self {
        match self.routes.last_mut() {
            Some((_, Script::Replies(replies))) => {
                *replies = replies.drain(..).map(change).collect();
            }
            _ => panic!("there is no scripted reply to say this of"),
        }
        self
    }

    /// Starts it.
    pub(crate) async fn run(self) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            routes: self.routes,
            forgetful: self.forgetful,
            seen: Mutex::default(),
            connections: watch::Sender::new(0),
            changed: watch::Sender::new(()),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared), self.h2));
        Origin { address, h2: self.h2, shared, task }
    }
}

struct Shared {
    routes: Vec<(String, Script)>,
    forgetful: bool,
    seen: Mutex<Vec<Seen>>,
    connections: watch::Sender<usize>,
    changed: watch::Sender<()>,
}

/// A running origin; it and all its connections end when it is dropped.
pub(crate) struct Origin {
    address: SocketAddr,
    h2: bool,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Origin {
    /// What a gateway calls its upstream.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.h2 { "h2c" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// How many requests for `target` have arrived.
    pub(crate) fn requests(&self, target: &str) -> usize {
        self.seen(target).len()
    }

    /// The requests for `target` that have arrived.
    pub(crate) fn seen(&self, target: &str) -> Vec<Seen> {
        let seen = self.shared.seen.lock().expect("no one panics under this lock");
        seen.iter().filter(|request| matches(target, &request.target)).cloned().collect()
    }

    /// The last request for `target`.
    pub(crate) fn last(&self, target: &str) -> Seen {
        self.seen(target).pop().unwrap_or_else(|| panic!("the origin saw no request for {target}"))
    }

    /// Returns when `count` requests for `target` have arrived.
    pub(crate) async fn arrived(&self, target: &str, count: usize) {
        let mut changed = self.shared.changed.subscribe();
        let arrival = changed.wait_for(|()| self.requests(target) >= count);
        within("requests at the origin", arrival).await.expect("the origin keeps its sender");
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Breaks every connection and refuses new ones; what it has seen can still be asked.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let stopped = (&mut self.task).await;
        assert!(stopped.is_err_and(|error| error.is_cancelled()), "the origin ended by itself");
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn matches(target: &str, seen: &str) -> bool {
    seen == target || seen.split('?').next() == Some(target)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, h2: bool) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("the listening socket stays open");
        shared.connections.send_modify(|count| *count += 1);
        connections.spawn(serve(stream, Arc::clone(&shared), h2));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, h2: bool) {
    stream.set_nodelay(true).expect("a connected socket");
    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
    let io = TokioIo::new(stream);
    // Broken connections are part of the scenarios, so how one ended is of no interest.
    let _ = if h2 {
        http2::Builder::new(TokioExecutor::new()).timer(TokioTimer::new()).serve_connection(io, service).await
    } else {
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service).await
    };
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<ReplyBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or_else(|| parts.uri.to_string(), ToString::to_string);
    let mut seen = Seen { method: parts.method, target, headers: parts.headers, body: Bytes::new() };
    let (at, nth, script) = shared.record(&seen);
    if let Ok(body) = body.collect().await {
        seen.body = body.to_bytes();
        if let Some(recorded) = shared.seen.lock().expect("no one panics under this lock").get_mut(at) {
            recorded.body = seen.body.clone();
        }
    }
    let reply = match script {
        Some(Script::Replies(replies)) => replies[nth.min(replies.len() - 1)].clone(),
        Some(Script::Handler(handler)) => handler(&seen, nth),
        None => reply("no such route").status(404),
    };
    if let Some(gate) = &reply.before_head {
        gate.pass().await;
    }
    Ok(response(reply))
}

impl Shared {
    /// Writes the request down; where it stands in the record, how many of its route came before, and the script.
    fn record(&self, request: &Seen) -> (usize, usize, Option<Script>) {
        let exact = self.routes.iter().find(|(target, _)| *target == request.target);
        let route = exact.or_else(|| self.routes.iter().find(|(target, _)| matches(target, &request.target)));
        if self.forgetful {
            return (0, 0, route.map(|(_, script)| script.clone()));
        }
        let mut seen = self.seen.lock().expect("no one panics under this lock");
        let nth = route.map_or(0, |(target, _)| seen.iter().filter(|one| matches(target, &one.target)).count());
        seen.push(request.clone());
        let at = seen.len() - 1;
        drop(seen);
        self.changed.send_replace(());
        (at, nth, route.map(|(_, script)| script.clone()))
    }
}
