//! The admin plane: who may do what, health, metrics, explanations; and an orderly end.

use std::time::Duration;

use serde_json::json;

use crate::support::{client, command::larder, eventually, gate::Gate, gateway, origin, origin::reply, raw};

#[tokio::test]
async fn a_token_is_asked_for() {
    let origin = origin::new().run().await;
    let gateway = gateway::new().origin(&origin).token("secret").run().await;

    for path in ["/stats", "/metrics", "/explain?url=http://x/", "/warm/1"] {
        let anonymous = client::get(gateway.admin_url(path)).send().await;
        assert_eq!(anonymous.status, 401, "{path}");
        assert!(anonymous.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{path}");
        for wrong in ["Bearer wrong", "Bearer ", "Basic secret", "secret"] {
            let response = client::get(gateway.admin_url(path)).header("authorization", wrong).send().await;
            assert_eq!(response.status, 401, "{path} with {wrong:?}");
        }
    }
    let anonymous = client::request("POST", gateway.admin_url("/purge")).json(&json!({ "all": true })).send().await;
    assert_eq!(anonymous.status, 401);
    gateway.admin_json("/stats").await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(client::get(gateway.admin_url(path)).send().await.status, 200, "{path} needs no token");
    }
}

#[tokio::test]
async fn tokens_have_scopes() {
    let tokens = "[admin]\ntokens = [{ name = 'viewer', token = 'see', scope = 'read' }, \
                  { name = 'deploy', token = 'purge', scope = 'purge' }, \
                  { name = 'oncall', token = 'all', scope = 'operate' }]";
    let origin = origin::new().run().await;
    let gateway = gateway::new().origin(&origin).config(tokens).run().await;
    let call = |method: &str, path: &str, token: &str| {
        client::request(method, gateway.admin_url(path)).header("authorization", &format!("Bearer {token}"))
    };

    let warm = json!({ "urls": [gateway.url("/a")] });
    for (token, stats, purge, warmed) in [("see", 200, 403, 403), ("purge", 200, 200, 403), ("all", 200, 200, 202)] {
        assert_eq!(call("GET", "/stats", token).send().await.status, stats, "{token}");
        let purging = call("POST", "/purge", token).json(&json!({ "tags": ["x"] })).send().await;
        assert_eq!(purging.status, purge, "{token}");
        assert_eq!(call("POST", "/warm", token).json(&warm).send().await.status, warmed, "{token}");
    }
}

#[tokio::test]
async fn outside_loopback_a_token_is_required() {
    let refusal =
        gateway::new().upstream("http://127.0.0.1:1").argument("--admin").argument("0.0.0.0:0").refuse().await;
    assert_eq!(refusal.code, Some(64), "{}", refusal.output);
    assert!(refusal.output.contains("token"), "{}", refusal.output);
}

#[tokio::test]
async fn the_admin_plane_is_not_on_the_data_listener() {
    let origin = origin::new().route("/stats", "the origin's own").run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/stats").await.assert_ok("the origin's own");
    assert_eq!(client::get(gateway.admin_url("/nothing-here")).send().await.status, 404);
    assert_eq!(client::request("DELETE", gateway.admin_url("/purge")).send().await.status, 405);
}

#[tokio::test]
async fn a_browser_cannot_be_made_to_purge() {
    let origin = origin::new().run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    // A cross-site form can send text/plain to loopback; browsers say where it comes from.
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let form = gateway.admin("POST", "/purge").header("content-type", "text/plain").header(name, value);
        assert_eq!(form.body(r#"{"all":true}"#).send().await.status, 403, "{name}");
    }
}

#[tokio::test]
async fn admin_bodies_are_bounded() {
    let origin = origin::new().run().await;
    let gateway = gateway::new().origin(&origin).config("[admin]\nbody_bytes_max = '1 kB'").run().await;
    let call = json!({ "tags": ["x".repeat(2000)] });
    assert_eq!(gateway.admin("POST", "/purge").json(&call).send().await.status, 413);
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    for _ in 0..3 {
        gateway.get("/a").await;
    }

    let response = gateway.admin("GET", "/metrics").send().await;
    let content_type = response.header("content-type").expect("a type");
    assert!(content_type.starts_with("application/openmetrics-text"), "{content_type}");
    let metrics = response.text();
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    let mut described = std::collections::HashSet::new();
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            assert!(!help.trim_end_matches('.').is_empty(), "no help for {name}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().expect("a name");
            assert!(described.insert(name), "{name} is described twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(series.starts_with("larder_") || series.starts_with("process_"), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(described.iter().any(|name| series.starts_with(name)), "{line} is not described");
        }
    }
    assert!(!metrics.contains("\"/a\""), "a path is no label: there is no end of them");
}

#[tokio::test]
async fn requests_show_in_the_metrics() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    for _ in 0..5 {
        gateway.get("/a").await;
    }
    // A response is counted when it has been sent, which its client may know first.
    eventually("four hits to be counted", || async {
        let metrics = gateway.admin("GET", "/metrics").send().await;
        let mut families = metrics.text().lines().filter(|line| line.contains("hit"));
        families.any(|line| line.ends_with(" 4") || line.ends_with(" 4.0")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn metrics_tell_which_tier_answered_how_and_what_the_process_takes() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    for _ in 0..3 {
        gateway.get("/a").await;
    }
    for (sample, count) in [
        ("larder_request_duration_seconds_count{outcome=\"hit\",tier=\"l1\"}", "2"),
        ("larder_request_duration_seconds_count{outcome=\"miss\",tier=\"none\"}", "1"),
        ("larder_responses_total{route=\"default\",status=\"2xx\"}", "3"),
        ("larder_response_bytes_total{route=\"default\",outcome=\"hit\"}", "10"),
    ] {
        let count: f64 = count.parse().expect("a number");
        eventually(sample, || async { ((gateway.metric(sample).await - count).abs() < 0.1).then_some(()) }).await;
    }
    assert!(gateway.metric("process_cpu_seconds_total").await > 0.0);
    assert!(gateway.metric("process_max_fds").await > 0.0);
    let (free, all) = ("larder_l3_free_bytes", "larder_l3_file_system_bytes");
    assert!(gateway.metric(free).await <= gateway.metric(all).await && gateway.metric(all).await > 0.0);
}

#[tokio::test]
async fn stats_tell_hits_and_bytes() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a").await;
    gateway.get("/a").await;
    let stats = gateway.admin_json("/stats").await;
    assert!(stats.is_object() && stats.to_string().contains("hit"), "{stats}");
}

#[tokio::test]
async fn explain_says_why() {
    let origin = origin::new().route("/a", "hello").max_age(60).route("/b", "no").cache_control("no-store").run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    let explain = |path: &str| {
        let path = format!("/explain?url={}", gateway.url(path));
        let gateway = &gateway;
        async move { gateway.admin_json(&path).await }
    };

    let unknown = explain("/a").await;
    assert!(unknown["key"].as_str().is_some_and(|key| key.len() == 64), "{unknown}");
    gateway.get("/a").await;
    gateway.get("/b").await;
    let stored = explain("/a").await;
    assert_eq!(stored["key"], unknown["key"]);
    assert_ne!(stored, unknown);
    assert_eq!(origin.requests("/a"), 1, "to explain is not to fetch");
    assert_ne!(explain("/b").await["key"], stored["key"]);
    assert_eq!(gateway.admin("GET", "/explain").send().await.status, 400);
}

#[tokio::test]
async fn requests_under_way_are_finished_before_the_end() {
    let gate = Gate::new();
    let origin = origin::new().route("/a", reply("hel").gate(&gate).chunk("lo").max_age(60)).run().await;
    let mut gateway = gateway::new().origin(&origin).run().await;

    let mut response = client::get(gateway.url("/a")).open().await;
    response.read(3).await;
    let mut idle = client::connect(gateway.data()).await;
    idle.send(client::get(gateway.url("/b"))).await;
    gateway.terminate();
    // It takes no new connections, and says so where it is asked.
    eventually("the data listener to close", || async {
        tokio::net::TcpStream::connect(gateway.data()).await.is_err().then_some(())
    })
    .await;
    gate.open();
    response.finish().await.assert_ok("hello");
    assert_eq!(gateway.ended().await.code(), Some(0), "{}", gateway.output());
}

#[tokio::test]
async fn who_probes_sees_the_end_coming() {
    let gate = Gate::new();
    let origin = origin::new().route("/a", reply("hel").gate(&gate).chunk("lo").max_age(60)).run().await;
    let mut gateway = gateway::new().origin(&origin).token("secret").run().await;
    let admin = gateway.admin_base();
    let health = |flags: &[&str]| {
        let words = [&["health", "--admin", &admin], flags].concat();
        larder(words.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };

    health(&[]).await.assert(0, "ready");
    let mut response = client::get(gateway.url("/a")).open().await;
    response.read(3).await;
    gateway.terminate();
    eventually("the gateway to say that it stops", || async {
        let ran = health(&[]).await;
        (ran.code == Some(1) && ran.stderr.contains("draining")).then_some(())
    })
    .await;
    health(&["--live"]).await.assert(0, "ok");
    gate.open();
    response.finish().await.assert_ok("hello");
    assert_eq!(gateway.ended().await.code(), Some(0), "{}", gateway.output());
    health(&["--live"]).await.assert(1, "no gateway answers");
}

#[tokio::test]
async fn the_drain_has_an_end() {
    let origin = raw::answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
    let mut gateway = gateway::new().raw_origin(&origin).config("[client]\ndrain_timeout = '500ms'").run().await;
    let mut response = client::get(gateway.url("/a")).open().await;
    response.read(5).await;
    let began = tokio::time::Instant::now();
    gateway.stop().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(response.finish().await.broken);
}

#[tokio::test]
async fn an_idle_gateway_stops_at_once() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let mut gateway = gateway::new().origin(&origin).run().await;
    let mut idle = client::connect(gateway.data()).await;
    idle.send(client::get(gateway.url("/a"))).await.assert_ok("hello");
    let began = tokio::time::Instant::now();
    assert_eq!(gateway.stop().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn access_lines() {
    let origin = origin::new().route("/a", "hello").max_age(60).run().await;
    let gateway = gateway::new().origin(&origin).run().await;
    gateway.get("/a?x=1").await;
    let line = gateway.access_line(|line| line.to_string().contains("/a")).await;
    let text = line.to_string();
    assert!(text.contains("GET") && text.contains("200") && text.contains("uri-miss"), "{text}");
}
