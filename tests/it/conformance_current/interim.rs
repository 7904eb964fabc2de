//! Interim responses (RFC 9110 section 15.2).

use std::sync::Arc;

use crate::support::{gateway, raw};

#[tokio::test]
async fn interim_responses_come_first_and_are_not_stored() {
    for (interim, status) in [
        ("HTTP/1.1 102 Processing\r\n\r\n", 102),
        ("HTTP/1.1 103 Early Hints\r\nlink: </s.css>; rel=preload; as=style\r\nx-my-header: test\r\n\r\n", 103),
    ] {
        let last = "HTTP/1.1 200 OK\r\ncache-control: max-age=100000\r\ncontent-length: 5\r\n\r\nhello";
        let origin = raw::answer(format!("{interim}{interim}{last}")).await;
        let gateway = gateway::new().raw_origin(&origin).run().await;
        let mut connection = gateway.raw().await;
        connection.write("GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
        for _ in 0..2 {
            let head = connection.head().await;
            assert_eq!(raw::status(&head), status);
            assert_eq!(raw::field(&head, "x-my-header").is_some(), status == 103);
        }
        for _ in 0..2 {
            let (head, body) = connection.message().await;
            assert_eq!((raw::status(&head), body.as_slice()), (200, b"hello".as_slice()));
            assert_eq!(raw::field(&head, "x-my-header"), None);
            connection.write("GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
        }
        assert_eq!(origin.connections(), 1);
    }
}

#[tokio::test]
async fn an_interim_response_does_not_wait_for_the_final_one() {
    let (send, receive) = tokio::sync::watch::channel(false);
    let receive = Arc::new(receive);
    let origin = raw::serve(move |mut conn| {
        let mut receive = receive.as_ref().clone();
        async move {
            conn.head().await;
            conn.write("HTTP/1.1 103 Early Hints\r\nlink: </s.css>\r\n\r\n").await;
            receive.wait_for(|open| *open).await.expect("the test lives");
            conn.write("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
            conn.rest().await;
        }
    })
    .await;
    let gateway = gateway::new().raw_origin(&origin).run().await;
    let mut connection = gateway.raw().await;
    connection.write("GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(raw::status(&connection.head().await), 103);
    send.send_replace(true);
    assert_eq!(raw::status(&connection.head().await), 200);
}
