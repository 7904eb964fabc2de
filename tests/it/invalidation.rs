//! What unsafe requests invalidate, and what an origin withdraws, whatever key it is stored under.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::{
    client, eventually,
    gate::Gate,
    gateway,
    gateway::Gateway,
    origin,
    origin::{Reply, Seen, reply},
    outlive,
};

/// Answers GET with `answer`, which is told how many unsafe requests came before.
fn versioned(answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> impl Fn(&Seen, usize) -> Reply {
    let version = AtomicUsize::new(0);
    move |seen, _| {
        if seen.method == "PUT" {
            version.fetch_add(1, SeqCst);
            return reply("").status(204);
        }
        answer(seen, version.load(SeqCst))
    }
}

async fn put(gateway: &Gateway, path: &str) {
    assert_eq!(client::request("PUT", gateway.url(path)).send().await.status, 204);
}

#[tokio::test]
async fn an_invalidated_variant_stays_so_when_its_record_is_made_anew() {
    let gate = Gate::new();
    let held = gate.clone();
    let answer = move |seen: &Seen, version| match seen.header("x-color") {
        Some("red") if version == 0 => reply("red 0").max_age(60).header("vary", "x-color"),
        Some("red") => reply("red 1").max_age(60).header("vary", "x-color").gate(&held).chunk(", to the end"),
        // Without Vary: it takes the place of the record.
        _ => reply("plain").max_age(60),
    };
    let origin = origin::new().handler("/a", versioned(answer)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let red = || client::get(gateway.url("/a")).header("x-color", "red");

    red().send().await.assert_ok("red 0");
    client::get(gateway.url("/a")).header("x-color", "blue").send().await.assert_ok("plain");
    put(&gateway, "/a").await;
    // Its head makes the variant known again, while the old body still lies under the variant's key.
    let mut first = red().open().await;
    first.read(5).await;
    let mut second = red().open().await;
    assert_eq!(second.read(5).await, b"red 1");
    gate.open();
    for response in [first, second] {
        response.finish().await.assert_ok("red 1, to the end");
    }
}

#[tokio::test]
async fn an_invalidated_variant_stays_so_when_a_part_of_it_comes() {
    let answer = |seen: &Seen, version| match (seen.header("x-color"), seen.header("range")) {
        (Some("red"), Some(_)) => {
            let part = reply("red").status(206).max_age(60).header("content-range", "bytes 0-2/5");
            part.header("vary", "x-color").header("etag", &format!("\"{version}\""))
        }
        (Some("red"), None) => reply(format!("red {version}")).max_age(60).header("vary", "x-color"),
        _ => reply("plain").max_age(60),
    };
    let origin = origin::new().handler("/a", versioned(answer)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let red = || client::get(gateway.url("/a")).header("x-color", "red");

    red().send().await.assert_ok("red 0");
    client::get(gateway.url("/a")).header("x-color", "blue").send().await.assert_ok("plain");
    put(&gateway, "/a").await;
    assert_eq!(red().header("range", "bytes=0-2").send().await.status, 206);
    red().send().await.assert_ok("red 1");
}

#[tokio::test]
async fn what_is_withdrawn_from_one_who_was_selected_by_vary_is_gone() {
    let replies = [
        reply("old").max_age(1).header("vary", "x-color").header("etag", "\"1\""),
        reply("none of your business").cache_control("no-store").header("vary", "x-color"),
        reply("failing").status(503),
    ];
    let origin = origin::new().route("/a", replies).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let red = || client::get(gateway.url("/a")).header("x-color", "red");

    let first = red().send().await;
    first.assert_ok("old");
    outlive(first.end_at, std::time::Duration::from_secs(1)).await;
    red().send().await.assert_ok("none of your business");
    // Were it still there, it would stand in for the failure.
    assert_eq!(red().send().await.status, 503);
}

/// The version of `/a`, which a GET that names it in one way stores and a PUT in another way changes.
async fn renamed(config: &str, named: impl Fn(&str, &Gateway) -> client::Request) {
    let answer = |_: &Seen, version: usize| reply(version.to_string()).max_age(60);
    let answer = std::sync::Arc::new(versioned(answer));
    let (tilde, encoded) = (std::sync::Arc::clone(&answer), answer);
    let origin = origin::new()
        .handler("/~a", move |seen, nth| tilde(seen, nth))
        .handler("/%7Ea", move |seen, nth| encoded(seen, nth))
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    named("GET", &gateway).send().await.assert_ok("0");
    named("GET", &gateway).send().await.assert_ok("0").assert_hit();
    assert_eq!(named("PUT", &gateway).send().await.status, 204);
    named("GET", &gateway).send().await.assert_ok("1");
}

#[tokio::test]
async fn an_unsafe_request_reaches_its_url_however_it_is_spelt() {
    for (get, put) in [("/~a", "/%7Ea"), ("/%7Ea", "/~a")] {
        renamed("", |method, gateway| client::request(method, gateway.url(if method == "GET" { get } else { put })))
            .await;
    }
}

#[tokio::test]
async fn an_unsafe_request_reaches_its_url_whichever_way_it_came() {
    for through_proxy in ["GET", "PUT"] {
        renamed("[headers]\ntrusted = ['127.0.0.0/8']", |method, gateway| {
            let request = client::request(method, gateway.url("/~a"));
            if method == through_proxy { request.header("x-forwarded-proto", "https") } else { request }
        })
        .await;
    }
}

#[tokio::test]
async fn an_unsafe_request_reaches_its_url_under_either_scheme() {
    for secure in ["GET", "PUT"] {
        renamed("", |method, gateway| {
            let url = gateway.url("/~a");
            let url = if method == secure { url.replace("http:", "https:") } else { url };
            client::request(method, url).via(gateway.data())
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_no_invalidation_back() {
    let gate = Gate::new();
    let held = gate.clone();
    let committed = std::sync::Arc::new(AtomicUsize::new(0));
    let versions = std::sync::Arc::clone(&committed);
    let page = move || reply(format!("version {}", versions.load(SeqCst))).max_age(60);
    let other = page.clone();
    let origin = origin::new()
        .handler("/a", move |seen, _| match seen.method.as_str() {
            "PUT" => reply("").status(204).header("location", "/b").hold(&held),
            _ => page(),
        })
        .handler("/b", move |_, _| other())
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut leaver = gateway.raw().await;
    leaver.write("PUT /a HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    gate.arrived(1).await;
    drop(leaver);
    gateway.access_line(|line| line["method"] == "PUT").await;
    // The origin is still at it, so this is the state before.
    for path in ["/a", "/b"] {
        gateway.get(path).await.assert_ok("version 0");
        gateway.get(path).await.assert_hit();
    }
    committed.store(1, SeqCst);
    gate.open();
    for path in ["/a", "/b"] {
        eventually("the invalidation", || async { (gateway.get(path).await.text() == "version 1").then_some(()) })
            .await;
    }
}

#[tokio::test]
async fn a_post_that_was_overtaken_does_not_stand_for_get() {
    let gate = Gate::new();
    let held = gate.clone();
    let answer = move |seen: &Seen, version| {
        let page = reply(format!("version {version}")).max_age(60);
        if seen.method == "POST" { page.header("content-location", "/a").hold(&held) } else { page }
    };
    let origin = origin::new().handler("/a", versioned(answer)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let post = tokio::spawn(client::request("POST", gateway.url("/a")).body("x").send());
    gate.arrived(1).await;
    put(&gateway, "/a").await;
    gate.open();
    post.await.expect("no panic").assert_ok("version 0");
    gateway.get("/a").await.assert_ok("version 1");
}
