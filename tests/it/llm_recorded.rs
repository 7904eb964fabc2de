//! Exchanges with providers that really happened: what goes to the provider is what was sent, and what comes out of the cache
//! is what the provider said, to the byte. Skipped without `LARDER_DATA`.

use std::{
    collections::{HashMap, HashSet},
    io::BufRead,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use serde::Deserialize;

use crate::support::{
    client,
    gateway::{self, Gateway},
    origin::{self, Origin, Seen, reply},
};

#[derive(Deserialize)]
struct Exchange {
    host: String,
    method: String,
    url: String,
    req_headers: Fields,
    req_body: String,
    status: u16,
    resp_headers: Fields,
    resp_body: String,
    sse: bool,
}

/// Each with a text, or a list of them.
#[derive(Deserialize)]
struct Fields(HashMap<String, serde_json::Value>);

impl Fields {
    fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?;
        value.as_str().or_else(|| value.get(0)?.as_str())
    }
}

/// One that is asked again here.
struct Asked {
    /// Route, path and query.
    target: String,
    /// The same without the route.
    path: String,
    exchange: Exchange,
}

fn exchanges() -> Option<Vec<Exchange>> {
    let data = std::env::var_os("LARDER_DATA").filter(|data| !data.is_empty()).map(PathBuf::from)?;
    let file = std::fs::File::open(data.join("llm-exchanges/pydantic_ai_cassettes.jsonl.zst")).ok()?;
    let lines = std::io::BufReader::new(zstd::Decoder::new(file).expect("zstd")).lines();
    Some(lines.map(|line| serde_json::from_str(&line.expect("text")).expect("an exchange")).collect())
}

fn asked(exchange: Exchange) -> Option<Asked> {
    let route = match &*exchange.host {
        "api.openai.com" | "api.groq.com" | "openrouter.ai" | "api.mistral.ai" | "api.deepseek.com"
        | "api.cerebras.ai" => "openai",
        "api.anthropic.com" => "anthropic",
        "generativelanguage.googleapis.com" => "gemini",
        _ => return None,
    };
    let is_text = exchange.req_headers.get("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    if exchange.method != "POST" || !is_text || exchange.resp_headers.get("content-type").is_none() {
        return None;
    }
    let path = exchange.url.split_once("://")?.1.split_once('/')?.1;
    if path.contains("mbed") {
        // Of several inputs only the unknown ones are asked for: another matter.
        return None;
    }
    let (target, path) = (format!("/{route}/{path}"), format!("/{path}"));
    Some(Asked { target, path, exchange })
}

/// A provider that says to each call what was said then. Which one it is, a field tells.
async fn provider(all: &Arc<Vec<Asked>>) -> Origin {
    let paths: HashSet<String> = all.iter().map(|asked| asked.path.clone()).collect();
    paths
        .into_iter()
        .fold(origin::new(), |origin, path| {
            let all = Arc::clone(all);
            origin.handler(&path, move |seen: &Seen, _| {
                let asked = &all[number(seen)];
                assert!(seen.body == asked.exchange.req_body, "{} came changed", asked.target);
                let said = &asked.exchange;
                let kind = said.resp_headers.get("content-type").expect("looked for before");
                let answer = reply(said.resp_body.clone()).status(said.status).header("content-type", kind);
                answer.cache_control("no-store")
            })
        })
        .run()
        .await
}

fn number(seen: &Seen) -> usize {
    seen.header("x-nth").and_then(|nth| nth.parse().ok()).expect("a number")
}

fn config(origin: &Origin) -> String {
    let route = |protocol: &str| {
        format!(
            "[[route]]\nname = '{protocol}'\npath = '/{protocol}'\nstrip_path = true\nupstream = '{}'\n\
             protocol = '{protocol}'\nllm = {{ store = 'always', tools_ttl = '1day' }}\n",
            origin.url()
        )
    };
    ["openai", "anthropic", "gemini"].map(route).concat()
}

fn call(gateway: &Gateway, asked: &Asked, nth: usize) -> client::Request {
    let mut request =
        client::request("POST", gateway.url(&asked.target)).body(Bytes::from(asked.exchange.req_body.clone()));
    for name in ["content-type", "anthropic-version", "anthropic-beta", "openai-beta"] {
        if let Some(value) = asked.exchange.req_headers.get(name) {
            request = request.header(name, value);
        }
    }
    request.header("authorization", "Bearer sk-1").header("x-nth", &nth.to_string())
}

#[tokio::test]
async fn what_was_recorded_of_providers_is_repeated_to_the_byte() {
    let Some(exchanges) = exchanges() else {
        eprintln!("skipped: there are no recorded exchanges (LARDER_DATA)");
        return;
    };
    let all: Arc<Vec<Asked>> = Arc::new(exchanges.into_iter().filter_map(asked).collect());
    let origin = provider(&all).await;
    let gateway = gateway::new().config(config(&origin)).run().await;
    let (mut streams, mut hits, mut unlike) = (0, 0, Vec::new());
    // Another answer to the same call is no answer to this one here, although it could be.
    let mut answered: HashMap<(String, String), usize> = HashMap::new();
    for (nth, asked) in all.iter().enumerate() {
        let said = &asked.exchange;
        let first = call(&gateway, asked, nth).send().await;
        if first.cache().hit {
            let same = (asked.target.clone(), canonical(&said.req_body));
            let earlier = answered.get(&same).unwrap_or_else(|| {
                let other = all[..nth].iter().rfind(|other| first.body == other.exchange.resp_body);
                let other = other.map_or("", |other| &other.exchange.req_body);
                panic!("{} is answered by another call:\n{}\n{other}", asked.target, said.req_body)
            });
            assert!(first.body == all[*earlier].exchange.resp_body, "{}", asked.target);
            continue;
        }
        assert!(first.status == said.status && first.body == said.resp_body, "{}: {}", asked.target, first.status);
        if !first.cache().stored {
            unlike.push(format!("{} {} {:?}", said.status, asked.target, first.cache().detail));
            continue;
        }
        answered.insert((asked.target.clone(), canonical(&said.req_body)), nth);
        let again = call(&gateway, asked, nth).send().await;
        assert!(again.status == said.status && again.body == said.resp_body, "{}: {}", asked.target, again.status);
        if !again.cache().hit {
            // Its end said that it is not to be kept.
            unlike.push(format!("{} {}", said.status, asked.target));
            continue;
        }
        hits += 1;
        streams += usize::from(said.sse);
    }
    assert!(hits > 800 && streams > 50, "{hits} of {}, {streams} streams; not stored: {unlike:#?}", all.len());
}

/// A body as whoever compares two of them by meaning sees it, without what is no part of a key. Streams are apart, and no
/// stream is what comes without a word.
fn canonical(body: &str) -> String {
    let mut body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    if let Some(members) = body.as_object_mut() {
        for name in
            ["user", "metadata", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"]
        {
            members.remove(name);
        }
        if members.get("stream").is_some_and(|stream| *stream != true) {
            members.remove("stream");
        }
    }
    unmarked(&mut body);
    body.to_string()
}

fn unmarked(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Array(all) => all.iter_mut().for_each(unmarked),
        serde_json::Value::Object(all) => {
            all.remove("cache_control");
            all.values_mut().for_each(unmarked);
        }
        _ => {}
    }
}
