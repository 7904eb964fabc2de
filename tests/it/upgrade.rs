//! Connections that change their protocol (WebSocket and its like) are tunnelled.

use crate::support::{gateway, raw, raw::Ending};

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
