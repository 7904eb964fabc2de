//! One line for each call that changes something, or would have, or takes everything along: who, from where, what, and what came of it.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, Method, Uri, request::Parts};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde::Serialize;

use super::{REQUEST_ID, Shared, auth::Identified, door::Remote};
use crate::telemetry::{AUDIT, mask, time};

/// Bytes of a call's content that are told, and of any other text in a line.
const ASKED_MAX: usize = 1024;
const TEXT_MAX: usize = 256;

/// One line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: &'a str,
    target: &'static str,
    /// Name of the token, or issuer and name; empty: none that is known.
    who: &'a str,
    /// Address; empty: not known.
    from: &'a str,
    /// Method and path.
    action: &'a str,
    /// Query and content, their beginning.
    asked: &'a str,
    /// The status of the answer.
    result: u16,
    request_id: &'a str,
}

/// A call that is under way.
pub(super) struct Call {
    who: Arc<str>,
    from: Option<IpAddr>,
    action: String,
    query: String,
    content: Arc<Mutex<Vec<u8>>>,
    request_id: String,
}

/// Middleware: tells of calls that change something.
pub(super) async fn audit(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    if !changes(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let from = request.extensions().get::<ConnectInfo<Remote>>().map(|info| info.0.address());
    let who = match request.extensions().get::<Identified>() {
        Some(who) => who.clone(),
        None => shared.auth.identify(request.headers()).await,
    };
    let call = Call::new(&who, request.method(), request.uri(), request.headers(), from);
    // An archive is no words of the caller, and has URLs in it.
    let told = if request.uri().path() == "/import" { 0 } else { ASKED_MAX };
    let content = Arc::clone(&call.content);
    request = request.map(|body| {
        Body::new(body.map_frame(move |frame| {
            if let Some(data) = frame.data_ref() {
                let mut content = content.lock();
                let room = told.saturating_sub(content.len()).min(data.len());
                content.extend_from_slice(&data[..room]);
            }
            frame
        }))
    });
    let response = next.run(request).await;
    call.ended(&shared, response.status().as_u16());
    response
}

/// All but what only looks; an explanation may be asked for with a body. Who exports looks at all there is, and takes it along.
fn changes(method: &Method, path: &str) -> bool {
    let looks = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || path == "/explain";
    !looks || path == "/export"
}

impl Call {
    fn new(who: &Identified, method: &Method, uri: &Uri, headers: &HeaderMap, from: Option<IpAddr>) -> Self {
        // PURGE names what it purges in its target.
        let (mut action, mut query) = (String::new(), String::new());
        mask::url(uri.path(), |piece| action.push_str(piece));
        mask::url(&format!("?{}", uri.query().unwrap_or_default()), |piece| query.push_str(piece));
        let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        Self {
            who: who.name(),
            from,
            action: format!("{method} {}", cut(&action, TEXT_MAX)),
            query: cut(query.trim_start_matches('?'), ASKED_MAX).to_owned(),
            content: Arc::default(),
            request_id: cut(request_id, TEXT_MAX).to_owned(),
        }
    }

    /// A `PURGE` of the data listener, where the address of the client is beside its head.
    pub(super) fn of_client(who: &Identified, head: &Parts) -> Self {
        Self::new(who, &head.method, &head.uri, &head.headers, head.extensions.get().copied())
    }

    /// Writes the line.
    pub(super) fn ended(self, shared: &Shared, result: u16) {
        let from = self.from.map(|from| from.to_string()).unwrap_or_default();
        let asked = asked(&self.query, &String::from_utf8_lossy(&self.content.lock()));
        let Self { who, action, request_id, .. } = &self;
        let Some(lines) = &shared.audit else {
            // A literal, because the macro takes nothing else; it is what `AUDIT` says.
            tracing::info!(target: "larder::audit", %who, from, action, asked, result, request_id, "admin call");
            return;
        };
        let time = time::rfc3339(SystemTime::now());
        let time = std::str::from_utf8(&time).unwrap_or_default();
        let line = Line { time, target: AUDIT, who, from: &from, action, asked: &asked, result, request_id };
        if let Ok(mut line) = serde_json::to_vec(&line) {
            line.push(b'\n');
            lines.push(&line);
        }
    }
}

fn asked(query: &str, content: &str) -> String {
    let between = if query.is_empty() || content.is_empty() { "" } else { " " };
    [query, between, &masked(content)].concat()
}

/// JSON, or the beginning of it, without what is secret in it: arguments of URLs, and members that are called so.
fn masked(content: &str) -> String {
    let (mut out, mut before) = (String::with_capacity(content.len()), ["", ""]);
    for (index, piece) in content.split('"').enumerate() {
        if index > 0 {
            out.push('"');
        }
        let [name, colon] = before;
        if colon.trim() == ":" && mask::is_secret_argument(name) {
            out.push_str(mask::MASK);
        } else {
            mask::url(piece, |piece| out.push_str(piece));
        }
        before = [colon, piece];
    }
    out
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something() {
        let changes = |method: &str, path: &str| changes(&method.parse().expect("a method"), path);
        assert!(changes("POST", "/purge") && changes("PURGE", "/a") && changes("PUT", "/log/level"));
        assert!(changes("GET", "/export"));
        assert!(!changes("GET", "/stats") && !changes("POST", "/explain"));
    }

    #[test]
    fn secrets_are_masked_in_whole_and_in_cut_off_content() {
        let content = r#"{"urls":["http://a/b?x=1&token=hush","http://a/c"],"api_key":"hush","tags":["a"#;
        let shown = r#"{"urls":["http://a/b?x=1&token=***","http://a/c"],"api_key":"***","tags":["a"#;
        assert_eq!(masked(content), shown);
        assert_eq!(asked("wait=true", "{}"), "wait=true {}");
        assert_eq!(asked("", "{}"), "{}");
    }

    #[test]
    fn cut_between_characters() {
        assert_eq!((cut("a\u{e9}", 2), cut("ab", 5)), ("a", "ab"));
    }
}
