//! Settings from the environment: `LARDER_` and the path of the key in capitals, `__` between its steps.
//!
//! `LARDER_L1__MAX_BYTES=1GiB` sets `l1.max_bytes`. What a variable means depends on the kind of its key, so that a
//! token of digits stays a text. A variable that names no key is an error, like an unknown key in a file.

use figment::value::{Dict, Value};
use toml_edit::Item;

use super::{
    error::{Place, Problem},
    file,
    key_path::KeyPath,
    layer::{Layer, Setting},
    schema::{self, Kind},
};

/// What every variable begins with.
const PREFIX: &str = "LARDER_";

/// Variables that stand for flags, or are there for scripts around the gateway; none of them is a key.
const RESERVED: [&str; 9] = [
    "LARDER_CONFIG",
    "LARDER_UPSTREAM",
    "LARDER_REDIS",
    "LARDER_ADMIN_URL",
    "LARDER_ADMIN_TOKEN",
    "LARDER_ADMIN_CA",
    "LARDER_ADMIN_CERT",
    "LARDER_ADMIN_KEY",
    "LARDER_DATA",
];

/// Takes the environment apart.
pub(super) fn layer(variables: &[(String, String)]) -> Layer {
    let mut layer = Layer::default();
    for (name, text) in variables {
        if let Some(keys) = name.strip_prefix(PREFIX).filter(|_| !RESERVED.contains(&&name[..])) {
            variable(&mut layer, name, keys, text);
        }
    }
    layer
}

fn variable(layer: &mut Layer, name: &str, keys: &str, text: &str) {
    let place = Place::Variable(name.to_owned());
    let path = keys.split("__").fold(KeyPath::root(), |path, key| path.key(&key.to_ascii_lowercase()));
    let mut problem = |message: String| layer.problems.push(Problem::new(place.clone(), &KeyPath::root(), message));
    match schema::find(schema::root(), &path) {
        Some(Kind::Value(default)) => match value(text, default) {
            Ok(value) => layer.settings.push(Setting::new(path, value, place)),
            Err(message) => problem(message),
        },
        Some(Kind::Map) if path.steps().len() > 2 => layer.settings.push(Setting::new(path, text, place)),
        Some(Kind::Map) => match toml(text) {
            Ok(Value::Dict(_, map)) => layer.settings.extend(entries(&path, map, &place)),
            _ => problem("expected a TOML table: { key = \"value\" }".to_owned()),
        },
        Some(Kind::Tables(_)) if keys == "ROUTE" => merge(layer, file::routes_from(text, &place)),
        Some(Kind::Tables(_)) => match toml(text) {
            Ok(value @ Value::Array(..)) => layer.settings.push(Setting::new(path, value, place)),
            _ => problem("expected a TOML list of tables: [{ key = \"value\" }]".to_owned()),
        },
        Some(Kind::Table(_)) => problem(format!("{path} is a table; set its keys, {name}__KEY")),
        None if is_service_link(keys) => {}
        None => problem(file::unknown(suggestion(keys))),
    }
}

fn merge(layer: &mut Layer, routes: Layer) {
    layer.routes = routes.routes;
    layer.problems.extend(routes.problems);
}

fn entries(path: &KeyPath, map: Dict, place: &Place) -> Vec<Setting> {
    map.into_iter().map(|(key, value)| Setting::new(path.key(&key), value, place.clone())).collect()
}

/// Reads `text` as what `default` is. What cannot be read so stays a text, and is refused as one where it is tried.
fn value(text: &str, default: &Item) -> Result<Value, String> {
    Ok(match default {
        Item::Value(toml_edit::Value::Integer(_)) => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
        Item::Value(toml_edit::Value::Float(_)) => text.parse::<f64>().map_or_else(|_| text.into(), Value::from),
        Item::Value(toml_edit::Value::Boolean(_)) => text.parse::<bool>().map_or_else(|_| text.into(), Value::from),
        Item::Value(toml_edit::Value::Array(list)) if !text.trim_start().starts_with('[') => {
            let numbers = list.get(0).is_some_and(toml_edit::Value::is_integer);
            Value::from(
                text.split(',')
                    .map(str::trim)
                    .filter(|text| !text.is_empty())
                    .map(|text| {
                        text.parse::<i64>().ok().filter(|_| numbers).map_or_else(|| Value::from(text), Value::from)
                    })
                    .collect::<Vec<_>>(),
            )
        }
        Item::Value(toml_edit::Value::Array(_)) => {
            toml(text).map_err(|()| "expected a TOML list, or values with commas between them".to_owned())?
        }
        _ => Value::from(text),
    })
}

fn toml(text: &str) -> Result<Value, ()> {
    let item: toml_edit::Value = text.trim().parse().map_err(|_| ())?;
    Ok(file::value(&Item::Value(item)))
}

/// Variables that Kubernetes and Docker set for a service or link of the name `larder` or `larder-something`:
/// `LARDER_SERVICE_HOST`, `LARDER_PORT`, `LARDER_PORT_8080_TCP_ADDR`, ...
fn is_service_link(keys: &str) -> bool {
    let keys = format!("_{keys}_");
    !keys.contains("__") && ["_SERVICE_HOST_", "_SERVICE_PORT_", "_PORT_"].iter().any(|part| keys.contains(part))
}

/// The variable that may have been meant.
fn suggestion(keys: &str) -> Option<String> {
    let mut names = Vec::new();
    collect(schema::root(), PREFIX, &mut names);
    schema::nearest(&format!("{PREFIX}{keys}"), names.iter().map(String::as_str))
}

fn collect(table: &schema::Table, prefix: &str, names: &mut Vec<String>) {
    for (key, kind) in table {
        let name = format!("{prefix}{}", key.to_ascii_uppercase());
        match kind {
            Kind::Table(table) => collect(table, &format!("{name}__"), names),
            Kind::Value(_) | Kind::Tables(_) | Kind::Map => names.push(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Layer {
        layer(&[(name.to_owned(), text.to_owned())])
    }

    fn setting(name: &str, text: &str) -> (String, Value) {
        let mut layer = read(name, text);
        assert_eq!(layer.problems, []);
        let setting = layer.settings.pop().expect("a setting");
        (setting.path.to_string(), setting.value)
    }

    fn problem(name: &str, text: &str) -> String {
        read(name, text).problems.pop().expect("a problem").to_string()
    }

    #[test]
    fn values_are_read_as_their_kind() {
        assert_eq!(setting("LARDER_L1__MAX_BYTES", "1024"), ("l1.max_bytes".to_owned(), Value::from("1024")));
        assert_eq!(setting("LARDER_ADMIN__TOKEN", "123"), ("admin.token".to_owned(), Value::from("123")));
        assert_eq!(setting("LARDER_DATA_DIR", "/x"), ("data_dir".to_owned(), Value::from("/x")));
        assert_eq!(setting("LARDER_CLIENT__CONNECTIONS_MAX", "7").1, Value::from(7i64));
        assert_eq!(setting("LARDER_CACHE__TTL_JITTER", "0").1, Value::from(0.0));
        assert_eq!(setting("LARDER_LOG__ACCESS", "false").1, Value::from(false));
        assert_eq!(setting("LARDER_LOG__ACCESS", "no").1, Value::from("no"));
        assert_eq!(setting("LARDER_CACHE__METHODS", "GET, HEAD").1, Value::from(vec!["GET", "HEAD"]));
        assert_eq!(setting("LARDER_CACHE__METHODS", "['GET']").1, Value::from(vec!["GET"]));
        assert_eq!(setting("LARDER_CACHE__KEY_HEADERS", "").1, Value::from(Vec::<Value>::new()));
        assert_eq!(setting("LARDER_FORWARD__CONNECT_PORTS", "443,8443").1, Value::from(vec![443i64, 8443]));
    }

    #[test]
    fn maps_by_key_or_whole() {
        let expected = ("cache.status_ttl.404".to_owned(), Value::from("10s"));
        assert_eq!(setting("LARDER_CACHE__STATUS_TTL__404", "10s"), expected);
        assert_eq!(setting("LARDER_CACHE__STATUS_TTL", "{ 404 = '10s' }"), expected);
        assert!(problem("LARDER_CACHE__STATUS_TTL", "10s").contains("TOML table"));
    }

    #[test]
    fn routes_as_toml() {
        let layer = read("LARDER_ROUTE", r#"[{ name = "a", upstream = "http://h", cache = { mode = "bypass" } }]"#);
        assert_eq!(layer.problems, []);
        let routes = layer.routes.expect("routes");
        assert_eq!(routes[0].path.to_string(), r#"route["a"]"#);
        assert_eq!(routes[0].place, Place::Variable("LARDER_ROUTE".to_owned()));
        assert_eq!(routes[0].settings.len(), 3);
        assert!(problem("LARDER_ROUTE", "nothing").starts_with("LARDER_ROUTE: route: expected a TOML list"));
        assert!(problem("LARDER_ROUTE", "[{ nam = 'a' }]").contains("did you mean `name`?"));
    }

    #[test]
    fn unknown_variables_are_refused() {
        assert_eq!(
            problem("LARDER_L1_MAX_BYTES", "1"),
            "LARDER_L1_MAX_BYTES: unknown key; did you mean `LARDER_L1__MAX_BYTES`?"
        );
        assert!(problem("LARDER_CACHE__TLL_MAX", "1s").contains("`LARDER_CACHE__TTL_MAX`"));
        assert_eq!(problem("LARDER_FROBNICATE", "1"), "LARDER_FROBNICATE: unknown key");
        assert!(problem("LARDER_L1", "1").contains("LARDER_L1__KEY"));
        assert!(problem("LARDER_CACHE__METHODS", "[GET").contains("list"));
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for name in [
            "LARDER_ADMIN_TOKEN",
            "LARDER_CONFIG",
            "LARDER_SERVICE_HOST",
            "LARDER_PORT_8080_TCP",
            "LARDER_PORT",
            "LARDER_ADMIN_SERVICE_PORT_HTTP",
            "PATH",
            "larder_l1__max_bytes",
        ] {
            let layer = read(name, "x");
            assert!(layer.problems.is_empty() && layer.settings.is_empty(), "{name}");
        }
    }
}
