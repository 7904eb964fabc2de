//! Connections that change their protocol (WebSocket and its like) are tunnelled.

use crate::support::{
    client, eventually, gateway, origin,
    raw::{self, Ending},
};

const REQUEST: &str = "GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Switches protocols and then answers every five bytes in upper case.
async fn shouting() -> raw::Origin {
    raw::serve(|mut conn| async move {
        let head = conn.head().await;
        assert_eq!(raw::field(&head, "upgrade"), Some("websocket"), "{head}");
        assert!(raw::field(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{head}");
        assert!(raw::field(&head, "sec-websocket-key").is_some(), "{head}");
        let switching = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nready";
        conn.write(switching).await;
        for _ in 0..2 {
            let mut word = conn.exact(5).await;
            word.make_ascii_uppercase();
            conn.write(word).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_websocket_is_tunnelled() {
    let origin = shouting().await;
    let gateway = gateway::new().raw_origin(&origin).run().await;

    let mut connection = gateway.raw().await;
    connection.write(REQUEST).await;
    let head = connection.head().await;
    assert_eq!((raw::status(&head), raw::field(&head, "upgrade")), (101, Some("websocket")), "{head}");
    assert!(raw::field(&head, "sec-websocket-accept").is_some(), "{head}");
    assert_eq!(connection.exact(5).await, b"ready");
    for (sent, answer) in [("hello", b"HELLO"), ("again", b"AGAIN")] {
        connection.write(sent).await;
        assert_eq!(connection.exact(5).await, answer);
    }
    assert_eq!(connection.rest().await, (Vec::new(), Ending::Closed), "the origin's end is the client's end");
}

#[tokio::test]
async fn an_origin_may_decline() {
    let origin = raw::answer("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5\r\n\r\nplain").await;
    let gateway = gateway::new().raw_origin(&origin).run().await;

    let mut connection = gateway.raw().await;
    connection.write(REQUEST).await;
    let (head, body) = connection.message().await;
    assert_eq!((raw::status(&head), body.as_slice()), (200, b"plain".as_slice()));
    assert!(raw::field(&head, "via").is_some(), "an answer like any other: {head}");
}

#[tokio::test]
async fn tunnels_are_limited_whatever_opens_them() {
    let origin = shouting().await;
    let gateway = gateway::new().raw_origin(&origin).config("[forward]\ntunnels_max = 1").run().await;

    let mut first = gateway.raw().await;
    first.write(REQUEST).await;
    assert_eq!(raw::status(&first.head().await), 101);
    for one_more in [REQUEST, "CONNECT shop.example:443 HTTP/1.1\r\nhost: shop.example:443\r\n\r\n"] {
        let mut connection = gateway.raw().await;
        connection.write(one_more).await;
        let (head, _) = connection.message().await;
        assert_eq!(raw::status(&head), 503, "{head}");
        assert_eq!(raw::field(&head, "proxy-status"), Some("larder; error=connection_limit_reached"), "{head}");
    }
    assert_eq!(origin.connections(), 1, "the origin is not asked for what could not be used");

    drop(first);
    eventually("a place among the tunnels", || async {
        let mut next = gateway.raw().await;
        next.write(REQUEST).await;
        (raw::status(&next.head().await) == 101).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_declined_upgrade_takes_no_place() {
    let origin = raw::answer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain").await;
    let gateway = gateway::new().raw_origin(&origin).config("[forward]\ntunnels_max = 1").run().await;
    let mut connection = gateway.raw().await;
    for _ in 0..3 {
        connection.write(REQUEST).await;
        assert_eq!(raw::status(&connection.message().await.0), 200);
    }
}

#[tokio::test]
async fn an_unsafe_request_invalidates_though_it_asks_for_an_upgrade() {
    let origin = origin::new().route("/chat", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/chat").await.assert_forwarded("uri-miss");
    gateway.get("/chat").await.assert_hit();
    let upgrade = |method| {
        let request = client::request(method, gateway.url("/chat"));
        request.header("connection", "upgrade").header("upgrade", "example/1").send()
    };
    upgrade("GET").await.assert_ok("hello");
    gateway.get("/chat").await.assert_hit();
    upgrade("POST").await.assert_ok("hello");
    gateway.get("/chat").await.assert_forwarded("uri-miss");
}

#[tokio::test]
async fn switching_without_being_asked_is_an_error() {
    let origin = raw::answer("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n").await;
    let gateway = gateway::new().raw_origin(&origin).run().await;
    assert_eq!(gateway.get("/a").await.status, 502);
}

#[tokio::test]
async fn a_stored_response_does_not_answer_an_upgrade() {
    let origin = raw::serve(|mut conn| async move {
        while let Some(head) = conn.try_head().await {
            if raw::field(&head, "upgrade").is_some() {
                conn.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
                    .await;
                return;
            }
            conn.write("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5\r\n\r\nplain").await;
        }
    })
    .await;
    let gateway = gateway::new().raw_origin(&origin).run().await;
    gateway.get("/chat").await.assert_ok("plain");
    let mut connection = gateway.raw().await;
    connection.write(REQUEST).await;
    assert_eq!(raw::status(&connection.head().await), 101);
}
