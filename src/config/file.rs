//! The settings of a TOML document, held against the schema: every unknown key is found at once, with its place.

use std::ops::Range;

use figment::value::{Dict, Value};
use toml_edit::{Item, TableLike};

use super::{
    error::{Place, Problem},
    key_path::KeyPath,
    layer::{Layer, Origin, RouteSettings, Setting},
    locate::Source,
    schema::{self, Kind},
};

/// Takes a whole document apart.
pub(super) fn layer(source: &Source) -> Layer {
    let root = match source.parse() {
        Ok(root) => root,
        Err(problem) => return Layer { problems: vec![problem], ..Layer::default() },
    };
    let mut walk = Walk::new(source, None);
    walk.table(&root, schema::root(), &KeyPath::root());
    walk.layer
}

/// Takes apart a value that stands in for a whole file: `place` is where all of it is.
pub(super) fn routes_from(text: &str, place: &Place) -> Layer {
    let source = Source::new("", &format!("route = {text}"));
    let failed = |message: &str| {
        let problem = Problem::new(place.clone(), &KeyPath::root().key("route"), message);
        Layer { problems: vec![problem], ..Layer::default() }
    };
    match source.parse() {
        Ok(root) => {
            let mut walk = Walk::new(&source, Some(place));
            walk.table(&root, schema::root(), &KeyPath::root());
            walk.layer
        }
        Err(_) => failed("expected a TOML list of tables: [{ name = \"...\", upstream = \"...\" }]"),
    }
}

struct Walk<'a> {
    source: &'a Source,
    /// Stands for every place in the source.
    place: Option<&'a Place>,
    layer: Layer,
    /// Settings of the table list element being walked through.
    settings: Vec<Setting>,
    /// Names of what the paths of problems begin with.
    prefix: KeyPath,
}

impl<'a> Walk<'a> {
    fn new(source: &'a Source, place: Option<&'a Place>) -> Self {
        Self { source, place, layer: Layer::default(), settings: Vec::new(), prefix: KeyPath::root() }
    }

    /// The document's root; routes are set apart.
    fn table(&mut self, table: &dyn TableLike, schema: &schema::Table, path: &KeyPath) {
        self.keys(table, schema, path);
        self.layer.settings = std::mem::take(&mut self.settings);
        if let Some(item) = table.get("route") {
            self.routes(item, self.key_place(table, "route"));
        }
    }

    fn keys(&mut self, table: &dyn TableLike, schema: &schema::Table, path: &KeyPath) {
        for (key, item) in table.iter() {
            let path = path.key(key);
            let place = self.key_place(table, key);
            match schema.get(key) {
                None => self.unknown(schema, key, &path, place),
                Some(Kind::Tables(_)) if is_routes(&path, &self.prefix) => {}
                Some(Kind::Value(_)) => self.setting(path, item),
                Some(Kind::Tables(schema)) => self.tables(item, schema, path),
                Some(Kind::Table(schema)) => match item.as_table_like() {
                    Some(table) => self.keys(table, schema, &path),
                    None => self.problem(place, &path, "expected a table"),
                },
                Some(Kind::Map) => match item.as_table_like() {
                    Some(table) => table.iter().for_each(|(key, item)| self.setting(path.key(key), item)),
                    None => self.problem(place, &path, "expected a table"),
                },
            }
        }
    }

    /// A list of tables that is one setting; its elements are only searched for unknown keys.
    fn tables(&mut self, item: &Item, schema: &schema::Table, path: KeyPath) {
        for (index, (table, _)) in elements(item).into_iter().enumerate() {
            for (key, _) in table.iter().filter(|(key, _)| !schema.contains_key(*key)) {
                self.unknown(schema, key, &path.index(index).key(key), self.key_place(table, key));
            }
        }
        self.setting(path, item);
        // Unknown keys have been told, and must not hide what else is wrong.
        if let Some(Value::Array(_, list)) = self.settings.last_mut().map(|setting| &mut setting.value) {
            let dicts = list.iter_mut().filter_map(|element| match element {
                Value::Dict(_, dict) => Some(dict),
                _ => None,
            });
            dicts.for_each(|dict| dict.retain(|key, _| schema.contains_key(key)));
        }
    }

    fn routes(&mut self, item: &Item, place: Place) {
        let tables = elements(item);
        if tables.is_empty() && item.as_array().is_none_or(|array| !array.is_empty()) {
            return self.problem(place, &KeyPath::root().key("route"), "expected a list of tables: write [[route]]");
        }
        let routes =
            tables.into_iter().enumerate().map(|(index, (table, span))| self.route(index, table, span)).collect();
        self.layer.routes = Some(routes);
    }

    fn route(&mut self, index: usize, table: &dyn TableLike, span: Option<Range<usize>>) -> RouteSettings {
        let routes = KeyPath::root().key("route");
        let name = table.get("name").and_then(Item::as_str).filter(|name| !name.is_empty());
        self.prefix = name.map_or_else(|| routes.index(index), |name| routes.named(name));
        self.keys(table, schema::route(), &KeyPath::root());
        let path = std::mem::take(&mut self.prefix);
        let place = self.place(span);
        RouteSettings { path, place, settings: std::mem::take(&mut self.settings) }
    }

    fn setting(&mut self, path: KeyPath, item: &Item) {
        let origin = match self.place {
            Some(place) => Origin::Other(place.clone()),
            None => Origin::File(self.source.clone(), item.clone()),
        };
        self.settings.push(Setting { path, value: value(item), origin });
    }

    fn unknown(&mut self, schema: &schema::Table, key: &str, path: &KeyPath, place: Place) {
        self.problem(place, path, &unknown(schema::suggestion(schema, key)));
    }

    fn problem(&mut self, place: Place, path: &KeyPath, message: &str) {
        self.layer.problems.push(Problem::new(place, &self.prefix.then(path), message));
    }

    fn key_place(&self, table: &dyn TableLike, key: &str) -> Place {
        self.place.cloned().unwrap_or_else(|| self.source.place_of_key(table, key))
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        self.place.cloned().unwrap_or_else(|| self.source.place(span))
    }
}

/// What is said of an unknown key.
pub(super) fn unknown(suggestion: Option<String>) -> String {
    match suggestion {
        Some(suggestion) => format!("unknown key; did you mean `{suggestion}`?"),
        None => "unknown key".to_owned(),
    }
}

fn is_routes(path: &KeyPath, prefix: &KeyPath) -> bool {
    prefix.steps().is_empty() && path.keys().eq(["route"])
}

/// The tables of a list, whether written `[[list]]` or `list = [{}]`, each with its span.
fn elements(item: &Item) -> Vec<(&dyn TableLike, Option<Range<usize>>)> {
    match item {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| (table as &dyn TableLike, table.span())).collect(),
        _ => item
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|value| value.as_inline_table().map(|table| (table as &dyn TableLike, value.span())))
            .collect(),
    }
}

/// A TOML item as a value that settings are read from.
pub(super) fn value(item: &Item) -> Value {
    match item {
        Item::None => Value::from(""),
        Item::Value(value) => plain(value),
        Item::Table(table) => Value::from(dict(table)),
        Item::ArrayOfTables(tables) => Value::from(tables.iter().map(|table| dict(table)).collect::<Vec<_>>()),
    }
}

fn plain(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => Value::from(text.value().as_str()),
        toml_edit::Value::Integer(number) => Value::from(*number.value()),
        toml_edit::Value::Float(number) => Value::from(*number.value()),
        toml_edit::Value::Boolean(boolean) => Value::from(*boolean.value()),
        toml_edit::Value::Datetime(time) => Value::from(time.value().to_string()),
        toml_edit::Value::Array(array) => Value::from(array.iter().map(plain).collect::<Vec<_>>()),
        toml_edit::Value::InlineTable(table) => Value::from(dict(table)),
    }
}

fn dict(table: &dyn TableLike) -> Dict {
    table.iter().map(|(key, item)| (key.to_owned(), value(item))).collect()
}
