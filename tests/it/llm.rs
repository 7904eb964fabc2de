//! Calls to language models: what is one call, what is stored of its answers, and what is never.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::{
    client::{self, Response},
    gate::Gate,
    gateway::{self, Gateway},
    origin::{self, Origin, Reply, reply},
    outlive,
};

const CHAT: &str = "/v1/chat/completions";

fn config(origin: &Origin, more: &str) -> String {
    let url = origin.url();
    let protocols = ["openai", "anthropic", "gemini"].map(|protocol| {
        format!(
            "[[route]]\nname = \"{protocol}\"\npath = \"/{protocol}\"\nstrip_path = true\nupstream = \"{url}\"\n\
             protocol = \"{protocol}\"\n"
        )
    });
    format!("{more}\n{}", protocols.concat())
}

async fn gateway(origin: &Origin, more: &str) -> Gateway {
    gateway::new().config(config(origin, more)).run().await
}

fn chat(gateway: &Gateway, body: impl Into<Bytes>) -> client::Request {
    call(gateway, "/openai/v1/chat/completions", body)
}

fn call(gateway: &Gateway, path: &str, body: impl Into<Bytes>) -> client::Request {
    let request = client::request("POST", gateway.url(path)).body(body);
    request.header("content-type", "application/json").header("authorization", "Bearer sk-1")
}

/// Sent as it is, so that it is repeated byte for byte.
fn cold(question: &str) -> String {
    json!({ "model": "gpt-4o", "temperature": 0, "messages": [{ "role": "user", "content": question }] }).to_string()
}

fn answer(nth: usize) -> Reply {
    let answer = json!({
        "id": format!("chatcmpl-{nth}"),
        "model": "gpt-4o-2024-08-06",
        "choices": [{ "message": { "content": format!("answer {nth}") }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": { "cached_tokens": 400 } },
    });
    reply(answer.to_string())
        .header("content-type", "application/json")
        .cache_control("no-cache, no-store, private")
        .header("vary", "Origin, Accept-Encoding")
        .header("x-request-id", "req_1")
        .header("x-ratelimit-remaining-tokens", "7")
        .header("set-cookie", "__cf_bm=1")
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn events(nth: usize) -> Vec<String> {
    let word = |text: &str| event(&json!({ "id": nth, "choices": [{ "delta": { "content": text } }] }));
    let stop = event(&json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] }));
    vec![word("one"), word("two"), stop, "data: [DONE]\n\n".to_owned()]
}

fn stream(events: &[String]) -> Reply {
    let first = reply("").header("content-type", "text/event-stream; charset=utf-8").cache_control("no-cache");
    events.iter().fold(first, |reply, event| reply.chunk(event.clone()))
}

async fn numbered() -> Origin {
    origin::new().handler(CHAT, |_, nth| answer(nth)).run().await
}

fn assert_passed(response: &Response, why: &str) {
    let status = response.cache();
    assert_eq!(
        (status.fwd.as_deref(), status.detail.as_deref()),
        (Some("bypass"), Some(why)),
        "{:?}",
        response.headers
    );
}

#[tokio::test]
async fn the_same_call_is_answered_from_here() {
    let origin = numbered().await;
    let gateway = gateway(&origin, "").await;
    let body = cold("hello");
    let miss = chat(&gateway, body.clone()).send().await;
    miss.assert_forwarded("uri-miss");
    assert_eq!(origin.last(CHAT).body, body, "byte for byte");
    assert_eq!(
        (miss.header("x-ratelimit-remaining-tokens"), miss.header("set-cookie")),
        (Some("7"), Some("__cf_bm=1"))
    );
    let hit = chat(&gateway, body).send().await;
    hit.assert_hit();
    assert_eq!(hit.body, miss.body);
    for name in ["x-ratelimit-remaining-tokens", "set-cookie"] {
        assert_eq!(hit.header(name), None, "{name} is of one exchange");
    }
    assert_eq!(hit.header("x-larder-saved-tokens"), Some("1100"));
    // 600 at 2.50, 400 at 1.25, 100 at 10 dollars a million.
    assert_eq!(hit.header("x-larder-saved-usd"), Some("0.00300000"));
    let stats = &gateway.admin_json("/stats").await["llm"];
    assert_eq!((&stats["billed"]["input_tokens"], &stats["saved"]["output_tokens"]), (&json!(1000), &json!(100)));
    let sample = r#"larder_llm_tokens_total{route="openai",model="gpt-4o",kind="cached",account="saved"}"#;
    assert!((gateway.metric(sample).await - 400.0).abs() < 0.1);
    assert_eq!(origin.requests(CHAT), 1);
}

#[tokio::test]
async fn how_it_is_written_does_not_count_and_what_it_says_does() {
    let origin = numbered().await;
    let gateway = gateway(&origin, "").await;
    let bare = r#"{"model":"m","temperature":0,"messages":[{"role":"user","content":"hi"}]}"#;
    chat(&gateway, bare).send().await.assert_forwarded("uri-miss");
    for same in [
        r#"{ "messages": [ {"content":"hi", "role":"user"} ], "model": "m", "temperature": 0.0 }"#,
        r#"{"model":"m","temperature":0,"user":"u","metadata":{"a":"b"},"messages":[{"role":"user","content":"\u0068i"}]}"#,
    ] {
        chat(&gateway, same).send().await.assert_hit();
    }
    for other in [
        r#"{"model":"m","temperature":0,"messages":[{"role":"user","content":"Hi"}]}"#,
        r#"{"model":"m","temperature":0,"messages":[{"role":"user","content":"hi "}]}"#,
        r#"{"model":"m","temperature":0,"reasoning_effort":"low","messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"model":"m","temperature":0,"never_heard_of":1,"messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"model":"n","temperature":0,"messages":[{"role":"user","content":"hi"}]}"#,
    ] {
        chat(&gateway, other).send().await.assert_forwarded("uri-miss");
    }
}

#[tokio::test]
async fn two_credentials_never_meet() {
    let origin = numbered().await;
    let gateway = gateway(&origin, "").await;
    let ask = |fields: &[(&str, &str)]| {
        let request = client::request("POST", gateway.url("/openai/v1/chat/completions")).body(cold("secret"));
        fields.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
    };
    let whose: [&[(&str, &str)]; 6] = [
        &[("authorization", "Bearer a")],
        &[("authorization", "Bearer b")],
        &[("api-key", "a")],
        &[],
        &[("authorization", "Bearer a"), ("openai-project", "p")],
        &[("authorization", "Bearer a"), ("x-larder-namespace", "n")],
    ];
    for fields in whose {
        ask(fields).await.assert_forwarded("uri-miss");
    }
    for fields in whose {
        ask(fields).await.assert_hit();
    }
    assert_eq!(origin.last(CHAT).header("x-larder-namespace"), None, "what is for the gateway ends here");
}

#[tokio::test]
async fn a_stream_is_repeated_event_by_event_and_never_stands_for_the_whole() {
    let origin = origin::new()
        .handler(CHAT, |seen, nth| {
            let streams = serde_json::from_slice::<Value>(&seen.body).expect("JSON")["stream"] == json!(true);
            if streams { stream(&events(nth)) } else { answer(nth) }
        })
        .run()
        .await;
    let gateway = gateway(&origin, "").await;
    let streamed = r#"{"model":"m","temperature":0,"stream":true,"messages":[]}"#;
    let miss = chat(&gateway, streamed).send().await;
    assert_eq!(miss.text(), events(0).concat());
    let hit = chat(&gateway, streamed).send().await;
    hit.assert_hit();
    assert_eq!((hit.text(), hit.header("content-type")), (miss.text(), miss.header("content-type")));
    let whole = chat(&gateway, r#"{"model":"m","temperature":0,"messages":[]}"#).send().await;
    whole.assert_forwarded("uri-miss");
    let with_usage =
        r#"{"model":"m","temperature":0,"stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    chat(&gateway, with_usage).send().await.assert_forwarded("uri-miss");
}

#[tokio::test]
async fn a_thousand_join_one_live_stream() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = origin::new()
        .handler(CHAT, move |_, nth| {
            let all = events(nth);
            stream(&all[..1]).gate(&held).chunk(all[1..].concat())
        })
        .run()
        .await;
    let gateway = gateway(&origin, "").await;
    let body = r#"{"model":"m","temperature":0,"stream":true,"messages":[]}"#;
    let mut leader = chat(&gateway, body).open().await;
    let first = events(0)[0].clone();
    assert_eq!(leader.read(first.len()).await, first.as_bytes(), "as soon as it is there");
    let asking: Vec<_> = (0..1000).map(|_| tokio::spawn(chat(&gateway, body).open())).collect();
    let mut followers = Vec::new();
    for asked in asking {
        followers.push(asked.await.expect("no panic"));
    }
    gate.open();
    for mut follower in followers {
        assert_eq!(follower.read(first.len()).await, first.as_bytes());
        assert_eq!(follower.finish().await.text(), events(0).concat());
    }
    assert_eq!(leader.finish().await.text(), events(0).concat());
    assert_eq!(origin.requests(CHAT), 1);
    chat(&gateway, body).send().await.assert_hit();
}

#[tokio::test]
async fn what_did_not_end_well_is_not_stored() {
    let all = events(0);
    let error = event(&json!({ "error": { "message": "overloaded" } }));
    let filtered = event(&json!({ "choices": [{ "finish_reason": "content_filter" }] }));
    let cut_short = event(&json!({ "choices": [{ "finish_reason": "length" }] }));
    let done = "data: [DONE]\n\n".to_owned();
    let streams = [
        vec![all[0].clone()],
        vec![all[0].clone(), error.clone(), done.clone()],
        vec![all[0].clone(), error],
        vec![all[0].clone(), filtered, done.clone()],
        vec![all[0].clone(), cut_short, done],
    ];
    for events in streams {
        let text = events.concat();
        let origin = origin::new().route(CHAT, stream(&events)).run().await;
        let gateway = gateway(&origin, "").await;
        let body = r#"{"model":"m","temperature":0,"stream":true,"messages":[]}"#;
        for calls in 1..=2 {
            assert_eq!(chat(&gateway, body).send().await.text(), text, "as it came");
            assert_eq!(origin.requests(CHAT), calls, "{text}");
        }
    }
    let wholes = [
        r#"{"error":{"message":"overloaded"}}"#,
        r#"{"choices":[{"finish_reason":"length"}]}"#,
        r#"{"choices":[{"finish_reason":"content_filter"}]}"#,
        r#"{"choices":["#,
    ];
    for whole in wholes {
        let origin = origin::new().route(CHAT, reply(whole).header("content-type", "application/json")).run().await;
        let gateway = gateway(&origin, "").await;
        for calls in 1..=2 {
            chat(&gateway, cold("x")).send().await.assert_ok(whole);
            assert_eq!(origin.requests(CHAT), calls, "{whole}");
        }
    }
}

/// SDKs raise what they read, leave, and try again while the stream has not ended.
#[tokio::test]
async fn nobody_joins_a_stream_that_has_told_of_an_error() {
    let gate = Gate::new();
    let held = gate.clone();
    let error = event(&json!({ "error": { "message": "overloaded" } }));
    let told = error.clone();
    let origin = origin::new()
        .handler(CHAT, move |_, nth| match nth {
            0 => stream(&[events(0)[0].clone(), told.clone()]).gate(&held).chunk("data: [DONE]\n\n"),
            _ => stream(&events(nth)),
        })
        .run()
        .await;
    let gateway = gateway(&origin, "").await;
    let body = r#"{"model":"m","temperature":0,"stream":true,"messages":[]}"#;
    let mut first = chat(&gateway, body).open().await;
    let text = format!("{}{error}", events(0)[0]);
    assert_eq!(first.read(text.len()).await, text.as_bytes());
    assert_eq!(chat(&gateway, body).send().await.text(), events(1).concat(), "of a call of its own");
    chat(&gateway, body).send().await.assert_hit();
    gate.open();
    assert!(first.finish().await.text().ends_with("[DONE]\n\n"));
    assert_eq!(origin.requests(CHAT), 2);
    assert_eq!(chat(&gateway, body).send().await.text(), events(1).concat(), "what ended later took nothing away");
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_not_stored() {
    let gates = [Gate::new(), Gate::new()];
    let held = gates.clone();
    let origin =
        origin::new().handler(CHAT, move |_, nth| stream(&events(nth)[..2]).gate(&held[nth]).break_here()).run().await;
    let gateway = gateway(&origin, "").await;
    let body = r#"{"model":"m","temperature":0,"stream":true,"messages":[]}"#;
    for (calls, gate) in (1..).zip(gates) {
        let mut streaming = chat(&gateway, body).open().await;
        streaming.read(10).await;
        gate.open();
        assert!(streaming.finish().await.broken);
        assert_eq!(origin.requests(CHAT), calls);
    }
}

#[tokio::test]
async fn chance_is_left_to_the_provider_unless_asked_for() {
    let origin = numbered().await;
    let gateway = gateway(&origin, "[llm]\nmodels = { \"o3*\" = \"always\" }").await;
    let warm = r#"{"model":"m","messages":[]}"#;
    for _ in 0..2 {
        assert_passed(&chat(&gateway, warm).send().await, "not-deterministic");
    }
    for (name, value) in [("x-larder-store", "always"), ("cf-aig-cache-ttl", "60"), ("helicone-cache-enabled", "true")]
    {
        let body = json!({ "model": "m", "messages": [name] }).to_string();
        chat(&gateway, body.clone()).header(name, value).send().await.assert_forwarded("uri-miss");
        chat(&gateway, body).header(name, value).send().await.assert_hit();
    }
    let always = r#"{"model":"o3-pro","messages":[]}"#;
    chat(&gateway, always).send().await.assert_forwarded("uri-miss");
    chat(&gateway, always).send().await.assert_hit();
    for (body, why) in [
        (r#"{"model":"m","temperature":0,"store":true}"#, "store"),
        (r#"{"model":"m","temperature":0,"tools":[{"type":"web_search"}]}"#, "server-tool"),
        (r#"{"model":"m","model":"n","temperature":0}"#, "body-unreadable"),
    ] {
        let passed = chat(&gateway, body).send().await;
        assert_passed(&passed, why);
        assert_eq!(origin.last(CHAT).body, body);
    }
    let stats = &gateway.admin_json("/stats").await["llm"];
    assert_eq!(stats["billed"]["output_tokens"], json!(800), "what passed was paid for too, as far as it can be read");
}

#[tokio::test]
async fn answered_in_the_words_it_was_asked_in() {
    let origin = numbered().await;
    let gateway = gateway(&origin, "").await;
    let dialects = [
        ("cf-aig-cache-ttl", "60", "cf-aig-cache-status", ["MISS", "HIT"]),
        ("helicone-cache-enabled", "true", "helicone-cache", ["MISS", "HIT"]),
        ("x-portkey-cache-namespace", "p", "x-portkey-cache-status", ["MISS", "HIT"]),
        ("x-bt-use-cache", "always", "x-bt-cached", ["MISS", "HIT"]),
    ];
    for (name, value, field, words) in dialects {
        for word in words {
            let response = chat(&gateway, cold(name)).header(name, value).send().await;
            assert_eq!(response.header(field), Some(word), "{name}");
        }
    }
    assert_eq!(chat(&gateway, cold("plain")).send().await.header("cf-aig-cache-status"), None);
    for (name, value) in [("cf-aig-skip-cache", "true"), ("x-bt-use-cache", "never"), ("cache-control", "no-store")] {
        assert_passed(&chat(&gateway, cold("plain")).header(name, value).send().await, "client-no-store");
    }
    let calls = origin.requests(CHAT);
    let refreshed = chat(&gateway, cold("plain")).header("cache-control", "no-cache").send().await;
    refreshed.assert_forwarded("request");
    assert_eq!(chat(&gateway, cold("plain")).send().await.body, refreshed.body, "what was fetched anew is stored");
    assert_eq!(origin.requests(CHAT), calls + 1);
    let only = chat(&gateway, cold("new")).header("cache-control", "only-if-cached").send().await;
    assert_eq!(only.status, 504);
}

#[tokio::test]
async fn what_is_said_in_the_body_is_cut_out_of_it() {
    let origin = numbered().await;
    let gateway = gateway(&origin, "").await;
    let body = r#"{"model":"m", "cache":{"ttl":60,"namespace":"a"} ,"temperature":0,"messages":[]}"#;
    chat(&gateway, body).send().await.assert_forwarded("uri-miss");
    assert_eq!(origin.last(CHAT).body, r#"{"model":"m", "temperature":0,"messages":[]}"#);
    chat(&gateway, body).send().await.assert_hit();
    let other = body.replace("\"a\"", "\"b\"");
    chat(&gateway, other).send().await.assert_forwarded("uri-miss");
}

#[tokio::test]
async fn errors_are_shared_while_they_are_new_and_never_stored() {
    let gate = Gate::new();
    let busy = reply(r#"{"error":{"code":"rate_limit"}}"#)
        .status(429)
        .header("content-type", "application/json")
        .header("retry-after", "7")
        .header("x-ratelimit-remaining-tokens", "0");
    let origin = origin::new().route(CHAT, [busy.hold(&gate), answer(1)]).run().await;
    let gateway = gateway(&origin, "").await;
    let leader = tokio::spawn(chat(&gateway, cold("x")).send());
    origin.arrived(CHAT, 1).await;
    let followers: Vec<_> = (0..50).map(|_| tokio::spawn(chat(&gateway, cold("x")).send())).collect();
    gateway.followers(50).await;
    gate.open();
    let leader = leader.await.expect("no panic");
    assert_eq!((leader.status, leader.header("retry-after")), (429, Some("7")));
    assert_eq!(leader.header("x-ratelimit-remaining-tokens"), Some("0"));
    for follower in followers {
        let follower = follower.await.expect("no panic");
        assert_eq!((follower.status, follower.header("retry-after")), (429, Some("7")));
    }
    assert_eq!(origin.requests(CHAT), 1, "nobody asks a busy provider fifty times more");
    let next = chat(&gateway, cold("x")).send().await;
    assert_eq!((next.status, origin.requests(CHAT)), (200, 2));
}

#[tokio::test]
async fn a_stale_answer_stands_in_while_the_provider_is_busy() {
    for status in [429, 503, 529] {
        let busy = reply(r#"{"error":{}}"#).status(status).header("content-type", "application/json");
        let origin = origin::new().route(CHAT, [answer(0), busy]).run().await;
        let gateway = gateway(&origin, "[llm]\nttl = \"1s\"").await;
        let first = chat(&gateway, cold("x")).send().await;
        outlive(first.end_at, Duration::from_secs(1)).await;
        let second = chat(&gateway, cold("x")).send().await;
        assert_eq!((second.status, &second.body), (200, &first.body), "{status}");
        assert_eq!(second.cache().fwd_status, Some(i64::from(status)));
    }
}

#[tokio::test]
async fn lasting_errors_are_stored_where_that_is_asked_for() {
    let wrong = reply(r#"{"error":{"code":"context_length_exceeded"}}"#);
    let wrong = wrong.status(400).header("content-type", "application/json");
    let origin = origin::new().route(CHAT, wrong).run().await;
    let gateway = gateway(&origin, "[llm]\nerror_ttl = \"1m\"").await;
    assert_eq!(chat(&gateway, cold("x")).send().await.status, 400);
    let hit = chat(&gateway, cold("x")).send().await;
    hit.assert_hit();
    assert_eq!((hit.status, origin.requests(CHAT)), (400, 1));
}

#[tokio::test]
async fn other_protocols() {
    let messages = "/v1/messages";
    let generate = "/v1beta/models/gemini-2.5-flash:generateContent?key=secret";
    let claude =
        json!({ "type": "message", "stop_reason": "end_turn", "usage": { "input_tokens": 3, "output_tokens": 4 } });
    let gemini = json!({ "candidates": [{ "finishReason": "STOP" }], "usageMetadata": { "promptTokenCount": 5 } });
    let json = |value: &Value| reply(value.to_string()).header("content-type", "application/json");
    let origin = origin::new().route(messages, json(&claude)).route(generate, json(&gemini)).run().await;
    let gateway = gateway(&origin, "").await;
    let body = r#"{"model":"claude-3-haiku","temperature":0,"max_tokens":5,"messages":[]}"#;
    for (version, calls) in [("2023-06-01", 1), ("2023-06-01", 1), ("2024-01-01", 2)] {
        call(&gateway, "/anthropic/v1/messages", body).header("anthropic-version", version).send().await;
        assert_eq!(origin.requests(messages), calls);
    }
    let path = format!("/gemini{generate}");
    for _ in 0..2 {
        let body = r#"{"contents":[],"generationConfig":{"temperature":0}}"#;
        assert_eq!(call(&gateway, &path, body).send().await.status, 200);
    }
    assert_eq!(origin.requests(generate), 1);
    call(&gateway, &path.replace("secret", "other"), r#"{"contents":[],"generationConfig":{"temperature":0}}"#)
        .send()
        .await;
    assert_eq!(origin.last("/v1beta/models/gemini-2.5-flash:generateContent?key=other").method, "POST");
}

#[tokio::test]
async fn anything_else_passes() {
    let origin = origin::new()
        .route("/v1/files", reply("[]").max_age(60))
        .route("/v1/models", reply("{\"data\":[]}").header("content-type", "application/json"))
        .run()
        .await;
    let gateway = gateway(&origin, "").await;
    for calls in 1..=2 {
        let files = client::get(gateway.url("/openai/v1/files")).send().await;
        assert_passed(&files, "other-call");
        assert_eq!(origin.requests("/v1/files"), calls);
    }
    for _ in 0..2 {
        client::get(gateway.url("/openai/v1/models")).header("authorization", "Bearer a").send().await;
    }
    assert_eq!(origin.requests("/v1/models"), 1);
}

#[tokio::test]
async fn a_purge_reaches_what_was_answered() {
    let origin = numbered().await;
    let gateway = gateway(&origin, "").await;
    chat(&gateway, cold("x")).send().await;
    gateway.purge_path("/openai/v1/chat/completions").await;
    chat(&gateway, cold("x")).send().await.assert_forwarded("uri-miss");
}

#[tokio::test]
async fn a_stored_stream_comes_at_the_pace_that_was_asked_for() {
    let origin = origin::new().handler(CHAT, |_, nth| stream(&events(nth))).run().await;
    let gateway = gateway(&origin, "").await;
    let body = r#"{"model":"m","temperature":0,"stream":true,"messages":[]}"#;
    let miss = chat(&gateway, body).send().await;
    let paced = chat(&gateway, body).header("x-larder-replay", "20/s").send().await;
    paced.assert_hit();
    assert_eq!(paced.body, miss.body);
    assert!(paced.end_at - paced.head_at >= Duration::from_millis(150), "four events, twenty a second");
}

#[tokio::test]
async fn built_in_routes_and_those_of_customers() {
    let origin = numbered().await;
    let url = origin.url().replace("127.0.0.1", "{}");
    let own = format!(
        "[[route]]\nname = \"azure\"\npath = \"/azure\"\nstrip_path = true\nupstream = \"{url}\"\nprotocol = \"openai\"\n"
    );
    let gateway = gateway::new().config(own).run().await;
    let path = "/azure/localhost/v1/chat/completions";
    call(&gateway, path, cold("x")).send().await.assert_forwarded("uri-miss");
    call(&gateway, path, cold("x")).send().await.assert_hit();
    assert_eq!(call(&gateway, "/azure/a.b/v1/chat/completions", cold("x")).send().await.status, 404);
    let metrics = gateway.admin("GET", "/metrics").send().await;
    assert!(metrics.text().contains("route=\"anthropic\""), "the others are there");
}

const EMBEDDINGS: &str = "/v1/embeddings";

/// Answers each text with its length.
fn embedded(seen: &origin::Seen, nth: usize) -> Reply {
    let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
    let texts = match &body["input"] {
        Value::Array(texts) => texts.clone(),
        text => vec![text.clone()],
    };
    let embedding = |(index, text): (usize, &Value)| json!({ "object": "embedding", "index": index, "embedding": [text.to_string().len(), index_of(text)] });
    let tokens = 10 * texts.len();
    let answer = json!({
        "object": "list",
        "data": texts.iter().enumerate().map(embedding).collect::<Vec<_>>(),
        "model": "text-embedding-3-small",
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
        "nth": nth,
    });
    reply(answer.to_string()).header("content-type", "application/json")
}

/// What tells one text from another.
fn index_of(text: &Value) -> u64 {
    text.to_string().bytes().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)) % 1_000_003)
}

fn embeddings(gateway: &Gateway, input: &Value) -> client::Request {
    call(gateway, "/openai/v1/embeddings", json!({ "model": "e", "input": input }).to_string())
}

fn vectors(response: &Response) -> Vec<(u64, u64)> {
    let answer = response.json();
    let data = answer["data"].as_array().expect("a list").iter();
    data.map(|one| (one["index"].as_u64().expect("a place"), one["embedding"][1].as_u64().expect("a number"))).collect()
}

fn expected(texts: &[&str]) -> Vec<(u64, u64)> {
    (0..).zip(texts.iter().map(|text| index_of(&json!(text)))).collect()
}

#[tokio::test]
async fn only_unknown_inputs_go_to_the_provider() {
    let origin = origin::new().handler(EMBEDDINGS, embedded).run().await;
    let gateway = gateway(&origin, "").await;
    let first = embeddings(&gateway, &json!(["a", "b"])).send().await;
    assert_eq!(vectors(&first), expected(&["a", "b"]));
    let repeated = embeddings(&gateway, &json!(["a", "b"])).send().await;
    repeated.assert_hit();
    assert_eq!(repeated.json(), first.json(), "to the last token");
    assert_eq!(repeated.header("x-larder-saved-tokens"), Some("20"));

    let mixed = embeddings(&gateway, &json!(["c", "b", "d", "a", "c"])).send().await;
    assert_eq!(vectors(&mixed), expected(&["c", "b", "d", "a", "c"]));
    assert_eq!(mixed.json()["usage"]["prompt_tokens"], json!(50), "as if everything had been sent");
    let sent: Value = serde_json::from_slice(&origin.last(EMBEDDINGS).body).expect("JSON");
    assert_eq!(sent["input"], json!(["c", "d"]));
    for input in [json!("d"), json!(["d"]), json!(["c", "a", "d"])] {
        embeddings(&gateway, &input).send().await.assert_hit();
    }
    assert_eq!(origin.requests(EMBEDDINGS), 2);
    let alone = embeddings(&gateway, &json!("e")).send().await;
    alone.assert_forwarded("uri-miss");
    embeddings(&gateway, &json!(["e", "a"])).send().await.assert_hit();
    let stats = &gateway.admin_json("/stats").await["llm"];
    assert_eq!(stats["billed"]["input_tokens"], json!(50), "a and b, c and d, e");
}

#[tokio::test]
async fn equal_batches_at_once_are_paid_for_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = origin::new().handler(EMBEDDINGS, move |seen, nth| embedded(seen, nth).hold(&held)).run().await;
    let gateway = gateway(&origin, "").await;
    let texts: Vec<_> = (0..100).map(|nth| format!("text {nth}")).collect();
    let asking: Vec<_> = (0..20).map(|_| tokio::spawn(embeddings(&gateway, &json!(texts)).send())).collect();
    gateway.followers(19).await;
    gate.open();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    for asked in asking {
        assert_eq!(vectors(&asked.await.expect("no panic")), expected(&texts));
    }
    assert_eq!(origin.requests(EMBEDDINGS), 1);
}

#[tokio::test]
async fn a_provider_that_answers_something_else_is_told_of() {
    let odd = reply(r#"{"data":[]}"#).header("content-type", "application/json");
    let origin = origin::new()
        .handler(EMBEDDINGS, move |seen, nth| if nth == 0 { embedded(seen, nth) } else { odd.clone() })
        .run()
        .await;
    let gateway = gateway(&origin, "").await;
    embeddings(&gateway, &json!(["a", "b"])).send().await;
    assert_eq!(embeddings(&gateway, &json!(["a", "z"])).send().await.status, 502);
    embeddings(&gateway, &json!(["z", "y"])).send().await.assert_ok(r#"{"data":[]}"#);
    embeddings(&gateway, &json!(["a", "b"])).send().await.assert_hit();
}

#[tokio::test]
async fn a_miss_is_explained() {
    let origin = numbered().await;
    let gateway = gateway(&origin, "").await;
    let ask = |body: String| chat(&gateway, body).header("x-larder-explain", "1").send();
    let first = ask(cold("one")).await;
    assert_eq!(first.header("x-larder-miss"), Some("no other call of this scope is known"));
    assert_eq!(origin.last(CHAT).header("x-larder-explain"), None);
    let second = ask(cold("two").replace("\"temperature\":0", "\"temperature\":0,\"top_p\":1")).await;
    let told = second.header("x-larder-miss").expect("a word on it");
    assert!(told.contains("/messages/0/content changed") && told.contains("/top_p added"), "{told}");
    assert_eq!(ask(cold("one")).await.header("x-larder-miss"), None, "a hit");

    let explain = json!({
        "url": gateway.url("/openai/v1/chat/completions"),
        "headers": { "authorization": "Bearer sk-1", "content-type": "application/json" },
        "body": cold("three"),
    });
    let explained = gateway.admin("POST", "/explain").json(&explain).send().await.json();
    assert_eq!(explained["differences"][0]["at"], json!("/messages/0/content"), "{explained}");
    assert!(explained["verdict"].as_str().expect("a sentence").starts_with("forwarded"), "{explained}");
    assert!(!explained.to_string().contains("sk-1") && !explained.to_string().contains("three"), "{explained}");
    let mut known = explain.clone();
    known["body"] = json!(cold("one"));
    let explained = gateway.admin("POST", "/explain").json(&known).send().await.json();
    assert!(explained["verdict"].as_str().expect("a sentence").starts_with("hit"), "{explained}");
    let mut other = explain;
    other["headers"]["authorization"] = json!("Bearer sk-2");
    let explained = gateway.admin("POST", "/explain").json(&other).send().await.json();
    assert_eq!(explained.get("differences"), None, "others' calls are nobody's business: {explained}");
}

#[tokio::test]
async fn access_lines_tell_what_calls_cost() {
    let origin = numbered().await;
    let gateway = gateway(&origin, "[providers.prices]\n'gpt-4o' = '2.00 in, 1.00 cached, 10.00 out'").await;
    let paid = |account: &'static str| {
        move |line: &Value| line["account"] == account && line["model"] == "gpt-4o" && line["input_tokens"] == 1000
    };
    chat(&gateway, cold("line?")).send().await;
    let billed = gateway.access_line(paid("billed")).await;
    chat(&gateway, cold("line?")).send().await.assert_hit();
    let saved = gateway.access_line(paid("saved")).await;
    for line in [billed, saved] {
        assert_eq!((line["output_tokens"].as_u64(), line["usd"].as_f64()), (Some(100), Some(0.0026)), "{line}");
    }
}

#[tokio::test]
async fn gemini_s_batches_are_stored_per_input() {
    let vectors = |seen: &origin::Seen, _: usize| {
        let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let requests = body["requests"].as_array().expect("a list");
        let vector = |request: &Value| {
            let text = request["content"]["parts"][0]["text"].as_str().expect("a text");
            json!({ "values": [text.len(), 0.5] })
        };
        let answer = json!({ "embeddings": requests.iter().map(vector).collect::<Vec<_>>() });
        reply(answer.to_string()).header("content-type", "application/json")
    };
    const PATH: &str = "/v1beta/models/gemini-embedding-001:batchEmbedContents";
    let origin = origin::new().handler(PATH, vectors).run().await;
    let gateway = gateway(&origin, "").await;
    let embed = |texts: &[&str]| {
        let one = |text: &&str| json!({ "content": { "parts": [{ "text": text }] }, "taskType": "RETRIEVAL_QUERY" });
        let body = json!({ "requests": texts.iter().map(one).collect::<Vec<_>>() });
        let url = gateway.url(&format!("/gemini{PATH}"));
        client::request("POST", url).json(&body).header("x-goog-api-key", "k").send()
    };
    let values = |texts: &[&str]| json!({ "embeddings": texts.iter().map(|text| json!({ "values": [text.len(), 0.5] })).collect::<Vec<_>>() });
    assert_eq!(embed(&["a", "bb"]).await.json(), values(&["a", "bb"]));
    assert_eq!(embed(&["bb", "ccc", "a", "ccc"]).await.json(), values(&["bb", "ccc", "a", "ccc"]));
    let sent: Value = serde_json::from_slice(&origin.last(PATH).body).expect("JSON");
    assert_eq!(sent["requests"].as_array().map(Vec::len), Some(1), "only the unknown one is asked for: {sent}");
    let hit = embed(&["ccc"]).await;
    assert_eq!(hit.assert_hit().json(), values(&["ccc"]));
    assert_eq!(origin.requests(PATH), 2);
}

#[tokio::test]
async fn answers_may_have_ids_of_their_own() {
    let said = |nth: usize| {
        let id = format!("chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKc{nth}");
        reply(json!({ "id": id, "choices": [{ "finish_reason": "stop" }] }).to_string())
            .header("content-type", "application/json")
    };
    let origin = origin::new().handler(CHAT, move |_, nth| said(nth)).run().await;
    let gateway = gateway(&origin, "[llm]\nidentity = 'fresh'").await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..3 {
        let answer = chat(&gateway, cold("whose?")).send().await.json();
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        let id = answer["id"].as_str().expect("an id").to_owned();
        assert!(id.starts_with("chatcmpl-") && ids.insert(id), "{answer}");
    }
    assert_eq!(origin.requests(CHAT), 1);
}

#[tokio::test]
async fn access_lines_tell_what_answers_in_parts_cost() {
    let vectors = |seen: &origin::Seen, _: usize| {
        let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let count = body["input"].as_array().map_or(1, Vec::len);
        let data: Vec<_> = (0..count).map(|index| json!({ "index": index, "embedding": [0.5] })).collect();
        let answer = json!({ "data": data, "usage": { "prompt_tokens": 10 * count, "total_tokens": 10 * count } });
        reply(answer.to_string()).header("content-type", "application/json")
    };
    let origin = origin::new().handler("/v1/embeddings", vectors).run().await;
    let gateway = gateway(&origin, "").await;
    let embed = |inputs: Value| {
        let body = json!({ "model": "text-embedding-3-small", "input": inputs });
        call(&gateway, "/openai/v1/embeddings", body.to_string()).send()
    };
    embed(json!(["a", "b"])).await;
    embed(json!(["b", "a"])).await.assert_hit();
    let line = gateway.access_line(|line| line["account"] == "saved").await;
    assert_eq!((line["model"].as_str(), line["input_tokens"].as_u64()), (Some("text-embedding-3-small"), Some(20)));
    embed(json!(["a", "c"])).await.assert_forwarded("partial");
    gateway.access_line(|line| line["account"] == "billed" && line["input_tokens"] == 10).await;
    assert_eq!(origin.requests("/v1/embeddings"), 2);
}
