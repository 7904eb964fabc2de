//! One source of settings, taken apart: each setting with its path, its value and its place.

use figment::value::{Dict, Value};
use toml_edit::Item;

use super::{
    error::{Place, Problem},
    key_path::{KeyPath, Step},
    locate::Source,
};

/// What a file, the environment or the flags say.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// Settings outside of routes.
    pub(super) settings: Vec<Setting>,
    /// Routes, if this source has any word on them.
    pub(super) routes: Option<Vec<RouteSettings>>,
    /// What is wrong with it already: unknown keys, values where tables belong.
    pub(super) problems: Vec<Problem>,
}

/// One `[[route]]`.
#[derive(Debug)]
pub(super) struct RouteSettings {
    /// From the root to it.
    pub(super) path: KeyPath,
    /// Where it begins.
    pub(super) place: Place,
    /// Its settings, with paths that begin at it.
    pub(super) settings: Vec<Setting>,
}

/// One key and what it is set to.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// From the root, or from its route.
    pub(super) path: KeyPath,
    /// What it is set to.
    pub(super) value: Value,
    /// Where.
    pub(super) origin: Origin,
}

/// Where a setting comes from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// From a file, with the item itself, which knows where its parts stand.
    File(Source, Item),
    /// From elsewhere.
    Other(Place),
}

impl Setting {
    pub(super) fn new(path: KeyPath, value: impl Into<Value>, place: Place) -> Self {
        Self { path, value: value.into(), origin: Origin::Other(place) }
    }

    /// The place of the part of the value that `steps` lead to.
    pub(super) fn place(&self, steps: &[Step]) -> Place {
        match &self.origin {
            Origin::File(source, item) => source.place_in(item, steps),
            Origin::Other(place) => place.clone(),
        }
    }

    /// A tree with nothing but this setting.
    pub(super) fn tree(&self) -> Dict {
        let mut tree = Dict::new();
        insert(&mut tree, self);
        tree
    }
}

/// A tree of all these settings.
pub(super) fn tree<'a>(settings: impl IntoIterator<Item = &'a Setting>) -> Dict {
    settings.into_iter().fold(Dict::new(), |mut tree, setting| {
        insert(&mut tree, setting);
        tree
    })
}

fn insert(mut tree: &mut Dict, setting: &Setting) {
    let keys: Vec<_> = setting.path.keys().collect();
    let Some((last, tables)) = keys.split_last() else { return };
    for table in tables {
        let inner = tree.entry((*table).to_owned()).or_insert_with(|| Value::from(Dict::new()));
        match inner {
            Value::Dict(_, inner) => tree = inner,
            // Paths come from the schema, where what is a table once is one always.
            _ => return,
        }
    }
    tree.insert((*last).to_owned(), setting.value.clone());
}

/// The place of what `path` leads to: of the last setting that made it or what it is in.
pub(super) fn place_of<'a>(settings: impl DoubleEndedIterator<Item = &'a Setting>, path: &KeyPath) -> Option<Place> {
    settings.rev().find_map(|setting| path.behind(&setting.path).map(|steps| setting.place(steps)))
}
