//! Identical requests at the same time: one origin call, and what becomes of everyone when that call goes wrong.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    client, eventually,
    gate::Gate,
    gateway, origin,
    origin::{Reply, reply},
    outlive, pattern, raw,
};

/// The first part of `body` at once, the rest once `gate` opens.
fn in_two(body: &[u8], first: usize, gate: &Gate) -> Reply {
    reply(body[..first].to_vec()).gate(gate).chunk(body[first..].to_vec())
}

#[tokio::test]
async fn a_thousand_requests_share_one_origin_call() {
    let (gate, body) = (Gate::new(), pattern(32 << 10));
    let origin = origin::new().route("/a", in_two(&body, 1000, &gate).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let start = || async {
        let mut response = client::get(gateway.url("/a")).open().await;
        assert_eq!(response.read(1000).await, &body[..1000]);
        response
    };
    // All thousand hold the first part while the origin still withholds the rest: they read what grows.
    let started = join_all((0..1000).map(|_| start())).await;
    assert_eq!(origin.requests("/a"), 1);
    gate.open();
    let finished = join_all(started.into_iter().map(client::Streaming::finish)).await;
    let whole = finished.iter().filter(|response| !response.broken && response.body == body).count();
    let collapsed = finished.iter().filter(|response| response.cache().collapsed).count();
    assert_eq!((whole, collapsed, origin.requests("/a")), (1000, 999, 1));
    gateway.get("/a").await.assert_hit();
}

#[tokio::test]
async fn streams_of_one_connection_coalesce_too() {
    let (gate, body) = (Gate::new(), pattern(32 << 10));
    let origin = origin::new().route("/a", in_two(&body, 1000, &gate).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut connection = client::connect_h2(gateway.data()).await;
    let mut started = Vec::new();
    for _ in 0..50 {
        let mut response = connection.open(client::get(gateway.url("/a"))).await;
        response.read(1000).await;
        started.push(response);
    }
    gate.open();
    for response in join_all(started.into_iter().map(client::Streaming::finish)).await {
        assert!(!response.broken && response.body == body);
    }
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn followers_waiting_for_the_head_get_it_with_the_leader() {
    let gate = Gate::new();
    let origin = origin::new().route("/a", reply("hello").max_age(60).hold(&gate)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let all = tokio::spawn(join_all((0..50).map(|_| client::get(gateway.url("/a")).send()).collect::<Vec<_>>()));
    origin.arrived("/a", 1).await;
    gate.open();
    let all = all.await.expect("no client panics");
    let first = all.iter().map(|response| response.head_at).min().expect("fifty");
    let last = all.iter().map(|response| response.head_at).max().expect("fifty");
    all.iter().for_each(|response| {
        response.assert_ok("hello");
    });
    assert!(last - first < Duration::from_secs(2), "{:?}", last - first);
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn not_storable_releases_everyone_and_is_remembered() {
    let (gate, crowd) = (Gate::new(), Gate::new());
    let (first, second) = (gate.clone(), crowd.clone());
    let origin = origin::new()
        .handler("/a", move |_, nth| match nth {
            0 => reply("hello").cache_control("no-store").hold(&first),
            _ => reply("hello").cache_control("no-store").hold(&second),
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).config("[origin]\nconnections_max = 200").run().await;
    let burst = || join_all((0..50).map(|_| client::get(gateway.url("/a")).send()).collect::<Vec<_>>());

    let waiting = tokio::spawn(burst());
    origin.arrived("/a", 1).await;
    gate.open();
    // Forty-nine come to the origin side by side: were they one after the other, the second would never arrive.
    crowd.arrived(49).await;
    crowd.open();
    for response in waiting.await.expect("no client panics") {
        response.assert_ok("hello");
    }
    assert_eq!(origin.requests("/a"), 50);

    // Hit-for-miss: the next burst does not even wait for a first answer.
    for response in burst().await {
        response.assert_ok("hello");
        assert!(!response.cache().collapsed, "{:?}", response.cache());
    }
    assert_eq!(origin.requests("/a"), 100);
}

#[tokio::test]
async fn hit_for_miss_sends_requests_side_by_side() {
    let crowd = Gate::new();
    let held = crowd.clone();
    let origin = origin::new()
        .handler("/a", move |_, nth| {
            let plain = reply("hello").cache_control("no-store");
            if nth == 0 { plain } else { plain.hold(&held) }
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).config("[origin]\nconnections_max = 200").run().await;

    gateway.get("/a").await.assert_ok("hello");
    let burst = tokio::spawn(join_all((0..50).map(|_| client::get(gateway.url("/a")).send()).collect::<Vec<_>>()));
    crowd.arrived(50).await;
    crowd.open();
    for response in burst.await.expect("no client panics") {
        response.assert_ok("hello");
    }
}

#[tokio::test]
async fn a_failure_before_the_head_fails_everyone_and_spares_the_origin() {
    let gate = Gate::new();
    let closed = gate.clone();
    let origin = raw::serve(move |mut conn| {
        let gate = closed.clone();
        async move {
            if conn.try_head().await.is_some() {
                gate.pass().await;
                conn.reset();
            }
        }
    })
    .await;
    let gateway = gateway::new().raw_origin(&origin).run().await;

    let all = tokio::spawn(join_all((0..50).map(|_| client::get(gateway.url("/a")).send()).collect::<Vec<_>>()));
    gate.arrived(1).await;
    gate.open();
    for response in all.await.expect("no client panics") {
        assert_eq!(response.status, 502, "{:?}", response.headers);
        assert!(response.header("proxy-status").is_some_and(|value| value.contains("connection_terminated")));
    }
    assert!(origin.connections() <= 5, "{} tries for fifty requests", origin.connections());
}

#[tokio::test]
async fn a_break_in_the_middle_breaks_every_reader_and_stores_nothing() {
    for declared in [true, false] {
        let (gate, body) = (Gate::new(), pattern(10_000));
        let broken = reply(body[..1000].to_vec()).max_age(60).gate(&gate).break_here();
        let broken = if declared { broken.header("content-length", "10000") } else { broken };
        let origin = origin::new().route("/a", [broken, reply(body.clone()).max_age(60)]).run().await;
        let gateway = gateway::new().origin(&origin).run().await;

        let mut started = Vec::new();
        for _ in 0..20 {
            let mut response = client::get(gateway.url("/a")).open().await;
            response.read(1000).await;
            started.push(response);
        }
        assert_eq!(origin.requests("/a"), 1);
        gate.open();
        for response in join_all(started.into_iter().map(client::Streaming::finish)).await {
            assert!(response.broken, "a short body must not end cleanly (length declared: {declared})");
        }
        let again = gateway.get("/a").await;
        assert!(!again.cache().hit && !again.broken && again.body == body);
        gateway.get("/a").await.assert_hit();
    }
}

#[tokio::test]
async fn a_broken_body_breaks_the_stream_over_http_2() {
    let gate = Gate::new();
    let origin = origin::new().route("/a", reply("begin").max_age(60).gate(&gate).break_here()).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut connection = client::connect_h2(gateway.data()).await;
    let mut response = connection.open(client::get(gateway.url("/a"))).await;
    response.read(5).await;
    gate.open();
    assert!(response.finish().await.broken);
}

#[tokio::test]
async fn the_leader_may_leave() {
    let (gate, body) = (Gate::new(), pattern(10_000));
    let origin = origin::new().route("/a", in_two(&body, 1000, &gate).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut leader = client::get(gateway.url("/a")).open().await;
    leader.read(1000).await;
    let mut follower = client::get(gateway.url("/a")).open().await;
    follower.read(1000).await;
    drop(leader);
    gate.open();
    let follower = follower.finish().await;
    assert!(!follower.broken && follower.body == body);
    gateway.get("/a").await.assert_hit();
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn an_abandoned_fill_is_finished_and_stored() {
    let (gate, body) = (Gate::new(), pattern(10_000));
    let origin = origin::new().route("/a", in_two(&body, 1000, &gate).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nclient_gone = 'finish'").run().await;

    let mut only = client::get(gateway.url("/a")).open().await;
    only.read(1000).await;
    drop(only);
    gate.open();
    let hit = eventually("the fill to be stored", || async {
        let response = gateway.get("/a").await;
        response.cache().hit.then_some(response)
    })
    .await;
    assert_eq!(hit.body, body);
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn an_abandoned_fill_can_be_cancelled() {
    let gone = Gate::new();
    let told = gone.clone();
    let origin = raw::serve(move |mut conn| {
        let told = told.clone();
        async move {
            conn.head().await;
            conn.write("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 10\r\n\r\nhello").await;
            conn.rest().await;
            told.pass().await;
        }
    })
    .await;
    let gateway = gateway::new().raw_origin(&origin).config("[cache]\nclient_gone = 'cancel'").run().await;

    let mut only = client::get(gateway.url("/a")).open().await;
    only.read(5).await;
    drop(only);
    gone.arrived(1).await;
}

#[tokio::test]
async fn a_refresh_that_nobody_reads_is_not_abandoned() {
    let gate = Gate::new();
    let old = reply("old").cache_control("max-age=1, stale-while-revalidate=60");
    let origin = origin::new().route("/a", [old, in_two(b"new", 1, &gate).max_age(60)]).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\nclient_gone = 'cancel'").run().await;
    let first = gateway.get("/a").await;
    outlive(first.end_at, Duration::from_secs(1)).await;

    gateway.get("/a").await.assert_ok("old").assert_hit();
    gate.arrived(1).await;
    // Twenty more, so that the gateway has seen the first piece of the body by then.
    for _ in 0..20 {
        gateway.get("/a").await.assert_ok("old").assert_hit();
    }
    gate.open();
    eventually("the refreshed response", || async { (gateway.get("/a").await.text() == "new").then_some(()) }).await;
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn a_client_that_has_all_it_wants_has_not_gone() {
    for (name, value, status) in
        [("if-none-match", "\"1\"", 304), ("range", "bytes=50000-", 416), ("range", "bytes=0-9", 206)]
    {
        let (gate, body) = (Gate::new(), pattern(10_000));
        let page = in_two(&body, 1000, &gate).max_age(60).header("etag", "\"1\"").header("content-length", "10000");
        let origin = origin::new().route("/a", page).run().await;
        let gateway = gateway::new().origin(&origin).config("[cache]\nclient_gone = 'cancel'").run().await;

        // Another one starts it, so that it is asked for whole, and is gone when the first has its answer.
        let mut other = client::get(gateway.url("/a")).open().await;
        other.read(1000).await;
        let first = client::get(gateway.url("/a")).header(name, value).send().await;
        assert_eq!(first.status, status);
        drop(other);
        gateway.access_line(|line| line["status"] == 200).await;
        gate.open();
        eventually("the fill to be stored", || async { gateway.get("/a").await.cache().hit.then_some(()) }).await;
        assert_eq!(origin.requests("/a"), 1, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_purge_in_the_middle_lets_readers_finish_and_stores_nothing() {
    let (gate, old) = (Gate::new(), pattern(10_000));
    let origin =
        origin::new().route("/a", [in_two(&old, 1000, &gate).max_age(60), reply("new").max_age(60)]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut before = client::get(gateway.url("/a")).open().await;
    before.read(1000).await;
    gateway.purge_path("/a").await;
    // Who comes after the purge does not join the fill from before it.
    gateway.get("/a").await.assert_ok("new");
    gate.open();
    let before = before.finish().await;
    assert!(!before.broken && before.body == old);
    gateway.get("/a").await.assert_ok("new");
    assert_eq!(origin.requests("/a"), 2);
}

#[tokio::test]
async fn a_purge_by_tag_reaches_a_fill_whose_tags_are_not_known_yet() {
    let gate = Gate::new();
    let tagged = |body: &'static str| reply(body).max_age(60).header("cache-tag", "product-7");
    let origin = origin::new().route("/a", [tagged("old").hold(&gate), tagged("new")]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let before = tokio::spawn(client::get(gateway.url("/a")).send());
    origin.arrived("/a", 1).await;
    gateway.purge(json!({ "tags": ["product-7"] })).await;
    gate.open();
    before.await.expect("no client panics").assert_ok("old");
    gateway.get("/a").await.assert_ok("new");
    gateway.get("/a").await.assert_ok("new").assert_hit();
}

#[tokio::test]
async fn variants_do_not_wait_for_each_other_twice() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = origin::new()
        .handler("/a", move |seen, _| {
            let accept = seen.header("accept").expect("sent").to_owned();
            reply(accept).max_age(60).header("vary", "accept").hold(&held)
        })
        .run()
        .await;
    let gateway = gateway::new().origin(&origin).run().await;
    let accepts = ["text/html", "image/png", "text/html", "image/png"];
    let get = |accept| client::get(gateway.url("/a")).header("accept", accept).send();

    let all = tokio::spawn(join_all(accepts.map(get)));
    origin.arrived("/a", 1).await;
    gate.open();
    for (response, accept) in all.await.expect("no client panics").iter().zip(accepts) {
        response.assert_ok(accept);
    }
    assert_eq!(origin.requests("/a"), 2, "one call a variant");
}

#[tokio::test]
async fn a_slow_reader_slows_nobody() {
    let body = pattern(4 << 20);
    let origin = origin::new().route("/a", reply(body.clone()).max_age(60)).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut slow = gateway.raw().await;
    slow.write("GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!(raw::status(&slow.head().await), 200);
    let fast = gateway.get("/a").await;
    assert!(!fast.broken && fast.body == body);
    assert_eq!(slow.rest().await, (body, raw::Ending::Closed));
    assert_eq!(origin.requests("/a"), 1);
}

#[tokio::test]
async fn what_proves_too_large_fills_no_disk() {
    let (gate, body) = (Gate::new(), pattern(8 << 20));
    let origin = origin::new().route("/a", reply(body.clone()).max_age(60).gate(&gate).chunk("end")).run().await;
    let config = "[cache]\nobject_bytes_max = '64KiB'\n[fill]\nmemory_bytes_max = '16KiB'";
    let gateway = gateway::new().origin(&origin).config(config).run().await;

    let mut response = client::get(gateway.url("/a")).open().await;
    response.read(body.len()).await;
    let metrics = gateway.admin("GET", "/metrics").send().await;
    let spilled = metrics.text().lines().find_map(|line| line.strip_prefix("larder_spill_bytes "));
    let spilled: u64 = spilled.expect("the metric").parse().expect("a number");
    assert!(spilled < 1 << 20, "{spilled} bytes lie in a file for nobody");
    gate.open();
    let whole = response.finish().await;
    assert!(!whole.broken && whole.body == [&body[..], b"end"].concat());
}

/// Many bodies at once, none of them large, and nobody reads: together they take no more memory than they may.
#[tokio::test]
async fn all_bodies_together_stay_below_their_bound() {
    const CLIENTS: usize = 20;
    let body = pattern(4 << 20);
    let mut origin = origin::new();
    for number in 0..CLIENTS {
        origin = origin.route(&format!("/{number}"), reply(body.clone()).max_age(60));
    }
    let origin = origin.run().await;
    let config = "[fill]\nmemory_bytes_max = '512KiB'\nmemory_total_bytes_max = '512KiB'";
    let gateway = gateway::new().origin(&origin).config(config).run().await;
    let figure = async |name: &str| -> u64 {
        let metrics = gateway.admin("GET", "/metrics").send().await;
        let line =
            metrics.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
        line.expect("the metric").parse().expect("a number")
    };

    let mut slow = Vec::new();
    for number in 0..CLIENTS {
        let mut client = gateway.raw().await;
        client.write(&format!("GET /{number} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(raw::status(&client.head().await), 200);
        slow.push(client);
    }
    let all_stored = async {
        while figure("larder_fills_total{result=\"complete\"}").await < CLIENTS as u64 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_stored).await.expect("no fill waits for its reader");
    let held = figure("larder_fill_memory_bytes").await;
    assert!(held <= (512 << 10) + 20 * (16 << 10), "{held} bytes of {CLIENTS} bodies in memory");
    for mut client in slow {
        assert!(client.rest().await == (body.clone(), raw::Ending::Closed), "every reader gets all of it");
    }
    assert_eq!(figure("larder_fill_memory_bytes").await, 0);
    assert_eq!(figure("larder_spill_bytes").await, 0);
    for number in 0..CLIENTS {
        assert!(gateway.get(&format!("/{number}")).await.body == body);
        assert_eq!(origin.requests(&format!("/{number}")), 1, "all are stored");
    }
}

#[tokio::test]
async fn without_coalescing_everyone_goes_alone() {
    let crowd = Gate::new();
    let origin = origin::new().route("/a", reply("hello").max_age(60).hold(&crowd)).run().await;
    let gateway = gateway::new().origin(&origin).config("[cache]\ncoalesce = false").run().await;

    let all = tokio::spawn(join_all((0..10).map(|_| client::get(gateway.url("/a")).send()).collect::<Vec<_>>()));
    crowd.arrived(10).await;
    crowd.open();
    for response in all.await.expect("no client panics") {
        response.assert_ok("hello");
    }
    assert_eq!(origin.requests("/a"), 10);
}
