//! Limits of tokens: nobody gets around them by how he asks, or by leaving early.

use bytes::Bytes;
use serde_json::json;

use crate::support::{
    client, eventually,
    gate::Gate,
    gateway::{self, Gateway},
    origin::{self, Origin, reply},
    reply::Reply,
};

pub(crate) const CHAT: &str = "/v1/chat/completions";

const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";

/// A model that tells that it took more than there is.
pub(crate) fn told() -> Reply {
    let answer = json!({
        "usage": { "prompt_tokens": 700, "completion_tokens": 400 },
        "choices": [{ "message": { "content": "yes" }, "finish_reason": "stop" }],
    });
    reply(answer.to_string()).header("content-type", "application/json")
}

/// A stream of that many events that does not tell what it took.
fn untold(events: usize) -> Reply {
    let first = reply("").header("content-type", "text/event-stream");
    (0..events).fold(first, |reply, _| reply.chunk(EVENT))
}

/// Each caller has a thousand tokens.
async fn limited(origin: &Origin, more: &str) -> Gateway {
    model_under(origin, more, "name = 'tokens'\ncount = 'tokens'\nrate = '1000/day'\n").await
}

/// A route to a model, with `more` of its settings, where each caller is under that limit.
pub(crate) async fn model_under(origin: &Origin, more: &str, limit: &str) -> Gateway {
    let config = format!(
        "[[route]]\nname = 'openai'\nprotocol = 'openai'\nupstream = '{}'\n{more}\
         [[limit]]\nper = 'field:authorization'\n{limit}",
        origin.url()
    );
    gateway::new().config(config).run().await
}

fn ask(gateway: &Gateway, path: &str, who: &str, body: impl Into<Bytes>) -> client::Request {
    let request = client::request("POST", gateway.url(path)).header("authorization", &format!("Bearer {who}"));
    request.header("content-type", "application/json").body(body)
}

fn question(text: &str, stream: bool) -> String {
    json!({ "model": "m", "temperature": 1, "stream": stream, "messages": [{ "role": "user", "content": text }] })
        .to_string()
}

/// What a caller gets who asks once more, for what costs nothing.
async fn once_more(gateway: &Gateway, who: &str) -> u16 {
    let request = client::get(gateway.url("/v1/batches")).header("authorization", &format!("Bearer {who}"));
    request.send().await.status
}

async fn assert_in_debt(gateway: &Gateway, who: &str) {
    let is_refused = || async { (once_more(gateway, who).await == 429).then_some(()) };
    eventually("the charge", is_refused).await;
}

#[tokio::test]
async fn a_call_that_is_not_read_is_charged_as_well() {
    let origin = origin::new().route(CHAT, told()).route("/v1/new", told()).run().await;
    let gateway = limited(&origin, "").await;
    let twice = r#"{"model":"m","model":"m","messages":[]}"#;
    assert_eq!(ask(&gateway, CHAT, "twice", twice).send().await.status, 200);
    let coded = ask(&gateway, CHAT, "coded", question("a", false)).header("content-encoding", "identity, x");
    assert_eq!(coded.send().await.status, 200);
    assert_eq!(ask(&gateway, "/v1/new", "new", "{}").send().await.status, 200);
    for who in ["twice", "coded", "new"] {
        assert_in_debt(&gateway, who).await;
    }
    // Who only looks something up pays nothing.
    let models = client::get(gateway.url("/v1/new")).header("authorization", "Bearer looks");
    assert_eq!(models.send().await.status, 200);
    assert_ne!(once_more(&gateway, "looks").await, 429);
}

#[tokio::test]
async fn an_answer_in_a_coding_or_too_long_for_the_cache_is_charged() {
    let coded = told().header("content-encoding", "x");
    let long = reply("x".repeat(5000)).header("content-type", "application/json");
    let origin = origin::new()
        .handler(CHAT, move |seen, _| if seen.header("x-coded").is_some() { coded.clone() } else { long.clone() })
        .run()
        .await;
    let gateway = limited(&origin, "").await;
    let stored = |text: &str| question(text, false).replace("\"temperature\":1", "\"temperature\":0");
    // Nobody can read what it tells: what counts is how long question and answer are.
    let asked = ask(&gateway, CHAT, "coded", stored(&"long ".repeat(1000))).header("x-coded", "1");
    assert_eq!(asked.send().await.status, 200);
    assert_eq!(ask(&gateway, CHAT, "long", stored("a")).send().await.status, 200);
    for who in ["coded", "long"] {
        assert_in_debt(&gateway, who).await;
    }
}

#[tokio::test]
async fn a_stream_that_tells_nothing_is_charged_by_its_events() {
    let origin = origin::new().route(CHAT, untold(1010).chunk("data: [DONE]\n\n")).run().await;
    let gateway = limited(&origin, "").await;
    assert_eq!(ask(&gateway, CHAT, "ann", question("a", true)).send().await.status, 200);
    assert_in_debt(&gateway, "ann").await;
    let stats = &gateway.admin_json("/stats").await["llm"]["billed"];
    assert_eq!(stats["output_tokens"], 0, "what is guessed is no cost: {stats}");
}

#[tokio::test]
async fn who_leaves_early_pays_for_what_has_come() {
    let gate = Gate::new();
    let origin = origin::new().route(CHAT, untold(1010).gate(&gate).chunk("data: [DONE]\n\n")).run().await;
    let gateway = limited(&origin, "").await;
    // Not stored, and stored if it had come to its end.
    for (who, temperature) in [("ann", "1"), ("bob", "0")] {
        let body = question("a", true).replace("\"temperature\":1", &format!("\"temperature\":{temperature}"));
        let mut stream = ask(&gateway, CHAT, who, body).open().await;
        stream.read(1010 * EVENT.len()).await;
        drop(stream);
    }
    gate.open();
    for who in ["ann", "bob"] {
        assert_in_debt(&gateway, who).await;
    }
}
