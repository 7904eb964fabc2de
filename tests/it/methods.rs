//! Methods other than GET and HEAD: invalidation, POST, QUERY, bodies on their way to the origin.

use http::Method;

use crate::support::{client, gateway, origin, origin::reply, pattern, raw};

/// An origin that numbers its answers to GET at `/a` and answers every other method with `other`.
fn numbered(other: origin::Reply) -> origin::Builder {
    let gets = std::sync::atomic::AtomicUsize::new(0);
    origin::new().handler("/a", move |seen, _| {
        if seen.method == Method::GET {
            let number = gets.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            return reply(number.to_string()).max_age(60);
        }
        other.clone()
    })
}

#[tokio::test]
async fn an_unsafe_method_invalidates() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FROBNICATE"] {
        for status in [200, 204, 303] {
            let origin = numbered(reply("").status(status)).run().await;
            let gateway = gateway::new().origin(&origin).run().await;
            gateway.get("/a").await.assert_ok("0");
            gateway.get("/a").await.assert_ok("0").assert_hit();
            let done = client::request(method, gateway.url("/a")).body("abc").send().await;
            assert_eq!(done.status, status);
            gateway.get("/a").await.assert_ok("1");
        }
    }
}

#[tokio::test]
async fn a_failed_or_safe_method_does_not() {
    for (method, status) in [("POST", 500), ("DELETE", 404), ("PUT", 503), ("OPTIONS", 200)] {
        let origin = numbered(reply("").status(status)).run().await;
        let gateway = gateway::new().origin(&origin).run().await;
        gateway.get("/a").await.assert_ok("0");
        assert_eq!(client::request(method, gateway.url("/a")).send().await.status, status);
        gateway.get("/a").await.assert_ok("0").assert_hit();
    }
}

#[tokio::test]
async fn invalidation_follows_location_within_the_site() {
    for field in ["location", "content-location"] {
        let origin = origin::new()
            .handler("/a", |_, nth| reply(nth.to_string()).max_age(60))
            .handler("/b", move |seen, _| {
                let host = seen.header("host").expect("a host").to_owned();
                let target =
                    if seen.target.contains("absolute") { format!("http://{host}/a") } else { "/a".to_owned() };
                reply("").status(201).header(field, &target)
            })
            .run()
            .await;
        let gateway = gateway::new().origin(&origin).run().await;
        for (round, target) in ["/b", "/b?absolute"].iter().enumerate() {
            gateway.get("/a").await.assert_ok(&round.to_string());
            client::request("POST", gateway.url(target)).send().await;
            gateway.get("/a").await.assert_ok(&(round + 1).to_string());
        }
    }
}

#[tokio::test]
async fn invalidation_does_not_follow_to_another_host() {
    let victim = origin::new().route("/a", "victim").max_age(60).run().await;
    let attacker =
        origin::new().route("/b", reply("").status(201).header("location", "http://victim.example/a")).run().await;
    let config = format!(
        "[[route]]\nname = 'victim'\nhost = 'victim.example'\nupstream = '{}'\n\
         [[route]]\nname = 'attacker'\nhost = 'attacker.example'\nupstream = '{}'",
        victim.url(),
        attacker.url()
    );
    let gateway = gateway::new().config(config).run().await;
    let get = || client::get(gateway.url("/a")).header("host", "victim.example").send();

    get().await.assert_ok("victim");
    client::request("POST", gateway.url("/b")).header("host", "attacker.example").send().await;
    get().await.assert_hit();
    assert_eq!(victim.requests("/a"), 1);
}

#[tokio::test]
async fn bodies_reach_the_origin_byte_for_byte() {
    let origin = origin::new().handler("/a", |seen, _| reply(seen.body.clone())).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let body = pattern(3 << 20);
    let echoed = client::request("POST", gateway.url("/a")).body(body.clone()).send().await;
    assert!(echoed.body == body && !echoed.broken);
    assert_eq!(origin.last("/a").header("content-length"), Some(body.len().to_string().as_str()));

    let json = r#"{ "b":1,  "a" : [1,2 ,3] }"#;
    client::request("POST", gateway.url("/a")).body(json).send().await.assert_ok(json);
    client::request("POST", gateway.url("/a")).chunked(&["hel", "lo"]).send().await.assert_ok("hello");
    assert_eq!(origin.last("/a").header("content-length"), None);
    client::request("POST", gateway.url("/a")).send().await.assert_ok("");
}

#[tokio::test]
async fn a_request_body_is_streamed() {
    let origin = raw::serve(|mut conn| async move {
        conn.head().await;
        conn.exact(5).await;
        conn.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nseen").await;
        conn.rest().await;
    })
    .await;
    let gateway = gateway::new().raw_origin(&origin).run().await;

    let mut connection = gateway.raw().await;
    connection.write("POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhello").await;
    // The origin answers what it has seen of a body that has not ended.
    let (head, body) = connection.message().await;
    assert_eq!((raw::status(&head), body.as_slice()), (200, b"seen".as_slice()));
}

#[tokio::test]
async fn expect_continue() {
    let origin = origin::new().handler("/a", |seen, _| reply(seen.body.clone())).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut connection = gateway.raw().await;
    connection.write("POST /a HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    assert_eq!(raw::status(&connection.head().await), 100);
    connection.write("hello").await;
    let (head, body) = connection.message().await;
    assert_eq!((raw::status(&head), body.as_slice()), (200, b"hello".as_slice()));
}

#[tokio::test]
async fn a_post_is_not_answered_from_the_cache() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    for _ in 0..2 {
        let response = client::request("POST", gateway.url("/a")).body("x").send().await;
        response.assert_ok("hello").assert_forwarded("method");
    }
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn a_post_that_says_so_is_stored_for_get() {
    let origin = origin::new()
        .handler("/a", |seen, _| {
            // Of unknown length: then its end is seen when it is stored, not with its last byte.
            reply("answer to ").chunk(seen.method.to_string()).max_age(60).header("content-location", "/a")
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    client::request("POST", gateway.url("/a")).body("x").send().await.assert_ok("answer to POST");
    gateway.get("/a").await.assert_ok("answer to POST").assert_hit();
}

#[tokio::test]
async fn a_query_is_cached_by_its_body() {
    let origin = origin::new().handler("/a", |seen, _| reply(seen.body.clone()).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nmethods = ['GET', 'HEAD', 'QUERY']").run().await;
    let query = |body: &'static str, kind: &str| {
        client::request("QUERY", gateway.url("/a")).header("content-type", kind).body(body).send()
    };

    query("one", "text/plain").await.assert_ok("one").assert_forwarded("uri-miss");
    query("one", "text/plain").await.assert_ok("one").assert_hit();
    query("two", "text/plain").await.assert_ok("two").assert_forwarded("uri-miss");
    query("one", "application/sql").await.assert_ok("one").assert_forwarded("uri-miss");
    query("one", "text/plain").await.assert_ok("one").assert_hit();
    gateway.get("/a").await.assert_ok("").assert_forwarded("uri-miss");
    assert!(origin.seen("/a").iter().any(|request| request.method == "QUERY" && request.body == "one"));
}

#[tokio::test]
async fn a_post_is_cached_by_its_body_where_the_route_says_so() {
    let origin = origin::new().handler("/a", |seen, nth| reply(format!("{:?} {nth}", seen.body))).run().await;
    let config = "[cache]\nmode = 'force'\ndefault_ttl = '1m'\nmethods = ['GET', 'HEAD', 'POST']";
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    let post = |body: &'static str| client::request("POST", gateway.url("/a")).body(body).send();

    post("one").await.assert_ok("b\"one\" 0");
    post("one").await.assert_ok("b\"one\" 0").assert_hit();
    post("two").await.assert_ok("b\"two\" 1");
    post("one").await.assert_ok("b\"one\" 0").assert_hit();
}

#[tokio::test]
async fn content_alone_does_not_make_requests_the_same() {
    let origin = origin::new()
        .handler("/a", |seen, _| {
            let [coding, language] = ["content-encoding", "content-language"].map(|name| seen.header(name));
            reply(format!("{} {coding:?} {language:?}", seen.method)).max_age(60)
        })
        .run()
        .await;
    let config = "[cache]\nmethods = ['GET', 'QUERY', 'POST']";
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    let send = |method: &str, name: &str| {
        client::request(method, gateway.url("/a")).header(name, "x").header("content-type", "a/b").body("one").send()
    };
    for _ in 0..2 {
        send("QUERY", "accept").await.assert_ok("QUERY None None");
        send("POST", "accept").await.assert_ok("POST None None");
        send("QUERY", "content-encoding").await.assert_ok("QUERY Some(\"x\") None");
        send("QUERY", "content-language").await.assert_ok("QUERY None Some(\"x\")");
    }
    assert_eq!(origin.requests("/a"), 4);
}

#[tokio::test]
async fn a_body_too_large_for_a_key_passes_through() {
    let origin = origin::new().handler("/a", |seen, _| reply(seen.body.clone()).max_age(60)).run().await;
    let config = "[cache]\nmethods = ['GET', 'HEAD', 'QUERY']\nkey_body_bytes_max = '1 kB'";
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    for _ in 0..2 {
        let response = client::request("QUERY", gateway.url("/a")).body(pattern(5000)).send().await;
        assert!(response.body == pattern(5000) && !response.cache().hit);
    }
    assert_eq!(origin.requests("/a"), 2);
}
