//! `larder stats`: the figures of `/stats` as a table, or as they come.

use std::fmt::Write;

use bytesize::ByteSize;
use serde_json::Value;

use super::{
    admin_client::{AdminClient, Error},
    args::Stats,
};

/// Shows the figures of a running gateway.
pub async fn run(args: Stats) -> Result<(), Error> {
    let stats: Value = AdminClient::new(&args.client)?.get("/stats").await?;
    if args.json {
        println!("{stats:#}");
    } else {
        print!("{}", table(&stats));
    }
    Ok(())
}

/// One line a figure, under the name of its group.
pub(super) fn table(stats: &Value) -> String {
    let mut rows = Vec::new();
    gather(&mut rows, "", stats);
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<width$}  {value}");
        text
    })
}

fn gather(rows: &mut Vec<(String, String)>, name: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let separator = if name.is_empty() { "" } else { "." };
                gather(rows, &format!("{name}{separator}{field}"), value);
            }
        }
        value => rows.push((name.to_owned(), figure(name, value))),
    }
}

/// Bytes as people read them; everything else as it is.
fn figure(name: &str, value: &Value) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    match value.as_u64() {
        Some(bytes) if last.split('_').any(|word| word == "bytes") => ByteSize::b(bytes).to_string(),
        _ => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_figure() {
        let stats = json!({"l1": {"entries": 3, "bytes": 2048}, "purge": {"position": 17}});
        assert_eq!(table(&stats), "l1.bytes        2.0 KiB\nl1.entries      3\npurge.position  17\n");
    }
}
