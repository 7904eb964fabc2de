//! `larder explain`: the decision on a request, for people.

use std::{collections::BTreeMap, fmt::Write};

use bytesize::ByteSize;
use serde_json::Value;

use super::{
    admin_client::{AdminClient, Error},
    args::Explain,
};
use crate::admin::ExplainRequest;

/// Explains what would happen to a request.
pub async fn run(args: Explain) -> Result<(), Error> {
    let client = AdminClient::new(&args.client)?;
    let explanation: Value = client.post("/explain", &request(args)?).await?;
    print!("{}", shown(&explanation));
    Ok(())
}

fn request(args: Explain) -> Result<ExplainRequest, Error> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in args.headers {
        let refused = |_| Error::Argument(format!("the value of {name} has bytes that are no text"));
        let value = value.to_str().map_err(refused)?;
        // A field said twice is one of two lines: as a list it means the same (RFC 9110 section 5.2).
        let combined = headers.entry(name.as_str().to_owned()).or_default();
        if !combined.is_empty() {
            combined.push_str(", ");
        }
        combined.push_str(value);
    }
    let body = args.data.map(content).transpose()?;
    Ok(ExplainRequest { url: args.url, method: None, headers, tenant: args.tenant, body })
}

/// The content itself, or that of the file behind an `@`.
fn content(data: String) -> Result<Value, Error> {
    let text = match data.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map_err(|error| Error::Argument(format!("{file}: {error}")))?,
        None => data,
    };
    Ok(Value::String(text))
}

fn shown(explanation: &Value) -> String {
    let mut text = format!("{}\n  {}\n\n", word(&explanation["url"]), word(&explanation["verdict"]));
    // Writing to a String cannot fail.
    let _ = writeln!(text, "route    {}", word(&explanation["route"]));
    if let Some(tenant) = explanation["tenant"].as_str() {
        let _ = writeln!(text, "tenant   {tenant}");
    }
    let _ = writeln!(text, "key      {}", word(&explanation["key"]));
    for part in explanation["key_parts"].as_array().into_iter().flatten() {
        let value = part["value"].as_str().unwrap_or("(absent)");
        let _ = writeln!(text, "           {:<12} {value}", word(&part["name"]));
    }
    match &explanation["l1"] {
        Value::Null => text.push_str("L1       nothing\n"),
        stored => write_stored(&mut text, "L1", stored, explanation),
    }
    for (place, stored) in [("L2", &explanation["l2"]), ("L3", &explanation["l3"])] {
        if !stored.is_null() {
            write_stored(&mut text, place, stored, explanation);
        }
    }
    for variant in explanation["variants"].as_array().into_iter().flatten() {
        write_stored(&mut text, "variant", variant, explanation);
    }
    for difference in explanation["differences"].as_array().into_iter().flatten() {
        let _ = write!(text, "differs  {} {}", word(&difference["at"]), word(&difference["how"]));
        let bytes = difference["bytes"].as_array().map(Vec::as_slice).unwrap_or_default();
        match bytes {
            [from, to] => text.push_str(&format!(" within bytes {from} to {to}\n")),
            _ => text.push('\n'),
        }
    }
    if explanation["filling"] == true {
        text.push_str("fill     one is under way\n");
    }
    text
}

fn write_stored(text: &mut String, place: &str, stored: &Value, explanation: &Value) {
    let _ = write!(text, "{place:<8} {}", word(&stored["kind"]));
    if let Some(status) = stored["status"].as_u64() {
        let _ = write!(text, " {status}");
    }
    if let Some(bytes) = stored["body_bytes"].as_u64() {
        let _ = write!(text, ", {}", ByteSize::b(bytes));
    }
    if let Some(hits) = stored["hits"].as_u64() {
        let _ = write!(text, ", served {hits} times");
    }
    if let Some(millis) = stored["fill_millis"].as_u64() {
        let _ = write!(text, ", the origin took {millis} ms");
    }
    if let Some(seconds) = stored["hit_for_miss_seconds"].as_f64() {
        let _ = write!(text, " for {}", secs(seconds));
    }
    text.push('\n');
    if stored["freshness"].is_object() {
        write_freshness(text, &stored["freshness"]);
    }
    if let Some(standing) = stored["standing"].as_str() {
        let _ = write!(text, "           purges: {standing}");
        let _ = writeln!(text, " (stored at {}, the log is at {})", stored["stamp"], explanation["purge_position"]);
    }
    let tags: Vec<&str> = stored["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !tags.is_empty() {
        let _ = writeln!(text, "           tags: {}", tags.join(", "));
    }
}

fn write_freshness(text: &mut String, freshness: &Value) {
    let number = |name: &str| freshness[name].as_f64().unwrap_or_default();
    let (age, lifetime, ttl) = (number("age"), number("lifetime"), number("ttl"));
    let left = if ttl > 0.0 { format!("fresh for {}", secs(ttl)) } else { format!("stale since {}", secs(-ttl)) };
    let source = word(&freshness["source"]);
    let _ = writeln!(text, "           age {} of {} ({source}): {left}", secs(age), secs(lifetime));
    for (name, words) in
        [("stale_while_revalidate", "stale while a refresh runs"), ("stale_if_error", "stale if the origin fails")]
    {
        // Counted from now, as the windows are: what is left of freshness is no staleness.
        let window = number(name) - ttl.max(0.0);
        if window > 0.0 {
            let _ = writeln!(text, "           {words}: for {}", secs(window));
        }
    }
    for (name, words) in [("no_cache", "no-cache: validated each time"), ("must_revalidate", "never served stale")] {
        if freshness[name] == true {
            let _ = writeln!(text, "           {words}");
        }
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn secs(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 120.0 => format!("{seconds:.1} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.1} h", seconds / 3600.0),
        seconds => format!("{:.1} days", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stored_response_is_told_in_full() {
        let explanation = json!({
            "url": "http://a/b", "verdict": "hit: a fresh response is stored", "route": "shop", "key": "00ff",
            "key_parts": [{"name": "path", "value": "/b"}, {"name": "query", "value": null}],
            "l1": {"kind": "entry", "status": 200, "body_bytes": 2048, "hits": 5, "fill_millis": 300, "tags": ["x", "y"],
                "freshness": {"age": 10.0, "lifetime": 60.0, "ttl": 50.0, "stale_while_revalidate": 50.0,
                    "stale_if_error": 3650.0, "source": "explicit", "no_cache": false, "must_revalidate": true},
                "standing": "untouched", "stamp": 3},
            "variants": [], "filling": false, "purge_position": 4,
        });
        let expected = "\
http://a/b
  hit: a fresh response is stored

route    shop
key      00ff
           path         /b
           query        (absent)
L1       entry 200, 2.0 KiB, served 5 times, the origin took 300 ms
           age 10.0 s of 60.0 s (explicit): fresh for 50.0 s
           stale if the origin fails: for 60 min
           never served stale
           purges: untouched (stored at 3, the log is at 4)
           tags: x, y
";
        assert_eq!(shown(&explanation), expected);
    }

    #[test]
    fn nothing_stored_is_said() {
        let text = shown(&json!({"url": "http://a/", "verdict": "v", "l1": null, "filling": true}));
        assert!(text.ends_with("L1       nothing\nfill     one is under way\n"), "{text}");
        let elsewhere = json!({"l1": null, "l2": {"kind": "entry", "status": 200}, "l3": {"kind": "variants"}});
        let text = shown(&elsewhere);
        assert!(text.ends_with("L1       nothing\nL2       entry 200\nL3       variants\n"), "{text}");
    }

    #[test]
    fn a_field_said_twice_is_a_list() {
        let field =
            |name: &'static str, value| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value));
        let client = super::super::args::Client { admin: String::new(), admin_token: None, tls: Default::default() };
        let headers = vec![field("accept", "a"), field("accept", "b"), field("x-y", "c")];
        let request = request(Explain { url: "http://a/".to_owned(), headers, tenant: None, data: None, client })
            .expect("a request");
        assert_eq!(request.headers["accept"], "a, b");
        assert_eq!(request.headers["x-y"], "c");
    }
}
