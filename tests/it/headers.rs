//! Fields: which go no further than one hop, which the gateway writes, and that all others stay as they were.

use crate::support::{client, gateway, origin, origin::reply, raw};

#[tokio::test]
async fn hop_by_hop_fields_of_requests_go_no_further() {
    let origin = origin::new().route("/a", "hello").run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut connection = gateway.raw().await;
    connection
        .write(
            "GET /a HTTP/1.1\r\nhost: x\r\nconnection: close, X-Secret\r\nx-secret: 1\r\nkeep-alive: 5\r\n\
             proxy-connection: keep-alive\r\nte: gzip\r\nproxy-authorization: Basic x\r\nx-kept: 1\r\n\r\n",
        )
        .await;
    connection.message().await;
    let seen = origin.last("/a");
    for field in ["x-secret", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade"] {
        assert_eq!(seen.header(field), None, "{field}");
    }
    assert_ne!(seen.header("te"), Some("gzip"));
    assert_eq!(seen.header("x-kept"), Some("1"));
}

#[tokio::test]
async fn hop_by_hop_fields_of_responses_are_not_stored() {
    let origin = raw::answer(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5\r\nconnection: X-Internal, keep-alive\r\n\
         x-internal: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nproxy-authenticate: Basic\r\n\
         x-kept: 1\r\n\r\nhello",
    )
    .await;
    let gateway = gateway::new().raw_origin(&origin).run().await;
    for hit in [false, true] {
        let response = gateway.get("/a").await;
        response.assert_ok("hello");
        assert_eq!(response.cache().hit, hit);
        for field in ["x-internal", "proxy-connection", "proxy-authenticate"] {
            assert_eq!(response.header(field), None, "{field}");
        }
        assert_ne!(response.header("keep-alive"), Some("timeout=5"));
        assert_eq!(response.header("x-kept"), Some("1"));
    }
}

#[tokio::test]
async fn connection_cannot_name_what_the_message_needs() {
    let origin = raw::answer(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5\r\nconnection: cache-control\r\n\r\nhello",
    )
    .await;
    let gateway = gateway::new().raw_origin(&origin).run().await;
    gateway.get("/a").await.assert_ok("hello");
    gateway.get("/a").await.assert_ok("hello");
}

#[tokio::test]
async fn lines_stay_lines_and_values_stay_values() {
    let origin = raw::answer(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5\r\ndate: Sat, 01 Nov 2025 10:00:00 GMT\r\n\
         age: 0\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nlink: <a>\r\nlink: <b>\r\nx-odd: a,b ,  c\r\nx-empty:\r\n\
         expires: whenever\r\nserver: x\r\n\r\nhello",
    )
    .await;
    let config = "[cache]\nmode = 'force'\ndefault_ttl = '1m'";
    let gateway = gateway::new().raw_origin(&origin).config(config).run().await;
    for _ in 0..2 {
        let response = gateway.get("/a").await;
        assert_eq!(response.header_lines("set-cookie"), ["a=1", "b=2"]);
        assert_eq!(response.header_lines("link"), ["<a>", "<b>"]);
        assert_eq!(response.header_lines("date"), ["Sat, 01 Nov 2025 10:00:00 GMT"]);
        for (field, value) in [("x-odd", "a,b ,  c"), ("x-empty", ""), ("expires", "whenever"), ("server", "x")] {
            assert_eq!(response.header(field), Some(value), "{field}");
        }
    }
    gateway.get("/a").await.assert_hit();
}

#[tokio::test]
async fn the_target_reaches_the_origin_as_it_was() {
    let origin = origin::new().run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    for target in ["/a%2Fb/%e2%82%ac", "/a//b/../c/./d", "/a?", "/a?x=%20+%7E&&=", "/~a;b=c,d!$&'()*"] {
        let mut connection = gateway.raw().await;
        connection.write(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        connection.message().await;
        assert_eq!(origin.requests(target), 1, "{target}");
    }
}

#[tokio::test]
async fn via_in_both_directions() {
    let origin = origin::new().route("/a", reply("hello").max_age(60).header("via", "1.0 inner")).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    for _ in 0..2 {
        let response = client::get(gateway.url("/a")).header("via", "1.1 outer").send().await;
        let via = response.header_lines("via").join(", ");
        assert_eq!(via, "1.0 inner, 1.1 larder");
    }
    let via: Vec<_> = origin.last("/a").headers.get_all("via").iter().cloned().collect();
    let via = via.iter().map(|line| line.to_str().expect("text")).collect::<Vec<_>>().join(", ");
    assert_eq!(via, "1.1 outer, 1.1 larder");
}

#[tokio::test]
async fn strangers_cannot_forge_where_they_come_from() {
    let origin = origin::new().route("/a", "hello").run().await;
    let config = "[headers]\nforwarded = 'both'\ntrusted = []";
    let gateway = gateway::new().origin(&origin).config(config).run().await;

    let request = client::get(gateway.url("/a")).header("x-forwarded-for", "192.0.2.1").header("forwarded", "for=evil");
    request.header("x-forwarded-proto", "https").header("x-forwarded-host", "evil.example").send().await;
    let seen = origin.last("/a");
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_ne!(seen.header("x-forwarded-host"), Some("evil.example"));
    let forwarded = seen.header("forwarded").expect("a Forwarded").to_owned();
    assert!(forwarded.contains("for=127.0.0.1") && !forwarded.contains("evil"), "{forwarded}");
}

#[tokio::test]
async fn trusted_proxies_are_extended() {
    let origin = origin::new().route("/a", "hello").run().await;
    let config = "[headers]\nforwarded = 'both'\ntrusted = ['127.0.0.0/8']";
    let gateway = gateway::new().origin(&origin).config(config).run().await;

    let request = client::get(gateway.url("/a")).header("x-forwarded-for", "192.0.2.1");
    request.header("forwarded", "for=192.0.2.1").send().await;
    let seen = origin.last("/a");
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
    let forwarded = seen.header("forwarded").expect("a Forwarded").to_owned();
    assert!(forwarded.starts_with("for=192.0.2.1") && forwarded.contains("for=127.0.0.1"), "{forwarded}");
}

#[tokio::test]
async fn forwarded_can_be_off() {
    let origin = origin::new().route("/a", "hello").run().await;
    let gateway = gateway::new().origin(&origin).config("[headers]\nforwarded = 'off'").run().await;
    gateway.get("/a").await;
    let seen = origin.last("/a");
    assert_eq!((seen.header("x-forwarded-for"), seen.header("forwarded")), (None, None));
}

#[tokio::test]
async fn a_loop_is_cut() {
    let origin = origin::new().route("/a", "hello").run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    gateway.get("/a").await;
    let appended = origin.last("/a").header("cdn-loop").expect("a CDN-Loop").to_owned();
    assert!(appended.contains("larder"), "{appended}");
    let other = client::get(gateway.url("/a")).header("cdn-loop", "other-cdn").send().await;
    assert_eq!(other.status, 200);
    let seen: Vec<_> = origin.last("/a").headers.get_all("cdn-loop").iter().cloned().collect();
    let seen = seen.iter().map(|line| line.to_str().expect("text")).collect::<Vec<_>>().join(", ");
    assert!(seen.contains("other-cdn") && seen.contains("larder"), "{seen}");
    let looped = client::get(gateway.url("/a")).header("cdn-loop", &appended).send().await;
    assert_eq!((looped.status, origin.requests("/a")), (508, 2));
}

#[tokio::test]
async fn a_gateway_before_itself_stops() {
    let one = gateway::new().upstream("http://127.0.0.1:1").run().await;
    let two = gateway::new().upstream(one.url("")).run().await;
    // Two gateways of one name in a row are a loop as far as CDN-Loop can tell.
    assert_eq!(two.get("/a").await.status, 508);
}

#[tokio::test]
async fn a_chain_of_named_gateways() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let inner = gateway::new().origin(&origin).config("[headers]\npseudonym = 'inner'").run().await;
    let outer = gateway::new().upstream(inner.url("")).run().await;

    let response = outer.get("/a").await;
    response.assert_ok("hello").assert_forwarded("uri-miss");
    let statuses = response.header_lines("cache-status").join(", ");
    assert!(
        statuses.starts_with("inner;") && statuses.contains(", larder;"),
        "closest to the origin first: {statuses}"
    );
    outer.get("/a").await.assert_ok("hello").assert_hit();
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn interim_responses_are_passed_on() {
    let origin = raw::answer(
        "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\nx-hint: 1\r\n\r\n\
         HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5\r\n\r\nhello",
    )
    .await;
    let gateway = gateway::new().raw_origin(&origin).run().await;

    let mut connection = gateway.raw().await;
    connection.write("GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let hints = connection.head().await;
    assert_eq!((raw::status(&hints), raw::field(&hints, "link")), (103, Some("</style.css>; rel=preload")));
    let (head, body) = connection.message().await;
    assert_eq!((raw::status(&head), body.as_slice()), (200, b"hello".as_slice()));
    assert_eq!(raw::field(&head, "x-hint"), None);

    connection.write("GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (head, _) = connection.message().await;
    assert_eq!(raw::status(&head), 200, "hits have no interim responses");
    assert_eq!(raw::field(&head, "link"), None);
}

#[tokio::test]
async fn trailers_are_passed_on_and_stored() {
    let stored = reply("hel").chunk("lo").trailer("x-checksum", "abc").max_age(60).header("trailer", "x-checksum");
    let origin = origin::new().route("/a", stored).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut h2 = client::connect_h2(gateway.data()).await;
    let first = h2.send(client::get(gateway.url("/a")).header("te", "trailers")).await;
    first.assert_ok("hello");
    assert!(first.trailers.is_some_and(|trailers| trailers["x-checksum"] == "abc"));
    // RFC 9111 section 3: a cache may keep trailers or drop them, but the content must be whole.
    h2.send(client::get(gateway.url("/a"))).await.assert_ok("hello").assert_hit();
}

#[tokio::test]
async fn request_ids() {
    let origin = origin::new().route("/a", "hello").run().await;
    let config = "[headers]\nrequest_id = 'x-request-id'";
    let gateway = gateway::new().origin(&origin).config(config).run().await;

    let made = gateway.get("/a").await;
    let made = made.header("x-request-id").expect("an id").to_owned();
    assert_eq!(origin.last("/a").header("x-request-id"), Some(made.as_str()));
    let taken = client::get(gateway.url("/a")).header("x-request-id", "mine-1").send().await;
    assert_eq!(taken.header("x-request-id"), Some("mine-1"));
    assert_eq!(origin.last("/a").header("x-request-id"), Some("mine-1"));
    gateway.access_line(|line| line.to_string().contains("mine-1")).await;
}

#[tokio::test]
async fn x_cache_on_request() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).config("[headers]\nx_cache = true").run().await;
    assert_eq!(gateway.get("/a").await.header("x-cache"), Some("MISS"));
    assert_eq!(gateway.get("/a").await.header("x-cache"), Some("HIT"));
}

#[tokio::test]
async fn routes_set_and_remove_fields() {
    let origin = origin::new().route("/a", reply("hello").max_age(60).header("x-powered-by", "php")).run().await;
    let config = format!(
        "[[route]]\nname = 'all'\nupstream = '{}'\n[route.headers]\nrequest_set = {{ authorization = 'Bearer key' }}\n\
         request_remove = ['cookie']\nresponse_set = {{ x-served-by = 'edge' }}\nresponse_remove = ['x-powered-by']",
        origin.url()
    );
    let gateway = gateway::new().config(config).run().await;
    for _ in 0..2 {
        let response = client::get(gateway.url("/a")).header("cookie", "a=1").send().await;
        assert_eq!((response.header("x-served-by"), response.header("x-powered-by")), (Some("edge"), None));
    }
    let seen = origin.last("/a");
    assert_eq!((seen.header("authorization"), seen.header("cookie")), (Some("Bearer key"), None));
}

#[tokio::test]
async fn secrets_do_not_reach_the_log() {
    let origin = origin::new().route("/a", "hello").run().await;
    let gateway = gateway::new().origin(&origin).config("[log]\nlevel = 'trace'").run().await;
    let request = client::get(gateway.url("/a")).header("authorization", "Bearer hush-hush");
    request.header("cookie", "session=tell-nobody").header("x-api-key", "mum-is-the-word").send().await;
    gateway.access_line(|line| line.to_string().contains("/a")).await;
    for secret in ["hush-hush", "tell-nobody"] {
        assert!(!gateway.output().contains(secret), "{secret} in {}", gateway.output());
    }
}
