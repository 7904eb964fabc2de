//! What is purged here, CDNs are told: in their own words, once, and again until they take it.

use serde_json::{Value, json};

use crate::support::{
    eventually,
    gateway::{self, Gateway},
    origin::{self, Origin, Seen, reply},
};

const PURGE_CACHE: &str = "/client/v4/zones/z/purge_cache";

fn taken() -> origin::Reply {
    reply(r#"{"success":true,"errors":[],"messages":[],"result":{"id":"z"}}"#)
}

async fn gateway_telling(cdn: &Origin, webhook: &str) -> Gateway {
    let config = format!("[[webhook]]\nname = 'cdn'\nurl = {:?}\n{webhook}", cdn.url());
    gateway::new().config(config).run().await
}

const CLOUDFLARE: &str = "kind = 'cloudflare'\nzone = 'z'\ntoken = 'hush'\n";
const FASTLY: &str = "kind = 'fastly'\nservice = 's'\ntoken = 'hush'\n";

fn body(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).expect("JSON")
}

async fn counted(gateway: &Gateway, what: &str, count: f64) {
    let sample = format!("larder_webhook_{what}_total{{webhook=\"cdn\"}}");
    eventually(what, || async { ((gateway.metric(&sample).await - count).abs() < 0.1).then_some(()) }).await;
}

#[tokio::test]
async fn cloudflare_is_told_in_its_own_words() {
    let cdn = origin::new().handler(PURGE_CACHE, |_, _| taken()).run().await;
    let gateway = gateway_telling(&cdn, CLOUDFLARE).await;
    let tags: Vec<String> = (0..31).map(|number| format!("tag-{number}")).collect();
    let key = "0".repeat(64);
    gateway
        .purge(json!({"tags": tags, "urls": ["http://shop.example/7"], "hosts": ["shop.example"], "keys": [key]}))
        .await;
    gateway.purge(json!({"all": true})).await;
    cdn.arrived(PURGE_CACHE, 5).await;
    counted(&gateway, "sent", 5.0).await;
    let seen = cdn.seen(PURGE_CACHE);
    let bodies: Vec<Value> = seen.iter().map(body).collect();
    let expected = [
        json!({"files": ["http://shop.example/7"]}),
        json!({"tags": tags[..30]}),
        json!({"tags": tags[30..]}),
        json!({"hosts": ["shop.example"]}),
        json!({"purge_everything": true}),
    ];
    assert_eq!(bodies, expected);
    for one in &seen {
        assert_eq!((one.method.as_str(), one.header("authorization")), ("POST", Some("Bearer hush")));
        assert_eq!(one.header("content-type"), Some("application/json"));
    }
    counted(&gateway, "left_out", 1.0).await;
}

#[tokio::test]
async fn fastly_is_told_in_its_own_words() {
    let cdn = origin::new().route("/service/s/purge", reply("{}")).route("/purge/shop.example/7?a=1", reply("{}"));
    let cdn = cdn.run().await;
    let gateway = gateway_telling(&cdn, FASTLY).await;
    gateway.purge(json!({"tags": ["a", "b"], "urls": ["http://shop.example/7?a=1"], "soft": true})).await;
    cdn.arrived("/purge/shop.example/7?a=1", 1).await;
    counted(&gateway, "sent", 2.0).await;
    let keys = cdn.last("/service/s/purge");
    assert_eq!((keys.method.as_str(), keys.header("surrogate-key")), ("POST", Some("a b")));
    assert_eq!((keys.header("fastly-key"), keys.header("fastly-soft-purge")), (Some("hush"), Some("1")));
    assert_eq!(cdn.last("/purge/shop.example/7?a=1").header("fastly-soft-purge"), Some("1"));
}

#[tokio::test]
async fn what_fails_is_tried_again_in_order() {
    let replies = [reply("down").status(503), reply("slowly").status(429).header("retry-after", "1"), taken()];
    let answer = move |_: &Seen, n: usize| replies.get(n).cloned().unwrap_or_else(taken);
    let cdn = origin::new().handler(PURGE_CACHE, answer).run().await;
    let gateway = gateway_telling(&cdn, CLOUDFLARE).await;
    gateway.purge(json!({"tags": ["first"]})).await;
    gateway.purge(json!({"tags": ["second"]})).await;
    counted(&gateway, "sent", 2.0).await;
    counted(&gateway, "retried", 2.0).await;
    let bodies: Vec<Value> = cdn.seen(PURGE_CACHE).iter().map(body).collect();
    let [first, second] = ["first", "second"].map(|tag| json!({"tags": [tag]}));
    assert_eq!(bodies, [first.clone(), first.clone(), first, second]);
    counted(&gateway, "failed", 0.0).await;
}

#[tokio::test]
async fn what_is_refused_is_final() {
    let replies = [reply(r#"{"success":false}"#), reply("no").status(403), taken()];
    let answer = move |_: &Seen, n: usize| replies[n.min(2)].clone();
    let cdn = origin::new().handler(PURGE_CACHE, answer).run().await;
    let gateway = gateway_telling(&cdn, CLOUDFLARE).await;
    for tag in ["a", "b", "c"] {
        gateway.purge(json!({"tags": [tag]})).await;
    }
    counted(&gateway, "failed", 2.0).await;
    counted(&gateway, "sent", 1.0).await;
    assert_eq!(cdn.requests(PURGE_CACHE), 3);
    assert!(!gateway.output().contains("hush"), "a token in the log");
}

#[tokio::test]
async fn others_are_told_as_json_whichever_way_a_purge_came() {
    let hook = origin::new().handler("/hook", |_, _| reply("").status(204)).run().await;
    let config = format!("[[webhook]]\nname = 'cdn'\nkind = 'json'\nurl = '{}/hook'\nsecret = 'key'\n", hook.url());
    let mut gateway = gateway::new().config(config).run().await;
    let receipt = gateway.purge(json!({"tags": ["a"]})).await;
    gateway.admin("POST", "/service/s/purge/b").send().await;
    gateway.admin("PURGE", "/x").header("surrogate-key", "c").send().await;
    hook.arrived("/hook", 3).await;
    let seen = hook.seen("/hook");
    assert_eq!(body(&seen[0])["receipt"], receipt);
    let tags: Vec<Value> = seen.iter().map(|one| body(one)["purge"]["tags"][0].clone()).collect();
    assert_eq!(tags, ["a", "b", "c"]);
    let signature = seen[0].header("x-larder-signature").expect("a signature");
    assert!(signature.len() == 71 && signature.starts_with("sha256="), "{signature}");
    // What is queued leaves before the end.
    gateway.purge(json!({"tags": ["d"]})).await;
    assert!(gateway.stop().await.success());
    assert_eq!(hook.requests("/hook"), 4);
}

#[tokio::test]
async fn a_webhook_that_cannot_be_used_is_said_at_the_start() {
    let refusal = gateway::new().config("[[webhook]]\nname = 'cdn'\nkind = 'cloudflare'\n").refuse().await;
    assert_eq!(refusal.code, Some(64), "{}", refusal.output);
    for said in ["webhook[0].zone", "webhook[0].token"] {
        assert!(refusal.output.contains(said), "{said}: {}", refusal.output);
    }
}
