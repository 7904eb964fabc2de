//! What `larder top` shows, as text.

use std::fmt::Write;

use bytesize::ByteSize;
use serde_json::Value;

use super::{super::tail, Sample};

/// Outcomes that did not wait for the origin, and those in which the cache had a say; as `/stats` counts them.
const HITS: [&str; 3] = ["hit", "stale", "stale-if-error"];
const OTHERS: [&str; 6] = ["revalidated", "collapsed", "hit-for-miss", "refresh", "expired", "miss"];
/// Lines of a list.
const ROUTES: usize = 12;

/// Differences between two looks.
struct Between<'a> {
    before: &'a Value,
    now: &'a Value,
    seconds: f64,
}

impl Between<'_> {
    /// How much a counter has grown.
    fn grown(&self, of: impl Fn(&Value) -> f64) -> f64 {
        (of(self.now) - of(self.before)).max(0.0)
    }

    fn rate(&self, of: impl Fn(&Value) -> f64) -> f64 {
        self.grown(of) / self.seconds
    }

    /// Share of requests that the cache answered, of those in which it had a say; of `requests`.
    fn ratio(&self, requests: impl Fn(&Value) -> Value) -> Option<f64> {
        let hits = self.grown(|stats| sum(&requests(stats), &HITS));
        let others = self.grown(|stats| sum(&requests(stats), &OTHERS));
        (hits + others > 0.0).then(|| hits / (hits + others))
    }
}

/// The whole screen.
pub(super) fn screen(authority: &str, before: &Sample, now: &Sample, (width, height): (usize, usize)) -> String {
    let seconds = (now.at - before.at).as_secs_f64().max(0.001);
    // Where another gateway has taken its place, its figures are all new.
    let restarted = number(&now.stats["uptime_seconds"]) < number(&before.stats["uptime_seconds"]);
    let nothing = Value::Null;
    let between = Between { before: if restarted { &nothing } else { &before.stats }, now: &now.stats, seconds };
    let mut text = head(authority, &now.stats);
    text.push('\n');
    text.push_str(&figures(&between, before, now));
    text.push('\n');
    text.push_str(&routes(&between));
    text.push_str(&nodes(&now.stats["fleet"]["nodes"]));
    text.push_str(&failed(&now.failed));
    text.lines().take(height).fold(String::new(), |mut all, line| {
        all.extend(line.chars().take(width));
        all.push('\n');
        all
    })
}

fn head(authority: &str, stats: &Value) -> String {
    let uptime = std::time::Duration::from_secs(stats["uptime_seconds"].as_u64().unwrap_or_default());
    format!("larder at {authority}, up {}; Ctrl-C ends\n", humantime::format_duration(uptime))
}

fn figures(between: &Between<'_>, before: &Sample, now: &Sample) -> String {
    let stats = between.now;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<12} {value}");
    };
    let requests = |stats: &Value| stats["requests"].clone();
    line("requests", format!("{:>9.1} /s   {} under way", between.rate(total), number(&stats["requests_in_flight"])));
    let ever = stats["hit_ratio"].as_f64();
    line("hit ratio", format!("{:>9}      {} since the start", percent(between.ratio(requests)), percent(ever)));
    line("  by tier", tiers(between));
    let quantile = |share| now.latency.quantile(&before.latency, share).map_or("-".to_owned(), millis);
    line("latency", format!("{:>9} p50  {} p99", quantile(0.5), quantile(0.99)));
    let sent = bytes(between.rate(|stats| number(&stats["sent_bytes"])));
    line("sent", format!("{sent:>9} /s   {} since the start", bytes(number(&stats["sent_bytes"]))));
    let fills = &stats["fills"];
    line(
        "fills",
        format!("{:>9} under way, {} of bodies", number(&fills["running"]), bytes(number(&fills["memory_bytes"]))),
    );
    line("spared", format!("{:>9.1} /s   {} origin requests", between.rate(spared), spared(stats)));
    let l1 = &stats["l1"];
    line(
        "memory",
        format!(
            "{:>9} of {}, {} entries",
            bytes(number(&l1["bytes"])),
            bytes(number(&l1["max_bytes"])),
            number(&l1["entries"])
        ),
    );
    if let Some(l2) = stats["l2"].as_object() {
        let up = if l2.get("up").and_then(Value::as_bool).unwrap_or_default() { "up" } else { "down" };
        line("Redis", format!("{up:>9}      {} entries written", number(&stats["l2"]["stored"])));
    }
    if stats["l3"].is_object() {
        let l3 = &stats["l3"];
        line("disk", format!("{:>9}      {} entries", bytes(number(&l3["physical_bytes"])), number(&l3["entries"])));
    }
    let llm = &stats["llm"];
    if tokens(&llm["saved"]) + tokens(&llm["billed"]) > 0.0 {
        let account = |name: &str| format!("{} tokens, ${:.4}", tokens(&llm[name]), number(&llm[name]["dollars"]));
        line("models", format!("saved {}; billed {}", account("saved"), account("billed")));
    }
    text
}

/// Who answered, of all requests in which the cache had a say.
fn tiers(between: &Between<'_>) -> String {
    let hits = |tier: &str| between.grown(|stats| number(&stats["tier_hits"][tier]));
    let others = between.grown(|stats| sum(&stats["requests"], &OTHERS));
    let of = ["l1", "l2", "l3"].map(hits);
    let all = of.iter().sum::<f64>() + others;
    let share = |part: f64| percent((all > 0.0).then(|| part / all));
    format!("memory {}   Redis {}   disk {}   origin {}", share(of[0]), share(of[1]), share(of[2]), share(others))
}

/// The busiest routes.
fn routes(between: &Between<'_>) -> String {
    let list = |stats: &Value| stats["routes"].as_array().cloned().unwrap_or_default();
    let before = list(between.before);
    let mut rows: Vec<(f64, String)> = Vec::new();
    for route in list(between.now) {
        let earlier = before.iter().find(|one| one["name"] == route["name"]).cloned().unwrap_or_default();
        let own = Between { before: &earlier, now: &route, seconds: between.seconds };
        let rate = own.rate(total);
        let name: String = route["name"].as_str().unwrap_or_default().chars().take(24).collect();
        let row = format!(
            "{name:<24} {rate:>9.1} {:>8} {:>10} {:>9}\n",
            percent(own.ratio(|route| route["requests"].clone())),
            bytes(own.rate(|route| number(&route["sent_bytes"]))),
            number(&route["requests"]["error"]),
        );
        rows.push((rate, row));
    }
    rows.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let head = format!("{:<24} {:>9} {:>8} {:>10} {:>9}\n", "ROUTE", "REQ/S", "HITS", "SENT/S", "ERRORS");
    rows.into_iter().take(ROUTES).fold(head, |text, (_, row)| text + &row)
}

fn nodes(nodes: &Value) -> String {
    let Some(nodes) = nodes.as_array() else { return String::new() };
    let mut text = format!("\n{:<24} {:<6} {:>9} {:>10}\n", "NODE", "STATE", "RECORD", "SILENT");
    for node in nodes {
        let mark = if node["this"] == true { "*" } else { "" };
        let name = format!("{}{mark}", node["name"].as_str().unwrap_or("?"));
        let record = format!("{}-{}", number(&node["epoch"]), number(&node["seq"]));
        let state = node["state"].as_str().unwrap_or("?");
        let _ = writeln!(text, "{name:<24} {state:<6} {record:>9} {:>7} ms", number(&node["silent_ms"]));
    }
    text
}

fn failed(failed: &[Value]) -> String {
    if failed.is_empty() {
        return String::new();
    }
    failed.iter().fold("\nERRORS\n".to_owned(), |text, request| text + &tail::shown(&request.to_string()) + "\n")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn sum(requests: &Value, outcomes: &[&str]) -> f64 {
    outcomes.iter().map(|outcome| number(&requests[*outcome])).sum()
}

fn total(stats: &Value) -> f64 {
    stats["requests"].as_object().into_iter().flatten().map(|(_, count)| number(count)).sum()
}

fn spared(stats: &Value) -> f64 {
    number(&stats["origin_requests_spared"])
}

fn tokens(account: &Value) -> f64 {
    number(&account["input_tokens"]) + number(&account["output_tokens"])
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn millis(millis: f64) -> String {
    if millis < 10.0 { format!("{millis:.2} ms") } else { format!("{millis:.0} ms") }
}

fn bytes(bytes: f64) -> String {
    ByteSize::b(bytes as u64).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::Instant;

    use super::{super::latency::Latency, *};

    fn sample(at: Instant, hits: u64, misses: u64) -> Sample {
        let requests = json!({"hit": hits, "miss": misses, "error": 0});
        let stats = json!({
            "uptime_seconds": 61, "requests": requests, "hit_ratio": 0.25, "sent_bytes": hits * 1024,
            "requests_in_flight": 2, "origin_requests_spared": hits, "tier_hits": {"l1": hits, "l2": 0, "l3": 0},
            "fills": {"running": 1, "memory_bytes": 0}, "l1": {"entries": 3, "bytes": 1024, "max_bytes": 2048},
            "routes": [{"name": "web", "requests": requests, "sent_bytes": 0}],
            "llm": {"saved": {"input_tokens": 5, "output_tokens": 5, "dollars": 0.5}, "billed": {"dollars": 0.0}},
        });
        let failed = vec![json!({"time": "2026-01-01T00:00:00Z", "status": 502, "outcome": "error", "target": "/bad"})];
        Sample { at, stats, latency: Latency::default(), failed }
    }

    #[test]
    fn rates_are_those_between_two_looks() {
        let start = Instant::now();
        let (before, now) = (sample(start, 10, 10), sample(start + Duration::from_secs(2), 40, 20));
        let text = screen("a:1", &before, &now, (200, 100));
        for shown in
            ["20.0 /s", "75.0 %      25.0 % since", "memory 75.0 %", "15.0 KiB /s", "saved 10 tokens, $0.5000", "/bad"]
        {
            assert!(text.contains(shown), "{shown} in\n{text}");
        }
        let route = text.lines().find(|line| line.starts_with("web")).expect("a route");
        assert!(route.contains("20.0   75.0 %"), "{route}");
    }

    #[test]
    fn a_gateway_that_was_restarted_begins_anew() {
        let start = Instant::now();
        let (mut before, now) = (sample(start, 100, 100), sample(start + Duration::from_secs(1), 5, 5));
        before.stats["uptime_seconds"] = json!(100);
        assert!(screen("a:1", &before, &now, (200, 100)).contains("10.0 /s"));
        assert_eq!(screen("a:1", &before, &now, (9, 2)), "larder at\n\n");
    }
}
