//! Clients that smuggle, flood, dawdle, or leave.

use std::time::Duration;

use tokio::time::{Instant, interval, sleep};

use super::{SOON, assert_alive};
use crate::support::{gateway, gateway::Gateway, origin, origin::reply, pattern, raw, raw::Ending};

/// Sends `request` and returns the status of the answer, if there is one, after the gateway has closed.
async fn refused(gateway: &Gateway, request: &str) -> Option<u16> {
    let mut connection = gateway.raw().await;
    connection.try_write(request).await.ok();
    let (answer, _) = connection.rest().await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "more than one answer: {answer}");
    (!answer.is_empty()).then(|| raw::status(&answer))
}

#[tokio::test]
async fn requests_that_can_be_read_two_ways() {
    let origin = origin::new().route("/a", "hello").route("/smuggled", "no").run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";

    for fields in [
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "content-length: 5, 6\r\n\r\nhello",
        "content-length: +5\r\n\r\nhello",
        "content-length: -1\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding:\n chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let status = refused(&gateway, &format!("POST /a HTTP/1.1\r\nhost: x\r\n{fields}{smuggled}")).await;
        assert!(status.is_none_or(|status| (400..=501).contains(&status)), "{fields:?}: {status:?}");
        assert_eq!(origin.requests("/smuggled"), 0, "{fields:?}");
    }
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn a_length_beside_chunked_smuggles_nothing() {
    let origin = origin::new().route("/a", "hello").route("/smuggled", "no").run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut connection = gateway.raw().await;
    let body = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let fields = format!("content-length: {}\r\ntransfer-encoding: chunked", body.len());
    connection.write(format!("POST /a HTTP/1.1\r\nhost: x\r\n{fields}\r\n\r\n{body}")).await;
    // RFC 9112 section 6.1: refused, or read as chunked and closed after the answer.
    let (answer, _) = connection.rest().await;
    assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count(), 1);
    assert_eq!(origin.requests("/smuggled"), 0);
    assert!(origin.seen("/a").iter().all(|request| request.header("content-length") != Some("38")));
}

#[tokio::test]
async fn requests_that_are_none() {
    let origin = origin::new().route("/a", "hello").run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    for request in [
        "GET /a HTTP/1.1\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: x\r\nbad name: 1\r\n\r\n",
        "GET /a HTTP/9.9\r\nhost: x\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
        "\0\0\0\r\n\r\n",
        "G\u{fffd}T /a HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let status = refused(&gateway, request).await;
        assert!(status.is_none_or(|status| (400..=505).contains(&status)), "{request:?}: {status:?}");
    }
    assert_eq!(origin.requests("/a"), 0);
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn a_huge_head() {
    let origin = origin::new().route("/a", "hello").run().await;
    let config = "[client]\nhead_bytes_max = '16 KiB'\nhead_fields_max = 50";
    let gateway = gateway::new().origin(&origin).config(config).run().await;

    let long = format!("GET /a HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(100 << 10));
    let status = refused(&gateway, &long).await;
    assert!(status.is_none_or(|status| status == 431), "{status:?}");
    let target = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100 << 10));
    let status = refused(&gateway, &target).await;
    assert!(status.is_none_or(|status| status == 431 || status == 414), "{status:?}");
    let many = format!("GET /a HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(200));
    let status = refused(&gateway, &many).await;
    assert!(status.is_none_or(|status| status == 431), "{status:?}");
    assert_eq!(origin.requests("/a"), 0);
}

#[tokio::test]
async fn half_a_request() {
    let origin = origin::new().route("/a", "hello").run().await;
    let gateway = gateway::new().origin(&origin).config("[client]\nhead_timeout = '500ms'").run().await;

    let began = Instant::now();
    let status = refused(&gateway, "GET /a HTTP/1.1\r\nhost: x\r\n").await;
    assert!(status.is_none_or(|status| status == 408), "{status:?}");
    assert!(began.elapsed() < SOON);
}

#[tokio::test]
async fn a_head_byte_by_byte() {
    let origin = origin::new().route("/a", "hello").run().await;
    let gateway = gateway::new().origin(&origin).config("[client]\nhead_timeout = '1s'").run().await;

    let began = Instant::now();
    let mut connection = gateway.raw().await;
    let mut tick = interval(Duration::from_millis(100));
    for byte in "GET /a HTTP/1.1\r\nhost: x\r\nx-slow: ".bytes().chain(std::iter::repeat_n(b'x', 1000)) {
        tick.tick().await;
        if connection.try_write([byte]).await.is_err() || began.elapsed() > SOON {
            break;
        }
    }
    assert!(began.elapsed() < SOON, "the gateway reads one byte after the other for {:?}", began.elapsed());
    assert_eq!(origin.requests("/a"), 0);
}

#[tokio::test]
async fn a_body_that_stops_coming() {
    let origin = origin::new().route("/a", "hello").run().await;
    let gateway = gateway::new().origin(&origin).config("[client]\nbody_idle_timeout = '500ms'").run().await;

    let began = Instant::now();
    let status = refused(&gateway, "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhello").await;
    assert!(status.is_none_or(|status| status >= 400), "{status:?}");
    assert!(began.elapsed() < SOON);
}

#[tokio::test]
async fn a_body_that_is_too_large() {
    let origin = origin::new().route("/a", "hello").run().await;
    let gateway = gateway::new().origin(&origin).config("[client]\nbody_bytes_max = '1 kB'").run().await;

    let declared = "POST /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1000000\r\n\r\n";
    assert_eq!(refused(&gateway, declared).await, Some(413));
    let chunk = format!("800\r\n{}\r\n", "x".repeat(0x800));
    let chunked = format!("POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    let status = refused(&gateway, &chunked).await;
    assert!(status.is_none_or(|status| [413, 502].contains(&status)), "{status:?}");
    assert!(origin.seen("/a").iter().all(|request| request.body.len() <= 1000));
}

#[tokio::test]
async fn a_client_that_does_not_read() {
    let origin = origin::new().route("/a", reply(pattern(32 << 20)).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).config("[client]\nwrite_timeout = '1s'").run().await;
    gateway.get("/a").await;

    let mut connection = gateway.raw().await;
    connection.write("GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    connection.head().await;
    // Longer than the gateway may wait: one that still does would deliver everything afterwards.
    sleep(Duration::from_secs(3)).await;
    let (read, ending) = connection.rest().await;
    assert!(read.len() < 32 << 20, "{} bytes and then {ending:?}", read.len());
}

#[tokio::test]
async fn clients_that_leave_early() {
    let origin = origin::new().route("/a", reply(pattern(1 << 20)).cache_control("no-store")).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    for _ in 0..50 {
        let mut connection = gateway.raw().await;
        connection.write("GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
        connection.reset();
    }
    assert_eq!(gateway.get("/a").await.body, pattern(1 << 20));
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let origin = origin::new().route("/a", "hello").run().await;
    let gateway = gateway::new().origin(&origin).config("[client]\nidle_timeout = '500ms'").run().await;

    let mut connection = gateway.raw().await;
    connection.write("GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let began = Instant::now();
    connection.message().await;
    assert_eq!(connection.rest().await, (Vec::new(), Ending::Closed));
    assert!(began.elapsed() < SOON);
}
