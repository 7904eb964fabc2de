//! Whom a response under way is for, beside the one who asked first: those whom it could answer from the cache.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    client,
    gate::Gate,
    gateway,
    gateway::Gateway,
    origin,
    origin::{Origin, Reply, Seen, reply},
    outlive,
};

/// An account page, different for each cookie, whose origin says nothing of freshness.
fn personal(seen: &Seen) -> Reply {
    let who = seen.header("cookie").unwrap_or("nobody").to_owned();
    reply(format!("page of {who}")).header("etag", &format!("W/\"{who}\"")).header("set-cookie", &format!("last={who}"))
}

fn of(gateway: &Gateway, who: &str) -> client::Request {
    client::get(gateway.url("/account")).header("cookie", who)
}

/// Ann's request, held at the origin; Bob's, that follows it; both answers when `gate` is open.
async fn ann_and_bob(gateway: &Gateway, origin: &Origin, gate: &Gate) -> [client::Response; 2] {
    let before = origin.requests("/account");
    let ann = tokio::spawn(of(gateway, "ann").send());
    origin.arrived("/account", before + 1).await;
    let bob = tokio::spawn(of(gateway, "bob").send());
    gateway.followers(1).await;
    gate.open();
    [ann.await.expect("no panic"), bob.await.expect("no panic")]
}

#[tokio::test]
async fn what_is_never_fresh_is_for_who_asked_alone() {
    for directives in ["", "max-age=0", "max-age=0, must-revalidate"] {
        let gate = Gate::new();
        let held = gate.clone();
        let page = move |seen: &Seen, _| personal(seen).cache_control(directives).hold(&held);
        let origin = origin::new().handler("/account", page).run().await;
        let gateway = gateway::new().origin(&origin).run().await;

        let [ann, bob] = ann_and_bob(&gateway, &origin, &gate).await;
        ann.assert_ok("page of ann");
        bob.assert_ok("page of bob");
        assert_eq!(bob.header("set-cookie"), Some("last=bob"), "{directives:?}");
    }
}

#[tokio::test]
async fn nobody_waits_for_what_is_known_to_be_never_fresh() {
    let crowd = Gate::new();
    let held = crowd.clone();
    let page = move |seen: &Seen, nth| if nth == 0 { personal(seen) } else { personal(seen).hold(&held) };
    let origin = origin::new().handler("/account", page).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    of(&gateway, "ann").send().await.assert_ok("page of ann");

    let all = ["ann", "bob", "cid"].map(|who| (who, tokio::spawn(of(&gateway, who).send())));
    // Side by side: were one to wait for another, the third would never arrive.
    crowd.arrived(3).await;
    crowd.open();
    for (who, response) in all {
        response.await.expect("no panic").assert_ok(&format!("page of {who}"));
    }
}

#[tokio::test]
async fn what_a_304_confirms_for_one_is_not_confirmed_for_another() {
    // Stored with a lifetime, so that the two meet when it is over; confirmed without one.
    let gate = Gate::new();
    let held = gate.clone();
    let page = move |seen: &Seen, nth| match (nth, seen.header("cookie")) {
        (0, _) => reply("page of ann").max_age(1).header("etag", "\"ann\""),
        (_, Some("ann")) => reply("").status(304).max_age(0).hold(&held),
        _ => reply("page of bob").max_age(0).header("etag", "\"bob\""),
    };
    let origin = origin::new().handler("/account", page).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let first = of(&gateway, "ann").send().await;
    outlive(first.end_at, Duration::from_secs(1)).await;

    let [ann, bob] = ann_and_bob(&gateway, &origin, &gate).await;
    ann.assert_ok("page of ann");
    bob.assert_ok("page of bob");
}

#[tokio::test]
async fn who_comes_late_gets_nothing_stale() {
    let gate = Gate::new();
    let slow = reply("begun").max_age(1).gate(&gate).chunk(" and ended");
    let origin = origin::new().route("/a", [slow, reply("new").max_age(60)]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;

    let mut first = client::get(gateway.url("/a")).open().await;
    first.read(5).await;
    outlive(tokio::time::Instant::now(), Duration::from_secs(1)).await;
    gateway.get("/a").await.assert_ok("new");
    gate.open();
    first.finish().await.assert_ok("begun and ended");
}

#[tokio::test]
async fn nobody_waits_for_a_body_that_is_for_another() {
    let (body, crowd) = (Gate::new(), Gate::new());
    let (rest, held) = (body.clone(), crowd.clone());
    let page = move |seen: &Seen, nth| match nth {
        0 => personal(seen).gate(&rest).chunk(", the end"),
        _ => personal(seen).hold(&held),
    };
    let origin = origin::new().handler("/account", page).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let mut ann = of(&gateway, "ann").open().await;
    ann.read(11).await;

    let others = ["bob", "cid"].map(|who| (who, tokio::spawn(of(&gateway, who).send())));
    crowd.arrived(2).await;
    crowd.open();
    for (who, response) in others {
        response.await.expect("no panic").assert_ok(&format!("page of {who}"));
    }
    body.open();
    ann.finish().await.assert_ok("page of ann, the end");
}

#[tokio::test]
async fn who_asks_for_validation_does_not_follow() {
    for directive in ["no-cache", "max-age=0"] {
        let gate = Gate::new();
        let origin =
            origin::new().route("/a", [reply("1").max_age(60).hold(&gate), reply("2").max_age(60)]).run().await;
        let gateway = gateway::new().origin(&origin).run().await;
        let first = tokio::spawn(client::get(gateway.url("/a")).send());
        origin.arrived("/a", 1).await;
        client::get(gateway.url("/a")).header("cache-control", directive).send().await.assert_ok("2");
        gate.open();
        first.await.expect("no panic").assert_ok("1");
    }
}

#[tokio::test]
async fn a_follower_gets_nothing_older_than_it_asks_for() {
    let gate = Gate::new();
    let aged = reply("1").max_age(60).header("age", "30");
    let origin = origin::new().route("/a", [aged.hold(&gate), reply("2").max_age(60)]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let first = tokio::spawn(client::get(gateway.url("/a")).send());
    origin.arrived("/a", 1).await;
    let ask = |directive| tokio::spawn(client::get(gateway.url("/a")).header("cache-control", directive).send());
    let (young, long, any) = (ask("max-age=10"), ask("min-fresh=40"), ask("max-age=40"));
    gateway.followers(3).await;
    gate.open();
    for response in [first, any] {
        response.await.expect("no panic").assert_ok("1");
    }
    for response in [young, long] {
        response.await.expect("no panic").assert_ok("2");
    }
}

#[tokio::test]
async fn of_two_purges_the_second_does_not_hide_the_first() {
    let gate = Gate::new();
    let tagged = |body: &'static str| reply(body).max_age(60).header("cache-tag", "t");
    let origin = origin::new().route("/a", [tagged("old").hold(&gate), tagged("new")]).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let purge = || gateway.purge(json!({ "tags": ["t"], "soft": true }));

    let leader = tokio::spawn(client::get(gateway.url("/a")).send());
    origin.arrived("/a", 1).await;
    purge().await;
    // Comes after a purge and joins all the same: the tags are not known yet.
    let follower = tokio::spawn(client::get(gateway.url("/a")).send());
    gateway.followers(1).await;
    purge().await;
    gate.open();
    leader.await.expect("no panic").assert_ok("old");
    follower.await.expect("no panic").assert_ok("new");
}
