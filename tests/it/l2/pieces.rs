//! Long values, which lie in pieces.

use super::*;

const MIB: usize = 1 << 20;

/// Entries of up to 16 MiB in pieces of 64 KiB.
fn in_short_pieces(fleet: Fleet) -> Fleet {
    fleet.l2("object_bytes_max = '16MiB'\npiece_bytes = '64KiB'")
}

/// What lies in Redis under `e` and `p`: entries, and pieces of them.
fn entries_and_pieces(redis: &redis::Server) -> (Vec<String>, Vec<String>) {
    let names = names(redis);
    let of = |kind: &str| {
        let is = |name: &&String| name.contains(&format!("}}:{kind}"));
        names.iter().filter(is).cloned().collect()
    };
    (of("e"), of("p"))
}

/// Returns when there are so many entries and pieces of them, and no others.
async fn are_left(redis: &redis::Server, entries: usize, pieces: usize) {
    eventually(&format!("{entries} entries and {pieces} pieces"), async || {
        let (there, of_them) = entries_and_pieces(redis);
        ((there.len(), of_them.len()) == (entries, pieces)).then_some(())
    })
    .await;
}

/// A body that takes four pieces of 64 KiB.
fn long(nth: usize) -> Vec<u8> {
    [nth.to_string().into_bytes(), pattern(200_000)].concat()
}

/// An origin whose `/a` answers with [`long`] bodies.
async fn long_numbered() -> Origin {
    let numbered = |seen: &Seen, nth: usize| match seen.method.as_str() {
        "GET" => reply(long(nth)).max_age(600),
        _ => reply("").status(204),
    };
    origin::new().handler("/a", numbered).run().await
}

async fn fetched_anew(node: &Gateway, path: &str) -> Response {
    get_with(node, path, "cache-control", "no-cache").await
}

#[tokio::test]
async fn a_long_body_is_in_pieces_and_the_other_nodes_have_it() {
    let growing = reply(pattern(7 * MIB)).max_age(600).chunk(pattern(5 * MIB)).chunk("end");
    let grown = [pattern(7 * MIB), pattern(5 * MIB), b"end".to_vec()].concat();
    let known = reply(pattern(5 * MIB)).max_age(600).header("content-type", "text/plain");
    let origin = origin::new().route("/a", known).route("/growing", growing).run().await;
    for encrypt in [false, true] {
        let redis = redis::server().run().await;
        let settings = format!("object_bytes_max = '16MiB'\nencrypt = {encrypt}");
        let [one, other] = Fleet::of(&redis).l2(&settings).nodes(&origin).await;
        assert!(one.get("/a").await.assert_forwarded("uri-miss").body == pattern(5 * MIB));
        assert!(one.get("/growing").await.assert_forwarded("uri-miss").body == grown);
        wrote(&one, 2).await;
        let (entries, pieces) = entries_and_pieces(&redis);
        assert_eq!((entries.len(), pieces.len()), (2, 6 + 13));
        for name in &pieces {
            let length: usize = redis.cli(&["strlen", name]).parse().expect("a number");
            assert!((1..=MIB).contains(&length), "{name} {length}");
            // They are there for as long as what names them.
            assert!(redis.cli(&["pttl", name]).parse::<u64>().expect("a number") > 600_000, "{name}");
        }
        assert!(other.get("/a").await.assert_from_redis().body == pattern(5 * MIB));
        assert!(other.get("/growing").await.assert_from_redis().body == grown);
        assert!(one.metric("larder_l2_written_bytes_total").await > (17 * MIB) as f64);
        assert!(other.metric("larder_l2_read_bytes_total").await > (17 * MIB) as f64);
        assert_eq!(other.metric("larder_l2_errors_total{kind=\"value\"}").await, 0.0);
    }
    assert_eq!((origin.requests("/a"), origin.requests("/growing")), (2, 2));
}

#[tokio::test]
async fn nothing_is_in_pieces_unless_asked_for() {
    let redis = redis::server().run().await;
    let just = reply(pattern(MIB)).max_age(600);
    let above = reply(pattern(MIB + 1)).max_age(600);
    let origin = origin::new().route("/just", just).route("/above", above).run().await;
    let one = Fleet::of(&redis).node(&origin).await;
    one.get("/above").await.assert_forwarded("uri-miss");
    one.get("/just").await.assert_forwarded("uri-miss");
    wrote(&one, 1).await;
    eventually("one that is not stored", || async {
        (l2_metric(&one, "leases", "taken").await >= 2.0 && one.metric("larder_l2_queue_bytes").await == 0.0)
            .then_some(())
    })
    .await;
    are_left(&redis, 1, 0).await;
}

#[tokio::test]
async fn a_piece_that_is_gone_makes_a_miss_and_the_rest_goes() {
    let redis = redis::server().run().await;
    let origin = long_numbered().await;
    let fleet = in_short_pieces(Fleet::of(&redis));
    let [one, other] = fleet.nodes(&origin).await;
    for nth in 0..4 {
        let fetched = fetched_anew(&one, "/a").await;
        assert!(fetched.body == long(nth));
        wrote(&one, nth as u64 + 1).await;
        are_left(&redis, 1, 4).await;
        let (_, pieces) = entries_and_pieces(&redis);
        let piece = pieces.iter().find(|name| name.ends_with(&format!(":{nth}"))).expect("one of each number");
        // Gone, or not what was written.
        match nth {
            0 | 3 => redis.cli(&["del", piece]),
            1 => redis.cli(&["setrange", piece, "7", "damage"]),
            _ => redis.cli(&["append", piece, "more"]),
        };
        // This asks, and fetches nothing.
        let explained = other.admin("GET", &format!("/explain?url={}", other.url("/a"))).send().await.json();
        assert_eq!(explained["l2"], serde_json::Value::Null, "{nth}: {explained}");
        are_left(&redis, 0, 0).await;
        assert!(other.metric("larder_l2_errors_total{kind=\"value\"}").await >= nth as f64 + 1.0);
    }
    assert!(other.get("/a").await.assert_forwarded("uri-miss").body == long(4));
    wrote(&other, 1).await;
    assert!(fleet.node(&origin).await.get("/a").await.assert_from_redis().body == long(4));
}

#[tokio::test]
async fn what_takes_its_place_or_removes_it_leaves_no_pieces() {
    let redis = redis::server().run().await;
    let replies = |seen: &Seen, nth: usize| match (seen.method.as_str(), nth) {
        ("GET", 0..=2) => reply(long(nth)).max_age(600),
        ("GET", 3) => reply("short").max_age(600),
        ("GET", 4) => reply(long(nth)).max_age(600),
        ("GET", 5) => reply("mine").cache_control("no-store"),
        ("GET", _) => reply(long(nth)).max_age(600),
        _ => reply("").status(204),
    };
    let origin = origin::new().handler("/a", replies).run().await;
    let [one, other] = in_short_pieces(Fleet::of(&redis)).nodes(&origin).await;
    let mut before = Vec::new();
    for nth in 0..3 {
        assert!(fetched_anew(&one, "/a").await.body == long(nth));
        wrote(&one, nth as u64 + 1).await;
        are_left(&redis, 1, 4).await;
        let (_, pieces) = entries_and_pieces(&redis);
        assert!(pieces.iter().all(|name| !before.contains(name)), "of another write");
        before = pieces;
    }
    fetched_anew(&one, "/a").await.assert_ok("short");
    wrote(&one, 4).await;
    are_left(&redis, 1, 0).await;
    fetched_anew(&one, "/a").await;
    wrote(&one, 5).await;
    are_left(&redis, 1, 4).await;
    // Not storable any more.
    fetched_anew(&one, "/a").await.assert_ok("mine");
    are_left(&redis, 0, 0).await;
    assert!(fetched_anew(&one, "/a").await.body == long(6));
    wrote(&one, 6).await;
    are_left(&redis, 1, 4).await;
    post(&other, "/a").await;
    assert_eq!(entries_and_pieces(&redis), (vec![], vec![]));
}

#[tokio::test]
async fn variants_leave_no_pieces() {
    let redis = redis::server().run().await;
    let coloured = |seen: &Seen, nth: usize| match (seen.method.as_str(), seen.header("x-color")) {
        ("GET", Some("none")) => reply(long(nth)).max_age(600),
        ("GET", _) => reply(long(nth)).max_age(600).header("vary", "x-color"),
        _ => reply("").status(204),
    };
    let origin = origin::new().handler("/a", coloured).handler("/b", coloured).run().await;
    let fleet = in_short_pieces(Fleet::of(&redis)).config("[cache]\nvariants_max = 2");
    let [one, other] = fleet.nodes(&origin).await;
    for (nth, colour) in ["red", "green", "blue"].into_iter().enumerate() {
        get_with(&one, "/a", "x-color", colour).await;
        wrote(&one, nth as u64 + 1).await;
    }
    // The first of three has made room.
    are_left(&redis, 2, 8).await;
    assert!(get_with(&other, "/a", "x-color", "blue").await.assert_from_redis().body == long(2));
    // One for everybody takes the place of both.
    get_with(&one, "/a", "x-color", "none").await;
    wrote(&one, 4).await;
    are_left(&redis, 1, 4).await;
    for (nth, colour) in ["red", "green"].into_iter().enumerate() {
        get_with(&one, "/b", "x-color", colour).await;
        wrote(&one, nth as u64 + 5).await;
    }
    are_left(&redis, 3, 12).await;
    post(&other, "/b").await;
    are_left(&redis, 1, 4).await;
}

#[tokio::test]
async fn a_write_that_is_refused_leaves_no_pieces() {
    let redis = redis::server().run().await;
    let gate = Gate::new();
    let slow = {
        let gate = gate.clone();
        move |seen: &Seen, _| match seen.method.as_str() {
            "GET" => reply(long(0)).max_age(600).gate(&gate),
            _ => reply("").status(204),
        }
    };
    let origin = origin::new().handler("/a", slow).run().await;
    let fleet = in_short_pieces(Fleet::of(&redis)).config("[cache]\nunsafe_invalidates = 'node'");
    let [one, other] = fleet.nodes(&origin).await;
    let director = async {
        gate.arrived(1).await;
        post(&other, "/a").await;
        gate.open();
    };
    let (old, ()) = tokio::join!(one.get("/a"), director);
    assert!(old.body == long(0));
    eventually("a write that is refused", || async {
        (l2_metric(&one, "writes", "fenced").await >= 1.0).then_some(())
    })
    .await;
    assert!(one.metric("larder_l2_written_bytes_total").await > 200_000.0, "they had been written");
    are_left(&redis, 0, 0).await;
}

#[tokio::test]
async fn pieces_that_redis_does_not_take_are_a_write_that_has_failed() {
    // Redis refuses longer values, and breaks the connection.
    let redis = redis::server().argument("--proto-max-bulk-len 1048576").run().await;
    let origin = origin::new().route("/a", reply(pattern(5 * MIB)).max_age(600)).run().await;
    let fleet = Fleet::of(&redis).l2("object_bytes_max = '16MiB'\npiece_bytes = '2MiB'");
    let [one, other] = fleet.nodes(&origin).await;
    assert!(one.get("/a").await.assert_forwarded("uri-miss").body == pattern(5 * MIB));
    eventually("a write that fails", || async { (l2_metric(&one, "writes", "failed").await >= 1.0).then_some(()) })
        .await;
    // The lease is given back, and nothing stays.
    eventually("nothing", async || names(&redis).is_empty().then_some(())).await;
    assert!(other.get("/a").await.assert_forwarded("uri-miss").body == pattern(5 * MIB));
}

#[tokio::test]
async fn pieces_over_a_cluster() {
    let redis = redis::cluster().run().await;
    let mut origin = origin::new();
    let numbered = |seen: &Seen, nth: usize| match seen.method.as_str() {
        "GET" => reply(long(nth)).max_age(600).header("vary", "x-color"),
        _ => reply("").status(204),
    };
    let paths: Vec<_> = (0..12).map(|nth| format!("/{nth}")).collect();
    for path in &paths {
        origin = origin.handler(path, numbered);
    }
    let origin = origin.run().await;
    let [one, other] = in_short_pieces(Fleet::over(redis.urls())).nodes(&origin).await;
    let pieces = || (0..3).map(|node| entries_and_pieces(redis.node(node)).1.len()).collect::<Vec<_>>();
    for path in &paths {
        get_with(&one, path, "x-color", "red").await.assert_forwarded("uri-miss");
    }
    wrote(&one, paths.len() as u64).await;
    assert_eq!(pieces().iter().sum::<usize>(), 4 * paths.len());
    assert!(pieces().iter().all(|count| *count < 4 * paths.len()), "not all on one of them");
    for path in &paths {
        assert!(get_with(&other, path, "x-color", "red").await.assert_from_redis().body == long(0));
    }
    for path in &paths[..6] {
        post(&other, path).await;
    }
    for path in &paths[6..] {
        let renewed = client::get(one.url(path)).header("x-color", "red").header("cache-control", "no-cache");
        assert!(renewed.send().await.body == long(1));
    }
    wrote(&one, paths.len() as u64 + 6).await;
    eventually("the newer ones' pieces", async || (pieces().iter().sum::<usize>() == 4 * 6).then_some(())).await;
    for node in [&one, &other] {
        assert_eq!(node.metric("larder_l2_errors_total{kind=\"server\"}").await, 0.0);
    }
}
