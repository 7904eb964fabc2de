//! The admin plane as its callers see it, without a network.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::app;
use crate::jwt::Issuers;
use crate::tls;

const ROOT: &str = "root-secret-of-some-length";
const READER: &str = "reader-secret-of-some-length";
const CI: &str = "ci-secret-of-some-length";

/// The admin plane of a gateway with one route, which leads nowhere.
struct Plane {
    admin: Admin,
    router: Router,
    draining: CancellationToken,
    _gateway: app::Running,
    _directory: tempfile::TempDir,
}

impl Plane {
    async fn of(token: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = crate::config::Config::parse("test", &settings(token, directory.path())).expect("settings");
        let gateway = app::start(&config, crate::telemetry::Logs::default(), None).await.expect("a gateway");
        let draining = CancellationToken::new();
        let parts = Parts {
            config: config.admin.clone(),
            purge: config.purge.clone(),
            warm: config.warm.clone(),
            archive: config.archive,
            proxy: gateway.proxy().clone(),
            auth: Auth::new(&config.admin, Issuers::none()),
            reload: None,
            log: None,
            audit: None,
            registry: Arc::new(Mutex::new(Registry::with_prefix("larder"))),
            process: Registry::default(),
            draining: draining.clone(),
            tls: Arc::new(tls::Acceptor::new(
                "admin",
                Duration::ZERO,
                &tls::Metrics::register(&mut Registry::default()),
            )),
        };
        let admin = Admin::new(parts);
        Self { router: admin.router(), admin, draining, _gateway: gateway, _directory: directory }
    }
}

fn settings(token: &str, directory: &std::path::Path) -> String {
    let named = |name: &str, scope: &str| {
        format!("[[admin.tokens]]\nname = {name:?}\ntoken = \"{name}-secret-of-some-length\"\nscope = {scope:?}\n")
    };
    let tokens = if token.is_empty() { String::new() } else { named("reader", "read") + &named("ci", "purge") };
    format!(
        "data_dir = {directory:?}\n[listen]\ndata = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[log]\naccess = false\n\
         [[route]]\nname = \"nowhere\"\nhost = \"shop.example\"\nupstream = \"http://127.0.0.1:9\"\n\
         [admin]\ntoken = {token:?}\nbody_bytes_max = \"4KiB\"\n{tokens}"
    )
}

struct Reply {
    status: u16,
    headers: http::HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }
}

async fn send(router: &Router, request: http::request::Builder, body: impl Into<Body>) -> Reply {
    let request = request.body(body.into()).expect("a request");
    let (head, body) = router.clone().oneshot(request).await.expect("an answer").into_parts();
    let text = body.collect().await.expect("content").to_bytes();
    // An archive is none.
    let text = String::from_utf8_lossy(&text).into_owned();
    Reply { status: head.status.as_u16(), headers: head.headers, text }
}

async fn get(router: &Router, path: &str) -> Reply {
    send(router, Request::get(path), Body::empty()).await
}

async fn post(router: &Router, path: &str, body: &Value) -> Reply {
    send(router, Request::post(path), body.to_string()).await
}

#[tokio::test]
async fn a_purge_gives_a_receipt() {
    let plane = Plane::of("").await;
    let router = &plane.router;
    let first = post(router, "/purge", &json!({"tags": ["a", "b"]})).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let first = first.json();
    assert_eq!((&first["scopes"], &first["mode"], &first["ack"]), (&json!(2), &json!("hard"), &json!("log")));
    let soft = post(router, "/purge", &json!({"all": true, "soft": true, "refresh": true})).await.json();
    assert_eq!((&soft["mode"], &soft["refresh"]["queued"]), (&json!("soft"), &json!(0)));
    assert!(soft["seq"].as_u64() > first["seq"].as_u64());
    let by_field = send(router, Request::post("/purge").header("cache-tag", "a,b,c"), Body::empty()).await;
    assert_eq!(by_field.json()["scopes"], 3);
}

#[tokio::test]
async fn refusals_are_problems() {
    let plane = Plane::of("").await;
    let router = &plane.router;
    let unknown = post(router, "/purge", &json!({"tag": ["a"]})).await;
    assert_eq!(unknown.headers["content-type"], "application/problem+json");
    assert_eq!((unknown.status, &unknown.json()["field"]), (400, &json!("tag")));
    let empty = send(router, Request::post("/purge"), Body::empty()).await;
    assert!(empty.json()["detail"].as_str().is_some_and(|detail| detail.contains("names nothing")));
    let nowhere = get(router, "/purges").await;
    assert_eq!(nowhere.status, 404);
    assert!(nowhere.text.contains("did you mean /purge?") && nowhere.text.contains("GET /healthz"), "{}", nowhere.text);
    let method = get(router, "/purge").await;
    assert_eq!((method.status, &method.json()["known"]), (405, &json!(["POST /purge"])));
    let large = post(router, "/purge", &json!({"tags": ["x".repeat(5000)]})).await;
    assert!(large.status == 413 && large.text.contains("admin.body_bytes_max"), "{}", large.text);
    let explain = get(router, "/explain").await;
    assert!(explain.status == 400 && explain.text.contains("url"), "{}", explain.text);
}

#[tokio::test]
async fn every_documented_path_asks_for_a_token_but_probes() {
    let plane = Plane::of(ROOT).await;
    let router = &plane.router;
    let document = get(router, "/openapi.json").await.json();
    let operations = openapi::operations(&document);
    assert!(operations.len() >= 14, "{operations:?}");
    for Operation { method, path, .. } in &operations {
        let path = path.replace(['{', '}'], "");
        let ask = async |token: Option<&str>| {
            let request = Request::builder().method(&**method).uri(&path);
            let request =
                token.iter().fold(request, |request, token| request.header("authorization", format!("Bearer {token}")));
            send(router, request, Body::empty()).await.status
        };
        if matches!(&*path, "/healthz" | "/readyz") {
            assert_eq!(ask(None).await, 200, "{path}");
            continue;
        }
        assert_eq!(ask(None).await, 401, "{method} {path}");
        assert_eq!(ask(Some("wrong")).await, 401, "{method} {path}");
        if path == "/requests/stream" {
            // Who is let in reads for ever.
            continue;
        }
        let reads = (method == "GET" && !matches!(&*path, "/log/level" | "/export")) || path == "/explain";
        assert_eq!(ask(Some(READER)).await != 403, reads, "{method} {path}");
        let operates =
            ["/warm", "/disk", "/reload", "/log", "/export", "/import"].iter().any(|own| path.starts_with(own))
                && !reads;
        assert_eq!(ask(Some(CI)).await == 403, operates, "{method} {path}");
        assert!(!matches!(ask(Some(ROOT)).await, 401 | 403), "{method} {path}");
    }
    for open in ["/", "/docs", "/openapi.json"] {
        assert_eq!(get(router, open).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn the_method_purge_is_taken_on_any_path() {
    let plane = Plane::of(ROOT).await;
    let router = &plane.router;
    let purge = |target: &str| Request::builder().method("PURGE").uri(target).header("host", "shop.example");
    assert_eq!(send(router, purge("/products/7"), Body::empty()).await.status, 401);
    let token = ("authorization", format!("Bearer {CI}"));
    let by_path = send(router, purge("/healthz").header(token.0, &token.1), Body::empty()).await;
    assert_eq!((by_path.status, &by_path.json()["status"]), (200, &json!("ok")));
    assert_eq!(by_path.json()["scopes"], 2, "one by each scheme");
    let by_url = purge("http://shop.example/products/7").header("fastly-key", CI).header("fastly-soft-purge", "1");
    let by_url = send(router, by_url, Body::empty()).await.json();
    assert_eq!((&by_url["scopes"], &by_url["mode"]), (&json!(1), &json!("soft")));
    let denied = send(router, purge("/a").header("authorization", format!("Bearer {READER}")), Body::empty()).await;
    assert_eq!(denied.status, 403);
}

#[tokio::test]
async fn who_came_while_no_token_was_asked_for_purges_nothing_from_outside() {
    let plane = Plane::of("").await;
    let shared = &plane.admin.shared;
    let (head, ()) = Request::builder().method("PURGE").uri("/a").body(()).expect("a request").into_parts();
    let who = shared.auth.identify(&head.headers).await;
    assert_eq!(shared.answer_client(&head, who.clone()).await.status(), 403);
    let tokens = crate::config::Config::parse("test", &settings(ROOT, plane._directory.path())).expect("settings");
    let none = Issuers::none().read(&tokens.jwt, &[]).expect("no issuers");
    shared.auth.replace(&tokens.admin, none);
    assert_eq!(shared.answer_client(&head, who).await.status(), 403, "there is a token now, and he showed none");
}

#[tokio::test]
async fn other_caches_forms_are_answered_in_kind() {
    let plane = Plane::of("").await;
    let router = &plane.router;
    let cloudflare = post(router, "/client/v4/zones/z1/purge_cache", &json!({"tags": ["a"]})).await.json();
    assert_eq!((&cloudflare["success"], &cloudflare["result"]["id"]), (&json!(true), &json!("z1")));
    let refused = post(router, "/client/v4/zones/z1/purge_cache", &json!({})).await;
    assert_eq!((refused.status, &refused.json()["success"]), (400, &json!(false)));
    let fastly = send(router, Request::post("/service/s/purge/a%20b"), Body::empty()).await.json();
    assert_eq!((&fastly["status"], &fastly["scopes"]), (&json!("ok"), &json!(1)));
    let keys = send(router, Request::post("/service/s/purge").header("surrogate-key", "a b"), Body::empty()).await;
    assert!(keys.json()["a"].is_string() && keys.json()["b"].is_string(), "{}", keys.text);
    let keys = post(router, "/service/s/purge", &json!({"surrogate_keys": ["c"]})).await.json();
    assert!(keys["c"].is_string());
    let all = send(router, Request::post("/service/s/purge_all"), Body::empty()).await;
    assert_eq!(all.status, 200);
}

#[tokio::test]
async fn a_job_is_started_watched_and_found() {
    let plane = Plane::of("").await;
    let router = &plane.router;
    let started = post(router, "/warm", &json!({"urls": ["http://127.0.0.1:9/"]})).await;
    assert_eq!(started.status, 202, "{}", started.text);
    let location = started.headers["location"].to_str().expect("a path").to_owned();
    assert_eq!(location, format!("/warm/{}", started.json()["id"].as_str().expect("a name")));
    assert_eq!(get(router, &location).await.json()["total"], 1);
    let waited = post(router, "/warm?wait=true", &json!({"urls": ["http://127.0.0.1:9/"]})).await;
    assert_eq!((waited.status, &waited.json()["state"]), (200, &json!("done")));
    assert_eq!(waited.json()["done"], 1);
    assert_eq!(get(router, "/warm").await.json()["jobs"].as_array().map(Vec::len), Some(2));
    let ended = send(router, Request::delete(&location), Body::empty()).await;
    assert_eq!(ended.status, 200);
    assert_eq!(get(router, "/warm/nothing").await.status, 404);
}

#[tokio::test]
async fn readiness_ends_with_draining() {
    let plane = Plane::of("").await;
    let router = &plane.router;
    assert_eq!(get(router, "/readyz").await.status, 200);
    plane.draining.cancel();
    assert_eq!(get(router, "/readyz").await.status, 503);
    assert_eq!(get(router, "/healthz").await.status, 200);
}

#[tokio::test]
async fn metrics_are_openmetrics() {
    let plane = Plane::of("").await;
    let router = &plane.router;
    let metrics = get(router, "/metrics").await;
    assert_eq!(metrics.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(metrics.text.contains("larder_warm_refresh_queue 0") && metrics.text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn calls_have_an_id() {
    let plane = Plane::of("").await;
    let router = &plane.router;
    assert_eq!(get(router, "/healthz").await.headers["x-request-id"].len(), 16);
    let own = send(router, Request::get("/nowhere").header("x-request-id", "mine"), Body::empty()).await;
    assert_eq!(own.headers["x-request-id"], "mine");
}

#[tokio::test]
async fn the_index_and_the_page_list_everything() {
    let plane = Plane::of("").await;
    let router = &plane.router;
    let text = get(router, "/").await.text;
    let json = send(router, Request::get("/").header("accept", "application/json"), Body::empty()).await.json();
    let page = get(router, "/docs").await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    for operation in openapi::operations(&get(router, "/openapi.json").await.json()) {
        assert!(text.contains(&operation.path) && page.text.contains(&operation.path), "{operation:?}");
        assert!(!operation.summary.is_empty(), "{operation:?}");
    }
    assert!(json["endpoints"].as_array().is_some_and(|endpoints| endpoints.len() >= 14));
    assert!(page.text.contains("<code>prefixes</code>"), "the fields of a purge are explained");
}
