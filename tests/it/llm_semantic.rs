//! Answers to calls that say in other words what an answered call said: when they are given, and when they never are.

use serde_json::{Value, json};

use crate::support::{
    client::{self, Response},
    eventually,
    gate::Gate,
    gateway::{self, Gateway},
    origin::{self, Origin, Reply, reply},
};

const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";

/// Every text has the direction of tea, but for what is said of it.
fn vector(text: &str) -> [f32; 3] {
    let degrees: f32 = match text {
        _ if text.contains("kindly") => 10.0,
        _ if text.contains("coffee") => 40.0,
        _ if text.contains("opposite") => 90.0,
        _ => 0.0,
    };
    [2.0 * degrees.to_radians().cos(), 0.0, 2.0 * degrees.to_radians().sin()]
}

fn embedding(seen: &origin::Seen) -> Reply {
    let asked: Value = serde_json::from_slice(&seen.body).expect("JSON");
    let vector = vector(asked["input"].as_str().expect("one text"));
    let answer = json!({ "object": "list", "data": [{ "index": 0, "embedding": vector }], "model": asked["model"] });
    reply(answer.to_string()).header("content-type", "application/json")
}

fn answer(text: &str) -> Reply {
    let answer = json!({
        "choices": [{ "message": { "content": text }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 1000, "completion_tokens": 100 },
    });
    reply(answer.to_string()).header("content-type", "application/json")
}

fn events(text: &str) -> Reply {
    let first = format!("data: {}\n\n", json!({ "choices": [{ "delta": { "content": text } }] }));
    let stop = format!("data: {}\n\n", json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] }));
    let reply = reply("").header("content-type", "text/event-stream");
    reply.chunk(first).chunk(stop).chunk("data: [DONE]\n\n")
}

fn chat(seen: &origin::Seen) -> Reply {
    let asked: Value = serde_json::from_slice(&seen.body).expect("JSON");
    if asked["stream"] == json!(true) { events("brew it") } else { answer("brew it") }
}

/// A provider, and an embedder beside it.
async fn provider() -> Origin {
    origin::new().handler(CHAT, |seen, _| chat(seen)).handler(EMBEDDINGS, |seen, _| embedding(seen)).run().await
}

async fn gateway(origin: &Origin, semantic: &str) -> Gateway {
    let url = origin.url();
    let config = format!(
        "[[route]]\nname = \"openai\"\npath = \"/openai\"\nstrip_path = true\nupstream = \"{url}\"\nprotocol = \"openai\"\n\
         [llm.semantic]\nurl = \"{url}{EMBEDDINGS}\"\nmodel = \"small\"\napi_key = \"sk-embed\"\n{semantic}\n"
    );
    gateway::new().config(config).run().await
}

async fn on(origin: &Origin) -> Gateway {
    gateway(origin, "mode = \"on\"\nverify_rate = 0\n").await
}

fn call(gateway: &Gateway, body: &Value) -> client::Request {
    let request = client::request("POST", gateway.url("/openai/v1/chat/completions")).body(body.to_string());
    request.header("content-type", "application/json").header("authorization", "Bearer sk-1")
}

fn body(text: &str) -> Value {
    let messages = json!([{ "role": "system", "content": "you know drinks" }, { "role": "user", "content": text }]);
    json!({ "model": "m", "temperature": 0, "messages": messages })
}

async fn ask(gateway: &Gateway, text: &str) -> Response {
    call(gateway, &body(text)).send().await
}

const TEA: &str = "how do I brew tea";
const KINDLY: &str = "kindly tell how to brew tea";
const COFFEE: &str = "how do I brew coffee";

#[track_caller]
fn assert_similar(response: &Response, similarity: &str) {
    response.assert_hit();
    assert_eq!(response.cache().detail.as_deref(), Some("semantic"));
    assert_eq!(response.header("x-larder-semantic"), Some(similarity));
}

#[tokio::test]
async fn a_similar_question_has_the_stored_answer() {
    let origin = provider().await;
    let gateway = on(&origin).await;
    let first = ask(&gateway, TEA).await;
    first.assert_forwarded("uri-miss");
    assert_eq!(first.header("x-larder-semantic"), None);
    for _ in 0..2 {
        let similar = ask(&gateway, KINDLY).await;
        assert_similar(&similar, "0.985");
        assert_eq!(similar.body, first.body);
        assert_eq!(similar.header("x-larder-saved-tokens"), Some("1100"));
    }
    ask(&gateway, TEA).await.assert_hit();
    ask(&gateway, COFFEE).await.assert_forwarded("uri-miss");
    assert_eq!(origin.requests(CHAT), 2);
    let asked = origin.last(EMBEDDINGS);
    assert_eq!(asked.header("authorization"), Some("Bearer sk-embed"));
    let asked: Value = serde_json::from_slice(&asked.body).expect("JSON");
    assert_eq!((&asked["model"], &asked["input"]), (&json!("small"), &json!(COFFEE)));
    let metric = |result: &str| format!("larder_llm_semantic_total{{route=\"openai\",result=\"{result}\"}}");
    assert!((gateway.metric(&metric("hit")).await - 2.0).abs() < 0.1);
    assert!((gateway.metric(&metric("miss")).await - 2.0).abs() < 0.1);
    assert!((gateway.metric("larder_llm_semantic_vectors{route=\"openai\"}").await - 2.0).abs() < 0.1);
    let stats = gateway.admin_json("/stats").await;
    let stats = stats["semantic"].as_array().expect("figures").clone();
    let own = stats.iter().find(|one| one["route"] == "openai").expect("the route");
    assert_eq!((&own["hits"], &own["vectors"], &own["switched_off"]), (&json!(2), &json!(2), &json!(false)));
}

#[tokio::test]
async fn off_by_default() {
    let origin = provider().await;
    let gateway = gateway(&origin, "").await;
    ask(&gateway, TEA).await;
    ask(&gateway, KINDLY).await.assert_forwarded("uri-miss");
    assert_eq!(origin.requests(EMBEDDINGS), 0);
}

#[tokio::test]
async fn what_differs_in_anything_else_never_meets() {
    let origin = provider().await;
    let gateway = on(&origin).await;
    ask(&gateway, TEA).await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = body(KINDLY);
        change(&mut body);
        body
    };
    let earlier = json!({ "role": "assistant", "content": "hello" });
    for other in [
        with(&|body| body["model"] = "n".into()),
        with(&|body| body["messages"][0]["content"] = "you know cars".into()),
        with(&|body| body["tools"] = json!([{ "type": "function", "function": { "name": "kettle" } }])),
        with(&|body| body["temperature"] = json!(0.5)),
        with(&|body| body["seed"] = json!(1)),
        with(&|body| body["max_tokens"] = json!(9)),
        with(&|body| body["stream"] = json!(true)),
        with(&|body| body["messages"].as_array_mut().expect("a list").insert(1, earlier.clone())),
        with(&|body| body["messages"][1]["name"] = "somebody".into()),
        with(&|body| {
            body["messages"][1]["content"] =
                json!([{ "type": "text", "text": KINDLY }, { "type": "text", "text": "so" }])
        }),
        with(&|body| body["messages"][1]["role"] = "assistant".into()),
    ] {
        let response = call(&gateway, &other).send().await;
        assert!(!response.cache().hit, "{other}");
        assert_eq!(response.header("x-larder-semantic"), None, "{other}");
    }
    let fields: [&[(&str, &str)]; 3] = [
        &[("authorization", "Bearer sk-2")],
        &[("authorization", "Bearer sk-1"), ("x-larder-namespace", "n")],
        &[("authorization", "Bearer sk-1"), ("openai-project", "p")],
    ];
    for fields in fields {
        let request =
            client::request("POST", gateway.url("/openai/v1/chat/completions")).body(body(KINDLY).to_string());
        let request = fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        request.send().await.assert_forwarded("uri-miss");
    }
    assert_similar(&ask(&gateway, "kindly now, how is tea brewed").await, "0.985");
}

#[tokio::test]
async fn numbers_names_and_negations_are_not_similar() {
    let origin = provider().await;
    let gateway = on(&origin).await;
    for (one, other) in [
        ("brew 2 cups of tea", "kindly brew 3 cups of tea"),
        ("is green tea from China", "kindly, is green tea from Japan"),
        ("may I drink tea", "kindly, may I not drink tea"),
        ("what is `steep`", "kindly, what is `pour`"),
    ] {
        ask(&gateway, one).await.assert_forwarded("uri-miss");
        ask(&gateway, other).await.assert_forwarded("uri-miss");
    }
    assert_similar(&ask(&gateway, "kindly tell how to brew two cups of tea").await, "0.985");
}

#[tokio::test]
async fn a_shadow_only_tells() {
    let origin = provider().await;
    let gateway = gateway(&origin, "mode = \"shadow\"").await;
    ask(&gateway, TEA).await;
    let told = ask(&gateway, KINDLY).await;
    told.assert_forwarded("uri-miss");
    assert_eq!(told.header("x-larder-semantic"), Some("0.985; shadow"));
    assert_eq!(origin.requests(CHAT), 2);
    ask(&gateway, KINDLY).await.assert_hit();
    let agreed = "larder_llm_semantic_total{route=\"openai\",result=\"agreed\"}";
    eventually("both answers to be compared", || async { (gateway.metric(agreed).await > 0.5).then_some(()) }).await;
}

#[tokio::test]
async fn a_text_beyond_the_window_takes_no_part() {
    let origin = provider().await;
    let gateway = gateway(&origin, "mode = \"on\"\nverify_rate = 0\nwindow = 30\n").await;
    ask(&gateway, TEA).await;
    ask(&gateway, &format!("{KINDLY}, and tell all of it")).await.assert_forwarded("uri-miss");
    assert_eq!(origin.requests(EMBEDDINGS), 1);
    assert_similar(&ask(&gateway, KINDLY).await, "0.985");
}

#[tokio::test]
async fn an_embedder_that_fails_is_no_failure_of_a_call() {
    let origin =
        origin::new().handler(CHAT, |seen, _| chat(seen)).route(EMBEDDINGS, reply("no").status(500)).run().await;
    let gateway = gateway(&origin, "mode = \"on\"\nverify_rate = 0\nfailures_max = 2\n").await;
    for text in [TEA, KINDLY, COFFEE] {
        let response = ask(&gateway, text).await;
        response.assert_forwarded("uri-miss");
        assert_eq!(response.status, 200);
        ask(&gateway, text).await.assert_hit();
    }
    assert_eq!(origin.requests(EMBEDDINGS), 2, "then it rests");
}

#[tokio::test]
async fn an_embedder_that_is_slow_delays_nobody_for_long() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = origin::new().handler(CHAT, |seen, _| chat(seen)).route(EMBEDDINGS, reply("").hold(&held)).run().await;
    let gateway = gateway(&origin, "mode = \"on\"\nverify_rate = 0\ntimeout = \"50ms\"\n").await;
    ask(&gateway, TEA).await.assert_forwarded("uri-miss");
    gate.arrived(1).await;
    ask(&gateway, TEA).await.assert_hit();
}

#[tokio::test]
async fn what_is_purged_answers_nothing_similar() {
    let origin = provider().await;
    let gateway = on(&origin).await;
    ask(&gateway, TEA).await;
    assert_similar(&ask(&gateway, KINDLY).await, "0.985");
    gateway.purge_path("/openai/v1/chat/completions").await;
    ask(&gateway, KINDLY).await.assert_forwarded("uri-miss");
    assert!(
        (gateway.metric("larder_llm_semantic_vectors{route=\"openai\"}").await - 1.0).abs() < 0.1,
        "it is forgotten"
    );
}

#[tokio::test]
async fn what_a_client_asks_for_counts() {
    let origin = provider().await;
    let gateway = on(&origin).await;
    ask(&gateway, TEA).await;
    let asked = |name: &str, value: &str| call(&gateway, &body(KINDLY)).header(name, value).send();
    asked("cache-control", "no-cache").await;
    assert_eq!(origin.requests(CHAT), 2);
    let exact =
        call(&gateway, &body("kindly, once more, how is tea brewed")).header("x-larder-semantic", "off").send().await;
    exact.assert_forwarded("uri-miss");
    assert_eq!(origin.last(CHAT).header("x-larder-semantic"), None, "it ends here");
}

#[tokio::test]
async fn a_stream_is_answered_as_a_stream() {
    let origin = provider().await;
    let gateway = on(&origin).await;
    let streamed = |text: &str| {
        let mut body = body(text);
        body["stream"] = json!(true);
        call(&gateway, &body).send()
    };
    let first = streamed(TEA).await;
    let similar = streamed(KINDLY).await;
    assert_similar(&similar, "0.985");
    assert_eq!((&similar.body, similar.header("content-type")), (&first.body, Some("text/event-stream")));
}

#[tokio::test]
async fn many_who_ask_the_same_need_one_vector() {
    let gate = Gate::new();
    let (origin, gateway) = held_at(&gate).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        asking.spawn(call(&gateway, &body(KINDLY)).send());
    }
    gateway.followers(49).await;
    gate.open();
    while let Some(similar) = asking.join_next().await {
        assert_similar(&similar.expect("no panic"), "0.985");
    }
    assert_eq!((origin.requests(CHAT), origin.requests(EMBEDDINGS)), (1, 2));
}

/// An embedder that waits at a gate, once it has made a vector of the first question, which is answered.
async fn held_at(gate: &Gate) -> (Origin, Gateway) {
    let held = gate.clone();
    let embedder = move |seen: &origin::Seen, nth| if nth == 0 { embedding(seen) } else { embedding(seen).hold(&held) };
    let origin = origin::new().handler(CHAT, |seen, _| chat(seen)).handler(EMBEDDINGS, embedder).run().await;
    let gateway = gateway(&origin, "mode = \"on\"\nverify_rate = 0\ntimeout = \"20s\"\n").await;
    ask(&gateway, TEA).await;
    (origin, gateway)
}

#[tokio::test]
async fn who_refuses_what_is_similar_goes_by_itself() {
    let gate = Gate::new();
    let (origin, gateway) = held_at(&gate).await;
    let leader = tokio::spawn(call(&gateway, &body(KINDLY)).send());
    gate.arrived(1).await;
    let follower = tokio::spawn(call(&gateway, &body(KINDLY)).header("x-larder-semantic", "off").send());
    gateway.followers(1).await;
    gate.open();
    assert_similar(&leader.await.expect("no panic"), "0.985");
    let follower = follower.await.expect("no panic");
    follower.assert_forwarded("uri-miss");
    assert_eq!((follower.header("x-larder-semantic"), origin.requests(CHAT)), (None, 2));
}

#[tokio::test]
async fn answers_that_differ_too_often_switch_it_off() {
    let origin = origin::new()
        .handler(CHAT, |_, nth| answer(if nth % 2 == 0 { "brew it" } else { "do the opposite" }))
        .handler(EMBEDDINGS, |seen, _| embedding(seen))
        .run()
        .await;
    let gateway = gateway(&origin, "mode = \"on\"\nverify_rate = 1\nverify_samples = 10\nerror_rate_max = 0.1\n").await;
    ask(&gateway, TEA).await;
    for (text, nth) in [(KINDLY, 1.0), ("kindly, how is tea brewed", 2.0)] {
        let verified = ask(&gateway, text).await;
        verified.assert_forwarded("uri-miss");
        let told = verified.header("x-larder-semantic").expect("told");
        assert!(told.ends_with("; verify"), "{told}");
        let differed = "larder_llm_semantic_total{route=\"openai\",result=\"differed\"}";
        eventually("both answers to be compared", || async {
            (gateway.metric(differed).await > nth - 0.5).then_some(())
        })
        .await;
    }
    let off = "larder_llm_semantic_off{route=\"openai\"}";
    eventually("it to be off", || async { (gateway.metric(off).await > 0.5).then_some(()) }).await;
    let asked = origin.requests(EMBEDDINGS);
    let after = ask(&gateway, "kindly, tell me of tea").await;
    after.assert_forwarded("uri-miss");
    assert_eq!((after.header("x-larder-semantic"), origin.requests(EMBEDDINGS)), (None, asked));
    assert!(gateway.output().contains("switched off"));
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_and_keys_not_shown() {
    let refused = gateway::new().config("[llm.semantic]\nmode = \"on\"\nthreshold = 0.1\n").refuse().await;
    assert!(refused.output.contains("llm.semantic.threshold"), "{}", refused.output);
    assert!(refused.output.contains("llm.semantic.mode: vectors come from somewhere"), "{}", refused.output);
    let route = "[[route]]\nname = \"r\"\nupstream = \"http://127.0.0.1:9\"\nprotocol = \"openai\"\n";
    let missing = format!("{route}llm = {{ semantic = {{ mode = \"on\", model_dir = \"/nowhere\" }} }}\n");
    let refused = gateway::new().config(missing).refuse().await;
    assert!(refused.output.contains("/nowhere"), "{}", refused.output);
}
