//! What origins say, and what becomes of it.

use http::{HeaderMap, StatusCode, Version};
use parking_lot::Mutex;
use socket2::SockRef;

use super::*;

async fn answer(bytes: &'static str) -> Result<OriginResponse, Error> {
    Script::once(bytes).await.client().get().await
}

#[tokio::test]
async fn unusual_final_statuses_are_final() {
    for status in [200_u16, 299, 499, 599, 999] {
        let answer: &'static str = format!("HTTP/1.1 {status} Odd\r\ncontent-length: 0\r\n\r\n").leak();
        let response = Script::once(answer).await.client().get().await.unwrap();
        assert_eq!(response.status.as_u16(), status);
        assert!(http_body::Body::is_end_stream(&response.body));
    }
}

#[tokio::test]
async fn bodies_end_as_announced() {
    for (bytes, expected) in [
        ("HTTP/1.0 200 OK\r\n\r\nuntil close", "until close"),
        ("HTTP/1.1 200 OK\r\n\r\nuntil close", "until close"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: foo\r\n\r\nuntil close", "until close"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789and much more", "0123456789"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "abcde"),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n", ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
    ] {
        assert_eq!(text(answer(bytes).await.expect(bytes)).await, expected, "{bytes}");
    }
}

#[tokio::test]
async fn an_http_1_0_origin_that_keeps_the_connection_is_used_again() {
    let script = Script::always("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi").await;
    let client = script.client();
    let response = client.get().await.unwrap();
    assert_eq!(response.version, Version::HTTP_10);
    text(response).await;
    client.text().await;
    assert_eq!(script.connections(), 1);
}

#[tokio::test]
async fn bodies_cut_short_are_errors() {
    for (bytes, kind) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", Kind::Incomplete),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n", Kind::Incomplete),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc", Kind::Incomplete),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc", Kind::TransferCoding),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcdef\r\n", Kind::TransferCoding),
    ] {
        let error = body(answer(bytes).await.expect(bytes)).await.expect_err(bytes);
        assert_eq!(error.kind(), kind, "{bytes}");
        assert_eq!(error.status(), StatusCode::BAD_GATEWAY);
    }
}

#[tokio::test]
async fn what_is_not_a_response_is_an_error() {
    for (bytes, proxy_status) in [
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 OK\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "http_protocol_error"),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 200 OK\r\nco", "http_response_incomplete"),
    ] {
        let error = answer(bytes).await.expect_err(bytes);
        assert_eq!(error.proxy_status(), proxy_status, "{bytes}");
        assert_eq!((error.status(), error.unseen()), (StatusCode::BAD_GATEWAY, false));
    }
}

#[tokio::test]
async fn heads_are_bounded_in_bytes_and_fields() {
    let endless = Script::run(|_, mut peer| async move {
        peer.request().await;
        peer.say("HTTP/1.1 200 OK\r\nx: ").await;
        for _ in 0..1000 {
            peer.say([b'a'; 1024]).await;
        }
    });
    let error = endless.await.client().failure().await;
    assert_eq!(error.proxy_status(), "http_response_header_section_size");
    let many = Script::run(|_, mut peer| async move {
        peer.request().await;
        peer.say("HTTP/1.1 200 OK\r\n").await;
        peer.say("a: b\r\n".repeat(30)).await;
        peer.say("content-length: 0\r\n\r\n").await;
    });
    let many = many.await;
    let error = many.client_with(|config| config.head_fields_max = 30).failure().await;
    assert_eq!(error.kind(), Kind::HeadTooLarge);
    many.client_with(|config| config.head_fields_max = 31).get().await.expect("31 fields");
}

#[tokio::test]
async fn a_head_that_does_not_come_is_given_up() {
    let script = Script::run(|_, mut peer| async move {
        peer.request().await;
        peer.closed().await;
    });
    let error = script.await.client_with(|config| config.head_timeout = SHORT).failure().await;
    assert_eq!((error.proxy_status(), error.status().as_u16()), ("http_response_timeout", 504));
    assert!(!error.unseen());
}

/// Whose readers take their time is counted, and then less is read at once.
#[tokio::test]
async fn the_more_bodies_wait_for_their_readers_the_smaller_the_pieces() {
    const LENGTH: usize = 4 << 20;
    let script = Script::run(|_, mut peer| async move {
        peer.request().await;
        peer.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
        peer.say(vec![b'x'; LENGTH]).await;
    });
    let client = script.await.client();
    let unread = &client.origins.metrics.unread;
    let (mut slow, mut left) = (client.get().await.unwrap().body, client.get().await.unwrap().body);
    for body in [&mut slow, &mut left] {
        body.frame().await.expect("a piece").unwrap();
    }
    assert_eq!(unread.gauge().get(), 2);
    drop(left);
    assert_eq!(unread.gauge().get(), 1, "who has gone does not wait");
    let others: Vec<_> = (0..1000).map(|_| unread.hand()).collect();
    let mut total = 0;
    while let Some(frame) = slow.frame().await {
        let length = frame.unwrap().into_data().expect("no trailers").len();
        assert!(length <= 16 * 1024, "{length} bytes");
        total += length;
        if total > LENGTH / 2 {
            break;
        }
    }
    drop(others);
    let mut largest = 0;
    while let Some(frame) = slow.frame().await {
        let length = frame.unwrap().into_data().expect("no trailers").len();
        (largest, total) = (largest.max(length), total + length);
    }
    assert!(largest <= 64 * 1024);
    assert_eq!(unread.gauge().get(), 0, "what is complete waits for nobody");
}

#[tokio::test]
async fn a_body_that_falls_silent_is_given_up() {
    let script = Script::run(|_, mut peer| async move {
        peer.request().await;
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
        peer.closed().await;
    });
    let client = script.await.client_with(|config| config.body_idle_timeout = SHORT);
    let error = body(client.get().await.unwrap()).await.expect_err("silence");
    assert_eq!((error.proxy_status(), error.status().as_u16()), ("connection_read_timeout", 504));
    assert_eq!(client.origins.metrics.in_flight.get(), 0);
}

#[tokio::test]
async fn a_reset_before_the_head_is_an_error() {
    let script = Script::run(|_, mut peer| async move {
        peer.request().await;
        SockRef::from(&peer.tcp).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let error = script.await.client().failure().await;
    assert_eq!((error.kind(), error.unseen()), (Kind::Terminated, false));
}

#[tokio::test]
async fn interim_responses_come_in_order_before_the_final_one() {
    let script = Script::once(concat!(
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nlink: </b>\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    ));
    let client = script.await.client();
    let seen = Arc::<Mutex<Vec<(u16, usize)>>>::default();
    let sink = Arc::clone(&seen);
    let interim: Interim = Arc::new(move |status: StatusCode, fields: &HeaderMap| {
        sink.lock().push((status.as_u16(), fields.len()));
    });
    let response = client.send(OriginRequest { interim: Some(interim), ..get() }).await.unwrap();
    assert_eq!(*seen.lock(), [(102, 0), (103, 2)]);
    assert!(!response.headers.contains_key("link"));
    assert_eq!(text(response).await, "hi");
}

#[tokio::test]
async fn trailers_arrive_after_the_data() {
    let response = answer(concat!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n",
        "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n"
    ));
    let collected = response.await.unwrap().body.collect().await.unwrap();
    assert_eq!(collected.trailers().expect("trailers")["x-sum"], "1");
    assert_eq!(collected.to_bytes(), "hi");
}

#[tokio::test]
async fn a_length_beside_a_transfer_coding_is_dropped_and_the_connection_not_trusted() {
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let script = Script::always(both).await;
    let client = script.client();
    let response = client.get().await.unwrap();
    assert!(!response.headers.contains_key("content-length"));
    assert_eq!(text(response).await, "hi");
    client.text().await;
    assert_eq!(script.connections(), 2);
}

/// The head of the request that arrives at the origin.
async fn head_of(request: OriginRequest) -> String {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let script = Script::run(move |_, mut peer| {
        let sender = sender.lock().unwrap().take();
        async move {
            let head = peer.request().await.expect("a request");
            sender.expect("one request").send(head).unwrap();
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            peer.closed().await;
        }
    });
    let client = Client::new(&format!("{}/base/", script.await.url), config());
    client.send(request).await.unwrap();
    receiver.await.unwrap()
}

#[tokio::test]
async fn requests_say_what_they_are() {
    let host = Some(HeaderValue::from_static("example.com"));
    let head = head_of(OriginRequest { host, ..get() }).await;
    assert_eq!(head, "GET /base/a?b HTTP/1.1\r\nhost: example.com\r\n\r\n");
    assert!(head_of(get()).await.contains("\r\nhost: 127.0.0.1:"));
    assert!(head_of(post(Bytes::new())).await.contains("\r\ncontent-length: 0\r\n"));
    let mut lying = post(Bytes::from_static(b"four"));
    lying.headers.insert("content-length", HeaderValue::from_static("400"));
    assert!(head_of(lying).await.contains("\r\ncontent-length: 4\r\n"));
    let mut lying = get();
    lying.headers.insert("content-length", HeaderValue::from_static("400"));
    assert!(!head_of(lying).await.contains("content-length"));
    let (_sender, body) = stream();
    assert!(head_of(OriginRequest { body, ..get() }).await.contains("\r\ntransfer-encoding: chunked\r\n"));
}

#[tokio::test]
async fn a_response_may_come_before_the_request_is_sent() {
    let script = Script::always("HTTP/1.1 413 Too Much\r\ncontent-length: 2\r\n\r\nno").await;
    let client = script.client();
    let (pieces, body) = stream();
    let response = client.send(OriginRequest { body, ..post(Bytes::new()) }).await.unwrap();
    assert_eq!(response.status, 413);
    pieces.send(Ok(Bytes::from_static(b"late"))).await.unwrap();
    assert_eq!(text(response).await, "no");
    assert_eq!(client.origins.metrics.idle.get(), 0, "its request is not complete");
    assert_eq!(client.text().await, "no");
    assert_eq!(script.connections(), 2);
}

#[tokio::test]
async fn the_deadline_of_the_head_begins_when_the_request_is_sent() {
    let script = Script::run(|_, mut peer| async move {
        peer.request().await;
        peer.until("\r\n0\r\n\r\n").await;
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    });
    let client = script.await.client_with(|config| config.head_timeout = 3 * SHORT);
    let (pieces, body) = stream();
    let sending = async {
        for _ in 0..5 {
            tokio::time::sleep(SHORT).await;
            pieces.send(Ok(Bytes::from_static(b"piece"))).await.unwrap();
        }
        drop(pieces);
    };
    let (response, ()) = tokio::join!(client.send(OriginRequest { body, ..post(Bytes::new()) }), sending);
    assert_eq!(response.expect("a response").status, 200);
}

#[tokio::test]
async fn a_failing_request_body_is_not_the_origins_fault() {
    let script = Script::run(|_, mut peer| async move {
        peer.request().await;
        peer.closed().await;
    });
    let client = script.await.client();
    let (pieces, body) = stream();
    pieces.send(Err("the client left".into())).await.unwrap();
    let error = client.send(OriginRequest { body, ..post(Bytes::new()) }).await.expect_err("no body");
    assert_eq!((error.proxy_status(), error.status().as_u16()), ("http_request_error", 400));
}

#[tokio::test]
async fn an_upgrade_hands_over_the_connection() {
    let script = Script::run(|_, mut peer| async move {
        let head = peer.request().await.unwrap();
        assert!(head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: echo\r\n"));
        peer.say("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly").await;
        let mut word = [0; 4];
        peer.tcp.read_exact(&mut word).await.unwrap();
        peer.say(word).await;
    });
    let client = script.await.client();
    let mut request = OriginRequest { upgrade: true, ..get() };
    request.headers.insert(HeaderName::from_static("upgrade"), HeaderValue::from_static("echo"));
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status, StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = within(response.upgrade.expect("an upgrade")).await.unwrap();
    let mut io = hyper_util::rt::TokioIo::new(upgraded);
    io.write_all(b"ping").await.unwrap();
    let mut heard = Vec::new();
    within(io.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"earlyping");
    assert_eq!(client.origins.metrics.in_flight.get(), 0);
}
