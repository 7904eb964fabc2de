//! Tenants: who has a key is let in, the key goes no further, and nobody gets what another tenant's request has brought.

use base64::{Engine, prelude::BASE64_STANDARD};
use larder::tenants::Digest;
use serde_json::{Value, json};

use crate::{
    intercept::{list, reaching},
    support::{
        client::{self, Request, Response},
        command::larder,
        eventually,
        gateway::{self, Gateway},
        jwt::{self, KEYS, Key, claims, now},
        origin::{self, Origin, Reply, reply},
        raw,
        secure::{Front, handshake, tunnel_with},
    },
};

/// Alice's team is `search`, Bob's is `shop`; Mallory has found something that looks like a key.
const ALICE: &str = "lk-alice-0123456789abcdef";
const BOB: &str = "lk-bob-0123456789abcdef";
const MALLORY: &str = "lk-mallory-0123456789abcd";

fn tenants() -> String {
    let hash = Digest::of(BOB.as_bytes());
    format!(
        "[[tenant]]\nname = 'search'\nkeys = ['{ALICE}']\n\
         [[tenant]]\nname = 'shop'\nkey_hashes = ['{hash}']\n"
    )
}

/// One route for everything, which asks for tenants and shows the origin a key of its own.
fn config(origin: &Origin, more: &str) -> String {
    format!(
        "{}[[route]]\nname = 'all'\nupstream = '{}'\naccess.clients = 'tenants'\n\
         headers.request_set.Authorization = 'Bearer providers-own'\n{more}\n",
        tenants(),
        origin.url()
    )
}

async fn gateway(origin: &Origin, more: &str) -> Gateway {
    gateway::new().config(config(origin, more)).run().await
}

fn get(gateway: &Gateway, path: &str, key: &str) -> Request {
    client::get(gateway.url(path)).header("authorization", &format!("Bearer {key}"))
}

async fn origin_of(path: &str) -> Origin {
    origin::new().route(path, "hello").max_age(600).run().await
}

fn assert_refused(response: &Response, status: u16, detail: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(response.header("proxy-status"), Some("larder; error=http_request_denied"));
    assert_eq!(response.header("cache-status"), Some(&*format!("larder; detail={detail}")));
}

#[tokio::test]
async fn who_has_a_key_is_let_in_and_the_key_goes_no_further() {
    let origin = origin_of("/a").await;
    let gateway = gateway(&origin, "").await;
    let missing = gateway.get("/a").await;
    assert_refused(&missing, 401, "no-key");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"larder\""));
    let mut texts = Vec::new();
    for wrong in [MALLORY, "x", &ALICE[1..], &BOB[..BOB.len() - 1]] {
        let refused = get(&gateway, "/a", wrong).send().await;
        assert_refused(&refused, 401, "unknown-key");
        let challenge = refused.header("www-authenticate").expect("a challenge");
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
        texts.push(refused.text().to_owned());
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert_eq!(origin.requests("/a"), 0);

    get(&gateway, "/a", ALICE).send().await.assert_ok("hello").assert_forwarded("uri-miss");
    let seen = origin.last("/a");
    assert_eq!(seen.header("authorization"), Some("Bearer providers-own"));
    assert!(!format!("{seen:?}").contains(ALICE), "{seen:?}");
    let line = gateway.access_line(|line| line["tenant"] == "search").await;
    assert_eq!((&line["status"], &line["outcome"]), (&json!(200), &json!("miss")));
    let line = gateway.access_line(|line| line["detail"] == "unknown-key").await;
    assert_eq!((&line["status"], &line["route"], &line["outcome"]), (&json!(401), &json!("all"), &json!("error")));
}

#[tokio::test]
async fn hits_are_for_who_has_a_key_however_they_are_answered() {
    let origin = origin_of("/a").await;
    let gateway = gateway(&origin, "").await;
    get(&gateway, "/a", ALICE).send().await.assert_ok("hello");

    // The lane for plain requests.
    let mut connection = gateway.raw().await;
    let text = |field: &str| format!("GET /a HTTP/1.1\r\nhost: {}\r\n{field}\r\n", gateway.data());
    let answers = [
        (format!("authorization: Bearer {ALICE}\r\n"), 200, "larder; hit"),
        (format!("x-api-key: {ALICE}\r\n"), 200, "larder; hit"),
        (format!("LARDER-KEY: {ALICE}\r\n"), 200, "larder; hit"),
        (String::new(), 401, "larder; detail=no-key"),
        (format!("authorization: Bearer {MALLORY}\r\n"), 401, "larder; detail=unknown-key"),
        (format!("x-api-key: {ALICE}\r\nx-api-key: {ALICE}\r\n"), 401, "larder; detail=unknown-key"),
        (format!("authorization: Bearer {MALLORY}\r\nx-api-key: {ALICE}\r\n"), 401, "larder; detail=unknown-key"),
        (format!("authorization: Basic YQ==\r\nx-api-key: {ALICE}\r\n"), 200, "larder; hit"),
    ];
    for (field, status, verdict) in answers {
        connection.write(text(&field)).await;
        let (head, _) = connection.message().await;
        assert_eq!(raw::status(&head), status, "{field}: {head}");
        let told = raw::field(&head, "cache-status").expect("always");
        assert!(told.starts_with(verdict), "{field}: {told}");
    }
    assert_eq!(gateway.metric("larder_client_express_total").await, 4.0, "those with a key and nothing else");

    let mut h2 = client::connect_h2(gateway.data()).await;
    h2.send(get(&gateway, "/a", ALICE)).await.assert_ok("hello").assert_hit();
    assert_eq!(h2.send(get(&gateway, "/a", MALLORY)).await.status, 401);
    assert_eq!(h2.send(client::get(gateway.url("/a"))).await.status, 401);
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn tenants_never_meet() {
    let origin = origin::new().handler("/a", |_, nth| reply(format!("answer {}", nth + 1)).max_age(600)).run().await;
    let gateway = gateway(&origin, "").await;
    get(&gateway, "/a", ALICE).send().await.assert_ok("answer 1").assert_forwarded("uri-miss");
    get(&gateway, "/a", BOB).send().await.assert_ok("answer 2").assert_forwarded("uri-miss");
    get(&gateway, "/a", ALICE).send().await.assert_ok("answer 1").assert_hit();
    get(&gateway, "/a", BOB).send().await.assert_ok("answer 2").assert_hit();
    // A purge reaches what any of them has.
    gateway.purge_path("/a").await;
    get(&gateway, "/a", ALICE).send().await.assert_ok("answer 3");
    get(&gateway, "/a", BOB).send().await.assert_ok("answer 4");
    // And so does a change that one of them makes.
    let change = client::request("POST", gateway.url("/a")).header("authorization", &format!("Bearer {BOB}")).body("x");
    change.send().await.assert_ok("answer 5");
    get(&gateway, "/a", ALICE).send().await.assert_ok("answer 6");
    assert_eq!(
        gateway.metric("larder_tenant_requests_total{route=\"all\",tenant=\"search\",outcome=\"hit\"}").await,
        1.0
    );
    assert_eq!(
        gateway.metric("larder_tenant_requests_total{route=\"all\",tenant=\"shop\",outcome=\"miss\"}").await,
        2.0
    );
}

#[tokio::test]
async fn tenants_share_where_all_are_said_to_and_no_other_partition_brings_them_together() {
    for (partition, shared) in [("none", true), ("authorization", false), ("header:x-user", false), ("tenant", false)] {
        let origin = origin_of("/a").await;
        let gateway = gateway(&origin, &format!("cache.partition = '{partition}'")).await;
        get(&gateway, "/a", ALICE).send().await.assert_ok("hello").assert_forwarded("uri-miss");
        let other = get(&gateway, "/a", BOB).send().await;
        assert_eq!(other.cache().hit, shared, "{partition}");
        get(&gateway, "/a", ALICE).send().await.assert_ok("hello").assert_hit();
    }
}

#[tokio::test]
async fn what_is_for_one_client_is_not_stored_for_a_team() {
    let origin = origin::new().route("/a", "hello").cache_control("private, max-age=600").run().await;
    let gateway = gateway(&origin, "").await;
    for _ in 0..2 {
        get(&gateway, "/a", ALICE).send().await.assert_ok("hello");
    }
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn a_client_can_bring_the_origins_key_beside_its_own() {
    let origin = origin_of("/a").await;
    let route = format!("[[route]]\nname = 'all'\nupstream = '{}'\naccess.clients = 'tenants'\n", origin.url());
    let gateway = gateway::new().config(format!("{}{route}", tenants())).run().await;
    let both = |own: &str| get(&gateway, "/a", own).header("larder-key", ALICE);
    both("origins").send().await.assert_ok("hello");
    let seen = origin.last("/a");
    assert_eq!((seen.header("authorization"), seen.header("larder-key")), (Some("Bearer origins"), None));
    both("origins").send().await.assert_ok("hello");
    assert_eq!(origin.requests("/a"), 2, "it has Authorization still (RFC 9111 section 3.5)");
    // Who shows the one key twice shows it to the gateway.
    both(ALICE).send().await.assert_ok("hello");
    assert_eq!(origin.last("/a").header("authorization"), None);
    both(ALICE).send().await.assert_ok("hello").assert_hit();
}

#[tokio::test]
async fn what_was_presented_goes_on_where_it_is_said_to() {
    let origin = origin_of("/a").await;
    let more = "forward_credentials = true";
    let route =
        format!("[[route]]\nname = 'all'\nupstream = '{}'\n[route.access]\nclients = 'tenants'\n{more}", origin.url());
    let gateway = gateway::new().config(format!("{}{route}", tenants())).run().await;
    for _ in 0..2 {
        get(&gateway, "/a", ALICE).send().await.assert_ok("hello");
        assert_eq!(origin.last("/a").header("authorization"), Some(&*format!("Bearer {ALICE}")));
    }
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn a_route_that_asks_nobody_answers_all_and_passes_no_key_on() {
    let origin = origin::new().route("/a", "hello").max_age(600).route("/b", "there").run().await;
    let gateway = gateway::new().origin(&origin).config(tenants()).run().await;
    gateway.get("/a").await.assert_ok("hello");
    client::get(gateway.url("/a")).header("larder-key", MALLORY).send().await.assert_ok("hello").assert_hit();
    client::get(gateway.url("/b")).header("larder-key", ALICE).send().await.assert_ok("there");
    assert_eq!(origin.last("/b").header("larder-key"), None);
    assert!(gateway.output().contains("no route asks for a key"), "{}", gateway.output());
}

#[tokio::test]
async fn a_tenant_has_the_routes_that_are_its_own() {
    let origin = origin::new().route("/one/a", "one").route("/two/a", "two").run().await;
    let route = |name: &str| format!("[[route]]\nname = '{name}'\npath = '/{name}'\nupstream = '{}'\n", origin.url());
    let config = format!(
        "[access]\nclients = 'tenants'\n[[tenant]]\nname = 'search'\nkeys = ['{ALICE}']\nroutes = ['one']\n{}{}",
        route("one"),
        route("two")
    );
    let gateway = gateway::new().config(config).run().await;
    get(&gateway, "/one/a", ALICE).send().await.assert_ok("one");
    let refused = get(&gateway, "/two/a", ALICE).send().await;
    assert_refused(&refused, 403, "other-routes");
    assert!(refused.text().contains("tenant `search` may not use this route"), "{}", refused.text());
    assert_eq!(get(&gateway, "/openai/v1/models", ALICE).send().await.status, 403, "those that are built in, too");
    assert_eq!(gateway.metric("larder_access_denied_total{route=\"two\",reason=\"other-routes\"}").await, 1.0);
    assert_eq!(origin.requests("/two/a"), 0);
}

#[tokio::test]
async fn a_key_is_told_nowhere() {
    let origin = origin_of("/a").await;
    let gateway = gateway(&origin, "cache.key_headers = ['authorization', 'x-api-key']\n[log]\nlevel = 'trace'").await;
    get(&gateway, "/a", ALICE).send().await.assert_ok("hello");
    client::get(gateway.url("/a")).header("x-api-key", BOB).send().await.assert_ok("hello");
    get(&gateway, "/a", MALLORY).send().await;
    gateway.access_line(|line| line["status"] == 401).await;
    let headers = json!({ "authorization": format!("Bearer {ALICE}"), "x-api-key": BOB });
    let explained = gateway.admin("POST", "/explain").json(&json!({ "url": gateway.url("/a"), "headers": headers }));
    let mut told = vec![gateway.output(), explained.send().await.text().to_owned()];
    for path in ["/metrics", "/config", "/requests", "/stats", "/entries"] {
        told.push(gateway.admin("GET", path).send().await.text().to_owned());
    }
    gateway.configure(&config(&origin, "").replace(ALICE, "lk-alices-other-key-456"));
    told.push(gateway.admin("POST", "/reload?dry_run=true").send().await.text().to_owned());
    assert!(told[told.len() - 1].contains("tenant.search.keys"), "{}", told[told.len() - 1]);
    for key in [ALICE, BOB, MALLORY, "lk-alices-other-key-456"] {
        assert!(!told.iter().any(|text| text.contains(key)), "{key} in {told:#?}");
    }
}

#[tokio::test]
async fn a_reload_takes_keys_away_and_brings_others() {
    let origin = origin_of("/a").await;
    let gateway = gateway(&origin, "").await;
    let mut connection = client::connect(gateway.data()).await;
    connection.send(get(&gateway, "/a", ALICE)).await.assert_ok("hello");
    connection.send(get(&gateway, "/a", ALICE)).await.assert_ok("hello").assert_hit();
    gateway.configure(&config(&origin, "").replace(ALICE, "lk-alices-other-key-456"));
    let answer = gateway.admin("POST", "/reload").send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(connection.send(get(&gateway, "/a", ALICE)).await.status, 401);
    connection.send(get(&gateway, "/a", "lk-alices-other-key-456")).await.assert_ok("hello").assert_hit();
    connection.send(get(&gateway, "/a", BOB)).await.assert_ok("hello");
    assert_eq!(origin.requests("/a"), 2);
}

const CHAT: &str = "/v1/chat/completions";

fn chat(gateway: &Gateway, field: (&str, &str)) -> Request {
    let call = json!({ "model": "gpt-4o", "temperature": 0, "messages": [{ "role": "user", "content": "hi" }] });
    client::request("POST", gateway.url(CHAT)).json(&call).header(field.0, field.1)
}

fn completion(nth: usize) -> Reply {
    let usage = json!({ "prompt_tokens": 1000, "completion_tokens": 100 });
    let choice = json!({ "message": { "content": format!("answer {nth}") }, "finish_reason": "stop" });
    let answer = json!({ "id": "chatcmpl-1", "model": "gpt-4o", "choices": [choice], "usage": usage });
    reply(answer.to_string()).header("content-type", "application/json")
}

#[tokio::test]
async fn calls_to_models_are_told_apart_and_accounted_for_by_tenant() {
    let origin = origin::new().handler(CHAT, |_, nth| completion(nth + 1)).run().await;
    let gateway = gateway(&origin, "protocol = 'openai'").await;
    let (alice, bob) = (format!("Bearer {ALICE}"), format!("Bearer {BOB}"));
    for (field, answer, hit) in [
        (("authorization", &*alice), "answer 1", false),
        (("authorization", &*bob), "answer 2", false),
        (("authorization", &*alice), "answer 1", true),
        // Whichever field an SDK has for it.
        (("api-key", ALICE), "answer 1", true),
    ] {
        let response = chat(&gateway, field).send().await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(response.text().contains(answer), "{field:?}: {}", response.text());
        assert_eq!(response.cache().hit, hit, "{field:?}");
    }
    assert_eq!(origin.requests(CHAT), 2);
    assert!(origin.seen(CHAT).iter().all(|seen| seen.header("authorization") == Some("Bearer providers-own")));
    let tokens = |tenant: &str, account: &str| {
        let labels = format!("tenant=\"{tenant}\",route=\"all\",kind=\"input\",account=\"{account}\"");
        format!("larder_llm_tenant_tokens_total{{{labels}}}")
    };
    assert_eq!(gateway.metric(&tokens("search", "billed")).await, 1000.0);
    assert_eq!(gateway.metric(&tokens("search", "saved")).await, 2000.0);
    assert_eq!(gateway.metric(&tokens("shop", "billed")).await, 1000.0);
    let refused = chat(&gateway, ("authorization", "Bearer sk-of-mallory")).send().await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["error"]["message"], "the key is not known here", "where SDKs look for it");
}

#[tokio::test]
async fn answers_of_models_are_everybodys_where_they_are_said_to_be() {
    let origin = origin::new().handler(CHAT, |_, nth| completion(nth + 1)).run().await;
    let gateway = gateway(&origin, "protocol = 'openai'\nllm.scope = 'shared'").await;
    chat(&gateway, ("larder-key", ALICE)).send().await.assert_forwarded("uri-miss");
    chat(&gateway, ("larder-key", BOB)).send().await.assert_hit();
}

#[tokio::test]
async fn a_pack_is_for_tenants_that_share() {
    let origin = origin::new().handler(CHAT, |_, nth| completion(nth + 1)).run().await;
    let directory = tempfile::tempdir().expect("a directory");
    let pack = directory.path().join("calls.jsonl");
    let route = |mode: &str, more: &str| {
        let packed = format!("llm.mode = '{mode}'\nllm.pack = '{}'", pack.display());
        config(&origin, &format!("protocol = 'openai'\n{packed}\n{more}"))
    };
    for mode in ["record", "replay", "auto"] {
        let refused = gateway::new().config(route(mode, "cache.partition = 'none'")).refuse().await;
        assert!(refused.output.contains("llm.mode: a pack knows no tenants"), "{mode}: {}", refused.output);
    }
    // Who speaks for a tenant to the forward proxy does so on routes that ask nobody.
    let forward = "[forward]\nclients_auth = 'tenants'\n";
    let nobody = route("auto", "").replace("access.clients = 'tenants'\n", "");
    let refused = gateway::new().config(format!("{forward}{nobody}")).refuse().await;
    assert!(refused.output.contains("llm.mode: a pack knows no tenants"), "{}", refused.output);

    let gateway = gateway::new().config(route("auto", "llm.scope = 'shared'")).run().await;
    chat(&gateway, ("larder-key", ALICE)).send().await.assert_forwarded("uri-miss");
    let recorded = async || std::fs::read_to_string(&pack).ok().filter(|text| text.contains(CHAT));
    eventually("it is recorded", recorded).await;
    let answer = chat(&gateway, ("larder-key", BOB)).send().await;
    assert!(answer.header("cache-status").expect("always").contains("detail=pack"), "{answer:?}");
    assert_eq!(origin.requests(CHAT), 1);
}

#[tokio::test]
async fn a_purge_fetches_nothing_again_for_which_a_key_is_needed() {
    let origin = origin_of("/a").await;
    let gateway = gateway(&origin, "cache.partition = 'none'").await;
    get(&gateway, "/a", ALICE).send().await.assert_ok("hello");
    let receipt = gateway.purge(json!({ "urls": [gateway.url("/a")], "refresh": true })).await;
    assert_eq!(receipt["refresh"]["queued"], 0, "{receipt}");
    get(&gateway, "/a", BOB).send().await.assert_ok("hello").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn a_key_is_taken_off_wherever_it_is_looked_for() {
    let origin = origin_of("/a").await;
    let fields = "access.fields = ['authorization', 'larder-key', 'x-api-key']";
    let route =
        format!("[[route]]\nname = 'all'\nupstream = '{}'\naccess.clients = 'tenants'\n{fields}\n", origin.url());
    let gateway = gateway::new().config(format!("{}{route}", tenants())).run().await;
    get(&gateway, "/a", ALICE).header("larder-key", "x").send().await.assert_ok("hello");
    assert!(!format!("{:?}", origin.last("/a")).contains(ALICE), "{:?}", origin.last("/a"));
}

#[tokio::test]
async fn an_operator_explains_and_warms_as_a_tenant() {
    let origin = origin::new().route("/a", "a").max_age(600).route("/b", "b").max_age(600).run().await;
    let gateway = gateway(&origin, "").await;
    get(&gateway, "/a", ALICE).send().await.assert_ok("a");
    let explained = async |more: Value| {
        let mut call = json!({ "url": gateway.url("/a") });
        call.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        gateway.admin("POST", "/explain").json(&call).send().await.json()
    };
    let nobody = explained(json!({})).await;
    assert!(nobody["verdict"].as_str().expect("text").starts_with("refused: a key is needed here"), "{nobody}");
    for as_alice in [json!({ "tenant": "search" }), json!({ "headers": { "x-api-key": ALICE } })] {
        let explanation = explained(as_alice).await;
        assert_eq!(explanation["verdict"], "hit: a fresh response is stored in L1", "{explanation}");
        assert_eq!(explanation["tenant"], "search");
        assert!(
            explanation["key_parts"].to_string().contains(r#"{"name":"tenant","value":"search"}"#),
            "{explanation}"
        );
    }
    let as_bob = explained(json!({ "tenant": "shop" })).await;
    assert_eq!(as_bob["verdict"], "forwarded: nothing is stored under the key");
    let nobody = explained(json!({ "tenant": "serach" })).await;
    assert_eq!(nobody["verdict"], "refused: there is no tenant of that name");
    let url = gateway.url("/a");
    let shown = larder(["explain", &url, "--tenant", "search", "--admin", &gateway.admin_base()]).await;
    shown.assert(0, "tenant   search").assert(0, "hit: a fresh response");

    let warmed = async |tenant: Value| {
        let call = json!({ "urls": [gateway.url("/b")], "tenant": tenant });
        gateway.admin("POST", "/warm?wait=true").json(&call).send().await.json()
    };
    let job = warmed(Value::Null).await;
    assert!(job["errors"].to_string().contains("status 401"), "{job}");
    assert_eq!(warmed(json!("shop")).await["stored"], 1);
    get(&gateway, "/b", BOB).send().await.assert_ok("b").assert_hit();
    get(&gateway, "/b", ALICE).send().await.assert_ok("b").assert_forwarded("uri-miss");
}

#[tokio::test]
async fn requests_are_looked_at_by_tenant() {
    let origin = origin_of("/a").await;
    let gateway = gateway(&origin, "").await;
    get(&gateway, "/a", ALICE).send().await;
    get(&gateway, "/a", BOB).send().await;
    let of = async |tenant: &str| {
        let told = gateway.admin_json(&format!("/requests?tenant={tenant}")).await;
        told["requests"].as_array().expect("a list").clone()
    };
    eventually("both are told", || async { (!of("shop").await.is_empty()).then_some(()) }).await;
    let told = of("search").await;
    assert_eq!((told.len(), &told[0]["tenant"]), (1, &json!("search")));
    assert!(of("nobody").await.is_empty());
}

#[tokio::test]
async fn a_tunnel_is_not_for_who_has_no_key() {
    let origin = origin_of("/a").await;
    let gateway = gateway(&origin, "").await;
    let mut connection = gateway.raw().await;
    connection.write("GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(raw::status(&connection.head().await), 401);
    assert_eq!(origin.requests("/ws"), 0);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_without_a_word_of_a_key() {
    let tenant = |name: &str, more: &str| format!("[[tenant]]\nname = '{name}'\n{more}\n");
    let keys = |keys: &str| format!("keys = [{keys}]");
    let alice = tenant("search", &keys(&format!("'{ALICE}'")));
    let hash = Digest::of(ALICE.as_bytes());
    for (wrong, told) in [
        (tenant("a", &keys("'short'")), "larder.toml:3:8: tenant[0].keys[0]: a key has 16 bytes or more"),
        (tenant("a", &keys("'0123456789 abcdef'")), "tenant[0].keys[0]: a key has no blanks"),
        (tenant("a", ""), "tenant[0].keys: nobody could be this tenant"),
        (tenant("a/b", &keys(&format!("'{ALICE}'"))), "tenant[0].name: a name is 1 to 64 letters"),
        (tenant("other", &keys(&format!("'{ALICE}'"))), "tenant[0].name: a name is 1 to 64 letters"),
        (format!("{alice}{alice}"), "tenant[1].name: another tenant has this name"),
        (
            format!("{alice}{}", tenant("b", &keys(&format!("'{ALICE}'")))),
            "tenant[1].keys[0]: this key is listed before",
        ),
        (
            format!("{alice}{}", tenant("b", &format!("key_hashes = ['{hash}']"))),
            "tenant[1].key_hashes[0]: this key is",
        ),
        (tenant("a", "key_hashes = ['md5:x']"), "tenant[0].key_hashes[0]: a hash is \"sha256:\""),
        (tenant("a", "subjects = ['alice']"), "tenant[0].subjects[0]: a subject is"),
        (tenant("a", "kyes = ['x']"), "tenant[0].kyes: unknown key; did you mean `keys`?"),
        (tenant("a", &format!("{}\nroutes = ['defualt']", keys(&format!("'{ALICE}'")))), "did you mean \"default\"?"),
        (tenant("a", "keys = 1"), "tenant"),
        ("[access]\nclients = 'tenant'\n".to_owned(), "did you mean \"tenants\"?"),
        ("[access]\nissuers = ['staff']\n".to_owned(), "access.issuers[0]: there is no [[issuer]] \"staff\""),
        ("[access]\nfields = ['a b']\n".to_owned(), "access.fields[0]: \"a b\" is no name of a header field"),
        (
            format!(
                "{}{}",
                jwt::config("http://127.0.0.1:1/keys", ""),
                tenant("a", "subjects = ['staff/ann', 'stuff/*']")
            ),
            "tenant[0].subjects[1]: there is no [[issuer]] \"stuff\"; did you mean \"staff\"?",
        ),
        (format!("{alice}keys = [\n  '{ALICE}\n]\n"), "invalid"),
    ] {
        let refused = gateway::new().upstream("http://127.0.0.1:9").config(&wrong).refuse().await;
        assert_eq!(refused.code, Some(64), "{wrong}: {}", refused.output);
        assert!(refused.output.contains(told), "{wrong}: {}", refused.output);
        assert!(!refused.output.contains(ALICE), "{}", refused.output);
    }
}

#[tokio::test]
async fn the_command_makes_keys_that_are_let_in() {
    let made = larder(["key"]).await;
    let value = |name: &str| {
        let line = made.stdout.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a line").trim().to_owned()
    };
    let (key, hash) = (value("key"), value("hash"));
    let origin = origin_of("/a").await;
    let route = format!("[[route]]\nname = 'all'\nupstream = '{}'\n", origin.url());
    let tenant = format!("[[tenant]]\nname = 'search'\nkey_hashes = ['{hash}']\n");
    let gateway = gateway::new().config(format!("[access]\nclients = 'tenants'\n{tenant}{route}")).run().await;
    get(&gateway, "/a", &key).send().await.assert_ok("hello");
    assert_eq!(get(&gateway, "/a", &hash).send().await.status, 401, "a hash is no key");
}

#[tokio::test]
async fn tokens_of_an_issuer_name_tenants() {
    let (key, other) = (Key::p256("k"), Key::p256("k"));
    let (idp, _) = jwt::issuer(&[&key]).await;
    let origin = origin::new().handler("/a", |_, nth| reply(format!("answer {}", nth + 1)).max_age(600)).run().await;
    let issuer = jwt::config(&format!("{}{KEYS}", idp.url()), "leeway = '0s'");
    let subjects = "subjects = ['staff/ann', 'staff/ben']";
    let search = format!("[[tenant]]\nname = 'search'\nkeys = ['{ALICE}']\n{subjects}\n");
    let route = |name: &str, access: &str| {
        format!("[[route]]\nname = '{name}'\n{access}\nupstream = '{}'\naccess.clients = 'tenants'\n", origin.url())
    };
    let routes = [route("keys", "path = '/keys'"), route("all", "access.issuers = ['staff']")].concat();
    let config = format!("{issuer}\n{search}{routes}");
    let gateway = gateway::new().token("secret").config(format!("[access]\nnames_max = 1\n{config}")).run().await;
    let token = |name: &str| key.sign(&claims(name, &[]));
    let ann = token("ann");

    // Who asks what a tenant would get takes no place among those that metrics tell apart.
    for (name, known) in [("staff/zoe", Some("staff/zoe")), ("staff/ann", Some("search")), ("stuff/zoe", None)] {
        let call = json!({ "url": gateway.url("/a"), "tenant": name });
        let explanation = gateway.admin("POST", "/explain").json(&call).send().await.json();
        assert_eq!(explanation["tenant"].as_str(), known, "{explanation}");
    }

    get(&gateway, "/a", &ann).send().await.assert_ok("answer 1").assert_forwarded("uri-miss");
    assert!(!format!("{:?}", origin.last("/a")).contains(&ann));
    get(&gateway, "/a", &ann).send().await.assert_ok("answer 1").assert_hit();
    // A key and tokens of two people are all of the one tenant.
    get(&gateway, "/a", ALICE).send().await.assert_ok("answer 1").assert_hit();
    get(&gateway, "/a", &token("ben")).send().await.assert_ok("answer 1").assert_hit();
    // Others are tenants by themselves.
    get(&gateway, "/a", &token("carl")).send().await.assert_ok("answer 2").assert_forwarded("uri-miss");
    get(&gateway, "/a", &token("dora")).send().await.assert_ok("answer 3").assert_forwarded("uri-miss");
    gateway.access_line(|line| line["tenant"] == "staff/dora").await;
    let told =
        |tenant: &str| format!("larder_tenant_requests_total{{route=\"all\",tenant=\"{tenant}\",outcome=\"miss\"}}");
    assert_eq!(gateway.metric(&told("staff/carl")).await, 1.0);
    assert_eq!(gateway.metric(&told("other")).await, 1.0, "beyond names_max");
    assert!(gateway.metric("larder_client_express_total").await >= 1.0, "a token that is remembered is a key");

    let mut expired = claims("ann", &[]);
    expired["exp"] = json!(now() - 1);
    for (wrong, said) in [
        (key.sign(&expired), "expired"),
        (other.sign(&claims("ann", &[])), "signature"),
        (token(&"x".repeat(201)), "name in the token is too long"),
        ("a.b.c".to_owned(), "no JWT"),
    ] {
        let refused = get(&gateway, "/a", &wrong).send().await;
        assert_refused(&refused, 401, "refused-token");
        assert!(refused.text().contains(said), "{said}: {}", refused.text());
    }
    assert_refused(&get(&gateway, "/keys/a", &ann).send().await, 401, "unknown-key");
    assert!(!gateway.output().contains(&ann));
}

#[tokio::test]
async fn whether_a_token_is_right_may_be_unknown() {
    let key = Key::p256("k");
    let origin = origin_of("/a").await;
    let issuer = jwt::config("http://127.0.0.1:1/keys", "");
    let more = "access.issuers = ['staff']";
    let gateway = gateway::new().config(format!("{issuer}\n{}", config(&origin, more))).run().await;
    let refused = get(&gateway, "/a", &key.sign(&claims("ann", &[]))).send().await;
    assert_refused(&refused, 503, "issuer-unavailable");
    get(&gateway, "/a", ALICE).send().await.assert_ok("hello");
}

/// As clients of a proxy show a key: as the password in its URL.
fn basic(key: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("anyone:{key}")))
}

#[tokio::test]
async fn the_forward_proxy_is_for_who_has_a_key_where_it_asks() {
    let origin = origin::new().handler("/a", |_, nth| reply(format!("answer {}", nth + 1)).max_age(600)).run().await;
    let forward = "[forward]\ntargets_allowed = ['127.0.0.0/8']\nclients_auth = 'tenants'";
    let gateway = gateway::new().config(format!("{forward}\n{}", tenants())).run().await;
    let through = |key: Option<&str>| {
        let request = client::get(format!("{}/a", origin.url())).via(gateway.data());
        match key {
            None => request,
            Some(key) => request.header("proxy-authorization", &basic(key)),
        }
    };
    for (key, detail) in [(None, "no-key"), (Some(MALLORY), "unknown-key")] {
        let refused = through(key).send().await;
        assert_refused(&refused, 407, detail);
        assert!(!refused.text().contains("Authorization"), "{}", refused.text());
        assert_eq!(refused.header("proxy-authenticate"), Some("Basic realm=\"larder\""));
    }
    through(Some(ALICE)).send().await.assert_ok("answer 1").assert_forwarded("uri-miss");
    assert_eq!(origin.last("/a").header("proxy-authorization"), None);
    through(Some(ALICE)).send().await.assert_ok("answer 1").assert_hit();
    through(Some(BOB)).send().await.assert_ok("answer 2").assert_forwarded("uri-miss");
    gateway.access_line(|line| line["tenant"] == "shop" && line["route"] == "forward").await;
    let url = format!("{}/a", origin.url());
    let explained =
        gateway.admin("POST", "/explain").json(&json!({ "url": url, "tenant": "shop" })).send().await.json();
    assert_eq!(explained["verdict"], "hit: a fresh response is stored in L1", "{explained}");
}

#[tokio::test]
async fn what_is_said_in_a_tunnel_is_of_the_tenant_who_opened_it() {
    let origin = origin::new().handler("/a", |_, nth| reply(format!("answer {}", nth + 1)).max_age(600)).run().await;
    let api = origin::new().handler("/api/a", |_, nth| reply(format!("api {}", nth + 1)).max_age(600)).run().await;
    let front = Front::before(origin.authority().parse().expect("an address")).await;
    let route = format!(
        "[[route]]\nname = 'api'\nhost = 'localhost'\npath = '/api'\nupstream = '{}'\naccess.clients = 'tenants'\n",
        api.url()
    );
    let forward = reaching(&front).replace("[forward]\n", "[forward]\nclients_auth = 'tenants'\n");
    let config = format!("{forward}\n{}\n{}{route}", list(&front), tenants());
    let gateway = gateway::new().config(config).authority().run().await;
    let proxy_line = |key: &str| format!("proxy-authorization: {}\r\n", basic(key));
    for wrong in [String::new(), proxy_line(MALLORY)] {
        assert_eq!(tunnel_with(gateway.data(), &front.authority(), &wrong).await.err(), Some(407));
    }
    let connect = async |key: &str| {
        let tunnel = tunnel_with(gateway.data(), &front.authority(), &proxy_line(key)).await.expect("a tunnel");
        let tls = handshake(tunnel, &gateway.authority_file(), &["http/1.1"]).await.expect("a certificate");
        client::over(tls, false).await
    };
    let (mut alice, mut bob) = (connect(ALICE).await, connect(BOB).await);
    alice.send(client::get(front.url("/a"))).await.assert_ok("answer 1").assert_forwarded("uri-miss");
    alice.send(client::get(front.url("/a"))).await.assert_ok("answer 1").assert_hit();
    bob.send(client::get(front.url("/a"))).await.assert_ok("answer 2").assert_forwarded("uri-miss");
    // A route that asks knows whom the tunnel is of, and what comes in it is the origin's own affair.
    let own = |path: &str| client::get(front.url(path)).header("x-api-key", "the-origins");
    alice.send(own("/api/a")).await.assert_ok("api 1").assert_forwarded("uri-miss");
    assert_eq!(api.last("/api/a").header("x-api-key"), Some("the-origins"));
    alice.send(own("/api/a")).await.assert_ok("api 1").assert_hit();
    bob.send(own("/api/a")).await.assert_ok("api 2").assert_forwarded("uri-miss");
    let mut bare = connect(BOB).await;
    bare.send(client::get(front.url("/api/a")).header("authorization", &format!("Bearer {ALICE}")))
        .await
        .assert_ok("api 2");
}
