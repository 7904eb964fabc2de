use http::{HeaderName, HeaderValue};

use super::*;

fn settings(scope: Scope) -> Settings {
    let hour = Duration::from_secs(3600);
    let config = Config {
        store: Store::Auto,
        models: [("o3*".to_owned(), Store::Always), ("o3-mini".to_owned(), Store::Never)].into(),
        ttl: hour,
        stale_if_error: hour,
        stale_if_error_status: vec![],
        error_ttl: Duration::ZERO,
        mode: crate::llm::config::Mode::Cache,
        identity: crate::llm::config::Identity::Original,
        pack: std::path::PathBuf::new(),
        pack_bytes_max: bytesize::ByteSize::mib(1),
        models_ttl: hour / 12,
        tools_ttl: Duration::ZERO,
        media_url_ttl: hour / 2,
        scope,
        groups: Default::default(),
        namespace: String::new(),
        controls: true,
        volatile: vec![],
        replay: super::super::config::Pace::Instant,
        body_bytes_max: bytesize::ByteSize::mib(1),
        semantic: crate::config::Config::builtin().llm.semantic,
    };
    Settings::new(Protocol::Openai, config)
}

fn ask(scope: Scope, fields: &[(&'static str, &'static str)], body: &str) -> Result<Question, Why> {
    let fields = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let fields = fields.collect();
    let (endpoint, path) = (Endpoint::ChatCompletions, "/v1/chat/completions");
    let asked = Asked { endpoint, path, query: None, tenant: None, fields: &fields, body: body.as_bytes() };
    settings(scope).question(&asked, 0)
}

fn lifetime(body: &str) -> Result<Duration, Why> {
    ask(Scope::Credential, &[], body).expect("readable").lifetime
}

#[test]
fn what_is_stored() {
    let hour = Duration::from_secs(3600);
    assert_eq!(lifetime(r#"{"model":"m"}"#), Err(Why::Chance));
    assert_eq!(lifetime(r#"{"model":"m","temperature":0.0}"#), Ok(hour));
    assert_eq!(lifetime(r#"{"model":"m","temperature":1,"seed":1}"#), Ok(hour));
    assert_eq!(lifetime(r#"{"model":"m","seed":null}"#), Err(Why::Chance));
    assert_eq!(lifetime(r#"{"model":"o3-large"}"#), Ok(hour));
    assert_eq!(lifetime(r#"{"model":"o3-mini","temperature":0}"#), Err(Why::Never));
    assert_eq!(lifetime(r#"{"seed":1,"store":true}"#), Err(Why::Stateful(Stateful::Stored)));
    let image = r#"{"seed":1,"messages":[{"content":[{"image_url":{"url":"https://e.example/"}}]}]}"#;
    assert_eq!(lifetime(image), Ok(hour / 2));
}

#[test]
fn what_cannot_be_read_passes() {
    for body in ["", "[]", "{", r#"{"a":1,"a":2}"#, "{\"a\":\"\u{0}\"}"] {
        assert_eq!(ask(Scope::Shared, &[], body).err(), Some(Why::Unreadable), "{body}");
    }
    assert_eq!(ask(Scope::Shared, &[("content-encoding", "gzip")], "{}").err(), Some(Why::OtherContent));
    assert_eq!(ask(Scope::Shared, &[("content-type", "text/plain")], "{}").err(), Some(Why::OtherContent));
}

#[test]
fn streams_are_apart() {
    let parts = |body: &str| ask(Scope::Shared, &[], body).expect("readable").parts;
    let all = [
        parts(r#"{"model":"m"}"#),
        parts(r#"{"model":"m","stream":true}"#),
        parts(r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#),
    ];
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    assert_eq!(parts(r#"{"model":"m","stream":false,"stream_options":{"include_usage":true}}"#), all[0]);
}

#[test]
fn fields_of_the_interface() {
    let parts = |fields: &[(&'static str, &'static str)]| ask(Scope::Shared, fields, "{}").expect("readable").parts;
    assert_eq!(parts(&[("openai-beta", "a, b")]), parts(&[("openai-beta", "b,a")]));
    assert_ne!(parts(&[("openai-beta", "a")]), parts(&[("openai-beta", "b")]));
    assert_ne!(parts(&[("anthropic-version", "1")]), parts(&[]));
    assert_eq!(parts(&[("user-agent", "x"), ("x-stainless-retry-count", "1"), ("accept", "*/*")]), parts(&[]));
}

#[test]
fn what_is_for_the_gateway_is_cut_out() {
    let rest = |body: &str| {
        let cut = ask(Scope::Shared, &[], body).expect("readable").cut?;
        Some([&body[..cut.start], &body[cut.end..]].concat())
    };
    assert_eq!(rest(r#"{"cache":{"ttl":1}, "model":"m"}"#).as_deref(), Some(r#"{"model":"m"}"#));
    assert_eq!(rest(r#"{"model":"m" ,"cache":{"ttl":1}}"#).as_deref(), Some(r#"{"model":"m"}"#));
    assert_eq!(rest(r#"{"cache":{"no-cache":true}}"#).as_deref(), Some("{}"));
    assert_eq!(rest(r#"{"a":1,"cache":{"ttl":1},"b":[2]}"#).as_deref(), Some(r#"{"a":1,"b":[2]}"#));
    assert_eq!(rest(r#"{"cache":{"mine":1}}"#), None, "a provider's own");
    let key = |body: &str| ask(Scope::Shared, &[], body).expect("readable").parts;
    assert_ne!(key(r#"{"cache":{"mine":1}}"#), key("{}"));
    assert_eq!(key(r#"{"cache":{"ttl":1}}"#), key("{}"));
}

#[test]
fn scopes() {
    let scope = |scope, body: &str| ask(scope, &[("authorization", "Bearer a")], body).expect("readable").scope;
    assert!(scope(Scope::Shared, "{}").is_empty());
    assert_eq!(scope(Scope::Credential, r#"{"user":"u"}"#), scope(Scope::Credential, "{}"));
    assert_ne!(scope(Scope::EndUser, r#"{"user":"u"}"#), scope(Scope::EndUser, r#"{"user":"v"}"#));
    assert!(
        !scope(Scope::Shared, r#"{"tools":[{"vector_store_ids":["v"]}]}"#).is_empty(),
        "only its owner can name it"
    );
}

/// What a release has stored the next one finds; where keys have to change, their schema's version changes, too.
/// `UPDATE=1` writes the file anew.
#[test]
fn golden_vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/llm-keys.txt");
    let golden = std::fs::read_to_string(path).expect("a file");
    let hash = |body: &str| {
        let mut hash = blake3::Hasher::new();
        for (name, bytes) in ask(Scope::Shared, &[], body).expect("readable").parts {
            hash.update(name.as_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        }
        hash.finalize().to_hex().to_string()
    };
    let vectors = golden.lines().filter_map(|line| line.split_once(' '));
    let found: Vec<_> = vectors.map(|(_, body)| format!("{} {body}\n", hash(body))).collect();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, found.concat()).expect("written");
    } else {
        assert_eq!(found.concat(), golden);
    }
    assert!(found.len() > 10);
}

/// As deep and wide as bodies of calls are, with values that are easily taken for one another.
fn scattered(random: &mut impl FnMut(u64) -> u64, depth: u32) -> serde_json::Value {
    use serde_json::{Value, json};
    const WORDS: [&str; 12] = ["", "a", "A", "a ", "ä", "a\u{308}", "null", "1", "model", "role", "content", "data:,a"];
    let word = |random: &mut dyn FnMut(u64) -> u64| WORDS[usize::try_from(random(12)).expect("small")];
    match random(if depth == 0 { 6 } else { 9 }) {
        0 => Value::Null,
        1 => (random(2) == 0).into(),
        2 => random(4).into(),
        3 => json!(random(1 << 20)),
        4 => json!(random(64) as f64 / 8.0),
        5 => word(random).into(),
        6 => (0..random(4)).map(|_| scattered(random, depth - 1)).collect(),
        _ => {
            let members = (0..random(5)).map(|_| (word(random).to_owned(), scattered(random, depth - 1)));
            Value::Object(members.collect())
        }
    }
}

/// 4,500 bodies that differ are ten million pairs. Two are the same to whoever reads numbers by value, and names in any
/// order.
#[test]
fn ten_million_pairs_do_not_collide() {
    fn plain(value: &serde_json::Value) -> String {
        match value {
            serde_json::Value::Number(number) => format!("{}", number.as_f64().expect("a number")),
            serde_json::Value::Array(all) => format!("[{}]", all.iter().map(plain).collect::<Vec<_>>().join(",")),
            serde_json::Value::Object(all) => {
                let mut members: Vec<_> =
                    all.iter().map(|(name, value)| format!("{name:?}:{}", plain(value))).collect();
                members.sort();
                format!("{{{}}}", members.join(","))
            }
            other => other.to_string(),
        }
    }
    let mut state = 7_u64;
    let mut random = |below: u64| {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    };
    let mut keys = std::collections::HashMap::new();
    let mut known = std::collections::HashMap::new();
    while known.len() < 4500 {
        let value = scattered(&mut random, 4);
        let body = serde_json::json!({ "model": "m", "temperature": 0, "x": value });
        let question = ask(Scope::Shared, &[], &body.to_string()).expect("readable");
        let plain = plain(&body);
        if let Some(parts) = known.get(&plain) {
            assert_eq!(parts, &question.parts, "{plain}");
            continue;
        }
        if let Some(other) = keys.insert(question.parts.clone(), plain.clone()) {
            panic!("{plain} and {other}");
        }
        known.insert(plain, question.parts);
    }
}
