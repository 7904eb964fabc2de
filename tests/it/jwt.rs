//! Tokens that issuers sign, on the admin plane: what they may do there, what is wrong with those that are refused, and
//! what becomes of them when keys change, issuers go and configurations are read again.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    client::{self, Request, Response},
    command::larder,
    eventually,
    gateway::{self, Gateway},
    jwt::{self, KEYS, Key, claims, config, encoded, issuer, now},
    origin::{self, reply},
    raw,
    secure::Front,
    within,
};

/// Wrong tokens may be tried here as often as a test likes.
const TRIES: &str = "[admin]\nfailures_rate = '1000/s'\n";

/// A call with a token.
fn call(gateway: &Gateway, method: &str, path: &str, token: &str) -> Request {
    client::request(method, gateway.admin_url(path)).header("authorization", &format!("Bearer {token}"))
}

async fn stats(gateway: &Gateway, token: &str) -> Response {
    call(gateway, "GET", "/stats", token).send().await
}

async fn purge(gateway: &Gateway, token: &str) -> Response {
    call(gateway, "POST", "/purge", token).json(&json!({ "tags": ["x"] })).send().await
}

fn challenge(response: &Response) -> &str {
    response.header("www-authenticate").unwrap_or_default()
}

#[tokio::test]
async fn roles_say_what_a_token_may_do() {
    let keys = [Key::rsa("r"), Key::p256("p"), Key::ed25519("e")];
    let (idp, _) = issuer(&keys.each_ref()).await;
    let url = format!("{}{KEYS}", idp.url());
    let gateway = gateway::new().config(config(&url, "")).run().await;
    for key in &keys {
        let status = async |roles: &[&str]| {
            let token = key.sign(&claims("ann", roles));
            let level = call(&gateway, "GET", "/log/level", &token).send().await.status;
            [stats(&gateway, &token).await.status, purge(&gateway, &token).await.status, level]
        };
        assert_eq!(status(&["viewer"]).await, [200, 403, 403]);
        assert_eq!(status(&["other", "viewer", "deployer"]).await, [200, 200, 403], "the highest counts");
        assert_eq!(status(&["chief"]).await, [200; 3]);
        assert_eq!(status(&["other"]).await, [403; 3]);
    }
    let refused = purge(&gateway, &keys[0].sign(&claims("ann", &["viewer"]))).await;
    assert!(challenge(&refused).contains("error=\"insufficient_scope\", scope=\"purge\""), "{}", challenge(&refused));
    assert!(refused.text().contains("`staff/ann` may read"), "{}", refused.text());
    let line = gateway.access_line(|line| line["target"] == "larder::audit" && line["result"] == 200).await;
    assert_eq!((&line["who"], &line["action"]), (&json!("staff/ann"), &json!("POST /purge")));
    assert_eq!(idp.requests(KEYS), 1);
    assert_eq!(
        client::get(gateway.admin_url("/stats")).send().await.status,
        401,
        "an issuer with roles asks for tokens"
    );
    larder(["stats", "--admin", &gateway.admin_base()]).await.assert(1, "token");
    let token = keys[1].sign(&claims("ann", &["viewer"]));
    larder(["stats", "--admin", &gateway.admin_base(), "--admin-token", &token]).await.assert(0, "");
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_of_the_token() {
    let (key, other) = (Key::p256("k"), Key::p256("k"));
    let (idp, _) = issuer(&[&key]).await;
    let config = config(&format!("{}{KEYS}", idp.url()), "leeway = '0s'");
    let gateway = gateway::new().token("secret").config(config).run().await;
    let with = |name: &str, value: Value| {
        let mut claims = claims("hush", &["chief"]);
        claims[name] = value;
        if claims[name].is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        }
        key.sign(&claims)
    };
    let body = encoded(claims("hush", &["chief"]).to_string());
    let unsigned = format!("{}.{body}.", encoded(r#"{"alg":"none"}"#));
    let critical = format!("{}.{body}.AAAA", encoded(r#"{"alg":"ES256","kid":"k","crit":["x"],"x":1}"#));
    let shared = format!("{}.{body}.AAAA", encoded(r#"{"alg":"HS256","kid":"k"}"#));
    let wrong = [
        (unsigned, "not signed"),
        (critical, "crit"),
        (shared, "alg"),
        (other.sign(&claims("hush", &["chief"])), "signature"),
        (key.named("j").sign(&claims("hush", &["chief"])), "kid"),
        (with("iss", json!("https://login.example/realms/other")), "iss"),
        (with("aud", json!("shop")), "aud"),
        (with("aud", Value::Null), "no `aud`"),
        (with("exp", json!(now() - 1)), "expired"),
        (with("exp", Value::Null), "no `exp`"),
        (with("nbf", json!(now() + 600)), "nbf"),
        (with("iat", json!(now() + 600)), "iat"),
        (with("sub", Value::Null), "name_claim"),
        (with("pad", json!("x".repeat(9000))), "too long"),
        ("a.b.c".to_owned(), "no JWT"),
        ("wrong".to_owned(), "admin.token"),
    ];
    for (token, said) in &wrong {
        let refused = stats(&gateway, token).await;
        assert_eq!(refused.status, 401, "{said}");
        assert!(refused.text().contains(said), "{said}: {}", refused.text());
        let challenge = challenge(&refused);
        assert!(challenge.contains("error=\"invalid_token\"") && challenge.contains(said), "{said}: {challenge}");
        assert!(!refused.text().contains("hush"), "{said}");
    }
    let anonymous = client::get(gateway.admin_url("/stats")).send().await;
    assert_eq!(challenge(&anonymous), "Bearer realm=\"larder admin\"", "nothing is wrong with no token");
    assert_eq!(stats(&gateway, "secret").await.status, 200, "static tokens are tokens still");
    assert_eq!(stats(&gateway, &with("sub", json!("ann"))).await.status, 200);
    assert_eq!(gateway.metric("larder_jwt_verifications_total{issuer=\"staff\",result=\"audience\"}").await, 1.0);
    assert!(!gateway.output().contains(&body), "a token in the log");
}

#[tokio::test]
async fn a_key_is_replaced() {
    let (old, new) = (Key::p256("old"), Key::p256("new"));
    let (idp, published) = issuer(&[&old]).await;
    let config = format!("[jwt]\nrefresh_min = '1s'\n{}", config(&format!("{}{KEYS}", idp.url()), ""));
    let gateway = gateway::new().config(config).run().await;
    let [first, second] = [&old, &new].map(|key| key.sign(&claims("ann", &["viewer"])));
    assert_eq!(stats(&gateway, &first).await.status, 200);
    published.keys(&[&new]);
    eventually("the new key", || async { (stats(&gateway, &second).await.status == 200).then_some(()) }).await;
    let refused = stats(&gateway, &first).await;
    assert_eq!(refused.status, 401, "the old one is none any more");
    assert!(refused.text().contains("kid"), "{}", refused.text());
}

#[tokio::test]
async fn made_up_keys_ask_the_issuer_once() {
    let key = Key::p256("k");
    let (idp, _) = issuer(&[&key]).await;
    let config = config(&format!("{}{KEYS}", idp.url()), "");
    let gateway = gateway::new().config(format!("{TRIES}{config}")).run().await;
    assert_eq!(stats(&gateway, &key.sign(&claims("ann", &["viewer"]))).await.status, 200);
    let made_up: Vec<_> = (0..200).map(|number| key.named(&number.to_string()).sign(&claims("eve", &[]))).collect();
    let statuses = join_all(made_up.iter().map(|token| async { stats(&gateway, token).await.status })).await;
    assert_eq!(statuses, [401; 200]);
    // At the start, and again where half a minute has passed since.
    assert!(idp.requests(KEYS) <= 2, "{}", idp.requests(KEYS));
}

#[tokio::test]
async fn an_issuer_that_is_down() {
    let key = Key::ed25519("k");
    let (mut idp, published) = issuer(&[&key]).await;
    published.answer(reply("down").status(503));
    let config = format!("[jwt]\nrefresh_min = '1s'\n{}", config(&format!("{}{KEYS}", idp.url()), ""));
    let gateway = gateway::new().token("secret").config(format!("failures_rate = '1000/s'\n{config}")).run().await;
    let token = key.sign(&claims("ann", &["viewer"]));
    assert_eq!(stats(&gateway, &token).await.status, 503);
    assert_eq!(stats(&gateway, "secret").await.status, 200);
    let failures = "larder_jwt_keys_failures_total{issuer=\"staff\"}";
    let elsewhere = reply("").status(302).header("location", KEYS);
    for answer in [reply(" ".repeat(300 << 10)), reply("<html>"), reply(r#"{"keys":[]}"#), elsewhere] {
        published.answer(answer);
        // One may be under way that was asked before.
        let seen = gateway.metric(failures).await + 2.0;
        eventually("an attempt", || async { (gateway.metric(failures).await >= seen).then_some(()) }).await;
        assert_eq!(stats(&gateway, &token).await.status, 503);
    }
    published.keys(&[&key]);
    eventually("the keys", || async { (stats(&gateway, &token).await.status == 200).then_some(()) }).await;
    idp.stop().await;
    let before = gateway.metric(failures).await;
    assert!(before >= 1.0);
    // A key that is not known has it asked once more, in vain.
    let unknown = key.named("j").sign(&claims("ann", &["viewer"]));
    eventually("an attempt", || async {
        assert_eq!(stats(&gateway, &unknown).await.status, 401);
        (gateway.metric(failures).await > before).then_some(())
    })
    .await;
    assert_eq!(stats(&gateway, &key.sign(&claims("bob", &["viewer"]))).await.status, 200, "its keys are kept");
}

#[tokio::test]
async fn keys_come_over_tls_that_is_trusted() {
    let key = Key::rsa("k");
    let (idp, _) = issuer(&[&key]).await;
    let front = Front::before(idp.authority().parse().expect("an address")).await;
    let config = config(&front.url(KEYS), "");
    let token = key.sign(&claims("ann", &["viewer"]));
    let strange = gateway::new().config(&config).run().await;
    assert_eq!(stats(&strange, &token).await.status, 503, "nobody vouches for it");
    let careless = gateway::new().config(format!("[origin]\ntls_verify = false\n{config}")).run().await;
    assert_eq!(stats(&careless, &token).await.status, 503, "nor where origins are believed whatever they show");
    let trusted = format!("[origin]\ntls_ca_file = {:?}\n{config}", front.authority_file());
    assert_eq!(stats(&gateway::new().config(trusted).run().await, &token).await.status, 200);
}

#[tokio::test]
async fn keys_lie_in_a_file() {
    let key = Key::p256("k");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("staff.pem");
    let config = config(&file.display().to_string(), "");
    let refusal = gateway::new().config(&config).refuse().await;
    assert!(refusal.code != Some(0) && refusal.output.contains("staff.pem"), "{}", refusal.output);
    std::fs::write(&file, key.pem()).expect("written");
    let gateway = gateway::new().config(config).run().await;
    let token = key.sign(&claims("ann", &["viewer"]));
    assert_eq!(stats(&gateway, &token).await.status, 200);
    // What a reload would take over has to be good, also where no setting has changed.
    std::fs::write(&file, "nothing").expect("written");
    let chief = key.sign(&claims("ann", &["chief"]));
    let refused = reload(&gateway, &chief).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("staff.pem"), "{}", refused.text());
    assert_eq!(stats(&gateway, &token).await.status, 200, "nothing was taken over");
    std::fs::write(&file, Key::p256("other").pem()).expect("written");
    assert_eq!(reload(&gateway, &chief).await.status, 200);
    assert_eq!(stats(&gateway, &token).await.status, 401, "the file counts at once");
}

#[tokio::test]
async fn a_client_purges_with_one() {
    let key = Key::p256("k");
    let (idp, _) = issuer(&[&key]).await;
    let origin = origin::new().route("/a", "x").max_age(60).run().await;
    let config = format!("[cache]\npurge_method = true\n{}", config(&format!("{}{KEYS}", idp.url()), ""));
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    gateway.get("/a").await;
    let purge = async |roles: &[&str]| {
        let token = format!("Bearer {}", key.sign(&claims("ann", roles)));
        client::request("PURGE", gateway.url("/a")).header("authorization", &token).send().await.status
    };
    assert_eq!((purge(&["viewer"]).await, purge(&["deployer"]).await), (403, 200));
    gateway.get("/a").await.assert_forwarded("uri-miss");
    for result in [403, 200] {
        let line = gateway.access_line(|line| line["target"] == "larder::audit" && line["result"] == result).await;
        assert_eq!(line["who"], "staff/ann");
    }
}

async fn reload(gateway: &Gateway, token: &str) -> Response {
    call(gateway, "POST", "/reload", token).send().await
}

#[tokio::test]
async fn a_reload_brings_issuers_and_takes_them_away() {
    let key = Key::p256("k");
    let (idp, _) = issuer(&[&key]).await;
    let admin = "[admin]\ntoken = 'secret'\n";
    let gateway = gateway::new().token("secret").run().await;
    let token = key.sign(&claims("ann", &["viewer"]));
    assert_eq!(stats(&gateway, &token).await.status, 401);
    let issuer = config(&format!("{}{KEYS}", idp.url()), "");
    gateway.configure(&format!("{admin}{issuer}"));
    assert_eq!(reload(&gateway, "secret").await.status, 200);
    assert_eq!(stats(&gateway, &token).await.status, 200);
    // Other rules, the same keys: nobody is asked again.
    gateway.configure(&format!("{admin}{}", issuer.replace("viewer = 'read'", "viewer = 'operate'")));
    gateway.signal("HUP");
    eventually("the reload", || async { (purge(&gateway, &token).await.status == 200).then_some(()) }).await;
    assert_eq!(idp.requests(KEYS), 1);
    let missing = issuer.replace(&format!("{}{KEYS}", idp.url()), "/nowhere/keys.json");
    gateway.configure(&format!("{admin}{missing}"));
    let refused = reload(&gateway, "secret").await;
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("/nowhere/keys.json"), "{}", refused.text());
    assert_eq!(stats(&gateway, &token).await.status, 200, "nothing was taken over");
    gateway.configure(admin);
    assert_eq!(reload(&gateway, "secret").await.status, 200);
    assert_eq!(stats(&gateway, &token).await.status, 401);
}

/// Follows requests by a connection of its own.
async fn follow(gateway: &Gateway, token: &str) -> raw::Conn {
    let address = gateway.admin_base().trim_start_matches("http://").parse().expect("an address");
    let mut connection = raw::Conn::connect(address).await;
    let head = format!("GET /requests/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n");
    connection.write(format!("{head}connection: close\r\n\r\n")).await;
    let head = connection.head().await;
    assert_eq!(raw::status(&head), 200, "{head}");
    connection
}

async fn ended(mut following: raw::Conn) {
    let (events, _) = within("the end of a stream", following.rest()).await;
    let events = String::from_utf8(events).expect("text");
    assert!(events.contains("event: refused"), "{events}");
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let key = Key::p256("k");
    let (idp, _) = issuer(&[&key]).await;
    let admin = |token: &str| format!("[admin]\ntokens = [{{ name = 'a', token = '{token}', scope = 'operate' }}]\n");
    let issuer = config(&format!("{}{KEYS}", idp.url()), "leeway = '0s'");
    let gateway = gateway::new().config(format!("{}{issuer}", admin("one"))).run().await;
    let mut short = claims("ann", &["viewer"]);
    short["exp"] = json!(now() + 3);
    ended(follow(&gateway, &key.sign(&short)).await).await;
    let long = key.sign(&claims("ann", &["viewer"]));
    let (by_issuer, by_token) = (follow(&gateway, &long).await, follow(&gateway, "one").await);
    gateway.configure(&admin("two"));
    assert_eq!(reload(&gateway, "one").await.status, 200);
    tokio::join!(ended(by_issuer), ended(by_token));
    assert_eq!(stats(&gateway, "two").await.status, 200);
}

#[tokio::test]
async fn an_issuer_for_anybody_is_refused() {
    let config = jwt::config("https://login.example/keys", "").replace("['larder']", "[]");
    let refusal = gateway::new().config(config).refuse().await;
    assert_eq!(refusal.code, Some(64), "{}", refusal.output);
    assert!(refusal.output.contains("issuer[0].audiences"), "{}", refusal.output);
}
