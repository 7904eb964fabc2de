//! `larder reload`: has a running gateway take over its configuration, or tells what would change.

use serde_json::{Value, json};

use super::{
    admin_client::{AdminClient, Error},
    args::Reload,
};

/// Has it taken over, and shows what has changed.
pub async fn run(args: Reload) -> Result<(), Error> {
    let path = if args.dry_run { "/reload?dry_run=true" } else { "/reload" };
    let answer: Value = AdminClient::new(&args.client)?.post(path, &json!({})).await?;
    print!("{}", shown(&answer));
    Ok(())
}

fn shown(answer: &Value) -> String {
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let mut text = String::new();
    for change in list("changes") {
        let value = |name: &str| change[name].as_str().unwrap_or("nothing").to_owned();
        let setting = change["setting"].as_str().unwrap_or("?");
        text.push_str(&format!("{setting}: {} -> {}\n", value("before"), value("after")));
    }
    for warning in list("warnings") {
        text.push_str(&format!("warning: {}\n", warning.as_str().unwrap_or("?")));
    }
    let changes = list("changes").len();
    text.push_str(&match (changes, answer["dry_run"] == true) {
        (0, _) => "nothing has changed\n".to_owned(),
        (_, true) => format!("{changes} settings would change\n"),
        (_, false) => format!("{changes} settings have changed\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_change() {
        let changes = json!([
            {"setting": "cache.keep", "before": "\"1day\"", "after": "\"2h\"", "needs_restart": false},
            {"setting": "route.shop.path", "after": "\"/shop\"", "needs_restart": false},
        ]);
        let answer = json!({"dry_run": true, "changes": changes, "warnings": ["route b is never reached"]});
        let expected = "cache.keep: \"1day\" -> \"2h\"\nroute.shop.path: nothing -> \"/shop\"\n\
                        warning: route b is never reached\n2 settings would change\n";
        assert_eq!(shown(&answer), expected);
        assert_eq!(shown(&json!({"dry_run": false, "changes": []})), "nothing has changed\n");
    }
}
