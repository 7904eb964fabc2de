//! Packs of recorded calls: one for each file, whichever routes name it.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use crate::{
    cache::{llm::Packed, route::Route},
    config::ResolvedRoute,
    llm::{config::Mode, question::Settings},
    pack::{Error, Pack, Recording},
};

/// How the packs that routes name are opened: whether they are written, and up to which size.
type Wanted = HashMap<PathBuf, (bool, u64)>;

/// Those that are open.
pub(super) struct Packs {
    wanted: Wanted,
    open: HashMap<PathBuf, (Arc<Pack>, Vec<Recording>)>,
}

impl Packs {
    /// Those that routes name.
    pub(super) fn open<'r>(routes: impl Iterator<Item = &'r ResolvedRoute>) -> Result<Self, Error> {
        let wanted = wanted(routes);
        let open = |(path, (writes, bytes_max)): (PathBuf, (bool, u64))| {
            let (pack, recordings) = Pack::open(&path, writes, bytes_max)?;
            tracing::info!(pack = ?path, calls = recordings.len(), "recorded calls");
            Ok((path, (Arc::new(pack), recordings)))
        };
        let open = wanted.clone().into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { wanted, open })
    }

    /// Whether these routes want the same.
    pub(super) fn are_those_of<'r>(&self, routes: impl Iterator<Item = &'r ResolvedRoute>) -> bool {
        self.wanted == wanted(routes)
    }

    /// The part of a route.
    pub(super) fn of(&self, route: &Route, settings: &Settings) -> Option<Arc<Packed>> {
        let mode = settings.config.mode;
        let (pack, recordings) = self.open.get(&settings.config.pack).filter(|_| mode != Mode::Cache)?;
        let packed = Packed::new(route, settings, Arc::clone(pack), recordings);
        Some(Arc::new(packed))
    }
}

fn wanted<'r>(routes: impl Iterator<Item = &'r ResolvedRoute>) -> Wanted {
    let mut wanted = Wanted::new();
    for llm in routes.filter(|route| route.route.protocol.model().is_some()).map(|route| &route.llm) {
        if llm.mode != Mode::Cache {
            let (writes, bytes_max) = wanted.entry(llm.pack.clone()).or_default();
            *writes |= llm.mode != Mode::Replay;
            *bytes_max = (*bytes_max).max(llm.pack_bytes_max.as_u64());
        }
    }
    wanted
}
