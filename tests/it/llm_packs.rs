//! Calls to models that are recorded, and answered without a provider.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    client::{self, Request, Response},
    gateway::{self, Gateway},
    origin::{self, Origin, Reply, reply},
};

const CHAT: &str = "/v1/chat/completions";

struct Tape {
    directory: tempfile::TempDir,
}

impl Tape {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("calls.jsonl")
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path()).expect("a pack");
        assert!(text.ends_with('\n'));
        text.lines().skip(1).map(str::to_owned).collect()
    }

    /// A gateway before `url`, whose calls are recorded or replayed.
    async fn gateway(&self, mode: &str, url: &str) -> Gateway {
        gateway::new().config(config(&self.path(), mode, url)).run().await
    }
}

fn config(pack: &Path, mode: &str, url: &str) -> String {
    let route = |protocol: &str| {
        format!(
            "[[route]]\nname = '{protocol}'\npath = '/{protocol}'\nstrip_path = true\nupstream = '{url}'\n\
             protocol = '{protocol}'\nllm = {{ mode = '{mode}', pack = '{}' }}\n",
            pack.display()
        )
    };
    ["openai", "anthropic", "gemini"].map(route).concat()
}

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:9";

fn chat(gateway: &Gateway, body: &Value) -> Request {
    let request = client::request("POST", gateway.url("/openai/v1/chat/completions")).body(body.to_string());
    request.header("content-type", "application/json").header("authorization", "Bearer sk-secret-of-ann")
}

fn asks(text: &str) -> Value {
    json!({ "model": "gpt-4o", "messages": [{ "role": "system", "content": "Be brief." }, { "role": "user", "content": text }] })
}

fn answer(nth: usize) -> Reply {
    let choice = json!({ "message": { "content": format!("answer {nth}") }, "finish_reason": "stop" });
    let usage = json!({ "prompt_tokens": 1000, "completion_tokens": 100 });
    let answer = json!({ "id": nth, "model": "gpt-4o", "choices": [choice], "usage": usage });
    reply(answer.to_string())
        .header("content-type", "application/json")
        .header("openai-version", "2020-10-01")
        .header("set-cookie", "session=1")
        .header("x-request-id", "req_1")
}

fn stream() -> Reply {
    let events = [
        "data: {\"choices\":[{\"delta\":{\"content\":\"one\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: [DONE]\n\n",
    ];
    let first = reply("").header("content-type", "text/event-stream");
    events.into_iter().fold(first, |reply, event| reply.chunk(event))
}

async fn provider() -> Origin {
    let streams = |body: &[u8]| serde_json::from_slice::<Value>(body).is_ok_and(|body| body["stream"] == true);
    origin::new()
        .handler(CHAT, move |seen, nth| if streams(&seen.body) { stream() } else { answer(nth) })
        .handler("/v1/files", |_, _| reply("files"))
        .run()
        .await
}

fn assert_replayed(response: &Response) {
    response.assert_hit();
    assert_eq!(response.cache().detail.as_deref(), Some("pack"), "{:?}", response.headers);
}

#[tokio::test]
async fn what_was_recorded_is_answered_without_a_provider() {
    let (origin, tape) = (provider().await, Tape::new());
    let gateway = tape.gateway("record", &origin.url()).await;
    let (question, mut streamed) = (asks("What is a larder?"), asks("What is a stream?"));
    streamed["stream"] = true.into();
    let first = chat(&gateway, &question).header("x-title", "mine").send().await;
    assert_eq!(first.status, 200);
    let events = chat(&gateway, &streamed).send().await;
    assert!(events.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(tape.lines().len(), 2);
    let whole = std::fs::read_to_string(tape.path()).expect("a pack");
    assert!(whole.contains("What is a larder?") && whole.contains("openai-version"));
    for secret in ["sk-secret-of-ann", "session=1", "req_1"] {
        assert!(!whole.contains(secret), "{secret} was recorded");
    }
    drop(gateway);

    let replaying = tape.gateway("replay", NOBODY).await;
    let again = chat(&replaying, &question).send().await;
    assert_replayed(&again);
    again.assert_ok(first.text());
    assert_eq!(again.header("openai-version"), Some("2020-10-01"));
    assert_eq!(again.header("x-larder-saved-tokens"), Some("1100"));
    // Whoever asks, however the body is written.
    let otherwise = serde_json::to_string_pretty(&question).expect("JSON");
    let url = replaying.url("/openai/v1/chat/completions");
    let otherwise = client::request("POST", url).body(otherwise).header("content-type", "application/json");
    otherwise.send().await.assert_ok(first.text());
    let replayed = chat(&replaying, &streamed).send().await;
    replayed.assert_ok(events.text());
    assert_eq!(replayed.header("content-type"), Some("text/event-stream"));
    assert_eq!(origin.requests(CHAT), 2);
}

#[tokio::test]
async fn what_was_not_recorded_is_told_apart_from_what_was() {
    let (origin, tape) = (provider().await, Tape::new());
    let gateway = tape.gateway("record", &origin.url()).await;
    chat(&gateway, &asks("What is a larder?")).send().await;
    drop(gateway);
    let replaying = tape.gateway("replay", NOBODY).await;
    let mut other = asks("What is a pantry?");
    other["temperature"] = 0.into();
    let refused = chat(&replaying, &other).send().await;
    assert_eq!((refused.status, refused.header("x-should-retry")), (504, Some("false")));
    assert_eq!(refused.json()["error"]["message"], refused.json()["detail"], "where SDKs look for it");
    let told = refused.json()["detail"].as_str().expect("a text").to_owned();
    for part in ["/messages/1/content changed", "/temperature added", "calls.jsonl", "route openai", "llm.mode"] {
        assert!(told.contains(part), "{told}");
    }
    // The other routes of the same pack have calls of their own.
    let elsewhere = client::request("POST", replaying.url("/anthropic/v1/messages"));
    let elsewhere = elsewhere.body(asks("What is a larder?").to_string()).header("content-type", "application/json");
    let told = elsewhere.send().await;
    assert!(told.status == 504 && told.text().contains("nothing was recorded by this route"), "{}", told.text());
    let files = client::get(replaying.url("/openai/v1/files")).send().await;
    assert!(files.status == 504 && files.text().contains("other-call"), "{}", files.text());
}

#[tokio::test]
async fn auto_records_what_is_not_there() {
    let (origin, tape) = (provider().await, Tape::new());
    let gateway = tape.gateway("auto", &origin.url()).await;
    let first = chat(&gateway, &asks("one")).send().await;
    first.assert_forwarded("bypass");
    assert_replayed(&chat(&gateway, &asks("one")).send().await);
    let gateway = gateway.kill9_and_restart().await;
    let again = chat(&gateway, &asks("one")).send().await;
    assert_replayed(&again);
    again.assert_ok(first.text());
    chat(&gateway, &asks("two")).send().await.assert_forwarded("bypass");
    assert_eq!((origin.requests(CHAT), tape.lines().len()), (2, 2));
    client::get(gateway.url("/openai/v1/files")).send().await.assert_ok("files");
}

#[tokio::test]
async fn recording_asks_anew_and_the_latest_counts() {
    let (origin, tape) = (provider().await, Tape::new());
    let mut question = asks("one");
    question["temperature"] = 0.into();
    let gateway = tape.gateway("record", &origin.url()).await;
    for _ in 0..2 {
        assert!(!chat(&gateway, &question).send().await.cache().hit);
    }
    assert_eq!(origin.requests(CHAT), 2);
    drop(gateway);
    let gateway = tape.gateway("auto", NOBODY).await;
    let latest = chat(&gateway, &question).send().await;
    assert!(latest.text().contains("answer 1"), "{}", latest.text());
    assert_eq!(tape.lines().len(), 1, "the earlier one is gone");
}

#[tokio::test]
async fn failures_are_not_recorded_and_refusals_are() {
    let statuses = |seen: &origin::Seen, nth: usize| {
        let text = String::from_utf8_lossy(&seen.body).into_owned();
        if text.contains("bad") {
            reply("{\"error\":\"bad\"}").status(400).header("content-type", "application/json")
        } else if text.contains("cut") {
            reply("{\"choices\":[{\"message\":").header("content-type", "application/json")
        } else if nth == 0 {
            reply("{}").status(429).header("retry-after", "1")
        } else {
            answer(nth)
        }
    };
    let (origin, tape) = (origin::new().handler(CHAT, statuses).run().await, Tape::new());
    let gateway = tape.gateway("auto", &origin.url()).await;
    assert_eq!(chat(&gateway, &asks("limited")).send().await.status, 429);
    assert_eq!(chat(&gateway, &asks("limited")).send().await.status, 200);
    assert_eq!(chat(&gateway, &asks("cut")).send().await.status, 200);
    for _ in 0..2 {
        assert_eq!(chat(&gateway, &asks("bad")).send().await.status, 400);
    }
    assert_eq!((origin.requests(CHAT), tape.lines().len()), (4, 2));
}

#[tokio::test]
async fn answers_in_parts_are_recorded_whole() {
    let vectors = |seen: &origin::Seen, _: usize| {
        let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let inputs = body["input"].as_array().expect("a list");
        let vector =
            |(index, input): (usize, &Value)| json!({ "index": index, "embedding": [input.as_str().map(str::len)] });
        let data: Vec<_> = inputs.iter().enumerate().map(vector).collect();
        let answer = json!({ "object": "list", "data": data, "usage": { "prompt_tokens": 2, "total_tokens": 2 } });
        reply(answer.to_string()).header("content-type", "application/json")
    };
    let (origin, tape) = (origin::new().handler("/v1/embeddings", vectors).run().await, Tape::new());
    let embed = |gateway: &Gateway, inputs: Value| {
        let body = json!({ "model": "text-embedding-3-small", "input": inputs });
        client::request("POST", gateway.url("/openai/v1/embeddings")).json(&body).send()
    };
    let gateway = tape.gateway("auto", &origin.url()).await;
    embed(&gateway, json!(["a", "bb"])).await;
    let mixed = embed(&gateway, json!(["bb", "ccc"])).await;
    assert_eq!(origin.last("/v1/embeddings").body, &br#"{"input":["ccc"],"model":"text-embedding-3-small"}"#[..]);
    drop(gateway);
    let gateway = tape.gateway("replay", NOBODY).await;
    embed(&gateway, json!(["bb", "ccc"])).await.assert_ok(mixed.text());
    assert_eq!(embed(&gateway, json!(["ccc", "bb"])).await.status, 504);
}

#[tokio::test]
async fn packs_that_cannot_be_used() {
    let (origin, tape) = (provider().await, Tape::new());
    let missing = gateway::new().config(config(&tape.path(), "replay", NOBODY)).refuse().await;
    assert!(missing.output.contains("there is no pack"), "{}", missing.output);
    let _recording = tape.gateway("record", &origin.url()).await;
    let taken = gateway::new().config(config(&tape.path(), "auto", NOBODY)).refuse().await;
    assert!(taken.output.contains("in use by another process"), "{}", taken.output);
    let nowhere = config(Path::new(""), "auto", NOBODY);
    let nowhere = gateway::new().config(nowhere).refuse().await;
    assert!(nowhere.output.contains("needs the path of a file"), "{}", nowhere.output);
}
