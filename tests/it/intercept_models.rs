//! Calls to models through `HTTPS_PROXY` and by base URL are the same calls.

use serde_json::json;

use crate::{
    intercept::{list, reaching},
    support::{
        client,
        client::{Connection, Request},
        gateway,
        gateway::Gateway,
        origin::{self, Origin, reply},
        secure::{Front, handshake, tunnel},
    },
};

const CHAT: &str = "/v1/chat/completions";

async fn provider() -> (Origin, Front) {
    let answer = |nth: usize| {
        let choice = json!({ "message": { "content": format!("answer {nth}") }, "finish_reason": "stop" });
        json!({ "id": nth, "choices": [choice], "usage": { "prompt_tokens": 10, "completion_tokens": 1 } }).to_string()
    };
    let reply = move |nth| reply(answer(nth)).header("content-type", "application/json").cache_control("no-store");
    let origin = origin::new()
        .handler(CHAT, move |_, nth| reply(nth))
        .handler("/v1/files", |_, nth| reply_text(nth))
        .run()
        .await;
    let front = Front::before(origin.authority().parse().expect("an address")).await;
    (origin, front)
}

fn reply_text(nth: usize) -> origin::Reply {
    reply(format!("file {nth}")).max_age(60)
}

fn route(front: &Front) -> String {
    format!(
        "[[route]]\nname = 'models'\npath = '/models'\nstrip_path = true\nprotocol = 'openai'\nupstream = 'https://{}'",
        front.authority()
    )
}

async fn gateway(front: &Front, routes: &str) -> Gateway {
    gateway::new().config(reaching(front)).config(list(front)).config(routes).authority().run().await
}

async fn connect(gateway: &Gateway, front: &Front) -> Connection {
    let tunnel = tunnel(gateway.data(), &front.authority()).await.expect("a tunnel");
    let tls = handshake(tunnel, &gateway.authority_file(), &["http/1.1"]).await.expect("the gateway's certificate");
    client::over(tls, false).await
}

fn call(url: String) -> Request {
    let body = json!({ "model": "gpt-4o", "temperature": 0, "messages": [{ "role": "user", "content": "hello?" }] });
    let request = client::request("POST", url).body(body.to_string()).header("content-type", "application/json");
    request.header("authorization", "Bearer sk-1")
}

#[tokio::test]
async fn a_call_is_the_same_by_either_way() {
    let (origin, front) = provider().await;
    let gateway = gateway(&front, &route(&front)).await;
    let mut proxied = connect(&gateway, &front).await;
    let first = proxied.send(call(front.url(CHAT))).await;
    assert_eq!((first.status, first.cache().stored), (200, true), "{:?}", first.headers);
    proxied.send(call(front.url(CHAT))).await.assert_ok(first.text()).assert_hit();
    call(gateway.url("/models/v1/chat/completions")).send().await.assert_ok(first.text()).assert_hit();
    assert_eq!(origin.requests(CHAT), 1);
    assert_eq!(origin.last(CHAT).header("host"), Some(front.authority().as_str()));
    gateway.access_line(|line| line["target"] == CHAT && line["route"] == "models").await;

    // By its own URL it is purged for both.
    gateway.purge(json!({ "urls": [front.url(CHAT)] })).await;
    call(gateway.url("/models/v1/chat/completions")).send().await.assert_forwarded("uri-miss");
    proxied.send(call(front.url(CHAT))).await.assert_hit();
    gateway.purge(json!({ "prefixes": [front.url("/v1/")] })).await;
    proxied.send(call(front.url(CHAT))).await.assert_forwarded("uri-miss");
    gateway.purge(json!({ "hosts": [front.authority()] })).await;
    proxied.send(call(front.url(CHAT))).await.assert_forwarded("uri-miss");
    let explained = gateway.admin_json(&format!("/explain?url={}", front.url(CHAT))).await;
    assert_eq!(explained["route"], "models", "{explained}");
}

#[tokio::test]
async fn what_is_no_call_passes_as_by_base_url() {
    let (origin, front) = provider().await;
    let gateway = gateway(&front, &route(&front)).await;
    let mut proxied = connect(&gateway, &front).await;
    for nth in 0..2 {
        let file = proxied.send(client::get(front.url("/v1/files?after=1"))).await;
        file.assert_ok(&format!("file {nth}")).assert_forwarded("bypass");
    }
    assert_eq!(origin.last("/v1/files").target, "/v1/files?after=1");
    let left = proxied.send(client::get(front.url("/v1/%2e%2e/x"))).await;
    assert_eq!(left.status, 400, "{}", left.text());
}

#[tokio::test]
async fn a_route_that_takes_all_paths_leaves_the_providers_to_the_proxy() {
    let (origin, front) = provider().await;
    let elsewhere = origin::new().route("/", "elsewhere").run().await;
    let all = format!("[[route]]\nname = 'all'\nupstream = '{}'\n{}", elsewhere.url(), route(&front));
    let gateway = gateway(&front, &all).await;
    let mut proxied = connect(&gateway, &front).await;
    let first = proxied.send(call(front.url(CHAT))).await;
    proxied.send(call(front.url(CHAT))).await.assert_ok(first.text()).assert_hit();
    gateway.purge(json!({ "urls": [front.url(CHAT)] })).await;
    proxied.send(call(front.url(CHAT))).await.assert_forwarded("uri-miss");
    assert_eq!(origin.requests(CHAT), 2);
}
