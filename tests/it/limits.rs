//! Limits: who is admitted, who is told to wait and for how long, and that neither Redis nor other clients are a
//! reason.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    limits_tokens::{CHAT, model_under, told},
    support::{
        client::{self, Response},
        eventually,
        gate::Gate,
        gateway::{self, Gateway},
        origin::{self, Origin, reply},
        outlive, raw, redis, within,
    },
};

/// `/a` to `/d`, which may be stored.
async fn pages() -> Origin {
    let page = |name: &str| reply(name.to_owned()).max_age(600);
    let origin = origin::new().route("/a", page("a")).route("/b", page("b"));
    origin.route("/c", page("c")).route("/d", page("d")).run().await
}

async fn limited(origin: &Origin, limits: &str) -> Gateway {
    gateway::new().origin(origin).config(limits).run().await
}

async fn get_as(gateway: &Gateway, path: &str, client: &str) -> Response {
    client::get(gateway.url(path)).header("x-client", client).send().await
}

/// Requests that `limit` said `result` to.
async fn counted(gateway: &Gateway, limit: &str, result: &str) -> f64 {
    let labels = format!("limit=\"{limit}\",route=\"default\",result=\"{result}\"");
    gateway.metric(&format!("larder_limit_requests_total{{{labels}}}")).await
}

async fn asked_of_redis(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("larder_limit_redis_total{{result=\"{result}\"}}")).await
}

#[track_caller]
fn assert_refused(response: &Response, limit: &str) {
    assert_eq!(response.status, 429, "{:?}", response.headers);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json();
    assert_eq!(problem["violated-policies"], json!([limit]), "{problem}");
}

/// A day is long enough for nothing to be made up for while this runs.
const THREE: &str = "[[limit]]\nname = \"three\"\nrate = \"3/day\"\n";

#[tokio::test]
async fn who_asks_too_much_is_told_how_long_to_wait() {
    let origin = pages().await;
    let gateway = limited(&origin, THREE).await;
    for left in [2, 1, 0] {
        let answer = gateway.get("/a").await;
        answer.assert_ok("a");
        assert_eq!(answer.header_lines("ratelimit-policy"), ["\"three\";q=3;w=86400"]);
        let [told] = answer.header_lines("ratelimit")[..] else { panic!("{:?}", answer.headers) };
        assert!(told.starts_with(&format!("\"three\";r={left};t=")), "{told}");
    }
    let refused = gateway.get("/a").await;
    assert_refused(&refused, "three");
    let wait: u64 = refused.header("retry-after").expect("so long").parse().expect("seconds");
    assert!((28_000..=28_800).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit"), Some(&format!("\"three\";r=0;t={wait}")[..]));
    assert_eq!(refused.header("proxy-status"), Some("larder; error=http_request_denied"));
    assert_eq!(refused.header("cache-status"), Some("larder; detail=limit"));
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error", "as SDKs of model providers look for it");
    assert_eq!((origin.requests("/a"), gateway.get("/b").await.status, origin.requests("/b")), (1, 429, 0));
    let line = gateway.access_line(|line| line["status"] == 429).await;
    assert_eq!((&line["outcome"], &line["detail"]), (&json!("limited"), &json!("limit")), "{line}");
    assert_eq!(counted(&gateway, "three", "admitted").await, 3.0);
    assert_eq!(counted(&gateway, "three", "refused").await, 2.0);
    let requests = "larder_requests_total{route=\"default\",outcome=\"limited\"}";
    assert_eq!(gateway.metric(requests).await, 2.0);
}

#[tokio::test]
async fn whichever_way_a_hit_goes_it_counts_once() {
    let origin = pages().await;
    let gateway = limited(&origin, &THREE.replace("3/day", "5/day")).await;
    gateway.get("/a").await.assert_ok("a");
    // The express lane, HTTP/2, and what both leave to the rest.
    let mut raw = gateway.raw().await;
    raw.write("GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (head, body) = raw.message().await;
    assert_eq!((raw::status(&head), &body[..]), (200, &b"a"[..]));
    assert_eq!(raw::field(&head, "ratelimit-policy"), Some("\"three\";q=5;w=86400"));
    assert!(raw::field(&head, "ratelimit").is_some_and(|told| told.starts_with("\"three\";r=3;t=")), "{head}");
    let mut h2 = client::connect_h2(gateway.data()).await;
    let told = h2.send(client::get(gateway.url("/a"))).await;
    assert!(told.assert_hit().header("ratelimit").is_some_and(|told| told.starts_with("\"three\";r=2;")));
    let with_range = client::get(gateway.url("/a")).header("range", "bytes=0-0").send().await;
    assert_eq!(with_range.status, 206);
    assert_eq!(client::request("POST", gateway.url("/a")).body("x").send().await.status, 200, "the last one");
    raw.write("GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (head, _) = raw.message().await;
    assert_eq!(raw::status(&head), 429);
    assert_eq!(h2.send(client::get(gateway.url("/a"))).await.status, 429);
    assert_eq!(counted(&gateway, "three", "admitted").await, 5.0);
    assert_eq!(counted(&gateway, "three", "refused").await, 2.0);
}

#[tokio::test]
async fn routes_count_for_themselves_or_together() {
    let origin = pages().await;
    let route = |name: &str| format!("[[route]]\nname = '{name}'\npath = '/{name}'\nupstream = '{}'\n", origin.url());
    let config = format!(
        "{}{}{}{}",
        route("a"),
        route("b"),
        route("c"),
        "[[limit]]\nname = 'each'\nrate = '2/day'\nroutes = ['a', 'b']\n\
         [[limit]]\nname = 'together'\nper = 'address'\nrate = '3/day'\nroutes = ['a', 'b']\n"
    );
    let gateway = gateway::new().config(config).run().await;
    assert_eq!([gateway.get("/a").await.status, gateway.get("/a").await.status], [200, 200]);
    assert_refused(&gateway.get("/a").await, "each");
    gateway.get("/b").await.assert_ok("b");
    assert_refused(&gateway.get("/b").await, "together");
    let free = gateway.get("/c").await;
    assert_eq!((free.status, free.header("ratelimit"), free.header("ratelimit-policy")), (200, None, None));
}

#[tokio::test]
async fn clients_count_for_themselves_also_behind_a_trusted_proxy() {
    let origin = pages().await;
    let limit = "[headers]\ntrusted = ['127.0.0.0/8', '10.0.0.0/8']\n\
                 [[limit]]\nname = 'clients'\nper = 'address'\nrate = '2/day'\nexempt = ['192.0.2.99/32']\n";
    let gateway = limited(&origin, limit).await;
    let get = |told: &'static str| client::get(gateway.url("/a")).header("x-forwarded-for", told).send();
    for ann in ["192.0.2.1", "203.0.113.5, 192.0.2.1, 10.0.0.7"] {
        get(ann).await.assert_ok("a");
    }
    assert_refused(&get("203.0.113.6, 192.0.2.1").await, "clients");
    for bob in ["2001:db8::1", "[2001:db8::2]:443"] {
        get(bob).await.assert_ok("a");
    }
    assert_refused(&get("2001:db8::3").await, "clients");
    get("2001:db8:0:1::1").await.assert_ok("a");
    for _ in 0..4 {
        get("192.0.2.99").await.assert_ok("a");
    }
}

#[tokio::test]
async fn what_a_client_tells_of_itself_is_not_believed() {
    let origin = pages().await;
    let gateway = limited(&origin, "[[limit]]\nname = 'clients'\nper = 'address'\nrate = '1/day'\n").await;
    gateway.get("/a").await.assert_ok("a");
    let elsewhere = client::get(gateway.url("/a")).header("x-forwarded-for", "192.0.2.1").send().await;
    assert_refused(&elsewhere, "clients");
}

#[tokio::test]
async fn only_what_goes_to_the_origin_counts_where_that_is_asked_for() {
    let origin = pages().await;
    let limit = "[[limit]]\nname = 'origin'\ncount = 'origin'\nper = 'field:x-client'\nrate = '2/day'\n";
    let gateway = limited(&origin, limit).await;
    let first = get_as(&gateway, "/a", "ann").await;
    assert!(first.header("ratelimit").is_some_and(|told| told.starts_with("\"origin\";r=1;")), "{:?}", first.headers);
    for _ in 0..5 {
        let hit = get_as(&gateway, "/a", "ann").await;
        assert_eq!(hit.assert_hit().header("ratelimit"), None, "it was not asked");
    }
    get_as(&gateway, "/b", "ann").await.assert_ok("b");
    assert_refused(&get_as(&gateway, "/c", "ann").await, "origin");
    assert_refused(&client::request("POST", gateway.url("/c")).header("x-client", "ann").send().await, "origin");
    assert_eq!(client::request("HEAD", gateway.url("/d")).header("x-client", "ann").send().await.status, 429);
    assert_eq!((origin.requests("/c"), origin.requests("/d")), (0, 0));
    get_as(&gateway, "/a", "ann").await.assert_hit();
    get_as(&gateway, "/c", "bob").await.assert_ok("c");
    get_as(&gateway, "/c", "ann").await.assert_hit();
}

#[tokio::test]
async fn who_waits_for_the_answer_to_another_pays_nothing() {
    let gate = Gate::new();
    let origin = origin::new()
        .route("/slow", reply("slow").max_age(600).hold(&gate))
        .route("/b", reply("b").max_age(600))
        .run()
        .await;
    let limit = "[[limit]]\nname = 'origin'\ncount = 'origin'\nper = 'field:x-client'\nrate = '1/day'\n";
    let gateway = limited(&origin, limit).await;
    let bob = async {
        gate.arrived(1).await;
        let waiting = join_all((0..3).map(|_| get_as(&gateway, "/slow", "bob")));
        let opening = async {
            gateway.followers(3).await;
            gate.open();
        };
        tokio::join!(waiting, opening).0
    };
    let (ann, bob) = tokio::join!(get_as(&gateway, "/slow", "ann"), bob);
    ann.assert_ok("slow");
    for answer in &bob {
        answer.assert_ok("slow");
    }
    assert_eq!(origin.requests("/slow"), 1);
    get_as(&gateway, "/b", "bob").await.assert_ok("b");
    assert_refused(&get_as(&gateway, "/d", "ann").await, "origin");
}

#[tokio::test]
async fn a_stale_answer_stands_in_for_who_may_not_ask_the_origin() {
    let origin = origin::new()
        .route("/old", reply("old").cache_control("max-age=0, stale-if-error=600").header("etag", "\"1\""))
        .run()
        .await;
    let gateway = limited(&origin, "[[limit]]\nname = 'origin'\ncount = 'origin'\nrate = '1/day'\n").await;
    gateway.get("/old").await.assert_ok("old");
    let stale = gateway.get("/old").await;
    stale.assert_ok("old");
    assert_eq!((stale.cache().fwd.as_deref(), stale.cache().detail.as_deref()), (Some("stale"), Some("L1")));
    assert_eq!(origin.requests("/old"), 1);
}

#[tokio::test]
async fn nothing_is_refused_while_a_limit_is_tried_out() {
    let origin = pages().await;
    let gateway = limited(&origin, &format!("{THREE}enforce = false\n")).await;
    for _ in 0..5 {
        let answer = gateway.get("/a").await;
        assert_eq!((answer.status, answer.header("ratelimit"), answer.header("ratelimit-policy")), (200, None, None));
    }
    assert_eq!(counted(&gateway, "three", "admitted").await, 3.0);
    assert_eq!(counted(&gateway, "three", "would_refuse").await, 2.0);
}

#[tokio::test]
async fn a_refusal_of_one_limit_costs_no_other() {
    let origin = pages().await;
    let limits = format!("{THREE}[[limit]]\nname = 'clients'\nper = 'field:x-client'\nrate = '1/day'\n");
    let gateway = limited(&origin, &limits).await;
    get_as(&gateway, "/a", "ann").await.assert_ok("a");
    for _ in 0..5 {
        assert_refused(&get_as(&gateway, "/a", "ann").await, "clients");
    }
    get_as(&gateway, "/a", "bob").await.assert_ok("a");
    get_as(&gateway, "/a", "cyd").await.assert_ok("a");
    assert_refused(&get_as(&gateway, "/a", "dan").await, "three");
}

#[tokio::test]
async fn what_the_origin_says_of_its_limits_stays() {
    let page =
        reply("a").max_age(600).header("ratelimit", "\"theirs\";r=5;t=9").header("ratelimit-policy", "\"theirs\";q=9");
    let origin = origin::new().route("/a", page).run().await;
    let gateway = limited(&origin, THREE).await;
    for left in [2, 1] {
        let answer = gateway.get("/a").await;
        let lines = answer.header_lines("ratelimit");
        assert_eq!((lines.len(), lines[0]), (2, "\"theirs\";r=5;t=9"), "{lines:?}");
        assert!(lines[1].starts_with(&format!("\"three\";r={left};")), "{lines:?}");
        assert_eq!(answer.header_lines("ratelimit-policy").len(), 2);
    }
    let quiet = limited(&origin, &format!("[limits]\nfields = false\n{THREE}")).await;
    assert_eq!(quiet.get("/a").await.header_lines("ratelimit").len(), 1);
}

#[tokio::test]
async fn a_reload_keeps_the_count_of_a_limit_that_stays() {
    let origin = pages().await;
    let route = format!("[[route]]\nname = 'all'\nupstream = '{}'\n", origin.url());
    let other = "[[limit]]\nname = 'other'\nrate = '100/s'\n";
    let gateway = gateway::new().config(format!("{route}{THREE}")).run().await;
    for _ in 0..3 {
        gateway.get("/a").await.assert_ok("a");
    }
    let reload = async |config: String| {
        gateway.configure(&config);
        let answer = gateway.admin("POST", "/reload").send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    reload(format!("{route}{other}{THREE}")).await;
    assert_refused(&gateway.get("/a").await, "three");
    reload(format!("{route}{other}{}", THREE.replace("3/day", "4/day"))).await;
    gateway.get("/a").await.assert_ok("a").assert_hit();
    reload(route).await;
    assert_eq!(gateway.get("/a").await.header("ratelimit-policy"), None);
}

#[tokio::test]
async fn a_reload_that_is_refused_leaves_limits_as_they_are() {
    let origin = pages().await;
    let route = format!("[[route]]\nname = 'all'\nupstream = '{}'\n", origin.url());
    let gateway = gateway::new().config(format!("{route}{THREE}")).run().await;
    for _ in 0..3 {
        gateway.get("/a").await.assert_ok("a");
    }
    let reload = async |config: String| {
        gateway.configure(&config);
        gateway.admin("POST", "/reload").send().await.status
    };
    let broken = "[[route]]\nname = 'broken'\nhost = 'x.example'\nupstream = 'https://127.0.0.1:9'\n\
                  origin.tls_ca_file = '/nowhere/ca.pem'\n";
    assert_eq!(reload(format!("{broken}{route}{}", THREE.replace("3/day", "4/day"))).await, 422);
    let other = "[[limit]]\nname = 'other'\nrate = '100/s'\n";
    assert_eq!(reload(format!("{route}{other}{THREE}")).await, 200);
    assert_refused(&gateway.get("/a").await, "three");
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_at_start() {
    let limits = "[[limit]]\nname = 'one'\nrate = '1/week'\n\
                  [[limit]]\nname = 'two'\nrate = '1/s'\nroutes = ['shp']\nover = 'redis'\nbatch = 7\nexemt = []\n\
                  [[route]]\nname = 'shop'\nupstream = 'http://127.0.0.1:9'\n";
    let refused = gateway::new().config(limits).refuse().await;
    for said in ["100/min", "exempt"] {
        assert!(refused.output.contains(said), "{said}: {}", refused.output);
    }
    let limits = limits.replace("1/week", "1/s").replace("exemt = []\n", "");
    let refused = gateway::new().config(limits).refuse().await;
    for said in ["larder.toml:7", "\"shop\"", "l2.url", "the burst, 1"] {
        assert!(refused.output.contains(said), "{said}: {}", refused.output);
    }
}

/// Gateways of one deployment.
struct Fleet {
    secret: TempDir,
    config: String,
}

impl Fleet {
    fn over(urls: &[String], limits: &str) -> Self {
        let secret = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(secret.path().join("secret"), [7; 32]).expect("a temporary directory");
        let file = secret.path().join("secret");
        // A machine that is busy with other scenarios may be slow, and that is not what these are about.
        let l2 = format!("[l2]\nurl = {urls:?}\nread_timeout = '5s'\n[cache]\nl2 = 'off'\n");
        let config = format!("secret_file = {file:?}\n{l2}[limits]\nredis_timeout = '5s'\n{limits}");
        Self { secret, config }
    }

    async fn node(&self, origin: &Origin) -> Gateway {
        assert!(self.secret.path().exists());
        let node = limited(origin, &self.config).await;
        let up = || async { (node.admin_json("/stats").await["l2"]["up"] == true).then_some(()) };
        eventually("Redis", up).await;
        node
    }
}

const SHARED: &str = "[[limit]]\nname = 'shared'\nper = 'field:x-client'\nrate = '4/day'\nover = 'redis'\n";

#[tokio::test]
async fn two_gateways_keep_one_limit_over_redis() {
    let (origin, redis) = (pages().await, redis::server().run().await);
    let fleet = Fleet::over(&[redis.url()], SHARED);
    let [one, two] = [fleet.node(&origin).await, fleet.node(&origin).await];
    for (node, left) in [(&one, 3), (&two, 2), (&one, 1), (&two, 0)] {
        let answer = get_as(node, "/a", "ann").await;
        assert!(
            answer.assert_ok("a").header("ratelimit").is_some_and(|told| told.contains(&format!(";r={left};"))),
            "{:?}",
            answer.headers
        );
    }
    for node in [&one, &two] {
        assert_refused(&get_as(node, "/a", "ann").await, "shared");
    }
    let asked = asked_of_redis(&one, "denied").await;
    for _ in 0..5 {
        assert_refused(&get_as(&one, "/a", "ann").await, "shared");
    }
    assert_eq!(asked_of_redis(&one, "denied").await, asked, "it is known that there is nothing");
    assert_eq!(asked_of_redis(&one, "remembered").await, 5.0);
    get_as(&one, "/a", "bob").await.assert_ok("a");
    let names = redis.cli(&["keys", "larder:limit*"]);
    assert_eq!(names.lines().count(), 2, "one for each client: {names}");
    assert!(!names.contains("ann") && !names.contains("bob"));
    let lasts: u64 = redis.cli(&["ttl", names.lines().next().expect("a name")]).trim().parse().expect("seconds");
    assert!((1..=86_401).contains(&lasts), "{lasts}");
}

#[tokio::test]
async fn a_batch_is_taken_at_once_and_hits_need_no_redis() {
    let (origin, redis) = (pages().await, redis::server().run().await);
    let fleet = Fleet::over(&[redis.url()], &format!("{SHARED}batch = 3\n"));
    let node = fleet.node(&origin).await;
    // What is at hand lapses after a second: on a machine that is busy, one or the other client comes too late for it.
    let mut nth = 0;
    eventually("a request without a call to Redis", || {
        nth += 1;
        let (client, node) = (format!("client-{nth}"), &node);
        async move {
            for _ in 0..2 {
                get_as(node, "/a", &client).await.assert_ok("a");
            }
            (asked_of_redis(node, "remembered").await >= 1.0).then_some(())
        }
    })
    .await;
    // How many are left is what Redis has left and what is at hand.
    let mut admitted = 0;
    while get_as(&node, "/a", "ann").await.status == 200 {
        admitted += 1;
    }
    assert!((2..=4).contains(&admitted), "{admitted}");
}

#[tokio::test]
async fn without_redis_each_gateway_counts_for_itself_and_nobody_notices() {
    let (origin, redis) = (pages().await, redis::server().run().await);
    let open = SHARED.replace("shared", "open").replace("x-client", "x-other").replace("4/day", "1/day");
    let fleet = Fleet::over(&[redis.url()], &format!("{SHARED}{open}fallback = 'open'\n"));
    let node = fleet.node(&origin).await;
    get_as(&node, "/a", "ann").await.assert_ok("a");
    redis.kill9();
    eventually("the loss of Redis", || async { (node.admin_json("/stats").await["l2"]["up"] == false).then_some(()) })
        .await;
    for _ in 0..4 {
        get_as(&node, "/a", "ann").await.assert_ok("a");
    }
    assert_refused(&get_as(&node, "/a", "ann").await, "shared");
    assert_eq!(asked_of_redis(&node, "local").await, 5.0);
    assert_eq!(asked_of_redis(&node, "open").await, 4.0);
    get_as(&node, "/b", "bob").await.assert_ok("b");
}

#[tokio::test]
async fn a_redis_that_hangs_holds_nobody_up_for_long() {
    let (origin, redis) = (pages().await, redis::server().run().await);
    let mut fleet = Fleet::over(&[redis.url()], SHARED);
    fleet.config = fleet.config.replace("redis_timeout = '5s'", "redis_timeout = '50ms'");
    let node = fleet.node(&origin).await;
    get_as(&node, "/a", "ann").await.assert_ok("a");
    redis.pause();
    for _ in 0..4 {
        get_as(&node, "/a", "bob").await.assert_ok("a");
    }
    assert_refused(&get_as(&node, "/a", "bob").await, "shared");
    redis.resume();
    eventually("Redis that counts again", || async {
        get_as(&node, "/a", "cyd").await;
        (asked_of_redis(&node, "granted").await >= 2.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_is_refused_harms_nobody_who_waits_for_him() {
    let (origin, redis) = (pages().await, redis::server().run().await);
    let limit = SHARED.replace("4/day", "1/day") + "count = 'origin'\n";
    let fleet = Fleet::over(&[redis.url()], &limit);
    let mut fleet = fleet;
    // A Redis that is paused for a moment is no reason to do without it.
    fleet.config =
        fleet.config.replace("[l2]\n", "[fleet]\nlease = '60s'\nack_timeout = '2m'\n[l2]\nbreaker_failures = 1000\n");
    let [one, two] = [fleet.node(&origin).await, fleet.node(&origin).await];
    get_as(&two, "/a", "ann").await.assert_ok("a");
    redis.pause();
    let bob = async {
        eventually("a fill", || async { (one.metric("larder_fills_running").await >= 1.0).then_some(()) }).await;
        let opening = async {
            one.followers(1).await;
            redis.resume();
        };
        tokio::join!(get_as(&one, "/b", "bob"), opening).0
    };
    let (ann, bob) = tokio::join!(get_as(&one, "/b", "ann"), bob);
    assert_refused(&ann, "shared");
    bob.assert_ok("b");
    assert_eq!(origin.requests("/b"), 1);
}

#[tokio::test]
async fn a_limit_over_redis_is_asked_after_those_of_the_node() {
    let (origin, redis) = (pages().await, redis::server().run().await);
    let origin_of = |limit: &str| format!("{limit}count = 'origin'\n");
    let mine = "[[limit]]\nname = 'mine'\nrate = '1/day'\n";
    let fleet = Fleet::over(&[redis.url()], &(origin_of(SHARED) + &origin_of(mine)));
    let one = fleet.node(&origin).await;
    get_as(&one, "/a", "ann").await.assert_ok("a");
    assert_refused(&get_as(&one, "/b", "ann").await, "mine");
    assert_refused(&get_as(&one, "/b", "bob").await, "mine");
    assert_eq!(asked_of_redis(&one, "granted").await, 1.0, "what one refuses costs the others nothing");
}

#[tokio::test]
async fn over_a_cluster_as_well() {
    let (origin, cluster) = (pages().await, redis::cluster().run().await);
    let fleet = Fleet::over(&cluster.urls(), &SHARED.replace("4/day", "2/day"));
    let [one, two] = [fleet.node(&origin).await, fleet.node(&origin).await];
    for client in ["ann", "bob", "cyd", "dan"] {
        get_as(&one, "/a", client).await.assert_ok("a");
        get_as(&two, "/a", client).await.assert_ok("a");
        assert_refused(&get_as(&one, "/a", client).await, "shared");
    }
    assert_eq!(asked_of_redis(&one, "local").await + asked_of_redis(&two, "local").await, 0.0);
}

#[tokio::test]
async fn a_call_to_a_model_is_refused_as_its_sdk_expects() {
    let origin = origin::new().route(CHAT, told()).run().await;
    let gateway = model_under(&origin, "", "name = 'calls'\ncount = 'origin'\nrate = '1/day'\n").await;
    let ask = |question: &str| {
        let body =
            json!({ "model": "gpt-4o", "temperature": 0, "messages": [{ "role": "user", "content": question }] });
        let request = client::request("POST", gateway.url(CHAT)).header("authorization", "Bearer sk-1");
        request.header("content-type", "application/json").body(body.to_string()).send()
    };
    assert_eq!(ask("one").await.status, 200);
    assert_eq!(ask("one").await.assert_hit().status, 200);
    let refused = ask("two").await;
    assert_refused(&refused, "calls");
    assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(origin.requests(CHAT), 1);
}

#[tokio::test]
async fn who_is_in_debt_for_tokens_waits_and_hits_go_on() {
    let origin = origin::new().route(CHAT, told()).run().await;
    let gateway = model_under(&origin, "", "name = 'tokens'\ncount = 'tokens'\nrate = '2000/day'\n").await;
    let ask = |key: &str, question: &str, temperature: u8| {
        let messages = json!([{ "role": "user", "content": question }]);
        let body = json!({ "model": "gpt-4o", "temperature": temperature, "messages": messages });
        let request = client::request("POST", gateway.url(CHAT)).header("authorization", &format!("Bearer {key}"));
        request.header("content-type", "application/json").body(body.to_string()).send()
    };
    let first = ask("ann", "one", 0).await;
    assert_eq!(first.header("ratelimit-policy"), Some("\"tokens\";q=2000;w=86400"));
    assert_eq!(first.header("ratelimit"), Some("\"tokens\";r=2000;t=0"), "what it costs is known afterwards");
    assert_eq!(ask("ann", "one", 0).await.assert_hit().status, 200, "it costs nothing");
    // One that is not stored counts as well.
    assert_eq!(ask("ann", "two", 1).await.status, 200);
    assert_refused(&ask("ann", "three", 0).await, "tokens");
    assert_eq!(ask("ann", "one", 0).await.assert_hit().status, 200);
    assert_eq!(ask("bob", "three", 0).await.status, 200);
    assert_eq!(origin.requests(CHAT), 3);
}

const TOKEN: &str = "a-token-of-this-gateway-of-some-length";

#[tokio::test]
async fn tokens_of_the_admin_plane_cannot_be_tried_out() {
    let gateway = gateway::new().config(format!("[admin]\ntoken = '{TOKEN}'\nfailures_rate = '5/day'\n")).run().await;
    let call = |token: &str| {
        let request = client::request("GET", gateway.admin_url("/stats"));
        request.header("authorization", &format!("Bearer {token}")).send()
    };
    assert_eq!(call(TOKEN).await.status, 200);
    for guess in ["a", "b", "c", "d", "e"] {
        assert_eq!(call(guess).await.status, 401);
    }
    for token in ["f", TOKEN] {
        let refused = call(token).await;
        assert_eq!((refused.status, refused.header("content-type")), (429, Some("application/problem+json")));
        assert!(refused.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok()));
    }
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(client::get(gateway.admin_url(probe)).send().await.status, 200);
    }
    let purge = client::request("PURGE", gateway.url("/a")).header("authorization", &format!("Bearer {TOKEN}"));
    assert_ne!(purge.send().await.status, 200, "nor on the other listener, where it is a purge");
}

#[tokio::test]
async fn no_path_of_the_admin_plane_tells_whether_a_token_is_right() {
    let config = format!("[admin]\ntoken = '{TOKEN}'\nrate = '3/day'\nfailures_rate = '5/day'\n");
    let gateway = gateway::new().config(config).run().await;
    let call = async |method: &str, path: &str, token: &str| {
        let request = client::request(method, gateway.admin_url(path));
        request.header("authorization", &format!("Bearer {token}")).send().await.status
    };
    for _ in 0..3 {
        assert_eq!(client::get(gateway.admin_url("/docs")).send().await.status, 200);
    }
    for open in ["/", "/docs", "/openapi.json", "/console"] {
        assert_eq!((call("GET", open, "a").await, call("GET", open, TOKEN).await), (429, 429), "{open}");
    }
    assert_eq!(call("GET", "/stats", TOKEN).await, 200, "nothing was a try so far");
    for (method, path) in
        [("GET", "/nowhere"), ("DELETE", "/stats"), ("PURGE", "/healthz"), ("PURGE", "/docs"), ("GET", "/metrics")]
    {
        assert_ne!(call(method, path, "a").await, 200, "{method} {path}");
    }
    for (method, path) in [("GET", "/stats"), ("GET", "/nowhere"), ("PURGE", "/healthz"), ("PURGE", "/docs")] {
        assert_eq!(call(method, path, TOKEN).await, 429, "{method} {path}");
    }
}

#[tokio::test]
async fn who_tries_tokens_behind_a_trusted_proxy_keeps_nobody_else_from_purging() {
    let origin = pages().await;
    let config = format!(
        "[admin]\ntoken = '{TOKEN}'\nfailures_rate = '2/day'\n[cache]\npurge_method = true\n\
         [headers]\ntrusted = ['127.0.0.0/8']\n"
    );
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    let purge = async |client: &str, token: &str| {
        let request = client::request("PURGE", gateway.url("/a")).header("x-forwarded-for", client);
        request.header("authorization", &format!("Bearer {token}")).send().await.status
    };
    for status in [401, 401, 429] {
        assert_eq!(purge("203.0.113.1", "wrong").await, status);
    }
    assert_eq!((purge("203.0.113.1", TOKEN).await, purge("203.0.113.2", TOKEN).await), (429, 200));
}

#[tokio::test]
async fn callers_of_the_admin_plane_are_limited_and_probes_are_not() {
    let gateway = gateway::new().config("[admin]\nrate = '5/day'\n").run().await;
    for _ in 0..5 {
        assert_eq!(client::get(gateway.admin_url("/stats")).send().await.status, 200);
    }
    assert_eq!(client::get(gateway.admin_url("/stats")).send().await.status, 429);
    for free in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(client::get(gateway.admin_url(free)).send().await.status, 200, "{free}");
    }
}

#[tokio::test]
async fn connections_of_the_admin_plane_are_bounded() {
    let gateway = gateway::new().config("[admin]\nconnections_max = 1\n").run().await;
    let address = gateway.admin_base().trim_start_matches("http://").trim_end_matches('/').parse().expect("an address");
    let ask = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut first = raw::Conn::connect(address).await;
    first.write(ask).await;
    assert_eq!(raw::status(&first.message().await.0), 200);
    let mut second = raw::Conn::connect(address).await;
    second.write(ask).await;
    let waiting = second.head();
    tokio::pin!(waiting);
    for _ in 0..20 {
        first.write(ask).await;
        assert_eq!(raw::status(&first.message().await.0), 200);
        tokio::task::yield_now().await;
    }
    assert!(futures_util::poll!(&mut waiting).is_pending(), "there is no place for it");
    drop(first);
    assert_eq!(raw::status(&waiting.await), 200);
}

#[tokio::test]
async fn who_says_nothing_keeps_no_place_on_the_admin_plane() {
    let gateway = gateway::new().config("[admin]\nconnections_max = 1\nidle_timeout = '100ms'\n").run().await;
    let address = gateway.admin_base().trim_start_matches("http://").trim_end_matches('/').parse().expect("an address");
    let ask = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut called = raw::Conn::connect(address).await;
    called.write(ask).await;
    assert_eq!(raw::status(&called.message().await.0), 200);
    let mut others = vec![called];
    for said in ["", "GET /healthz HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut silent = raw::Conn::connect(address).await;
        silent.write(said).await;
        others.push(silent);
    }
    let mut last = raw::Conn::connect(address).await;
    last.write(ask).await;
    assert_eq!(raw::status(&within("a place", last.head()).await), 200);
}

#[tokio::test]
async fn a_call_that_takes_long_keeps_its_place_on_the_admin_plane() {
    let gate = Gate::new();
    let origin = origin::new().route("/slow", reply("slow").hold(&gate)).run().await;
    let gateway = gateway::new().origin(&origin).config("[admin]\nidle_timeout = '100ms'\n").run().await;
    let warming = gateway.admin("POST", "/warm?wait=true").json(&json!({ "urls": [gateway.url("/slow")] })).send();
    let (answer, ()) = tokio::join!(warming, async {
        origin.arrived("/slow", 1).await;
        outlive(Instant::now(), Duration::from_millis(500)).await;
        gate.open();
    });
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("done")));
}

#[tokio::test]
async fn who_is_let_in_by_no_key_pays_with_his_address() {
    let origin = pages().await;
    let (search, shop) = ("lk-search-0123456789abcdef", "lk-shop-0123456789abcdef");
    let config = format!(
        "[[tenant]]\nname = 'search'\nkeys = ['{search}']\n[[tenant]]\nname = 'shop'\nkeys = ['{shop}']\n\
         [[route]]\nname = 'default'\nupstream = '{}'\naccess.clients = 'tenants'\n\
         [[limit]]\nname = 'budget'\nper = 'tenant'\nrate = '1/day'\n\
         [[limit]]\nname = 'clients'\nper = 'address'\nrate = '3/day'\n",
        origin.url()
    );
    let gateway = gateway::new().config(config).run().await;
    let get = |key: &str| client::get(gateway.url("/a")).header("authorization", &format!("Bearer {key}")).send();
    get(search).await.assert_ok("a");
    for _ in 0..3 {
        assert_refused(&get(search).await, "budget");
    }
    get(shop).await.assert_ok("a");
    assert_eq!(get("lk-nobody-0123456789abcdef").await.status, 401, "what the budget refused cost no address anything");
    for key in ["lk-nobody-0123456789abcdef", shop] {
        assert_refused(&get(key).await, "clients");
    }
}

#[tokio::test]
async fn tenants_have_a_budget_each_and_may_not_share_it() {
    let origin = pages().await;
    let (search, shop) = ("lk-search-0123456789abcdef", "lk-shop-0123456789abcdef");
    let config = format!(
        "[[tenant]]\nname = 'search'\nkeys = ['{search}', '{search}-2']\n[[tenant]]\nname = 'shop'\nkeys = ['{shop}']\n\
         [[route]]\nname = 'default'\nupstream = '{}'\naccess.clients = 'tenants'\n\
         [[limit]]\nname = 'budget'\nper = 'tenant'\nrate = '3/day'\n\
         [[limit]]\nname = 'by-key'\nper = 'field:authorization'\nrate = '2/day'\n",
        origin.url()
    );
    let gateway = gateway::new().config(config).run().await;
    let get = |key: &str| client::get(gateway.url("/a")).header("authorization", &format!("Bearer {key}")).send();
    assert_eq!(get("lk-nobody-0123456789abcdef").await.status, 401, "who is nobody costs nobody anything");
    get(search).await.assert_ok("a");
    get(search).await.assert_ok("a").assert_hit();
    assert_refused(&get(search).await, "by-key");
    get(&format!("{search}-2")).await.assert_ok("a").assert_hit();
    assert_refused(&get(&format!("{search}-2")).await, "budget");
    get(shop).await.assert_ok("a");
    assert_eq!(origin.requests("/a"), 2, "one for each tenant");
    assert_eq!(counted(&gateway, "budget", "admitted").await, 4.0);
}
