//! What two configurations differ in, and which of it a running gateway can take over.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::Config;
use crate::admin::Change;

/// Settings that a running gateway takes over: tables, and single keys. All others need a restart.
const LIVE: [&str; 18] = [
    "access",
    "admin.tls",
    "admin.token",
    "admin.tokens",
    "cache",
    "forward",
    "headers",
    "issuer",
    "jwt",
    "limit",
    "limits.fields",
    "listen.tls",
    "llm",
    "log.level",
    "origin",
    "providers.routes",
    "route",
    "tenant",
];

/// What of these it does not: other gateways know this one by it.
const FIXED: [&str; 1] = ["headers.pseudonym"];

impl Config {
    /// What differs in `new`, by path.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let (before, after) = (flat(&self.derived.settings), flat(&new.derived.settings));
        let (shown_before, shown_after) = (flat(&self.derived.masked), flat(&new.derived.masked));
        let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
        paths.sort();
        paths.dedup();
        let differs = |path: &&String| before.get(*path) != after.get(*path);
        let change = |path: &String| Change {
            setting: path.clone(),
            before: shown_before.get(path).cloned(),
            after: shown_after.get(path).cloned(),
            needs_restart: !is_live(path),
        };
        let mut changes: Vec<Change> = paths.into_iter().filter(differs).map(change).collect();
        let order = |config: &Self| config.route.iter().map(|route| route.name.clone()).collect::<Vec<_>>();
        let (before, after) = (order(self), order(new));
        if before != after {
            // What falls on which route is a matter of their order as well.
            let (before, after) = (Some(before.join(", ")), Some(after.join(", ")));
            changes.push(Change { setting: "route".to_owned(), before, after, needs_restart: false });
        }
        changes
    }
}

fn is_live(path: &str) -> bool {
    let covers = |live: &&str| path.strip_prefix(*live).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    LIVE.iter().any(covers) && !FIXED.iter().any(covers)
}

/// Every single setting by its path, as TOML writes it.
fn flat(settings: &Dict) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    settings.iter().for_each(|(key, value)| flatten(key.clone(), value, &mut all));
    all
}

fn flatten(path: String, value: &Value, all: &mut BTreeMap<String, String>) {
    match value {
        Value::Dict(_, dict) => {
            dict.iter().for_each(|(key, value)| flatten(format!("{path}.{key}"), value, all));
        }
        Value::Array(_, elements) if !elements.is_empty() && elements.iter().all(|one| named(one).is_some()) => {
            for element in elements {
                flatten(format!("{path}.{}", named(element).unwrap_or_default()), element, all);
            }
        }
        value => {
            let text = toml_edit::ser::to_string(&Dict::from([("v".to_owned(), value.clone())]));
            let text = text.unwrap_or_default();
            all.insert(path, text.trim_end().strip_prefix("v = ").unwrap_or(&text).to_owned());
        }
    }
}

fn named(element: &Value) -> Option<&str> {
    element.as_dict()?.get("name")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str =
        "providers.routes = []\n[[route]]\nname = 'shop'\npath = '/shop'\nupstream = 'http://127.0.0.1:9000'\n";

    fn config(text: &str) -> Config {
        Config::parse("test", text).expect("valid")
    }

    fn changes(before: &str, after: &str) -> Vec<(String, bool)> {
        let changes = config(before).changes(&config(after));
        changes.into_iter().map(|change| (change.setting, change.needs_restart)).collect()
    }

    #[test]
    fn what_is_the_same_is_no_change() {
        assert_eq!(changes("", ""), []);
        assert_eq!(changes("cache.keep = '24h'", "[cache]\nkeep = '24h' # a day"), []);
    }

    #[test]
    fn a_setting_is_named_by_its_path() {
        let change = config("").changes(&config("[cache]\nkeep = '2h'"));
        let [change] = &change[..] else { panic!("{change:?}") };
        assert_eq!((change.setting.as_str(), change.needs_restart), ("cache.keep", false));
        assert_eq!((change.before.as_deref(), change.after.as_deref()), (Some("\"1day\""), Some("\"2h\"")));
    }

    #[test]
    fn a_route_is_known_by_its_name() {
        let other = SHOP.replace("9000", "9001");
        assert_eq!(changes(SHOP, &other), [("route.shop.upstream".to_owned(), false)]);
        let both = format!("{SHOP}[[route]]\nname = 'all'\npath = '/all'\nupstream = 'http://127.0.0.1:9002'\n");
        let added: Vec<_> = changes(SHOP, &both).into_iter().map(|(setting, _)| setting).collect();
        assert_eq!(added, ["route.all.name", "route.all.path", "route.all.upstream", "route"], "and their order");
        let added = config(SHOP).changes(&config(&both));
        assert!(added.iter().all(|change| change.setting == "route" || change.before.is_none()));
    }

    #[test]
    fn what_a_process_has_for_life_is_said() {
        assert_eq!(changes("", "listen.data = '127.0.0.1:1'"), [("listen.data".to_owned(), true)]);
        assert_eq!(changes("", "log.level = 'debug'"), [("log.level".to_owned(), false)]);
        assert_eq!(changes("", "log.format = 'json'"), [("log.format".to_owned(), true)]);
        let tls = "listen.tls.certificates = [{ cert = 'c', key = 'k' }]";
        assert_eq!(changes("", tls), [("listen.tls.certificates".to_owned(), false)]);
    }

    #[test]
    fn secrets_are_compared_and_not_shown() {
        let change = config("admin.token = 'one-token-of-some-length'");
        let change = change.changes(&config("admin.token = 'two-token-of-some-length'"));
        let [change] = &change[..] else { panic!("{change:?}") };
        assert_eq!((change.before.as_deref(), change.after.as_deref()), (Some("\"***\""), Some("\"***\"")));
    }
}
