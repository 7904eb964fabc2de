//! `larder nodes`: who shares the Redis of a gateway, as a table, or as it comes.

use serde_json::Value;

use super::{
    admin_client::{AdminClient, Error},
    args::Stats,
};

/// Shows the nodes a running gateway is among.
pub async fn run(args: Stats) -> Result<(), Error> {
    let fleet: Value = AdminClient::new(&args.client)?.get("/nodes").await?;
    if args.json {
        println!("{fleet:#}");
    } else {
        print!("{}", shown(&fleet));
    }
    Ok(())
}

fn shown(fleet: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let mut text = format!(
        "log {}-{}, {} behind, lease {} ms{}, {} purges wait for Redis\n",
        number(&fleet["epoch"]),
        number(&fleet["seq"]),
        number(&fleet["lag"]),
        number(&fleet["lease_left_ms"]),
        if fleet["fenced"] == true { " (fenced)" } else { "" },
        number(&fleet["queued"]),
    );
    let nodes = fleet["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let word = |node: &Value, field: &str| node[field].as_str().unwrap_or("?").to_owned();
    let width = nodes.iter().map(|node| word(node, "name").chars().count()).max().unwrap_or_default().max(4);
    text.push_str(&format!("  {:<width$}  {:<16}  state  record  silent  release\n", "name", "id"));
    for node in nodes {
        let mark = if node["this"] == true { "*" } else { " " };
        let record = format!("{}-{}", number(&node["epoch"]), number(&node["seq"]));
        let silent = format!("{} ms", number(&node["silent_ms"]));
        let (name, id, state) = (word(node, "name"), word(node, "id"), word(node, "state"));
        let release = word(node, "version");
        let stranger = if node["shares"] == false { "  another secret" } else { "" };
        text.push_str(&format!(
            "{mark} {name:<width$}  {id:<16}  {state:<5}  {record:<6}  {silent:<6}  {release}{stranger}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_for_each_node() {
        let node = |name, this, state| {
            json!({"id": "0123456789abcdef", "name": name, "version": "0.1.0", "this": this, "state": state,
                "epoch": 1, "seq": 7, "silent_ms": 12})
        };
        let nodes = [node("alpha", true, "live"), node("b", false, "gone")];
        let fleet = json!({"epoch": 1, "seq": 7, "lag": 0, "fenced": false, "lease_left_ms": 1800, "queued": 0,
            "nodes": nodes});
        let text = shown(&fleet);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "log 1-7, 0 behind, lease 1800 ms, 0 purges wait for Redis");
        assert_eq!(lines[2], "* alpha  0123456789abcdef  live   1-7     12 ms   0.1.0");
        assert_eq!(lines[3], "  b      0123456789abcdef  gone   1-7     12 ms   0.1.0");
    }
}
