//! Configurations that must be refused, and what the refusal tells.

use crate::support::{gateway, origin};

/// Runs a gateway with `toml`, which it must refuse as a usage error, and returns what it wrote.
async fn refused(toml: &str) -> String {
    let refusal = gateway::new().upstream("http://127.0.0.1:1").config(toml).refuse().await;
    assert_eq!(refusal.code, Some(64), "{toml}: {}", refusal.output);
    let file = refusal.config.to_str().expect("a path of characters");
    assert!(refusal.output.contains(file), "the file is not named: {}", refusal.output);
    assert!(!refusal.output.contains("panicked"), "{}", refusal.output);
    refusal.output
}

#[tokio::test]
async fn an_unknown_key_with_its_line_and_the_nearest_known() {
    let output = refused("[cache]\ndefault_ttl = '1m'\nheuristic_fracton = 0.2").await;
    for part in [":3", "heuristic_fracton", "heuristic_fraction"] {
        assert!(output.contains(part), "{part} is not in: {output}");
    }
}

#[tokio::test]
async fn an_unknown_table() {
    let output = refused("[cahce]\ndefault_ttl = '1m'").await;
    assert!(output.contains("cahce") && output.contains("cache"), "{output}");
}

#[tokio::test]
async fn an_unknown_key_in_a_route() {
    let route = "[[route]]\nname = 'a'\nupstream = 'http://127.0.0.1:1'\n[route.cache]\ndefaul_ttl = '1m'";
    let output = refused(route).await;
    assert!(output.contains("defaul_ttl") && output.contains("default_ttl"), "{output}");
}

#[tokio::test]
async fn values_of_the_wrong_kind() {
    for (toml, key) in [
        ("[cache]\ndefault_ttl = 'soon'", "default_ttl"),
        ("[cache]\nmode = 'fast'", "mode"),
        ("[cache]\nvariants_max = 'many'", "variants_max"),
        ("[l1]\nmax_bytes = '12 parrots'", "max_bytes"),
        ("[l1]\nobject_share_max = 7.0", "object_share_max"),
        ("[cache]\nttl_jitter = -1.0", "ttl_jitter"),
        ("[forward]\nclients = ['everyone']", "clients"),
        ("[cache]\nstatus_ttl = { '4x4' = '1s' }", "status_ttl"),
    ] {
        let output = refused(toml).await;
        assert!(output.contains(key) && output.contains(":2"), "{toml}: {output}");
    }
}

#[tokio::test]
async fn what_is_not_toml() {
    let output = refused("[cache\ndefault_ttl = '1m'").await;
    assert!(output.contains(":1"), "{output}");
}

#[tokio::test]
async fn routes_that_cannot_be() {
    for toml in [
        "[[route]]\nname = 'a'\nupstream = 'ftp://127.0.0.1'",
        "[[route]]\nname = 'a'\nupstream = []",
        "[[route]]\nname = 'a'\nupstream = 'not a url'",
        "[[route]]\nname = 'a'\npath = 'no-slash'\nupstream = 'http://127.0.0.1:1'",
        "[[route]]\nname = 'a'\nupstream = 'http://127.0.0.1:1'\n[[route]]\nname = 'a'\nupstream = 'http://127.0.0.1:2'",
        "[[route]]\nupstream = 'http://127.0.0.1:1'",
    ] {
        refused(toml).await;
    }
}

#[tokio::test]
async fn secrets_are_not_shown() {
    let output = refused("[admin]\ntoken = 'hush-hush'\ntokn = 'typo'").await;
    assert!(!output.contains("hush-hush"), "{output}");
}

#[tokio::test]
async fn a_file_that_is_not_there() {
    let refusal = gateway::new().argument("--config").argument("/nowhere/larder.toml").refuse().await;
    assert_ne!(refusal.code, Some(0));
    assert!(!refusal.output.contains("panicked"), "{}", refusal.output);
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound socket has an address").to_string();
    let refusal = gateway::new().upstream("http://127.0.0.1:1").argument("--listen").argument(&address).refuse().await;
    assert!(refusal.code.is_some_and(|code| code != 0 && code != 101), "{:?} {}", refusal.code, refusal.output);
    assert!(refusal.output.contains(&address), "{}", refusal.output);
}

#[tokio::test]
async fn flags_win_over_the_file() {
    let origin = origin::new().route("/a", "from the flag").run().await;
    let file = "[[route]]\nname = 'file'\npath = '/file'\nupstream = 'http://127.0.0.1:1'";
    let gateway = gateway::new().origin(&origin).config(file).run().await;
    gateway.get("/a").await.assert_ok("from the flag");
    assert_eq!(gateway.get("/file/a").await.status, 502, "the file's route is still there");
}
