//! Origins that are not there, hang, lie about lengths, or talk nonsense.

use super::{SOON, assert_alive};
use crate::support::{client, client::Response, gateway, gateway::Builder, origin, raw};

/// Short deadlines towards origins.
const IMPATIENT: &str = "[origin]\nconnect_timeout = '500ms'\nhead_timeout = '500ms'\nbody_idle_timeout = '500ms'";

fn impatient(origin: &raw::Origin) -> Builder {
    gateway::new().raw_origin(origin).config(IMPATIENT)
}

#[track_caller]
fn assert_failed(response: &Response, status: u16, error: &str) {
    let proxy_status = response.header("proxy-status").unwrap_or_default();
    assert_eq!(response.status, status, "{proxy_status}");
    assert!(proxy_status.contains(error), "{error} is not in {proxy_status:?}");
    assert!(!response.broken);
    assert!(response.end_at - response.sent < SOON, "{:?}", response.end_at - response.sent);
}

#[tokio::test]
async fn an_origin_that_is_not_there() {
    let gateway = gateway::new().upstream("http://127.0.0.1:1").config(IMPATIENT).run().await;
    assert_failed(&gateway.get("/a").await, 502, "connection_refused");
}

#[tokio::test]
async fn an_origin_whose_name_does_not_resolve() {
    let gateway = gateway::new().upstream("http://origin.invalid").config(IMPATIENT).run().await;
    let response = gateway.get("/a").await;
    assert!([502, 504].contains(&response.status), "{}", response.status);
    let proxy_status = response.header("proxy-status").expect("a Proxy-Status");
    assert!(proxy_status.contains("dns_"), "{proxy_status}");
}

#[tokio::test]
async fn an_origin_that_resets() {
    let origin = raw::serve(|mut conn| async move {
        conn.try_head().await;
        conn.reset();
    })
    .await;
    let gateway = impatient(&origin).run().await;
    assert_failed(&gateway.get("/a").await, 502, "connection_terminated");
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn an_origin_that_closes_without_an_answer() {
    let origin = raw::answer_and_close("").await;
    let gateway = impatient(&origin).run().await;
    assert_failed(&gateway.get("/a").await, 502, "connection_terminated");
}

#[tokio::test]
async fn an_origin_that_never_answers() {
    let origin = raw::answer("").await;
    let gateway = impatient(&origin).run().await;
    assert_failed(&gateway.get("/a").await, 504, "http_response_timeout");
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn an_origin_that_sends_half_a_head() {
    let origin = raw::answer("HTTP/1.1 200 OK\r\ncache-control: max-a").await;
    let gateway = impatient(&origin).run().await;
    assert_failed(&gateway.get("/a").await, 504, "http_response_timeout");
}

#[tokio::test]
async fn an_origin_that_speaks_garbage() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
    ] {
        let origin = raw::answer_and_close(garbage).await;
        let gateway = impatient(&origin).run().await;
        let response = gateway.get("/a").await;
        assert_eq!(response.status, 502, "{garbage:?}");
        assert!(response.header("proxy-status").is_some_and(|value| value.contains("error=")), "{garbage:?}");
        assert_alive(&gateway).await;
    }
}

#[tokio::test]
async fn an_origin_whose_head_never_ends() {
    let origin = raw::serve(|mut conn| async move {
        conn.head().await;
        conn.write("HTTP/1.1 200 OK\r\n").await;
        while conn.try_write("x-more: and more and more and more\r\n".repeat(100)).await.is_ok() {}
    })
    .await;
    let gateway = impatient(&origin).run().await;
    let response = gateway.get("/a").await;
    assert!([502, 504].contains(&response.status), "{}", response.status);
    assert!(response.end_at - response.sent < SOON);
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn an_origin_that_ends_too_early() {
    for head in ["content-length: 100\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let origin = raw::answer_and_close(format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n{head}")).await;
        let gateway = impatient(&origin).run().await;
        for _ in 0..2 {
            // Before the head has left the gateway can still say so; afterwards only a broken connection does.
            let mut connection = gateway.raw().await;
            connection.write("GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
            let answer = String::from_utf8_lossy(&connection.rest().await.0).into_owned();
            let told = answer.starts_with("HTTP/1.1 502") && answer.contains("http_response_incomplete");
            let broken = !answer.contains("content-length: 5\r\n") && !answer.ends_with("0\r\n\r\n");
            assert!(told || broken, "{head:?} must not look complete: {answer}");
            assert!(!answer.contains("; hit"), "{head:?} must not be stored: {answer}");
        }
    }
}

#[tokio::test]
async fn an_origin_that_falls_silent_in_the_body() {
    let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 100\r\n\r\nhello";
    let origin = raw::answer(head).await;
    let gateway = impatient(&origin).run().await;
    let response = gateway.get("/a").await;
    assert!(response.broken && response.end_at - response.sent < SOON);
    assert!(!gateway.get("/a").await.cache().hit);
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn an_origin_that_sends_more_than_it_says() {
    let origin = raw::answer(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 10\r\n\r\n0123456789HTTP/1.1 200 OK\r\n\
         content-length: 5\r\n\r\nwrong",
    )
    .await;
    let gateway = impatient(&origin).run().await;
    gateway.get("/a").await.assert_ok("0123456789");
    gateway.get("/a").await.assert_ok("0123456789").assert_hit();
    // What was left over in the first connection answers nobody.
    gateway.get("/b").await.assert_ok("0123456789");
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn an_origin_that_sends_two_lengths() {
    let origin = raw::answer_and_close("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!").await;
    let gateway = impatient(&origin).run().await;
    assert_eq!(gateway.get("/a").await.status, 502);
}

#[tokio::test]
async fn an_origin_that_breaks_a_chunk() {
    for chunk in ["xyz\r\nhello\r\n0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "ffffffffffffffffff\r\nhello"] {
        let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n";
        let origin = raw::answer_and_close(format!("{head}{chunk}")).await;
        let gateway = impatient(&origin).run().await;
        for _ in 0..2 {
            match client::get(gateway.url("/a")).try_open().await {
                Ok(response) => {
                    let response = response.finish().await;
                    assert!(response.broken || response.status == 502, "{chunk:?}");
                    assert!(!response.cache().hit, "{chunk:?}");
                }
                Err(error) => assert!(!error.is_user(), "{error}"),
            }
        }
        assert_alive(&gateway).await;
    }
}

#[tokio::test]
async fn a_kept_connection_the_origin_has_closed() {
    let origin =
        raw::answer_and_close("HTTP/1.1 200 OK\r\ncache-control: no-store\r\ncontent-length: 5\r\n\r\nhello").await;
    let gateway = impatient(&origin).run().await;
    for _ in 0..20 {
        gateway.get("/a").await.assert_ok("hello");
    }
}

#[tokio::test]
async fn an_unsafe_request_is_not_repeated() {
    let origin = raw::serve(|mut conn| async move {
        conn.message().await;
        conn.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        conn.message().await;
        conn.reset();
    })
    .await;
    let gateway = impatient(&origin).run().await;

    let post = || client::request("POST", gateway.url("/a")).body("money").send();
    post().await.assert_ok("ok");
    assert_eq!(post().await.status, 502, "the origin has seen it, so nobody may send it again");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn many_hanging_origins_leave_room_for_others() {
    let hanging = raw::answer("").await;
    let healthy = origin::new().route("/b/ok", "ok").max_age(60).run().await;
    let config = format!(
        "{IMPATIENT}\nconnections_max = 4\nqueue_max = 2\nqueue_timeout = '300ms'\n\
         [[route]]\nname = 'a'\npath = '/a'\nupstream = '{}'\n[[route]]\nname = 'b'\npath = '/b'\nupstream = '{}'",
        hanging.url(),
        healthy.url()
    );
    let gateway = gateway::new().config(config).run().await;

    let stuck = (0..20).map(|number| client::get(gateway.url(&format!("/a/{number}"))).send());
    let stuck = tokio::spawn(futures_util::future::join_all(stuck.collect::<Vec<_>>()));
    gateway.get("/b/ok").await.assert_ok("ok");
    for response in stuck.await.expect("no client panics") {
        assert!([503, 504].contains(&response.status), "{}", response.status);
    }
    assert!(hanging.connections() <= 8, "{} connections where 4 are allowed at once", hanging.connections());
}
