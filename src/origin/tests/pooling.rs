//! Connections: kept, bounded, given up, replaced.

use super::*;

const HI: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

#[tokio::test]
async fn a_connection_is_used_again() {
    let script = Script::always(HI).await;
    let client = script.client();
    for _ in 0..5 {
        assert_eq!(client.text().await, "hi");
    }
    assert_eq!((script.connections(), script.requests()), (1, 5));
    assert_eq!(client.origins.metrics.reused.get(), 4);
    assert_eq!((client.origins.metrics.idle.get(), client.origins.metrics.in_flight.get()), (1, 0));
}

#[tokio::test]
async fn routes_with_the_same_endpoint_share_connections_others_do_not() {
    let script = Script::always(HI).await;
    let client = script.client();
    client.text().await;
    let same = Upstream::new(std::slice::from_ref(&script.url), config(), TargetPolicy::Any).unwrap();
    text(client.origins.send(&same, get()).await.unwrap()).await;
    assert_eq!(script.connections(), 1);
    let guarded = TargetPolicy::Public { allowed: vec!["127.0.0.0/8".parse().unwrap()] };
    let guarded = Upstream::new(std::slice::from_ref(&script.url), config(), guarded).unwrap();
    text(client.origins.send(&guarded, get()).await.unwrap()).await;
    assert_eq!(script.connections(), 2, "a connection is not used under a policy it was not opened under");
}

#[tokio::test]
async fn a_forbidden_target_is_never_connected_to() {
    let script = Script::always(HI).await;
    let client = script.client();
    let guarded = TargetPolicy::Public { allowed: Vec::new() };
    let guarded = Upstream::new(std::slice::from_ref(&script.url), config(), guarded).unwrap();
    let error = client.origins.send(&guarded, get()).await.expect_err("prohibited");
    assert_eq!((error.proxy_status(), error.unseen()), ("destination_ip_prohibited", true));
    let port = script.url.rsplit(':').next().unwrap().parse().unwrap();
    let public = TargetPolicy::Public { allowed: Vec::new() };
    let tunnel = client.origins.connect_tunnel("localhost", port, &public, SOON).await;
    assert_eq!(tunnel.expect_err("prohibited").kind(), Kind::Prohibited);
    client.origins.connect_tunnel("127.0.0.1", port, &TargetPolicy::Any, SOON).await.expect("a tunnel");
}

#[tokio::test]
async fn a_connection_unused_for_too_long_is_not_used() {
    let script = Script::always(HI).await;
    let client = script.client_with(|config| config.pool_idle_timeout = SHORT);
    client.text().await;
    tokio::time::sleep(SHORT).await;
    client.text().await;
    assert_eq!(script.connections(), 2);
}

#[tokio::test]
async fn a_connection_the_origin_will_not_keep_is_not_used() {
    for head in ["connection: close", "keep-alive: timeout=1"] {
        let script = Script::run(move |_, mut peer| async move {
            while peer.request().await.is_some() {
                peer.say(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{head}\r\n\r\nhi")).await;
            }
        });
        let script = script.await;
        let client = script.client();
        client.text().await;
        client.text().await;
        assert_eq!(script.connections(), 2, "{head}");
    }
}

#[tokio::test]
async fn unused_connections_are_swept() {
    let (gone, closed) = tokio::sync::oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    let script = Script::run(move |_, mut peer| {
        let gone = gone.lock().unwrap().take();
        async move {
            peer.request().await;
            peer.say(HI).await;
            peer.closed().await;
            drop(gone);
        }
    });
    let client = script.await.client_with(|config| config.pool_idle_timeout = SHORT);
    client.text().await;
    assert!(within(closed).await.is_err(), "the server saw the connection close");
    assert_eq!((client.origins.metrics.idle.get(), client.origins.metrics.open.get()), (0, 0));
}

/// Answers the first request of the first connection; then takes another and hangs up without a word.
async fn hangs_up_on_the_second() -> Script {
    Script::run(|number, mut peer| async move {
        let mut answers = if number == 0 { 1 } else { usize::MAX };
        while peer.request().await.is_some() && answers > 0 {
            answers -= 1;
            peer.say(HI).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_idempotent_request_lost_on_an_idle_connection_is_sent_again() {
    let script = hangs_up_on_the_second().await;
    let client = script.client();
    client.text().await;
    assert_eq!(client.text().await, "hi");
    assert_eq!((script.connections(), script.requests()), (2, 3));
    assert_eq!(client.origins.metrics.retries.get(), 1);
}

#[tokio::test]
async fn a_post_lost_on_an_idle_connection_is_not_sent_again() {
    let script = hangs_up_on_the_second().await;
    let client = script.client();
    client.text().await;
    let error = client.send(post(Bytes::from_static(b"x"))).await.expect_err("lost");
    assert_eq!((error.proxy_status(), error.unseen()), ("connection_terminated", false));
    assert_eq!(script.requests(), 2);
}

#[tokio::test]
async fn a_request_lost_on_a_new_connection_is_not_sent_again() {
    let script = Script::once("").await;
    let error = script.client().failure().await;
    assert_eq!((error.proxy_status(), error.status().as_u16()), ("connection_terminated", 502));
    assert_eq!(script.requests(), 1);
}

#[tokio::test]
async fn a_request_answered_in_part_is_not_sent_again() {
    let script = Script::run(|_, mut peer| async move {
        peer.request().await;
        peer.say(HI).await;
        peer.request().await;
        peer.say("HTTP/1.1 2").await;
    });
    let script = script.await;
    let client = script.client();
    client.text().await;
    assert_eq!(client.failure().await.kind(), Kind::Incomplete);
    assert_eq!(script.requests(), 2);
}

#[tokio::test]
async fn connections_and_the_queue_are_bounded() {
    let script = Script::always("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let client = script.client_with(|config| (config.connections_max, config.queue_max) = (1, 1));
    let first = client.get().await.unwrap();
    // The body is whole but was not read: the connection is still taken.
    let second = client.get();
    tokio::pin!(second);
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    let third = client.failure().await;
    assert_eq!((third.proxy_status(), third.status().as_u16()), ("connection_limit_reached", 503));
    assert!(third.unseen());
    assert_eq!(text(first).await, "hi");
    assert_eq!(text(second.await.unwrap()).await, "hi");
    assert_eq!(script.connections(), 1);
}

#[tokio::test]
async fn a_wait_for_a_connection_ends() {
    let script = Script::always(HI).await;
    let client = script.client_with(|config| (config.connections_max, config.queue_timeout) = (1, SHORT));
    let held = client.get().await.unwrap();
    assert_eq!(client.failure().await.kind(), Kind::ConnectionLimit);
    drop(held);
    assert_eq!(client.text().await, "hi");
}

#[tokio::test]
async fn a_cancelled_request_frees_its_connection() {
    let script = Script::run(|number, mut peer| async move {
        peer.request().await;
        if number == 0 {
            peer.closed().await;
        }
        peer.say(HI).await;
    });
    let client = script.await.client_with(|config| config.connections_max = 1);
    assert!(tokio::time::timeout(SHORT, client.get()).await.is_err(), "the first is not answered");
    assert_eq!(client.text().await, "hi");
}

#[tokio::test]
async fn an_abandoned_body_closes_the_connection() {
    let (gone, closed) = tokio::sync::oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    let script = Script::run(move |_, mut peer| {
        let gone = gone.lock().unwrap().take();
        async move {
            peer.request().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\nbegin").await;
            peer.closed().await;
            drop(gone);
        }
    });
    let client = script.await.client();
    drop(client.get().await.unwrap());
    assert!(within(closed).await.is_err());
    assert_eq!(client.origins.metrics.in_flight.get(), 0);
}

#[tokio::test]
async fn refused_connections_trip_the_breaker() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = Config { breaker_failures: 2, breaker_rest: SHORT, ..config() };
    let client = Client::new(&format!("http://{gone}"), config);
    for _ in 0..2 {
        let error = client.failure().await;
        assert_eq!((error.proxy_status(), error.status().as_u16()), ("connection_refused", 502));
        assert!(error.unseen());
    }
    let resting = client.failure().await;
    assert_eq!((resting.proxy_status(), resting.status().as_u16()), ("destination_unavailable", 503));
    tokio::time::sleep(SHORT).await;
    assert_eq!(client.failure().await.kind(), Kind::Refused, "the probe");
    assert_eq!(client.failure().await.kind(), Kind::Unavailable, "rests again");
}

#[tokio::test]
async fn another_base_takes_over() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let script = Script::always(HI).await;
    let client = Client::many(&[&format!("http://{gone}"), &script.url], config());
    for _ in 0..8 {
        assert_eq!(client.text().await, "hi");
    }
    assert_eq!((script.connections(), script.requests()), (1, 8));
}

#[tokio::test]
async fn what_comes_uninvited_ends_the_connection() {
    let script = Script::always("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi and twenty more bytes").await;
    let client = script.client();
    assert_eq!(client.text().await, "hi");
    assert_eq!(client.text().await, "hi");
    assert_eq!(script.connections(), 2);
}

#[tokio::test]
async fn a_burst_uses_as_many_connections_as_needed_and_allowed() {
    let script = Script::always(HI).await;
    let client = Arc::new(script.client_with(|config| (config.connections_max, config.queue_max) = (4, 200)));
    let tasks = (0..200).map(|_| {
        tokio::spawn({
            let client = Arc::clone(&client);
            async move { client.text().await }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap(), "hi");
    }
    assert!(script.connections() <= 4, "{}", script.connections());
    assert_eq!(script.requests(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_change_hands_under_load() {
    let script = Script::always(HI).await;
    let client = Arc::new(script.client_with(|config| config.connections_max = 4));
    let tasks = (0..16).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move {
            for _ in 0..100 {
                assert_eq!(client.text().await, "hi");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let metrics = &client.origins.metrics;
    assert_eq!((script.requests(), metrics.in_flight.get()), (1600, 0));
    assert!(metrics.open.get() <= 4 && metrics.idle.get() == metrics.open.get());
}
