//! Warm-up jobs: a list of URLs goes through the same path as any request, and the job can be watched.

use serde_json::{Value, json};

use crate::support::{eventually, gate::Gate, gateway, gateway::Gateway, origin, origin::reply};

/// `POST /warm`; the job's id.
async fn start(gateway: &Gateway, call: Value) -> String {
    let response = gateway.admin("POST", "/warm").json(&call).send().await;
    assert_eq!(response.status, 202, "{}", response.text());
    match &response.json()["id"] {
        Value::String(id) => id.clone(),
        id => id.to_string(),
    }
}

/// The job, once it is over.
async fn finished(gateway: &Gateway, id: &str) -> Value {
    eventually("the job to end", || async {
        let job = gateway.admin_json(&format!("/warm/{id}")).await;
        (job["state"] != "running" && job["state"] != "queued").then_some(job)
    })
    .await
}

#[tokio::test]
async fn what_was_warmed_is_a_hit() {
    let origin = origin::new().route("/a", "a").max_age(60).route("/b", "b").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let id = start(&gateway, json!({ "urls": [gateway.url("/a"), gateway.url("/b")] })).await;
    let job = finished(&gateway, &id).await;
    assert_eq!((&job["total"], &job["done"], &job["failed"]), (&json!(2), &json!(2), &json!(0)), "{job}");
    gateway.get("/a").await.assert_ok("a").assert_hit();
    gateway.get("/b").await.assert_ok("b").assert_hit();
    assert_eq!((origin.requests("/a"), origin.requests("/b")), (1, 1));
}

#[tokio::test]
async fn failures_are_counted_and_named() {
    let origin = origin::new().route("/a", "a").max_age(60).route("/b", "b").status(500).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let id = start(&gateway, json!({ "urls": [gateway.url("/a"), gateway.url("/b")] })).await;
    let job = finished(&gateway, &id).await;
    assert_eq!((&job["total"], &job["failed"]), (&json!(2), &json!(1)), "{job}");
    assert!(job["errors"].to_string().contains("/b"), "{job}");
}

#[tokio::test]
async fn concurrency_is_bounded() {
    let gate = Gate::new();
    let held = gate.clone();
    let paths = ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7"];
    let origin = paths.iter().fold(origin::new(), |origin, path| {
        let held = held.clone();
        origin.handler(path, move |_, _| reply("x").max_age(60).hold(&held))
    });
    let origin = origin.run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let urls: Vec<_> = paths.iter().map(|path| gateway.url(path)).collect();
    let id = start(&gateway, json!({ "urls": urls, "concurrency": 2 })).await;
    gate.arrived(2).await;
    let under_way = gateway.admin_json(&format!("/warm/{id}")).await;
    assert_eq!((&under_way["state"], &under_way["done"]), (&json!("running"), &json!(0)), "{under_way}");
    let asked: usize = paths.iter().map(|path| origin.requests(path)).sum();
    assert_eq!(asked, 2);
    gate.open();
    let job = finished(&gateway, &id).await;
    assert_eq!(job["done"], json!(8), "{job}");
}

#[tokio::test]
async fn calls_that_are_refused() {
    let origin = origin::new().run().await;
    let gateway = gateway::new().origin(&origin).config("[warm]\nurls_max = 3").run().await;

    for call in [
        json!({}),
        json!({ "urls": [] }),
        json!({ "urls": ["no url"] }),
        json!({ "urls": vec!["http://a/"; 4] }),
        json!({ "urls": [gateway.url("/a")], "concurrency": 0 }),
        json!({ "urls": [gateway.url("/a")], "speed": 9 }),
    ] {
        let response = gateway.admin("POST", "/warm").json(&call).send().await;
        assert!((400..500).contains(&response.status), "{call}: {} {}", response.status, response.text());
    }
    assert_eq!(gateway.admin("GET", "/warm/unknown").send().await.status, 404);
}
