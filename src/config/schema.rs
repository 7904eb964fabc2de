//! Which keys there are, and of which kind: read from `default.toml`, so that no list of them is kept twice.

use std::{collections::BTreeMap, sync::LazyLock};

use toml_edit::{Document, Item, TableLike};

use super::key_path::KeyPath;

/// The defaults, which are also the manual.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The keys of a route beside `access`, `cache`, `origin` and `llm`, which have the keys of the tables of that name.
const ROUTE: &str = r#"
name = ""
host = ""
path = ""
strip_path = false
upstream = ""
protocol = "http"
host_header = "upstream"
headers = { request_set = {}, request_remove = [], response_set = {}, response_remove = [] }
"#;

/// The keys of one of `admin.tokens`.
const TOKEN: &str = r#"
name = ""
token = ""
scope = "read"
"#;

/// The keys of one of `listen.tls.certificates` and `admin.tls.certificates`.
const CERTIFICATE: &str = r#"
cert = ""
key = ""
"#;

/// The keys of one of `tenant`.
const TENANT: &str = r#"
name = ""
keys = []
key_hashes = []
subjects = []
routes = []
"#;

/// The keys of one of `webhook`.
const WEBHOOK: &str = r#"
name = ""
kind = "json"
url = ""
zone = ""
service = ""
token = ""
token_file = ""
secret = ""
queue_max = 1000
retry_for = "10m"
"#;

/// The keys of one of `issuer`.
const ISSUER: &str = r#"
name = ""
issuer = ""
keys = ""
audiences = []
algorithms = []
leeway = "30s"
name_claim = "sub"
roles_claim = "roles"
roles = {}
refresh = "15m"
"#;

/// The keys of one of `limit`.
const LIMIT: &str = r#"
name = ""
routes = []
per = "route"
rate = "100/min"
burst = 0
count = "requests"
over = "memory"
fallback = "local"
batch = 1
exempt = []
enforce = true
"#;

/// What stands behind a key.
pub(super) enum Kind {
    /// A value, such as this one by default.
    Value(Item),
    /// A list of tables, each with these keys.
    Tables(Table),
    /// A table with these keys.
    Table(Table),
    /// A table with any keys and texts behind them.
    Map,
}

/// Keys and their kinds.
pub(super) type Table = BTreeMap<String, Kind>;

/// The whole configuration; `route`, `tenant`, `issuer`, `limit` and `webhook` are lists of tables.
pub(super) fn root() -> &'static Table {
    static ROOT: LazyLock<Table> = LazyLock::new(|| {
        let mut root = table(DEFAULTS);
        let mut route = table(ROUTE);
        for section in ["access", "cache", "origin", "llm"] {
            let defaults = document(DEFAULTS);
            route.insert(section.to_owned(), kind(&defaults[section]));
        }
        if let Some(Kind::Table(access)) = route.get_mut("access") {
            // Metrics are everybody's.
            access.remove("names_max");
        }
        root.insert("route".to_owned(), Kind::Tables(route));
        root.insert("tenant".to_owned(), Kind::Tables(table(TENANT)));
        root.insert("webhook".to_owned(), Kind::Tables(table(WEBHOOK)));
        root.insert("limit".to_owned(), Kind::Tables(table(LIMIT)));
        root.insert("issuer".to_owned(), Kind::Tables(table(ISSUER)));
        if let Some(Kind::Table(admin)) = root.get_mut("admin") {
            admin.insert("tokens".to_owned(), Kind::Tables(table(TOKEN)));
        }
        for section in ["listen", "admin"] {
            if let Some(Kind::Table(section)) = root.get_mut(section)
                && let Some(Kind::Table(tls)) = section.get_mut("tls")
            {
                tls.insert("certificates".to_owned(), Kind::Tables(table(CERTIFICATE)));
            }
        }
        root
    });
    &ROOT
}

/// The keys of a route.
pub(super) fn route() -> &'static Table {
    match root().get("route") {
        Some(Kind::Tables(table)) => table,
        _ => unreachable!("inserted above"),
    }
}

fn document(text: &'static str) -> Document<&'static str> {
    Document::parse(text).expect("compiled in, and parsed by a test")
}

fn table(text: &'static str) -> Table {
    of(document(text).as_table())
}

fn of(table: &dyn TableLike) -> Table {
    table.iter().map(|(key, item)| (key.to_owned(), kind(item))).collect()
}

fn kind(item: &Item) -> Kind {
    match item.as_table_like() {
        Some(table) if table.is_empty() => Kind::Map,
        Some(table) => Kind::Table(of(table)),
        None => Kind::Value(item.clone()),
    }
}

/// What `path` leads to.
pub(super) fn find<'a>(table: &'a Table, path: &KeyPath) -> Option<&'a Kind> {
    let mut keys = path.keys();
    let mut kind = table.get(keys.next()?)?;
    for key in keys {
        match kind {
            Kind::Table(table) => kind = table.get(key)?,
            Kind::Map => {}
            Kind::Value(_) | Kind::Tables(_) => return None,
        }
    }
    Some(kind)
}

/// A key that may have been meant by `unknown` in `table`: one that is spelt nearly so, or else one that is spelt
/// just so in another table.
pub(super) fn suggestion(table: &Table, unknown: &str) -> Option<String> {
    let unknown = unknown.to_ascii_lowercase().replace('-', "_");
    nearest(&unknown, table.keys().map(String::as_str)).or_else(|| elsewhere(root(), &unknown, &KeyPath::root()))
}

fn elsewhere(table: &Table, unknown: &str, at: &KeyPath) -> Option<String> {
    table.iter().find_map(|(key, kind)| {
        let path = at.key(key);
        match kind {
            _ if key == unknown => Some(path.to_string()),
            Kind::Table(table) => elsewhere(table, unknown, &path),
            Kind::Value(_) | Kind::Tables(_) | Kind::Map => None,
        }
    })
}

/// The candidate that is spelt most like `unknown`, if one is near enough to be a slip.
pub(super) fn nearest<'a>(unknown: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(unknown, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(unknown.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use figment::value::{Dict, Value};
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::{
        admin::config::Token,
        jwt,
        limit::LimitConfig,
        proxy::config::{HeaderRules, RouteConfig},
        tenants, tls, webhook,
    };

    /// The fields serde knows of `T`, which it tells when it meets one it does not.
    fn fields<T: DeserializeOwned>() -> Vec<String> {
        let stranger = Value::from(Dict::from([("stranger".to_owned(), Value::from(0))]));
        let Err(error) = stranger.deserialize::<T>() else { panic!("a stranger was let in") };
        match error.kind {
            figment::error::Kind::UnknownField(_, fields) => {
                let mut fields: Vec<_> = fields.iter().map(|field| (*field).to_owned()).collect();
                fields.sort();
                fields
            }
            kind => panic!("{kind}"),
        }
    }

    fn keys(table: &Table) -> Vec<String> {
        table.keys().cloned().collect()
    }

    #[test]
    fn routes_tokens_and_certificates_are_known_to_the_last_key() {
        assert_eq!(keys(route()), fields::<RouteConfig>());
        assert_eq!(keys(&table(TOKEN)), fields::<Token>());
        assert_eq!(keys(&table(CERTIFICATE)), fields::<tls::config::Certificate>());
        assert_eq!(keys(&table(TENANT)), fields::<tenants::Config>());
        assert_eq!(keys(&table(WEBHOOK)), fields::<webhook::Config>());
        assert_eq!(keys(&table(LIMIT)), fields::<LimitConfig>());
        assert_eq!(keys(&table(ISSUER)), fields::<jwt::Config>());
        let Some(Kind::Table(headers)) = route().get("headers") else { panic!("a table") };
        assert_eq!(keys(headers), fields::<HeaderRules>());
    }

    #[test]
    fn found_by_path() {
        let path = |keys: &[&str]| keys.iter().fold(KeyPath::root(), |path, key| path.key(key));
        assert!(matches!(find(root(), &path(&["cache", "ttl_max"])), Some(Kind::Value(_))));
        assert!(matches!(find(root(), &path(&["cache", "status_ttl", "404"])), Some(Kind::Map)));
        assert!(matches!(find(root(), &path(&["admin", "tokens"])), Some(Kind::Tables(_))));
        assert!(find(root(), &path(&["cache", "ttl"])).is_none());
    }

    #[test]
    fn slips_are_recognised() {
        let Some(Kind::Table(cache)) = root().get("cache") else { panic!("a table") };
        assert_eq!(suggestion(cache, "tll_max").as_deref(), Some("ttl_max"));
        assert_eq!(suggestion(cache, "default-ttl").as_deref(), Some("default_ttl"));
        assert_eq!(suggestion(cache, "max_bytes").as_deref(), Some("l1.max_bytes"));
        assert_eq!(suggestion(cache, "frobnicate"), None);
    }
}
