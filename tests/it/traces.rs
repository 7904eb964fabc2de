//! Traces: what a collector of OpenTelemetry is told, and that it costs no request when it does not listen.

use serde_json::{Value, json};

use crate::support::{
    client, eventually,
    gate::Gate,
    gateway::{self, Gateway},
    origin::{self, Origin, reply},
};

const TRACES: &str = "/v1/traces";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

async fn collector() -> Origin {
    origin::new().handler(TRACES, |_, _| reply("{}")).run().await
}

async fn gateway_telling(collector: &Origin, origin: &Origin, trace: &str) -> Gateway {
    let config = format!("[trace]\nendpoint = {:?}\n{trace}", collector.url());
    gateway::new().origin(origin).config(config).run().await
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

async fn ask(gateway: &Gateway, path: &str, flags: &str) {
    let request = client::get(gateway.url(path)).header("traceparent", &traceparent(flags));
    assert_eq!(request.send().await.status, 200);
}

/// A text of so many hexadecimal digits in lower case, not all of them zero.
fn is_id(id: &Value, digits: usize) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let id = id.as_str().unwrap_or_default();
    id.len() == digits && id.bytes().all(is_digit) && id.bytes().any(|byte| byte != b'0')
}

fn nanos(time: &Value) -> u64 {
    time.as_str().expect("a number of 64 bits is a text").parse().expect("a number")
}

/// Every span the collector was told of so far; each is as the protocol has it.
fn spans(collector: &Origin) -> Vec<Value> {
    let mut all = Vec::new();
    for seen in collector.seen(TRACES) {
        assert_eq!((seen.method.as_str(), seen.header("content-type")), ("POST", Some("application/json")));
        let told: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let [resource] = &told["resourceSpans"].as_array().expect("a list")[..] else { panic!("{told}") };
        let service = json!({"key": "service.name", "value": {"stringValue": "larder"}});
        assert_eq!(resource["resource"]["attributes"][0], service);
        let [scope] = &resource["scopeSpans"].as_array().expect("a list")[..] else { panic!("{told}") };
        assert_eq!(scope["scope"]["name"], "larder");
        all.extend(scope["spans"].as_array().expect("a list").iter().cloned());
    }
    for span in &all {
        assert!(is_id(&span["traceId"], 32) && is_id(&span["spanId"], 16), "{span}");
        assert!(span["parentSpanId"].is_null() || is_id(&span["parentSpanId"], 16), "{span}");
        assert!((1..=3).contains(&span["kind"].as_u64().expect("a number")), "{span}");
        assert!(nanos(&span["startTimeUnixNano"]) <= nanos(&span["endTimeUnixNano"]), "{span}");
    }
    all
}

async fn told(collector: &Origin, count: usize) -> Vec<Value> {
    eventually("spans", || async { Some(spans(collector)).filter(|spans| spans.len() >= count) }).await
}

fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

fn one<'a>(spans: &'a [Value], name: &str) -> &'a Value {
    let found = named(spans, name);
    let [one] = found[..] else { panic!("{} of {name}: {spans:#?}", found.len()) };
    one
}

fn attribute(span: &Value, key: &str) -> Value {
    let attributes = span["attributes"].as_array().expect("a list");
    attributes.iter().find(|attribute| attribute["key"] == key).map_or(Value::Null, |found| found["value"].clone())
}

fn assert_within(child: &Value, parent: &Value) {
    assert_eq!((&child["traceId"], &child["parentSpanId"]), (&parent["traceId"], &parent["spanId"]));
    assert!(nanos(&parent["startTimeUnixNano"]) <= nanos(&child["startTimeUnixNano"]));
}

#[tokio::test]
async fn a_miss_and_a_hit_as_spans_of_the_clients_trace() {
    let (collector, origin) = (collector().await, origin::new().route("/a", reply("a").max_age(60)).run().await);
    let gateway = gateway_telling(&collector, &origin, "sample = 0.0").await;
    ask(&gateway, "/a", "01").await;
    let spans = told(&collector, 4).await;
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let (request, lookup) = (one(&spans, "GET"), one(&spans, "lookup"));
    let (fill, asked) = (one(&spans, "fill"), one(&spans, "origin"));
    assert_eq!((&request["traceId"], &request["parentSpanId"]), (&TRACE.into(), &PARENT.into()));
    assert_eq!([request, lookup, fill, asked].map(|span| span["kind"].as_u64()), [2, 1, 1, 3].map(Some));
    assert_within(lookup, request);
    assert_within(fill, request);
    assert_within(asked, fill);
    assert!(nanos(&lookup["endTimeUnixNano"]) <= nanos(&request["endTimeUnixNano"]));
    assert_eq!(attribute(request, "http.request.method"), json!({"stringValue": "GET"}));
    assert_eq!(attribute(request, "url.path"), json!({"stringValue": "/a"}));
    assert_eq!(attribute(request, "http.response.status_code"), json!({"intValue": "200"}));
    assert_eq!(attribute(request, "larder.outcome"), json!({"stringValue": "miss"}));
    assert_eq!(attribute(request, "larder.route"), json!({"stringValue": "default"}));
    assert_eq!(attribute(lookup, "larder.found"), json!({"boolValue": false}));
    let parent = format!("00-{TRACE}-{}-01", asked["spanId"].as_str().expect("an id"));
    assert_eq!(origin.last("/a").header("traceparent"), Some(&parent[..]), "what the origin does is part of it");

    ask(&gateway, "/a", "01").await;
    let spans = told(&collector, 6).await;
    let (hit, found) = (named(&spans[4..], "GET"), named(&spans[4..], "lookup"));
    assert_eq!(attribute(hit[0], "larder.outcome"), json!({"stringValue": "hit"}));
    assert_eq!(attribute(found[0], "larder.found"), json!({"boolValue": true}));
    assert_within(found[0], hit[0]);
}

#[tokio::test]
async fn who_follows_tells_which_fill() {
    let (collector, gate) = (collector().await, Gate::new());
    let origin = origin::new().route("/a", reply("a").max_age(60).hold(&gate)).run().await;
    let gateway = gateway_telling(&collector, &origin, "sample = 0.0").await;
    let opening = async {
        gateway.followers(1).await;
        gate.open();
    };
    tokio::join!(ask(&gateway, "/a", "01"), ask(&gateway, "/a", "01"), opening);
    let spans = told(&collector, 7).await;
    let (fill, follow) = (one(&spans, "fill"), one(&spans, "follow"));
    assert_eq!(follow["links"], json!([{"traceId": fill["traceId"], "spanId": fill["spanId"]}]));
}

#[tokio::test]
async fn what_is_not_to_be_recorded_is_not_and_has_a_trace_all_the_same() {
    let (collector, origin) = (collector().await, origin::new().route("/a", reply("a")).run().await);
    let gateway = gateway_telling(&collector, &origin, "sample = 1.0").await;
    ask(&gateway, "/a", "00").await;
    let line = gateway.access_line(|line| line["target"] == "/a").await;
    assert_eq!(line["trace_id"], TRACE);
    assert_eq!(origin.last("/a").header("traceparent"), Some(&traceparent("00")[..]), "goes on as it came");
    let request = client::get(gateway.url("/a")).header("x-request-id", "anew");
    assert_eq!(request.send().await.status, 200);
    gateway.purge(json!({"tags": ["x"]})).await;
    let line = gateway.access_line(|line| line["request_id"] == "anew").await;
    let spans = told(&collector, 5).await;
    assert_eq!(one(&spans, "GET")["traceId"], line["trace_id"], "only the one without a parent");
    assert_eq!(one(&spans, "GET")["parentSpanId"], Value::Null);
    assert_ne!(one(&spans, "purge")["traceId"], line["trace_id"]);
}

#[tokio::test]
async fn a_collector_that_hangs_costs_spans_and_no_request() {
    let gate = Gate::new();
    let hangs = gate.clone();
    let collector = origin::new().handler(TRACES, move |_, _| reply("{}").hold(&hangs)).run().await;
    let origin = origin::new().route("/a", reply("a").max_age(60)).run().await;
    let gateway = gateway_telling(&collector, &origin, "sample = 1.0\nqueue_max = 2\ntimeout = '1m'").await;
    gateway.get("/a").await.assert_ok("a");
    collector.arrived(TRACES, 1).await;
    for _ in 0..10 {
        gateway.get("/a").await.assert_ok("a").assert_hit();
    }
    let dropped = || async { (gateway.metric("larder_trace_dropped_total").await >= 18.0).then_some(()) };
    eventually("spans to be dropped and counted", dropped).await;
    gate.open();
}

#[tokio::test]
async fn a_collector_that_refuses_is_counted() {
    let collector = origin::new().handler(TRACES, |_, _| reply("no").status(400)).run().await;
    let origin = origin::new().route("/a", reply("a").max_age(60)).run().await;
    let gateway = gateway_telling(&collector, &origin, "sample = 1.0\nheaders = { X-Key = 'hush' }").await;
    gateway.get("/a").await.assert_ok("a");
    let failed = || async { (gateway.metric("larder_trace_failed_total").await >= 4.0).then_some(()) };
    eventually("spans to be counted", failed).await;
    assert_eq!(collector.last(TRACES).header("x-key"), Some("hush"));
    assert_eq!(collector.requests(TRACES), 1, "what is refused is not sent again");
}

#[tokio::test]
async fn what_is_queued_at_the_end_is_told() {
    let (collector, origin) = (collector().await, origin::new().route("/a", reply("a").max_age(60)).run().await);
    let mut gateway = gateway_telling(&collector, &origin, "sample = 1.0").await;
    gateway.get("/a").await.assert_ok("a");
    gateway.stop().await;
    assert_eq!(spans(&collector).len(), 4);
}
